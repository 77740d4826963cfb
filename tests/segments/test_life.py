"""The life of a segment: who entered and left, which version found them, jumps, schedules, what was delivered, and what a killed refresh leaves."""

import json
import shutil
from copy import copy
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import DataError
from penchant.segments.choices import Choices
from penchant.segments.life import Life, Records, known, write_changes
from tests.segments.conftest import AS_OF, event
from tests.segments.test_export import RUNNERS, Desk, numbered


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk with fresh profiles, not to be written to."""
    return Desk(tmp_path_factory.mktemp("built"))


@pytest.fixture
def desk(built: Desk, tmp_path: Path) -> Desk:
    """A copy of it."""
    shutil.copytree(built.folder, tmp_path, dirs_exist_ok=True)
    found = copy(built)
    found.folder, found.profiles = tmp_path, tmp_path / "profiles"
    found.records, found.choices = Records(tmp_path / "records"), Choices(tmp_path / "profiles")
    return found


def refresh(desk: Desk, **more: Any) -> dict[str, Any]:
    return desk.records.of("runners").refresh(desk.audience(**more), desk.snapshot, "ann")


NUMBERS = count(1000)
"""Of events yet to come."""


def happened(desk: Desk, value: str, *users: str, days: float = 0) -> None:
    """Fold in that these did something; with negative days, later than all before."""
    desk.add([event(next(NUMBERS), user, value, days) for user in users])


def ran(desk: Desk, *users: str, days: float = 0) -> None:
    happened(desk, "sports.running", *users, days=days)


def members(life: Life, number: int) -> set[str]:
    return set(life.members(number)["user_id"].to_pylist())


def lines(life: Life) -> list[str]:
    return (life.folder / "refreshes.jsonl").read_text(encoding="utf-8").splitlines()


def test_a_refresh_records_who_entered_and_who_left(desk: Desk) -> None:
    """u00 to u55 ran within 55 days. Then u60 and a newcomer run a week later, when u49 to u55 ran 56 to 62 days ago."""
    first = refresh(desk)
    assert (first["number"], first["version"], first["size"], first["entered"], first["left"]) == (1, 1, 56, 56, 0)
    assert (first["by"], first["as_of"], first["compared_with"], first["jump"]) == ("ann", AS_OF, None, False)
    ran(desk, "u60", "猫 🏃", days=-7)
    second = refresh(desk)
    assert (second["number"], second["version"], second["size"], second["entered"], second["left"]) == (2, 1, 51, 2, 7)
    assert second["as_of"] == AS_OF + timedelta(days=7)
    life = desk.records.of("runners")
    assert members(life, 1) == numbered(range(56))
    assert members(life, 2) == numbered(range(49)) | {"u60", "猫 🏃"}
    assert life.changed() == (["u60", "猫 🏃"], sorted(numbered(range(49, 56))), 1, 2)
    assert life.refreshes == [first, second]
    assert life.last == second


def test_members_stand_by_falling_weight_with_their_last_event(desk: Desk) -> None:
    refresh(desk)
    rows = desk.records.of("runners").members(1).to_pylist()
    assert [row["weight"] for row in rows] == sorted((row["weight"] for row in rows), reverse=True)
    assert {row["user_id"]: row["last_at"] for row in rows}["u10"] == AS_OF - timedelta(days=10)


def test_changes_are_written_as_two_lists_of_user_ids(desk: Desk, tmp_path: Path) -> None:
    refresh(desk)
    ran(desk, "u60", 'say "hi", 猫', days=-7)
    refresh(desk)
    life = known(desk.records.folder, "runners")
    assert write_changes(life, tmp_path / "diff") == (1, 2)
    assert (tmp_path / "diff" / "entered.csv").read_text(encoding="utf-8") == '"user_id"\n"say ""hi"", 猫"\n"u60"\n'
    assert (tmp_path / "diff" / "left.csv").read_text(encoding="utf-8").split() == [
        f'"{each}"' for each in ["user_id", *sorted(numbered(range(49, 56)))]
    ]
    assert write_changes(life, tmp_path / "diff", since=0) == (0, 2)  # since before there was one
    assert len((tmp_path / "diff" / "entered.csv").read_text(encoding="utf-8").splitlines()) == 1 + 51
    assert (tmp_path / "diff" / "left.csv").read_text(encoding="utf-8") == '"user_id"\n'
    (tmp_path / "diff" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt, which replacing the folder would delete"):
        write_changes(life, tmp_path / "diff")


@pytest.mark.parametrize("since", [-1, 2, 3, 10**30])
def test_changes_since_a_refresh_that_never_was_are_refused(since: int, desk: Desk) -> None:
    refresh(desk)
    ran(desk, "u60")
    refresh(desk)
    with pytest.raises(DataError, match=rf"runners: no refresh {since} before the last, 2; known: 1, 2"):
        desk.records.of("runners").changed(since)


def test_nothing_new_adds_no_refresh(desk: Desk) -> None:
    first = refresh(desk)
    assert refresh(desk) == first
    assert refresh(desk, description="other words", owner="bob@example.com") == first
    assert len(lines(desk.records.of("runners"))) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"rule": "interest:sports.running seen<=54d"},
        {"purpose": "newsletter"},
        {"legal_basis": "consent"},
        {"expires": "2031-01-01"},
        {"min_size": 51},
        {"largest_jump": 0.9},
        {"refresh": "daily"},
        {"top": {"people": 55}},
    ],
    ids=lambda each: next(iter(each)),
)
def test_a_changed_definition_is_the_next_version_even_where_the_profiles_are_the_same(changed: dict[str, Any], desk: Desk) -> None:
    refresh(desk)
    second = refresh(desk, **changed)
    assert (second["number"], second["version"]) == (2, 2)
    assert refresh(desk, **changed) == second
    assert refresh(desk)["version"] == 3  # back again is a version of its own


def test_the_version_follows_the_contents_of_lists(desk: Desk) -> None:
    (desk.folder / "vip.txt").write_text("u60\n", encoding="utf-8")
    assert refresh(desk, include="vip.txt")["size"] == 57
    (desk.folder / "vip.txt").write_text("user_id\n\nu60\nu60\n", encoding="utf-8")  # the same list, written otherwise
    assert refresh(desk, include="vip.txt")["number"] == 1
    (desk.folder / "vip.txt").write_text("u60\nu61\n", encoding="utf-8")
    second = refresh(desk, include="vip.txt")
    assert (second["number"], second["version"], second["size"], second["entered"]) == (2, 2, 58, 1)


def test_the_version_follows_the_segments_that_the_rule_names(desk: Desk) -> None:
    """Every third of u00 to u59 likes football and every fifth cats: 20 and 12 of the 60, of whom u00 to u55 have 19 and 12."""
    other = desk.folder / "other.yaml"
    rule = f"{RUNNERS} and not segment:other"
    other.write_text("{name: other, purpose: advertising, rule: 'interest:sports.football'}", encoding="utf-8")
    assert refresh(desk, rule=rule)["size"] == 56 - 19
    other.write_text("{name: other, purpose: advertising, description: in words, rule: 'interest:sports.football'}", encoding="utf-8")
    assert refresh(desk, rule=rule)["number"] == 1
    other.write_text("{name: other, purpose: advertising, rule: 'interest:pets'}", encoding="utf-8")
    second = refresh(desk, rule=rule)
    assert (second["number"], second["version"], second["size"]) == (2, 2, 56 - 12)


def test_every_definition_that_was_refreshed_can_be_read_again(desk: Desk) -> None:
    refresh(desk)
    refresh(desk, rule="interest:pets")
    folder = desk.records.of("runners").folder / "definitions"
    rules = {each.name: json.loads(each.read_text(encoding="utf-8"))["rule"] for each in folder.iterdir()}
    assert rules == {"000001.json": RUNNERS, "000002.json": "interest:pets"}


def test_a_jump_is_measured_against_the_last_size_that_was_none_or_was_accepted(desk: Desk) -> None:
    """56 at first; 57 is within 5% (2.8); 61 is 4 more than 57, a jump; so is 62, though only 1 more than 61, and once it is accepted 63 isn't."""
    sizes = []
    for newcomers in ([], ["u56"], ["u57", "u58", "u59", "u60"], ["u61"]):
        if newcomers:
            ran(desk, *newcomers)
        found = refresh(desk, largest_jump=0.05)
        sizes.append((found["size"], found["compared_with"], found["jump"]))
    assert sizes == [(56, None, False), (57, 56, False), (61, 57, True), (62, 57, True)]
    desk.records.of("runners").accept("bob", "a race was held")
    ran(desk, "u62")
    found = refresh(desk, largest_jump=0.05)
    assert (found["size"], found["compared_with"], found["jump"]) == (63, 62, False)


def test_a_size_that_falls_jumps_too(desk: Desk) -> None:
    """Thirty days later u26 to u55 ran more than 55 days ago, and u60 ran: 27 are left of 56."""
    refresh(desk)
    ran(desk, "u60", days=-30)
    found = refresh(desk)
    assert (found["size"], found["compared_with"], found["jump"]) == (27, 56, True)


def test_just_as_much_as_allowed_is_no_jump(desk: Desk) -> None:
    refresh(desk, largest_jump=0.125)
    ran(desk, *(f"u{n}" for n in range(56, 63)))
    assert refresh(desk, largest_jump=0.125)["jump"] is False  # 7 more than 56 is one eighth
    ran(desk, "u63", "u64")
    found = refresh(desk, largest_jump=0.125)
    assert (found["size"], found["compared_with"], found["jump"]) == (65, 63, False)


def test_a_changed_definition_is_no_jump(desk: Desk) -> None:
    refresh(desk)
    found = refresh(desk, rule="interest:pets")
    assert (found["size"], found["left"], found["compared_with"], found["jump"]) == (12, 44 + 0, None, False)


def test_from_nobody_on_everybody_is_a_jump(desk: Desk) -> None:
    """Only u00 was with cats on the last day; two days later nobody was, and then one more."""
    rule = "interest:pets seen<1d"
    assert refresh(desk, rule=rule)["size"] == 1
    ran(desk, "u01", days=-2)
    emptied = refresh(desk, rule=rule)
    assert (emptied["size"], emptied["compared_with"], emptied["jump"]) == (0, 1, True)
    desk.records.of("runners").accept("ann", "quiet days")
    ran(desk, "u01", days=-2)
    still = refresh(desk, rule=rule)
    assert (still["number"], still["size"], still["compared_with"], still["jump"]) == (3, 0, 0, False)
    happened(desk, "pets.cats", "u01", days=-2)
    found = refresh(desk, rule=rule)
    assert (found["size"], found["compared_with"], found["jump"]) == (1, 0, True)


def test_a_jump_is_accepted_once_and_logged(desk: Desk) -> None:
    life = desk.records.of("runners")
    with pytest.raises(DataError, match="runners: its last refresh made no jump"):
        life.accept("ann", "no refresh yet")
    refresh(desk, largest_jump=0.05)
    with pytest.raises(DataError, match="made no jump that waits for somebody to accept it"):
        life.accept("ann", "no jump")
    ran(desk, "u56", "u57", "u58")
    jumped = refresh(desk, largest_jump=0.05)
    accepted = life.accept("bob", "ein Lauf 🏃")
    assert {name: accepted[name] for name in jumped if name != "accepted"} == {
        name: value for name, value in jumped.items() if name != "accepted"
    }
    assert accepted["accepted"]["by"] == "bob"
    assert accepted["accepted"]["reason"] == "ein Lauf 🏃"
    with pytest.raises(DataError, match="made no jump that waits"):
        life.accept("bob", "twice")
    assert refresh(desk, largest_jump=0.05)["accepted"]["by"] == "bob"  # it stands
    (entry,) = desk.records.audit.entries()
    assert {name: entry[name] for name in ("what", "by", "segment", "refresh", "size", "reason")} == {
        "what": "jump accepted",
        "by": "bob",
        "segment": "runners",
        "refresh": 2,
        "size": 59,
        "reason": "ein Lauf 🏃",
    }


@pytest.mark.parametrize(("period", "days"), [("daily", 1), ("weekly", 7), ("monthly", 30)])
def test_a_segment_is_due_once_its_period_has_passed(period: str, days: int, desk: Desk) -> None:
    life = desk.records.of("runners")
    assert life.due(period, datetime.now(UTC))  # never refreshed
    at = refresh(desk)["at"]
    assert not life.due(period, at)
    assert not life.due(period, at + timedelta(days=days, microseconds=-1))
    assert life.due(period, at + timedelta(days=days))


def test_a_manual_segment_is_due_only_before_its_first_refresh(desk: Desk) -> None:
    assert desk.records.of("runners").due("manual", datetime.now(UTC))
    at = refresh(desk)["at"]
    assert not desk.records.of("runners").due("manual", at + timedelta(days=10_000))


def test_what_was_delivered_is_noted_once_the_file_is_there(desk: Desk) -> None:
    life = desk.records.of("runners")
    assert life.delivered("meta").num_rows == 0
    users = pa.table({"user_id": ["u01", "猫 🏃"], "weight": [0.5, 0.4]})
    with pytest.raises(KeyboardInterrupt), life.deliver("meta", users):
        raise KeyboardInterrupt
    assert life.delivered("meta").num_rows == 0
    assert list((life.folder / "delivered").iterdir()) == []
    with life.deliver("meta", users):
        assert life.delivered("meta").num_rows == 0
    assert life.delivered("meta")["user_id"].to_pylist() == ["u01", "猫 🏃"]
    assert life.delivered("meta").column_names == ["user_id"]
    assert life.delivered("google").num_rows == 0


def test_all_lists_of_a_person_are_found(desk: Desk) -> None:
    for name, destination, users in (
        ("runners", "meta", ["u01", "猫 🏃"]),
        ("runners", "csv", ["u01"]),
        ("cat-people", "meta", ["u02", "猫 🏃"]),
    ):
        with desk.records.of(name).deliver(destination, pa.table({"user_id": users})):
            pass
    assert desk.records.naming(["u01"]) == [("runners", "csv"), ("runners", "meta")]
    assert desk.records.naming(["猫 🏃"]) == [("cat-people", "meta"), ("runners", "meta")]
    assert desk.records.naming(["u0"]) == []
    assert Records(desk.folder / "nowhere").naming(["u01"]) == []


@pytest.mark.parametrize("where", ["penchant.segments.life.Life.write", "penchant.segments.life.write_json", "pyarrow.parquet.write_table"])
def test_a_refresh_that_was_killed_is_as_if_it_had_never_been_begun(where: str, desk: Desk) -> None:
    refresh(desk)
    ran(desk, "u56")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, killed)
        with pytest.raises(KeyboardInterrupt):
            refresh(desk, rule="interest:sports.running seen<=54d")
    life = desk.records.of("runners")
    assert (life.last or {})["number"] == 1
    ran(desk, "u57")  # the profiles go on meanwhile, and the definition is another again
    again = refresh(desk)
    assert (again["number"], again["version"], again["size"], again["entered"]) == (2, 1, 58, 2)
    assert members(life, 2) == numbered(range(58))
    assert life.changed() == (["u56", "u57"], [], 1, 2)


def test_a_first_refresh_that_was_killed_leaves_no_segment(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Life, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            refresh(desk)
    assert desk.records.names() == []
    with pytest.raises(DataError, match="segment 'runners' was never refreshed"):
        known(desk.records.folder, "runners")
    assert refresh(desk)["number"] == 1


@pytest.mark.parametrize(
    "damage",
    ["half a li", '{"number": 1}\n', "[]\n", "7\n", '{"at": "yesterday", "as_of": "2026-03-29"}\n', "\x00\x00", "[" * 100_000, '"at"'],
    ids=["half a line", "keys lacking", "a list", "a number", "no time", "nul", "brackets", "a text"],
)
def test_damaged_records_are_told_and_left_alone(damage: str, desk: Desk) -> None:
    refresh(desk)
    life = desk.records.of("runners")
    path = life.folder / "refreshes.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + damage, encoding="utf-8")
    before = path.read_bytes()
    for attempt in (lambda: refresh(desk), lambda: life.refreshes, lambda: life.accept("ann", "why"), desk.export):
        with pytest.raises(DataError, match=r"refreshes\.jsonl: damaged: .*; get it from a backup, or move the folder away"):
            attempt()
    assert path.read_bytes() == before
    assert desk.files == []


@pytest.mark.parametrize("reason", ["one\ntwo", "one\u2028two", "one\x85two", "one\x0ctwo", "nul \x00", '"', "猫 🏃"])
def test_any_reason_can_be_read_again(reason: str, desk: Desk) -> None:
    refresh(desk, largest_jump=0.01)
    ran(desk, "u56", "u57")
    refresh(desk, largest_jump=0.01)
    desk.records.of("runners").accept("ann", reason)
    assert desk.records.of("runners").refreshes[-1]["accepted"]["reason"] == reason


def test_records_in_another_encoding_are_damaged(desk: Desk) -> None:
    refresh(desk)
    path = desk.records.of("runners").folder / "refreshes.jsonl"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    with pytest.raises(DataError, match=r"refreshes\.jsonl: damaged"):
        refresh(desk)


def test_members_that_are_gone_are_told(desk: Desk) -> None:
    refresh(desk)
    (desk.records.of("runners").folder / "members" / "000001.parquet").unlink()
    ran(desk, "u56")
    with pytest.raises(DataError, match=r"000001\.parquet: missing; segment runners has no refresh 1, or its records are damaged"):
        refresh(desk)


@pytest.mark.parametrize(
    ("name", "offered"),
    [("runner", "did you mean 'runners'?"), ("zzz", "known: runners"), ("../runners", "'runners'"), ("猫\x00", "known: runners")],
)
def test_a_name_without_records_offers_the_nearest(name: str, offered: str, desk: Desk) -> None:
    refresh(desk)
    with pytest.raises(DataError) as caught:
        known(desk.records.folder, name)
    message = str(caught.value)
    assert f"segment {name!r} was never refreshed" in message
    assert offered in message
    assert message.endswith("do that first: penchant segment refresh")
    assert known(desk.records.folder, "runners").name == "runners"


def test_profiles_that_are_built_anew_are_other_profiles(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same version, of the same instant, but of other events."""
    refresh(desk)
    other = Desk(tmp_path_factory.mktemp("other"), [event(n, f"u{n:02}", "sports.running", 0) for n in range(70)])
    found = desk.records.of("runners").refresh(desk.audience(), other.snapshot, "ann")
    assert (found["number"], found["size"]) == (2, 70)


def test_days_of_expiry_belong_to_the_definition(desk: Desk) -> None:
    refresh(desk, expires=date(2030, 1, 1).isoformat())
    definition = json.loads((desk.records.of("runners").folder / "definitions" / "000001.json").read_text(encoding="utf-8"))
    assert definition["segment"]["expires"] == "2030-01-01"
    assert not {"description", "owner"} & set(definition["segment"])
    assert pq.read_schema(desk.records.of("runners").folder / "members" / "000001.parquet").names == ["user_id", "weight", "last_at"]
