// fetch.mjs HOST:PORT...   reads a page of each and posts to it, with Node's fetch

for (const destination of process.argv.slice(2)) {
  await show(`http://${destination}/page?by=node`);
  await show(`http://${destination}/page`, { method: "POST", body: "posted by Node" });
}

async function show(url, options) {
  const answer = await fetch(url, { signal: AbortSignal.timeout(20_000), ...options });
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  process.stdout.write(await answer.text());
}
