"""A scheduler, written as if there were no mesh: it looks whether the backend is well, and posts the tasks that are due.

It knows one address, and nothing of instances, retries or a proxy.
"""

import itertools
import json
import os
import time
import uuid
from urllib.request import Request, urlopen

BACKEND = "http://backend:3000"
TASKS_PER_SECOND = float(os.environ.get("TASKS_PER_SECOND", "20"))
TIMEOUT_SECONDS = 10


def check():
    with urlopen(f"{BACKEND}/", timeout=TIMEOUT_SECONDS) as answer:
        body = answer.read().decode()
    if body != "Hello World!":
        raise OSError(f"the backend says {body!r}")


def post(task):
    # The key says that this is one task, however often it arrives.
    headers = {"Content-Type": "application/json", "Idempotency-Key": task["id"]}
    request = Request(f"{BACKEND}/tasks", json.dumps(task).encode(), headers)
    with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        return json.load(answer)


def main():
    for number in itertools.count(1):
        task = {"id": str(uuid.uuid4()), "do": f"task {number}"}
        try:
            check()
            print(f"task {number}: accepted by {post(task)['by']}", flush=True)
        except OSError as failure:
            print(f"task {number}: failed: {failure}", flush=True)
        time.sleep(1 / TASKS_PER_SECOND)


if __name__ == "__main__":
    main()
