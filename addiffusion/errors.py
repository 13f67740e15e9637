"""The error tree. A message is one whole sentence with its fix; the facts are fields of their own."""

from __future__ import annotations

from typing import Any


class AdDiffusionError(Exception):
    """Base of every error this project raises on purpose.

    The message carries everything a user needs; ``facts`` carries the same values for programs.
    Survives pickling, so it can cross a Ray actor boundary.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.facts)


def _rebuild(kind: type[AdDiffusionError], message: str, facts: dict[str, Any]) -> AdDiffusionError:
    return kind(message, **facts)


class UsageError(AdDiffusionError):
    """Something the user gave can't be used: the command line prints one sentence and exits with 2."""


class ArgumentError(UsageError, ValueError):
    """An argument of a call that can't be used; a ValueError, as diffusers raises it."""


class ConfigError(UsageError):
    """A configuration key or value that can't be used as written."""


class PromptError(UsageError):
    """A prompt, or a file of prompts, that can't be read or is outside the expected grammar."""


class OutputError(UsageError):
    """A file or folder that can't be written where it was asked for: full disk, quota, rights."""


class RunFolderError(UsageError):
    """A run folder that exists already, is missing, or holds something else."""


class CheckpointError(UsageError):
    """A checkpoint that is missing, corrupt, or of another configuration."""


class ClusterError(UsageError):
    """Ray can't be started or joined as asked."""


class WeightsError(UsageError):
    """Model weights that are missing or do not fit their configuration."""


class ArchiveError(UsageError):
    """A file of recorded episodes that can't be read, or that something else wrote."""


class MissingExtraError(UsageError):
    """A library that an extra of this project brings is not installed."""


class EvaluationError(UsageError):
    """Scores, images or features that can't be compared or measured as given."""


class ContractError(AdDiffusionError):
    """Two components disagree on shapes, names or order: a defect, never the user's doing."""


class SlotError(AdDiffusionError):
    """A slot was asked for something its phase does not allow."""


class ScorerError(AdDiffusionError):
    """A scorer failed on an item; that item has no score (and never a zero)."""


class JudgeError(AdDiffusionError):
    """The judge's endpoint can't be reached, refuses, or asks to wait too long; verdicts so far are kept."""


class StaleWeightsError(AdDiffusionError):
    """A rollout ran with weights older than the learner allows."""


class RolloutError(AdDiffusionError):
    """Episodes could not be collected: every worker is gone, or a deadline has passed."""


class DeviceLostError(RolloutError):
    """The accelerator of a process failed in a way that only a new process heals."""


class UpdateError(AdDiffusionError):
    """A policy update that can't be applied, because its loss or gradient is not finite."""
