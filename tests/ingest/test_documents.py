"""Distinct documents of a table: by columns where it is an events table, row by row elsewhere, and the same both ways."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import DataError
from penchant.ingest import documents
from penchant.ingest.clean import text_key
from penchant.ingest.documents import Documents, event_columns
from penchant.records import DOCUMENTS
from tests.tables import write_rows

EVENTS = [
    {"text_key": "a", "title": "run", "body": "in the rain"},
    {"text_key": "b", "title": None, "body": "cat"},
    {"text_key": "a", "title": "run", "body": "in the rain"},
    {"text_key": "c", "title": None, "body": None},
    {"text_key": "d", "title": "<b>as it is</b>", "body": ""},
    {"text_key": "c", "title": "", "body": None},
    {"text_key": "b", "title": None, "body": "cat"},
]


def read(source: Path, tmp_path: Path, size: int = 2) -> tuple[list[list[tuple[str, str]]], dict[str, int]]:
    """Batches of key and text, and the counts."""
    found = Documents(source, size, tmp_path / "rejects.csv")
    batches = list(found)
    assert all(each.schema.equals(DOCUMENTS) for each in batches)
    return [[tuple(row.values()) for row in each.to_pylist()] for each in batches], found.counts


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_each_distinct_document_comes_once_in_order(
    suffix: str, rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "ROWS_AT_ONCE", rows_at_once)
    source = write_rows(tmp_path / f"events{suffix}", EVENTS)
    batches, counts = read(source, tmp_path)
    assert batches == [[("a", "run\nin the rain"), ("b", "cat")], [("d", "<b>as it is</b>")]]
    assert counts == {"rows": 7, "rows_without_text": 2, "broken_rows": 0}


def test_only_an_events_table_of_strings_is_read_by_columns(tmp_path: Path) -> None:
    assert event_columns(write_rows(tmp_path / "events.parquet", EVENTS)) == ["text_key", "title", "body"]
    for name, columns in {"texts": {"text": ["x"]}, "numbers": {"text_key": ["k"], "title": [1]}, "keys": {"text_key": ["k"]}}.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        assert event_columns(tmp_path / f"{name}.parquet") == []
    batches, _ = read(tmp_path / "numbers.parquet", tmp_path)
    assert batches == [[("k", "1")]]


def test_an_events_table_with_rows_of_no_key_is_refused(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "events.parquet", [*EVENTS, {"text_key": None, "title": "x", "body": None}])
    with pytest.raises(DataError, match=r"events\.parquet: an events table with rows that have no text_key; ingest it again"):
        read(source, tmp_path)


def test_rejects_say_where_and_why_and_not_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text("\n".join(['{"text": "run"}'] + ['{"text": ["secret"]}'] * 30))
    with caplog.at_level("WARNING"):
        batches, counts = read(source, tmp_path)
    assert batches == [[(text_key("run"), "run")]]
    assert (counts["rows"], counts["broken_rows"]) == (31, 30)
    with (tmp_path / "rejects.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [int(row["row"]) for row in found] == list(range(2, 32))
    assert len(caplog.messages) == documents.LOGGED_ROWS + 1  # a million broken rows don't fill the log
    assert "secret" not in str(found) + caplog.text
