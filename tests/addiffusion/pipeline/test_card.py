"""A policy's card: speeds are prices on its measured curve, and what it was not trained with is told."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from addiffusion import AdaptivePipeline, load_policy
from addiffusion.errors import CheckpointError
from addiffusion.pipeline.card import CurvePoint, PolicyCard
from addiffusion.pipeline.price import PriceDial
from tests.addiffusion.pipeline.test_adaptive import drawn
from tests.addiffusion.pipeline.tiny_policies import make_policy

RUN = Path(__file__).parents[2] / "data/made_before/run"


def make_card(**options: Any) -> PolicyCard:
    points = (
        CurvePoint(c_nfe=0.01, cost=40.0, steps=50),
        CurvePoint(c_nfe=0.04, cost=20.0, steps=50),
        CurvePoint(c_nfe=0.16, cost=10.0, steps=50, scores={"clip": 0.3}),
    )
    return PolicyCard(backbone="tiny", digest=(), full_cost=50.0, curve=points, prompt_count=8, **options)


def test_a_speed_is_a_price_on_the_measured_curve(caplog: pytest.LogCaptureFixture) -> None:
    card = make_card()
    assert card.price(2.5, 50) == pytest.approx(0.04)
    assert 0.04 < card.price(3.0, 50) < 0.16
    assert not caplog.records
    assert card.price(50.0, 50) == pytest.approx(0.16)
    assert card.price(1.0, 50) == pytest.approx(0.01)
    assert [record.getMessage()[:48] for record in caplog.records] == [
        "speed=50 is outside what this policy was measure",
        "speed=1 is outside what this policy was measured",
    ]


def test_between_numbers_of_steps_a_price_lies_between_theirs() -> None:
    short = [CurvePoint(c_nfe=price, cost=cost, steps=20) for price, cost in ((0.01, 16.0), (0.04, 10.0), (0.16, 4.0))]
    card = replace(make_card(), curve=(*short, *make_card().curve))
    assert card.price(2.0, 20) == pytest.approx(0.04)
    assert card.price(2.5, 50) == pytest.approx(0.04)
    assert card.price(2.0, 20) > card.price(2.0, 35) > card.price(2.0, 50)
    assert card.price(2.0, 10) == card.price(2.0, 20)


def test_a_card_of_before_was_measured_on_the_full_run() -> None:
    plain = make_card().plain()
    for point in plain["curve"]:
        del point["steps"]
    assert PolicyCard.of(plain) == make_card()


@pytest.mark.parametrize(("steps", "scale", "told"), [(4, 3.0, 0), (3, 3.0, 1), (5, 1.5, 1), (6, 9.0, 2)])
def test_a_range_that_was_trained_is_no_other_setting(
    steps: int, scale: float, told: int, sd15: Any, sd15_like: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make_policy("sd15", sd15_like, sampler={"num_steps_range": (4, 5)}, guidance_scale_range=(2.0, 6.0))
    drawn(AdaptivePipeline.from_pipe(sd15, policy=policy), num_inference_steps=steps, guidance_scale=scale)
    assert caplog.text.count("was trained on another") == told
    assert ("schedule (4 to 5 steps, and this is" in caplog.text) == (steps not in (4, 5))
    assert ("guidance scale (2 to 6, and this is" in caplog.text) == (not 2 <= scale <= 6)


def test_a_run_that_has_ended_knows_the_speed_of_its_own_price(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Path(shutil.copytree(RUN, tmp_path / "run"))
    assert load_policy(run).card is None, "it has not ended"
    (run / "result.json").write_text('{"mean_cost": 2.0}')
    policy = load_policy(run)
    config, card = policy.trained_with, policy.card
    assert card is not None
    dial, steps = PriceDial.of(config, card), config.sampler.num_steps
    assert dial.speeds(steps) == (steps / 2, steps / 2)
    assert dial.at_speed(1.0, steps) == pytest.approx(config.reward.c_nfe)
    assert "speed=1 is outside what this policy was measured at" in caplog.text
    assert load_policy(run / "checkpoints/iteration-000001").card is None, "the table is of the last weights"
    (run / "result.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"result\.json is no JSON"):
        load_policy(run)


def test_a_speed_reaches_the_policy(sd15: Any, sd15_like: Any, tmp_path: Any) -> None:
    policy = make_policy("sd15", sd15_like, card=make_card().plain())
    pipe = AdaptivePipeline.from_pipe(sd15, policy=policy)
    seen: list[float] = []
    act = policy.actor()

    def note(phi: Any) -> Any:
        seen.append(float(phi[0, -2]))
        return act(phi)

    policy.actor = lambda: note  # pyright: ignore[reportAttributeAccessIssue]
    fast, priced = drawn(pipe, speed=5.0), drawn(pipe, c_nfe=0.16)
    assert len(set(seen)) == 1
    assert torch.equal(fast.images, priced.images)
    pipe.save_pretrained(tmp_path)
    text = (tmp_path / "policy" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: addiffusion\nlicense: apache-2.0\n")
    assert "| 50 | 0.16 | 10.00 | 5.00 | 0.300 |" in text
    again: Any = AdaptivePipeline.from_pretrained(tmp_path)
    assert again.policy.card == policy.card


def test_other_weights_are_told(sd15: Any, sd15_like: Any, caplog: pytest.LogCaptureFixture) -> None:
    """By a few of them, in whatever precision."""
    from addiffusion.pipeline.card import same_weights, weight_digest  # noqa: PLC0415

    digest = weight_digest(sd15.unet)
    half = type(sd15.unet).from_config(sd15.unet.config)
    half.load_state_dict(sd15.unet.state_dict())
    assert same_weights(digest, weight_digest(half.to(torch.float16)))
    card = make_card().plain() | {"digest": [value + 1 for value in digest]}
    drawn(AdaptivePipeline.from_pipe(sd15, policy=make_policy("sd15", sd15_like, card=card)))
    assert "model (tiny, and this one has other weights)" in caplog.text
