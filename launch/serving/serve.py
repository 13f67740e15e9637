"""The server in one process: an engine loop in a thread of its own, and uvicorn in this one."""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
from rich.console import Console

from addiffusion.errors import ConfigError, DeviceLostError, UsageError
from launch.runtime.console import Stage
from launch.runtime.interrupt import interruptible
from launch.serving.orders import ServeOrder
from serving.drawing import LocalDrawing
from serving.limits import Limits
from serving.loop import EngineLoop
from serving.model import load_served_model
from serving.prometheus import PrometheusMeters
from serving.security import AsgiApp, access_for, read_key
from serving.web import WebSettings, make_app

_CONNECTIONS = 1024


def serve(order: ServeOrder, console: Console, *, files: Sequence[Path] = (), overrides: Sequence[str] = ()) -> None:
    """Answer requests until SIGINT or SIGTERM; what is under way is finished first.

    Args:
        order: who draws, and where requests come in.
        console: says where it listens.
        files: of YAML, over the policy's configuration.
        overrides: as on the command line.

    Raises:
        UsageError: policy, configuration, key, host or port can't be used.
        DeviceLostError: the engine can draw nothing any more.
    """
    access = access_for(order.host, read_key(order.api_key_file))
    limits = replace(Limits(), waiting_images=order.waiting)
    listening = _listening(order)
    with listening, _drawing(order, limits, console, files=files, overrides=overrides) as (drawing, meters):
        listening.listen(_CONNECTIONS)
        app = make_app(drawing, WebSettings(access=access, limits=limits), meters.page)
        host, port = listening.getsockname()[:2]
        facts = drawing.facts
        console.print(
            f"{facts.model} under the policy {facts.policy}, {facts.slots} images at once: "
            f"http://{f'[{host}]' if ':' in host else host}:{port}",
            highlight=False,
            soft_wrap=True,
        )
        with interruptible(lambda: None):  # uvicorn raises the signal once more when it has ended
            server(app, drawing, order.grace_s).run(sockets=[listening])
        if drawing.refusal is not None:
            raise DeviceLostError(drawing.refusal.message)


class Server(uvicorn.Server):
    """Uvicorn, which ends by itself once its engine can draw nothing any more: a supervisor starts a new process."""

    def __init__(self, config: uvicorn.Config, drawing: LocalDrawing) -> None:
        super().__init__(config)
        self._drawing = drawing

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; whether to end."""
        return await super().on_tick(counter) or self._drawing.refusal is not None


def server(app: AsgiApp, drawing: LocalDrawing, grace_s: float) -> Server:
    """A server for an app.

    Args:
        app: answers.
        drawing: draws for it.
        grace_s: how long a stop waits for answers under way.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=round(grace_s),
        server_header=False,
    )
    return Server(config, drawing)


@contextmanager
def _drawing(
    order: ServeOrder, limits: Limits, console: Console, *, files: Sequence[Path], overrides: Sequence[str]
) -> Generator[tuple[LocalDrawing, PrometheusMeters]]:
    with Stage(console, "loading the models"):
        model = load_served_model(order.policy, files=files, overrides=overrides)
        meters = PrometheusMeters()
        engine_loop = EngineLoop(model, limits=limits, meters=meters)
    engine_loop.start()
    try:
        yield LocalDrawing(engine_loop, model.facts, limits), meters
    finally:
        engine_loop.close(within_s=order.grace_s)


def _listening(order: ServeOrder) -> socket.socket:
    """A socket on which requests come in; it is open before the models are loaded, and full before they are lost."""
    try:
        family, _, _, _, address = socket.getaddrinfo(order.host, order.port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except socket.gaierror as error:
        raise ConfigError(f"--host {order.host} is no address of this machine ({error.strerror}).") from error
    except OSError as error:
        raise UsageError(
            f"Nothing can listen on {order.host}:{order.port} ({error.strerror}): give another --port, or 0 for a free "
            "one.",
            port=order.port,
        ) from error
    return opened
