"""Pictures of a segment as SVG text: what its conditions leave, what it overlaps, how it moves. None stands for a count that may not be shown."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from penchant.reports.pictures import COLOURS, INK, STYLE, axes, figure, svg
from penchant.segments.counts import SMALLEST_SHOWN
from penchant.segments.fairness import FOUR_FIFTHS, GroupRate

WIDTH = 8.0
"""Inches; a page shows them a little larger."""
LINE_CELLS, NAME_LINES = 28, 2
"""Of a name beside a row: cells of a line (a Chinese character fills two), and lines."""
CELL = 0.095
"""Inches that a cell takes at most in the page's font, which isn't the one that is measured here."""
HIDDEN: dict[str, Any] = {"facecolor": "#f1f4f7", "edgecolor": "#9aa7b4", "hatch": "////", "linewidth": 0.5}
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 2}
"""What stands behind words on a hatched field."""
FEWER = f"fewer than {SMALLEST_SHOWN}"
COUNTS = FuncFormatter(lambda count, _: f"{count:,.0f}")


def short(name: str, width: int = LINE_CELLS, most: int = NAME_LINES) -> list[str]:
    """A name in at most so many lines of so many cells, broken between words where it has some; what is longer ends in `…`."""
    lines = [line.plain.rstrip() for line in Text(" ".join(name.split())).wrap(Console(width=width), width)]
    if len(lines) > most:
        return [*lines[: most - 1], chop_cells(lines[most - 1], width - 1)[0] + "…"]
    return lines


def beside(
    picture: Figure,
    names: Sequence[str],
    top: float = 0.1,
    right: float = 0.15,
    bottom: float = 0.55,
    gap: float = 0.07,
    most: int = NAME_LINES,
) -> Any:
    """Axes with a row per name, the first on top, `gap` away from them, and room for names on the left in whatever font. Inches."""
    plot = axes(picture)
    shown = [short(name, most=most) for name in names]
    left = 0.18 + gap + CELL * max((cell_len(line) for lines in shown for line in lines), default=0)
    width, height = picture.get_size_inches()
    plot.set_position((left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height))
    plot.set_yticks([])
    plot.set_ylim(-0.6, len(names) - 0.4)
    for row, lines in zip(rows_of(names), shown, strict=True):
        for n, line in enumerate(lines):  # each for itself, so that it ends at the axis in any font
            place = (-72 * gap, 13 * ((len(lines) - 1) / 2 - n))
            plot.annotate(
                line,
                (0, row),
                xycoords=("axes fraction", "data"),
                xytext=place,
                textcoords="offset points",
                ha="right",
                va="center",
                color=INK,
            )
    return plot


def rows_of(what: Sequence[Any]) -> range:
    """The place of each row, from the top."""
    return range(len(what) - 1, -1, -1)


def noted(plot: Axes, x: float, y: float, note: str) -> None:
    """A small note to the right of a point."""
    plot.annotate(note, (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9, color=INK)


def funnel(steps: Sequence[tuple[str, int | None]]) -> str:
    """How many people each condition leaves, from the top.

    A hidden step (see `penchant.segments.counts.shown_steps`) is drawn as long as the next size below that is shown: it is
    that or up to 49 people more.
    """
    picture = figure(WIDTH, 0.75 + 0.6 * len(steps))
    plot = beside(picture, [name for name, _ in steps], right=2.3 if any(size is None for _, size in steps) else 0.9, most=3)
    longest = max((size for _, size in steps if size is not None), default=SMALLEST_SHOWN)
    for n, (row, (_, size)) in enumerate(zip(rows_of(steps), steps, strict=True)):
        below = next((each for _, each in steps[n:] if each is not None), None)
        if size is not None:
            plot.barh(row, size, color=COLOURS[0], height=0.66)
            noted(plot, size, row, f"{size:,}")
        elif below is not None:
            plot.barh(row, below, height=0.66, **HIDDEN)
            noted(plot, below, row, f"{FEWER} more than below")
        else:
            plot.barh(row, min(SMALLEST_SHOWN, longest), height=0.66, **HIDDEN)
            noted(plot, min(SMALLEST_SHOWN, longest), row, FEWER)
    plot.set(xlabel="people", xlim=(0, longest))
    plot.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    plot.xaxis.set_major_formatter(COUNTS)
    return svg(picture, "What each condition leaves")


def overlap(names: Sequence[str], sizes: Sequence[int | None], both: Sequence[Sequence[int | None]]) -> str:
    """Of each row's segment, the share that is also in the column's segment, and how many people; `–` where that may not be shown.

    `both` has a row and a column for each of the names, and is the size on the diagonal.
    """
    if not names:
        return ""
    count = len(names)
    picture = figure(WIDTH, 0.75 + 0.55 * count)
    plot = beside(picture, names, top=0.6, bottom=0.1, gap=0.35)
    colours = mpl.colors.LinearSegmentedColormap.from_list("shares", ["#f4f8fc", COLOURS[0]])
    for row, (size, shared) in enumerate(zip(sizes, both, strict=True)):
        for column, people in enumerate(shared):
            share = people / size if people is not None and size else None
            place = (column - 0.5, count - 1.5 - row)
            look = {"facecolor": colours(share), "edgecolor": "white"} if share is not None else HIDDEN
            plot.add_patch(mpl.patches.Rectangle(place, 1, 1, **look))
            note = f"{share:.0%}\n{people:,}" if share is not None else "–"
            behind = {"bbox": WHITE} if share is None else {}
            plot.text(
                column, count - 1 - row, note, ha="center", va="center", fontsize=8, color="white" if (share or 0) > 0.6 else INK, **behind
            )
    plot.set(xlim=(-0.5, count - 0.5), ylim=(-0.5, count - 0.5), xlabel="of the row's segment, also in segment …")
    numbers = [str(n) for n in range(1, count + 1)]
    plot.set_xticks(range(count), numbers)
    plot.set_yticks(list(rows_of(names)), numbers)
    plot.xaxis.set_label_position("top")
    plot.tick_params(labeltop=True, labelbottom=False, length=0)
    plot.grid(visible=False)
    plot.spines[:].set_visible(False)
    return svg(picture, "Overlap of segments")


def curve(title: str, thresholds: Sequence[float], sizes: Sequence[int | None], current: float | None) -> str:
    """The size over the threshold of one condition, which `title` names; a line marks the current threshold, a band each hidden size."""
    picture = figure(WIDTH, 2.9)
    plot = axes(picture)
    shown = [(threshold, size) for threshold, size in zip(thresholds, sizes, strict=True) if size is not None]
    plot.plot([threshold for threshold, _ in shown], [size for _, size in shown], marker="o", linewidth=2)
    edges = [thresholds[0], *((one + other) / 2 for one, other in pairwise(thresholds)), thresholds[-1]]
    for (left, right), size in zip(pairwise(edges), sizes, strict=True):
        if size is None:
            plot.axvspan(left, right, zorder=0, **{**HIDDEN, "linewidth": 0})
    if None in sizes:
        note = f"hidden: {FEWER} people, or from another size"
        handles = [Patch(**HIDDEN, label=note)]
        plot.legend(handles=handles, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), fontsize=9, borderaxespad=0.2)
    if current is not None:
        plot.axvline(current, color=COLOURS[1], linestyle="--", linewidth=1.5)
        plot.annotate(
            "now", (current, 1), xycoords=("data", "axes fraction"), xytext=(4, -2), textcoords="offset points", va="top", fontsize=9
        )
    plot.set(xlabel="\n".join(short(title, 80)), ylabel="people", ylim=(0, 1.08 * max((size for _, size in shown), default=1)))
    plot.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    plot.yaxis.set_major_formatter(COUNTS)
    if not shown:
        plot.set_yticks([])
    return svg(picture, f"Size over {title}")


LOWEST_INDEX, HIGHEST_INDEX = 10.0, 1000.0


def special(rows: Sequence[tuple[str, float, float | None]]) -> str:
    """What sets a segment apart: (attribute, index, share) rows; None for a share that may not be shown.

    The index is 100 for everybody else's average; it is drawn on a log scale from 10 to 1,000, where twice and half are
    equally far, and what lies outside stands at its end. The share, 0 to 1, is that of the segment's people.
    """
    picture = figure(WIDTH, 0.75 + 0.42 * len(rows))
    plot = beside(picture, [name for name, _, _ in rows], right=1.4)
    for row, (_, index, share) in zip(rows_of(rows), rows, strict=True):
        drawn = min(max(index, LOWEST_INDEX), HIGHEST_INDEX)
        colour = COLOURS[0] if index >= 100 else COLOURS[1]
        plot.plot([100, drawn], [row, row], color=colour, linewidth=2)
        plot.plot([drawn], [row], color=colour, marker="o", markersize=7, clip_on=False)
        noted(plot, max(drawn, 100), row, f"{index:,.0f} · {share:.0%}" if share is not None else f"{index:,.0f}")
    plot.axvline(100, color=INK, linewidth=1)
    reach = [min(max(index, LOWEST_INDEX), HIGHEST_INDEX) for _, index, _ in rows] + [50, 200]
    plot.set(xscale="log", xlim=(min(reach) / 1.05, max(reach) * 1.05), xlabel="index (100: the rest) · share of the segment")
    ticks = [each for each in (10, 20, 50, 100, 200, 500, 1000) if min(reach) <= each <= max(reach)]
    plot.set_xticks(ticks, [f"{each:,}" for each in ticks])
    plot.set_xticks([], minor=True)
    return svg(picture, "What sets the segment apart")


def sizes_over_time(
    days: Sequence[datetime], sizes: Sequence[int | None], entered: Sequence[int | None], left: Sequence[int | None]
) -> str:
    """The size at each refresh above those who entered and left since the one before; a gap or no bar where a count is hidden."""
    picture = figure(WIDTH, 3.8)
    with mpl.rc_context(STYLE):
        above, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(list(days), [float("nan") if size is None else size for size in sizes], marker="o", markersize=4, linewidth=2)
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(days)]
    width = 0.6 * min(gaps, default=86_400) / 86_400
    below.bar(list(days), [each or 0 for each in entered], width=width, color=COLOURS[2], label="entered")
    below.bar(list(days), [-(each or 0) for each in left], width=width, color=COLOURS[4], label="left")
    below.axhline(0, color=INK, linewidth=0.8)
    below.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    locator = AutoDateLocator(maxticks=8)
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for plot, count in ((above, 6), (below, 4)):
        plot.yaxis.set_major_locator(MaxNLocator(count, integer=True))
    above.yaxis.set_major_formatter(COUNTS)
    below.yaxis.set_major_formatter(FuncFormatter(lambda each, _: f"{abs(each):,.0f}"))
    above.set(ylabel="people", ylim=(0, 1.08 * max((size for size in sizes if size is not None), default=1)))
    below.set(ylabel="people")
    for plot, counts in ((above, sizes), (below, [*entered, *left])):
        if not any(counts):
            plot.set_yticks([])
            plot.text(0.5, 0.5, "nothing that may be shown", transform=plot.transAxes, ha="center", fontsize=9, color=INK, bbox=WHITE)
    if len(days) == 1:
        below.set_xlim(days[0] - timedelta(days=3), days[0] + timedelta(days=3))
    return svg(picture, "Size at each refresh")


def shares(rows: Sequence[GroupRate]) -> str:
    """The selection rate of each group over the highest, with the four-fifths line; a band for groups whose ratio is hidden."""
    picture = figure(WIDTH, 0.95 + 0.42 * len(rows))
    plot = beside(picture, [each.group for each in rows], top=0.3, right=0.9)
    line = float(FOUR_FIFTHS)
    for row, each in zip(rows_of(rows), rows, strict=True):
        if each.ratio is not None:
            plot.barh(row, each.ratio, color=COLOURS[4] if each.flagged else COLOURS[0], height=0.66)
            noted(plot, each.ratio, row, f"{each.ratio:.2f}")
        else:
            plot.barh(row, 1, height=0.66, **HIDDEN)
            verdict = {True: "under four fifths", False: "four fifths or more", None: "too few to judge"}[each.flagged]
            plot.text(0.02, row, f"ratio hidden: {verdict}", va="center", fontsize=9, bbox=WHITE, color=INK)
    plot.axvline(line, color=INK, linestyle="--", linewidth=1.2)
    plot.annotate(
        "four fifths", (line, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9
    )
    plot.set(xlabel="selection rate over the highest", xlim=(0, 1))
    return svg(picture, "Selection rate of each group over the highest")
