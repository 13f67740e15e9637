"""What the images of a batch are told as: decisions with previews, and finished images with what they took."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from addiffusion.actions import Action
from addiffusion.metrics import Meters
from addiffusion.pipeline.batch import ImageBatch
from addiffusion.sampling.slot import SlotInfo
from serving import metrics
from serving.messages import Decided, Drawn
from serving.model import ServedModel
from serving.open_requests import OpenRequests


class Outcomes:
    """Makes the outcomes of open requests, and tells them."""

    def __init__(
        self, model: ServedModel, requests: OpenRequests, *, meters: Meters, clock: Callable[[], float]
    ) -> None:
        """Nothing is told yet.

        Args:
            model: what draws.
            requests: whose images are in which slots.
            meters: carries the metrics.
            clock: as of the shared batch.
        """
        self._model, self._open, self._meters, self._clock = model, requests, meters, clock

    def tell_decisions(self, batch: ImageBatch, decided: Mapping[int, Action]) -> None:
        """Tell the decisions of a tick that are to be told.

        Args:
            batch: after the decisions.
            decided: action by slot.
        """
        due = {slot: index for slot in decided if slot in batch.episodes for index in self._due(batch, slot)}
        previews = batch.previews(list(due))
        for slot, preview_index in due.items():
            request, image = self._open.at(slot)
            info, action = batch.engine.info(slot), decided[slot]
            shows = action is Action.REFINE and request.order.every_decision
            mask = batch.engine.refine_mask(slot) if shows else None
            if preview_index is not None:
                if not request.previews_told:
                    self._meters.record(metrics.FIRST_PREVIEW, self._clock() - request.arrived_s)
                request.previews_told[image] = preview_index + 1
            request.tell(
                Decided(
                    request_id=request.order.request_id,
                    image=image,
                    step=info.step,
                    num_steps=info.num_steps,
                    action=action,
                    nfe=info.nfe,
                    cost=info.cost,
                    preview_index=preview_index,
                    preview=previews[slot].copy(),
                    mask=None if mask is None else mask.cpu().numpy().copy(),
                )
            )

    def _due(self, batch: ImageBatch, slot: int) -> list[int | None]:
        """Number of the preview that a decision is to be told with, or None without a number; nothing: not told.

        Previews are spread evenly from the first decision to where the image is expected to end.
        """
        request, image = self._open.at(slot)
        info, told, wanted = batch.engine.info(slot), request.previews_told.get(image, 0), request.order.previews
        first = request.least_passes - request.finish_passes
        cost = self._model.dial.expected_cost(batch.episodes[slot].ticket.c_nfe, info.num_steps)
        end = info.num_steps if cost is None or request.order.full_run else cost / self._pass_cost(info)
        if told < wanted and info.nfe >= first + (min(end, info.num_steps) - first) * told / wanted:
            return [told]
        return [None] if request.order.every_decision else []

    def tell_drawn(self, batch: ImageBatch, slot: int, *, whole: bool = True) -> float:
        """Tell of the image in a slot, which stays in it.

        Args:
            batch: whose slot it is.
            slot: done, or anywhere.
            whole: done; else it is told as a preview.

        Returns:
            Seconds that it was in its slot.
        """
        request, image = self._open.at(slot)
        engine, now = batch.engine, self._clock()
        drawn, info = batch.drawn(slot), engine.info(slot)
        full_cost = info.num_steps * self._pass_cost(info)
        engine_s = now - request.admitted_s[image]
        request.tell(
            Drawn(
                request_id=request.order.request_id,
                image=image,
                pixels=engine.decode_one(slot) if whole else engine.preview([slot])[0].copy(),
                seed=request.order.seeds[image],
                c_nfe=batch.episodes[slot].ticket.c_nfe,
                nfe=drawn.nfe,
                network_evals=drawn.network_evals,
                cost=drawn.cost,
                full_cost=full_cost,
                actions=drawn.actions,
                stopped_at=drawn.stopped_at,
                prompt_tokens=batch.prompt_tokens(slot),
                seconds=now - request.arrived_s,
                engine_seconds=engine_s,
                whole=whole,
            )
        )
        request.done.add(image)
        if whole:
            self._meters.record(metrics.IMAGES, 1)
            self._meters.record(metrics.COST, drawn.cost)
            self._meters.record(metrics.SPENT, drawn.cost)
            self._meters.record(metrics.FULL, full_cost)
        return engine_s

    def _pass_cost(self, info: SlotInfo) -> float:
        """Of a pass of the full run at an image's setting."""
        return 0.5 if self._model.facts.guided and info.guidance_scale <= 1 else 1.0
