from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.errors import ContractError
from addiffusion.observation.layout import clip_layout
from addiffusion.records import TERM_NAMES, Episode, Reference, ScoreReply, ScoreRequest, Ticket
from addiffusion.reward import reference_of
from rollout_workers.collector import Collector
from rollout_workers.group import PolicyFunction
from rollout_workers.stopwatch import STAGES
from tests.fakes import DIVERGENT, TEXT_WIDTH, UNSCORABLE, ToyBackbone, ToyScoring, make_prompt

STEPS, WARMUP, FINISH, K = 8, 2, 2, 2
SURE = 50.0


def _config(
    *, slots: int = 3, groups: int = 1, finish_steps: int = FINISH, preset: str = "phase1", sees: str = "clip"
) -> Config:
    return Config.model_validate(
        {
            "rollout": {"slots": slots, "groups": groups},
            "sampler": {"num_steps": STEPS, "warmup_steps": WARMUP, "finish_steps": finish_steps},
            "refine": {"k": K},
            "reward": {"preset": preset},
            "observation": {"timestep_width": 8, "kind": sees},
        }
    )


def _tickets(count: int, **changes: object) -> list[Ticket]:
    base = [
        Ticket(ticket_id=index, prompt=make_prompt(index % 3), seed=100 + index, action_seed=200 + index, c_nfe=0.01)
        for index in range(count)
    ]
    return [replace(ticket, **changes) for ticket in base]


def _collector(config: Config) -> Collector:
    return Collector(backbone=ToyBackbone(), scoring=ToyScoring(), config=config)


def _hashed(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    """A policy whose rows can't depend on each other and which takes all three actions."""
    return np.stack([[0.4 + np.sin(31 * row.sum()), np.sin(17 * row.sum()) - 1, np.sin(7 * row.sum())] for row in phi])


def _always(action: Action) -> PolicyFunction:
    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.zeros((len(phi), 3), np.float32)
        logits[:, action] = SURE
        return logits

    return act


def _refine_at_last(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    """Continue until the last schedule point (step ratio above 1 - 1/N), then refine."""
    last = phi[:, -4] > (STEPS - 1.5) / STEPS
    return np.where(last[:, None], [0, 0, SURE], [SURE, 0, 0]).astype(np.float32)


def _policy(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    return _hashed(phi).astype(np.float32)


def _run(config: Config, tickets: Sequence[Ticket], act: PolicyFunction = _policy) -> tuple[Episode, ...]:
    collected = _collector(config).collect(tickets, act, weight_version=1)
    assert collected.failed == ()
    return collected.episodes


def _arrays(episode: Episode) -> Mapping[str, object]:
    skipped = {"ticket", "seconds", "frames"}
    return {field.name: getattr(episode, field.name) for field in fields(Episode) if field.name not in skipped}


def _assert_same(left: Sequence[Episode], right: Sequence[Episode]) -> None:
    assert [episode.ticket.ticket_id for episode in left] == [episode.ticket.ticket_id for episode in right]
    for mine, other in zip(left, right, strict=True):
        for name, value in _arrays(mine).items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name, strict=True)


@given(
    slots=st.integers(1, 7),
    groups=st.sampled_from([1, 2]),
    order=st.permutations(range(6)),
    finish_steps=st.sampled_from([0, FINISH]),
)
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
def test_slots_groups_and_order_do_not_change_episodes(
    slots: int, groups: int, order: list[int], finish_steps: int
) -> None:
    tickets = _tickets(6)
    expected = _run(_config(slots=2, finish_steps=finish_steps), tickets)
    config = _config(slots=slots, groups=groups, finish_steps=finish_steps)
    _assert_same(_run(config, [tickets[index] for index in order]), expected)


class SlowScoring(ToyScoring):
    """Answers when the network has run again, or not at all if it never does."""

    def __init__(self, backbone: ToyBackbone) -> None:
        super().__init__()
        self._backbone = backbone
        self.overlapped = 0

    def score(self, request: ScoreRequest) -> ScoreReply:
        before = self._backbone.denoise_calls
        for _ in range(200):
            if self._backbone.denoise_calls > before:
                self.overlapped += 1
                break
            time.sleep(0.001)
        return super().score(request)


def test_one_group_is_denoised_while_the_others_images_are_scored() -> None:
    backbone = ToyBackbone()
    scoring = SlowScoring(backbone)
    collector = Collector(backbone=backbone, scoring=scoring, config=_config(slots=4, groups=2))
    collected = collector.collect(_tickets(8), _always(Action.CONTINUE), weight_version=1)
    _assert_same(collected.episodes, _run(_config(slots=4), _tickets(8), _always(Action.CONTINUE)))
    assert scoring.overlapped > len(scoring.requests) / 2


def test_warm_up_and_refine_passes_are_neither_decoded_nor_scored() -> None:
    backbone, scoring = ToyBackbone(), ToyScoring()
    collector = Collector(backbone=backbone, scoring=scoring, config=_config(slots=1))
    collector.collect(_tickets(1), _always(Action.REFINE), weight_version=1)
    decisions = STEPS - WARMUP
    assert backbone.denoise_calls == STEPS + K * decisions
    # Every decision is looked at once, and the last refine's image once more.
    assert [len(request.images) for request in scoring.requests] == [1] * (decisions + 1)
    assert backbone.decode_calls == decisions + 1


def test_the_latent_observation_scores_only_the_returned_images() -> None:
    config = _config(slots=4, groups=2, preset="paired", sees="latent")
    references = [reference_of(episode) for episode in _run(config, _tickets(6, forced=Action.CONTINUE))]
    tickets = [replace(ticket, reference=ref) for ticket, ref in zip(_tickets(6), references, strict=True)]
    backbone, scoring = ToyBackbone(), ToyScoring()
    collected = Collector(backbone=backbone, scoring=scoring, config=config).collect(tickets, _policy, weight_version=1)
    assert (len(collected.episodes), collected.failed) == (6, ())
    assert sum(len(request.images) for request in scoring.requests) == backbone.decode_calls == 6
    for episode in collected.episodes:
        assert episode.phi.shape[1] == 2 * TEXT_WIDTH + TEXT_WIDTH + 8 + 4 + 4
        assert np.isfinite(episode.phi).all()
        assert np.isnan(episode.scores[:-1]).all()
        assert np.isfinite(episode.scores[-1]).all()
        assert np.isfinite(episode.rewards).all()
    alone = [
        Collector(backbone=ToyBackbone(), scoring=ToyScoring(), config=config).collect(
            [ticket], _policy, weight_version=1
        )
        for ticket in tickets
    ]
    _assert_same(collected.episodes, [one.episodes[0] for one in alone])


class PreviewBackbone(ToyBackbone):
    """Looks at a dimmer image than it returns."""

    previews = True

    def preview(self, z0: Tensor) -> NDArray[np.uint8]:
        return self.decode(z0) // 2


def test_decisions_see_previews_and_the_returned_image_is_the_full_decoders() -> None:
    plain = _run(_config(), _tickets(4), _always(Action.STOP))
    collector = Collector(backbone=PreviewBackbone(), scoring=ToyScoring(), config=_config())
    seen = collector.collect(_tickets(4), _always(Action.STOP), weight_version=1).episodes
    for ours, theirs in zip(seen, plain, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.scores[-1], theirs.scores[-1])
        assert not np.array_equal(ours.scores[0], theirs.scores[0])


class SmallBackbone(ToyBackbone):
    """Has memory for so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def denoise(self, z: Tensor, *args: Any) -> Tensor:
        if len(z) > self._rows:
            raise torch.OutOfMemoryError("too many rows")
        return super().denoise(z, *args)


def test_slots_are_halved_once_when_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    collector = Collector(backbone=SmallBackbone(4), scoring=ToyScoring(), config=_config(slots=4))
    episodes = collector.collect(_tickets(5), _policy, weight_version=1).episodes
    _assert_same(episodes, _run(_config(slots=2), _tickets(5)))
    assert "out of memory with rollout.slots=4: going on with 2" in caplog.text
    collector.collect(_tickets(1), _policy, weight_version=1)
    assert len(caplog.records) == 1
    with pytest.raises(torch.OutOfMemoryError):
        Collector(backbone=SmallBackbone(1), scoring=ToyScoring(), config=_config(slots=4)).collect(
            _tickets(1), _policy, weight_version=1
        )


def test_a_negative_prompt_moves_every_image() -> None:
    def drawn(negative: str) -> NDArray[np.uint8]:
        backbone = {"negative_prompt": negative}
        config = Config.model_validate({**_config().model_dump(), "backbone": backbone})
        return np.stack([episode.image for episode in _run(config, _tickets(3, forced=Action.CONTINUE))])

    plain, moved = drawn(""), drawn("ugly toys")
    assert all(not np.array_equal(one, other) for one, other in zip(plain, moved, strict=True))
    np.testing.assert_array_equal(moved, drawn("ugly toys"))


def test_an_empty_prompt_fails_its_ticket() -> None:
    tickets = _tickets(3)
    tickets[1] = replace(tickets[1], prompt=make_prompt(5, "  "))
    collected = _collector(_config()).collect(tickets, _policy, weight_version=1)
    assert [failed.reason for failed in collected.failed] == ["The prompt of ticket 1 is empty: give it words."]
    assert [episode.ticket.ticket_id for episode in collected.episodes] == [0, 2]


def test_a_second_call_sees_nothing_of_the_first() -> None:
    collector = _collector(_config())
    tickets = _tickets(4)
    first = collector.collect(tickets, _policy, weight_version=1)
    second = collector.collect(tickets, _policy, weight_version=1)
    _assert_same(first.episodes, second.episodes)


@pytest.mark.parametrize("finish_steps", [0, FINISH])
def test_every_pass_is_accounted_for(finish_steps: int) -> None:
    episodes = _run(_config(finish_steps=finish_steps), _tickets(12))
    assert {action for episode in episodes for action in episode.actions.tolist()} == set(Action)
    for episode in episodes:
        assert WARMUP + 1 + episode.nfe_spent.sum() == episode.nfe
        assert episode.network_evals == 2 * episode.nfe
        refines = episode.actions == Action.REFINE
        assert (episode.nfe_spent[:-1] == 1 + K * refines[:-1]).all()
        assert (np.diff(episode.steps) == 1).all()
        assert episode.steps[0] == WARMUP


@pytest.mark.parametrize("finish_steps", [0, FINISH])
def test_always_stop_ends_at_the_first_decision(finish_steps: int) -> None:
    for episode in _run(_config(finish_steps=finish_steps), _tickets(4), _always(Action.STOP)):
        assert episode.actions.tolist() == [Action.STOP]
        assert episode.nfe == WARMUP + 1 + finish_steps
        assert episode.nfe_spent.tolist() == [finish_steps]
        changed = not np.array_equal(episode.scores[0], episode.scores[1])
        assert changed == (finish_steps > 0)


def test_always_continue_runs_the_whole_schedule() -> None:
    for episode in _run(_config(), _tickets(4), _always(Action.CONTINUE)):
        assert episode.nfe == STEPS
        assert episode.actions.tolist() == [Action.CONTINUE] * (STEPS - WARMUP)
        np.testing.assert_array_equal(episode.scores[-1], episode.scores[-2])


def test_a_refine_at_the_last_point_is_the_result() -> None:
    for episode in _run(_config(), _tickets(4), _refine_at_last):
        assert episode.actions.tolist() == [Action.CONTINUE] * (STEPS - WARMUP - 1) + [Action.REFINE]
        assert episode.nfe == STEPS + K
        assert episode.nfe_spent[-1] == K
        assert not np.array_equal(episode.scores[-1], episode.scores[-2])


def test_forced_continue_gives_the_image_of_always_continue_without_being_watched() -> None:
    tickets = _tickets(4, forced=Action.CONTINUE)
    backbone, scoring, config = ToyBackbone(), ToyScoring(), _config(slots=4)
    forced = Collector(backbone=backbone, scoring=scoring, config=config).collect(
        tickets, _refuse_to_act, weight_version=0
    )
    free = _run(config, _tickets(4), _always(Action.CONTINUE))
    assert (backbone.denoise_calls, backbone.decode_calls) == (STEPS, 1)
    assert [len(request.images) for request in scoring.requests] == [4]
    for static, adaptive in zip(forced.episodes, free, strict=True):
        np.testing.assert_array_equal(static.image, adaptive.image)
        np.testing.assert_array_equal(static.scores[-1], adaptive.scores[-1])
        np.testing.assert_array_equal(static.final_dino, adaptive.final_dino)
        assert static.nfe == STEPS
        assert static.phi.shape == (0, adaptive.phi.shape[1])
        assert (static.scores.shape, static.terms.shape, static.logits.shape) == ((1, 3), (0, 4), (0, 3))


def _refuse_to_act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
    raise AssertionError("a forced episode must not ask the policy")


def test_forced_stop_finishes() -> None:
    for episode in _run(_config(), _tickets(2, forced=Action.STOP), _refuse_to_act):
        assert episode.nfe == WARMUP + 1 + FINISH


def test_log_prob_and_logits_are_the_policys() -> None:
    for episode in _run(_config(), _tickets(4)):
        np.testing.assert_array_equal(episode.logits, _policy(episode.phi))
        log_probs = episode.logits - np.log(np.exp(episode.logits).sum(axis=1, keepdims=True))
        taken = log_probs[np.arange(len(episode.actions)), episode.actions]
        np.testing.assert_allclose(episode.log_prob, taken, atol=1e-6)
        assert episode.log_prob.dtype == np.float32


def test_without_exploration_the_likeliest_action_is_taken() -> None:
    for episode in _run(_config(), _tickets(6, explore=False)):
        np.testing.assert_array_equal(episode.actions, episode.logits.argmax(axis=1))


def test_action_seed_moves_actions_but_not_the_first_observation() -> None:
    one = _run(_config(), _tickets(8))
    other = _run(_config(), _tickets(8, action_seed=7))
    assert any(a.actions.tolist() != b.actions.tolist() for a, b in zip(one, other, strict=True))
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.phi[0], right.phi[0])


def test_the_policy_sees_the_fixed_batch_with_idle_rows_at_zero() -> None:
    seen: list[NDArray[np.float32]] = []

    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(phi.copy())
        return _always(Action.STOP)(phi)

    collector = _collector(_config(slots=5))
    collector.collect(_tickets(2), act, weight_version=1)
    width = clip_layout(clip_width=ToyScoring.clip_width, timestep_width=8).width
    assert collector.group_size == 5
    assert [batch.shape for batch in seen] == [(5, width)]
    assert seen[0][:2].any(axis=1).all()
    assert not seen[0][2:].any()


def test_paired_pays_relative_to_the_reference() -> None:
    config = _config(preset="paired")
    references = [reference_of(episode) for episode in _run(config, _tickets(3, forced=Action.CONTINUE))]
    tickets = [replace(ticket, reference=ref) for ticket, ref in zip(_tickets(3), references, strict=True)]
    for episode in _run(config, tickets, _always(Action.CONTINUE)):  # ends in the reference itself
        assert episode.rewards.sum() == pytest.approx(-0.01 * episode.nfe_spent.sum(), abs=1e-4)
    for episode in _run(config, tickets, _always(Action.STOP)):
        quality = _quality(config, episode.scores[-1], references[episode.ticket.ticket_id])
        assert quality != 0.0
        assert episode.terms[:, TERM_NAMES.index("quality")].sum() == pytest.approx(quality, abs=1e-4)


def _quality(config: Config, scores: NDArray[np.float32], reference: Reference) -> float:
    weights, scales = config.reward.weights, config.reward.scales
    unit = [
        weights.clip / scales.clip,
        weights.aesthetic / scales.aesthetic,
        weights.image_reward / scales.image_reward,
    ]
    return float(((scores - reference.scores) * unit).sum())


def test_a_ticket_without_its_reference_fails_alone() -> None:
    config = _config(preset="paired")
    reference = Reference(scores=np.zeros(3, np.float32), dino_embedding=np.zeros(6, np.float32))
    tickets = [replace(ticket, reference=reference) for ticket in _tickets(3)]
    tickets[1] = replace(tickets[1], reference=None)
    collected = _collector(config).collect(tickets, _policy, weight_version=1)
    assert [failed.ticket.ticket_id for failed in collected.failed] == [1]
    assert "Ticket 1 has no reference" in collected.failed[0].reason
    assert [episode.ticket.ticket_id for episode in collected.episodes] == [0, 2]


@pytest.mark.parametrize("word", [UNSCORABLE, DIVERGENT])
@pytest.mark.parametrize("forced", [None, Action.CONTINUE])
def test_a_failing_image_fails_its_ticket_and_leaves_the_others_as_they_were(word: str, forced: Action | None) -> None:
    tickets = _tickets(7, forced=forced)
    expected = [episode for episode in _run(_config(), tickets) if episode.ticket.ticket_id not in {1, 4}]
    for index in (1, 4):
        tickets[index] = replace(tickets[index], prompt=make_prompt(9, f"a {word} scene"))
    collected = _collector(_config()).collect(tickets, _policy, weight_version=1)
    assert [failed.ticket for failed in collected.failed] == [tickets[1], tickets[4]]
    assert all(failed.reason.endswith(".") for failed in collected.failed)
    _assert_same(collected.episodes, expected)


def test_a_policy_that_returns_nan_fails_only_the_slots_concerned() -> None:
    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = _policy(phi)
        logits[0] = np.nan
        return logits

    collected = _collector(_config(slots=2)).collect(_tickets(4), act, weight_version=1)
    assert collected.episodes
    assert collected.failed
    assert len(collected.episodes) + len(collected.failed) == 4
    assert all("no distribution over actions" in failed.reason for failed in collected.failed)


def test_frames_hold_every_decisions_image_and_mask() -> None:
    for episode in _run(_config(), _tickets(6, keep_frames=True)):
        assert episode.frames is not None
        assert episode.frames.images.shape == (len(episode.actions) + 1, 16, 16, 3)
        np.testing.assert_array_equal(episode.frames.images[-1], episode.image)
        masked = [mask is not None for mask in episode.frames.masks]
        assert masked == (episode.actions == Action.REFINE).tolist()
        assert all(mask.shape == (8, 8) for mask in episode.frames.masks if mask is not None)


def test_frames_of_a_forced_episode_show_its_schedule() -> None:
    (episode,) = _run(_config(), _tickets(1, forced=Action.CONTINUE, keep_frames=True), _refuse_to_act)
    assert episode.frames is not None
    assert len(episode.frames.images) == STEPS - WARMUP + 1
    assert episode.frames.masks == (None,) * (STEPS - WARMUP)


def test_scores_travel_in_one_request_per_tick() -> None:
    backbone, scoring = ToyBackbone(), ToyScoring()
    Collector(backbone=backbone, scoring=scoring, config=_config(slots=4)).collect(
        _tickets(8), _policy, weight_version=1
    )
    assert len(scoring.requests) == backbone.decode_calls <= backbone.denoise_calls


def test_bookkeeping_of_a_batch() -> None:
    collected = _collector(_config()).collect(_tickets(3), _policy, weight_version=17)
    assert set(collected.stage_s) == set(STAGES)
    assert collected.stage_s["score"] > 0
    assert all(seconds >= 0 for seconds in collected.stage_s.values())
    assert collected.stage_s["network"] > 0
    assert {episode.weight_version for episode in collected.episodes} == {17}
    assert all(episode.seconds > 0 for episode in collected.episodes)


def test_no_tickets_is_no_work() -> None:
    collected = _collector(_config()).collect([], _refuse_to_act, weight_version=1)
    assert (collected.episodes, collected.failed) == ((), ())


def test_a_ticket_handed_out_twice_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Tickets \[1\] were handed out twice"):
        _collector(_config()).collect([*_tickets(2), _tickets(2)[1]], _policy, weight_version=1)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ContractError, match=r"\(3, 3\), not \(3, 2\)"):
        _collector(_config()).collect(_tickets(1), lambda phi: phi[:, :2], weight_version=1)
