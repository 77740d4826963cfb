"""Audiences as files, and the counts that may be shown."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from penchant import __version__
from penchant.errors import PolicyRefusal
from penchant.files import fingerprint, write_json, written_aside
from penchant.profiles.snapshot import Snapshot
from penchant.segments.rule import Segment, members

SMALLEST_SHOWN = 50
"""No count under this is shown to people (Ads Data Hub's row minimum)."""


def shown_size(count: int) -> str:
    """A size as people may see it."""
    return f"{count:,}" if count >= SMALLEST_SHOWN else f"fewer than {SMALLEST_SHOWN}"


def size(segment: Segment, snapshot: Snapshot) -> int:
    """How many people are in the segment. For showing, use `shown_size`."""
    return int(members(segment, snapshot).count().to_pyarrow().as_py())


def export_csv(segment: Segment, snapshot: Snapshot, output: Path) -> dict[str, Any]:
    """Write `user_id, weight, last_at` as CSV, and an audience label beside it as `<output>.label.json`; the label.

    Raises `PolicyRefusal`, and writes nothing, for an audience under the segment's minimum size.
    """
    table: pa.Table = members(segment, snapshot).to_pyarrow()
    if len(table) < segment.min_size:
        raise PolicyRefusal(
            f"segment {segment.name!r} has {shown_size(len(table))} people, under its minimum of {segment.min_size}: not exported; widen the rule"
        )
    label = {
        "audience": segment.name,
        "description": segment.description,
        "purpose": segment.purpose,
        "audience_count": len(table),
        "last_refresh": snapshot.as_of.isoformat(),
        "inclusion_method": "modelled from the texts of interaction events",
        "rule": json.loads(segment.model_dump_json(by_alias=True, exclude_none=True))["rule"],
        "rule_fingerprint": fingerprint(segment.model_dump(mode="json", by_alias=True)),
        "policy_fingerprint": snapshot.about["policy_fingerprint"],
        "bundle_fingerprint": snapshot.about["bundle_fingerprint"],
        "penchant": __version__,
    }
    with written_aside(output.with_name(f"{output.name}.label.json")) as label_aside, written_aside(output) as aside:
        write_json(label_aside, label)
        pyarrow.csv.write_csv(table.set_column(2, "last_at", pa.array([each.isoformat() for each in table["last_at"].to_pylist()])), aside)
    return label
