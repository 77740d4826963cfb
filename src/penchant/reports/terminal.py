"""Profiles drawn in a terminal."""

from typing import Any

from rich.console import Console
from rich.text import Text

from penchant.profiles.snapshot import Snapshot

BAR_WIDTH = 30


def draw_profile(user: str, rows: list[dict[str, Any]], snapshot: Snapshot, console: Console | None = None) -> None:
    """Print a bar per attribute, and under each the events that weigh most in it."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble((user, "bold"), f"  as of {snapshot.as_of:%Y-%m-%d %H:%M} UTC, confidence {rows[0]['confidence']:.2f}"))
    longest = max(row["weight"] for row in rows)
    for row in rows:
        bar = "█" * max(1, round(BAR_WIDTH * row["weight"] / longest))
        name = snapshot.taxonomy.label(row["value"]) if row["dimension"] == "interest" else f"{row['dimension']}: {row['value']}"
        figures = f"weight {row['weight']:.3f}  index {row['index']:.0f}  trend {trend_arrow(row['trend'])}  {row['events']} events, last {row['last_at']:%Y-%m-%d}"
        console.print(Text.assemble("\n", (f"{name:28}", "bold"), (f"{bar:{BAR_WIDTH}}", "cyan"), " ", figures))
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
