"""Temperature and thresholds on scores whose best values are known."""

import numpy as np
import pytest

from penchant.tagging.bundle import scores
from penchant.training.calibration import fit_temperature, fit_thresholds


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_too_sure_is_found(temperature: float) -> None:
    draw = np.random.default_rng(5)
    honest = draw.normal(0, 2, size=(4000, 5))
    targets = (draw.random(honest.shape) < scores(honest, 1.0)).astype(float)
    assert fit_temperature(honest * temperature, targets) == pytest.approx(temperature, rel=0.1)


def test_a_threshold_separates_what_can_be_separated() -> None:
    draw = np.random.default_rng(6)
    targets = (draw.random((400, 3)) < 0.3).astype(float)
    edges = np.array([0.2, 0.5, 0.8])
    score = np.where(targets > 0, edges + 0.1, edges - 0.1)
    thresholds = fit_thresholds(score, targets)
    assert ((edges - 0.1 < thresholds) & (thresholds <= edges + 0.1 + 1e-9)).all()


def test_a_label_without_positives_takes_what_is_best_for_all() -> None:
    score = np.array([[0.9, 0.5], [0.8, 0.5], [0.3, 0.5], [0.2, 0.5]])
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], float)
    alone, seldom = fit_thresholds(score, targets)
    assert 0.3 < alone <= 0.8
    assert seldom > 0.5  # one that tags nobody by mistake
