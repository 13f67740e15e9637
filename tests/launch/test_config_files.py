"""Layers of the configuration, and what is said when one can't be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from addiffusion.config import Config
from addiffusion.errors import ConfigError
from launch.config_files import load_config, load_resolved, shipped_files
from launch.config_text import to_yaml


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field.description
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")


def test_every_key_is_documented() -> None:
    undocumented = [name for name, description in fields_of(Config) if not description]
    assert undocumented == []


def test_the_defaults_resolve_and_are_shipped() -> None:
    assert load_config().backbone.kind == "embedded"
    assert "default" in [file.stem for file in shipped_files()]


RECIPES = sorted((shipped_files()[0].parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", [*shipped_files(), *RECIPES], ids=lambda file: file.stem)
def test_every_shipped_file_loads(file: Path) -> None:
    assert load_config([file]).sampler.num_steps >= 2


def test_later_layers_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("ppo:\n  iterations: 7\n  epochs: 2\n")
    second.write_text("ppo:\n  iterations: 8\n")
    config = load_config([first, second], ["ppo.lr=2.0e-5", "run.seed=9", "run.seed=10"])
    assert (config.ppo.iterations, config.ppo.epochs, config.ppo.lr, config.run.seed) == (8, 2, 2.0e-5, 10)


def test_override_values_are_json_or_text(tmp_path: Path) -> None:
    config = load_config((), ["prompts.tiers=[1, 3]", "run.dir=2026", "prompts.source=list.txt", "rollout.slots=4"])
    assert config.prompts.tiers == (1, 3)
    assert config.run.dir == Path("2026")  # parses as a number, but a folder's name is wanted
    assert config.prompts.source == "list.txt"
    assert load_config((), ["run.dir=null"]).run.dir is None


def test_lists_and_mappings_need_no_quotes() -> None:
    config = load_config((), ["policy.actions=[continue, stop]", "scorers={kind: embedded}"])
    assert config.policy.actions == ("continue", "stop")
    assert load_config((), ['policy.actions=["continue", "stop"]']) == load_config(
        (), ["policy.actions=[continue,stop]"]
    )
    for text in ("[blurry]", "[blurry", "{a: 2026-01-01}"):  # lists, half a list, a date: a text where one is wanted
        assert load_config((), [f"backbone.negative_prompt={text}"]).backbone.negative_prompt == text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ppo.lrr=1", ["ppo.lrr", "did you mean ppo.lr?", "max_grad_norm"]),
        ("lr=1", ["unknown key lr", "did you mean ppo.lr or warm_start.lr?"]),
        ("nonsense=1", ["unknown key nonsense", "top-level keys", "evaluation"]),
        ("ppo.lr.x=1", ["ppo.lr can't be {'x': 1}", "number"]),
        ("ppo=1", ["ppo is a section", "iterations"]),
        ("ppo.lr=-1", ["ppo.lr can't be -1", "greater than 0"]),
        ("ppo.lr=fast", ["ppo.lr can't be 'fast'", "number"]),
        ("ppo.epochs=1.5", ["ppo.epochs can't be 1.5", "integer"]),
        ("rollout.slots=true", ["rollout.slots can't be True", "integer"]),
        ("refine.mask=blob", ["refine.mask can't be 'blob'", "'attention', 'self_attention', 'grid' or 'random'"]),
        ("sampler.solver=heun", ["sampler.solver can't be 'heun'", "'dpm++2m'", "'unipc3'"]),
        ("backbone.guidance_scale=-1", ["backbone.guidance_scale can't be -1"]),
        ('backbone={"negative_prompt": "x", "guidance_scale": 1}', ["negative_prompt needs a guidance_scale above 1"]),
        ("policy.actions=[continue,halt]", ["policy.actions.1 can't be 'halt'", "'refine'"]),
        ("prompts.tiers=[4]", ["prompts.tiers.0 can't be 4", "1, 2 or 3"]),
        ("reward.c_nfe=NaN", ["reward.c_nfe can't be nan", "finite"]),
        ("sampler.warmup_steps=50", ["warmup_steps must be smaller than num_steps", "num_steps=50, warmup_steps=50"]),
        ("backbone.path=x", ["path must be null", "kind='embedded', path='x'"]),
        ("ppo.lr", ["'ppo.lr' is not of the form key.sub=value"]),
        ("=1", ["'=1' is not of the form key.sub=value"]),
        ("ppo..lr=1", ["'ppo..lr=1' is not of the form"]),
    ],
)
def test_a_bad_override_is_named_with_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config((), [override])
    assert [word for word in words if word not in caught.value.message] == []
    assert "\n" not in caught.value.message


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"ppo\.lr .*; unknown key bar"):
        load_config((), ["ppo.lr=-1", "bar=2"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ppo: [1", "not valid YAML"),
        ("- 1\n- 2\n", "must hold `key: value` lines"),
        ("run:\n  seed: 2026-01-01\n", "holds a value that is no number"),
        ("ppo:\n  lr: 5e-5\n", "needs a decimal point"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str | bytes, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_config([file])
    assert words in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml can't be read: No such file"):
        load_config([tmp_path / "absent.yaml"])


def test_the_printed_configuration_reads_back_unchanged(tmp_path: Path) -> None:
    config = load_config((), ["ppo.lr=1e-7", "run.dir=runs/ä: #1", "prompts.source='quoted'", "policy.hidden=[8]"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_resolved(file) == config


def test_the_printed_configuration_documents_every_key() -> None:
    text = to_yaml(Config())
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for position, line in enumerate(lines):
        if not line.startswith("#"):
            assert lines[position - 1].startswith("#"), f"{line} has no comment"
    assert "[attention | self_attention | grid | random]" in text
    assert yaml.safe_load(text) == json.loads(Config().model_dump_json())
