"""What tests of commands share: how far each stage has come."""

from __future__ import annotations

import pytest

from launch.runtime.console import Stage

Ended = dict[str, tuple[int, int | None]]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Ended:
    """How much of how much was done at the end of each stage, by its label."""
    found: Ended = {}
    leave = Stage.__exit__

    def note(stage: Stage, *error: object) -> None:
        done = stage._done if stage._counted is None else stage._counted()
        found[stage._label] = done, stage._total
        leave(stage, *error)

    monkeypatch.setattr(Stage, "__exit__", note)
    return found
