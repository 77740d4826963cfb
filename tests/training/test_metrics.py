"""The metric against counts made by hand."""

import pytest

from penchant.training.metrics import MultiLabel

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
