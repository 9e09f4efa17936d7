"""Reads a page of each and posts to it, with requests: `requests_client.py HOST:PORT...`."""

import sys

import requests

with requests.Session() as session:
    for destination in sys.argv[1:]:
        answers = [session.get(f"http://{destination}/page?by=requests", timeout=20),
                   session.post(f"http://{destination}/page", data="posted by requests", timeout=20)]
        for answer in answers:
            answer.raise_for_status()
            print(answer.text, end="")
