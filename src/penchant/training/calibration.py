"""From logits to decisions: one temperature, where it pays one curve per label, and one threshold per label, fitted on validation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import KFold

from penchant.tagging.bundle import Curve, Floats, scores

GRID = np.round(np.arange(0.01, 0.9901, 0.01), 2)
POOLED_WEIGHT = 30.0
"""Chosen by cross-validation on the sample's validation split, where a label has about ten texts; with more its own counts win."""
MINIMUM_POSITIVES = 20
"""A label with fewer texts has no curve: it would have hardly more steps than texts."""
SUREST = 0.999
"""What a curve says at most, and 1 minus that at least: no step is surer than the texts it comes from, nor its log loss infinite."""
FOLDS = 5
FEWEST_TEXTS = 10
"""With fewer texts the two methods aren't compared."""


@dataclass(frozen=True)
class Calibration:
    """What turns logits into probabilities, for `scores`, and the cross-fitted binary log loss by method (none for a handful of texts)."""

    temperature: float
    curves: tuple[Curve | None, ...]
    log_loss: dict[str, float]


def fit_calibration(logits: Floats, targets: Floats, method: Literal["auto", "temperature", "isotonic"]) -> Calibration:
    """The temperature, and on top of it one curve per label where `method` says so.

    `auto` takes the curves where they have the lower log loss on texts they weren't fitted on. `curves` is empty where no
    label has one. *Shape:* both (texts, labels).
    """
    log_loss = cross_fitted(logits, targets)
    temperature = fit_temperature(logits, targets)
    if method == "temperature" or (method == "auto" and not log_loss.get("isotonic", 0.0) < log_loss.get("temperature", 0.0)):
        return Calibration(temperature, (), log_loss)
    curves = fit_curves(scores(logits, temperature), targets)
    return Calibration(temperature, curves if any(curves) else (), log_loss)


def cross_fitted(logits: Floats, targets: Floats) -> dict[str, float]:
    """Binary log loss of `temperature` and `isotonic` on texts that neither was fitted on; empty under `FEWEST_TEXTS` texts.

    *Shape:* both (texts, labels).
    """
    if len(logits) < FEWEST_TEXTS:
        return {}
    score = {name: np.empty(np.shape(logits)) for name in ("temperature", "isotonic")}
    folds = KFold(min(FOLDS, max(2, len(logits) // FEWEST_TEXTS)), shuffle=True, random_state=13)
    for kept, held_out in folds.split(logits):
        temperature = fit_temperature(logits[kept], targets[kept])
        curves = fit_curves(scores(logits[kept], temperature), targets[kept])
        score["temperature"][held_out] = scores(logits[held_out], temperature)
        score["isotonic"][held_out] = scores(logits[held_out], temperature, curves)
    return {name: binary_log_loss(each, targets) for name, each in score.items()}


def fit_temperature(logits: Floats, targets: Floats) -> float:
    """The temperature, 0.05 to 20, that minimises the binary log loss (Guo et al. 2017, section 4.2).

    *Shape:* both (texts, labels).
    """
    return best_temperature(lambda temperature: binary_log_loss(scores(logits, temperature), targets))


def fit_token_temperature(logits: Floats, labels: Any) -> float:
    """The temperature, 0.05 to 20, that minimises the cross-entropy of classes that exclude each other (Guo et al. 2017, section 4.2).

    *Shape:* logits (tokens, classes), labels (tokens,) class numbers.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)  # so that no power overflows
    true = np.take_along_axis(shifted, np.asarray(labels)[:, None], axis=1)[:, 0]
    return best_temperature(lambda each: float(np.mean(np.log(np.exp(shifted / each).sum(axis=1)) - true / each)))


def best_temperature(loss: Callable[[float], float]) -> float:
    """The temperature with the least loss, searched on its logarithm."""
    found = minimize_scalar(lambda each: loss(float(np.exp(each))), bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(found.x))


def binary_log_loss(score: Floats, targets: Floats) -> float:
    """Mean over all (text, label) pairs, in nats. *Shape:* both (texts, labels)."""
    probability = np.clip(score, 1e-7, 1 - 1e-7)
    return float(-np.mean(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)))


def fit_curves(score: Floats, targets: Floats) -> tuple[Curve | None, ...]:
    """Per label, the never falling line through scores after the temperature (isotonic regression, Zadrozny and Elkan 2002).

    None for a label with fewer than `MINIMUM_POSITIVES` texts, or whose scores are all the same. Scores on one step of the
    line become equal, and a ranking among them is lost. *Shape:* both (texts, labels); result one per label.
    """
    return tuple(fit_curve(score[:, n], targets[:, n] > 0.5) for n in range(score.shape[1]))


def fit_curve(score: Floats, positive: Any) -> Curve | None:
    """One label's curve: the regression's knots. *Shape:* both (texts,), `positive` true or false."""
    if positive.sum() < MINIMUM_POSITIVES:
        return None
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, positive.astype(float))
    if len(regression.X_thresholds_) < 2:
        return None
    calibrated = np.clip(regression.y_thresholds_, 1 - SUREST, SUREST)
    return Curve(stated=tuple(regression.X_thresholds_.tolist()), calibrated=tuple(calibrated.tolist()))


def fit_thresholds(score: Floats, targets: Floats, precision: float | None = None) -> Floats:
    """Per label, the best threshold of `thresholds_from_counts` over texts. *Shape:* both (texts, labels); result (labels,)."""
    positive = targets > 0.5
    counts = [((over & positive).sum(axis=0), (over & ~positive).sum(axis=0)) for over in (score >= each for each in GRID)]
    hits, false_alarms = (np.stack(each, axis=1) for each in zip(*counts, strict=True))
    return thresholds_from_counts(hits, false_alarms, positive.sum(axis=0), precision)


def thresholds_from_counts(hits: Any, false_alarms: Any, positives: Any, precision: float | None = None) -> Floats:
    """Per label, the threshold on `GRID` with the best F1, or the lowest with at least this precision.

    A label with few validation texts says little about its own threshold, so its counts of hits and false alarms are
    joined by those of all labels together, weighing as much as `POOLED_WEIGHT` positive texts. A label that reaches the
    precision nowhere gets the threshold where it comes nearest. *Shape:* hits and false alarms at each threshold (labels,
    len(GRID)); positives (labels,); result (labels,).
    """
    hits, false_alarms, positives = (np.asarray(each, dtype=float) for each in (hits, false_alarms, positives))
    misses = positives[:, None] - hits
    prior = POOLED_WEIGHT / max(1.0, float(positives.sum()))
    hits, false_alarms, misses = (own + prior * own.sum(axis=0) for own in (hits, false_alarms, misses))
    if precision is None:
        f1 = 2 * hits / np.maximum(2 * hits + false_alarms + misses, 1e-9)
        return np.asarray(GRID[f1.argmax(axis=1)])
    reached = hits / np.maximum(hits + false_alarms, 1e-9)
    enough = reached >= precision
    return np.asarray(GRID[np.where(enough.any(axis=1), enough.argmax(axis=1), reached.argmax(axis=1))])


def reliability(score: Floats, targets: Floats, bins: int = 15) -> dict[str, Any]:
    """How often decisions of each stated probability are true, in equally wide bins over all (text, label) pairs.

    `ece` is the expected calibration error: the mean gap between the two, weighted by count (Guo et al. 2017, section 2).
    Empty bins are left out. *Shape:* both (texts, labels).
    """
    stated, true = score.ravel(), targets.ravel() > 0.5
    place = np.minimum((stated * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    probability = np.bincount(place, stated, minlength=bins)[filled] / count[filled]
    frequency = np.bincount(place, true, minlength=bins)[filled] / count[filled]
    gap = float(np.sum(count[filled] * np.abs(probability - frequency)) / len(stated))
    return {"probability": probability.tolist(), "frequency": frequency.tolist(), "count": count[filled].tolist(), "ece": gap}
