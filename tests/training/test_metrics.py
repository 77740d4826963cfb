"""The metric against counts made by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from penchant.training.metrics import MultiLabel, f1_intervals

# three labels, four texts; the third label never occurs, the last text has none
TRUE = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
TAGGED = [[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]
SCORES = [[0.9, 0.1, 0.0], [0.8, 0.3, 0.0], [0.7, 0.6, 0.2], [0.1, 0.4, 0.0]]


def test_figures_are_those_counted_by_hand() -> None:
    result = MultiLabel().compute(predictions=TAGGED, references=TRUE, scores=SCORES, labels=["a", "b", "c"])
    # a: 2 hits, 1 false alarm, 0 misses → 0.8; b: 1 hit, 0, 1 miss → 2/3; c has no support and stays out of the macro average
    assert result["per_label"]["a"]["f1"] == pytest.approx(0.8)
    assert result["per_label"]["b"]["f1"] == pytest.approx(2 / 3)
    assert result["per_label"]["c"]["support"] == 0
    assert result["macro"]["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert result["micro"]["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    # samples: 1, 2/3, 2/3, and 0 for the text with neither labels nor tags
    assert result["samples"]["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 4)
    assert result["none"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    # a is ranked 0.9 0.8 | 0.7 0.1: perfect; b 0.6 hit, 0.4 not, 0.3 hit: (1 + 2/3) / 2
    assert result["macro_average_precision"] == pytest.approx((1 + 5 / 6) / 2)
    assert result["per_label"]["c"]["average_precision"] is None


def test_without_scores_there_is_no_average_precision() -> None:
    assert MultiLabel().compute(predictions=TAGGED, references=TRUE)["macro_average_precision"] is None


def test_batches_added_one_by_one_give_the_same() -> None:
    metric = MultiLabel()
    for predicted, true in zip(TAGGED, TRUE, strict=True):
        metric.add_batch(predictions=[predicted], references=[true])
    assert metric.compute()["macro"] == MultiLabel().compute(predictions=TAGGED, references=TRUE)["macro"]


def test_intervals_are_those_of_resampled_texts() -> None:
    draw = np.random.default_rng(1)
    true = draw.random((150, 4)) < 0.3
    predicted = true ^ (draw.random((150, 4)) < 0.15)
    found = f1_intervals(true, predicted, draws=2000)
    again = np.random.default_rng(2)  # the same by resampling rows and asking scikit-learn, with other draws
    picks = [again.integers(0, 150, 150) for _ in range(2000)]
    for name in ("macro", "micro"):
        values = [f1_score(true[rows], predicted[rows], average=name) for rows in picks]
        assert found[name] == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=0.01)
    nothing = [f1_score(~true[rows].any(axis=1), ~predicted[rows].any(axis=1)) for rows in picks]
    assert found["none"] == pytest.approx(tuple(np.percentile(nothing, [2.5, 97.5])), abs=0.015)


def test_a_perfect_model_has_no_interval_to_speak_of() -> None:
    true = np.eye(3)[[0, 1, 2] * 30]
    assert f1_intervals(true, true)["macro"] == (1.0, 1.0)
