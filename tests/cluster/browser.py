"""A headless Chromium that is driven by its own protocol: opens pages, reads what they show, takes pictures."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.head import started
from tests.cluster.waiting import wait_for

CHROMIUM = shutil.which("chromium")
START_S, ANSWER_S = 120.0, 60.0
_MOVES = 20
SIZE = "1440,900"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0", f"--window-size={SIZE}",
)  # fmt: skip


class NavigatedError(Exception):
    """The page went elsewhere before it answered."""


class Page:
    """One tab."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._session, self._socket = self._loop.run_until_complete(_connect(port))
        self._count = 0
        self.errors: list[str] = []
        """Errors on the console and exceptions that nobody caught, from ``watch_errors`` on."""

    def watch_errors(self) -> None:
        """Note errors from here on."""
        self._call("Runtime.enable")
        self._call("Log.enable")

    def resize(self, width: int, height: int) -> None:
        """Give the tab another size, in CSS pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme: str) -> None:
        """What the system prefers: ``light`` or ``dark``."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str, *, control: bool = False) -> None:
        """A key goes down and up again where the focus is."""
        code = ord(key.upper()) if len(key) == 1 else {"Enter": 13, "Escape": 27}[key]
        text = {} if control else {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 if control else 0}
        self._call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def close(self) -> None:
        """End the connection, not the browser."""
        self._loop.run_until_complete(self._session.close())
        self._loop.close()

    def open(self, url: str) -> None:
        """Go to ``url``; what it shows comes later."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        """What a reader of the page sees; asked again where the page goes elsewhere meanwhile."""
        for _ in range(_MOVES):
            try:
                return self.run("document.body ? document.body.innerText : ''")
            except NavigatedError:
                continue
        raise NavigatedError

    def type(self, text: str) -> None:
        """Into the field that has the focus."""
        self._call("Input.insertText", text=text)

    def shoot(self, file: Path) -> None:
        """Save what is to be seen as PNG."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        return self._loop.run_until_complete(asyncio.wait_for(self._exchange(method, parameters), ANSWER_S))

    async def _exchange(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while (answer := await self._socket.receive_json()).get("id") != self._count:
            self._note(answer)
        if "navigated" in answer.get("error", {}).get("message", ""):
            raise NavigatedError
        assert "error" not in answer, answer
        return answer["result"]

    def _note(self, event: dict[str, Any]) -> None:
        said = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if said["type"] == "error":
                self.errors.append(str(said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
            case _:
                pass  # nobody has asked for it


async def _connect(port: int) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        (tab,) = [one for one in await answer.json() if one["type"] == "page"]
    return session, await session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in ``folder``, for the length of the block."""
    assert CHROMIUM is not None
    profile, log = folder / "profile", folder / "chromium.log"
    announced = profile / "DevToolsActivePort"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with started(command, dict(os.environ), log):
        port = wait_for(
            "Chromium",
            lambda: announced.read_text().splitlines()[0],
            timeout_s=START_S,
            give_up=lambda: log.read_text()[-2000:],
        )
        page = Page(int(port))
        try:
            yield page
        finally:
            page.close()
