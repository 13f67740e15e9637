"""The service answers each caller with its own images' scores, whoever shares the batch and whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addiffusion.config import ScorersSection
from addiffusion.errors import ContractError, ScorerError
from addiffusion.records import SCORE_NAMES, ScoreReply, ScoreRequest
from addiffusion.scorers.base import Scoring
from addiffusion.scorers.factory import load_suite
from reward_service.service import RewardService
from tests.reward_service.toy_scoring import POISON, HangingScoring, ToyScoring, assert_same_reply, make_request

Result = TypeVar("Result")
SECTION = ScorersSection(batch_images=8, max_wait_ms=2.0, timeout_s=20.0)


def with_service(
    use: Callable[[RewardService], Awaitable[Result]],
    *,
    scoring: Scoring | None = None,
    section: ScorersSection = SECTION,
) -> Result:
    async def main() -> Result:
        service = RewardService(scoring or ToyScoring(section), section)
        try:
            return await use(service)
        finally:
            await service.close()

    return asyncio.run(main())


async def score_all(service: RewardService, *requests: ScoreRequest) -> list[ScoreReply]:
    return await asyncio.gather(*(service.score(request) for request in requests))


def direct(request: ScoreRequest) -> ScoreReply:
    """Scores of each image alone, without any service."""
    toy = ToyScoring(SECTION)
    rows = [
        toy.score(replace(request, images=request.images[i : i + 1], prompts=request.prompts[i : i + 1]))
        for i in range(len(request.images))
    ]
    return ScoreReply(
        names=request.names,
        values=np.concatenate([row.values for row in rows]),
        clip_embedding=np.concatenate([row.clip_embedding for row in rows]),
        dino_embedding=np.concatenate([row.dino_embedding for row in rows]),
        errors=tuple(row.errors[0] for row in rows),
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from([SCORE_NAMES, ("clip",)])), min_size=1, max_size=12))
def test_scores_are_bitwise_those_of_each_image_alone(sizes: list[tuple[int, tuple[str, ...]]]) -> None:
    requests = [make_request(seed, count, names=names) for seed, (count, names) in enumerate(sizes)]
    for request, reply in zip(requests, with_service(lambda s: score_all(s, *requests)), strict=True):
        assert_same_reply(reply, direct(request))


def test_batches_cross_callers_and_are_counted() -> None:
    toy = ToyScoring(SECTION)

    async def use(service: RewardService) -> None:
        await score_all(service, *(make_request(seed, 2) for seed in range(8)))
        stats = service.stats()
        assert toy.batch_sizes == [8, 8]
        assert (stats.request_count, stats.image_count, stats.batch_count) == (8, 16, 2)
        assert stats.mean_batch_images == 8.0
        assert stats.scoring_s > 0.0

    with_service(use, scoring=toy)


def test_different_names_and_sizes_never_share_a_batch() -> None:
    toy = ToyScoring(SECTION)
    requests = [make_request(0, 2), make_request(1, 2, names=("clip",)), make_request(2, 2, size=32)]
    replies = with_service(lambda s: score_all(s, *requests), scoring=toy)
    assert toy.batch_sizes == [2, 2, 2]
    assert replies[1].values.shape == (2, 1)


def test_an_image_that_cant_be_scored_is_its_callers_error_only() -> None:
    blank = make_request(0, 3)
    blank.images[1] = POISON
    good = make_request(1, 3)

    async def use(service: RewardService) -> None:
        replies = await score_all(service, blank, good)
        assert replies[0].errors == (None, "The image is blank.", None)
        assert np.isnan(replies[0].values[1]).all()
        assert np.isfinite(replies[0].values[[0, 2]]).all()
        assert_same_reply(replies[1], direct(good))
        assert service.stats().item_error_count == 1

    with_service(use)


def test_a_batch_that_raises_fails_its_callers_and_the_service_goes_on() -> None:
    bad = make_request(0, 3, names=("explode",))

    async def use(service: RewardService) -> None:
        results = await asyncio.gather(
            service.score(bad), service.score(make_request(1, 3)), service.score(bad), return_exceptions=True
        )
        assert isinstance(results[0], ScorerError)
        assert isinstance(results[1], ScoreReply)
        assert isinstance(results[2], ScorerError)
        assert_same_reply(await service.score(make_request(1, 3)), direct(make_request(1, 3)))
        assert service.stats().failed_batch_count == 1

    with_service(use)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((2, 16, 16), np.uint8)}, r"must be \(n, H, W, 3\) uint8"),
        ({"images": np.zeros((2, 16, 16, 3), np.float32)}, "float32"),
        ({"prompts": ("only one",)}, "1 prompts for 2 images"),
    ],
)
def test_a_malformed_request_never_reaches_a_batch(changes: dict[str, object], message: str) -> None:
    toy = ToyScoring(SECTION)
    with pytest.raises(ContractError, match=message):
        with_service(lambda s: s.score(replace(make_request(0, 2), **changes)), scoring=toy)  # type: ignore[arg-type]
    assert toy.batch_sizes == []


def test_a_request_without_images_gets_an_empty_reply() -> None:
    reply = with_service(lambda s: s.score(make_request(0, 0)))
    assert reply.values.shape == (0, len(SCORE_NAMES))
    assert reply.clip_embedding.shape == (0, ToyScoring().clip_width)
    assert reply.dino_embedding.shape == (0, ToyScoring().dino_width)


async def once_in_time(service: RewardService, request: ScoreRequest) -> ScoreReply:
    """A reply with scores; a machine that is busy elsewhere may miss the short deadlines of these tests, too."""
    for _ in range(100):
        try:
            reply = await service.score(request)
        except ScorerError:
            continue
        if not any(reply.errors):
            return reply
    pytest.fail("the service did not go on")


def test_a_late_answer_is_an_error_naming_the_limit_and_leaves_nothing_behind() -> None:
    section = SECTION.model_copy(update={"timeout_s": 0.15})
    scoring = HangingScoring(section)

    async def use(service: RewardService) -> None:
        with pytest.raises(ScorerError, match=r"3 images within scorers\.timeout_s=0\.15 s"):
            await service.score(make_request(0, 3))
        scoring.release.set()  # the late scores arrive at a service that no longer knows the request
        assert service.stats().timeout_count == 1
        assert_same_reply(await once_in_time(service, make_request(1, 3)), direct(make_request(1, 3)))

    with_service(use, scoring=scoring, section=section)


def test_waiting_requests_past_their_deadline_are_never_scored() -> None:
    section = SECTION.model_copy(update={"timeout_s": 0.2})
    scoring = HangingScoring(section)

    async def use(service: RewardService) -> None:
        results = await asyncio.gather(
            *(service.score(make_request(seed, 8)) for seed in range(4)), return_exceptions=True
        )
        assert all(isinstance(result, ScorerError) for result in results)
        scoring.release.set()
        while not service.stats().batch_count:
            await asyncio.sleep(0.001)
        assert scoring.batch_sizes == [8]
        assert service.load == 0

    with_service(use, scoring=scoring, section=section)


def test_a_scorer_that_hangs_is_given_up_named_and_the_service_goes_on() -> None:
    section = SECTION.model_copy(update={"pass_timeout_s": 0.1})
    scoring = HangingScoring(section)

    async def use(service: RewardService) -> None:
        stuck = await service.score(make_request(0, 3))
        assert all("Scorer `slowpoke` did not finish 3 images" in (error or "") for error in stuck.errors)
        assert all("scorers.pass_timeout_s=0.1 s" in (error or "") for error in stuck.errors)
        assert np.isnan(stuck.values).all()
        assert stuck.clip_embedding.shape == (3, scoring.clip_width)
        stats = service.stats()
        assert (stats.hung_count, stats.item_error_count, stats.timeout_count) == (1, 3, 0)
        assert stats.scorer_error_count == {"slowpoke": 3}
        assert_same_reply(await once_in_time(service, make_request(1, 3)), direct(make_request(1, 3)))

    try:
        with_service(use, scoring=scoring, section=section)
    finally:
        scoring.release.set()


def test_load_is_what_waits_and_what_is_being_scored() -> None:
    scoring = HangingScoring(SECTION)

    async def use(service: RewardService) -> None:
        assert service.load == 0
        first, second = (asyncio.create_task(service.score(make_request(seed, 8))) for seed in range(2))
        while not scoring.began.is_set():
            await asyncio.sleep(0.001)
        assert service.load == 16
        scoring.release.set()
        await asyncio.gather(first, second)
        assert service.load == 0

    with_service(use, scoring=scoring)


def test_a_full_queue_holds_callers_back_in_order_and_loses_none() -> None:
    section = SECTION.model_copy(update={"queue_images": 8})
    toy = ToyScoring(section, delay_s=0.01)
    requests = [make_request(seed, count) for seed, count in enumerate([8, 8, 30, 3, 8, 5])]
    done: list[int] = []

    async def use(service: RewardService) -> list[ScoreReply]:
        async def one(index: int) -> ScoreReply:
            reply = await service.score(requests[index])
            done.append(index)
            return reply

        replies = await asyncio.gather(*(one(index) for index in range(len(requests))))
        assert service.stats().held_back_count >= 4
        return replies

    for request, reply in zip(requests, with_service(use, scoring=toy, section=section), strict=True):
        assert_same_reply(reply, direct(request))
    assert done == sorted(done)


def test_a_cancelled_caller_leaves_the_others_alone() -> None:
    async def use(service: RewardService) -> None:
        doomed = asyncio.create_task(service.score(make_request(0, 3)))
        kept = asyncio.create_task(service.score(make_request(1, 3)))
        await asyncio.sleep(0)
        doomed.cancel()
        assert_same_reply(await kept, direct(make_request(1, 3)))
        assert doomed.cancelled()

    with_service(use, scoring=ToyScoring(SECTION, delay_s=0.02))


def test_text_is_embedded_between_batches() -> None:
    prompts = ("a red circle", "a blue square")

    async def use(service: RewardService) -> None:
        reply, embedding = await asyncio.gather(service.score(make_request(0, 3)), service.embed_text(prompts))
        assert_same_reply(reply, direct(make_request(0, 3)))
        np.testing.assert_array_equal(embedding, ToyScoring().embed_text(prompts))

    with_service(use)


def test_scoring_again_gives_the_same_answer() -> None:
    async def use(service: RewardService) -> None:
        alone = await service.score(make_request(0, 5))
        crowded = await score_all(service, make_request(1, 3), make_request(0, 5), make_request(2, 7))
        assert_same_reply(alone, crowded[1])

    with_service(use)


def test_the_shipped_scorers_give_bitwise_the_same_through_the_service() -> None:
    section = ScorersSection(device="cpu")
    suite = load_suite(section)
    captions = ("a red circle", "a blue square", "a green triangle")
    requests = [
        replace(make_request(seed, count, size=64), prompts=tuple(captions[row % 3] for row in range(count)))
        for seed, count in enumerate((1, 5, 16, 30))
    ]
    replies = with_service(lambda service: score_all(service, *requests), scoring=suite, section=section)
    for request, reply in zip(requests, replies, strict=True):
        assert_same_reply(reply, suite.score(request))
