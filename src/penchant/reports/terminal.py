"""Profiles drawn in a terminal."""

from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from penchant.profiles.snapshot import Snapshot
from penchant.profiles.view import by_dimension, heading

BAR_WIDTH, NAME_WIDTH = 30, 28
"""Cells of a terminal; names are as wide as the widest, and so much at least."""


def draw_profile(
    user: str,
    attributes: list[dict[str, Any]],
    snapshot: Snapshot,
    top: int | None = None,
    console: Console | None = None,
) -> None:
    """Print a bar per attribute, and under each the events that weigh most in it: of each dimension the `top` first attributes.

    Every dimension has a scale of its own, and a heading unless interests stand alone.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    shown = {dimension: rows[:top] for dimension, rows in by_dimension(attributes).items()}
    width = max(NAME_WIDTH, *(cell_len(row["label"]) + 1 for rows in shown.values() for row in rows))
    confidence = next(iter(shown.values()))[0]["confidence"]
    console.print(Text.assemble((user, "bold"), f"  as of {snapshot.as_of:%Y-%m-%d %H:%M} UTC, confidence {confidence:.2f}"))
    for dimension, rows in shown.items():
        if list(shown) != ["interest"]:
            console.print(Text.assemble("\n", (heading(dimension), "bold underline"), f", confidence {rows[0]['confidence']:.2f}"))
        longest = max(row["weight"] for row in rows)
        for row in rows:
            draw_attribute(row, width, row["weight"] / longest, console)


def draw_attribute(row: dict[str, Any], width: int, length: float, console: Console) -> None:
    """Print one attribute: its label in `width` cells, whatever its script, a bar of `length` 0 to 1, its figures, its events."""
    bar = "█" * max(1, round(BAR_WIDTH * length))
    figures = f"weight {row['weight']:.3f}  index {row['index']:.0f}  trend {trend_arrow(row['trend'])}  {row['events']} events, last {row['last_at']:%Y-%m-%d}"
    padded = row["label"] + " " * (width - cell_len(row["label"]))
    console.print(Text.assemble("\n", (padded, "bold"), (f"{bar:{BAR_WIDTH}}", "cyan"), " ", figures))
    for each in row["evidence"]:
        console.print(
            Text(
                f"    {each['contribution']:+.2f}  {each['occurred_at']:%Y-%m-%d} {each['source']}/{each['action']}: {each['snippet']}",
                style="dim",
            )
        )


def trend_arrow(trend: float) -> str:
    """The trend (log2 of lately over lastingly) as an arrow with its factor."""
    arrow = "↗" if trend > 0.25 else "↘" if trend < -0.25 else "→"
    return f"{arrow} ×{2**trend:.1f}"
