"""Reads a page of each and posts to it, with httpx: `httpx_client.py HOST:PORT...`."""

import sys

import httpx

with httpx.Client(timeout=20) as client:
    for destination in sys.argv[1:]:
        answers = [client.get(f"http://{destination}/page?by=httpx"), client.post(f"http://{destination}/page", content="posted by httpx")]
        for answer in answers:
            answer.raise_for_status()
            print(answer.text, end="")
