"""`addiffusion serve` as a process: it says where it listens, answers, and finishes before it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import openai
import pytest
from typer.testing import CliRunner

from launch.cli.app import app

COMMAND = [sys.executable, "-c", "from launch.cli.app import main; main()", "serve", "--policy", "none", "--port", "0"]


def test_it_answers_and_finishes_what_it_has_begun() -> None:
    process = subprocess.Popen([*COMMAND, "sampler.num_steps=30"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        watch = threading.Timer(120, process.kill)
        watch.start()
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout)))
        client = openai.OpenAI(base_url=f"{found[0]}/v1", api_key="any", max_retries=0, timeout=60)
        assert client.models.list().data[0].id == "embedded"
        with client.images.generate(prompt="a red circle", n=2, stream=True, partial_images=1) as events:
            first = next(iter(events))
            process.send_signal(signal.SIGTERM)
            rest = list(events)
        assert first.type == "image_generation.partial_image"
        assert [event.type for event in rest].count("image_generation.completed") == 2
        assert process.wait(60) == 0
        watch.cancel()
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "takes a key: set ADDIFFUSION_API_KEY"),
        (["--host", "no.such.host.invalid"], "takes a key"),
        (["--api-key-file", "nowhere.txt"], "can't be read"),
        (["--port", "0", "--policy", "runs/nowhere"], "runs/nowhere"),
        (["--port", "0", "--policy", "none", "sampler.steps=3"], "sampler.steps"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ADDIFFUSION_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
