"""Progress of long work: a bar with rate and time left on a terminal, a plain log line now and then elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0
Advance = Callable[..., None]


@contextmanager
def progress(label: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Give `advance(count, note="")`. `done` of `total` were finished by an earlier run and don't count for the rate; `total` is None where nobody knows it."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bars:
            task = bars.add_task(label, total=total, completed=done, speed="", note="")

            def draw(count: int, note: str = "") -> None:
                bars.update(task, advance=count, note=note, speed=f"{bars.tasks[0].speed or 0:,.0f} {unit}/s")

            yield draw
        return
    start = last = time.monotonic()
    finished = 0

    def say(count: int, note: str = "") -> None:
        nonlocal finished, last
        finished += count
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = finished / (now - start)
            reached = f"{done + finished:,}" if total is None else f"{done + finished:,} of {total:,}"
            left = "" if total is None or not rate else f", {(total - done - finished) / rate:.0f} s left"
            log.info("%s: %s %s, %.0f/s%s %s", label, reached, unit, rate, left, note)

    yield say
