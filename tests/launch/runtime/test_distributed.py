"""What a failed start has made is ended with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from addiffusion.errors import ClusterError
from launch.runtime import distributed
from tests.launch.runtime.toy_components import toy_config


@pytest.mark.parametrize(("service", "ended"), [(None, ["scoring"]), ("shared", [])])
def test_workers_that_can_t_be_started_leave_no_service_of_their_own(
    service: str | None, ended: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    def fails(*_: object) -> None:
        raise ClusterError("no worker can be started.")

    place = SimpleNamespace(gpus=None, reward_resources={}, workers=None)
    monkeypatch.setattr(distributed, "find_placement", lambda _: place)
    monkeypatch.setattr(distributed, "shared_out", lambda config, *_, **__: config)
    monkeypatch.setattr(distributed, "get_or_create", lambda *_, **__: "scoring")
    monkeypatch.setattr(distributed, "stop", stopped.append)
    monkeypatch.setattr(distributed, "_build", fails)
    with (
        pytest.raises(ClusterError, match="no worker"),
        distributed.distributed_components(toy_config(scorers={"service": service})),
    ):
        raise AssertionError("nothing was built")
    assert stopped == ended
