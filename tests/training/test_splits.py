"""Setting rows aside: at random, by group, in time; and no text on two sides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penchant.config import load
from penchant.errors import ConfigError, DataError
from penchant.training.data import Labelled
from penchant.training.settings import TrainSettings
from penchant.training.splits import by_time, folds, load_corpus, near_duplicates, set_aside, shingles
from tests.training.conftest import labelled, write_rows

SettingsFile = Callable[..., Path]


def split_of(texts: list[str], **about: list[str]) -> Labelled:
    """Rows without labels."""
    return Labelled(texts, np.zeros((len(texts), 0)), [()] * len(texts), [f"f:{n}" for n in range(len(texts))], about)


def settings(**more: Any) -> TrainSettings:
    """Of a run that is never started."""
    return TrainSettings.model_validate({"train": "train.jsonl", "output": "run", **more})


ROWS = split_of(
    [f"text {n}" for n in range(12)],
    group=[f"user{n % 4}" for n in range(12)],
    time=[f"2026-01-{n * 5 % 12 + 1:02}" for n in range(12)],
)


@pytest.mark.parametrize("split", ["random", "group", "time"])
def test_folds_test_on_rows_they_were_not_trained_on(split: str) -> None:
    chosen = settings(split=split, columns={"group": "group", "time": "time"})
    found = folds(ROWS, chosen, 3)
    assert len(found) == 3
    tested = [n for _, held_out in found for n in held_out]
    for kept, held_out in found:
        assert not set(kept) & set(held_out)
        if split == "group":
            assert not {ROWS.about["group"][n] for n in kept} & {ROWS.about["group"][n] for n in held_out}
        if split == "time":
            assert max(ROWS.about["time"][n] for n in kept) < min(ROWS.about["time"][n] for n in held_out)
    assert len(set(tested)) == len(tested) == (12 if split != "time" else 9)  # the first quarter of the time is trained on alone


@pytest.mark.parametrize(("split", "share", "expected"), [("random", 0.25, 3), ("group", 0.25, 3), ("time", 0.25, 3), ("random", 0.01, 1)])
def test_rows_are_set_aside_as_the_split_says(split: str, share: float, expected: int) -> None:
    chosen = settings(split=split, columns={"group": "group", "time": "time"})
    kept, held_out = set_aside(ROWS, chosen, share)
    assert sorted([*kept, *held_out]) == list(range(12))
    assert len(held_out) == expected
    if split == "group":
        assert len({ROWS.about["group"][n] for n in held_out}) == 1
    if split == "time":
        assert sorted(ROWS.about["time"][n] for n in held_out) == ["2026-01-10", "2026-01-11", "2026-01-12"]


def test_times_are_told_apart_with_and_without_an_offset() -> None:
    # 23:30 in New York is 03:30 of the next day in UTC
    rows = split_of(["a", "b", "c"], time=["2026-01-02T01:00:00", "2026-01-01T23:30:00-05:00", "2026-01-01"])
    assert by_time(rows) == [2, 0, 1]
    with pytest.raises(DataError, match="f:1: 'soon' is no time"):
        by_time(split_of(["a", "b"], time=["2026-01-01", "soon"]))


def test_a_row_without_the_column_of_the_split_is_named() -> None:
    with pytest.raises(DataError, match="f:1: has no group, which the split goes by .1 rows like it.; see columns.group"):
        folds(split_of(["a", "b", "c"], group=["x", "unknown", "y"]), settings(split="group", columns={"group": "group"}), 2)
    with pytest.raises(DataError, match="can't be split in 3 folds"):
        folds(split_of(["a", "b"], group=["x", "y"]), settings(split="group", columns={"group": "group"}), 3)


def test_one_group_alone_can_t_be_split() -> None:
    with pytest.raises(DataError, match="too few groups in columns.group"):
        set_aside(split_of(["a", "b"], group=["x", "x"]), settings(split="group", columns={"group": "group"}), 0.5)


def test_what_no_file_is_given_for_is_set_aside(settings_file: SettingsFile) -> None:
    corpus = load_corpus(load(TrainSettings, settings_file(validation=None, test=None, validation_share=0.25, batch_size=8)))
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (48, 24, 24)
    assert len({*corpus.train.places, *corpus.validation.places, *corpus.test.places}) == 96


def test_a_split_needs_the_name_of_its_column(settings_file: SettingsFile) -> None:
    with pytest.raises(ConfigError, match="split: time needs columns.time"):
        load(TrainSettings, settings_file(split="time"))


def test_shingles_are_of_letters_and_digits_in_one_case() -> None:
    assert shingles("Ab-cd  E!") == {"ab cd", "b cd ", " cd e"}
    assert shingles("Hi!") == {"hi"}
    assert shingles("🏃🏃") != shingles("🎮")


LONG = "the marathon in the rain was late and my shoe came off at the second bridge over the river"


def test_near_duplicates_are_found_across_splits_with_their_similarity() -> None:
    one, other = split_of(["something else altogether here", f"{LONG}!"]), split_of(["cat", f"{LONG.upper()} 😀"])
    assert near_duplicates(one, [other], 0.8) == [(1, "f:1", "f:1", 1.0)]
    assert near_duplicates(one, [split_of([LONG.replace("second bridge", "big tree")])], 0.95) == []
    (found,) = near_duplicates(one, [split_of([LONG.replace("second bridge", "big tree")])], 0.6)
    # by hand: the sets of 5-grams of 89 and 84 characters, of which those over the changed stretch differ
    a, b = shingles(LONG), shingles(LONG.replace("second bridge", "big tree"))
    assert found[3] == len(a & b) / len(a | b)
    assert near_duplicates(one, [], 0.8) == []


def leaking(tmp_path: Path, settings_file: SettingsFile, **more: Any) -> Path:
    """Settings over files with one training text in the test rows and one validation text in the test rows."""
    path = settings_file(**more)
    rows = {name: labelled(count, n) for n, (name, count) in enumerate({"train": 96, "validation": 40, "test": 40}.items())}
    rows["train"][5] |= {"text": LONG, "spans": []}
    rows["test"][7] |= {"text": f"{LONG}.", "spans": []}
    rows["validation"][3] |= {"text": "an old parcel of bread came late in the rain to my door", "spans": []}
    rows["test"][9] |= {"text": "An old parcel of bread came late in the rain to my door!", "spans": []}
    for name, each in rows.items():
        write_rows(tmp_path / f"{name}.jsonl", each)
    return path


def test_leaks_are_refused_and_named(settings_file: SettingsFile, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_corpus(load(TrainSettings, leaking(tmp_path, settings_file, near_duplicate=0.95, leaks="refuse")))
    message = str(caught.value)
    assert "train.jsonl:6 and " in message
    assert "test.jsonl:8 (1.00)" in message
    assert "validation.jsonl:4 and " in message
    assert "leaks: drop" in message


def test_leaks_are_dropped_from_the_side_that_is_learned_from(settings_file: SettingsFile, tmp_path: Path) -> None:
    corpus = load_corpus(load(TrainSettings, leaking(tmp_path, settings_file, near_duplicate=0.95, leaks="drop")))
    allowed = load_corpus(load(TrainSettings, leaking(tmp_path, settings_file, leaks="allow")))
    assert (len(corpus.test), len(allowed.train), len(allowed.validation)) == (40, 96, 40)
    assert LONG not in corpus.train.texts
    assert LONG in allowed.train.texts
    assert not any(text.startswith("an old parcel") for text in corpus.validation.texts)
    assert len(corpus.validation) < 40


def test_a_split_that_nothing_can_be_measured_on_is_refused(settings_file: SettingsFile, tmp_path: Path) -> None:
    path = settings_file(task="both", leaks="allow")
    write_rows(tmp_path / "validation.jsonl", [{"text": f"rain {n}", "interests": ["pets.cats"], "spans": []} for n in range(9)])
    with pytest.raises(DataError) as caught:
        load_corpus(load(TrainSettings, path, ["batch_size=128"]))
    for expected in ("all 9 rows have the same labels", "none of the 9 rows has a span", "96 training rows are fewer than batch_size 128"):
        assert expected in str(caught.value)
