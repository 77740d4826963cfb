"""Mapping files: short forms, defaults, and mistakes that are named when the file is read."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from penchant.errors import ConfigError
from penchant.ingest.mapping import Column, Mapping, load_mapping

COLUMNS = {"user_id": "u", "occurred_at": "t", "action": {"constant": "view"}, "title": "x"}


def load(folder: Path, columns: dict[str, Any] | None = None, source: dict[str, Any] | None = None, **top: Any) -> Mapping:
    """A mapping of one source, through a file."""
    content = {"sources": {"shop": {"files": ["a.csv"], "columns": COLUMNS | (columns or {})} | (source or {})}} | top
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_mapping(path)


def test_a_bare_text_is_short_for_a_column(tmp_path: Path) -> None:
    columns = load(tmp_path).sources["shop"].columns
    assert columns.user_id == Column(column="u")
    assert columns.action == Column(constant="view")
    assert columns.rating is None


def test_dates_in_yaml_are_utc_midnights(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(
        "earliest: 1995-01-01\nlatest: 2019-01-01T12:00:00+02:00\n"
        "sources: {s: {files: [a], columns: {user_id: u, occurred_at: t, action: a, body: b}}}\n",
        encoding="utf-8",
    )
    mapping = load_mapping(path)
    assert mapping.earliest == datetime(1995, 1, 1, tzinfo=UTC)
    assert mapping.latest == datetime(2019, 1, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ({"timezome": "UTC"}, "unknown key 'timezome'; did you mean 'timezone'?"),
        ({"timezone": "Europe/Berlim"}, "'Europe/Berlin'"),
        ({"timezone": "CEST/Nowhere"}, "unknown time zone"),
        ({"phone_region": "UK"}, "phone_region"),
        ({"phone_region": False}, "phone_region"),  # what YAML makes of NO, Norway
        ({"earliest": "once"}, "earliest"),
        ({"sources": {}}, "sources"),
        ({"source": {"colums": {}}}, "unknown key 'sources.shop.colums'; did you mean 'columns'?"),
        ({"source": {"files": []}}, "sources.shop.files"),
        ({"source": {"files": "a.csv"}}, "sources.shop.files"),
        ({"source": {"items": {"file": "a"}}}, "sources.shop.items.key: missing"),
        ({"columns": {"user": "u"}}, "unknown key 'sources.shop.columns.user'; did you mean 'user_id'"),
        ({"columns": {"title": None}}, "map 'title' or 'body'"),
        ({"columns": {"user_id": {"colum": "u"}}}, "'sources.shop.columns.user_id.colum'; did you mean 'column'"),
        ({"columns": {"user_id": {}}}, "give either 'column' or 'constant'"),
        ({"columns": {"user_id": {"column": "u", "constant": "v"}}}, "give either 'column' or 'constant'"),
        ({"columns": {"rating": {"column": "r", "range": [5, 1]}}}, "the lowest value comes first"),
        ({"columns": {"rating": {"column": "r", "range": [1]}}}, "sources.shop.columns.rating.range"),
        ({"columns": {"occurred_at": {"column": "t", "timezone": "Berlin"}}}, "'Europe/Berlin'"),
        ({"columns": {"user_id": 7}}, "sources.shop.columns.user_id"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, mistake: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **mistake)
    assert expected in str(caught.value)
    assert "mapping.yaml" in str(caught.value)


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, columns={"user": "u", "titel": "x"}, timezone="Mars/Olympus")
    message = str(caught.value)
    assert message.splitlines()[0].endswith(": 3 mistakes")
    assert all(each in message for each in ("columns.user'", "columns.titel'", "timezone"))


@pytest.mark.parametrize("column", ["user_id", "occurred_at", "action"])
def test_who_when_and_what_are_needed(tmp_path: Path, column: str) -> None:
    path = tmp_path / "m.yaml"
    columns = {key: value for key, value in COLUMNS.items() if key != column}
    path.write_text(yaml.safe_dump({"sources": {"s": {"files": ["a"], "columns": columns}}}), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"sources.s.columns.{column}: missing"):
        load_mapping(path)


@pytest.mark.parametrize(
    "content", [b"", b"\xef\xbb\xbf", b"- a\n", b"sources: [", b"sources: \xff", b"text", b"earliest: 2026-13-01", b"[" * 5000]
)
def test_a_file_that_is_no_mapping_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="mapping.yaml"):
        load_mapping(path)


def test_the_mappings_that_come_along_can_be_read(root: Path) -> None:
    files = [*(root / "configs" / "mappings").glob("*.yaml"), root / "data" / "events.yaml"]
    assert len(files) > 1
    assert all(load_mapping(path).sources for path in files)


@pytest.mark.parametrize(
    ("format", "message"), [("%d.%m", "names no full date"), ("%Q", "strptime format"), ("%d.%m.%Y %H:%M %", "strptime format")]
)
def test_a_format_that_reads_no_date_is_refused(format: str, message: str) -> None:  # noqa: A002
    with pytest.raises(ValueError, match=message):
        Column.model_validate({"column": "at", "format": format})


@pytest.mark.parametrize("format", ["%d.%m.%Y %H:%M:%S", "%Y%m%d", "%b %d, %Y", "%Y-%j", "epoch_s", "epoch_ms"])
def test_formats_that_read_a_date_are_taken(format: str) -> None:  # noqa: A002
    assert Column.model_validate({"column": "at", "format": format}).format == format


def test_an_empty_range_of_time_is_refused() -> None:
    with pytest.raises(ValueError, match="latest 2020-01-01 is not after earliest 2021-01-01"):
        Mapping.model_validate(
            {
                "sources": {"s": {"files": ["x"], "columns": {"user_id": "u", "occurred_at": "t", "action": "a", "title": "x"}}},
                "earliest": "2021-01-01",
                "latest": "2020-01-01",
            }
        )
