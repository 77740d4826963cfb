"""What is measured of spans: exact matches of begin, end and dimension, per text, at thresholds fitted on validation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from penchant.tagging.bundle import Floats
from penchant.tagging.spans import Span, Unit, bio, classes, decode
from penchant.training.calibration import GRID, thresholds_from_counts
from penchant.training.data import Labelled

COARSE = (0.2, 0.3, 0.4, 0.5, 0.6)


def found_spans(
    split: Labelled,
    probabilities: Sequence[Floats],
    units: Sequence[Sequence[Unit]],
    dimensions: Sequence[str],
    thresholds: Sequence[float],
) -> list[list[Span]]:
    """The spans of each text. *Shape:* probabilities per text (units, classes)."""
    return [decode(text, each, parts, dimensions, thresholds) for text, each, parts in zip(split.texts, probabilities, units, strict=True)]


def counts(split: Labelled, found: Sequence[Sequence[Span]], dimensions: Sequence[str]) -> dict[str, np.ndarray]:
    """`hits`, `predicted` and `true` spans. *Shape:* each (texts, dimensions)."""
    table = {name: np.zeros((len(split), len(dimensions))) for name in ("hits", "predicted", "true")}
    place = {name: n for n, name in enumerate(dimensions)}
    for n, (own, true) in enumerate(zip(found, split.spans, strict=True)):
        exact = {span[:3] for span in true}
        for span in true:
            table["true"][n, place[span.dimension]] += 1
        for span in own:
            table["predicted"][n, place[span.dimension]] += 1
            table["hits"][n, place[span.dimension]] += span[:3] in exact
    return table


def stated_and_right(split: Labelled, found: Sequence[Sequence[Span]]) -> tuple[Floats, Any]:
    """The score of each span found, and whether it is exactly right. *Shape:* both (spans,)."""
    exact = [{span[:3] for span in spans} for spans in split.spans]
    pairs = [(span.score, span[:3] in exact[n]) for n, spans in enumerate(found) for span in spans]
    return np.array([each for each, _ in pairs]), np.array([each for _, each in pairs])


def micro_f1(table: dict[str, np.ndarray]) -> float:
    """F1 over all spans; 0 where there are none."""
    hits, predicted, true = (float(table[name].sum()) for name in ("hits", "predicted", "true"))
    return 2 * hits / max(predicted + true, 1.0)


def best_entity_f1(split: Labelled, probabilities: Sequence[Floats], units: Sequence[Sequence[Unit]], dimensions: Sequence[str]) -> float:
    """F1 over all spans at the best of five thresholds that all dimensions share."""
    return max(
        micro_f1(counts(split, found_spans(split, probabilities, units, dimensions, [each] * len(dimensions)), dimensions))
        for each in COARSE
    )


def fit_span_thresholds(
    split: Labelled,
    probabilities: Sequence[Floats],
    units: Sequence[Sequence[Unit]],
    dimensions: Sequence[str],
    precision: float | None,
) -> Floats:
    """Per dimension, the threshold with the best F1 over its spans, or the lowest with at least this precision; see `thresholds_from_counts`.

    Each grid value is tried for all dimensions at once. *Shape:* probabilities per text (units, classes); result (dimensions,).
    """
    tables = [counts(split, found_spans(split, probabilities, units, dimensions, [each] * len(dimensions)), dimensions) for each in GRID]
    hits = np.stack([table["hits"].sum(axis=0) for table in tables], axis=1)
    predicted = np.stack([table["predicted"].sum(axis=0) for table in tables], axis=1)
    return thresholds_from_counts(hits, predicted - hits, tables[0]["true"].sum(axis=0), precision)


def expressible(split: Labelled, units: Sequence[Sequence[Unit]], dimensions: Sequence[str]) -> float:
    """Share of the true spans that begin and end with a unit: what a perfect model over this tokenizer would find."""
    whole = total = 0
    for text, spans, parts in zip(split.texts, split.spans, units, strict=True):
        perfect = np.eye(len(bio(dimensions)))[classes(spans, parts, dimensions)] if parts else np.zeros((0, len(bio(dimensions))))
        again = {span[:3] for span in decode(text, perfect, parts, dimensions, [0.5] * len(dimensions))}
        whole += sum(span[:3] in again for span in spans)
        total += len(spans)
    return whole / max(total, 1)


def span_mistakes(split: Labelled, found: Sequence[Sequence[Span]], shown: int) -> list[dict[str, Any]]:
    """The texts with most spans missed or wrongly found, each with what should be there and what was."""
    errors = [
        (len({each[:3] for each in own} ^ {each[:3] for each in true}), n)
        for n, (own, true) in enumerate(zip(found, split.spans, strict=True))
    ]
    return [
        {
            "text": split.texts[n],
            "kind": split.kinds[n],
            "true": [each._asdict() for each in split.spans[n]],
            "found": [each._asdict() for each in found[n]],
        }
        for count, n in sorted(errors, key=lambda each: (-each[0], each[1]))[:shown]
        if count
    ]
