"""Labelled texts: all mistakes at once, and batches that hold every row as promised."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from penchant.config import load
from penchant.errors import DataError
from penchant.tagging.encoder import Reader
from penchant.tagging.spans import Span
from penchant.training.batches import IGNORED, Collate, LengthGrouped, prepare
from penchant.training.data import as_spans, length_class, moved, read_splits, script
from penchant.training.settings import TrainSettings
from penchant.training.splits import load_corpus

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
    corpus = load_corpus(load(TrainSettings, path, ["validation_share=0.25", "batch_size=4"]))
    assert (len(corpus.train), len(corpus.validation), len(corpus.test)) == (12, 6, 6)
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


def spans_file(path: Path, *rows: str) -> Path:
    """JSON Lines as they are given."""
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_all_mistakes_in_spans_come_at_once(settings_file: SettingsFile, tmp_path: Path) -> None:
    path = settings_file(task="spans", dimensions={"product": "product", "place": "place"})
    spans_file(
        tmp_path / "train.jsonl",
        '{"text": "my shoe", "spans": [{"start": 3, "end": 8, "dimension": "product"}]}',
        '{"text": "my shoe", "spans": [{"start": 2, "end": 7, "dimension": "product"}]}',
        '{"text": "my shoe", "spans": [{"start": 3, "end": 7, "dimension": "product", "text": "shoes"}]}',
        '{"text": "my shoe", "spans": [{"start": 0, "end": 7, "dimension": "product"}, {"start": 3, "end": 7, "dimension": "product"}]}',
        '{"text": "my shoe", "spans": [{"start": 3, "end": 7, "dimension": "produkt"}]}',
        '{"text": "my shoe", "spans": [{"from": 3}]}',
        '{"text": "my shoe", "spans": "3-7"}',
        '{"text": "my shoe"}',
        '{"text": "<b></b> shoe", "spans": [{"start": 0, "end": 3, "dimension": "product"}]}',
    )
    with pytest.raises(DataError) as caught:
        read_splits(load(TrainSettings, path))
    message = str(caught.value)
    for expected in (
        "train.jsonl:1: span 3–8 (product) doesn't lie in its text of 7 characters",
        "train.jsonl:2: span 2–7 (product) begins or ends with a blank: ' shoe'",
        "train.jsonl:3: span 3–7 (product) should be 'shoes', but its text has 'shoe' there",
        "train.jsonl:4: span 3–7 (product) overlaps the one before",
        "train.jsonl:5: unknown type of span 'produkt'; did you mean 'product'",
        "train.jsonl:6: spans are [{'from': 3}], expected a list of {start, end, dimension}",
        "train.jsonl:7: spans are '3-7'",
        "train.jsonl:8: no column 'spans'",
        "train.jsonl:9: span 0–3 (product) is nothing that cleaning leaves of its text",
        "train.jsonl: no row has a span of type 'place'",
    ):
        assert expected in message


def test_spans_stand_where_cleaning_puts_their_text() -> None:
    raw = "I  love <b>my</b> New\u3000York &amp; Nike"
    text = "I love my New York & Nike"
    spans = [Span(raw.index("New"), raw.index(" &"), "place"), Span(raw.index("Nike"), len(raw), "brand")]
    found = moved(spans, raw, text)
    assert [(text[each.start : each.end], each.dimension) for each in found] == [("New York", "place"), ("Nike", "brand")]


def test_spans_of_full_width_words_stay_apart() -> None:
    raw, text = "ＮＩＫＥ　ＡＩＲ", "NIKE AIR"  # nothing stays as it was, but each character has its place
    assert moved([Span(0, 4, "brand"), Span(5, 8, "product")], raw, text) == (Span(0, 4, "brand"), Span(5, 8, "product"))
    with pytest.raises(ValueError, match="can't be told from the one before"):
        moved([Span(0, 1, "brand"), Span(1, 2, "place")], "ﬁ😀", "fin")


def test_spans_in_csv_are_json() -> None:
    assert as_spans('[{"start": 0, "end": 2, "dimension": "brand"}]', "LG!") == [Span(0, 2, "brand")]
    assert as_spans("", "LG!") == as_spans(None, "LG!") == []


CONLL = """\ufeffI\tO
bought\tO
New\tB-product
Balance\tI-product
in\tO
Bath\tI-place
Bath\tB-place
\t
\tO
my\tO

rain O

# a comment
"""


def test_conll_files_are_texts_with_spans(settings_file: SettingsFile, tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text(CONLL.removesuffix("\n# a comment\n").replace("\tO\nmy", "my"), encoding="utf-8")
    path = settings_file(task="spans", train=str(tmp_path / "train.conll"), validation=None, test=None)
    _, _, dimensions, splits = read_splits(load(TrainSettings, path, ["columns={text: [text]}"]))
    train = splits["train"]
    assert dimensions == ("place", "product")
    assert train.texts == ["I bought New Balance in Bath Bath", "my", "rain"]
    named = [train.texts[0][each.start : each.end] for each in train.spans[0]]
    assert named == ["New Balance", "Bath", "Bath"]
    (tmp_path / "train.conll").write_text(CONLL, encoding="utf-8")
    with pytest.raises(DataError, match="train.conll:14: '# a comment' is no token with a BIO tag, such as: Paris B-location"):
        read_splits(load(TrainSettings, path))


def test_chinese_conll_files_have_no_blanks(settings_file: SettingsFile, tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("我 O\n买 O\n华 B-HPPX\n为 I-HPPX\n", encoding="utf-8")
    path = settings_file(
        task="spans", train=str(tmp_path / "train.conll"), validation=None, test=None, conll_joiner="", dimensions={"HPPX": "brand"}
    )
    _, _, dimensions, splits = read_splits(load(TrainSettings, path))
    assert (dimensions, splits["train"].texts, splits["train"].spans) == (("brand",), ["我买华为"], [(Span(2, 4, "brand"),)])


@pytest.mark.parametrize(("task", "wrong"), [("interests", ["labels=[pets.cats]"]), ("spans", [])])
def test_a_bundle_of_another_taxonomy_or_task_is_no_start(
    settings_file: SettingsFile, tiny_bundle: Path, task: str, wrong: list[str]
) -> None:
    rows = settings_file(model=str(tiny_bundle), task=task)
    with pytest.raises(DataError, match="a bundle of another taxonomy|a bundle for the task 'interests', the settings say 'spans'"):
        read_splits(load(TrainSettings, rows, wrong))


def test_a_damaged_start_is_refused_with_the_mistakes_of_the_files(settings_file: SettingsFile, tmp_path: Path, tiny_bundle: Path) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(tiny_bundle, copy)
    (copy / "model.safetensors").write_bytes(b"not weights")
    spans_file(tmp_path / "validation.jsonl", '{"text": "cat", "interests": ["cats"]}')
    with pytest.raises(DataError) as caught:
        read_splits(load(TrainSettings, settings_file(model=str(copy))))
    assert "model.safetensors: missing or damaged" in str(caught.value)
    assert "unknown interest 'cats'" in str(caught.value)


def test_every_interest_needs_texts_with_and_without_it(settings_file: SettingsFile, tmp_path: Path) -> None:
    path = settings_file(labels=["pets.cats"])
    spans_file(tmp_path / "train.jsonl", *['{"text": "cat", "interests": ["pets.cats"]}'] * 20)
    with pytest.raises(DataError, match="every row is labelled 'pets.cats'; add texts without it"):
        read_splits(load(TrainSettings, path))


def test_pieces_learn_the_class_of_their_unit_in_every_window(settings_file: SettingsFile, tmp_path: Path, tiny_model: Path) -> None:
    text = "my shoe in the rain and it of a trail"
    row = {"text": text, "spans": [{"start": 3, "end": 7, "dimension": "product"}, {"start": 32, "end": 37, "dimension": "place"}]}
    spans_file(tmp_path / "train.jsonl", *[json.dumps(row)] * 16)
    _, _, dimensions, splits = read_splits(load(TrainSettings, settings_file(task="spans", validation=None, test=None)))
    reader = Reader(AutoTokenizer.from_pretrained(tiny_model), max_length=8, stride=2)
    prepared = prepare(splits["train"].take([0]), reader, dimensions)
    # classes: O, B-place, I-place, B-product, I-product; six words in a window, four of them new
    assert prepared.rows["classes"][:] == [[IGNORED, 0, 3, 0, 0, 0, 0, IGNORED], [IGNORED, 0, 0, 0, 0, 0, 1, IGNORED]]
    assert prepared.rows["counts"][:] == [1.0, 0.0]
    batch = Collate(0)([prepared.rows[0], prepared.rows[1] | {"input_ids": [2, 9, 3], "classes": [IGNORED, 0, IGNORED]}])
    assert batch["attention_mask"].tolist() == [[1] * 8, [1, 1, 1, 0, 0, 0, 0, 0]]
    assert batch["classes"][1].tolist() == [IGNORED, 0, IGNORED, *[IGNORED] * 5]


@pytest.mark.parametrize(
    ("text", "expected"), [("我买 Nike 鞋子很好", "unspaced"), ("I like 鞋", "spaced"), ("😀 123", "spaced"), ("サッカー", "unspaced")]
)
def test_scripts_without_spaces_are_told_apart(text: str, expected: str) -> None:
    assert script(text) == expected


def test_lengths_fall_into_classes() -> None:
    assert [length_class("x" * n) for n in (39, 40, 119, 399, 400)] == [
        *("1. under 40 characters", "2. under 120 characters", "2. under 120 characters", "3. under 400 characters", "4. longer")
    ]


def test_a_damaged_file_is_named_beside_the_mistakes_of_the_others(settings_file: SettingsFile, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 cut off PAR1")
    spans_file(tmp_path / "test.jsonl", '{"text": "cat", "interests": ["cats"]}')
    with pytest.raises(DataError) as caught:
        read_splits(load(TrainSettings, settings_file(train=str(tmp_path / "train.parquet"))))
    assert "train.parquet" in str(caught.value)
    assert "test.jsonl:1: unknown interest 'cats'" in str(caught.value)


def test_a_split_may_come_from_several_files(settings_file: SettingsFile, tmp_path: Path) -> None:
    files = [str(tmp_path / "train.jsonl"), str(tmp_path / "validation.jsonl")]
    _, _, _, splits = read_splits(load(TrainSettings, settings_file(train=files)))
    assert len(splits["train"]) == 96 + 40
    assert splits["train"].places[96] == f"{files[1]}:1"


def test_a_text_that_cleaning_takes_away_is_left_out_with_a_word(
    settings_file: SettingsFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = settings_file()
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    spans_file(tmp_path / "train.jsonl", '{"text": "&lt;!-- nothing --&gt;", "interests": ["pets.cats"]}', *lines)
    _, _, _, splits = read_splits(load(TrainSettings, path))
    assert len(splits["train"]) == len(lines)
    assert "train.jsonl:1: left out, as cleaning leaves nothing of its text" in caplog.text


def test_what_is_wrong_with_a_file_comes_before_what_follows_from_it(settings_file: SettingsFile, tmp_path: Path) -> None:
    path = settings_file(task="both")
    spans_file(tmp_path / "train.jsonl", "")
    with pytest.raises(DataError) as caught:
        read_splits(load(TrainSettings, path))
    assert str(caught.value).splitlines()[1:] == [f"  - {tmp_path / 'train.jsonl'}: no rows with a text"]
