"""Requests that are taken in and not yet answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from addiffusion.actions import Action
from addiffusion.records import Prompt, PromptId, Ticket, TicketId
from serving.errors import RequestError
from serving.messages import Failed, Order, Outcome


@dataclass(slots=True, kw_only=True)
class OpenRequest:
    """A request, and where each of its images is."""

    order: Order
    tell: Callable[[Outcome], None]
    arrived_s: float
    deadline_at_s: float
    """Infinite without a deadline."""
    least_passes: int
    """Of an image that stops at its first decision."""
    finish_passes: int
    """Of those, what follows the stop."""
    slots: dict[int, int] = field(default_factory=dict[int, int])
    """Slot by image, of those under way."""
    admitted_s: dict[int, float] = field(default_factory=dict[int, float])
    """When each image got its first slot."""
    steered: dict[int, Action] = field(default_factory=dict[int, Action])
    """Action by image, where the policy is overridden."""
    previews_told: dict[int, int] = field(default_factory=dict[int, int])
    done: set[int] = field(default_factory=set[int])
    raised: set[int] = field(default_factory=set[int])
    """Images whose price the deadline has raised."""
    attempts: int = 1

    @property
    def left(self) -> int:
        """Images that are not told yet."""
        return len(self.order.seeds) - len(self.done)

    def ticket(self, image: int, ticket_id: TicketId) -> Ticket:
        """What the engine draws an image by."""
        order = self.order
        prompt = Prompt(prompt_id=PromptId(ticket_id), text=order.prompt, tier=0)
        ticket = Ticket.greedy(
            ticket_id, prompt, seed=order.seeds[image], c_nfe=order.c_nfe, setting=order.setting, keep_image=False
        )
        forced = self.steered.get(image, Action.CONTINUE if order.full_run else None)
        return replace(ticket, forced=forced)


class OpenRequests:
    """All of them, by id, and whose image is in which slot."""

    def __init__(self) -> None:
        self._open: dict[str, OpenRequest] = {}
        self._places: dict[int, tuple[OpenRequest, int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenRequest]:
        return iter(list(self._open.values()))

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._open

    @property
    def placed_count(self) -> int:
        """Images in slots."""
        return len(self._places)

    def get(self, request_id: str) -> OpenRequest | None:
        """The request of that id; None where it is answered, or never was."""
        return self._open.get(request_id)

    def open(self, request: OpenRequest) -> None:
        """Take a request in."""
        self._open[request.order.request_id] = request

    def place(self, request: OpenRequest, image: int, slot: int, now_s: float) -> None:
        """An image has got a slot.

        Args:
            request: whose it is.
            image: which of its images.
            slot: where.
            now_s: the time.
        """
        self._places[slot] = request, image
        request.slots[image] = slot
        request.admitted_s.setdefault(image, now_s)

    def at(self, slot: int) -> tuple[OpenRequest, int]:
        """Whose image a slot has, and which of its images."""
        return self._places[slot]

    def leave(self, slot: int) -> None:
        """An image has left its slot."""
        request, image = self._places.pop(slot)
        del request.slots[image]

    def close(self, request: OpenRequest, error: RequestError | None = None, image: int | None = None) -> None:
        """A request is answered: every image is told, or with an error.

        Args:
            request: it holds no slot any more.
            error: why nothing more comes of it.
            image: the one that failed.
        """
        if self._open.pop(request.order.request_id, None) is not None and error is not None:
            request.tell(Failed(request_id=request.order.request_id, image=image, error=error))
