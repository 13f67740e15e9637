"""Options are stated once: the fields of an order are the options of its command, with their defaults."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from launch.cli.app import COMMANDS, GROUPS, app
from launch.cli.options import typer_command

ROOT = Path(__file__).parents[3]
ROOMS = sorted(path.parent.name for path in ROOT.glob("launch/*/orders.py"))


def orders_of(words: str) -> list[Any]:
    """Dataclasses that the function of a command takes."""
    given = signature(COMMANDS[words], eval_str=True).parameters.values()
    return [one.annotation for one in given if is_dataclass(one.annotation)]


def classes(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name


def parameters(words: str) -> dict[str, Any]:
    """What the finished command line takes there, by the name it gives it to the function with."""
    command: Any = typer.main.get_command(app)
    for word in words.split():
        command = command.commands[word]
    return {one.name: one for one in command.params}


def test_every_command_stands_in_the_list() -> None:
    """Those of the command line are those of the list, and every first word has its line of help."""
    root: Any = typer.main.get_command(app)
    reached: set[str] = set()
    for name, one in root.commands.items():
        reached |= {f"{name} {inner}".strip() for inner in getattr(one, "commands", [""])}
    assert reached == set(COMMANDS)
    assert {words.partition(" ")[0] for words in COMMANDS if " " in words} == set(GROUPS)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_of_a_command_says_what_it_is(words: str) -> None:
    assert not [name for name, one in parameters(words).items() if not one.help]


def test_each_order_belongs_to_one_command_and_lies_in_a_light_module() -> None:
    taken = Counter(f"{order.__module__}.{order.__name__}" for words in COMMANDS for order in orders_of(words))
    files = [(room, path) for room in ROOMS for path in (ROOT / "launch" / room).glob("*orders.py")]
    there = {f"launch.{room}.{path.stem}.{name}" for room, path in files for name in classes(path)}
    assert set(taken) == there
    assert set(taken.values()) == {1}
    elsewhere = [
        f"{path}: {name}"
        for home in ("launch", "evaluation")
        for path in (ROOT / home).rglob("*.py")
        for name in classes(path)
        if name.endswith("Order") and not path.name.endswith("orders.py")
    ]
    assert elsewhere == []
    assert {room for room, _ in files} == set(ROOMS)
    assert all(import_module(f"launch.{room}.{path.stem}").__doc__ for room, path in files)


@pytest.mark.parametrize("words", [words for words in COMMANDS if orders_of(words)])
def test_the_fields_of_an_order_are_its_options_with_their_defaults(words: str) -> None:
    found = parameters(words)
    own = set(signature(COMMANDS[words]).parameters)
    for order in orders_of(words):
        for field in fields(order):
            assert field.name not in own, f"{field.name} is stated twice"
            assert found[field.name].required == (field.default is MISSING)
            if field.default is not MISSING:
                assert found[field.name].default == field.default


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOrder:
    """Every kind of field there is."""

    names: Annotated[tuple[str, ...], typer.Argument(metavar="NAME...")]
    kind: Annotated[Literal["a", "b"], typer.Option()] = "a"
    sizes: Annotated[tuple[int, ...], typer.Option("--size", min=1)] = (1, 2)
    others: Annotated[tuple[str, ...], typer.Option("--other")] = ()
    usual: Annotated[tuple[str, ...] | None, typer.Option()] = None
    folder: Annotated[Path | None, typer.Option()] = None
    quick: Annotated[bool, typer.Option("--quick")] = False


def called(*words: str) -> tuple[Result, list[tuple[ToyOrder, tuple[Path, ...]]]]:
    """How a command that takes the toy order ended, and what it was called with."""
    calls: list[tuple[ToyOrder, tuple[Path, ...]]] = []

    def toy(*, files: Annotated[tuple[Path, ...], typer.Option("--config")] = (), order: ToyOrder) -> None:
        """Do nothing."""
        calls.append((order, files))

    app = typer.Typer()
    app.command()(typer_command(toy))
    return CliRunner().invoke(app, list(words)), calls


def test_an_order_is_made_of_what_is_given_and_its_defaults() -> None:
    """Lists of the command line arrive as tuples, and an option of many values that nobody gives as its default."""
    assert called("x", "y")[1] == [(ToyOrder(names=("x", "y")), ())]
    words = [
        "x",
        "--kind",
        "b",
        "--size",
        "3",
        "--size",
        "4",
        "--other",
        "o",
        "--usual",
        "u",
        "--folder",
        "f",
        "--quick",
    ]
    whole = ToyOrder(
        names=("x",), kind="b", sizes=(3, 4), others=("o",), usual=("u",), folder=Path("f"), quick=True
    )  # fmt: skip
    assert called(*words, "--config", "c")[1] == [(whole, (Path("c"),))]


@pytest.mark.parametrize(
    ("words", "said"),
    [((), "Missing argument 'NAME...'"), (("x", "--size", "0"), "--size"), (("x", "--kind", "c"), "'c' is not one of")],
)
def test_what_an_option_refuses_never_becomes_an_order(words: tuple[str, ...], said: str) -> None:
    result, calls = called(*words)
    assert (result.exit_code, calls) == (2, [])
    assert said in result.output
