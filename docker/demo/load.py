"""Browsers of the demo: threads that read the page at the edge again and again, and count what they saw."""

import http.client
import threading
import time

BROWSERS = 4
PAUSE_SECONDS = 0.01
TIMEOUT_SECONDS = 10


class Load:
    """`with Load(port) as load`: it browses until the block ends."""

    def __init__(self, port):
        self.port = port
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.pages = 0
        self.failures = []

    def __enter__(self):
        self.browsers = [threading.Thread(target=self.browse) for _ in range(BROWSERS)]
        for browser in self.browsers:
            browser.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for browser in self.browsers:
            browser.join()

    def browse(self):
        connection = http.client.HTTPConnection("localhost", self.port, timeout=TIMEOUT_SECONDS)
        while not self.ended.is_set():
            failure = read_page(connection)
            with self.lock:
                if failure:
                    self.failures.append(f"{time.strftime('%T')} {failure}")
                else:
                    self.pages += 1
            time.sleep(PAUSE_SECONDS)
        connection.close()


def read_page(connection):
    """None, or what was wrong with the answer."""
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read().decode()
    except (OSError, http.client.HTTPException) as failure:
        connection.close()
        return repr(failure)
    return None if (answer.status, body) == (200, "Hello World!") else f"{answer.status} {body[:200]}"
