"""The figures of a training run, made by hand as `training.evaluation.measure` makes them, and what may stand in a page."""

import re
from html.parser import HTMLParser
from typing import Any

LABELS = {"sports.running": "Running", "pets.cats": "Cats & <i>kittens</i>"}
NASTY = "<script>alert('x')</script> & \"quotes\" 跑步 😀 $a$"


def figures() -> dict[str, Any]:
    """Two interests, two models, two kinds of text, one epoch, one confusion, two mistakes."""
    return {
        "labels": LABELS,
        "rows": {"train": 1234, "validation": 20, "test": 30, "test_post": 18, "test_review": 12},
        "history": [{"epoch": 1, "step": 7, "loss": 0.9, "validation_loss": 0.8, "macro_average_precision": 0.4, "seconds": 2.0}],
        "results": {
            "bert": {"all": result(0.8), "post": result(0.75), "review": result(0.85, None)},
            "tfidf": {"all": result(0.6), "post": result(0.55), "review": result(0.65)},
        },
        "intervals": {name: {"macro": (0.711, 0.912), "micro": (0.722, 0.923), "none": (0.733, 0.934)} for name in ("bert", "tfidf")},
        "calibration": {
            name: {"probability": [0.1, 0.6], "frequency": [0.2, 0.5], "count": [9, 1], "ece": ece}
            for name, ece in (("before", 0.1234), ("after", 0.0567))
        },
        "curves": {name: {"recall": [1.0, 0.5, 0.0], "precision": [0.2, 0.7, 1.0]} for name in ("bert", "tfidf")},
        "confusions": [{"true": "pets.cats", "tagged": "sports.running", "count": 3}],
        "mistakes": [
            {"text": NASTY, "kind": "post", "true": ["pets.cats"], "tagged": [{"label": "sports.running", "score": 0.987}]},
            {"text": "a parcel", "kind": "review", "true": [], "tagged": []},
        ],
        "seconds": 61.7,
        "model": "minilm",
        "temperature": 1.25,
        "penchant": "0",
    }


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
