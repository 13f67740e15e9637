"""The command line. Commands import what they need when they run, so that help appears at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from addiffusion import __version__
from launch.cli.ablate import ablate
from launch.cli.bank import build, info, play
from launch.cli.bench import bench_reward, bench_serve, bench_train, collect, engine, finish, pipeline, speed, startup
from launch.cli.border import border
from launch.cli.doctor import doctor, token
from launch.cli.embedded import embedded_card, embedded_prompts, embedded_train
from launch.cli.evaluate import evaluate, export, pareto, report, results, settings
from launch.cli.gate import gate
from launch.cli.measure import judge, metrics
from launch.cli.options import Command, typer_command
from launch.cli.reward import score, status, stop
from launch.cli.sample import sample
from launch.cli.serve import serve
from launch.cli.train import show_config, train
from launch.cli.tune import tune

COMMANDS: Mapping[str, Command] = {
    "score": score,
    "evaluate": evaluate,
    "export": export,
    "report": report,
    "results": results,
    "pareto": pareto,
    "settings": settings,
    "gate": gate,
    "ablate": ablate,
    "metrics": metrics,
    "judge": judge,
    "tune": tune,
    "doctor": doctor,
    "token": token,
    "train": train,
    "config": show_config,
    "sample": sample,
    "serve": serve,
    "embedded train": embedded_train,
    "embedded card": embedded_card,
    "embedded prompts": embedded_prompts,
    "reward status": status,
    "reward stop": stop,
    "bench engine": engine,
    "bench collect": collect,
    "bench finish": finish,
    "bench pipeline": pipeline,
    "bench speed": speed,
    "bench startup": startup,
    "bench reward": bench_reward,
    "bench train": bench_train,
    "bench serve": bench_serve,
    "bank build": build,
    "bank info": info,
    "bank play": play,
}
"""Every command by its words, in the order of the help."""
GROUPS: Mapping[str, str] = {
    "embedded": "The built-in world: its models and how they are trained.",
    "reward": "Reward services that run on a cluster.",
    "bench": "Measure on this machine: a table, and last one JSON line.",
    "bank": "Trajectory banks: every prompt rolled out once, with every place it could have stopped.",
}
"""First words that several commands share, and what they are about."""


class Commands(TyperGroup):
    """Every command runs inside the border: what it raises ends as one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with border():
            return super().invoke(ctx)


app = typer.Typer(
    name="addiffusion",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Train and use an agent that decides, image by image and step by step, how long a diffusion model works.",
)
_groups = {"": app} | {name: typer.Typer(no_args_is_help=True, help=text) for name, text in GROUPS.items()}
for _name in GROUPS:
    app.add_typer(_groups[_name], name=_name)
for _words, _function in COMMANDS.items():
    _group, _, _name = _words.rpartition(" ")
    _groups[_group].command(_name)(typer_command(_function))


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Options that belong to no command."""
    if version:
        typer.echo(f"addiffusion {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the console script."""
    app()
