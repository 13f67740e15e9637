from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from addiffusion.config import PromptsSection
from addiffusion.prompts import load_prompts
from addiffusion.prompts.complexity import Complexity, complexity


@pytest.mark.parametrize(
    ("text", "objects", "attributes", "relations", "tier"),
    [
        ("a photo of a kite", 1, 0, 0, 1),
        ("a red circle", 1, 1, 0, 1),
        ("A kettle next to a cup", 2, 0, 1, 2),
        ("two green boats", 1, 2, 0, 2),
        ("a red circle left of a blue square", 2, 2, 1, 2),
        ("3 tall glass bottles in front of a wooden shelf, and a striped cat on top of it", 4, 5, 2, 3),
        ("", 1, 0, 0, 1),
    ],
)
def test_golden(text: str, objects: int, attributes: int, relations: int, tier: int) -> None:
    found = complexity(text)
    assert found == Complexity(objects=objects, attributes=attributes, relations=relations)
    assert found.tier == tier


@given(st.text(max_size=60))
def test_any_text_has_a_tier_and_one_more_colour_never_lowers_it(text: str) -> None:
    plain, coloured = complexity(text), complexity(f"purple {text}")
    assert plain.objects >= 1
    assert 1 <= plain.tier <= coloured.tier <= 3


def test_it_orders_the_embedded_tiers_as_they_were_made() -> None:
    prompts = load_prompts(PromptsSection(), split="test", count=90, seed=0)
    correlation = spearmanr([p.tier for p in prompts], [complexity(p.text).total for p in prompts]).statistic
    assert correlation > 0.8
