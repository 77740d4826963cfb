"""The contracts hold when a table is written: what must be there can't be missing, and times are moments."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.records import EVENTS, TAGS, state_schema

EVENT = dict.fromkeys(("event_id", "user_id", "source", "action", "title", "text_key"), "x") | {
    "occurred_at": datetime(2024, 5, 1, tzinfo=UTC)
}
TAG = {"text_key": "x", "dimension": "interest", "value": "pets", "score": 0.5}


@pytest.mark.parametrize(
    ("schema", "row", "field"),
    [(EVENTS, EVENT, name) for name in ("event_id", "user_id", "occurred_at", "source", "action", "text_key")]
    + [(TAGS, TAG, name) for name in TAG],
)
def test_a_row_without_a_required_field_cannot_be_written(tmp_path: Path, schema: pa.Schema, row: dict[str, Any], field: str) -> None:
    pq.write_table(pa.Table.from_pylist([row], schema), tmp_path / "whole.parquet")
    with pytest.raises(pa.ArrowInvalid, match=field):
        pq.write_table(pa.Table.from_pylist([row | {field: None}], schema), tmp_path / "lacking.parquet")


def test_a_moment_keeps_its_microsecond_and_loses_its_zone(tmp_path: Path) -> None:
    local = datetime(2024, 5, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    pq.write_table(pa.Table.from_pylist([EVENT | {"occurred_at": local}], EVENTS), tmp_path / "events.parquet")
    read = pq.read_table(tmp_path / "events.parquet")
    assert read.schema.equals(EVENTS)
    assert read["occurred_at"].to_pylist() == [datetime(2024, 4, 30, 19, 45, 0, 123456, tzinfo=UTC)]


def test_state_has_a_mass_for_each_horizon_in_the_policys_order() -> None:
    names = state_schema(["recent", "lasting"]).names
    assert [name for name in names if name.startswith("mass_")] == ["mass_recent", "mass_lasting"]
    assert set(names) == {
        *("user_id", "dimension", "value", "mass_recent", "mass_lasting", "events"),
        *("first_at", "last_at", "last_positive_at", "sources", "as_of"),
    }
