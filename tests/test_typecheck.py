"""The run-time check of annotations sees a wrong type, a wrong shape and shapes that disagree."""

from __future__ import annotations

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from addiffusion.backbones.attention import resize_maps
from addiffusion.sampling.moves import Pick
from addiffusion.scorers.clip import cosine


def test_a_wrong_type_is_seen_where_no_annotation_has_a_shape() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="guided"):
        Pick(guided="all", unguided=())  # pyright: ignore[reportArgumentType] - that is the test


def test_a_wrong_shape_and_shapes_that_disagree_are_seen() -> None:
    with pytest.raises(BeartypeCallHintViolation, match="maps"):
        resize_maps(torch.zeros(3), (8, 8))
    assert cosine(torch.ones(2, 4), torch.ones(2, 4)).tolist() == [4.0, 4.0]
    with pytest.raises(BeartypeCallHintViolation, match="texts"):
        cosine(torch.ones(2, 4), torch.ones(3, 4))
