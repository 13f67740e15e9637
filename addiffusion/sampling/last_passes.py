"""The passes that led slots to the decisions they wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from addiffusion.backbones.base import PassRecord


class _Seen(NamedTuple):
    record: PassRecord
    row: int
    """Of the slot's prompt in the batch of that pass."""


class LastPasses:
    """Records of passes, each kept no longer than a slot waits for the decision it led to."""

    def __init__(self, *, width: int, device: torch.device) -> None:
        self._width, self._device = width, device
        self._seen: dict[int, _Seen] = {}
        self._brought: dict[int, Float[Tensor, " width"]] = {}
        """Features of slots that have come back to an earlier decision, whose pass is not kept."""

    def bring_back(self, slot: int, features: Float[Tensor, " width"]) -> None:
        """A slot waits for an earlier decision again."""
        self._seen.pop(slot, None)
        self._brought[slot] = features

    def note(self, slot: int, record: PassRecord, row: int) -> None:
        """A pass has led a slot to a decision; its prompt was in this row."""
        self._seen[slot] = _Seen(record, row)

    def forget(self, slots: Iterable[int]) -> None:
        """These slots do not wait any more."""
        for slot in slots:
            self._seen.pop(slot, None)
            self._brought.pop(slot, None)

    def by_record(self, slots: Sequence[int]) -> list[tuple[PassRecord, list[int], list[int]]]:
        """Each pass, the slots among these that it led to a decision, and their rows; others are left out."""
        groups: dict[int, tuple[PassRecord, list[int], list[int]]] = {}
        for slot in slots:
            if slot in self._seen:
                record, row = self._seen[slot]
                _, its_slots, rows = groups.setdefault(id(record), (record, [], []))
                its_slots.append(slot)
                rows.append(row)
        return list(groups.values())

    @torch.inference_mode()
    def middle_features(self, slots: Sequence[int]) -> Float[Tensor, "some width"]:
        """Features of the network's middle block for each slot's prompt; zeros where it waits for no decision."""
        groups = self.by_record(slots)
        if len(groups) == 1 and groups[0][1] == [*slots]:  # the usual case, in fewer operations
            record, _, rows = groups[0]
            features, first = record.middle_features(), rows[0]
            adjacent = rows == [*range(first, first + len(rows))]
            return features[first : first + len(rows)] if adjacent else features[rows]
        features = torch.zeros(len(slots), self._width, device=self._device)
        place = {slot: number for number, slot in enumerate(slots)}
        for record, its_slots, rows in groups:
            features[[place[slot] for slot in its_slots]] = record.middle_features()[rows]
        for slot in place.keys() & self._brought:
            features[place[slot]] = self._brought[slot]
        return features
