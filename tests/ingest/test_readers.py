"""Files to rows: kinds, encodings, separators, and the place of every row."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import DataError
from penchant.ingest.readers import BadRow, Row, rows, sniff


def read(path: Path, content: bytes | str) -> list[tuple[int, Row | BadRow]]:
    """The rows of a file of that content."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(rows(path))


def reason(row: Row | BadRow) -> str:
    """Why a row is bad."""
    assert isinstance(row, BadRow)
    return row.reason


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b" \r\n\n\t\n", "empty"),
        (b"a,b\n1,2\n", "csv"),
        (b"a;b\n1;2\n", "csv"),
        (b"a\tb\n1\t2\n", "tsv"),
        (b'\n\n  {"a": 1}\n', "jsonl"),
        (b'\xef\xbb\xbf{"a": "x\ty"}\n', "jsonl"),
        ('{"a": 1}\n'.encode("utf-16"), "jsonl"),
        (gzip.compress(b"a\tb\n", mtime=0), "tsv"),
    ],
)
def test_a_file_is_told_by_its_content(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "misnamed.parquet"
    path.write_bytes(content)
    assert sniff(path) == kind


def test_parquet_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "misnamed.csv"
    pq.write_table(pa.table({"a": [1]}), path)
    assert sniff(path) == "parquet"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "neither Parquet nor text"),
        ("a,b\n1,2\n".encode("utf-16-le"), "neither Parquet nor text"),  # no mark in front says it is UTF-16
        (b'[{"a": 1},\n{"a": 2}]\n', "JSON Lines"),
        (b"PAR1 and then nothing", "damaged Parquet"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 5000, mtime=0)[:-20], "damaged"),
        (b"\x1f\x8bno gzip at all", "can't be read"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "damaged"),
        (b"a,b,a\n1,2,3\n", "names a column twice: a, b, a"),
    ],
)
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / "broken.bin", content)
    assert "broken.bin" in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none.csv: no such file"):
        list(rows(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="a folder; name the files in it"):
        list(rows(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_line_ends_and_separators_read_alike(tmp_path: Path, encoding: str, end: str, separator: str) -> None:
    lines = [("user", "text"), ("ü1", "run 🏃"), ("u2", "猫"), ("", "")]
    content = "".join(separator.join(cells) + end for cells in lines).encode(encoding)
    expected = [(2, {"user": "ü1", "text": "run 🏃"}), (3, {"user": "u2", "text": "猫"}), (4, {"user": "", "text": ""})]
    assert read(tmp_path / "a", content) == expected
    if encoding != "utf-16":
        assert read(tmp_path / "a.gz", gzip.compress(content, mtime=0)) == expected


def test_places_are_lines_also_after_blank_lines_and_cells_of_several_lines(tmp_path: Path) -> None:
    # lines:               1   2       3   4       5             6      7
    content = "\n" + "a,b\n" + "\n" + '1,"x\r\ny, ""z"""\r\n' + "2,w" + "\n"
    assert read(tmp_path / "a.csv", content) == [(4, {"a": "1", "b": 'x\r\ny, "z"'}), (6, {"a": "2", "b": "w"})]


def test_an_unclosed_quote_costs_its_own_line_only(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", 'a,b\n1,x\n2,"open\n3,y\n4,"two\nlines"\n5,"again\n6,z\n')
    assert [place for place, _ in found] == [2, 3, 4, 5, 7, 8]
    assert [row if isinstance(row, dict) else row.text for _, row in found] == [
        {"a": "1", "b": "x"},
        '2,"open\n',
        {"a": "3", "b": "y"},
        {"a": "4", "b": "two\nlines"},
        '5,"again\n',
        {"a": "6", "b": "z"},
    ]
    assert reason(found[1][1]).startswith("not CSV: ")


def test_a_row_of_another_width_is_bad_and_says_so(tmp_path: Path) -> None:
    found = read(tmp_path / "a.tsv", "a\tb\n1\n1\t2\n1\t2\t3\n")
    assert [place for place, _ in found] == [2, 3, 4]
    assert reason(found[0][1]) == "1 columns where the header has 2"
    assert found[1][1] == {"a": "1", "b": "2"}
    assert found[2][1] == BadRow("3 columns where the header has 2", "1\t2\t3")


def test_bytes_that_are_no_utf_8_stay_recoverable(tmp_path: Path) -> None:
    ((_, row),) = read(tmp_path / "a.csv", b"a,b\n1,caf\xe9\n")
    assert isinstance(row, dict)
    assert row["b"].encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_long_lines_are_read_and_endless_cells_are_bad(tmp_path: Path) -> None:
    found = read(tmp_path / "a.csv", f"a,b\n1,{'x' * (1 << 20)}\n2,{'x' * (5 << 20)}\n3,y\n")
    assert found[0] == (2, {"a": "1", "b": "x" * (1 << 20)})
    assert found[1][0] == 3
    assert "limit" in reason(found[1][1])
    assert found[2] == (4, {"a": "3", "b": "y"})


def test_json_lines_skip_blanks_and_keep_bad_ones(tmp_path: Path) -> None:
    lines = [
        '{"a": {"b": "\\ud83d\\ude00"}}',
        "",
        '{"a": 1',
        "[1, 2]",
        "null",
        '{"a": ' + "[" * 200_000,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": 2}',
    ]
    found = read(tmp_path / "a.jsonl", "\r\n".join(lines))
    assert [place for place, _ in found] == [1, 3, 4, 5, 6, 7, 8]
    assert found[0][1] == {"a": {"b": "😀"}}
    assert reason(found[1][1]).startswith("not JSON: ")
    assert reason(found[2][1]) == reason(found[3][1]) == "not a JSON object"
    assert reason(found[4][1]).startswith("not JSON: ")  # nested too deeply
    assert reason(found[5][1]).startswith("not JSON: ")  # more digits than Python converts
    assert found[6][1] == {"a": 2}


def test_parquet_rows_keep_types_and_count_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    times = pa.array([moment] * 9000, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"n": range(9000), "at": times, "deep": [{"x": [1]}] * 9000}), path, row_group_size=5000)
    found = list(rows(path))
    assert [place for place, _ in found] == list(range(1, 9001))
    assert found[-1] == (9000, {"n": 8999, "at": moment, "deep": {"x": [1]}})


def test_a_parquet_file_cut_in_half_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(1000))}), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="a.parquet: damaged Parquet file"):
        list(rows(path))


def test_an_empty_file_and_a_lone_header_have_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "") == []
    assert read(tmp_path / "a", "a,b") == []
    pq.write_table(pa.table({"n": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    assert list(rows(tmp_path / "a.parquet")) == []


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)


@settings(max_examples=30, deadline=None)
@given(table=st.lists(st.tuples(CELL, CELL, CELL), max_size=8))
def test_what_the_standard_library_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str, str]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *table])
    found = read(tmp_path_factory.mktemp("csv") / "a.csv", stream.getvalue())
    assert [tuple(row.values()) for _, row in found if isinstance(row, dict)] == table
    assert len(found) == len(table)


@settings(max_examples=30, deadline=None)
@given(table=st.lists(st.dictionaries(st.text(max_size=4), st.none() | st.booleans() | st.integers() | st.text(max_size=8)), max_size=8))
def test_what_the_standard_library_writes_as_json_comes_back(tmp_path_factory: pytest.TempPathFactory, table: list[Row]) -> None:
    found = read(tmp_path_factory.mktemp("json") / "a.jsonl", "".join(json.dumps(each) + "\n" for each in table))
    assert found == list(enumerate(table, 1))


GOOD_OR_BROKEN = st.sampled_from(["good", "short", "long", "open quote", "late quote"])


@settings(max_examples=30, deadline=None)
@given(kinds=st.lists(GOOD_OR_BROKEN, max_size=30), end=st.sampled_from(["\n", "\r\n"]))
def test_broken_lines_never_swallow_good_ones(tmp_path_factory: pytest.TempPathFactory, kinds: list[str], end: str) -> None:
    text = {"good": "{n},ok", "short": "{n}", "long": "{n},x,y", "open quote": '{n},"open', "late quote": '{n},"x"late'}
    content = "".join(f"{line}{end}" for line in ["a,b", *(text[kind].format(n=n) for n, kind in enumerate(kinds))])
    found = read(tmp_path_factory.mktemp("broken") / "a.csv", content)
    assert [place for place, _ in found] == [n + 2 for n in range(len(kinds))]
    good = {place: row for place, row in found if isinstance(row, dict)}
    assert good == {n + 2: {"a": str(n), "b": "ok"} for n, kind in enumerate(kinds) if kind == "good"}


@pytest.mark.parametrize(
    "column",
    [
        pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9")]
        ),  # Latin-1 that says it is UTF-8
        pa.array([9 * 10**18], pa.timestamp("us", "UTC")),  # some 285,000 years on
    ],
)
def test_a_parquet_value_that_python_cannot_hold_is_an_error_that_names_the_file(tmp_path: Path, column: pa.Array) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": column}), path)
    with pytest.raises(DataError, match="a.parquet: damaged Parquet file"):
        list(rows(path))
