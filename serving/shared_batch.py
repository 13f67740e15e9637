"""One batch for the images of all requests: who gets a slot, what is told of whom, and what becomes of errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from addiffusion.actions import Action
from addiffusion.errors import ConfigError
from addiffusion.metrics import Meters
from addiffusion.records import TicketId
from serving import metrics
from serving.deadlines import Hurry, Pace, hurried
from serving.errors import (
    CancelledError,
    DeadlineError,
    ImageError,
    OverloadedError,
    RefusedError,
    RequestError,
)
from serving.fair_queue import FairQueue
from serving.limits import Limits
from serving.messages import Accepted, Cancel, Order, Refused, Steer, Submit
from serving.model import ServedModel
from serving.open_requests import OpenRequest, OpenRequests
from serving.outcomes import Outcomes

_FIELDS = {
    "num_steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "max_cost": "max_cost",
    "solver": "solver",
}
_STEERED = {"stop": Action.STOP, "continue": Action.CONTINUE}


class SharedBatch:
    """Requests, those of their images that wait, and those in the slots of one engine.

    Every request that is taken in is told as many ``Drawn`` as it has images, or ``Failed`` once, or is cancelled.
    """

    def __init__(self, model: ServedModel, *, limits: Limits, meters: Meters, clock: Callable[[], float]) -> None:
        """Without requests.

        Args:
            model: what draws.
            limits: how many images may wait, and how many schedules are kept.
            meters: carries the metrics.
            clock: seconds from any moment on, never backwards.
        """
        self._model, self._limits, self._meters, self._clock = model, limits, meters, clock
        self.slots = model.config.rollout.slots
        self._batch = model.make_batch(self.slots)
        self._open, self._waiting, self._pace = OpenRequests(), FairQueue(), Pace()
        self._outcomes = Outcomes(model, self._open, meters=meters, clock=clock)
        self._decided: dict[int, Action] = {}
        self._decided_at: dict[int, int] = {}
        """Step by slot: an action may have led on from it."""
        self._ticket_count = 0
        self._began_s = 0.0
        self._image_s = Pace()
        """Seconds of an image in its slot."""

    @property
    def busy(self) -> bool:
        """Whether a request is not answered yet."""
        return len(self._open) > 0

    @property
    def rows_wanted(self) -> int:
        """Rows that the images under way would take of the next tick."""
        return self._batch.engine.rows_wanted

    # ---------------------------------------------------------------- messages

    def submit(self, message: Submit) -> None:
        """Take a request in, or tell why not."""
        order, now = message.order, self._clock()
        try:
            self._check_room(order)
            schedule = self._batch.engine.check(order.setting)
            least = schedule.least_passes
            if order.deadline_s is not None and self._pace.ticks(order.deadline_s) + 1 < least:
                raise _late(order, f"an image takes at least {least * self._pace.tick_s:.2g} s now")
        except ConfigError as error:
            self._refuse(message, RefusedError(error.message, param=_param(error)))
        except RequestError as error:
            self._refuse(message, error)
        else:
            message.tell(Accepted(request_id=order.request_id, waiting_count=len(self._waiting)))
            request = OpenRequest(
                order=order,
                tell=message.tell,
                arrived_s=now,
                deadline_at_s=math.inf if order.deadline_s is None else now + order.deadline_s,
                least_passes=least,
                finish_passes=least - schedule.sampler.warmup_steps - 1,
            )
            self._open.open(request)
            self._waiting.put(order.request_id, list(range(len(order.seeds))))

    def cancel(self, message: Cancel) -> None:
        """Give up what is left of a request; one that is answered already stays so."""
        request = self._open.get(message.request_id)
        if request is None:
            return
        if message.as_they_are:
            for slot in list(request.slots.values()):
                if self._batch.engine.info(slot).nfe:
                    self._outcomes.tell_drawn(self._batch, slot, whole=False)
                    self._leave(slot)
        self._meters.record(metrics.CANCELLED, request.left)
        error = CancelledError("The request was called off.") if message.as_they_are and request.left else None
        self._close(request, error, outcome="cancelled")

    def steer(self, message: Steer) -> None:
        """Override the policy in one image."""
        request, action = self._open.get(message.request_id), _STEERED[message.action]
        if request is not None:
            request.steered[message.image] = action
            slot = request.slots.get(message.image)
            if slot is not None:
                episode = self._batch.episodes[slot]
                episode.ticket = replace(episode.ticket, forced=action)

    # ---------------------------------------------------------------- a tick

    def pick(self) -> None:
        """Look at deadlines, and give free slots to images that wait, one of each request in turn."""
        self._began_s = self._clock()
        for request in self._open:
            if request.deadline_at_s < math.inf:
                self._mind_deadline(request)
        if self._batch.engine.schedule_count > self._limits.schedules:
            if self._batch.episodes:
                return  # it empties first
            self._batch = self._model.make_batch(self.slots)
        for _ in self._batch.engine.free():
            if len(self._waiting):
                self._admit(*self._waiting.take())

    def network_pass(self) -> None:
        """One pass; an image that comes to values that are not finite fails its own request."""
        if self._batch.engine.running:
            self._meters.record(metrics.ROWS, self._batch.engine.rows_wanted)
            self._meters.record(metrics.TICKS, 1)
            self._fail_images(self._batch.network_pass())

    def update(self) -> None:
        """Decide about the images that wait for it."""
        self._decided_at = {slot: self._batch.engine.info(slot).step for slot in self._batch.engine.deciding()}
        self._decided, failed = self._batch.decide()
        self._fail_images(failed)

    def outcomes(self) -> None:
        """Tell what was decided and what is done."""
        self._outcomes.tell_decisions(self._batch, self._decided, self._decided_at)
        for slot in self._batch.engine.done():
            request, _ = self._open.at(slot)
            self._image_s.note(self._outcomes.tell_drawn(self._batch, slot))
            self._leave(slot)
            if not request.left:
                self._meters.record(metrics.END_TO_END, self._clock() - request.arrived_s)
                self._close(request, None, outcome="done")
        self._pace.note(self._clock() - self._began_s)

    def record_load(self) -> None:
        """Report what waits and what is under way."""
        self._meters.record(metrics.QUEUE, len(self._waiting))
        self._meters.record(metrics.SLOTS, self._open.placed_count)

    # ---------------------------------------------------------------- when something is wrong with all of them

    def begin_again(self, reason: str, *, slots: int) -> None:
        """Make the engine anew and begin the images under way again: a second time they fail.

        Args:
            reason: what went wrong.
            slots: images at once from now on.
        """
        self.slots = slots
        self._batch = self._model.make_batch(slots)
        self._decided = {}
        self._meters.record(metrics.RESTARTS, 1)
        for request in self._open:
            lost = sorted(request.slots)
            for slot in list(request.slots.values()):
                self._open.leave(slot)
            if lost and request.attempts > 1:
                self._close(request, ImageError(f"The images could not be drawn: {reason}"), image=lost[0])
            elif lost:
                request.attempts += 1
                self._waiting.put(request.order.request_id, lost)

    def fail_all(self, error: RequestError) -> None:
        """Answer every request with an error, without touching the engine."""
        for request in self._open:
            for slot in list(request.slots.values()):
                self._open.leave(slot)
            self._close(request, error)

    # ---------------------------------------------------------------- parts

    def _check_room(self, order: Order) -> None:
        if len(order.seeds) > self._limits.waiting_images:
            raise RefusedError(
                f"n={len(order.seeds)} images are more than the {self._limits.waiting_images} that may wait here: ask "
                "for fewer.",
                param="n",
            )
        room = self._limits.waiting_images - len(self._waiting)
        if len(order.seeds) > room:
            seconds = max(1, math.ceil(len(self._waiting) * self._image_s.tick_s / self.slots))
            raise OverloadedError(
                f"{len(self._waiting)} images wait already, and {self._limits.waiting_images} may: come again in about "
                f"{seconds} s.",
                retry_after_s=seconds,
            )

    def _refuse(self, message: Submit, error: RequestError) -> None:
        self._meters.record(metrics.REQUESTS, 1, outcome=error.code)
        message.tell(Refused(request_id=message.order.request_id, error=error))

    def _mind_deadline(self, request: OpenRequest) -> None:
        left_s = request.deadline_at_s - self._clock()
        ticks = self._pace.ticks(left_s)
        waits = request.order.request_id in self._waiting
        if left_s <= 0 or (waits and ticks + 1 < request.least_passes):
            self._close(
                request, _late(request.order, "the images before its own take too long" if waits else "it is over")
            )
            return
        for image, slot in request.slots.items():
            episode = self._batch.episodes[slot]
            hurry = Hurry(
                info=self._batch.engine.info(slot),
                ticks_left=ticks,
                finish_passes=request.finish_passes,
                dial=self._model.dial,
            )
            ticket = hurried(episode.ticket, hurry)
            if ticket is not episode.ticket and image not in request.raised:
                request.raised.add(image)
                self._meters.record(metrics.RAISED, 1)
            episode.ticket = ticket

    def _admit(self, request_id: str, image: int) -> None:
        request = self._open.get(request_id)
        assert request is not None
        self._ticket_count += 1
        ticket = request.ticket(image, TicketId(self._ticket_count))
        if self._model.act is None:
            ticket = replace(ticket, forced=ticket.forced if ticket.forced is not None else Action.CONTINUE)
        slot = self._batch.admit(ticket)
        self._open.place(request, image, slot, self._clock())

    def _fail_images(self, failed: dict[int, str]) -> None:
        failing = {slot: self._open.at(slot) for slot in failed}
        for slot, (request, image) in failing.items():
            self._close(request, ImageError(f"Image {image} could not be drawn. {failed[slot]}"), image=image)

    def _close(
        self, request: OpenRequest, error: RequestError | None, *, image: int | None = None, outcome: str = ""
    ) -> None:
        """Answer a request: all that is left of it leaves."""
        if request.order.request_id not in self._open:
            return
        self._waiting.drop(request.order.request_id)
        for slot in list(request.slots.values()):
            self._leave(slot)
        assert outcome or error
        self._meters.record(metrics.REQUESTS, 1, outcome=outcome or (error.code if error else ""))
        self._open.close(request, error, image)

    def _leave(self, slot: int) -> None:
        self._batch.leave(slot)
        self._open.leave(slot)


def _param(error: ConfigError) -> str | None:
    """Field of a request that an engine's refusal is about."""
    return next((_FIELDS[name] for name in error.facts if name in _FIELDS), None)


def _late(order: Order, why: str) -> DeadlineError:
    return DeadlineError(
        f"The images can't be drawn within deadline_s={order.deadline_s:g}: {why}. Give more time, fewer images or "
        "fewer steps.",
        param="deadline_s",
    )
