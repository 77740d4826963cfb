"""What a baseline must be able to tell apart, in scripts with and without spaces."""

from pathlib import Path

import numpy as np
import pytest

from penchant import taxonomy
from penchant.training.baselines import baseline_scores, tfidf, unspaced
from penchant.training.data import Corpus, Labelled

LABELS = ("sports.running", "pets.cats", "food.baking")
ENGLISH = ["my shoe in the rain", "the cat and a purr", "a parcel of it", "run the trail", "my cat and whisker", "late in the rain"]
CHINESE = ["买了跑步鞋很好", "我的猫咪很好", "快递下雨了", "在上海跑步的", "猫咪粮买了", "很好用的"]
TARGETS = [[1, 0], [0, 1], [0, 0]] * 2
"""Running and cats."""


def corpus(texts: list[str], targets: list[list[int]]) -> Corpus:
    def split(chosen: slice, times: int) -> Labelled:
        own, tags = texts[chosen] * times, np.array(targets[chosen] * times, np.float32)
        return Labelled(own, tags, [()] * len(own), [""] * len(own), {"kind": ["text"] * len(own)})

    return Corpus(None, LABELS[: len(targets[0])], (), split(slice(None), 5), split(slice(None), 1), split(slice(0, 2), 1))


@pytest.mark.parametrize("name", ["logistic_regression", "random_forest"])
@pytest.mark.parametrize("texts", [ENGLISH, CHINESE])
def test_what_was_learnt_by_heart_is_known(name: str, texts: list[str]) -> None:
    validation, test = baseline_scores(name, corpus(texts, TARGETS), "no-model", 32)
    assert validation.shape == (6, 2)
    assert test == pytest.approx(validation[:2])
    assert ((validation > 0.5) == (np.array(TARGETS) > 0)).all()


@pytest.mark.parametrize("name", ["logistic_regression", "random_forest"])
def test_one_label_is_one_column(name: str) -> None:
    validation, test = baseline_scores(name, corpus(ENGLISH, [row[:1] for row in TARGETS]), "no-model", 32)
    assert (validation.shape, test.shape) == ((6, 1), (2, 1))
    assert ((validation[:, 0] > 0.5) == np.array([1, 0, 0, 1, 0, 0])).all()


def test_a_forest_is_sure_of_labels_that_every_or_no_text_has() -> None:
    validation, _ = baseline_scores("random_forest", corpus(ENGLISH, [[row[0], 1, 0] for row in TARGETS]), "no-model", 32)
    assert (validation[:, 1:] == [1.0, 0.0]).all()
    assert ((validation[:, 0] > 0.5) == np.array([1, 0, 0, 1, 0, 0])).all()


def test_an_untrained_encoder_scores_between_0_and_1(tiny_model: Path, tiny_taxonomy: Path) -> None:
    rows = corpus(ENGLISH, [[*row, 0] for row in TARGETS])
    found = Corpus(taxonomy.load(tiny_taxonomy), LABELS, (), rows.train, rows.validation, rows.test)
    validation, test = baseline_scores("zero_shot", found, str(tiny_model), 32)
    assert (validation.shape, test.shape) == ((6, 3), (2, 3))
    assert ((validation > 0) & (validation < 1)).all()
    assert test == pytest.approx(validation[:2], abs=1e-6)


def test_words_are_features_where_there_are_spaces_and_characters_where_not() -> None:
    three = [["run run"], ["ab c"], ["猫咪粮"]]
    # a word and a pair; one word (single letters are none); three characters, two pairs and one of three
    assert [tfidf(corpus(texts, [[1, 0]]))[0].shape[1] for texts in three] == [2, 1, 6]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["run the trail"], False),
        (["猫咪粮"], True),
        (["ねこのえさ", "ネコ"], True),
        (["고양이 사료를 샀다"], True),
        (["кошка"], False),
        (["iPhone 手机壳"], False),  # 6 letters of 9
        (["4090 显卡!!!! 2024"], True),  # digits and signs have no say
        (["ab猫咪"], False),  # half is no majority
        (["run", "猫咪粮食"], True),  # over all texts
        (["123", ""], False),
        ([], False),
    ],
)
def test_scripts_without_spaces_are_told_by_most_letters(texts: list[str], expected: bool) -> None:
    assert unspaced(texts) is expected
