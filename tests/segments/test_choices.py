"""Choices of people: the latest counts, an opt-out beats every grant, and nothing that was recorded is lost or passed over."""

import csv
import json
import multiprocessing
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import ConfigError, DataError
from penchant.profiles.duck import connect
from penchant.segments.choices import EVERYTHING, Choices
from tests.objects import Kept, object_store

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
AWKWARD = [
    "o'brien",
    'say "hi"',
    "a,b",
    "line\nbreak",
    " padded ",
    "猫 🐈",
    "nul\x00inside",
    "%",
    "\\",
    "*",
    "x" * 10_000,
    "😀" * 40,
    "$1",
    "{}",
]


@pytest.fixture(scope="module")
def connection() -> Any:
    return connect()


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    return Choices(tmp_path / "profiles")


def ids(table: Any) -> list[str]:
    """The user ids of a table, with those that stand in it twice."""
    assert table.columns == ("user_id",)
    return sorted(table.to_pyarrow()["user_id"].to_pylist())


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


# What counts


def test_without_choices_nobody_is_suppressed_and_nobody_has_granted(choices: Choices, connection: Any, tmp_path: Path) -> None:
    current = choices.current(connection)
    assert dict(current.schema().items()) == dict.fromkeys(("user_id", "purpose", "status"), ibis.dtype("string")) | {
        "at": ibis.dtype("timestamp('UTC', 6)")
    }
    assert len(current.to_pyarrow()) == 0
    assert ids(choices.suppressed(connection, "newsletter")) == []
    assert ids(choices.granted(connection, ["newsletter"])) == []
    assert choices.of_user("ann") == []
    choices.record([])
    assert list(tmp_path.iterdir()) == []


def test_the_latest_choice_counts_and_an_opt_out_beats_every_grant_until_it_is_lifted(choices: Choices, connection: Any) -> None:
    def state() -> tuple[list[str], list[str], list[str]]:
        return (
            ids(choices.granted(connection, ["newsletter"])),
            ids(choices.suppressed(connection, "newsletter")),
            ids(choices.suppressed(connection, "advertising")),
        )

    choices.consent("ann", "newsletter", "granted", at(0))
    assert state() == (["ann"], [], [])
    choices.consent("ann", "newsletter", "withdrawn", at(1))
    assert state() == ([], ["ann"], [])
    choices.consent("ann", "newsletter", "grant", at(0.5))  # came in late
    assert state() == ([], ["ann"], [])
    choices.consent("ann", "newsletter", "opt-in", at(2))
    assert state() == (["ann"], [], [])
    choices.opt_out("ann", at(3), "letter of 1 March")
    assert state() == ([], ["ann"], ["ann"])
    choices.consent("ann", "newsletter", "granted", at(4))
    assert state() == ([], ["ann"], ["ann"])
    choices.lift_opt_out("ann", at(5))
    assert state() == (["ann"], [], [])  # by the grant of hour 4
    choices.lift_opt_out("bob", at(5))
    assert state() == (["ann"], [], [])  # lifting grants nothing
    assert choices.of_user("ann")[2]["reason"] == "letter of 1 March"
    assert [(row["purpose"], row["status"], row["at"]) for row in choices.of_user("ann")] == [
        ("*", "granted", at(5)),
        ("newsletter", "granted", at(4)),
        ("*", "denied", at(3)),
        ("newsletter", "granted", at(2)),
        ("newsletter", "denied", at(1)),
        ("newsletter", "granted", at(0.5)),
        ("newsletter", "granted", at(0)),
    ]


@pytest.mark.parametrize("order", [["granted", "denied"], ["denied", "granted"]])
@pytest.mark.parametrize("purpose", ["newsletter", EVERYTHING])
def test_of_two_choices_at_one_instant_denied_counts(order: list[str], purpose: str, choices: Choices, connection: Any) -> None:
    for status in order:
        choices.record([{"user_id": "ann", "purpose": purpose, "status": status, "at": NOON}])
    (row,) = choices.current(connection).to_pyarrow().to_pylist()
    assert row == {"user_id": "ann", "purpose": purpose, "status": "denied", "at": NOON}
    assert ids(choices.suppressed(connection, "newsletter")) == ["ann"]
    assert [row["status"] for row in choices.of_user("ann")] == ["denied", "granted"]


def test_a_microsecond_decides(choices: Choices, connection: Any) -> None:
    choices.consent("ann", "newsletter", "denied", NOON)
    choices.consent("ann", "newsletter", "granted", NOON + timedelta(microseconds=1))
    choices.consent("bob", "newsletter", "granted", NOON)
    choices.consent("bob", "newsletter", "denied", NOON + timedelta(microseconds=1))
    assert ids(choices.granted(connection, ["newsletter"])) == ["ann"]
    assert ids(choices.suppressed(connection, "newsletter")) == ["bob"]


def test_every_purpose_has_to_be_granted(choices: Choices, connection: Any) -> None:
    rows = [("ann", "ad_user_data"), ("ann", "ad-personalization"), ("bob", "ad_user_data"), ("cat", EVERYTHING)]
    choices.record([{"user_id": user, "purpose": purpose, "status": "granted", "at": NOON} for user, purpose in rows])
    assert ids(choices.granted(connection, ["ad_user_data", "ad-personalization"])) == ["ann"]
    assert ids(choices.granted(connection, ["ad_user_data", "ad_user_data"])) == ["ann", "bob"]
    assert ids(choices.granted(connection, ["newsletter"])) == []
    choices.consent("ann", "ad_user_data", "denied")
    assert ids(choices.granted(connection, ["ad_user_data", "ad-personalization"])) == []
    assert ids(choices.granted(connection, ["ad-personalization"])) == ["ann"]
    assert ids(choices.suppressed(connection, EVERYTHING)) == []


STATUSES = ["granted", "denied"]
CHOICE = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["ann", "bob", "猫\x00 '", "x" * 100, "x" * 100 + "y"]),
        "purpose": st.sampled_from([EVERYTHING, "newsletter", "advertising"]),
        "status": st.sampled_from(STATUSES),
        "at": st.integers(0, 3).map(lambda n: NOON + timedelta(microseconds=n)),
        "reason": st.sampled_from(["", "because"]),
    }
)


def read_plainly(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[datetime, str]]:
    """The reading of the description: go through the choices by time, denied last."""
    found = {}
    for row in sorted(rows, key=lambda row: (row["at"], row["status"] == "denied")):
        found[row["user_id"], row["purpose"]] = (row["at"], row["status"])
    return found


@given(st.lists(CHOICE, min_size=1, max_size=12), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_order_and_any_split_reads_as_one_list(
    connection: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], chance: random.Random, loaded: bool
) -> None:
    folder = tmp_path_factory.mktemp("choices")
    choices, shuffled = Choices(folder / "profiles"), chance.sample(rows, len(rows))
    while shuffled:
        size = chance.randint(1, len(shuffled))
        part, shuffled = shuffled[:size], shuffled[size:]
        if loaded:
            pq.write_table(pa.Table.from_pylist(part), folder / "part.parquet")
            choices.load(folder / "part.parquet")
        else:
            choices.record(part)
    latest = read_plainly(rows)
    current = choices.current(connection).to_pyarrow().to_pylist()
    assert {(row["user_id"], row["purpose"]): (row["at"], row["status"]) for row in current} == latest
    assert len(current) == len(latest)
    users = sorted({row["user_id"] for row in rows})
    for purpose in ("newsletter", "advertising"):
        out = [user for user in users if any(latest.get((user, each), (NOON, ""))[1] == "denied" for each in (EVERYTHING, purpose))]
        assert ids(choices.suppressed(connection, purpose)) == out
        agreed = [user for user in users if user not in out and latest.get((user, purpose), (NOON, ""))[1] == "granted"]
        assert ids(choices.granted(connection, [purpose])) == agreed
    both = set(ids(choices.granted(connection, ["newsletter"]))) & set(ids(choices.granted(connection, ["advertising"])))
    assert ids(choices.granted(connection, ["newsletter", "advertising"])) == sorted(both)
    kept = [tuple(row[key] for key in HEADER) for user in users for row in choices.of_user(user)]
    unique = {tuple(row[key] for key in HEADER) for row in rows}
    assert set(kept) == unique
    assert len(kept) == (len(unique) if loaded else len(rows))


def test_user_ids_may_hold_any_character(choices: Choices, connection: Any) -> None:
    for user in AWKWARD:
        choices.opt_out(user)
        choices.consent(user, "newsletter", "granted")
    assert ids(choices.suppressed(connection, "newsletter")) == sorted(AWKWARD)
    assert [len(choices.of_user(user)) for user in AWKWARD] == [2] * len(AWKWARD)
    people = ibis.memtable(pa.table({"user_id": [*AWKWARD, "padded", "x" * 9999]}))
    left = people.anti_join(choices.suppressed(connection, "newsletter"), "user_id")
    assert sorted(connection.to_pyarrow(left)["user_id"].to_pylist()) == ["padded", "x" * 9999]
    one = choices.suppressed(connection, "newsletter")
    assert [one.filter(one.user_id == user).count().to_pyarrow().as_py() for user in AWKWARD] == [1] * len(AWKWARD)


# What may be recorded


@pytest.mark.parametrize(
    ("spelling", "status"),
    [
        *((word, "granted") for word in ("granted", "GRANTED", "Grant", "GRANT", "opt-in", "Opt-In", " granted ")),
        *((word, "denied") for word in ("denied", "DENY", "revoked", "REVOKE", "Withdrawn", "opt-out", "OPT-OUT")),
    ],
)
def test_a_status_may_be_spelled_in_several_ways(spelling: str, status: str, choices: Choices) -> None:
    choices.consent("ann", "newsletter", spelling)
    assert [row["status"] for row in choices.of_user("ann")] == [status]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"status": "grnated"}, "status: no status; did you mean 'granted'"),
        ({"status": "yes"}, "status: no status; known: granted, grant, opt-in, denied"),
        ({"status": None}, "status: missing, got ''"),
        ({"status": "x" * 1_000_000}, "status: no status"),
        ({"status": True}, "status: no status"),
        ({"user_id": ""}, "user_id: missing"),
        ({"user_id": None}, "user_id: missing"),
        ({"user_id": ["ann"]}, "user_id: expected one value"),
        ({"user_id": "\ud800"}, "user_id: not UTF-8 text"),
        ({"reason": "\ud800"}, "reason: not UTF-8 text"),
        ({"purpose": "Newsletter"}, "purpose: no purpose: lower-case letters, digits, - and _ (such as newsletter), or *"),
        ({"purpose": ""}, "purpose: no purpose"),
        ({"purpose": "news letter"}, "got 'news letter'"),
        ({"purpose": "newsletter\n"}, "purpose: no purpose"),
        ({"purpose": "ann@example.com"}, "got '[email]'"),
        ({"purpose": 7}, "purpose: no purpose"),
        ({"at": "yesterday"}, "at: not a time in ISO 8601, got 'yesterday'"),
        ({"at": "1970-01-01"}, "at: outside 1990-01-01 to 9999-12-31"),
        ({"at": "9999-12-31T23:59:59-12:00"}, "at: outside 1990-01-01"),
        ({"at": datetime.now(UTC) + timedelta(days=1)}, "at: later than now"),
        ({"at": datetime.max.replace(tzinfo=UTC)}, "at: later than now"),
        ({"when": NOON}, "stands beside 'when', which is no field of a choice"),
    ],
)
def test_a_choice_that_can_not_be_taken_refuses_all_of_them(choice: dict[str, Any], message: str, choices: Choices, tmp_path: Path) -> None:
    good = {"user_id": "ann", "purpose": "newsletter", "status": "granted"}
    with pytest.raises(DataError) as caught:
        choices.record([good, good | choice])
    assert message in str(caught.value)
    assert "choice 2: " in str(caught.value)
    assert len(str(caught.value)) < 400
    assert list(tmp_path.iterdir()) == []


def test_consent_for_everything_is_no_consent(choices: Choices) -> None:
    for status in STATUSES:
        with pytest.raises(DataError, match="consent is for one purpose"):
            choices.consent("ann", EVERYTHING, status)


def test_what_is_left_out_means_everything_now_and_no_reason(choices: Choices) -> None:
    before = datetime.now(UTC)
    choices.record([{"user_id": 7, "status": "denied"}])
    (row,) = choices.of_user("7")
    assert (row["purpose"], row["status"], row["reason"]) == ("*", "denied", "")
    assert before <= row["at"] == row["recorded_at"] <= datetime.now(UTC)


def test_times_are_read_in_utc_unless_they_say_otherwise(choices: Choices) -> None:
    choices.opt_out("naive", "2026-03-01T12:00:00")
    choices.opt_out("offset", "2026-03-01T12:00:00+02:00")
    choices.opt_out("aware", datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-5))))
    choices.opt_out("day", "2026-03-01")
    hours = {user: choices.of_user(user)[0]["at"] for user in ("naive", "offset", "aware", "day")}
    assert hours == {
        "naive": datetime(2026, 3, 1, 12, tzinfo=UTC),
        "offset": datetime(2026, 3, 1, 10, tzinfo=UTC),
        "aware": datetime(2026, 3, 1, 17, tzinfo=UTC),
        "day": datetime(2026, 3, 1, tzinfo=UTC),
    }


@pytest.mark.parametrize("purpose", ["", "Newsletter", "a b", "*x", "a'"])
def test_only_a_purpose_can_be_asked_for(purpose: str, choices: Choices, connection: Any) -> None:
    for ask in (lambda: choices.suppressed(connection, purpose), lambda: choices.granted(connection, ["newsletter", purpose])):
        with pytest.raises(ConfigError, match="expected lower-case letters"):
            ask()


def test_a_grant_is_asked_for_by_purpose(choices: Choices, connection: Any) -> None:
    with pytest.raises(ConfigError, match="name at least one"):
        choices.granted(connection, [])
    with pytest.raises(ConfigError, match="purpose '\\*'"):
        choices.granted(connection, [EVERYTHING])


# Files


HEADER = ["user_id", "purpose", "status", "at", "reason"]
ROWS = [
    ["ann", "newsletter", "GRANTED", "2026-03-01T12:00:00Z", "box ticked 🎉"],
    ["bob", "", "opt-out", "2026-03-01T12:00:00+01:00", ""],
    ["cat,dog", "*", "Denied", "2026-03-02", 'said "no"\nby phone'],
]


def write_delimited(path: Path, delimiter: str, encoding: str = "utf-8") -> None:
    with path.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([HEADER, *ROWS])


def write_json_lines(path: Path) -> None:
    rows = [{key: value for key, value in zip(HEADER, row, strict=True) if value} for row in ROWS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path) -> None:
    rows = [dict(zip(HEADER, row, strict=True)) for row in ROWS]
    for row in rows:
        row["at"] = datetime.fromisoformat(row["at"])  # type: ignore[assignment]
        row["at"] = row["at"].replace(tzinfo=row["at"].tzinfo or UTC).astimezone(UTC)  # type: ignore[attr-defined]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_delimited(path, ","),
        lambda path: write_delimited(path, ";"),
        lambda path: write_delimited(path, "\t"),
        lambda path: write_delimited(path, ",", "utf-8-sig"),
        lambda path: write_delimited(path, ",", "utf-16"),
        write_json_lines,
        write_parquet,
    ],
    ids=["csv", "semicolons", "tsv", "mark", "utf-16", "jsonl", "parquet"],
)
def test_a_file_of_any_kind_is_read_and_loading_it_twice_adds_nothing(
    write: Callable[[Path], None], choices: Choices, connection: Any, tmp_path: Path
) -> None:
    path = tmp_path / "past"
    write(path)
    assert choices.load(path) == {"rows": 3, "added": 3, "known": 0, "rejected": 0}
    before = choices.current(connection).to_pyarrow().sort_by("user_id").to_pylist()
    assert before == [
        {"user_id": "ann", "purpose": "newsletter", "status": "granted", "at": datetime(2026, 3, 1, 12, tzinfo=UTC)},
        {"user_id": "bob", "purpose": "*", "status": "denied", "at": datetime(2026, 3, 1, 11, tzinfo=UTC)},
        {"user_id": "cat,dog", "purpose": "*", "status": "denied", "at": datetime(2026, 3, 2, tzinfo=UTC)},
    ]
    assert choices.of_user("cat,dog")[0]["reason"] == 'said "no"\nby phone'
    assert choices.load(path) == {"rows": 3, "added": 0, "known": 3, "rejected": 0}
    assert choices.current(connection).to_pyarrow().sort_by("user_id").to_pylist() == before
    assert DeltaTable(tmp_path / "profiles.choices").count() == 3
    assert not (tmp_path / "past.rejects.csv").exists()


def test_what_was_recorded_is_known_to_a_file_and_what_stands_twice_is_one(choices: Choices, tmp_path: Path) -> None:
    choices.record([{"user_id": "ann", "purpose": "newsletter", "status": "granted", "at": NOON, "reason": "form"}])
    path = tmp_path / "past.csv"
    line = f"ann,newsletter,grant,{NOON.isoformat()},form\n"
    path.write_text(f"user_id,purpose,status,at,reason\n{line}{line.replace('ann', 'bob') * 3}", encoding="utf-8")
    assert choices.load(path) == {"rows": 4, "added": 1, "known": 3, "rejected": 0}
    assert len(choices.of_user("ann")) == len(choices.of_user("bob")) == 1


def test_rows_that_can_not_be_taken_are_listed_and_the_others_count(choices: Choices, connection: Any, tmp_path: Path) -> None:
    path = tmp_path / "past.csv"
    lines = [
        "user_id,purpose,status,at,reason",
        "ann,newsletter,granted,2026-03-01,",
        "bob,newsletter,maybe,2026-03-01,",
        ",newsletter,granted,2026-03-01,",
        "cat,News Letter,granted,2026-03-01,",
        "dan,newsletter,granted,,",
        "eve,newsletter,granted,2126-03-01,",
        "fay,fay@example.com,granted,2026-03-01,",
        "gus,newsletter,granted",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.write_bytes(path.read_bytes() + b"hal\xff,newsletter,granted,2026-03-01,\n")
    assert choices.load(path) == {"rows": 9, "added": 1, "known": 0, "rejected": 8}
    assert ids(choices.granted(connection, ["newsletter"])) == ["ann"]
    with (tmp_path / "past.csv.rejects.csv").open(encoding="utf-8", newline="") as stream:
        rejects = list(csv.DictReader(stream))
    assert [(row["row"], row["column"], row["value"]) for row in rejects] == [
        ("3", "status", "maybe"),
        ("4", "user_id", ""),
        ("5", "purpose", "News Letter"),
        ("6", "at", ""),
        ("7", "at", "2126-03-01"),
        ("8", "purpose", "[email]"),
        ("9", "", "gus,newsletter,granted"),
        ("10", "user_id", "hal�"),
    ]
    assert rejects[0]["reason"].startswith("status: no status")
    assert rejects[4]["reason"].startswith("at: later than now")
    assert rejects[6]["reason"] == "3 columns where the header has 5"
    path.write_text("\n".join(lines[:2]), encoding="utf-8")
    assert choices.load(path)["rejected"] == 0
    assert not (tmp_path / "past.csv.rejects.csv").exists()


def test_other_names_of_columns_are_given_by_a_mapping(choices: Choices, connection: Any, tmp_path: Path) -> None:
    path = tmp_path / "past.csv"
    path.write_text("customer,answer,day\nann,j,02.03.2026 10:00\nbob,n,01.03.2026 00:30\n", encoding="utf-8")
    columns = {
        "user_id": "customer",
        "status": {"column": "answer", "values": {"j": "granted", "n": "denied"}},
        "at": {"column": "day", "format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"},
        "purpose": {"constant": "newsletter"},
    }
    assert choices.load(path, columns) == {"rows": 2, "added": 2, "known": 0, "rejected": 0}
    assert ids(choices.granted(connection, ["newsletter"])) == ["ann"]
    assert choices.of_user("bob")[0]["at"] == datetime(2026, 2, 28, 23, 30, tzinfo=UTC)
    assert choices.load(path, columns | {"at": {"column": "day", "format": "%d.%m.%Y %H:%M", "timezone": "Europe/Berlin"}})["added"] == 0


def test_a_mapping_or_table_that_does_not_fit_is_refused_with_the_nearest_name(choices: Choices, tmp_path: Path) -> None:
    path = tmp_path / "past.csv"
    path.write_text("user_id,purpose,state,at\nann,newsletter,granted,2026-03-01\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="status: no column 'status'; did you mean 'state'"):
        choices.load(path)
    with pytest.raises(ConfigError, match="reason: no column 'why'"):
        choices.load(path, {"status": "state", "reason": "why"})
    with pytest.raises(ConfigError, match="unknown key 'user'; did you mean 'user_id'"):
        choices.load(path, {"user": "user_id"})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["Purpose", "purposes"])
def test_a_purpose_under_another_name_is_not_taken_for_everything(name: str, choices: Choices, connection: Any, tmp_path: Path) -> None:
    """Else a grant of the newsletter would lift an opt-out."""
    choices.opt_out("ann", NOON)
    table, lines = tmp_path / "past.csv", tmp_path / "past.jsonl"
    table.write_text(f"user_id,{name},status,at\nann,newsletter,granted,2026-03-02\n", encoding="utf-8")
    lines.write_text(json.dumps({"user_id": "ann", name: "newsletter", "status": "granted", "at": "2026-03-02"}), encoding="utf-8")
    for path in (table, lines):
        assert choices.load(path) == {"rows": 1, "added": 0, "known": 0, "rejected": 1}
        assert f"there is a column '{name}'" in path.with_name(f"{path.name}.rejects.csv").read_text(encoding="utf-8")
    assert ids(choices.suppressed(connection, "newsletter")) == ["ann"]
    assert choices.load(table, {"purpose": name})["added"] == 1
    assert ids(choices.suppressed(connection, "newsletter")) == ["ann"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"user_id,purpose,status,at\n"])
def test_a_file_without_rows_adds_nothing(content: bytes, choices: Choices, tmp_path: Path) -> None:
    (tmp_path / "past.csv").write_bytes(content)
    assert choices.load(tmp_path / "past.csv") == {"rows": 0, "added": 0, "known": 0, "rejected": 0}
    assert [each.name for each in tmp_path.iterdir()] == ["past.csv"]


def test_a_file_that_can_not_be_read_is_a_clear_error(choices: Choices, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x00" * 100)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing more")
    for name, message in [
        ("none.csv", "no such file"),
        ("", "a folder"),
        ("binary", "neither Parquet nor text"),
        ("cut.parquet", "damaged"),
    ]:
        with pytest.raises(DataError, match=message):
            choices.load(tmp_path / name)


# The table


def test_a_damaged_table_is_an_error_and_not_an_empty_one(choices: Choices, connection: Any, tmp_path: Path) -> None:
    folder = tmp_path / "profiles.choices"
    choices.opt_out("ann")
    choices.opt_out("bob")
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)

    def reset() -> None:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)

    def refused(message: str) -> None:
        attempts: list[Callable[[], Any]] = [
            lambda: choices.suppressed(connection, "newsletter"),
            lambda: choices.granted(connection, ["newsletter"]),
            lambda: choices.of_user("ann"),
        ]
        for attempt in attempts:
            with pytest.raises(DataError, match=message):
                attempt()
        reset()

    shutil.rmtree(folder / "_delta_log")
    with pytest.raises(DataError, match="holds choices but no log of them"):
        choices.opt_out("cat")
    refused("profiles.choices: holds choices but no log of them")
    next(folder.glob("*.parquet")).unlink()
    refused("profiles.choices/part-.*parquet: missing or damaged")
    part = next(folder.glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    refused("profiles.choices/part-.*parquet: missing or damaged")
    (folder / "_delta_log" / f"{1:020}.json").write_text("")
    refused("is empty")
    (folder / "_delta_log" / f"{1:020}.json").write_text("nonsense")
    refused("can't be read or written")
    (folder / "_delta_log" / f"{1:020}.json").unlink()
    refused("can't be read or written")
    assert ids(choices.suppressed(connection, "newsletter")) == ["ann", "bob"]


def test_a_table_of_something_else_is_left_alone(choices: Choices, connection: Any, tmp_path: Path) -> None:
    write_deltalake(tmp_path / "profiles.choices", pa.table({"x": [1]}))
    for attempt in (lambda: choices.opt_out("ann"), lambda: choices.current(connection)):
        with pytest.raises(DataError, match="profiles.choices: a Delta table, but not one of choices"):
            attempt()
    shutil.rmtree(tmp_path / "profiles.choices")
    (tmp_path / "profiles.choices").write_text("a file")
    for attempt in (lambda: choices.opt_out("ann"), lambda: choices.current(connection)):
        with pytest.raises(DataError, match="profiles.choices: a file"):
            attempt()
    assert (tmp_path / "profiles.choices").read_text() == "a file"


def test_nothing_can_be_taken_out_of_the_table(choices: Choices, connection: Any, tmp_path: Path) -> None:
    choices.opt_out("ann")
    with pytest.raises(Exception, match="append-only"):
        DeltaTable(tmp_path / "profiles.choices").delete("user_id = 'ann'")
    assert ids(choices.suppressed(connection, "newsletter")) == ["ann"]


def opt_some_out(profiles: Path, name: str, path: Path) -> None:
    choices = Choices(profiles)
    for n in range(6):
        choices.opt_out(f"{name}{n}")
    choices.load(path)


def test_several_processes_record_and_load_at_once_and_nothing_is_lost_or_doubled(
    choices: Choices, connection: Any, tmp_path: Path
) -> None:
    path = tmp_path / "past.csv"
    path.write_text("user_id,status,at\n" + "".join(f"f{n},denied,2026-03-01\n" for n in range(20)), encoding="utf-8")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=opt_some_out, args=(tmp_path / "profiles", f"p{n}-", path)) for n in range(3)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0] * 3
    expected = sorted([f"p{n}-{m}" for n in range(3) for m in range(6)] + [f"f{n}" for n in range(20)])
    assert ids(choices.suppressed(connection, "newsletter")) == expected
    assert DeltaTable(tmp_path / "profiles.choices").count() == len(expected)


def test_the_choices_stand_beside_the_profiles(tmp_path: Path) -> None:
    for profiles in (tmp_path / "with space", f"{tmp_path}/slash/", f"file://{tmp_path}/by%20url"):
        Choices(profiles).opt_out("ann")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["by url.choices", "slash.choices", "with space.choices"]
    with pytest.raises(DataError, match="can't lie in a folder whose path holds"):
        Choices(tmp_path / "odd[name]")


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """What an object store on this machine keeps."""
    with object_store() as (environment, kept):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield kept


def test_choices_beside_profiles_in_an_object_store(objects: Kept, connection: Any, tmp_path: Path) -> None:
    choices = Choices("s3://bucket/some where/profiles")
    assert ids(choices.suppressed(connection, "newsletter")) == []
    assert choices.of_user("ann") == []
    choices.opt_out("ann")
    write_delimited(tmp_path / "past.csv", ",")
    assert choices.load(tmp_path / "past.csv")["added"] == 3
    assert choices.load(tmp_path / "past.csv")["added"] == 0
    assert ids(choices.suppressed(connection, "newsletter")) == ["ann", "bob", "cat,dog"]
    assert [row["status"] for row in choices.of_user("ann")] == ["denied", "granted"]
    assert any(name.startswith("bucket/some where/profiles.choices/_delta_log/") for name in objects)
