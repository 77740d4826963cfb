"""The figures of a training run, made by hand as `training.evaluation.finish` makes them, and what may stand in a page."""

import re
from html.parser import HTMLParser
from typing import Any

LABELS = {"sports.running": "Running", "pets.cats": "Cats & <i>kittens</i>"}
NASTY = "<script>alert('x')</script> & \"quotes\" 跑步 😀 $a$"
MARKED = "<b>Nike & the rain on the 22nd of March in Paris: 跑步 in 北京"
"""A text whose first span begins with what a browser would take for markup."""
MODELS = ("bert", "logistic_regression")


def figures(task: str = "interests") -> dict[str, Any]:
    """Of a run of one epoch for `interests`, `spans` or `both`."""
    epoch = {"epoch": 1, "step": 7, "loss": 0.9, "seconds": 2.0, "score": 0.4}
    common = {
        "task": task,
        "model": "minilm",
        "rows": {"train": 1234, "validation": 20, "test": 30},
        "history": [epoch],
        "seconds": 61.7,
        "penchant": "0",
    }
    if task != "spans":
        epoch |= {"validation_loss": 0.8, "macro_average_precision": 0.4}
        common |= interests()
    if task != "interests":
        epoch |= {"entity_f1": 0.35}
        common["spans"] = spans()
    return common


def interests() -> dict[str, Any]:
    """Two interests, two models, two kinds of text, one confusion, two mistakes, two slices of which one is flagged."""
    return {
        "labels": LABELS,
        "parts": {"all": 30, "post": 18, "review": 12},
        "results": {
            "bert": {"all": result(0.8), "post": result(0.75), "review": result(0.85, None)},
            "logistic_regression": {"all": result(0.6), "post": result(0.55), "review": result(0.65)},
        },
        "intervals": {name: {"macro": (0.711, 0.912), "micro": (0.722, 0.923), "none": (0.733, 0.934)} for name in MODELS},
        "curves": {name: {"recall": [1.0, 0.5, 0.0], "precision": [0.2, 0.7, 1.0]} for name in MODELS},
        "confusions": [{"true": "pets.cats", "tagged": "sports.running", "count": 3}],
        "mistakes": [
            {"text": NASTY, "kind": "post", "true": ["pets.cats"], "tagged": [{"label": "sports.running", "score": 0.987}]},
            {"text": "a parcel", "kind": "review", "true": [], "tagged": []},
        ],
        "slices": [gap("kind", "post", 0.511, flagged=True), gap("language", "zh", 0.822)],
        "temperature": 1.25,
        "calibration": {"before": bins(0.1234), "after": bins(0.0567), "log_loss": {"temperature": 0.31, "isotonic": 0.32}}
        | {"method": "temperature"},
    }


def spans() -> dict[str, Any]:
    """Two dimensions, one slice, which is flagged, and a text in which one span is right, one wrong and one missed."""
    right, wrong, missed = span(0, 7, "brand"), span(14, 18, "brand"), span(56, 58, "place")
    return {
        "decoded": {
            "micro": figure(0.71) | {"support": 7},
            "macro": figure(0.72) | {"support": 7},
            "per_type": {"brand": figure(0.73) | {"support": 4}, "place": figure(0.74) | {"support": 3}},
        },
        "raw": {mode: {"micro": figure(f1) | {"support": 7}} for mode, f1 in (("strict", 0.61), ("default", 0.62))},
        "intervals": {"micro": (0.411, 0.812), "macro": (0.422, 0.823)},
        "slices": [gap("length", "4. longer", 0.433, flagged=True)],
        "expressible": 0.9876,
        "reliability": {"before": bins(0.0789), "after": bins(0.0345)},
        "thresholds": {"brand": 0.35, "place": 0.6},
        "temperature": 1.5,
        "mistakes": [{"text": MARKED, "kind": "post", "true": [right, missed], "found": [right, wrong]}],
    }


def span(start: int, end: int, dimension: str) -> dict[str, Any]:
    """A span as the report has it."""
    return {"start": start, "end": end, "dimension": dimension, "score": 0.9}


def gap(column: str, value: str, f1: float, flagged: bool = False) -> dict[str, Any]:
    """One slice of the test texts."""
    return {"column": column, "value": value, "texts": 40, "f1": f1, "interval": (0.388, 0.599), "rest_f1": 0.844, "flagged": flagged}


def bins(ece: float) -> dict[str, Any]:
    """What a picture of reliability shows."""
    return {"probability": [0.1, 0.6], "frequency": [0.2, 0.5], "count": [9, 1], "ece": ece}


def result(f1: float, average_precision: float | None = 0.9) -> dict[str, Any]:
    """One model's figures over some texts, told apart by their F1: macro `f1`, micro + 0.001, samples + 0.002, none + 0.003, labels + 0.004 and + 0.005."""
    averages = {name: figure(f1 + n / 1000) for n, name in enumerate(("macro", "micro", "samples", "none"))}
    averages["none"]["support"] = 4
    labels = {
        label: figure(f1 + n / 1000) | {"support": 10 * n, "average_precision": average_precision} for n, label in enumerate(LABELS, 4)
    }
    return averages | {"macro_average_precision": average_precision, "per_label": labels}


def figure(f1: float) -> dict[str, Any]:
    """Precision, recall and F1."""
    return {"precision": 0.123, "recall": 0.456, "f1": f1}


def addresses(page: str) -> list[str]:
    """Every http(s) address in a page but the names of XML namespaces."""
    return re.findall(r"https?://[^\s\"'<>]*", re.sub(r"""xmlns(:\w+)?=("[^"]*"|'[^']*')""", "", page))


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Every element of a page with its attributes, as a browser would find them."""
    found: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda name, attributes: found.append((name, dict(attributes)))  # type: ignore[method-assign]
    parser.handle_startendtag = parser.handle_starttag  # type: ignore[method-assign]
    parser.feed(page)
    parser.close()
    return found


def words(page: str) -> str:
    """What a reader of the page reads, with single spaces."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(page)
    parser.close()
    return " ".join(" ".join(found).split())
