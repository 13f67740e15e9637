"""A library that is missing is named with the extra that brings it."""

from __future__ import annotations

import pytest

from addiffusion.errors import MissingExtraError
from addiffusion.extras import extra_of, look_for, named_extras


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("ray", "train"),
        ("open_clip", "train"),
        ("tensorboardX", "train"),
        ("matplotlib", "train"),
        ("plotly", "eval"),
        ("torch", None),
        ("yaml", None),
        ("no_such_library", None),
    ],
)
def test_every_library_has_its_extra(module: str, extra: str | None) -> None:
    assert extra_of(module) == extra


def test_a_missing_library_of_an_extra_is_one_sentence() -> None:
    with (
        pytest.raises(MissingExtraError, match=r"ray is not installed.*pip install 'addiffusion\[train\]'"),
        named_extras(),
    ):
        raise ModuleNotFoundError("No module named 'ray.rllib'", name="ray.rllib")


def test_any_other_missing_module_stays_what_it_is() -> None:
    with pytest.raises(ModuleNotFoundError), named_extras():
        import no_such_library  # noqa: F401, PLC0415 # pyright: ignore[reportMissingImports]


def test_a_library_is_looked_for_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    look_for("timm")
    monkeypatch.setattr("addiffusion.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"uvicorn is not installed; .*addiffusion\[serve\]"), named_extras():
        look_for("uvicorn")
