"""Pictures as SVG text, to stand inside a page."""

import io
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.text import Text

INK, GRID = "#26323f", "#e3e8ee"
COLOURS = ("#2f6fb3", "#d9822b", "#5a9a5a", "#a457a0", "#b8433d", "#7a7f87", "#3d9aa1", "#c2a63a")
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#9aa7b4",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "penchant",
}


def figure(width: float, height: float) -> Figure:
    """An empty picture, inches."""
    with mpl.rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def svg(picture: Figure, title: str) -> str:
    """The picture as an `<svg>` element that says what it shows."""
    stream = io.StringIO()
    for each in picture.findobj(Text):
        each.set_parse_math(False)  # a name with two dollar signs is no formula
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw the text, not ours
        picture.savefig(
            stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")) | {"Title": title}, transparent=True
        )
    text = stream.getvalue()
    return text[text.index("<svg") :].replace("<svg ", '<svg role="img" ', 1)


def axes(picture: Figure, **options: Any) -> Any:
    """One set of axes in the house style."""
    with mpl.rc_context(STYLE):
        return picture.add_subplot(**options)


def losses(history: Sequence[Mapping[str, float]]) -> str:
    """Losses, and the validation scores the best epoch is chosen by, per epoch."""
    picture = figure(8, 3)
    epochs = [each["epoch"] for each in history]
    with mpl.rc_context(STYLE):
        left, right = picture.subplots(1, 2)
    for plot, series in (
        (left, {"loss": "training", "validation_loss": "validation"}),
        (right, {"macro_average_precision": "interests: macro average precision", "entity_f1": "spans: F1"}),
    ):
        for key, label in series.items():
            if key in history[0]:
                plot.plot(epochs, [each[key] for each in history], marker="o", label=label)
        plot.legend(frameon=False)
        plot.set_xticks(epochs)
    left.set(xlabel="epoch", ylabel="loss per text", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="validation score", ylim=(0, 1))
    return svg(picture, "Loss and validation score per epoch")


def label_bars(names: Sequence[str], values: Mapping[str, Sequence[float]], xlabel: str, of: str = "interest") -> str:
    """Horizontal dots per label, one series per model, on one line each so that gaps are seen."""
    picture = figure(8, 0.8 + 0.23 * len(names))
    plot = axes(picture)
    rows = range(len(names) - 1, -1, -1)
    for n, row in enumerate(rows):
        low, high = min(each[n] for each in values.values()), max(each[n] for each in values.values())
        plot.plot([low, high], [row, row], color="#c9d2db", linewidth=2, zorder=1)
    for name, series in values.items():
        plot.scatter(series, rows, label=name, s=34, zorder=2)
    plot.set(xlabel=xlabel, xlim=(-0.02, 1.02), ylim=(-0.8, len(names) - 0.2))
    plot.set_yticks(list(rows), names)
    plot.legend(
        frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=len(values) if len(values) < 4 else 2
    )  # four names are wider than the picture
    return svg(picture, f"{xlabel} per {of}")


def precision_recall(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Precision over recall, one line per model."""
    picture = figure(5, 4)
    plot = axes(picture)
    for name, points in curves.items():
        plot.plot(points["recall"], points["precision"], label=name, linewidth=2)
    plot.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    plot.legend(frameon=False, loc="lower left")
    return svg(picture, "Precision over recall")


def reliability(series: Mapping[str, Mapping[str, Any]]) -> str:
    """How often decisions of a stated probability were true, one line per series; on the diagonal they are honest."""
    picture = figure(5, 4)
    plot = axes(picture)
    plot.plot([0, 1], [0, 1], color="#9aa7b4", linestyle="--", linewidth=1)
    for name, bins in series.items():
        plot.plot(bins["probability"], bins["frequency"], marker="o", label=f"{name}: ECE {bins['ece']:.4f}", linewidth=2)
    plot.set(xlabel="stated probability", ylabel="share that was true", xlim=(0, 1), ylim=(0, 1.02))
    plot.legend(frameon=False, loc="upper left")
    return svg(picture, "Reliability")


def confusion(pairs: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Bars of the most frequent (missed, tagged instead) pairs."""
    if not pairs:
        return ""
    picture = figure(8, 0.8 + 0.24 * len(pairs))
    plot = axes(picture)
    rows = list(range(len(pairs) - 1, -1, -1))
    plot.barh(rows, [each["count"] for each in pairs], color=COLOURS[4], height=0.7)
    plot.set_yticks(rows, [f"{names[each['true']]} → {names[each['tagged']]}" for each in pairs])
    plot.set(xlabel="texts")
    plot.xaxis.get_major_locator().set_params(integer=True)
    return svg(picture, "Interests taken for another")


def bars(counts: Sequence[tuple[str, float]], xlabel: str, colour: str = COLOURS[0]) -> str:
    """Horizontal bars, in the order given, each with its number."""
    picture = figure(8, 0.7 + 0.24 * max(1, len(counts)))
    plot = axes(picture)
    rows = list(range(len(counts) - 1, -1, -1))
    drawn = plot.barh(rows, [count for _, count in counts], color=colour, height=0.7)
    plot.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=8)
    plot.set_yticks(rows, [name for name, _ in counts])
    plot.set(xlabel=xlabel)
    return svg(picture, xlabel)


def shares_over_time(days: Sequence[datetime], series: Mapping[str, Sequence[float]], changed_at: datetime | None) -> str:
    """A user's strongest interests as shares of their mass through time."""
    picture = figure(8, 2.6)
    plot = axes(picture)
    for name, values in series.items():
        plot.plot(list(days), list(values), label=name, linewidth=2)
    if changed_at is not None:
        plot.axvline(changed_at, color="#9aa7b4", linestyle="--", linewidth=1)
        plot.annotate(
            "planted change",
            (changed_at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
        )
    plot.set(ylabel="share of mass", ylim=(0, None))
    plot.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(picture, "Interests over time")
