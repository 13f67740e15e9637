"""Layers of the configuration, and what is said when one can't be used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from addiffusion.config import Config
from addiffusion.configuration import errors
from addiffusion.configuration.files import load_config, load_resolved, shipped_files
from addiffusion.configuration.text import to_yaml
from addiffusion.errors import ConfigError


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field.description
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")


def numbers_of(schema: Any, place: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Each number of a JSON schema, with what is said of it; numbers in lists and beside null too."""
    if isinstance(schema, dict) and schema.get("type") in {"integer", "number"} and "enum" not in schema:
        yield place, frozenset(schema)
    elif isinstance(schema, dict):
        for name, part in schema.items():
            yield from numbers_of(part, f"{place}.{name}")
    elif isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from numbers_of(part, f"{place}.{number}")


def test_every_key_is_documented() -> None:
    undocumented = [name for name, description in fields_of(Config) if not description]
    assert undocumented == []


def test_the_defaults_resolve_and_are_shipped() -> None:
    assert load_config().backbone.kind == "embedded"
    assert "default" in [file.stem for file in shipped_files()]


RECIPES = sorted((shipped_files()[0].parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", [*shipped_files(), *RECIPES], ids=lambda file: file.stem)
def test_every_shipped_file_loads(file: Path) -> None:
    kind = (yaml.safe_load(file.read_text()) or {}).get("backbone", {}).get("kind", "embedded")
    config = load_config([file], [] if kind == "embedded" else ["backbone.path=folder"])
    assert config.sampler.num_steps >= 2
    assert config.backbone.kind == kind
    if kind != "embedded":  # the family's file is found by its kind as well, and says the same
        assert config == load_config([], [f"backbone.kind={kind}", "backbone.path=folder"])


def test_later_layers_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("ppo:\n  iterations: 7\n  epochs: 2\n")
    second.write_text("ppo:\n  iterations: 8\n")
    config = load_config([first, second], ["ppo.lr=2.0e-5", "run.seed=9", "run.seed=10"])
    assert (config.ppo.iterations, config.ppo.epochs, config.ppo.lr, config.run.seed) == (8, 2, 2.0e-5, 10)


def test_of_a_run_of_before_newer_keys_have_the_defaults_of_the_code(tmp_path: Path) -> None:
    """Not what the shipped files say of them today."""
    tree = yaml.safe_load(to_yaml(Config()))
    del tree["sampler"]["leap_steps"], tree["observation"]["previews"], tree["backbone"]["guidance_scale"]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(tree))
    assert load_config().sampler.leap_steps == 4
    found = load_config([file], ["ppo.lr=2.0e-5"])
    assert found == Config().model_copy(update={"ppo": Config().ppo.model_copy(update={"lr": 2.0e-5})})


@pytest.mark.parametrize(
    ("recipe", "policy"), [("refining", "policy"), ("settings", "policy_latent"), ("previews", "policy_previews")]
)
def test_a_recipe_is_that_of_the_policy_that_ships(recipe: str, policy: str) -> None:
    folder = shipped_files()[0].parent
    made = load_config([folder / "recipes" / f"{recipe}.yaml"])
    shipped = load_config([folder.parent / "addiffusion" / "embedded" / policy / "config.yaml"])
    for section in ("sampler", "observation", "reward", "policy", "backbone", "ppo", "prompts", "refine"):
        one, other = getattr(made, section).model_dump(), getattr(shipped, section).model_dump()
        differing = {key for key in one if one[key] != other[key]}
        assert differing <= {"max_redraws", "usual_scores"}, section  # of no use without redraws, without previews


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
        ("a.b.c.d.e.f.g.h.i.j.k=1", ["unknown key a.b.c.d.e.f.g.h.i.j.k", "more than 10 parts"]),
        ("prompts.tiers=[]", ["prompts.tiers must not be empty"]),
        ("policy.hidden=[-4]", ["policy.hidden.0 can't be -4"]),
        ("policy.hidden=[64, 0]", ["policy.hidden.1 can't be 0"]),
        ("policy.hidden=[1000000000]", ["policy.hidden.0 can't be 1000000000"]),
        ("prompts.train_count=1000000000", ["prompts.train_count can't be 1000000000", "1000000"]),
        (f"run.seed={'9' * 5000}", ["run.seed can't be '999", "..."]),
        (f"ppo.lr={'9' * 5000}", ["ppo.lr can't be '999", "valid number"]),
        (f"ppo={{lr: 0x{'f' * 5000}}}", ["ppo.lr can't be a number of about 6020 digits"]),
        (f"ppo={'[' * 3000}", ["ppo is a section, not a value (given: '[[[", "..."]),
        ("ppo.lr=1e999", ["ppo.lr can't be inf"]),
        ("ppo={lr: 1, lr: 2}", ["ppo: 'lr' is given twice"]),
        ('ppo={"lr": 1, "lr": 2}', ["ppo: 'lr' is given twice"]),
        ('run.dir="\\ud800"', ["run.dir can't be '\\ud800'"]),
        ("backbone.negative_prompt=a \udcff car", ["backbone.negative_prompt can't be 'a \\udcff car'"]),
        ("ppo.\udcff=1", ["ppo has the key '\\udcff'"]),
        ("run.dir=~nosuchuser/x", ["run.dir can't be '~nosuchuser/x'", "~nosuchuser is no user's home folder"]),
        ("backbone.lora=~nosuchuser/x", ["backbone.lora can't be", "no user's home folder"]),
        ("scorers.hps.weights=~nosuchuser/x", ["scorers.hps.weights can't be", "no user's home folder"]),
        (f"run.dir={'a' * 300}", ["run.dir can't be 'aaa", "at most 255"]),
        (f"warm_start.bank={'a/' * 4000}", ["warm_start.bank can't be 'a/a", "at most 4096"]),
        ('prompts.source="a\\u0000b"', ["prompts.source can't be 'a\\x00b'", "zero bytes"]),
        ("rollout.gpus_per_worker=1.5", ["rollout.gpus_per_worker can't be 1.5", "whole number of GPUs"]),
        ("scorers.cpus=0.00001", ["scorers.cpus can't be 1e-05", "0.0001"]),
        ("scorers.extra=[..a:b]", ["scorers.extra.0 can't be '..a:b'"]),
        ("backbone.compile=on", ["backbone.compile can't be 'on'", "'off'"]),
        ('cluster={"mode": "serial", "bind": ""}', ["cluster.bind"]),
        ("reward={preset: phase1, bound: 2}", ["bound=2 is for preset=paired, not for phase1"]),
    ],
)
def test_a_bad_override_is_named_with_what_is_allowed(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config((), [override])
    assert [word for word in words if word not in caught.value.message] == []
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("key", ["backbone.compile", "tracking.wandb"])
def test_yaml_has_a_boolean_where_somebody_wrote_off(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    file = tmp_path / "off.yaml"
    file.write_text(f"{section}: {{{name}: off}}\n")
    assert load_config([file]) == load_config() == load_config((), [f"{key}=off"])


def test_no_choice_with_off_minds_the_yaml_word() -> None:
    for key in (key for key, allowed in choices_of(Config) if "off" in allowed):
        assert load_config((), [f"{key}=false"]) == load_config(), key


def choices_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, field in section.model_fields.items():
        if get_origin(field.annotation) is Literal:
            yield f"{prefix}{name}", get_args(field.annotation)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from choices_of(field.annotation, f"{prefix}{name}.")


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "paths.yaml"
    file.write_text(
        "run: {dir: ~/runs/a}\nwarm_start: {bank: ~/bank}\nprompts: {source: ~/p.txt}\n"
        "backbone: {kind: sdxl, path: ~/sdxl, preview: ~/taesd, lora: ~/l.safetensors}\n"
        "scorers: {clip: {weights: ~/c.pt}, image_reward: {backend: package, python: ~/bin/python}}\n"
    )
    config = load_config([file], ["resume=~", "scorers.dino.weights=~/d.pt"])
    assert (config.run.dir, config.warm_start.bank, config.resume) == (tmp_path / "runs/a", tmp_path / "bank", tmp_path)
    texts = [
        config.prompts.source,
        config.backbone.path,
        config.backbone.preview,
        config.backbone.lora,
        config.scorers.clip.weights,
        config.scorers.dino.weights,
        config.scorers.image_reward.python,
    ]
    names = ["p.txt", "sdxl", "taesd", "l.safetensors", "c.pt", "d.pt", "bin/python"]
    assert texts == [str(tmp_path / name) for name in names]


def test_relative_paths_and_hub_ids_stay_as_they_are() -> None:
    config = load_config((), ["run.dir=../a", "prompts.source=b/./c.txt"])
    assert (config.run.dir, config.prompts.source) == (Path("../a"), "b/./c.txt")
    scorers = load_config((), ["scorers.clip.weights=owner/name:file.pt"]).scorers
    assert scorers.clip.weights == "owner/name:file.pt"


def test_keys_that_contradict_each_other_are_named_with_their_values() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config((), ["ppo.learners=2", "cluster.mode=serial"])
    assert caught.value.message == (
        "ppo.learners are processes of their own: set ppo.learners=0, or cluster.mode=ray "
        "(cluster.mode='serial', ppo.learners=2)."
    )


def test_every_number_has_bounds() -> None:
    numbers = dict(numbers_of(Config.model_json_schema()["$defs"], ""))
    assert len(numbers) > 80
    assert [place for place, said in numbers.items() if not said & {"minimum", "exclusiveMinimum"}] == []
    assert [place for place, said in numbers.items() if not said & {"maximum", "exclusiveMaximum"}] == []


def test_of_very_many_complaints_the_first_are_told() -> None:
    with pytest.raises(ConfigError, match="and 38 more") as caught:
        load_config((), [f"nonsense{number}=1" for number in range(50)])
    assert len(caught.value.message) < 4000


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"ppo\.lr .*; unknown key bar"):
        load_config((), ["ppo.lr=-1", "bar=2"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ppo: [1", "not valid YAML"),
        ("- 1\n- 2\n", "must hold `key: value` lines"),
        ("run:\n  seed: 2026-01-01\n", "run.seed can't be '2026-01-01': it should be a valid integer"),
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


def test_keys_of_the_past_are_refused_with_what_became_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is a key that has never been: none was renamed so far."""
    monkeypatch.setattr(errors, "RENAMED", {**errors.RENAMED, "ppo.learning_rate": "ppo.lr"})
    present = {name for name, _ in fields_of(Config)}
    for old, new in errors.RENAMED.items():
        assert (old in present, new in present) == (False, True)
        with pytest.raises(ConfigError, match=rf"^{re.escape(old)} is called {re.escape(new)} now: give it there"):
            load_config([], [f"{old}=1"])
    for old in errors.GONE:
        assert old not in present
        with pytest.raises(ConfigError, match=rf"^{re.escape(old)} is gone: .*; leave it out"):
            load_config([], [f"{old}=1"])
