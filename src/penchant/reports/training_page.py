"""The training report, as text and as a page, from the figures of `training.evaluation.measure`."""

from typing import Any

from markupsafe import Markup

from penchant.reports import pictures
from penchant.reports.page import render

NAMES = {"bert": "fine-tuned BERT", "tfidf": "TF-IDF + logistic regression", "zero_shot": "untrained encoder, by description"}


def training_text(figures: dict[str, Any]) -> str:
    """The classification report for a terminal."""
    width = max(len(label) for label in figures["labels"]) + 2
    lines = [
        f"{figures['model']}: {figures['rows']['train']:,} training texts, {figures['seconds']:.0f} s, {figures['rows']['test']:,} test texts",
        "",
    ]
    lines.append(f"{'interest':{width}}{'precision':>10}{'recall':>8}{'F1':>8}{'texts':>7}")
    for label, row in figures["results"]["bert"]["all"]["per_label"].items():
        lines.append(f"{label:{width}}{row['precision']:>10.3f}{row['recall']:>8.3f}{row['f1']:>8.3f}{row['support']:>7}")
    lines += ["", f"{'':{width + 14}}{'macro F1':>10}{'micro F1':>10}{'samples F1':>12}{'none F1':>10}{'macro AP':>10}"]
    for name, parts in figures["results"].items():
        for part, result in parts.items():
            title = NAMES[name] if part == "all" else f"  {part}s"
            average_precision = result["macro_average_precision"]
            shown = f"{average_precision:>10.3f}" if average_precision is not None else f"{'–':>10}"
            lines.append(
                f"{title:{width + 14}}{result['macro']['f1']:>10.3f}{result['micro']['f1']:>10.3f}{result['samples']['f1']:>12.3f}{result['none']['f1']:>10.3f}{shown}"
            )
    return "\n".join(lines) + "\n"


def model_pictures(figures: dict[str, Any]) -> dict[str, Markup]:
    """The report's pictures by name, ready to stand in a page."""
    results = figures["results"]
    names = [figures["labels"][label] for label in figures["labels"]]
    f1 = {NAMES[name]: [row["f1"] for row in parts["all"]["per_label"].values()] for name, parts in results.items()}
    drawn = {
        "losses": pictures.losses(figures["history"]),
        "labels": pictures.label_bars(names, f1, "F1"),
        "curves": pictures.precision_recall({NAMES[name]: points for name, points in figures["curves"].items()}),
        "confusion": pictures.confusion(figures["confusions"], figures["labels"]),
    }
    return {name: Markup(picture) for name, picture in drawn.items()}  # noqa: S704 - our own SVG; matplotlib escapes its texts


def training_page(figures: dict[str, Any]) -> str:
    """One self-contained HTML page."""
    kinds = [part for part in figures["results"]["bert"] if part != "all"]
    return render("training.html", figures=figures, names=NAMES, kinds=kinds, pictures=model_pictures(figures))
