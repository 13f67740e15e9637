"""`addiffusion judge`: folders of images against the first of them, before a vision-language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from addiffusion.errors import EvaluationError
from evaluation.comparison.folders import ImageFolder, check_same_names, load_folder, prompts_of
from evaluation.judge.contest import Contest, Outcome
from evaluation.judge.endpoint import ChatClient, Endpoint
from evaluation.judge.judging import Judgement, judge
from evaluation.judge.ranking import Standing, bradley_terry
from evaluation.judge.verdicts import VerdictFile
from launch.comparing.orders import JudgeOrder
from launch.runtime.folder_lock import locked_file


def make_contests(order: JudgeOrder) -> list[Contest]:
    """One contest per image and folder after the first.

    Raises:
        EvaluationError: fewer than two folders, folders with equal names, or images that don't belong together.
    """
    if len(order.folders) < 2:
        raise EvaluationError("A judge needs two folders of images or more: give the reference first.")
    names = [folder.name for folder in order.folders]
    if len(set(names)) != len(names):
        raise EvaluationError(f"Folders need different names to be told apart, got {', '.join(names)}.", names=names)
    reference, *others = (load_folder(path) for path in order.folders)
    for other in others:
        check_same_names(reference, other)
    prompts = prompts_of(reference, order.prompts)
    count = min(len(prompts), order.limit or len(prompts))
    return [_contest(other, reference, prompts[row], row) for row in range(count) for other in others]


def judge_folders(
    order: JudgeOrder, contests: Sequence[Contest], advance: Callable[[int], None]
) -> tuple[Judgement, tuple[Standing, ...]]:
    """Outcomes and ranking; half a win each way is counted per pair, so that nobody's strength is infinite.

    Raises:
        JudgeError: the endpoint refuses or can't be reached; verdicts so far are kept.
        EvaluationError: no contest could be decided.
        RunFolderError: another judge keeps its verdicts in the same file.
    """
    client = ChatClient(endpoint=Endpoint(base_url=order.base_url, model=order.model))
    with locked_file(order.verdicts):
        judgement = judge(contests, client=client, verdicts=VerdictFile(order.verdicts), advance=advance)
    return judgement, bradley_terry(judgement.ballots, reference=order.folders[0].name, prior=0.5)


def to_json(judgement: Judgement, standings: Sequence[Standing]) -> dict[str, Any]:
    """For programs."""
    return {
        "contests": len(judgement.ballots),
        "ties": judgement.count(Outcome.TIE),
        "invalid": judgement.count(Outcome.INVALID),
        "asked": judgement.asked_count,
        "garbage": judgement.garbage_count,
        "position": judgement.position_count,
        "standings": [
            {
                "name": one.name,
                "strength": one.strength,
                "ci": one.interval.as_json(),
                "wins": one.wins,
                "contests": one.contest_count,
            }
            for one in standings
        ],
    }


def _contest(left: ImageFolder, right: ImageFolder, prompt: str, row: int) -> Contest:
    return Contest(
        prompt=prompt,
        left=left.path.name,
        right=right.path.name,
        left_image=left.images[left.names.index(right.names[row])],
        right_image=right.images[row],
    )
