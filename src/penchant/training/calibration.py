"""From logits to decisions: one temperature, one threshold per label, both fitted on validation."""

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


def fit_thresholds(score: Floats, targets: Floats) -> Floats:
    """Per label, the threshold on a grid of 0.01 with the best F1, shrunk towards what is best for all labels.

    A label with few validation texts says little about its own threshold, so its counts of hits, false alarms and misses
    are joined by those of all labels together, weighing as much as `POOLED_WEIGHT` positive texts.
    *Shape:* both (texts, labels); result (labels,).
    """
    positive = targets > 0.5
    counts = [((over & positive).sum(axis=0), (over & ~positive).sum(axis=0)) for over in (score >= each for each in GRID)]
    hits, false_alarms = (np.stack(each, axis=1).astype(float) for each in zip(*counts, strict=True))
    misses = positive.sum(axis=0)[:, None] - hits
    prior = POOLED_WEIGHT / max(1.0, float(positive.sum()))
    joined = [own + prior * own.sum(axis=0) for own in (hits, false_alarms, misses)]
    f1 = 2 * joined[0] / np.maximum(2 * joined[0] + joined[1] + joined[2], 1e-9)
    return np.asarray(GRID[f1.argmax(axis=1)])
