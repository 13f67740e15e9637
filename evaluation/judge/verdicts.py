"""Verdicts on disk: a question that was answered once is not paid for again."""

from __future__ import annotations

import json
from pathlib import Path

from addiffusion.files import append_line, make_folder
from evaluation.judge.contest import Choice


class VerdictFile:
    """One JSON line per verdict, appended as it arrives: a killed run loses the one under way. One writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._choices: dict[str, Choice] = {}
        if path.exists():
            self._load()

    def get(self, key: str) -> Choice | None:
        """The verdict under ``key``, or None."""
        return self._choices.get(key)

    def put(self, key: str, choice: Choice, reply: str) -> None:
        """Keep a verdict and the words it was given in."""
        self._choices[key] = choice
        make_folder(self.path.parent)
        append_line(self.path, json.dumps({"key": key, "choice": choice.value, "reply": reply}))

    def _load(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._choices[row["key"]] = Choice(row["choice"])
            except (ValueError, KeyError, TypeError):
                continue  # torn by a kill: the question is asked again
