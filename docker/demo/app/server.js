// The backend, written as if there were no mesh.
const os = require("node:os");
const express = require("express");

const port = process.env.PORT || 3000;
const app = express();

app.get("/", (request, response) => {
  response.send("Hello World!");
});

app.post("/tasks", express.json(), (request, response) => {
  response.status(202).json({ accepted: request.body.id, by: `${os.hostname()}:${port}` });
});

app.listen(port, () => {
  console.log(`Example app listening on port ${port}`);
});
