"""Writes models of full size with random weights, in the files and formats they are published in.

They draw and score nothing of sense, but they take the time, the memory and the code paths of the real ones: what goes
wrong with a real model goes wrong with them first, without a download.

Usage: uv run python scripts/full_size_weights.py FOLDER MODEL... [--fp16] [--no-t5] [--flux-blocks 2,2] [--tiny]
A file that is finished is not written again. `--list` says what each model takes, and writes nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from addiffusion.errors import AdDiffusionError, ConfigError
from addiffusion.files import existing_parent, make_folder
from launch.runtime.console import Stage
from scripts.full_size.files import File, is_there
from scripts.full_size.models import MODELS, Order, files_of

_SPARE = 2**30
"""Bytes of the disk that are left alone."""


def write(root: Path, models: Sequence[str], order: Order, console: Console) -> None:
    """Write what is not there yet.

    Args:
        root: each model gets a folder of its name in it.
        models: names of ``MODELS``.
        order: their form.
        console: says each file, and how far it is.

    Raises:
        ConfigError: the disk has too little room; nothing is written then.
        OutputError: a file can't be written.
    """
    files = [file for model in models for file in files_of(model, order)]
    missing = [file for file in files if not is_there(file, root)]
    _check_room(root, missing)
    total, done = sum(file.size for file in missing), 0
    with Stage(console, "MB written", _mb(total)) as stage:
        for file in missing:

            def advance(count: int, name: str = str(file.path)) -> None:
                nonlocal done
                done += count
                stage.reach(_mb(done), name)

            path = root / file.path
            make_folder(path.parent)
            file.write(root, advance)
            if file.size > 10**6:
                console.print(f"{path}, {file.size / 1e9:.2f} GB", highlight=False, soft_wrap=True)
    console.print(f"{root}: {_gb(files)} in {len(files)} files, {_gb(missing)} of it written now", soft_wrap=True)


def _check_room(root: Path, missing: Sequence[File]) -> None:
    free, needed = shutil.disk_usage(existing_parent(root / "new")).free, sum(file.size for file in missing)
    if needed + _SPARE > free:
        raise ConfigError(
            f"{root} needs {needed / 1e9:.1f} GB more, but the disk has {free / 1e9:.1f} GB free: ask for fewer "
            "models or smaller forms (--fp16, --no-t5, --flux-blocks 2,2), or give another folder."
        )


def _mb(size: int) -> int:
    return size // 10**6


def _gb(files: Sequence[File]) -> str:
    return f"{sum(file.size for file in files) / 1e9:.2f} GB"


def _blocks(text: str) -> tuple[int, int]:
    double, single = map(int, text.split(","))
    return double, single


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)}; all by default")
    parser.add_argument("--fp16", action="store_true", help="the fp16 variant of SD 1.5 and SDXL")
    parser.add_argument("--no-t5", action="store_true", help="SD3 without its third text encoder")
    parser.add_argument("--flux-blocks", type=_blocks, default=Order().flux_blocks, metavar="DOUBLE,SINGLE")
    parser.add_argument("--tiny", action="store_true", help="pipelines of the same layout, for tests")
    parser.add_argument("--list", action="store_true", help="only say what each model takes")
    given = parser.parse_args(arguments)
    if strangers := sorted(set(given.models) - set(MODELS)):
        parser.error(f"there is no model {strangers[0]}; there are {', '.join(MODELS)}")
    models = given.models or list(MODELS)
    order = Order(fp16=given.fp16, t5=not given.no_t5, flux_blocks=given.flux_blocks, tiny=given.tiny)
    console = Console()
    if given.list:
        for model in models:
            console.print(f"{model:<13} {_gb(files_of(model, order)):>9}", highlight=False)
        return 0
    try:
        write(given.folder, models, order, console)
    except AdDiffusionError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
