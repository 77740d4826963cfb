"""Profiles drawn in a terminal."""

from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from penchant.profiles.habits import HABITS, WEEKDAYS, summary
from penchant.profiles.policy import Policy
from penchant.profiles.view import by_dimension, heading

BLOCKS = " ▁▂▃▄▅▆▇█"
HOURS = [f"{hour:02d}" for hour in range(24)]
BAR_WIDTH, NAME_WIDTH = 30, 28
"""Cells of a terminal; names are as wide as the widest, and so much at least."""


def draw_profile(
    user: str,
    attributes: list[dict[str, Any]],
    policy: Policy,
    as_of: datetime,
    top: int | None = None,
    console: Console | None = None,
) -> None:
    """Print a bar per attribute, and under each the events that weigh most in it: of each dimension the `top` first attributes.

    Every dimension has a scale of its own, and a heading unless interests stand alone. Habits are summed up in a few lines.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    shown = {dimension: rows[:top] for dimension, rows in by_dimension(attributes).items() if dimension not in HABITS}
    habits = summary(attributes, policy, as_of)
    if not shown:
        console.print(Text.assemble((user, "bold"), f"  as of {as_of:%Y-%m-%d %H:%M} UTC, nothing but habits"))
        draw_habits(habits, console)
        return
    width = max(NAME_WIDTH, *(cell_len(row["label"]) + 1 for rows in shown.values() for row in rows))
    confidence = next(iter(shown.values()))[0]["confidence"]
    console.print(Text.assemble((user, "bold"), f"  as of {as_of:%Y-%m-%d %H:%M} UTC, confidence {confidence:.2f}"))
    for dimension, rows in shown.items():
        if list(shown) != ["interest"]:
            console.print(Text.assemble("\n", (heading(dimension), "bold underline"), f", confidence {rows[0]['confidence']:.2f}"))
        longest = max(row["weight"] for row in rows)
        for row in rows:
            draw_attribute(row, width, row["weight"] / longest, console)
    draw_habits(habits, console)


def draw_habits(habits: dict[str, Any], console: Console) -> None:
    """Print what habits come to: two small charts and some figures; nothing where there are none."""
    if not habits:
        return
    hours, days = ([habits[name].get(key, 0.0) for key in keys] for name, keys in (("hours", HOURS), ("weekdays", WEEKDAYS)))
    spent = ", ".join(f"{amount:,.2f} {currency}" for currency, amount in habits["spend_per_30_days"].items())
    cycle = habits["purchase_cycle_days"]
    console.print(Text.assemble("\n", ("Habits", "bold underline")))
    console.print(f"    hours    0 {sparks(hours)} 23      weekdays  Mon {sparks(days)} Sun")
    console.print(f"    last seen {habits['recency_days']:.1f} days ago, {habits['events_per_30_days']:.1f} events per 30 days lately")
    bought = [f"spends {spent} per 30 days" if spent else "", f"buys every {cycle:.0f} days" if cycle is not None else ""]
    if any(bought):
        console.print(f"    {', '.join(each for each in bought if each)}")
    console.print("    sources  " + ", ".join(f"{name} {share:.0%}" for name, share in habits["sources"].items()))


def sparks(shares: list[float]) -> str:
    """A chart of one line: a block per number, as high as it is beside the largest."""
    highest = max(*shares, 0.0) or 1.0
    return "".join(BLOCKS[round(max(each, 0.0) / highest * (len(BLOCKS) - 1))] for each in shares)


def draw_attribute(row: dict[str, Any], width: int, length: float, console: Console) -> None:
    """Print one attribute: its label in `width` cells, whatever its script, a bar of `length` 0 to 1, its figures, its events."""
    bar = "█" * max(1, round(BAR_WIDTH * length))
    index = f"{row['index']:.0f}" if row["index"] is not None else "–"
    figures = f"weight {row['weight']:.3f}  index {index}  trend {trend_arrow(row['trend'])}  {row['events']} events, last {row['last_at']:%Y-%m-%d}"
    padded = row["label"] + " " * (width - cell_len(row["label"]))
    console.print(Text.assemble("\n", (padded, "bold"), (f"{bar:{BAR_WIDTH}}", "cyan"), " ", figures))
    for each in row["evidence"]:
        console.print(
            Text(
                f"    {each['contribution']:+.2f}  {each['occurred_at']:%Y-%m-%d} {each['source']}/{each['action']}: {each['snippet']}",
                style="dim",
            )
        )


def trend_arrow(trend: float | None) -> str:
    """The trend (log2 of lately over lastingly) as an arrow with its factor; None where nothing is left of lately."""
    if trend is None:
        return "↘ ×0"
    arrow = "↗" if trend > 0.25 else "↘" if trend < -0.25 else "→"
    return f"{arrow} ×{2**trend:.1f}"
