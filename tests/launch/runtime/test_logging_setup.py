"""What Ray reports goes to a file, and the sentence of an error says where."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray.rllib  # noqa: F401 - has handlers of its own from now on
from ray._private import worker as core
from rich.console import Console

from addiffusion.errors import RolloutError
from launch.runtime.logging_setup import REPORTS, log_to, ray_reports, without_farewell

RAYLET = {"lines": ["A worker died or was killed."], "pid": "raylet", "is_err": False}
"""What Ray's listener hands over when a process of an actor is gone."""


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What the console shows; logging is as it was afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    log_to(Console(file=stream, width=200))
    yield stream
    root.handlers[:] = before
    root.setLevel(level)


def report_a_loss() -> None:
    """As RLlib and Ray do."""
    logging.getLogger("ray.rllib.utils.actor_manager").error("Ray error, taking actor 2 out of service.")
    core.print_to_stdstream(RAYLET, ignore_prefix=False)


def test_reports_go_to_the_folder_and_the_console_gets_one_line(
    tmp_path: Path, said: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    with ray_reports() as reports:
        report_a_loss()
        reports.keep_in(tmp_path)
        report_a_loss()
        logging.getLogger("learner.worker_pool").warning("Rollout worker 2 is lost.")
    assert capfd.readouterr() == ("", "")
    lines = (tmp_path / REPORTS).read_text().splitlines()
    assert ["taking actor 2" in line for line in lines] == [True, False, True, False]
    assert ["A worker died" in line for line in lines] == [False, True, False, True]
    assert [line.strip() for line in said.getvalue().splitlines()] == [
        f"What Ray reports of this is in {tmp_path / REPORTS}.", "Rollout worker 2 is lost."
    ]  # fmt: skip


def test_without_reports_there_is_no_file(tmp_path: Path) -> None:
    with ray_reports() as reports:
        reports.keep_in(tmp_path)
    assert list(tmp_path.iterdir()) == []


def fail_with_reports(folder: Path | None, *, reported: bool) -> None:
    with ray_reports() as reports:
        if folder is not None:
            reports.keep_in(folder)
        if reported:
            report_a_loss()
        raise RolloutError("No worker is left.", waited_s=3)


def test_an_error_names_the_file(tmp_path: Path, said: io.StringIO) -> None:
    with pytest.raises(RolloutError) as caught:
        fail_with_reports(tmp_path, reported=True)
    assert caught.value.message == f"No worker is left. Ray's own reports are in {tmp_path / REPORTS}."
    assert caught.value.facts == {"waited_s": 3}
    with pytest.raises(RolloutError) as caught:
        fail_with_reports(None, reported=True)  # a command without a folder
    file = Path(caught.value.message.removesuffix(".").rsplit(maxsplit=1)[1])
    assert "taking actor 2" in file.read_text()
    with pytest.raises(RolloutError, match=r"^No worker is left\.$"):
        fail_with_reports(tmp_path, reported=False)


def test_everything_is_as_before_afterwards(tmp_path: Path) -> None:
    sources, shown = [logging.getLogger(name) for name in ("ray", "ray.rllib")], core.print_to_stdstream
    handlers = [source.handlers for source in sources]
    assert all(handlers)
    with pytest.raises(RolloutError):
        fail_with_reports(tmp_path, reported=False)
    assert [source.handlers for source in sources] == handlers
    assert core.print_to_stdstream is shown


def test_rllib_that_is_imported_later_is_taken_over_then(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = logging.getLogger("ray.rllib")
    own, propagate = source.handlers, source.propagate
    monkeypatch.setattr(source, "handlers", [])
    monkeypatch.setattr(source, "propagate", True)
    with ray_reports() as reports:
        reports.keep_in(tmp_path)
        source.error("before its import")
        monkeypatch.setattr(source, "handlers", own)  # which adds handlers that write to the console
        monkeypatch.setattr(source, "propagate", propagate)
        source.setLevel(logging.WARNING)
        reports.take_over()
        source.warning("You are running PPO on the new API stack!")
        source.error("after it")
    assert capfd.readouterr().err == ""
    lines = (tmp_path / REPORTS).read_text().splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == ["before its import", "after it"]


def test_reports_that_find_no_room_are_counted_and_end_nothing(tmp_path: Path, said: io.StringIO) -> None:
    with ray_reports() as reports:
        reports.keep_in(tmp_path / "gone")
        report_a_loss()
        assert (reports.written_count, reports.dropped_count) == (0, 2)


def test_actors_that_were_ended_are_no_errors(tmp_path: Path) -> None:
    with ray_reports() as reports:
        reports.keep_in(tmp_path)
        with without_farewell():
            logging.getLogger("ray.rllib.utils.actor_manager").error("The actor is dead: killed by `ray.kill`.")
        assert not reports.any
        report_a_loss()
        assert reports.written_count == 2
