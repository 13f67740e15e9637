"""Progress of a comparison: one bar per stage, which says who is drawing and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evaluation.comparison.contestants import Contestant

Advance = Callable[[Contestant, int], None]
Stage = Callable[[str, Sequence[Contestant], int], Advance]


@contextmanager
def stages(console: Console) -> Iterator[Stage]:
    """The block gets a function that begins a stage of so many images, and returns what counts them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:

        def begin(title: str, contestants: Sequence[Contestant], image_count: int) -> Advance:
            if not console.is_terminal:
                names = ", ".join(contestant.title for contestant in contestants)
                console.print(f"{title}: {image_count} images ({names})", highlight=False, soft_wrap=True)
            task = bar.add_task(title, total=image_count)

            def advance(contestant: Contestant, count: int) -> None:
                bar.update(task, advance=count, description=f"{title} ({contestant.title})")

            return advance

        yield begin
