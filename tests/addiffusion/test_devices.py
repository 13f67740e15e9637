"""Device names."""

from __future__ import annotations

import pytest
import torch

from addiffusion.devices import resolve_device
from addiffusion.errors import ConfigError


def test_auto_is_what_the_machine_has() -> None:
    assert resolve_device("auto", key="scorers.device").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu", key="scorers.device") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_by_key_and_value(name: str) -> None:
    with pytest.raises(ConfigError, match=f"scorers.device='{name}' is not available here") as caught:
        resolve_device(name, key="scorers.device")
    assert "\n" not in caught.value.message
