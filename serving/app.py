"""The server as an application of Ray Serve: engines in replicas of their own, and an API in front of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from addiffusion.metrics import Meters
from serving.drawing import LocalDrawing
from serving.errors import OverloadedError, RequestError, UnavailableError
from serving.jobs import Progress
from serving.limits import Limits
from serving.loop import EngineLoop
from serving.messages import Accepted, Decided, Drawn, Failed, Order, Outcome, Refused, Steer
from serving.model import ServedFacts, ServedModel
from serving.security import AsgiApp, access_for, read_key
from serving.web import WebSettings, make_app

ENGINE, API = "Engine", "Api"
"""Names of the deployments, by which `serve.yaml` sets their options."""
_ATTEMPTS = 3
"""Engines that a request is given to before it is answered by an error: those before have died with it."""
_TAKEN_IN_S = 60.0
"""Longest wait for an engine that takes a request in."""
_TOLD_S = 20.0
"""Longest wait for all engines to hear of something."""
_REQUESTS = 8
"""Requests of an engine, waiting ones among them, above which another one is wanted; `serve.yaml` says otherwise."""
_GRACE_S = 120.0
"""Longest time that a replica which is taken away may finish its requests in."""
_LAST_S = 1.0
"""For what is left when Serve ends a replica, which it does once no request is under way."""
_SILENCE_S = 3600.0
"""Longest wait for anything more of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaOptions:
    """What every replica is made by."""

    load: Callable[[], ServedModel]
    """Loads what an engine draws with, on its node."""
    host: str
    """On which Serve's proxies listen; beyond loopback the API needs a key."""
    key_file: Path | None
    limits: Limits


class Engine:
    """A replica that draws: one model, one engine loop."""

    def __init__(self, options: ReplicaOptions, meters: Callable[[str], Meters]) -> None:
        """Load the models.

        Args:
            options: of the application.
            meters: makes the meters of a replica by its name.
        """
        model = options.load()
        name = serve.get_replica_context().replica_tag
        self._loop = EngineLoop(model, limits=options.limits, meters=meters(name))
        self._loop.start()
        self._drawing = LocalDrawing(self._loop, model.facts, options.limits)

    async def facts(self) -> ServedFacts:
        """What clients may ask for."""
        return self._drawing.facts

    async def draw(self, order: Order) -> AsyncGenerator[Outcome]:
        """See ``Drawing.draw``; an error is an outcome here, for it travels as a value."""
        try:
            async for outcome in self._drawing.draw(order):
                yield outcome
        except RequestError as error:
            yield Failed(request_id=order.request_id, image=None, error=error)

    async def steer(self, message: Steer) -> None:
        """See ``Drawing.steer``."""
        await self._drawing.steer(message)

    async def interrupt(self) -> None:
        """See ``Drawing.interrupt``."""
        await self._drawing.interrupt()

    async def progress(self, *, preview: bool) -> Progress | None:
        """See ``Drawing.progress``."""
        return await self._drawing.progress(preview=preview)

    async def check_health(self) -> None:
        """Serve starts a replica anew where this raises."""
        await self._drawing.check_health()

    def __del__(self) -> None:
        """Serve has let the requests end before."""
        if hasattr(self, "_loop"):
            self._loop.close(within_s=_LAST_S)


class RemoteDrawing:
    """Draws by engines in replicas. An order says all of its images, so another engine can begin them again."""

    def __init__(self, engines: Any, facts: ServedFacts) -> None:
        """A drawing.

        Args:
            engines: handle of the deployment.
            facts: of any of them.
        """
        self._engines, self._facts = engines, facts

    @property
    def facts(self) -> ServedFacts:
        """See ``Drawing.facts``."""
        return self._facts

    async def draw(self, order: Order) -> AsyncGenerator[Outcome]:
        """See ``Drawing.draw``. What an engine has told before it died is not told again by the next one.

        Raises:
            RequestError: the order is refused, has failed, or no engine lives long enough.
        """
        told, begun_s = set[Any](), time.monotonic()
        for _ in range(_ATTEMPTS):
            spent = time.monotonic() - begun_s
            left = None if order.deadline_s is None else max(1e-3, order.deadline_s - spent)
            try:
                async for outcome in self._attempt(replace(order, deadline_s=left)):
                    key = _key(outcome)
                    if key not in told:
                        told.add(key)
                        yield outcome
            except (RayTaskError, RequestError):
                raise
            except BackPressureError as error:
                raise OverloadedError("All engines have as much to do as may wait.", retry_after_s=5) from error
            except (RayError, DeploymentUnavailableError):
                continue
            else:
                return
        raise UnavailableError(f"{_ATTEMPTS} engines have died with this request.", retry_after_s=30)

    async def steer(self, message: Steer) -> None:
        """See ``Drawing.steer``."""
        await self._broadcast("steer", message)

    async def interrupt(self) -> None:
        """See ``Drawing.interrupt``."""
        await self._broadcast("interrupt")

    async def progress(self, *, preview: bool) -> Progress | None:
        """See ``Drawing.progress``: of the one that is longest with its engine."""
        said = [one for one in await self._broadcast("progress", preview=preview) if one is not None]
        return max(said, key=lambda one: one.seconds, default=None)

    async def check_health(self) -> None:
        """See ``Drawing.check_health``.

        Raises:
            UnavailableError: no engine answers.
        """
        try:
            async with asyncio.timeout(_TAKEN_IN_S):
                await self._engines.facts.remote()
        except (RayError, DeploymentUnavailableError, TimeoutError) as error:
            raise UnavailableError("No engine answers.", retry_after_s=30) from error

    async def _attempt(self, order: Order) -> AsyncGenerator[Outcome]:
        stream = self._engines.options(stream=True).draw.remote(order)
        wait_s, ended = _TAKEN_IN_S, False
        try:
            while True:
                async with asyncio.timeout(wait_s):
                    outcome: Outcome = await anext(stream)
                if isinstance(outcome, Failed | Refused):
                    raise outcome.error
                yield outcome
                wait_s = _SILENCE_S
        except StopAsyncIteration:
            ended = True
        except TimeoutError as error:
            raise UnavailableError("No engine has room for this request.", retry_after_s=30) from error
        finally:
            if not ended:
                stream.cancel()

    async def _broadcast(self, method: str, *arguments: Any, **named: Any) -> list[Any]:
        """What the engines say; one that dies meanwhile says nothing."""
        asked = self._engines.broadcast(method, *arguments, **named)
        try:
            said = await asked.results_async(timeout_s=_TOLD_S, return_exceptions=True)
        except (RayError, DeploymentUnavailableError, TimeoutError) as error:
            raise UnavailableError("No engine answers.", retry_after_s=30) from error
        return [one for one in said if not isinstance(one, BaseException)]


class Api:
    """A replica that answers over HTTP and draws nothing itself."""

    async def __init__(self, engines: Any, options: ReplicaOptions) -> None:
        """Wait for an engine, which knows what may be asked for.

        Args:
            engines: handle of their deployment.
            options: of the application.
        """
        self._drawing = RemoteDrawing(engines, await engines.facts.remote())
        self._settings = WebSettings(access=access_for(options.host, read_key(options.key_file)), limits=options.limits)

    def __serve_build_asgi_app__(self) -> AsgiApp:
        """The app; Serve asks for it once the constructor is through."""
        return make_app(self._drawing, self._settings, lambda: _METRICS_PAGE)

    async def check_health(self) -> None:
        """Health of the API alone: engines have their own."""


def application(options: ReplicaOptions, meters: Callable[[str], Meters]) -> serve.Application:
    """API and engines as Serve deploys them.

    Args:
        options: what the replicas are made by.
        meters: makes the meters of an engine by its name.
    """
    engine = serve.deployment(
        name=ENGINE,
        max_ongoing_requests=8 * _REQUESTS,
        autoscaling_config={"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": _REQUESTS},
        graceful_shutdown_timeout_s=_GRACE_S,
    )(Engine)
    api = serve.deployment(
        name=API,
        max_ongoing_requests=1024,
        graceful_shutdown_timeout_s=_GRACE_S,
        ray_actor_options={"num_cpus": 0.1},
    )(serve.ingress()(Api))
    return api.bind(engine.bind(options, meters), options)


def _key(outcome: Outcome) -> Any:
    """By which an outcome that was told before is known."""
    match outcome:
        case Decided():
            return outcome.image, outcome.nfe
        case Drawn():
            return outcome.image
        case Accepted() | Refused() | Failed():
            return type(outcome)


_METRICS_PAGE = b"# The engines report through Ray: scrape the metrics ports of its nodes (cluster/monitoring).\n"
