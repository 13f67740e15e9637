from __future__ import annotations

import pytest

from addiffusion.errors import ContractError
from addiffusion.observation.layout import QUALITY_NAMES, Layout, clip_layout


def test_clip_vit_l14_gives_the_published_width() -> None:
    assert clip_layout(clip_width=768, timestep_width=128).width == 1672


@pytest.mark.parametrize("clip_width", [12, 512, 768])
def test_slices_tile_the_vector_in_order(clip_width: int) -> None:
    layout = clip_layout(clip_width=clip_width, timestep_width=64)
    covered = [index for name in layout.names for index in range(layout.width)[layout.slice(name)]]
    assert covered == list(range(layout.width))


def test_slices_have_their_widths() -> None:
    layout = Layout(names=("a", "b"), widths=(3, 2))
    assert layout.slice("a") == slice(0, 3)
    assert layout.slice("b") == slice(3, 5)


def test_layout_describes_itself() -> None:
    text = str(clip_layout(clip_width=768, timestep_width=128))
    assert text == "clip_image 768 | clip_text 768 | timestep 128 | quality 8 = 1672"


def test_quality_has_the_eight_scalars() -> None:
    assert len(QUALITY_NAMES) == 8
    layout = clip_layout(clip_width=4, timestep_width=2)
    assert layout.slice("quality") == slice(layout.width - 8, layout.width)


def test_unknown_slice_is_named() -> None:
    with pytest.raises(ContractError, match="no slice 'colour'; it has clip_image 4"):
        clip_layout(clip_width=4, timestep_width=2).slice("colour")


@pytest.mark.parametrize(("names", "widths"), [(("a", "a"), (1, 1)), (("a", "b"), (1,)), (("a",), (0,))])
def test_impossible_layouts_are_refused(names: tuple[str, ...], widths: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match="distinct names"):
        Layout(names=names, widths=widths)
