"""The training report, as text and as a page, from the figures of `training.evaluation.measure`."""

from typing import Any

from markupsafe import Markup

from penchant.reports import pictures
from penchant.reports.page import figure3, render

NAMES = {"bert": "fine-tuned BERT", "tfidf": "TF-IDF + logistic regression", "zero_shot": "untrained encoder, by description"}


def training_text(figures: dict[str, Any]) -> str:
    """The classification report for a terminal."""
    width = max(len(label) for label in figures["labels"]) + 2
    bert = figures["results"]["bert"]
    lines = [
        f"{figures['model']}: {figures['rows']['train']:,} training texts, {figures['seconds']:.0f} s, {figures['rows']['test']:,} test texts",
        "",
        f"{'interest':{width}}{'precision':>10}{'recall':>9}{'F1':>9}{'AP':>9}{'texts':>8}",
    ]
    lines += [report_line(label, row, width) for label, row in bert["all"]["per_label"].items()]
    for part, result in bert.items():
        lines += ["", "all texts" if part == "all" else f"{part}s"]
        averages = {"macro": result["macro"] | {"average_precision": result["macro_average_precision"]}}
        averages |= {f"{name}": result[name] for name in ("micro", "samples")} | {"no interest": result["none"]}
        lines += [report_line(f"  {name}", row, width) for name, row in averages.items()]
    lines += ["", f"{'':{width + 14}}{'macro F1':>10}{'micro F1':>10}{'samples F1':>12}{'none F1':>10}{'macro AP':>10}"]
    for name, parts in figures["results"].items():
        for part, result in parts.items():
            title = NAMES[name] if part == "all" else f"  {part}s"
            lines.append(
                f"{title:{width + 14}}{result['macro']['f1']:>10.3f}{result['micro']['f1']:>10.3f}{result['samples']['f1']:>12.3f}"
                f"{result['none']['f1']:>10.3f}{figure3(result['macro_average_precision']):>10}"
            )
    lines += ["", "95% intervals (bootstrap over the test texts)"]
    for name, intervals in figures["intervals"].items():
        shown_intervals = (f"{key} F1 {low:.3f}–{high:.3f}" for key, (low, high) in intervals.items())
        lines.append(f"{NAMES[name]:{width + 14}}{', '.join(shown_intervals)}")
    before, after = (figures["calibration"][name]["ece"] for name in ("before", "after"))
    lines += ["", f"expected calibration error {before:.4f}, {after:.4f} after temperature {figures['temperature']:.2f}"]
    return "\n".join(lines) + "\n"


def report_line(name: str, row: dict[str, Any], width: int) -> str:
    """One line of the classification report."""
    figures = "".join(f"{figure3(row.get(key)):>9}" for key in ("recall", "f1", "average_precision"))
    return f"{name:{width}}{row['precision']:>10.3f}{figures}{row.get('support', ''):>8}"


def model_pictures(figures: dict[str, Any]) -> dict[str, Markup]:
    """The report's pictures by name, ready to stand in a page."""
    results = figures["results"]
    names = [figures["labels"][label] for label in figures["labels"]]
    f1 = {NAMES[name]: [row["f1"] for row in parts["all"]["per_label"].values()] for name, parts in results.items()}
    drawn = {
        "losses": pictures.losses(figures["history"]),
        "labels": pictures.label_bars(names, f1, "F1"),
        "curves": pictures.precision_recall({NAMES[name]: points for name, points in figures["curves"].items()}),
        "reliability": pictures.reliability(figures["calibration"]["before"], figures["calibration"]["after"]),
        "confusion": pictures.confusion(figures["confusions"], figures["labels"]),
    }
    return {name: Markup(picture) for name, picture in drawn.items()}  # noqa: S704 - our own SVG; matplotlib escapes its texts


def report_values(figures: dict[str, Any]) -> dict[str, Any]:
    """What the templates of a training report need."""
    kinds = [part for part in figures["results"]["bert"] if part != "all"]
    return {"figures": figures, "names": NAMES, "kinds": kinds, "pictures": model_pictures(figures)}


def training_page(figures: dict[str, Any]) -> str:
    """One self-contained HTML page."""
    return render("training.html", **report_values(figures))
