"""Tagging files on one machine: every format in and out, each distinct text once, and nothing half-written."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import DataError
from penchant.ingest.clean import text_key
from penchant.ingest.contract import read_text_table
from penchant.records import TAGS
from penchant.runners import local
from penchant.runners.local import TagWriter, open_taggers, tag_file
from penchant.runners.parts import Parts
from penchant.tagging import precision
from penchant.tagging.backends import TorchBackend
from penchant.tagging.bundle import load_spec
from penchant.tagging.tagger import Prepared, Tagger
from tests.tables import SUFFIXES, everything_in, write_rows
from tests.tagging.test_tagger import write_span_bundle

TEXTS = ["run in the rain", "a cat and bread", 'my "parcel", late;\tthe', "oven 😀", "run in the rain"]
EXPECTED = {
    (text_key("run in the rain"), "sports.running"),
    (text_key("a cat and bread"), "pets.cats"),
    (text_key("a cat and bread"), "food.baking"),
    (text_key("oven 😀"), "food.baking"),
}
OUTPUTS = (".csv", ".jsonl", ".parquet")


@pytest.fixture(scope="module")
def open_plainly() -> Callable[..., Tagger]:
    """A function that loads a bundle in plain fp32, once."""
    return cache(lambda bundle: Tagger(bundle, "no", "torch"))


@pytest.fixture(autouse=True)
def same_precision(open_plainly: Callable[..., Tagger], monkeypatch: pytest.MonkeyPatch) -> None:
    """One loaded tagger per bundle for all tests here: the precision that is measured at a start may change between two that are compared."""
    monkeypatch.setattr(local, "Tagger", lambda bundle, *_precision, **_more: open_plainly(bundle))


@pytest.fixture(scope="module")
def span_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of spans that can be told by eye."""
    return write_span_bundle(tmp_path_factory.mktemp("spans") / "bundle")


@pytest.fixture(scope="module")
def both_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_taxonomy: Path) -> Path:
    """The same with interests."""
    return write_span_bundle(tmp_path_factory.mktemp("both") / "bundle", "both", tiny_taxonomy)


@pytest.fixture
def tagged_texts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of every call of the tagger, which runs as it does."""
    calls: list[list[str]] = []
    prepare = Tagger.prepare

    def noted(self: Tagger, texts: Sequence[str]) -> Prepared:
        calls.append(list(texts))
        return prepare(self, texts)

    monkeypatch.setattr(Tagger, "prepare", noted)
    return calls


def read_tags(path: Path) -> list[dict[str, Any]]:
    """A file of tags as rows of the contract, read by the standard library where it can."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in stream]
        kinds = {"score": float, "start": int, "end": int}
        return [{name: kinds.get(name, str)(value) if value else None for name, value in row.items()} for row in csv.DictReader(stream)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("column", ["text", "title", "body"])
def test_every_format_and_text_column_gives_the_same_tags(suffix: str, column: str, tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / f"texts{suffix}", [{"id": n, column: text} for n, text in enumerate(TEXTS)])
    counts = tag_file([tiny_bundle], source, tmp_path / "tags.jsonl")
    assert {(row["text_key"], row["value"]) for row in read_tags(tmp_path / "tags.jsonl")} == EXPECTED
    assert counts == {"rows": 5, "texts": 4, "tags": 4, "untagged_texts": 1, "rows_without_text": 0, "broken_rows": 0, "cached": 0}


def test_tags_are_equal_in_every_output_format(tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "texts.csv", [{"text": text} for text in TEXTS])
    for suffix in OUTPUTS:
        tag_file([tiny_bundle], source, tmp_path / f"tags{suffix}")
    from_csv, from_jsonl, from_parquet = (read_tags(tmp_path / f"tags{suffix}") for suffix in OUTPUTS)
    assert len(from_parquet) == len(EXPECTED)
    assert from_csv == from_jsonl == from_parquet
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tags.csv", "tags.jsonl", "tags.parquet", "texts.csv"]


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_a_written_table_comes_back_as_it_was(suffix: str, tmp_path: Path) -> None:
    values = ['he said "no"', "a,b;c\td", "first\nsecond", "ラーメン 🍜", "-1", "NULL", " spaces "]
    rows = [
        {"text_key": f"k{n}", "dimension": "brand", "value": value, "score": 1 / (n + 3), "start": n or None, "end": 2**31 - 1}
        for n, value in enumerate(values)
    ]
    path = tmp_path / f"tags{suffix}"
    with TagWriter(path, suffix, TAGS) as writer:
        for chunk in (rows[:4], [], rows[4:]):
            writer.write(pa.Table.from_pylist(chunk, TAGS))
    found = pq.read_table(path) if suffix == ".parquet" else read_text_table(path, TAGS, "penchant tag")
    assert found.to_pylist() == rows


@pytest.mark.parametrize("suffix", OUTPUTS)
def test_texts_without_any_tag_give_an_empty_table(suffix: str, tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "texts.csv", [{"text": "my parcel"}, {"text": "late"}])
    counts = tag_file([tiny_bundle], source, tmp_path / f"tags{suffix}")
    assert (counts["tags"], counts["untagged_texts"]) == (0, 2)
    assert read_tags(tmp_path / f"tags{suffix}") == []


def test_parquet_tags_say_which_bundle_and_taxonomy_made_them(tiny_bundle: Path, tmp_path: Path) -> None:
    tag_file([tiny_bundle], write_rows(tmp_path / "texts.csv", [{"text": "run"}]), tmp_path / "tags.parquet")
    schema, spec = pq.read_schema(tmp_path / "tags.parquet"), load_spec(tiny_bundle)
    assert schema.equals(TAGS)
    assert schema.metadata[b"penchant.bundle"].decode() == spec.fingerprint
    assert json.loads(schema.metadata[b"penchant.taxonomy"]) == spec.taxonomy.model_dump(mode="json")


NAMED_TEXTS = ["run in the rain", "the oven in Paris", "a parcel", "my NIKE 😀 Air Max", "the oven in Paris"]
BOTH = [
    (0, "interest", "sports.running", None, None),
    (1, "interest", "food.baking", None, None),
    (1, "product", "oven", 4, 8),
    (1, "place", "paris", 12, 17),
    (3, "brand", "nike", 3, 7),
    (3, "product", "air max", 10, 17),
]


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("spans_first", [False, True])
def test_two_bundles_write_interests_and_spans_into_one_file(
    suffix: str, spans_first: bool, tiny_bundle: Path, span_bundle: Path, tmp_path: Path, tagged_texts: list[list[str]]
) -> None:
    source = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in NAMED_TEXTS])
    bundles = [span_bundle, tiny_bundle] if spans_first else [tiny_bundle, span_bundle]
    counts = tag_file(bundles, source, tmp_path / f"tags{suffix}")
    assert counts == {"rows": 5, "texts": 4, "tags": 6, "untagged_texts": 1, "rows_without_text": 0, "broken_rows": 0, "cached": 0}
    assert tagged_texts == [NAMED_TEXTS[:4]] * 2  # once with each bundle
    found = {
        tuple(row[name] for name in ("text_key", "dimension", "value", "start", "end")) for row in read_tags(tmp_path / f"tags{suffix}")
    }
    assert found == {(text_key(NAMED_TEXTS[place]), *rest) for place, *rest in BOTH}


@pytest.mark.parametrize("spans_first", [False, True])
def test_tags_of_two_bundles_say_which_they_were_and_the_taxonomy(
    spans_first: bool, tiny_bundle: Path, span_bundle: Path, tmp_path: Path
) -> None:
    bundles = [span_bundle, tiny_bundle] if spans_first else [tiny_bundle, span_bundle]
    tag_file(bundles, write_rows(tmp_path / "texts.csv", [{"text": "run"}]), tmp_path / "tags.parquet")
    schema, specs = pq.read_schema(tmp_path / "tags.parquet"), [load_spec(each) for each in bundles]
    assert schema.equals(TAGS)
    assert schema.metadata[b"penchant.bundle"].decode() == f"{specs[0].fingerprint}+{specs[1].fingerprint}"
    taxonomy = load_spec(tiny_bundle).taxonomy
    assert taxonomy is not None
    assert json.loads(schema.metadata[b"penchant.taxonomy"]) == taxonomy.model_dump(mode="json")


def test_tags_of_spans_alone_have_no_taxonomy(span_bundle: Path, tmp_path: Path) -> None:
    tag_file([span_bundle], write_rows(tmp_path / "texts.csv", [{"text": "nike"}]), tmp_path / "tags.parquet")
    assert set(pq.read_schema(tmp_path / "tags.parquet").metadata) == {b"penchant.bundle"}
    assert [row["dimension"] for row in read_tags(tmp_path / "tags.parquet")] == ["brand"]


@pytest.mark.parametrize(
    ("names", "dimension", "place"),
    [
        (("tiny", "tiny"), "interest", 0),
        (("spans", "both"), "brand", 0),
        (("both", "tiny"), "interest", 0),
        (("spans", "tiny", "both"), "interest", 1),
    ],
)
def test_two_bundles_that_write_the_same_dimension_are_refused(
    names: tuple[str, ...], dimension: str, place: int, tiny_bundle: Path, span_bundle: Path, both_bundle: Path, tmp_path: Path
) -> None:
    known = {"tiny": tiny_bundle, "spans": span_bundle, "both": both_bundle}
    bundles = [known[name] for name in names]
    source = write_rows(tmp_path / "texts.csv", [{"text": "run"}])
    with pytest.raises(DataError) as error:
        tag_file(bundles, source, tmp_path / "tags.csv")
    said = f"{bundles[-1]}: writes tags of dimension {dimension!r}, and so does {bundles[place]}; give one of them"
    assert str(error.value) == said
    assert [path.name for path in tmp_path.iterdir()] == ["texts.csv"]


def test_all_bundles_run_in_the_precision_measured_once(
    tiny_bundle: Path, span_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "Tagger", Tagger)
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "matmul_gflops", partial(precision.matmul_gflops, seconds=0.01, size=64))
    first, second = (each.backend for each in open_taggers([tiny_bundle, span_bundle], "torch", Parts(tmp_path / "tags.csv", first=True)))
    assert isinstance(first, TorchBackend)
    assert isinstance(second, TorchBackend)
    assert "multiplies" in first.why
    assert (second.precision, second.why) == (first.precision, f"{first.precision} as asked")


def test_each_distinct_text_is_tagged_once_across_chunks(
    tiny_bundle: Path, tmp_path: Path, tagged_texts: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PART_TEXTS", 2)
    texts = ["run", "cat", "run", "oven", " run ", "<b>cat</b>", "bread", "flour", "cat"]  # white space and markup are no difference
    counts = tag_file([tiny_bundle], write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in texts]), tmp_path / "tags.csv")
    assert tagged_texts == [["run", "cat"], ["oven", "bread"], ["flour"]]
    assert (counts["rows"], counts["texts"], counts["tags"]) == (9, 5, 5)
    assert len(read_tags(tmp_path / "tags.csv")) == 5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_events_keep_their_key_and_join_title_and_body(
    suffix: str, tiny_bundle: Path, tmp_path: Path, tagged_texts: list[list[str]]
) -> None:
    key = text_key("my cat\nthe oven")
    events = [{"text_key": key, "title": "my cat", "body": "the oven"}, {"text_key": text_key("run"), "title": None, "body": "run"}]
    tag_file([tiny_bundle], write_rows(tmp_path / f"events{suffix}", events), tmp_path / "tags.jsonl")
    assert tagged_texts == [["my cat\nthe oven", "run"]]
    found = {(row["text_key"], row["value"]) for row in read_tags(tmp_path / "tags.jsonl")}
    assert found == {(key, "pets.cats"), (key, "food.baking"), (text_key("run"), "sports.running")}


def test_texts_are_cleaned_and_masked_before_they_are_tagged(tiny_bundle: Path, tmp_path: Path, tagged_texts: list[list[str]]) -> None:
    source = write_rows(tmp_path / "texts.csv", [{"text": "<p>run\x07 &amp; write to ann@example.org</p>"}])
    tag_file([tiny_bundle], source, tmp_path / "tags.csv")
    assert tagged_texts == [["run & write to [email]"]]


def test_broken_and_empty_rows_are_counted_and_the_rest_is_tagged(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "texts.jsonl"
    lines = [
        '{"text": "run"}',
        "{not json",
        '{"text": ""}',
        '{"text": ["cat"]}',
        "",
        "[1]",
        '{"text": null}',
        '{"text": 12.0}',
        '{"text": "cat"}',
    ]
    source.write_text("\n".join(lines))
    with caplog.at_level("WARNING"):
        counts = tag_file([tiny_bundle], source, tmp_path / "tags.csv")
    assert counts == {"rows": 8, "texts": 3, "tags": 2, "untagged_texts": 1, "rows_without_text": 2, "broken_rows": 3, "cached": 0}
    assert [f"texts.jsonl:{place}: " in each for place, each in zip((2, 4, 6), caplog.messages[:3], strict=True)] == [True] * 3
    with (tmp_path / "tags.csv.rejects.csv").open(newline="") as stream:
        rejects = list(csv.DictReader(stream))
    assert [(row["file"], row["row"]) for row in rejects] == [(str(source), place) for place in ("2", "4", "6")]
    assert "not a JSON object" in rejects[2]["reason"]


@pytest.mark.parametrize(
    "content",
    [
        "\ufefftext\r\nrun\r\ncat\r\n".encode(),
        "text\nrun\ncat\n".encode("utf-16"),
        b'{"text": "run \\ud800"}\n{"text": "\\u0000cat"}\n',
        b"id;text\n1;run \xff\n2;cat\n",
        ("text\nrun\n" + "cat " * 250_000 + "\n").encode(),
        b'text,id\nrun,1\n"never closed,2\ncat,3\n',
    ],
    ids=["BOM and CRLF", "UTF-16", "lone surrogate and NUL", "not UTF-8", "1 MB line", "unclosed quote"],
)
def test_damaged_text_is_tagged_by_what_is_left_of_it(content: bytes, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").write_bytes(content)
    tag_file([tiny_bundle], tmp_path / "texts", tmp_path / "tags.jsonl")
    assert [row["value"] for row in read_tags(tmp_path / "tags.jsonl")] == ["sports.running", "pets.cats"]


def test_an_event_whose_text_is_no_unicode_is_a_broken_row(tiny_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "events.csv"
    source.write_bytes(b"text_key,title\na,run \xff\nb,cat\n")
    counts = tag_file([tiny_bundle], source, tmp_path / "tags.jsonl")
    assert (counts["texts"], counts["broken_rows"]) == (1, 1)
    assert [(row["text_key"], row["value"]) for row in read_tags(tmp_path / "tags.jsonl")] == [("b", "pets.cats")]


@pytest.mark.parametrize("suffix", OUTPUTS)
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_the_earlier_output_as_it_was(
    suffix: str, failure: type[BaseException], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "texts.csv", [{"text": text} for text in ("run", "cat", "oven", "flour")])
    output = tmp_path / f"tags{suffix}"
    tag_file([tiny_bundle], source, output)
    before, tags, prepare, calls = everything_in(tmp_path), read_tags(output), Tagger.prepare, []

    def fails_in_the_second_part(self: Tagger, texts: Sequence[str]) -> Prepared:
        calls.append(texts)
        if len(calls) == 2:
            raise failure
        return prepare(self, texts)

    monkeypatch.setattr(local, "PART_TEXTS", 2)
    monkeypatch.setattr(Tagger, "prepare", fails_in_the_second_part)
    with pytest.raises(failure):
        tag_file([tiny_bundle], source, output)
    assert len(calls) == 2
    left = everything_in(tmp_path)
    assert {name: left[name] for name in before} == before
    assert {Path(name).parts[0] for name in left if name not in before} <= {f".tags{suffix}.parts"}
    tag_file([tiny_bundle], source, output)
    assert everything_in(tmp_path).keys() == before.keys()
    assert read_tags(output) == tags


@pytest.mark.parametrize(
    ("content", "output", "message"),
    [
        (None, "tags.csv", "texts.csv: no such file"),
        ("", "tags.csv", "texts.csv: no rows"),
        ("text\n", "tags.csv", "texts.csv: no rows"),
        ("id,words\n1,run\n", "tags.csv", "texts.csv: no text, title or body column; it has 'id', 'words'"),
        ("text\nrun\n", "tags.xlsx", "tags.xlsx: can't tell the format from the name; use .parquet, .csv or .jsonl"),
        ("text\nrun\n", "texts.csv", "texts.csv: is what is read"),
        ('[{"text": "run"}]', "tags.csv", "texts.csv: looks like one JSON array"),
        ("PAR1 and no more", "tags.csv", "texts.csv: damaged Parquet file"),
    ],
)
def test_what_can_not_be_tagged_is_refused_and_nothing_is_written(
    content: str | None, output: str, message: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "texts.csv").write_text(content)
    before = everything_in(tmp_path)
    with pytest.raises(DataError) as error:
        tag_file([tiny_bundle], tmp_path / "texts.csv", tmp_path / output)
    assert message in str(error.value)
    assert everything_in(tmp_path) == before


def test_a_folder_stands_for_the_events_in_it(tiny_bundle: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "events.parquet", [{"text_key": text_key("run"), "title": "run", "body": None}])
    tag_file([tiny_bundle], tmp_path, tmp_path / "tags.jsonl")
    assert [row["value"] for row in read_tags(tmp_path / "tags.jsonl")] == ["sports.running"]
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(DataError, match="events.parquet: no such file"):
        tag_file([tiny_bundle], tmp_path, tmp_path / "tags.jsonl")
