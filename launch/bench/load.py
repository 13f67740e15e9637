"""A client process of `addiffusion bench serve`: requests at given times, whether or not earlier ones are answered.

Run as a module; it imports nothing but the standard library, so that its start costs little beside a server at work.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from typing import Any

PATIENCE_S = 1800.0
"""Longest wait for an answer."""


def main() -> None:
    """Read ``{address, begin, requests: [[seconds after begin, body], ...]}`` and write what became of each."""
    task = json.load(sys.stdin)
    answers: list[dict[str, Any]] = [{} for _ in task["requests"]]
    threads: list[threading.Thread] = []
    for number, (after_s, body) in enumerate(task["requests"]):
        time.sleep(max(0.0, task["begin"] + after_s - time.time()))
        threads.append(threading.Thread(target=ask, args=(task["address"], body, answers[number])))
        threads[-1].start()
    for thread in threads:
        thread.join(PATIENCE_S)
    json.dump(answers, sys.stdout)


def ask(address: str, body: dict[str, Any], answer: dict[str, Any]) -> None:
    """Note when it was sent and answered (wall clock, which all processes share), and with what."""
    sent = json.dumps(body)
    answer["sent"] = time.time()
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("POST", "/v1/images/generations", sent, {"Content-Type": "application/json"})
        response = connection.getresponse()
        said = json.load(response)
        answer["done"] = time.time()
        if response.status == 200:
            answer["image"], answer["record"] = said["data"][0]["b64_json"], said["data"][0]["addiffusion"]
        else:
            answer["error"] = said["error"]["message"]
    except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    main()
