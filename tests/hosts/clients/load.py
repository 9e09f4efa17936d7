"""Asks a server again and again until it is killed: `load.py OUTCOMES ADDRESS:PORT HOST`.

Two threads keep their connection, two open one for each request, each with GET and with POST, and one more looks HOST up for each
request. Every request leaves a line in the file OUTCOMES: what it was, and who answered or what went wrong.
"""

import http.client
import itertools
import sys
import threading
import time

outcomes, address, host = sys.argv[1:]
numbers = itertools.count()
log = open(outcomes, "a", buffering=1)


def connect(where):
    return http.client.HTTPConnection(*where.split(":"), timeout=45)


def ask(connection, method):
    body = str(next(numbers)) if method == "POST" else None
    connection.request(method, "/", body, {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode().strip()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status} {text}")
    return text


def ask_for_ever(kind, where, method):
    connection = connect(where)
    while True:
        try:
            outcome = f"ok {ask(connection, method)}"
        except Exception as error:
            outcome = f"failed {error!r}"
            connection.close()
        log.write(f"{kind} {method} {outcome}\n")
        if kind != "kept":
            connection.close()
            # More connections a second would use up the ports of a host, some of which then get the remains of others.
            time.sleep(0.01)


for words in [("kept", address, "GET"), ("kept", address, "POST"), ("new", address, "GET"), ("new", address, "POST")]:
    threading.Thread(target=ask_for_ever, args=words, daemon=True).start()
ask_for_ever("named", host, "GET")
