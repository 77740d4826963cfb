"""The metrics against counts made by hand, and resampling against all that can be drawn."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from penchant.training.metrics import MultiLabel, SpanF1, decision_counts, f1_intervals, paired_test, slice_gaps, span_intervals

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


def test_spans_are_right_when_type_and_both_ends_are() -> None:
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "I-LOC", "O", "O"], ["O"]]
    tagged = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O", "O", "B-ORG"], ["O"]]
    for mode in ("default", "strict"):
        result = SpanF1().compute(predictions=tagged, references=true, mode=mode)
        assert result["per_type"] == {
            "LOC": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
            "ORG": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0},
            "PER": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
        }
        assert result["micro"] == pytest.approx({"precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "support": 3})
        assert result["macro"] == pytest.approx({"precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 3})  # ORG is true nowhere


def test_an_inside_without_a_begin_is_a_span_unless_strict() -> None:
    true = [["O", "B-LOC"], ["B-PER", "O"], ["B-PER", "I-PER"]]
    tagged = [["O", "I-LOC"], ["B-PER", "I-LOC"], ["B-PER", "B-PER"]]
    default = SpanF1().compute(predictions=tagged, references=true)
    # LOC: right in the first text, wrong in the second; PER: right in the second, twice too short in the third
    assert default["per_type"]["LOC"] == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1})
    assert default["per_type"]["PER"] == pytest.approx({"precision": 1 / 3, "recall": 0.5, "f1": 0.4, "support": 2})
    strict = SpanF1().compute(predictions=tagged, references=true, mode="strict")
    assert strict["per_type"]["LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert strict["per_type"]["PER"] == default["per_type"]["PER"]


@pytest.mark.parametrize("mode", ["default", "strict"])
@pytest.mark.parametrize("tagged", [[["O", "O"], ["O"]], [["O", "I-LOC"], ["O"]], [[], []]])
def test_no_spans_at_all_are_no_warning(tagged: list[list[str]], mode: str) -> None:
    result = SpanF1().compute(predictions=tagged, references=[["O"] * len(each) for each in tagged], mode=mode)
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert result["micro"] == result["macro"] == nothing
    assert result["per_type"] == ({"LOC": nothing} if mode == "default" and tagged[0][1:] == ["I-LOC"] else {})


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="mode is 'lenient', expected 'default' or 'strict'"):
        SpanF1().compute(predictions=[["O"]], references=[["O"]], mode="lenient")


Row = tuple[tuple[int, int], ...]
"""Per type, of one text, spans: for `ONE` and `OTHER` (hits, predicted)."""
ONE: list[Row] = [((2, 2), (0, 1)), ((0, 1), (1, 1)), ((1, 1), (0, 0)), ((1, 3), (0, 0))]
OTHER: list[Row] = [((1, 2), (0, 0)), ((0, 0), (1, 1)), ((1, 1), (0, 2)), ((0, 1), (0, 0))]
TRUE_SPANS = [(2, 0), (1, 1), (1, 0), (2, 1)]


def as_counts(rows: list[Row]) -> dict[str, Any]:
    return {
        "hits": np.array([[each[0] for each in row] for row in rows], float),
        "predicted": np.array([[each[1] for each in row] for row in rows], float),
        "true": np.array(TRUE_SPANS, float),
    }


def plain_f1(rows: Iterable[tuple[Row, tuple[int, int]]]) -> dict[str, float]:
    """Both averages from a text's (hits, predicted) and true spans, in plain Python."""
    sums = [[0, 0, 0], [0, 0, 0]]
    for row, true in rows:
        for n in (0, 1):
            sums[n] = [sums[n][0] + row[n][0], sums[n][1] + row[n][1], sums[n][2] + true[n]]
    f1s = [2 * hits / (predicted + true) for hits, predicted, true in sums if true]
    return {
        "macro": sum(f1s) / len(f1s),
        "micro": 2 * sum(each[0] for each in sums) / sum(each[1] + each[2] for each in sums),
    }


def test_span_intervals_are_those_of_all_256_ways_to_draw_four_texts() -> None:
    rows = list(zip(ONE, TRUE_SPANS, strict=True))
    all_draws = [plain_f1(drawn) for drawn in itertools.product(rows, repeat=4)]
    found = span_intervals(**as_counts(ONE), draws=20_000)
    for name in ("micro", "macro"):
        expected = np.percentile([each[name] for each in all_draws], [2.5, 97.5])
        assert found[name] == pytest.approx(tuple(expected), abs=0.01)


def test_a_paired_test_against_every_draw_and_every_swap() -> None:
    found = paired_test(as_counts(ONE), as_counts(OTHER), draws=20_000)
    pairs = list(zip(ONE, OTHER, TRUE_SPANS, strict=True))

    def differences(drawn: Iterable[tuple[Row, Row, tuple[int, int]]]) -> dict[str, float]:
        texts = list(drawn)
        one, other = plain_f1((each[0], each[2]) for each in texts), plain_f1((each[1], each[2]) for each in texts)
        return {name: one[name] - other[name] for name in one}

    observed = differences(pairs)
    drawn = [differences(each) for each in itertools.product(pairs, repeat=4)]
    swapped = [
        differences((other, one, true) if swap else (one, other, true) for (one, other, true), swap in zip(pairs, swaps, strict=True))
        for swaps in itertools.product((False, True), repeat=4)
    ]
    for name in ("macro", "micro"):
        assert found[name]["one"] == pytest.approx(plain_f1(zip(ONE, TRUE_SPANS, strict=True))[name])
        assert found[name]["other"] == pytest.approx(plain_f1(zip(OTHER, TRUE_SPANS, strict=True))[name])
        assert found[name]["difference"] == pytest.approx(observed[name])
        assert found[name]["interval"] == pytest.approx(tuple(np.percentile([each[name] for each in drawn], [2.5, 97.5])), abs=0.01)
        exact = np.mean([abs(each[name]) >= abs(observed[name]) - 1e-9 for each in swapped])
        assert found[name]["p"] == pytest.approx(exact, abs=0.015)


def test_two_models_alike_differ_by_chance_alone() -> None:
    counts = decision_counts(TRUE, TAGGED)
    for row in paired_test(counts, counts, draws=200).values():
        assert (row["difference"], row["interval"], row["p"]) == (0.0, (0.0, 0.0), 1.0)


def test_a_model_better_on_every_text_is_so_beyond_chance() -> None:
    true = np.eye(2)[[0, 1] * 50]
    worse = paired_test(decision_counts(true, true[:, ::-1]), decision_counts(true, true), draws=999)
    for row in worse.values():
        assert (row["one"], row["other"], row["interval"]) == (0.0, 1.0, (-1.0, -1.0))
        assert row["p"] == 0.001  # 1 of 1000: a difference of 1 takes all hundred swaps or none
    with pytest.raises(ValueError, match="different texts"):
        paired_test(decision_counts(true, true), decision_counts(true[::-1], true))


def test_draws_in_portions_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = f1_intervals(TRUE, TAGGED, draws=50), paired_test(as_counts(ONE), as_counts(OTHER), draws=50)
    monkeypatch.setattr("penchant.training.metrics.CELLS", 12)  # three draws of four texts
    assert f1_intervals(TRUE, TAGGED, draws=50) == whole[0]
    again = paired_test(as_counts(ONE), as_counts(OTHER), draws=50)
    assert {name: row["interval"] for name, row in again.items()} == {name: row["interval"] for name, row in whole[1].items()}


def test_slices_beside_the_rest_by_hand() -> None:
    # one true and one predicted tag per text: right in 40, right in every other of 40, wrong in 10
    right = np.array([1] * 40 + [1, 0] * 20 + [0] * 10)
    counts = {"hits": right[:, None], "predicted": np.ones((90, 1)), "true": np.ones((90, 1))}
    kinds = ["title"] * 40 + ["post"] * 40 + ["few"] * 10
    rows = slice_gaps(counts, {"kind": kinds, "half": ["a"] * 80 + ["b"] * 10})
    assert [(row["column"], row["value"], row["texts"]) for row in rows] == [
        ("half", "a", 80),
        ("half", "b", 10),
        ("kind", "few", 10),
        ("kind", "post", 40),
        ("kind", "title", 40),
    ]
    few, post, title = rows[2:]
    assert [each["f1"] for each in (few, post, title)] == pytest.approx([0.0, 0.5, 1.0])
    assert [each["rest_f1"] for each in (few, post, title)] == pytest.approx([60 / 80, 40 / 50, 20 / 50])
    assert post["interval"] == pytest.approx((0.35, 0.65), abs=0.026)  # binomial, 40 throws of a half
    assert title["interval"] == (1.0, 1.0)
    assert [each["flagged"] for each in (few, post, title)] == [False, True, False]  # ten texts are too few


def test_a_slice_that_may_be_as_good_is_not_flagged() -> None:
    right = np.array([1] * 40 + [1] * 38 + [0] * 2)[:, None]  # none of 2 in 40 wrong is drawn in 13% of the draws
    rows = slice_gaps({"hits": right, "predicted": np.ones((80, 1)), "true": np.ones((80, 1))}, {"kind": ["post"] * 40 + ["title"] * 40})
    assert (rows[1]["f1"], rows[1]["rest_f1"]) == pytest.approx((0.95, 1.0))
    assert (rows[1]["interval"][1], rows[1]["flagged"]) == (1.0, False)


def test_a_slice_without_true_tags_is_not_flagged() -> None:
    true = np.array([[1]] * 40 + [[0]] * 40)
    rows = slice_gaps(decision_counts(true, np.ones((80, 1))), {"kind": ["interest"] * 40 + ["noise"] * 40})
    assert [(row["f1"], row["flagged"]) for row in rows] == [(1.0, False), (0.0, False)]


def test_a_column_of_one_value_has_no_rest() -> None:
    (row,) = slice_gaps(decision_counts(TRUE, TAGGED), {"language": ["en"] * 4})
    assert (row["texts"], row["rest_f1"], row["flagged"]) == (4, 0.0, False)


def test_rare_values_are_one_slice() -> None:
    groups = [f"g{n:02}" for n in range(20) for _ in range(3)] + [f"rare{n}" for n in range(5)]
    rows = slice_gaps(decision_counts(np.ones((65, 1)), np.ones((65, 1))), {"group": groups}, draws=10)
    assert [row["value"] for row in rows] == [*(f"g{n:02}" for n in range(20)), "others"]
    assert [row["texts"] for row in rows] == [3] * 20 + [5]
