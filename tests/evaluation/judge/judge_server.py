"""A judge on loopback that speaks the chat protocol and does what it is told."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer; status 0 hangs up instead, status -1 says nothing until the client has gone."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as the server saw it."""

    path: str
    headers: Message
    body: dict[str, Any]

    @property
    def authorization(self) -> str | None:
        return self.headers["Authorization"]

    @property
    def images(self) -> list[np.ndarray]:
        parts = self.body["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        blobs = [base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True) for url in urls]
        return [np.asarray(Image.open(io.BytesIO(blob))) for blob in blobs]


def reply(text: str) -> Answer:
    return Answer(body=json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}))


def brighter(seen: Seen) -> Answer:
    """Prefers the brighter image, wherever it stands."""
    first, second = (float(image.mean()) for image in seen.images)
    return reply(f"One is brighter.\nWINNER: {'A' if first > second else 'B'}")


@dataclass(slots=True, kw_only=True)
class JudgeServer:
    """Answers from ``script`` while it lasts, then by ``rule``."""

    base_url: str
    rule: Callable[[Seen], Answer] = brighter
    script: list[Answer] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def answer(self, seen: Seen) -> Answer:
        self.seen.append(seen)
        return self.script.pop(0) if self.script else self.rule(seen)


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = judge.answer(Seen(path=self.path, headers=self.headers, body=body))
            if answer.status == -1:
                self.rfile.read(1)
            if answer.status <= 0:
                self.close_connection = True
                return
            data = answer.body.encode()
            self.send_response_only(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        judge = JudgeServer(base_url=f"http://127.0.0.1:{server.server_address[1]}/v1")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()
