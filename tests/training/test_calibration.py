"""Temperature and thresholds on scores whose best values are known."""

import numpy as np
import pytest

from penchant.tagging.bundle import scores
from penchant.training.calibration import fit_temperature, fit_thresholds, reliability


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


def test_the_lowest_threshold_with_the_wanted_precision_is_taken() -> None:
    # one label, so the pooled counts are its own: hits at 0.9, 0.8, 0.5; false alarms at 0.6, 0.3
    score, targets = np.array([[0.9], [0.8], [0.6], [0.5], [0.3]]), np.array([[1.0], [1], [0], [1], [0]])
    assert fit_thresholds(score, targets, precision=1.0) == pytest.approx([0.61])
    assert fit_thresholds(score, targets, precision=0.75) == pytest.approx([0.31])  # 3 of 4
    assert fit_thresholds(score, targets, precision=0.6) == pytest.approx([0.01])  # 3 of 5


def test_a_precision_out_of_reach_gives_the_nearest() -> None:
    score, targets = np.array([[0.9], [0.8], [0.4]]), np.array([[0.0], [1], [1]])
    # at or under 0.4: 2 of 3; at 0.41 to 0.8: 1 of 2; over it: none
    assert fit_thresholds(score, targets, precision=0.95) == pytest.approx([0.01])


def test_reliability_by_hand() -> None:
    # bins of a half: 0.1 and 0.3 (none true), 0.6 and 1.0 (one true)
    found = reliability(np.array([[0.1, 0.6], [0.3, 1.0]]), np.array([[0, 0], [0, 1]]), bins=2)
    assert found["probability"] == pytest.approx([0.2, 0.8])
    assert found["frequency"] == pytest.approx([0.0, 0.5])
    assert found["count"] == [2, 2]
    assert found["ece"] == pytest.approx((2 * 0.2 + 2 * 0.3) / 4)


def test_calibrated_scores_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    draw = np.random.default_rng(8)
    honest = draw.normal(0, 2, size=(4000, 5))
    targets = (draw.random(honest.shape) < scores(honest, 1.0)).astype(float)
    assert reliability(scores(honest, 1.0), targets)["ece"] < 0.01
    assert reliability(scores(honest * 4, 1.0), targets)["ece"] > 0.1
