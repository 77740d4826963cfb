"""Events and tags in every form they come in: what can't be used is counted and listed, and the rest is not held up by it."""

import csv
import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import DataError
from penchant.ingest.clean import text_key
from penchant.profiles.inputs import EARLIEST
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build, load, update, user_profile
from penchant.profiles.store import Store
from penchant.records import EVENTS, TAGS
from tests.snapshots import NOON, TAXONOMY, WORDS, assert_profiles, event, snapshot_of, tag, updated, write_inputs
from tests.tables import everything_in, write_rows

Row = dict[str, Any]
RUN = "sports.running"
TEXTS = [tag(text, value) for text, value in WORDS.items()]
NOW = datetime.now(UTC)
LOOSE = pa.schema([field.with_nullable(True) for field in EVENTS])
"""The columns of events, none of them required: what other programs write."""

IDS, USERS, KEYS = "event_id: missing", "user_id: missing", "text_key: missing"
ACTS, CLOCK = "source or action: missing", "occurred_at: missing, or outside 1990-01-01 to now"
RATING, AMOUNT = "rating: outside 1 to 5", "amount: not a finite number of 0 or more (a refund is an action)"
FAULTS = [
    ("event_id", None, IDS),
    ("event_id", "", IDS),
    ("user_id", None, USERS),
    ("user_id", "", USERS),
    ("text_key", None, KEYS),
    ("source", None, ACTS),
    ("action", None, ACTS),
    ("occurred_at", None, CLOCK),
    ("occurred_at", datetime(1970, 1, 1, tzinfo=UTC), CLOCK),
    ("occurred_at", EARLIEST - timedelta(microseconds=1), CLOCK),
    ("occurred_at", NOW + timedelta(days=2), CLOCK),
    ("occurred_at", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), CLOCK),
    ("rating", 0.0, RATING),
    ("rating", 0.99, RATING),
    ("rating", 6.0, RATING),
    ("rating", float("nan"), RATING),
    ("rating", float("inf"), RATING),
    ("amount", -0.01, AMOUNT),
    ("amount", float("nan"), AMOUNT),
    ("amount", float("inf"), AMOUNT),
    ("amount", float("-inf"), AMOUNT),
]
GOOD = [
    event(900, "run", "ann", 1, rating=1.0),
    event(901, "run", "ann", 1, rating=5.0, amount=0.0),
    event(902, "cat", "ann", occurred_at=EARLIEST),
    event(903, "cat", "ann", occurred_at=NOW + timedelta(hours=23)),  # a clock may be wrong by a day
]


def rejects(path: Path) -> list[tuple[str, str]]:
    """Rows of a list of rejects: id and reason."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [(row["event_id"], row["reason"]) for row in csv.DictReader(stream)]


def write_loose(folder: Path, events: list[Row]) -> tuple[Path, Path]:
    """Inputs whose events may lack what they need."""
    paths = write_inputs(folder, [])
    pq.write_table(pa.Table.from_pylist(events, LOOSE), paths[0])
    return paths


def test_what_can_not_be_used_is_counted_and_listed_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = [event(n, "run", "bob", 1) | {column: value} for n, (column, value, _) in enumerate(FAULTS)]
    about = build(*write_loose(tmp_path, GOOD + broken), Policy(), tmp_path / "profiles")
    assert about["events"] == len(GOOD)
    assert_profiles(load(tmp_path / "profiles"), GOOD, TEXTS)
    expected = [("" if column == "event_id" else f"e{n}", reason) for n, (column, _, reason) in enumerate(FAULTS)]
    assert sorted(rejects(tmp_path / "profiles.rejects.csv")) == sorted(expected)
    assert f"5 events left out: {CLOCK}" in caplog.text
    assert f"4 events left out: {AMOUNT}" in caplog.text
    assert f"they are listed in {tmp_path / 'profiles.rejects.csv'}" in caplog.text


def test_an_event_with_several_faults_is_listed_once(tmp_path: Path) -> None:
    broken = event(1, "run", "bob") | {"user_id": "", "rating": 9.0, "amount": -1.0}
    build(*write_loose(tmp_path, [*GOOD, broken]), Policy(), tmp_path / "profiles")
    assert rejects(tmp_path / "profiles.rejects.csv") == [("e1", USERS)]


def test_an_update_lists_its_own_rejects_and_takes_the_list_away_without_any(tmp_path: Path) -> None:
    snapshot_of(tmp_path, GOOD[:3])
    profiles, listed = tmp_path / "profiles", tmp_path / "profiles.rejects.csv"
    assert not listed.exists()
    broken = event(2, "run", 'a,"b\nc', rating=7.0) | {"event_id": 'odd,"id\n'}
    counts = update(*write_loose(tmp_path / "new", [event(1, "run", "ann"), broken]), profiles)
    assert (counts["new"], counts["known"]) == (1, 0)
    assert rejects(listed) == [('odd,"id\n', RATING)]
    before = everything_in(profiles)
    assert update(*write_loose(tmp_path / "worse", [broken]), profiles)["new"] == 0  # nothing but rejects
    assert everything_in(profiles) == before
    assert listed.exists()
    assert updated(profiles, tmp_path / "again", [event(1, "run", "ann")])["known"] == 1
    assert not listed.exists()


def test_events_that_all_can_not_be_used_are_no_events(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="events.parquet: no events"):
        build(*write_loose(tmp_path, [event(1, "run", "ann", rating=9.0)]), Policy(), tmp_path / "profiles")
    assert not (tmp_path / "profiles").exists()


@pytest.mark.parametrize(("suffix", "rating"), [(".csv", 6.0), (".jsonl", 0.0)])
def test_a_wrong_value_in_a_text_file_is_a_reject_too(suffix: str, rating: float, tmp_path: Path) -> None:
    _, tags = write_inputs(tmp_path, [])
    events = write_rows(
        tmp_path / f"events{suffix}",
        [GOOD[0], event(1, "run", "bob", occurred_at="9999-12-31T23:59:59Z"), event(2, "run", "bob", rating=rating)],
    )
    assert build(events, tags, Policy(), tmp_path / "profiles")["events"] == 1
    assert sorted(rejects(tmp_path / "profiles.rejects.csv")) == [("e1", CLOCK), ("e2", RATING)]


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_times_of_other_units_are_the_same_times(unit: str, tmp_path: Path) -> None:
    moments = [NOON.replace(microsecond=0), datetime(1970, 1, 1, tzinfo=UTC), datetime(2262 if unit == "ns" else 9999, 1, 1, tzinfo=UTC)]
    rows = [event(n, "run", "ann", occurred_at=moment) for n, moment in enumerate(moments)]
    events, tags = write_inputs(tmp_path, rows)
    table = pa.Table.from_pylist(rows, LOOSE)
    place = table.schema.get_field_index("occurred_at")
    table = table.set_column(place, "occurred_at", table["occurred_at"].cast(pa.timestamp(unit, "Asia/Shanghai")))
    pq.write_table(table, events)
    build(events, tags, Policy(), tmp_path / "profiles")
    assert load(tmp_path / "profiles").as_of == moments[0]
    assert_profiles(load(tmp_path / "profiles"), rows[:1], TEXTS)
    assert sorted(rejects(tmp_path / "profiles.rejects.csv")) == [("e1", CLOCK), ("e2", CLOCK)]
    assert updated(tmp_path / "profiles", tmp_path / "again", rows[:1])["known"] == 1


def test_one_user_with_very_many_events_is_one_user(tmp_path: Path) -> None:
    count = 50_000
    first = event(0, "run", "🐈‍⬛ 黑猫")
    columns = {name: [value] * count for name, value in first.items()}
    columns["event_id"] = [f"e{n}" for n in range(count)]
    columns["occurred_at"] = [NOON - timedelta(minutes=n) for n in range(count)]
    events, tags = write_inputs(tmp_path, [])
    pq.write_table(pa.table(columns, EVENTS), events)
    assert build(events, tags, Policy(), tmp_path / "profiles")["attributes"] == 1
    [row] = user_profile(load(tmp_path / "profiles"), "🐈‍⬛ 黑猫")
    ratio = 2 ** (-1 / (90 * 24 * 60))
    assert row["events"] == count
    assert row["mass"] == pytest.approx((1 - ratio**count) / (1 - ratio), rel=1e-9)  # a geometric series
    assert [each["event_id"] for each in row["evidence"]] == [f"e{n}" for n in range(5)]
    assert updated(tmp_path / "profiles", tmp_path / "again", [first])["known"] == 1


@pytest.mark.parametrize("user", ["🐈", "O'Hara", '"', "a\nb", "%s", " ", "ﷺ" * 200, "a\x00b"])
def test_any_text_is_a_users_id(user: str, tmp_path: Path, base: Path) -> None:
    profiles = Path(shutil.copytree(base, tmp_path / "profiles"))
    assert updated(profiles, tmp_path / "new", [event(1, "run", user)])["users"] == 1
    [row] = user_profile(load(profiles), user)
    assert (row["user_id"], row["value"], row["evidence"][0]["event_id"]) == (user, RUN, "e1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three events."""
    folder = tmp_path_factory.mktemp("base")
    snapshot_of(folder, GOOD[:3])
    return folder / "profiles"


def write_spark(folder: Path, rows: list[Row], schema: pa.Schema, said: dict[str, str] | None = None) -> Path:
    """A folder as Spark writes it: parts, a mark that it is whole, and what columns say of themselves in the footer's JSON."""
    folder.mkdir()
    fields = [
        {"name": name, "type": "string", "nullable": True, "metadata": (said or {}) if name == "text_key" else {}} for name in schema.names
    ]
    footer = {
        "org.apache.spark.sql.parquet.row.metadata": json.dumps({"type": "struct", "fields": fields}),
        "org.apache.spark.version": "4.3.0",
    }
    table = pa.Table.from_pylist(rows, schema).replace_schema_metadata(footer)
    half = len(table) // 2
    for number, piece in enumerate((table.slice(0, half), table.slice(half))):
        pq.write_table(piece, folder / f"part-{number:05}-0a1b.c000.snappy.parquet")
        (folder / f".part-{number:05}-0a1b.c000.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_text("")
    return folder


SAID = {"penchant.bundle": "by hand", "penchant.taxonomy": json.dumps(TAXONOMY.model_dump(mode="json"))}


def test_folders_that_spark_wrote_are_read_with_what_they_say_of_themselves(tmp_path: Path) -> None:
    events = write_spark(tmp_path / "events", GOOD, LOOSE)
    tags = write_spark(tmp_path / "tags", TEXTS, TAGS, SAID)
    build(events, tags, Policy(), tmp_path / "profiles")
    snapshot = load(tmp_path / "profiles")
    assert (snapshot.taxonomy, snapshot.about["bundle_fingerprint"]) == (TAXONOMY, "by hand")
    assert_profiles(snapshot, GOOD, TEXTS)
    more = write_spark(tmp_path / "more", [event(1, "goal", "bob"), GOOD[0]], LOOSE)
    counts = update(more, tags, tmp_path / "profiles")
    assert (counts["new"], counts["known"]) == (1, 1)
    assert_profiles(load(tmp_path / "profiles"), [*GOOD, event(1, "goal", "bob")], TEXTS)


@pytest.mark.parametrize("which", ["events", "tags"])
def test_a_folder_of_a_spark_job_that_did_not_end_is_refused(which: str, tmp_path: Path) -> None:
    paths = {"events": write_spark(tmp_path / "events", GOOD, LOOSE), "tags": write_spark(tmp_path / "tags", TEXTS, TAGS, SAID)}
    (paths[which] / "_SUCCESS").unlink()
    with pytest.raises(DataError, match=f"{which}: has no _SUCCESS: the job that wrote it didn't end; run it again"):
        build(paths["events"], paths["tags"], Policy(), tmp_path / "profiles")
    assert not (tmp_path / "profiles").exists()


def test_a_spark_folder_that_says_nothing_needs_a_taxonomy(tmp_path: Path) -> None:
    tags = write_spark(tmp_path / "tags", TEXTS, TAGS)
    events, _ = write_inputs(tmp_path, GOOD)
    with pytest.raises(DataError, match="tags: doesn't say which taxonomy its tags belong to; give --taxonomy"):
        build(events, tags, Policy(), tmp_path / "profiles")


def test_events_may_be_a_folder_of_parquet_files(tmp_path: Path) -> None:
    _, tags = write_inputs(tmp_path, [])
    folder = tmp_path / "source=elsewhere, [a-z]*"
    folder.mkdir()
    for number, row in enumerate(GOOD):
        write_rows(folder / f"day {number}.parquet", [row], LOOSE)
    (folder / "notes.txt").write_text("not ours")
    build(folder, tags, Policy(), tmp_path / "profiles")
    assert_profiles(load(tmp_path / "profiles"), GOOD, TEXTS)


def test_the_folder_of_an_ingest_is_its_events(tmp_path: Path) -> None:
    _, tags = write_inputs(tmp_path / "ingested", GOOD)
    (tmp_path / "ingested" / "documents.parquet").write_bytes(b"something else")
    build(tmp_path / "ingested", tags, Policy(), tmp_path / "profiles")
    assert_profiles(load(tmp_path / "profiles"), GOOD, TEXTS)


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    _, tags = write_inputs(tmp_path, [])
    (tmp_path / "texts").mkdir()
    write_rows(tmp_path / "texts" / "events.csv", GOOD)
    with pytest.raises(DataError, match="texts: a folder without Parquet files; name a file, or a folder as Spark writes it"):
        build(tmp_path / "texts", tags, Policy(), tmp_path / "profiles")


def test_one_damaged_file_of_a_folder_is_named(tmp_path: Path) -> None:
    _, tags = write_inputs(tmp_path, [])
    folder = write_spark(tmp_path / "events", GOOD, LOOSE)
    damaged = max(folder.glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(DataError, match=f"{damaged.name}: damaged Parquet file .* make it with: penchant ingest"):
        build(folder, tags, Policy(), tmp_path / "profiles")
    damaged.write_bytes(b"")
    with pytest.raises(DataError, match=damaged.name):
        build(folder, tags, Policy(), tmp_path / "profiles")
    assert not (tmp_path / "profiles").exists()


def test_files_of_a_folder_may_lack_columns_that_may_be_null_and_have_others(tmp_path: Path) -> None:
    _, tags = write_inputs(tmp_path, [])
    folder = tmp_path / "events"
    folder.mkdir()
    rows = [event(1, "run", "ann", 2), event(2, "cat", "ann", 1, rating=5.0)]
    pq.write_table(pa.Table.from_pylist(rows[:1], EVENTS).drop_columns(["rating", "currency"]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist(rows[1:], EVENTS).append_column("extra", pa.array([1])), folder / "b.parquet")
    build(folder, tags, Policy(), tmp_path / "profiles")
    assert_profiles(load(tmp_path / "profiles"), rows, TEXTS)


def test_a_text_that_is_tagged_twice_counts_once_with_its_best_score(tmp_path: Path) -> None:
    tags = [tag("run", RUN, 0.25), tag("run", RUN, 0.75), tag("run", RUN, 0.5)]
    [row] = snapshot_of(tmp_path, [event(1, "run", "ann")], tags=tags).state.to_pyarrow().to_pylist()
    assert row["mass_lasting"] == 0.75


def test_a_file_stands_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_text("dear")
    with pytest.raises(DataError, match="profiles: a file; name a folder to write"):
        build(*write_inputs(tmp_path / "new", GOOD), Policy(), tmp_path / "profiles")
    assert (tmp_path / "profiles").read_text() == "dear"
    with pytest.raises(DataError, match="profiles/deeper: can't be written"):
        build(*write_inputs(tmp_path / "new", GOOD), Policy(), tmp_path / "profiles" / "deeper")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(DataError, match="locked/profiles: can't be written"):
        build(*write_inputs(tmp_path / "new", GOOD), Policy(), tmp_path / "locked" / "profiles")


def test_a_text_key_of_another_text_has_no_tag(tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path, [event(1, "run", "ann"), event(2, "cat", "ann", text_key=text_key("nothing"))])
    assert_profiles(snapshot, [event(1, "run", "ann")], TEXTS)
    assert len(Store(tmp_path / "profiles").open().files("event")) == 1
