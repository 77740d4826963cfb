"""From logits to decisions: one temperature, one threshold per label, both fitted on validation."""

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from penchant.tagging.bundle import Floats, scores

GRID = np.round(np.arange(0.01, 0.9901, 0.01), 2)
POOLED_WEIGHT = 30.0
"""Chosen by cross-validation on the sample's validation split, where a label has about ten texts; with more its own counts win."""


def fit_temperature(logits: Floats, targets: Floats) -> float:
    """The temperature, 0.05 to 20, that minimises the binary log loss (Guo et al. 2017, section 4.2).

    *Shape:* both (texts, labels).
    """

    def log_loss(log_temperature: float) -> float:
        probability = np.clip(scores(logits, np.exp(log_temperature)), 1e-7, 1 - 1e-7)
        return float(-np.mean(targets * np.log(probability) + (1 - targets) * np.log(1 - probability)))

    return float(np.exp(minimize_scalar(log_loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def fit_thresholds(score: Floats, targets: Floats, precision: float | None = None) -> Floats:
    """Per label, the threshold on a grid of 0.01 with the best F1, or the lowest with at least this precision.

    A label with few validation texts says little about its own threshold, so its counts of hits and false alarms are
    joined by those of all labels together, weighing as much as `POOLED_WEIGHT` positive texts. A label that reaches the
    precision nowhere gets the threshold where it comes nearest. *Shape:* both (texts, labels); result (labels,).
    """
    positive = targets > 0.5
    counts = [((over & positive).sum(axis=0), (over & ~positive).sum(axis=0)) for over in (score >= each for each in GRID)]
    hits, false_alarms = (np.stack(each, axis=1).astype(float) for each in zip(*counts, strict=True))
    misses = positive.sum(axis=0)[:, None] - hits
    prior = POOLED_WEIGHT / max(1.0, float(positive.sum()))
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
