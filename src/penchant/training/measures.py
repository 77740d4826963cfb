"""Everything the report of a run says, from scores on the test rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from penchant.tagging.bundle import Floats, SpanSpec
from penchant.tagging.spans import Unit, character_tags, raw_character_tags, recalibrated
from penchant.training.calibration import reliability
from penchant.training.data import Corpus, Labelled
from penchant.training.metrics import MultiLabel, SpanF1, decision_counts, f1_intervals, slice_gaps, span_intervals
from penchant.training.spans import counts, expressible, found_spans, span_mistakes, stated_and_right

MISTAKES_SHOWN = 25
CONFUSIONS_SHOWN = 20
CURVE_POINTS = 120


@dataclass(frozen=True)
class Judged:
    """One model's test scores and the tags they lead to. *Shape:* both (texts, labels)."""

    score: Floats
    tagged: Any


def measure(corpus: Corpus, judged: dict[str, Judged]) -> dict[str, Any]:
    """What the report says of the interests: results of each model over all texts and by kind, curves, confusions, worst mistakes, slices."""
    test, kinds = corpus.test, sorted(set(corpus.test.kinds))
    parts = {"all": np.arange(len(test))} | {
        kind: np.flatnonzero([each == kind for each in test.kinds]) for kind in kinds if len(kinds) > 1
    }
    results = {
        name: {
            part: MultiLabel().compute(
                predictions=each.tagged[chosen].astype(int),
                references=test.targets[chosen].astype(int),
                scores=each.score[chosen],
                labels=corpus.labels,
            )
            for part, chosen in parts.items()
        }
        for name, each in judged.items()
    }
    return {
        "labels": {label: corpus.name(label) for label in corpus.labels},
        "parts": {kind: len(parts[kind]) for kind in parts},
        "results": results,
        "intervals": {name: f1_intervals(test.targets, each.tagged) for name, each in judged.items()},
        "curves": {name: curve(test.targets, each.score) for name, each in judged.items()},
        "confusions": confusions(test.targets, judged["bert"].tagged, corpus.labels),
        "mistakes": mistakes(test, judged["bert"], corpus.labels),
        "slices": slice_gaps(decision_counts(test.targets, judged["bert"].tagged), slices_of(test)),
    }


def curve(targets: Any, score: Floats) -> dict[str, list[float]]:
    """Precision and recall over all decisions, as at most `CURVE_POINTS` points."""
    precision, recall, _ = precision_recall_curve(targets.reshape(-1), score.reshape(-1))
    chosen = np.searchsorted(-recall, -np.linspace(1, 0, CURVE_POINTS)).clip(0, len(recall) - 1)
    return {"recall": recall[chosen].tolist(), "precision": precision[chosen].tolist()}


def confusions(targets: Any, tagged: Any, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Where an interest was missed and another one tagged instead: pairs with their counts, most frequent first."""
    missed, wrong = (targets > 0) & ~tagged, tagged & (targets == 0)
    count = missed.astype(int).T @ wrong.astype(int)
    order = np.argsort(-count, axis=None, kind="stable")[:CONFUSIONS_SHOWN]
    pairs = [np.unravel_index(n, count.shape) for n in order]
    return [
        {"true": labels[row], "tagged": labels[column], "count": int(count[row, column])} for row, column in pairs if count[row, column]
    ]


def mistakes(split: Labelled, judged: Judged, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The texts whose tags are most surely wrong, by the log loss of their worst label."""
    probability = np.clip(judged.score, 1e-6, 1 - 1e-6)
    loss = np.where(split.targets > 0, -np.log(probability), -np.log(1 - probability)).max(axis=1)
    wrong = np.flatnonzero((judged.tagged != (split.targets > 0)).any(axis=1))
    chosen = wrong[np.argsort(-loss[wrong], kind="stable")][:MISTAKES_SHOWN]
    return [
        {
            "text": split.texts[n],
            "kind": split.kinds[n],
            "true": [labels[m] for m in np.flatnonzero(split.targets[n])],
            "tagged": [{"label": labels[m], "score": float(judged.score[n, m])} for m in np.flatnonzero(judged.tagged[n])],
        }
        for n in chosen
    ]


def measure_spans(test: Labelled, probabilities: Sequence[Floats], parts: Sequence[Sequence[Unit]], spec: SpanSpec) -> dict[str, Any]:
    """What the report says of the spans.

    `decoded` is what the tagger finds, exact matches of begin, end and dimension; `raw` is the likeliest class of each
    unit by itself, judged by seqeval's two rules: as they stand (`strict`: only a `B-` begins a span) and as conlleval
    reads them (`default`). *Shape:* probabilities per text (units, classes).
    """
    found = found_spans(test, probabilities, parts, spec.dimensions, spec.thresholds)
    table = counts(test, found, spec.dimensions)
    true = [character_tags(len(text), spans) for text, spans in zip(test.texts, test.spans, strict=True)]
    tagged = [character_tags(len(text), spans) for text, spans in zip(test.texts, found, strict=True)]
    raw = [
        raw_character_tags(len(text), each, own, spec.dimensions) for text, each, own in zip(test.texts, probabilities, parts, strict=True)
    ]
    honest = [recalibrated(spans, spec.curve) for spans in found]
    scored = {"before": stated_and_right(test, found), "after": stated_and_right(test, honest)}
    return {
        "decoded": SpanF1().compute(predictions=tagged, references=true),
        "raw": {mode: SpanF1().compute(predictions=raw, references=true, mode=mode) for mode in ("strict", "default")},
        "intervals": span_intervals(table["hits"], table["predicted"], table["true"]),
        "slices": slice_gaps(table, slices_of(test)),
        "expressible": expressible(test, parts, spec.dimensions),
        "reliability": {name: reliability(*each) for name, each in scored.items() if len(each[0])},
        "thresholds": dict(zip(spec.dimensions, spec.thresholds, strict=True)),
        "temperature": spec.temperature,
        "mistakes": span_mistakes(test, honest, MISTAKES_SHOWN),
    }


def slices_of(split: Labelled) -> dict[str, list[str]]:
    """The columns a report goes through for gaps: those with more than one value, but no user's or item's id, and no time."""
    return {name: values for name, values in split.about.items() if name not in ("group", "time") and len(set(values)) > 1}
