"""Metrics of tags and spans as `evaluate.Metric` modules that need no hub, and how sure one can be of them.

Whatever resamples texts works on *counts*: per text and class, how many `hits`, `predicted` and `true` there are, each
*Shape:* (texts, classes). Interests and spans differ only in how they are counted.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from seqeval.metrics.sequence_labeling import classification_report
from seqeval.scheme import IOB2
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

DESCRIPTION = "Precision, recall, F1 and average precision of multi-label predictions, per label and averaged; and of predicting no label."
SPAN_DESCRIPTION = "Precision, recall and F1 of whole spans, per type and averaged."
SHOWN_VALUES = 20
"""Values of a column that are slices of their own; the rarer ones are one slice, `OTHERS`."""
OTHERS = "others"
FLAGGED_TEXTS = 30
"""A smaller slice is never flagged: the bootstrap's interval is too narrow on few texts."""
CELLS = 4_000_000
"""Numbers of a matrix of weights that are held at a time: 32 MB."""
Counts = Mapping[str, Any]


class MultiLabel(evaluate.Metric):
    """Predictions and references are 0/1 rows, `scores` 0 to 1 rows; all *Shape:* (texts, labels).

    `compute(..., scores=, labels=)` gives `micro`, `macro`, `samples` (each precision, recall, f1), `none` (a text
    without labels as a class of its own), `macro_average_precision`, and `per_label` by name with `support`. The macro
    average runs over the labels that occur in the references.
    """

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("int8"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            features=datasets.Features({"predictions": vectors, "references": vectors}),
            inputs_description="predictions, references: 0/1 rows",
        )

    def _compute(self, predictions: Any, references: Any, scores: Any = None, labels: Any = None) -> dict[str, Any]:
        predicted, true = np.asarray(predictions, dtype=int), np.asarray(references, dtype=int)
        names = list(labels) if labels is not None else [str(n) for n in range(true.shape[1])]
        per_label = dict(
            zip(
                ("precision", "recall", "f1", "support"),
                precision_recall_fscore_support(true, predicted, average=None, zero_division=0),
                strict=True,
            )
        )
        present = np.flatnonzero(true.sum(axis=0))
        average_precision = np.full(len(names), np.nan)
        if scores is not None:
            for n in present:
                average_precision[n] = average_precision_score(true[:, n], np.asarray(scores)[:, n])
        result: dict[str, Any] = {
            "macro": {key: float(per_label[key][present].mean()) if len(present) else 0.0 for key in ("precision", "recall", "f1")}
        }
        for average in ("micro", "samples"):
            result[average] = triple(true, predicted, average)
        result["none"] = triple(~true.any(axis=1), ~predicted.any(axis=1), "binary") | {"support": int((~true.any(axis=1)).sum())}
        result["macro_average_precision"] = float(np.nanmean(average_precision[present])) if scores is not None and len(present) else None
        result["per_label"] = {
            name: {
                "precision": float(per_label["precision"][n]),
                "recall": float(per_label["recall"][n]),
                "f1": float(per_label["f1"][n]),
                "support": int(per_label["support"][n]),
                "average_precision": None if np.isnan(average_precision[n]) else float(average_precision[n]),
            }
            for n, name in enumerate(names)
        }
        return result


def triple(true: Any, predicted: Any, average: Any) -> dict[str, float]:
    """Precision, recall and F1 under one way of averaging."""
    values = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
    return dict(zip(("precision", "recall", "f1"), map(float, values[:3]), strict=True))


class SpanF1(evaluate.Metric):
    """Predictions and references are lists of BIO tags, one list per text; a span is right when its type and both ends are.

    `compute(..., mode=)` gives `micro`, `macro` and `per_type` by name, each with precision, recall, f1 and support (true
    spans). `default` reads an `I-` without its `B-` as the begin of a span, as conlleval does; `strict` drops it (seqeval's
    IOB2). As in `MultiLabel`, the macro average runs over the types that occur in the references: seqeval's own also
    counts a type that was only predicted, as 0. `strict` slows down on long lists: 100 texts of 1,280 tags take 0.8 s,
    10 of 12,800 take 2.0 s; `default` takes 0.3 s for either.
    """

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=SPAN_DESCRIPTION,
            citation="",
            features=datasets.Features({"predictions": tags, "references": tags}),
            inputs_description="predictions, references: lists of BIO tags",
        )

    def _compute(self, predictions: Any, references: Any, mode: str = "default") -> dict[str, Any]:
        if mode not in ("default", "strict"):
            raise ValueError(f"mode is {mode!r}, expected 'default' or 'strict'")
        rules = {"mode": "strict", "scheme": IOB2} if mode == "strict" else {}
        true, predicted = ([list(each) for each in lists] for lists in (references, predictions))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # seqeval's mean over no types, where there is no span at all
            report = classification_report(true, predicted, output_dict=True, zero_division=0, **rules)
        rows = {
            name: {key: float(row[own]) for key, own in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"))}
            | {"support": int(row["support"])}
            for name, row in report.items()
        }
        micro = rows.pop("micro avg")
        per_type = {name: row for name, row in rows.items() if not name.endswith(" avg")}
        present = [row for row in per_type.values() if row["support"]]
        macro = {key: float(np.mean([row[key] for row in present])) if present else 0.0 for key in ("precision", "recall", "f1")}
        return {"micro": micro, "macro": macro | {"support": micro["support"]}, "per_type": per_type}


def decision_counts(true: Any, tagged: Any) -> dict[str, Any]:
    """Counts of 0/1 decisions. *Shape:* true, tagged and each result (texts, labels)."""
    true, tagged = np.asarray(true) > 0, np.asarray(tagged) > 0
    return {"hits": (true & tagged).astype(float), "predicted": tagged.astype(float), "true": true.astype(float)}


def f1_intervals(true: Any, predicted: Any, draws: int = 1000, seed: int = 13) -> dict[str, tuple[float, float]]:
    """95% intervals of `macro`, `micro` and `none` F1 by the percentile bootstrap over texts (Efron 1979).

    The macro average of a draw runs over the labels that occur in it. Equal `draws` and `seed` draw the same texts, so
    that two models on one split are drawn alike. *Shape:* true and predicted (texts, labels), 0 or 1.
    """
    true, predicted = np.asarray(true) > 0, np.asarray(predicted) > 0
    counts = decision_counts(true, predicted)
    nothing = decision_counts(*((~each.any(axis=1))[:, None] for each in (true, predicted)))
    drawn = gathered(
        averaged_f1(summed(counts, weights)) | {"none": averaged_f1(summed(nothing, weights))["micro"]}
        for weights in bootstrap(len(true), draws, seed)
    )
    return {name: interval(each) for name, each in drawn.items()}


def span_intervals(hits: Any, predicted: Any, true: Any, draws: int = 1000, seed: int = 13) -> dict[str, tuple[float, float]]:
    """95% intervals of `micro` and `macro` F1 from counts, drawn as in `f1_intervals`. *Shape:* each (texts, types)."""
    counts = {"hits": np.asarray(hits), "predicted": np.asarray(predicted), "true": np.asarray(true)}
    drawn = gathered(averaged_f1(summed(counts, weights)) for weights in bootstrap(len(counts["true"]), draws, seed))
    return {name: interval(drawn[name]) for name in ("micro", "macro")}


def paired_test(one: Counts, other: Counts, *, draws: int = 5000, seed: int = 13) -> dict[str, dict[str, Any]]:
    """Whether two models differ in `macro` and `micro` F1 on the same texts, from the counts of each.

    Gives the F1 of `one` and of `other`, their `difference`, its 95% `interval` by the paired bootstrap, and the
    two-sided `p` of approximate randomisation: how often the difference is as large where each text's two answers are
    swapped by chance, with the observed one counted in (Noreen 1989, Computer-Intensive Methods for Testing Hypotheses,
    chapter 2). Raises `ValueError` where the true tags of the two aren't the same.
    """
    if not np.array_equal(one["true"], other["true"]):
        raise ValueError(
            f"the two models were measured on different texts: {np.shape(one['true'])} and {np.shape(other['true'])} true tags"
        )
    f1s = [averaged_f1(summed(each, np.ones(len(each["true"])))) for each in (one, other)]
    weighings = bootstrap(len(one["true"]), draws, seed)
    drawn = gathered(gained(summed(one, weights), summed(other, weights)) for weights in weighings)
    swapped = gathered(swaps(one, other, draws, seed))
    result = {}
    for name in ("macro", "micro"):
        difference = float(f1s[0][name] - f1s[1][name])
        as_large = int((np.abs(swapped[name]) >= abs(difference) - 1e-12).sum())  # equal ones may differ by their rounding
        result[name] = {
            "one": float(f1s[0][name]),
            "other": float(f1s[1][name]),
            "difference": difference,
            "interval": interval(drawn[name]),
            "p": (1 + as_large) / (1 + draws),
        }
    return result


def slice_gaps(counts: Counts, slices: Mapping[str, Sequence[str]], draws: int = 1000, seed: int = 13) -> list[dict[str, Any]]:
    """Micro F1 of every slice beside that of all other texts, by column and value; `slices` has a value per text for each column.

    `flagged` is a slice of at least `FLAGGED_TEXTS` texts, against as many others, whose whole 95% `interval` (bootstrap over its texts) lies under
    the others' F1; one without a true tag never is, as its F1 can be nothing but 0. Of many slices that are no worse, about
    one in forty is flagged by chance.
    """
    pooled = {name: np.asarray(each).sum(axis=1, keepdims=True) for name, each in counts.items()}
    return [
        {"column": column, "value": value} | gap(pooled, chosen, draws, seed)
        for column in sorted(slices)
        for value, chosen in members(slices[column])
    ]


def members(values: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Each value of a column and which texts have it, rare values together. *Shape:* (texts,)."""
    shown = {value for value, _ in Counter(values).most_common(SHOWN_VALUES)}
    named = np.array([value if value in shown else OTHERS for value in values], dtype=object)
    for value in sorted(set(named)):
        yield value, named == value


def gap(counts: Counts, chosen: Any, draws: int, seed: int) -> dict[str, Any]:
    """One slice against the rest. *Shape:* counts (texts, 1), chosen (texts,)."""
    texts = int(chosen.sum())
    f1s = [float(averaged_f1(summed(counts, each.astype(float)))["micro"]) for each in (chosen, ~chosen)]
    own = {name: each[chosen] for name, each in counts.items()}
    drawn = gathered(averaged_f1(summed(own, weights)) for weights in bootstrap(texts, draws, seed))
    low, high = interval(drawn["micro"])
    flagged = min(texts, len(chosen) - texts) >= FLAGGED_TEXTS and own["true"].sum() > 0 and high < f1s[1]
    return {"texts": texts, "f1": f1s[0], "interval": (low, high), "rest_f1": f1s[1], "flagged": bool(flagged)}


def swaps(one: Counts, other: Counts, draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """Differences of F1 where each text's two answers are swapped with probability 1/2. *Shape:* each part (draws,)."""
    draw = np.random.default_rng(seed)
    apart = np.any([(one[name] != other[name]).any(axis=1) for name in one], axis=0)  # swapping equal answers changes nothing
    change = {name: (other[name] - one[name])[apart] for name in one}
    totals = [{name: each[name].sum(axis=0) for name in one} for each in (one, other)]
    for size in portions(draws, int(apart.sum())):
        moved = summed(change, draw.integers(0, 2, size=(size, int(apart.sum())), dtype=np.int8).astype(float))
        yield gained({name: totals[0][name] + moved[name] for name in one}, {name: totals[1][name] - moved[name] for name in one})


def gained(one: Counts, other: Counts) -> dict[str, Any]:
    """By how much the F1 of `one` is higher. *Shape:* counts (draws, classes), result (draws,)."""
    f1s = averaged_f1(one), averaged_f1(other)
    return {name: f1s[0][name] - f1s[1][name] for name in f1s[0]}


def averaged_f1(counts: Counts) -> dict[str, Any]:
    """`macro` F1 over the classes that are true somewhere, and `micro` F1, from counts summed over texts.

    *Shape:* (draws, classes) to (draws,), or (classes,) to a number.
    """
    hits, wrong, occurs = counts["hits"], counts["predicted"] + counts["true"] - 2 * counts["hits"], counts["true"] > 0
    macro = np.where(occurs, f1(hits, wrong), 0.0).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)
    return {"macro": macro, "micro": f1(hits.sum(axis=-1), wrong.sum(axis=-1))}


def summed(counts: Counts, weights: Any) -> dict[str, Any]:
    """Counts summed over texts, each as often as its weight. *Shape:* weights (draws, texts), result (draws, classes)."""
    return {name: weights @ each for name, each in counts.items()}


def bootstrap(texts: int, draws: int, seed: int) -> Iterator[Any]:
    """How often each text is in a draw of as many with replacement, some draws at a time. *Shape:* each part (draws, texts)."""
    draw = np.random.default_rng(seed)
    for size in portions(draws, texts):
        yield draw.multinomial(texts, np.full(texts, 1 / texts), size=size).astype(float)


def portions(draws: int, texts: int) -> Iterator[int]:
    """The draws in portions of at most `CELLS` numbers."""
    size = max(1, CELLS // max(texts, 1))
    yield from (min(size, draws - start) for start in range(0, draws, size))


def gathered(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The parts' draws in one array per name."""
    found = list(parts)
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def interval(values: Any) -> tuple[float, float]:
    """The middle 95% of the draws."""
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))


def f1(hits: Any, wrong: Any) -> Any:
    """F1 from true positives and from false alarms and misses together; 0 where there is neither."""
    return 2 * hits / np.maximum(2 * hits + wrong, 1e-12)
