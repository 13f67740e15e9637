"""What the loop looks at: images, scores, features and frames, and when."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from addiffusion.actions import Action
from addiffusion.config import Config
from addiffusion.observation.layout import clip_layout
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.reward import reference_of
from rollout_workers.collector import Collector
from tests.fakes import TEXT_WIDTH, ToyBackbone, ToyScoring
from tests.rollout_workers.rollouts import (
    STEPS,
    WARMUP,
    K,
    always,
    assert_same,
    hashed_policy,
    make_collector,
    make_config,
    make_tickets,
    refuse_to_act,
    run_tickets,
)


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


def test_half_of_the_slots_are_denoised_while_the_others_images_are_scored() -> None:
    backbone = ToyBackbone()
    scoring = SlowScoring(backbone)
    collector = Collector(backbone=backbone, scoring=scoring, config=make_config(slots=4, rows=4))
    collected = collector.collect(make_tickets(8), always(Action.CONTINUE), weight_version=1)
    assert_same(collected.episodes, run_tickets(make_config(slots=4), make_tickets(8), always(Action.CONTINUE)))
    assert scoring.overlapped > len(scoring.requests) / 2


def test_warm_up_and_refine_passes_are_neither_decoded_nor_scored() -> None:
    backbone, scoring = ToyBackbone(), ToyScoring()
    collector = Collector(backbone=backbone, scoring=scoring, config=make_config(slots=1))
    collector.collect(make_tickets(1), always(Action.REFINE), weight_version=1)
    decisions = STEPS - WARMUP
    assert backbone.denoise_calls == STEPS + K * decisions
    # Every decision is looked at once, and the last refine's image once more.
    assert [len(request.images) for request in scoring.requests] == [1] * (decisions + 1)
    assert backbone.decode_calls == decisions + 1


def test_the_latent_observation_scores_only_the_returned_images() -> None:
    config = make_config(slots=4, rows=4, preset="paired", sees="latent")
    references = [reference_of(episode) for episode in run_tickets(config, make_tickets(6, forced=Action.CONTINUE))]
    tickets = [replace(ticket, reference=ref) for ticket, ref in zip(make_tickets(6), references, strict=True)]
    backbone, scoring = ToyBackbone(), ToyScoring()
    collected = Collector(backbone=backbone, scoring=scoring, config=config).collect(
        tickets, hashed_policy, weight_version=1
    )
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
            [ticket], hashed_policy, weight_version=1
        )
        for ticket in tickets
    ]
    assert_same(collected.episodes, [one.episodes[0] for one in alone])


class PreviewBackbone(ToyBackbone):
    """Looks at a dimmer image than it returns."""

    previews = True

    def preview(self, z0: Tensor) -> NDArray[np.uint8]:
        return self.decode(z0) // 2


def test_decisions_see_previews_and_the_returned_image_is_the_full_decoders() -> None:
    plain = run_tickets(make_config(), make_tickets(4), always(Action.STOP))
    collector = Collector(backbone=PreviewBackbone(), scoring=ToyScoring(), config=make_config())
    seen = collector.collect(make_tickets(4), always(Action.STOP), weight_version=1).episodes
    for ours, theirs in zip(seen, plain, strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.scores[-1], theirs.scores[-1])
        assert not np.array_equal(ours.scores[0], theirs.scores[0])


def test_a_negative_prompt_moves_every_image() -> None:
    def drawn(negative: str) -> NDArray[np.uint8]:
        backbone = {"negative_prompt": negative}
        config = Config.model_validate({**make_config().model_dump(), "backbone": backbone})
        return np.stack([episode.image for episode in run_tickets(config, make_tickets(3, forced=Action.CONTINUE))])

    plain, moved = drawn(""), drawn("ugly toys")
    assert all(not np.array_equal(one, other) for one, other in zip(plain, moved, strict=True))
    np.testing.assert_array_equal(moved, drawn("ugly toys"))


def test_the_policy_sees_the_fixed_batch_with_idle_rows_at_zero() -> None:
    seen: list[NDArray[np.float32]] = []

    def act(phi: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(phi.copy())
        return always(Action.STOP)(phi)

    collector = make_collector(make_config(slots=5))
    collector.collect(make_tickets(2), act, weight_version=1)
    width = clip_layout(clip_width=ToyScoring.clip_width, timestep_width=8).width
    assert [batch.shape for batch in seen] == [(5, width)]
    assert seen[0][:2].any(axis=1).all()
    assert not seen[0][2:].any()


def test_frames_hold_every_decisions_image_and_mask() -> None:
    for episode in run_tickets(make_config(), make_tickets(6, keep_frames=True)):
        assert episode.frames is not None
        assert episode.frames.images.shape == (len(episode.actions) + 1, 16, 16, 3)
        np.testing.assert_array_equal(episode.frames.images[-1], episode.image)
        masked = [mask is not None for mask in episode.frames.masks]
        assert masked == (episode.actions == Action.REFINE).tolist()
        assert all(mask.shape == (8, 8) for mask in episode.frames.masks if mask is not None)


def test_frames_of_a_forced_episode_show_its_schedule() -> None:
    (episode,) = run_tickets(make_config(), make_tickets(1, forced=Action.CONTINUE, keep_frames=True), refuse_to_act)
    assert episode.frames is not None
    assert len(episode.frames.images) == STEPS - WARMUP + 1
    assert episode.frames.masks == (None,) * (STEPS - WARMUP)


def test_scores_travel_in_one_request_per_tick() -> None:
    backbone, scoring = ToyBackbone(), ToyScoring()
    Collector(backbone=backbone, scoring=scoring, config=make_config(slots=4)).collect(
        make_tickets(8), hashed_policy, weight_version=1
    )
    assert len(scoring.requests) == backbone.decode_calls <= backbone.denoise_calls
