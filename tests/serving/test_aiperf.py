"""NVIDIA's load generator reads our answers. It stays outside of the lock: `uv` gives it an environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.head import ROOT
from tests.serving.toy_server import served, toy_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
VERSION = "aiperf==0.13.0"
TOKENIZER = ROOT / "addiffusion/embedded/weights/pipeline/tokenizer"
"""From its own folder: the one that is called builtin is downloaded."""
REQUESTS = 16


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_aiperf_has_all_its_requests_answered(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "a red circle left of a blue square"}\n{"text": "a green triangle"}\n')
    with served(toy_model()) as server:
        options = {
            "url": server.url,
            "model": "toy",
            "endpoint-type": "image_generation",
            "tokenizer": str(TOKENIZER),
            "input-file": str(prompts),
            "custom-dataset-type": "single_turn",
            "concurrency": "4",
            "request-count": str(REQUESTS),
            "extra-inputs": "quality:low",
            "artifact-dir": str(tmp_path),
            "ui": "none",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        command = ["uv", "tool", "run", "--from", VERSION, "aiperf", "profile", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    told = json.loads((tmp_path / "profile_export_aiperf.json").read_text())
    assert told["request_count"]["avg"] == REQUESTS
    assert told["request_error_rate"]["avg"] == 0
    assert told["usage_completion_tokens"]["avg"] > 0
