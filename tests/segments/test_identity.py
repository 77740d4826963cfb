"""The identity table: who can be reached by what, from any kind of table, and what is refused."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import ConfigError, DataError
from penchant.segments.identity import COLUMNS, read_identities


def table(folder: Path, text: str, name: str = "people.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["csv", "semicolons", "tsv", "jsonl", "parquet", "gzip", "utf-16"])
def test_every_kind_of_table_gives_the_same_identities(form: str, tmp_path: Path) -> None:
    rows = [{"user_id": "7", "email": " Ann@Example.com ", "phone": "+49 30 1"}, {"user_id": "ü🏃", "email": "", "phone": "030"}]
    path = tmp_path / "people"
    text = "".join(f"{a},{b},{c}\n" for a, b, c in [("user_id", "email", "phone"), *[row.values() for row in rows]])
    if form in ("csv", "semicolons", "tsv"):
        path.write_text(text.replace(",", {"csv": ",", "semicolons": ";", "tsv": "\t"}[form]), encoding="utf-8")
    elif form == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(text.encode("utf-16"))
    found = read_identities(path).table.select(["user_id", "email", "phone", "zip"]).to_pylist()
    assert found == [
        {"user_id": "7", "email": " Ann@Example.com ", "phone": "+49 30 1", "zip": None},
        {"user_id": "ü🏃", "email": None, "phone": "030", "zip": None},
    ]


def test_a_user_may_have_several_rows_and_each_keeps_its_line(tmp_path: Path) -> None:
    path = table(tmp_path, 'user_id,email,remark\nu1,a@example.com,"two\nlines"\nu2,b@example.com,\nu1,c@example.com,\n')
    found = read_identities(path)
    assert found.table["user_id"].to_pylist() == ["u1", "u2", "u1"]
    assert found.table["row"].to_pylist() == [2, 4, 5]
    assert found.table.column_names == ["row", *COLUMNS]


def test_broken_rows_are_counted_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(b'user_id,email\n,a@example.com\n  ,b@example.com\nu1\nu2,c@example.com\nu3,\xe4@example.com\nu4,"d@example.com\n')
    found = read_identities(path)
    assert found.table["user_id"].to_pylist() == ["u2"]
    assert found.broken == {
        "user_id: missing": 2,
        "1 columns where the header has 2": 1,
        "email: not UTF-8 text": 1,
        "not CSV: unexpected end of data": 1,
    }


def test_cells_that_hold_no_text_break_their_row(tmp_path: Path) -> None:
    path = table(
        tmp_path, '{"user_id": "u1", "email": ["a@example.com"]}\n[1]\n{"user_id": "u2", "phone": 491701234567.0, "zip": NaN}\n', "p.jsonl"
    )
    found = read_identities(path)
    assert [(row["user_id"], row["phone"], row["zip"]) for row in found.table.to_pylist()] == [("u2", "491701234567", None)]
    assert found.broken == {"email: expected one value, found a list or an object": 1, "not a JSON object": 1}


def test_other_names_are_mapped(tmp_path: Path) -> None:
    path = table(tmp_path, "customer,mail\nu1,a@example.com\n")
    found = read_identities(path, {"user_id": "customer", "email": "mail"})
    assert found.table.select(["user_id", "email"]).to_pylist() == [{"user_id": "u1", "email": "a@example.com"}]


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        ("userid,email", {}, "user_id: no column 'user_id'; did you mean 'userid'?"),
        ("user_id,e_mail", {}, "none of the columns email, phone, device_id: email; did you mean 'e_mail'?"),
        ("user_id,colour", {}, "none of the columns email, phone, device_id: it has user_id, colour"),
        ("user_id,email", {"phone": "mobil"}, "phone: no column 'mobil'"),
    ],
)
def test_another_table_is_refused_with_the_nearest_names(header: str, columns: dict[str, str], expected: str, tmp_path: Path) -> None:
    path = table(tmp_path, f"{header}\nx,y\n")
    with pytest.raises(DataError) as refusal:
        read_identities(path, columns)
    assert expected in str(refusal.value)
    assert "columns: {email: mail}" in str(refusal.value)


@pytest.mark.parametrize("text", ["", "\n\n", "user_id,email\n"])
def test_a_table_without_rows_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows; expected a table with user_id"):
        read_identities(table(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="people.csv: no such file"):
        read_identities(tmp_path / "people.csv")


def test_a_mapping_of_no_column_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown column 'emial'; did you mean 'email'?"):
        read_identities(tmp_path / "people.csv", {"emial": "mail"})
