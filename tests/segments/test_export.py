"""Audiences as files: large enough or not at all, with a label beside them, and small counts shown to nobody."""

import csv
import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from penchant import __version__
from penchant.config import parse
from penchant.errors import DataError, PolicyRefusal
from penchant.profiles.snapshot import Snapshot
from penchant.segments.export import export_csv, shown_size, size
from penchant.segments.rule import Segment, members
from tests.segments.conftest import AS_OF, event

RUNNERS = {"all": [{"interest": "sports.running", "seen_within_days": 55}, {"not": {"interest": "chess"}}]}
"""u00 to u55 of `seventy_people`: 56 people."""


def segment(rule: dict[str, Any], **more: Any) -> Segment:
    return parse(Segment, {"name": "runners", "description": "Läufer 🏃", "purpose": "Invitation", "rule": rule, **more}, "here")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "fewer than 50"), (1, "fewer than 50"), (49, "fewer than 50"), (50, "50"), (51, "51"), (1234567, "1,234,567")],
)
def test_no_count_under_fifty_is_shown(count: int, expected: str) -> None:
    assert shown_size(count) == expected


@pytest.mark.parametrize(("rule", "expected"), [(RUNNERS, 56), ({"interest": "pets"}, 12), ({"interest": "chess"}, 0)])
def test_size_counts_the_members(rule: dict[str, Any], expected: int, snapshot: Snapshot) -> None:
    assert size(segment(rule), snapshot) == expected


def test_the_file_holds_each_member_once_by_falling_weight(snapshot: Snapshot, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "runners.csv"
    export_csv(segment(RUNNERS), snapshot, output)
    rows = rows_of(output)
    assert list(rows[0]) == ["user_id", "weight", "last_at"]
    assert sorted(row["user_id"] for row in rows) == [f"u{n:02}" for n in range(56)]
    weights = [float(row["weight"]) for row in rows]
    assert weights == sorted(weights, reverse=True)
    assert all(0 < weight < 1 for weight in weights)
    expected = members(segment(RUNNERS), snapshot).to_pyarrow().to_pylist()
    assert [(row["user_id"], float(row["weight"]), datetime.fromisoformat(row["last_at"])) for row in rows] == [
        (row["user_id"], row["weight"], row["last_at"]) for row in expected
    ]
    assert {row["user_id"]: row["last_at"] for row in rows}["u10"] == "2026-03-19T12:00:00.300000+00:00"  # ten days before 29 March


def test_the_label_beside_it_says_what_the_audience_is(snapshot: Snapshot, tmp_path: Path) -> None:
    label = export_csv(segment(RUNNERS), snapshot, tmp_path / "runners.csv")
    assert json.loads((tmp_path / "runners.csv.label.json").read_text(encoding="utf-8")) == label
    assert sorted(each.name for each in tmp_path.iterdir()) == ["runners.csv", "runners.csv.label.json"]
    fingerprint = label.pop("rule_fingerprint")
    assert len(fingerprint) == 16
    assert label == {
        "audience": "runners",
        "description": "Läufer 🏃",
        "purpose": "Invitation",
        "audience_count": 56,
        "last_refresh": AS_OF.isoformat(),
        "inclusion_method": "modelled from the texts of interaction events",
        "rule": RUNNERS,  # as people wrote it: `not`, and no defaults
        "policy_fingerprint": snapshot.policy.fingerprint,
        "bundle_fingerprint": "unknown",  # the tags here were made by no bundle
        "penchant": __version__,
    }


def test_the_rule_fingerprint_follows_the_rule(snapshot: Snapshot, tmp_path: Path) -> None:
    rules = [RUNNERS, RUNNERS, {"interest": "sports.running"}]
    one, same, other = (export_csv(segment(rule), snapshot, tmp_path / "a.csv")["rule_fingerprint"] for rule in rules)
    assert one == same != other


@pytest.mark.parametrize(
    ("rule", "min_size", "message"),
    [
        ({"interest": "pets"}, 50, "'runners' has fewer than 50 people, under its minimum of 50: not exported"),
        ({"interest": "chess"}, 50, "'runners' has fewer than 50 people, under its minimum of 50"),
        (RUNNERS, 57, "'runners' has 56 people, under its minimum of 57"),
        ({"interest": "life.health"}, 50, "fewer than 50"),  # sensitive: selects nobody even where the rule was never loaded
    ],
)
def test_an_audience_under_its_minimum_is_refused_and_nothing_written(
    rule: dict[str, Any], min_size: int, message: str, open_snapshot: Snapshot, tmp_path: Path
) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        export_csv(segment(rule, min_size=min_size), open_snapshot, tmp_path / "deep" / "a.csv")
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_leaves_the_last_export_alone(snapshot: Snapshot, tmp_path: Path) -> None:
    export_csv(segment(RUNNERS), snapshot, tmp_path / "a.csv")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    with pytest.raises(PolicyRefusal):
        export_csv(segment(RUNNERS, min_size=1000), snapshot, tmp_path / "a.csv")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_an_audience_of_exactly_its_minimum_is_exported(snapshot: Snapshot, tmp_path: Path) -> None:
    assert export_csv(segment(RUNNERS, min_size=56), snapshot, tmp_path / "a.csv")["audience_count"] == 56


def test_a_new_export_replaces_the_old_one_whole(snapshot: Snapshot, tmp_path: Path) -> None:
    output = tmp_path / "a.csv"
    output.write_bytes(b"x" * 1_000_000)
    export_csv(segment(RUNNERS), snapshot, output)
    assert len(rows_of(output)) == 56
    assert b"xxx" not in output.read_bytes()


def test_names_that_csv_finds_hard_come_back_as_they_were(make_snapshot: Callable[..., Snapshot], tmp_path: Path) -> None:
    names = [
        "o'brien",
        'say "hi"',
        "a,b",
        "a;b",
        "a\tb",
        "line\nbreak",
        "line\r\nbreak",
        " padded ",
        "猫 🐈",
        "=1+1",
        "NULL",
        "007",
        "x" * 10_000,
    ]
    names += [f"filler {n}" for n in range(50 - len(names))]
    many = make_snapshot([event(n, name, "pets.cats", 1) for n, name in enumerate(names)])
    export_csv(segment({"interest": "pets"}), many, tmp_path / "a.csv")
    assert sorted(row["user_id"] for row in rows_of(tmp_path / "a.csv")) == sorted(names)


def test_a_folder_in_the_place_of_the_file_is_left_alone(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    (tmp_path / "a.csv" / "kept").write_bytes(b"kept")
    with pytest.raises(DataError, match="a.csv: a folder"):
        export_csv(segment(RUNNERS), snapshot, tmp_path / "a.csv")
    assert [str(each.relative_to(tmp_path)) for each in sorted(tmp_path.rglob("*"))] == ["a.csv", "a.csv/kept"]


def test_where_the_label_finds_no_place_no_list_is_left_either(snapshot: Snapshot, tmp_path: Path) -> None:
    name = "x" * 236 + ".csv"  # fits into the 255 bytes of a file name; with `.label.json` and what stands aside, it doesn't
    with pytest.raises(DataError, match="File name too long"):
        export_csv(segment(RUNNERS), snapshot, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_fails_half_way_leaves_neither_list_nor_label(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_: Any, path: Path) -> None:
        path.write_bytes(b'"user_id"')
        raise KeyboardInterrupt

    monkeypatch.setattr("pyarrow.csv.write_csv", half)
    with pytest.raises(KeyboardInterrupt):
        export_csv(segment(RUNNERS), snapshot, tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
