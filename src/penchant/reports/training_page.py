"""The training report, as text and as a page, from the figures of `training.evaluation.finish`."""

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from penchant.reports import pictures
from penchant.reports.page import figure3, render

NAMES = {
    "bert": "fine-tuned BERT",
    "logistic_regression": "TF-IDF + logistic regression",
    "random_forest": "TF-IDF + random forest",
    "zero_shot": "untrained encoder, by description",
}


def training_text(figures: dict[str, Any]) -> str:
    """The report for a terminal."""
    rows = figures["rows"]
    lines = [f"{figures['model']}: {rows['train']:,} training texts, {figures['seconds']:.0f} s, {rows['test']:,} test texts"]
    if "results" in figures:
        lines += interests_text(figures)
    if "spans" in figures:
        lines += spans_text(figures["spans"])
    for kind, slices in (("interests", figures.get("slices", [])), ("spans", figures.get("spans", {}).get("slices", []))):
        lines += [
            f"{kind} worse than elsewhere: {each['column']} {each['value']}, micro F1 {each['f1']:.3f} on {each['texts']} texts against {each['rest_f1']:.3f}"
            for each in slices
            if each["flagged"]
        ]
    return "\n".join(lines) + "\n"


def interests_text(figures: dict[str, Any]) -> list[str]:
    """Precision, recall and F1 per interest, averaged, by kind of text, and beside the baselines."""
    width = max(len(label) for label in figures["labels"]) + 2
    bert = figures["results"]["bert"]
    lines = ["", f"{'interest':{width}}{'precision':>10}{'recall':>9}{'F1':>9}{'AP':>9}{'texts':>8}"]
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
    return [*lines, "", calibration_text(figures)]


def calibration_text(figures: dict[str, Any]) -> str:
    """What calibration did, in a sentence."""
    before, after = (figures["calibration"][name]["ece"] for name in ("before", "after"))
    curves = " and a curve per interest" if figures["calibration"]["method"] == "isotonic" else ""
    return f"expected calibration error {before:.4f}, {after:.4f} after temperature {figures['temperature']:.2f}{curves}"


def spans_text(spans: dict[str, Any]) -> list[str]:
    """Precision, recall and F1 per dimension, exact matches only, and by seqeval's two rules without thresholds."""
    decoded = spans["decoded"]
    width = max(34, *(len(name) + 2 for name in decoded["per_type"]))
    lines = ["", f"{'spans':{width}}{'precision':>10}{'recall':>9}{'F1':>9}{'spans':>8}"]
    rows = [*decoded["per_type"].items(), *((f"  {name}", decoded[name]) for name in ("micro", "macro"))]
    rows += [(f"  micro, likeliest class, {mode}", row["micro"]) for mode, row in spans["raw"].items()]
    lines += [report_line(name, row, width, ("recall", "f1")) for name, row in rows]
    shown = ", ".join(f"{name} F1 {low:.3f}–{high:.3f}" for name, (low, high) in spans["intervals"].items())
    return [
        *lines,
        f"95% intervals (bootstrap over the test texts): {shown}",
        f"{100 * spans['expressible']:.1f}% of the spans begin and end where this tokenizer can begin and end one",
        "",
    ]


def report_line(name: str, row: dict[str, Any], width: int, keys: tuple[str, ...] = ("recall", "f1", "average_precision")) -> str:
    """One line of the classification report."""
    figures = "".join(f"{figure3(row.get(key)):>9}" for key in keys)
    return f"{name:{width}}{row['precision']:>10.3f}{figures}{row.get('support', ''):>8}"


def model_pictures(figures: dict[str, Any]) -> dict[str, Markup]:
    """The report's pictures by name, ready to stand in a page."""
    drawn = {"losses": pictures.losses(figures["history"])}
    if "results" in figures:
        results = figures["results"]
        names = [figures["labels"][label] for label in figures["labels"]]
        f1 = {NAMES[name]: [row["f1"] for row in parts["all"]["per_label"].values()] for name, parts in results.items()}
        drawn |= {
            "labels": pictures.label_bars(names, f1, "F1"),
            "curves": pictures.precision_recall({NAMES[name]: points for name, points in figures["curves"].items()}),
            "reliability": pictures.reliability({name: figures["calibration"][name] for name in ("before", "after")}),
            "confusion": pictures.confusion(figures["confusions"], figures["labels"]),
        }
    if "spans" in figures:
        per_type = figures["spans"]["decoded"]["per_type"]
        series = {
            name: [row[key] for row in per_type.values()] for name, key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
        }
        drawn["span_bars"] = pictures.label_bars(list(per_type), series, "exact matches", "dimension")
        found = figures["spans"]["reliability"]
        drawn["span_reliability"] = pictures.reliability(found) if found else ""
    return {name: Markup(picture) for name, picture in drawn.items()}  # noqa: S704 - our own SVG; matplotlib escapes its texts


def marked(text: str, true: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """A text in pieces, each with its kind: `good` for spans found as they are, `bad` for wrongly found ones, `missed`, or nothing."""
    right = {(each["start"], each["end"], each["dimension"]) for each in true} & {
        (each["start"], each["end"], each["dimension"]) for each in found
    }
    kinds = [""] * len(text)
    for spans, kind in ((true, "missed"), (found, "bad")):
        for each in spans:
            is_right = (each["start"], each["end"], each["dimension"]) in right
            kinds[each["start"] : each["end"]] = ["good" if is_right else kind] * (each["end"] - each["start"])
    cuts = sorted({0, len(text), *(edge for each in [*true, *found] for edge in (each["start"], each["end"]))})
    return [(text[start:end], kinds[start]) for start, end in pairwise(cuts)]


def report_values(figures: dict[str, Any]) -> dict[str, Any]:
    """What the templates of a training report need."""
    kinds = [part for part in figures.get("results", {"bert": {}})["bert"] if part != "all"]
    return {
        "figures": figures,
        "names": NAMES,
        "kinds": kinds,
        "pictures": model_pictures(figures),
        "marked": marked,
        "calibrated": calibration_text(figures) if "calibration" in figures else "",
    }


def training_page(figures: dict[str, Any]) -> str:
    """One self-contained HTML page."""
    return render("training.html", **report_values(figures))
