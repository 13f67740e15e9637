"""A pass that was given up: its results are dropped, it changes nothing more, and its thread holds up nobody."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from addiffusion.cancellation import Cancellation, GivenUpError, committing
from addiffusion.config import ScorersSection
from addiffusion.records import ScoreReply, ScoreRequest
from addiffusion.scorers.base import ScorerUsage
from addiffusion.scorers.cache import CachedScoring
from addiffusion.scorers.suite import Account
from addiffusion.text_cache import TextCache, one_by_one
from reward_service.scoring_thread import HungError, ScoringThread
from reward_service.service import RewardService
from tests.reward_service.toy_scoring import HangingScoring, ToyScoring, assert_same_reply, make_request

WAIT_S = 60.0


class Accounted(HangingScoring):
    """Its account and its text cache are those of a real suite; its first pass ends late and says so."""

    def __init__(self, section: ScorersSection) -> None:
        super().__init__(section)
        self.account, self.texts = Account(), TextCache(one_by_one(len))
        self.ended = threading.Event()

    def usage(self) -> ScorerUsage:
        return self.account.usage()

    def score(self, request: ScoreRequest) -> ScoreReply:
        first = not self.began.is_set()
        try:
            with self.account.charge("toy"):
                reply = super().score(request)
            self.texts.rows(request.prompts)
            self.account.blame(["toy"])
            return reply
        finally:
            if first:
                self.ended.set()


def test_a_pass_that_was_given_up_changes_nothing_beside_its_successor() -> None:
    """Neither account nor caches: only the successor's own work is in them."""
    section = ScorersSection(batch_images=8, max_wait_ms=2.0, timeout_s=WAIT_S, pass_timeout_s=1.0)
    scoring = Accounted(section)
    cached = CachedScoring(scoring, capacity=100)

    async def main() -> None:
        service = RewardService(cached, section)
        stuck = await service.score(make_request(0, 3))
        assert all(stuck.errors)
        after = await service.score(make_request(1, 2))
        assert_same_reply(after, ToyScoring(section).score(make_request(1, 2)))
        before = cached.usage()
        scoring.release.set()
        assert await asyncio.to_thread(scoring.ended.wait, WAIT_S)
        await asyncio.sleep(0.1)  # its last steps outside of the scorers
        assert cached.usage() == before
        again = await service.score(make_request(0, 3))
        assert_same_reply(again, ToyScoring(section).score(make_request(0, 3)))
        assert cached.usage().cache_hit_count == 0, "what the given-up pass computed is not remembered"
        assert service.stats().hung_count == 1
        await service.close()

    asyncio.run(main())


@pytest.mark.parametrize("change", [lambda a, t: a.blame(["x"]), lambda a, t: t.rows(["x"]), lambda a, t: a.halved()])
def test_no_shared_state_takes_anything_from_a_given_up_call(
    change: Callable[[Account, TextCache[int]], object],
) -> None:
    """It ends at the first thing that it tries to change."""
    account, texts, cancellation = Account(), TextCache(one_by_one(len)), Cancellation()
    before = account.usage()
    with cancellation.covering():
        cancellation.cancel()
        with pytest.raises(GivenUpError):
            change(account, texts)
    assert account.usage() == before
    change(account, texts)  # of nobody's call in particular
    with Cancellation().covering(), committing():
        pass


def test_giving_up_waits_for_a_change_that_has_begun() -> None:
    """So that none is torn."""
    cancellation, inside, leave = Cancellation(), threading.Event(), threading.Event()

    def work() -> None:
        with cancellation.covering(), committing():
            inside.set()
            assert leave.wait(WAIT_S)

    worker = threading.Thread(target=work)
    worker.start()
    assert inside.wait(WAIT_S)
    giving_up = threading.Thread(target=cancellation.cancel)
    giving_up.start()
    giving_up.join(0.1)
    assert giving_up.is_alive()
    leave.set()
    giving_up.join(WAIT_S)
    worker.join(WAIT_S)
    assert cancellation.cancelled
    assert not giving_up.is_alive()


def test_results_and_errors_of_calls_come_back_in_turn() -> None:
    """An exception is the caller's, and the next call runs on."""

    async def main() -> None:
        thread = ScoringThread(deadline_s=WAIT_S)
        (first, second, third) = await asyncio.gather(
            thread.run(int, "1"), thread.run(int, "one"), thread.run(threading.get_ident)
        )
        assert first.result() == 1
        assert isinstance(second.exception(), ValueError)
        assert third.result() != threading.get_ident()
        thread.close()

    asyncio.run(main())


def test_a_late_result_is_dropped_and_its_thread_ends() -> None:
    """Nothing arrives at the loop that gave it up, not even an unread exception."""
    release, workers = threading.Event(), list[threading.Thread]()

    def hang(fail: bool) -> int:
        workers.append(threading.current_thread())
        release.wait(WAIT_S)
        if fail:
            raise ValueError("late")
        return 1

    async def main() -> list[dict[str, object]]:
        complaints = list[dict[str, object]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        thread = ScoringThread(deadline_s=0.2)
        for fail in (False, True):
            with pytest.raises(HungError):
                await thread.run(hang, fail)
        release.set()
        for worker in workers:
            await asyncio.to_thread(worker.join, WAIT_S)
            assert not worker.is_alive()
        thread.close()
        return complaints

    assert asyncio.run(main()) == []


def test_a_hanging_pass_does_not_hold_the_interpreter() -> None:
    """A process whose scorer hangs for ever ends when its work does."""
    program = """
import asyncio, threading
from reward_service.scoring_thread import HungError, ScoringThread

async def main():
    thread = ScoringThread(deadline_s=0.1)
    try:
        await thread.run(threading.Event().wait)
    except HungError:
        print("given up")
    thread.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "given up\n"
