"""Labelled texts: all mistakes at once, and batches that hold every row as promised."""

from collections.abc import Callable
from pathlib import Path

import pytest

from penchant.config import load
from penchant.errors import DataError
from penchant.training.data import LengthGrouped, load_corpus
from penchant.training.settings import TrainSettings

SettingsFile = Callable[..., Path]


def test_all_mistakes_of_all_files_come_at_once(settings_file: SettingsFile, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        '{"text": "run", "interests": ["sports.runing"]}\n{"text": " ", "interests": []}\nnot json\n'
        '{"text": "cat", "interests": ["pets.cats"]}\n{"text": "cat", "interests": 7}\n'
    )
    (tmp_path / "test.jsonl").write_text('{"body": "no text here"}\n')
    with pytest.raises(DataError) as caught:
        load_corpus(load(TrainSettings, settings_file()))
    message = str(caught.value)
    for expected in (
        "train.jsonl:1: unknown interest 'sports.runing'; did you mean 'sports.running'",
        "train.jsonl:2: empty text",
        "train.jsonl:3: not JSON",
        "train.jsonl:5: interests is 7, expected a list of ids",
        "test.jsonl:1: no column 'text'; it has 'body'",
        "no row is labelled 'food.baking'",
    ):
        assert expected in message
    assert "Traceback" not in message


def test_csv_labels_columns_and_kinds(settings_file: SettingsFile, tmp_path: Path) -> None:
    rows = [("A run", "sports.running", "t"), ("cat <b>purr</b> me@example.org", "pets.cats; food.baking", ""), ("rain", "", "t")] * 8
    (tmp_path / "own.csv").write_text("headline,topics,sort\n" + "".join(f'"{a}","{b}","{c}"\n' for a, b, c in rows), encoding="utf-8")
    path = settings_file(
        train=str(tmp_path / "own.csv"), validation=None, test=None, columns={"text": ["headline"], "labels": "topics", "kind": "sort"}
    )
    corpus = load_corpus(load(TrainSettings, path, ["validation_share=0.25"]))
    assert (len(corpus.train), len(corpus.validation)) == (18, 6)
    assert corpus.test is corpus.validation
    whole = dict(zip(corpus.train.texts, corpus.train.targets.tolist(), strict=True))
    assert whole["cat purr [email]"] == [0, 1, 1]
    assert whole["rain"] == [0, 0, 0]
    assert set(corpus.train.kinds) == {"t", "text"}


def test_without_a_taxonomy_the_labels_found_are_one(settings_file: SettingsFile) -> None:
    corpus = load_corpus(load(TrainSettings, settings_file(taxonomy=None, labels=None)))
    assert corpus.labels == ("food.baking", "pets.cats", "sports.running")


def test_too_few_rows_for_a_batch_are_refused(settings_file: SettingsFile) -> None:
    with pytest.raises(DataError, match="96 training rows are fewer than batch_size 128"):
        load_corpus(load(TrainSettings, settings_file(batch_size=128)))


@pytest.mark.parametrize(("rows", "batch_size", "accumulation"), [(100, 8, 1), (100, 8, 3), (64, 16, 2)])
def test_an_epoch_holds_each_row_at_most_once_in_full_batches(rows: int, batch_size: int, accumulation: int) -> None:
    batches = LengthGrouped([n * 7 % 50 for n in range(rows)], batch_size, accumulation, seed=1)
    first = list(batches)
    assert len(first) == len(batches) == rows // (batch_size * accumulation) * accumulation
    assert {len(batch) for batch in first} == {batch_size}
    drawn = [n for batch in first for n in batch]
    assert len(set(drawn)) == len(drawn)
    assert list(batches) == first
    batches.epoch = 1
    assert list(batches) != first


def test_batches_hold_rows_of_like_length() -> None:
    lengths = [n * 7919 % 500 for n in range(2000)]
    batches = list(LengthGrouped(lengths, 20, 1, seed=1))
    spread = [max(lengths[n] for n in batch) - min(lengths[n] for n in batch) for batch in batches]
    assert sum(spread) / len(spread) < 50  # drawn at random, a batch of 20 spans about 450
