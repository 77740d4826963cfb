"""Temperatures, curves and thresholds on scores whose best values are known."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from penchant.tagging.bundle import scores, softmax
from penchant.training.calibration import (
    GRID,
    fit_calibration,
    fit_curves,
    fit_temperature,
    fit_thresholds,
    fit_token_temperature,
    reliability,
    thresholds_from_counts,
)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_too_sure_is_found(temperature: float) -> None:
    draw = np.random.default_rng(5)
    honest = draw.normal(0, 2, size=(4000, 5))
    targets = (draw.random(honest.shape) < scores(honest, 1.0)).astype(float)
    assert fit_temperature(honest * temperature, targets) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_classes_that_exclude_each_other_is_found(temperature: float) -> None:
    draw = np.random.default_rng(5)
    honest = draw.normal(0, 2, size=(8000, 4))
    labels = (draw.random((8000, 1)) > softmax(honest, 1.0).cumsum(axis=1)).sum(axis=1)
    assert fit_token_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.1)


def test_a_curve_by_hand() -> None:
    # 5, 10 and 8 of 20 texts: the last two steps would fall, so they are one of 18 in 40
    score = np.repeat([0.1, 0.5, 0.9], 20)[:, None]
    targets = np.concatenate([np.arange(20) < positives for positives in (5, 10, 8)]).astype(float)[:, None]
    (curve,) = fit_curves(score, targets)
    assert curve is not None
    assert curve.stated == pytest.approx((0.1, 0.5, 0.9))
    assert curve.calibrated == pytest.approx((0.25, 0.45, 0.45))


def test_a_curve_is_never_wholly_sure() -> None:
    (curve,) = fit_curves(np.repeat([0.2, 0.8], [30, 20])[:, None], np.repeat([0.0, 1.0], [30, 20])[:, None])
    assert curve is not None
    assert curve.calibrated == pytest.approx((0.001, 0.999))


def test_seldom_labels_and_equal_scores_have_no_curve() -> None:
    score = np.column_stack([np.linspace(0.1, 0.9, 50), np.linspace(0.1, 0.9, 50), np.full(50, 0.3)])
    targets = np.column_stack([np.arange(50) >= 31, np.arange(50) >= 30, np.arange(50) >= 20]).astype(float)
    assert [each is not None for each in fit_curves(score, targets)] == [False, True, False]  # 19, 20 and 30 positive texts


def test_a_curve_says_what_scikit_learn_predicts() -> None:
    draw = np.random.default_rng(9)
    logits = draw.normal(0, 2, size=(500, 1))
    targets = (draw.random(logits.shape) < scores(logits, 2.0)).astype(float)
    unseen = np.linspace(-12, 12, 201)[:, None]
    reference = IsotonicRegression(out_of_bounds="clip").fit(scores(logits, 1.0)[:, 0], targets[:, 0])
    expected = reference.predict(scores(unseen, 1.0)[:, 0]).clip(0.001, 0.999)
    assert scores(unseen, 1.0, fit_curves(scores(logits, 1.0), targets))[:, 0] == pytest.approx(
        expected, abs=2e-3
    )  # clipped before or after


def stairs(texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose truth jumps from 5% to 60% where they say 73%, which no temperature can mend."""
    draw = np.random.default_rng(10)
    logits = draw.uniform(-3, 3, size=(texts, 2))
    return logits, (draw.random(logits.shape) < np.where(logits > 1, 0.6, 0.05)).astype(float)


def test_curves_are_taken_where_a_temperature_cannot_do_it() -> None:
    logits, targets = stairs(1500)
    found = fit_calibration(logits, targets, "auto")
    assert found.log_loss["isotonic"] < found.log_loss["temperature"]
    assert [each is not None for each in found.curves] == [True, True]
    unseen = np.array([[-2.0, -2.0], [2.0, 2.0]])
    assert scores(unseen, found.temperature, found.curves) == pytest.approx(np.array([[0.05, 0.05], [0.6, 0.6]]), abs=0.08)


def test_curves_are_left_where_a_temperature_says_it_all() -> None:
    draw = np.random.default_rng(11)
    honest = draw.normal(0, 2, size=(150, 3))
    targets = (draw.random(honest.shape) < scores(honest, 1.0)).astype(float)
    found = fit_calibration(honest * 3, targets, "auto")
    assert found.log_loss["temperature"] < found.log_loss["isotonic"]
    assert found.curves == ()
    assert found.temperature == fit_temperature(honest * 3, targets)


def test_a_named_method_is_used_whatever_is_better() -> None:
    logits, targets = stairs(600)
    best = fit_calibration(logits, targets, "auto")
    assert fit_calibration(logits, targets, "temperature").curves == ()
    assert fit_calibration(logits, targets, "isotonic").curves == best.curves != ()
    assert fit_calibration(logits, targets, "temperature").log_loss == best.log_loss


@pytest.mark.parametrize("texts", [2, 9, 10, 30])
def test_few_texts_have_a_temperature_alone(texts: int) -> None:
    logits, targets = stairs(texts)
    for method in ("auto", "isotonic"):
        found = fit_calibration(logits, targets, method)  # under 20 positive texts of either label
        assert found.curves == ()
        assert set(found.log_loss) == (set() if texts < 10 else {"temperature", "isotonic"})


def test_thresholds_from_counts_by_hand() -> None:
    # 3 true: all hit up to 0.5, then 2; 3 false alarms up to 0.3, then none
    hits, false_alarms = np.where(GRID <= 0.5, 3, 2)[None], np.where(GRID <= 0.3, 3, 0)[None]
    assert thresholds_from_counts(hits, false_alarms, [3]) == pytest.approx([0.31])
    assert thresholds_from_counts(hits, false_alarms, [3], precision=0.5) == pytest.approx([0.01])
    assert thresholds_from_counts(hits, false_alarms, [3], precision=0.9) == pytest.approx([0.31])


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
