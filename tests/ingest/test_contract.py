"""Tables that follow a contract already: from Parquet by type, from text by value, with every mistake placed."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import DataError
from penchant.ingest.contract import parquet_of, read_text_table
from penchant.records import EVENTS, INSTANT, TAGS

MAKER = "penchant tag"
TAG = {"text_key": "a", "dimension": "interest", "value": "run", "score": 0.5}
EVENT = {"event_id": "e", "user_id": "u", "occurred_at": "2026-03-01T12:00:00+02:00", "source": "shop", "action": "view", "text_key": "a"}


def json_lines(path: Path, *lines: dict[str, Any]) -> Path:
    """A JSON Lines file of those rows."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def parquet(path: Path, **changed: pa.Array) -> Path:
    """One tag as Parquet, with some columns changed."""
    columns: dict[str, Any] = {field.name: pa.array([{**TAG, "start": 0, "end": 3}[field.name]], field.type) for field in TAGS}
    pq.write_table(pa.table(columns | changed), path)
    return path


def test_parquet_of_the_contract_is_taken_also_with_other_widths(tmp_path: Path) -> None:
    assert parquet_of(parquet(tmp_path / "a"), TAGS, MAKER)
    wide = {"text_key": pa.array(["a"], pa.large_string()), "start": pa.array([0], pa.int64()), "more": pa.array([1])}
    assert parquet_of(parquet(tmp_path / "b", **wide), TAGS, MAKER)


def test_text_is_no_parquet(tmp_path: Path) -> None:
    assert not parquet_of(json_lines(tmp_path / "a", TAG), TAGS, MAKER)


def test_a_parquet_column_of_another_type_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", score=pa.array(["0.5"]), start=pa.array([0.0]))
    with pytest.raises(DataError) as caught:
        parquet_of(path, TAGS, MAKER)
    assert str(caught.value) == f"{path}: score is string, expected double; start is double, expected int32; make it with: penchant tag"


def test_missing_parquet_columns_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text_key": ["a"], "dimension": ["interest"], "value": ["run"]}), path)
    with pytest.raises(DataError, match="has no column score; make it with: penchant tag"):
        parquet_of(path, TAGS, MAKER)


@pytest.mark.parametrize(("kind", "fits"), [(pa.timestamp("ms", "Europe/Berlin"), True), (pa.timestamp("us"), False), (pa.string(), False)])
def test_a_parquet_time_needs_a_zone(tmp_path: Path, kind: pa.DataType, fits: bool) -> None:
    path = tmp_path / "a.parquet"
    schema = pa.schema([("occurred_at", INSTANT)])
    pq.write_table(pa.table({"occurred_at": pa.array([None], kind)}), path)
    if fits:
        assert parquet_of(path, schema, MAKER)
    else:
        with pytest.raises(DataError, match="occurred_at is"):
            parquet_of(path, schema, MAKER)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="a.parquet: damaged Parquet file"):
        parquet_of(path, TAGS, MAKER)


def test_csv_and_json_lines_give_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'\xef\xbb\xbfscore,value,dimension,text_key,start,end,more\r\n0.5,run,interest,a,,,x\r\n1,"New ""Shoe""",brand,b,0,8,\r\n'
    )
    lines = [TAG, {"text_key": "b", "dimension": "brand", "value": 'New "Shoe"', "score": 1, "start": 0, "end": 8.0, "more": []}]
    expected = [
        TAG | {"start": None, "end": None},
        TAG | {"text_key": "b", "dimension": "brand", "value": 'New "Shoe"', "score": 1.0, "start": 0, "end": 8},
    ]
    for path in (tmp_path / "a.csv", json_lines(tmp_path / "a.jsonl", *lines)):
        table = read_text_table(path, TAGS, MAKER)
        assert table.schema == TAGS
        assert table.to_pylist() == expected


def test_times_become_utc_and_an_id_read_as_a_number_stays_itself(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", EVENT, EVENT | {"occurred_at": "2026-03-01", "user_id": 7.0, "item_id": 8})
    first, second = read_text_table(path, EVENTS, MAKER).to_pylist()
    assert first["occurred_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert second["occurred_at"] == datetime(2026, 3, 1, tzinfo=UTC)  # a time without an offset is UTC
    assert (second["user_id"], second["item_id"]) == ("7", "8")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"score": "high"}, "score: 'high' is no double"),
        ({"score": [1]}, "score: [1] is no double"),
        ({"score": 10**400}, "is no double"),
        ({"score": None}, "score: missing"),
        ({"value": ""}, "value: missing"),
        ({"value": "\ud83d"}, "is not UTF-8 text"),
        ({"value": {"a": 1}}, "value: "),
        ({"start": "x"}, "start: 'x' is no int32"),
        ({"start": 1.5}, "start: 1.5 is no int32"),
        ({"start": "1.5"}, "start: '1.5' is no int32"),
        ({"end": 2**31}, "end: 2147483648 is no int32"),  # one more than fits
        ({"end": float("inf")}, "end: inf is no int32"),
    ],
)
def test_a_value_of_the_wrong_type_in_row_seven_is_placed(tmp_path: Path, changed: dict[str, Any], expected: str) -> None:
    path = json_lines(tmp_path / "a.jsonl", *[TAG] * 6, TAG | changed, TAG)
    with pytest.raises(DataError) as caught:
        read_text_table(path, TAGS, MAKER)
    assert f"{path}: 1 mistake\n" in str(caught.value)
    assert f"{path}:7: " in str(caught.value)
    assert expected in str(caught.value)


def test_a_time_that_is_none_is_placed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: occurred_at: 'noon' is no timestamp"):
        read_text_table(json_lines(tmp_path / "a.jsonl", EVENT | {"occurred_at": "noon"}), EVENTS, MAKER)


@pytest.mark.parametrize("content", ["text_key,value\na,run\n", '{"text_key": "a", "value": "run"}\n'])
def test_missing_columns_of_a_text_table_are_listed(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="has no column dimension, score; make it with: penchant tag"):
        read_text_table(path, TAGS, MAKER)


def test_twenty_mistakes_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text_key,dimension,value,score\n" + "a,interest,run,x\n" * 12 + "a,interest,run\n" * 13, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_text_table(path, TAGS, MAKER)
    shown = str(caught.value).splitlines()[1:]
    assert [line.split(":")[1] for line in shown[:20]] == [str(n) for n in range(2, 22)]  # line 1 is the header
    assert shown[20:] == ["  - and 5 more"]  # 25 - 20


@pytest.mark.parametrize("content", ["", "text_key,dimension,value,score\n"])
def test_an_empty_file_is_an_empty_table(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content, encoding="utf-8")
    table = read_text_table(path, TAGS, MAKER)
    assert table.schema == TAGS
    assert table.num_rows == 0
