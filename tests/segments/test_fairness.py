"""Fairness: selection rates by hand, the four-fifths line to the last person, and small groups that nothing gives away."""

import json
from itertools import product
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import DataError
from penchant.profiles.duck import connect
from penchant.segments.fairness import GROUPS, GroupRate, fairness, fairness_text, group_rates, read_groups

ROWS = [("u1", "women"), ("u2", "men"), ("u3", ""), ("u4", " 北京  市 "), ("o'brien 🏃", "women")]
READ = {"u1": "women", "u2": "men", "u4": "北京 市", "o'brien 🏃": "women"}


def groups_of(path: Path, column: str = "gender") -> dict[str, str]:
    table = read_groups(path, column)
    assert table.schema == GROUPS
    return dict(zip(table["user_id"].to_pylist(), table["group"].to_pylist(), strict=True))


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(("separator", "encoding"), [(",", "utf-8"), ("\t", "utf-8"), (";", "utf-8-sig"), (",", "utf-16")])
def test_groups_are_read_from_delimited_text(separator: str, encoding: str, tmp_path: Path) -> None:
    lines = [separator.join(["user_id", "gender", "age"]), *(separator.join([user, group, "1"]) for user, group in ROWS)]
    assert groups_of(written(tmp_path / "groups.txt", "\r\n".join(lines), encoding)) == READ


def test_groups_are_read_from_json_lines_of_which_some_lack_the_column(tmp_path: Path) -> None:
    rows = [{"user_id": user, "gender": group} if group else {"user_id": user} for user, group in ROWS]
    assert groups_of(written(tmp_path / "g.jsonl", "\n".join(map(json.dumps, rows)))) == READ


def test_groups_are_read_from_parquet_numbers_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1, 2, 3], "gender": [30.0, None, 50.0]}), tmp_path / "g.parquet")
    assert groups_of(tmp_path / "g.parquet") == {"1": "30", "3": "50"}


def test_a_user_may_stand_there_twice_in_one_group_or_once_without(tmp_path: Path) -> None:
    path = written(tmp_path / "g.csv", "user_id,gender\nu1,women\nu1,\nu1,women\n")
    assert groups_of(path) == {"u1": "women"}


def test_control_characters_reach_no_terminal(tmp_path: Path) -> None:
    assert groups_of(written(tmp_path / "g.jsonl", json.dumps({"user_id": "u1", "gender": "a\x1b[31m\x00b\n"}))) == {"u1": "a [31m b"}


def test_users_in_two_groups_are_shown_by_their_rows_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "g.csv", "user_id,gender\nann@example.com,women\nu2,men\nann@example.com,men\n")
    with pytest.raises(DataError, match="1 mistake\n  - rows 2 and 4: one user in two groups, 'women' and 'men'") as caught:
        read_groups(path, "gender")
    assert "ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows; expected the columns user_id and gender"),
        ("user_id,gender\n", "no rows"),
        ("user_id,gendre\nu1,women\n", "no column 'gender'; did you mean 'gendre'?"),
        ("userid,gender\nu1,women\n", "no column 'user_id'; did you mean 'userid'?"),
        ("a,b\n1,2\n", "no column 'user_id'; known: a, b; no column 'gender'; known: a, b"),
        ("user_id,gender\nu1,women\nu2\n", "row 3: 1 columns where the header has 2"),
        ("user_id,gender\n,women\n", "row 2: user_id: missing"),
        ('{"user_id": "u1", "gender": ["women"]}', "row 1: gender: expected one value, found a list"),
        ('{"user_id": {"mail": "ann@example.com"}, "gender": "women"}', "row 1: user_id: no UTF-8 text or number"),
        ('{"user_id": "u1", "gender": "women"}\nnothing\n', "row 2: not JSON"),
        ("user_id,gender\nu1,\x00women\n", "neither Parquet nor text"),
    ],
)
def test_a_table_that_can_not_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "g.csv", text)
    with pytest.raises(DataError) as caught:
        read_groups(path, "gender")
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "ann" not in str(caught.value)


def test_bytes_that_are_no_text_are_named_by_their_row(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_bytes(b"user_id,gender\nu1,women\nu2,m\xe4nner\nu\xe4,women\n")
    with pytest.raises(DataError, match="2 mistakes\n  - row 3: gender: .*not UTF-8 text\n  - row 4: user_id: no UTF-8"):
        read_groups(tmp_path / "g.csv", "gender")


def tables(cells: dict[str, tuple[int, int]]) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Members, base and groups with so many (base, segment) people of each group; those of `unknown` stand in no group."""
    base = [(f"{group} {n}", group) for group, (size, _) in cells.items() for n in range(size)]
    members = [f"{group} {n}" for group, (_, size) in cells.items() for n in range(size)]
    known = [each for each in base if each[1] != "unknown"]
    groups = pa.table([[user for user, _ in known], [group for _, group in known]], GROUPS)
    return pa.table({"user_id": pa.array(members, pa.string())}), pa.table({"user_id": [user for user, _ in base]}), groups


def test_rates_are_those_of_the_groups_largest_first() -> None:
    members, base, groups = map(ibis.memtable, tables({"women": (1000, 150), "men": (2000, 500), "unknown": (800, 160)}))
    expected = [
        GroupRate("men", 2000, 2000 / 3800, 500, 500 / 810, 0.25, 1.0, False),
        GroupRate("women", 1000, 1000 / 3800, 150, 150 / 810, 0.15, 0.6, True),
        GroupRate("unknown", 800, 800 / 3800, 160, 160 / 810, 0.2, 0.8, False),  # on the line, not under it
    ]
    assert fairness(members, base, groups) == expected


def test_tables_of_a_connection_count_each_person_once_and_strangers_not_at_all(tmp_path: Path) -> None:
    connection = connect()
    members, base, groups = tables({"women": (200, 100), "men": (300, 100)})
    members = pa.concat_tables([members, members, pa.table({"user_id": ["somebody else"]})])
    groups = pa.concat_tables([groups, pa.table([["somebody else"], ["women"]], GROUPS)])
    for name, table in {"chosen": members, "everybody": pa.concat_tables([base, base]), "grouped": groups}.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    found = fairness(*(connection.read_parquet(tmp_path / f"{name}.parquet") for name in ("chosen", "everybody", "grouped")))
    assert [(each.group, each.base, each.segment) for each in found] == [("men", 300, 100), ("women", 200, 100)]


def test_nobody_at_all_is_no_group() -> None:
    assert fairness(*(ibis.memtable(each) for each in tables({}))) == []


@pytest.mark.parametrize(("women", "flagged"), [(240, False), (239, True)])
def test_the_line_is_exact_to_one_person(women: int, flagged: bool) -> None:
    found = {each.group: each.flagged for each in group_rates({"women": 1000, "men": 1000}, {"women": women, "men": 300})}
    assert found == {"women": flagged, "men": False}  # 0.8 × 0.3 is above 0.24 in floating point


def shown(bases: dict[str, int], segments: dict[str, int]) -> dict[str, tuple[int | None, int | None, bool | None]]:
    return {each.group: (each.base, each.segment, each.flagged) for each in group_rates(bases, segments)}


def test_one_small_count_hides_that_of_the_smallest_group_with_it() -> None:
    found = group_rates({"a": 1000, "b": 1000, "c": 900}, {"a": 30, "b": 300, "c": 100})
    assert [(each.segment, each.segment_share, each.rate, each.ratio) for each in found] == [
        (None, None, None, None),
        (300, 300 / 430, 0.3, 1.0),
        (None, None, None, None),
    ]
    # 130 are hidden, so c are 81 to 130 of 900 and a at most 49 of 1000: all under four fifths of 300 of 1000
    assert [each.flagged for each in found] == [True, False, True]


def test_two_small_counts_are_not_enough_to_hide_each_other() -> None:
    # 49 + 49 = 98 could be nothing else if both were known to be under 50
    found = shown({"a": 1000, "b": 1000, "c": 900, "d": 2000}, {"a": 49, "b": 49, "c": 200, "d": 400})
    assert {name: cells[1] for name, cells in found.items()} == {"a": None, "b": None, "c": None, "d": 400}


def test_a_group_with_hardly_anybody_is_flagged_though_all_counts_are_hidden() -> None:
    # 510 are hidden, so men are 461 to 510 of 2000, and 49 of 2000 would be under four fifths of that
    assert shown({"women": 2000, "men": 2000}, {"women": 10, "men": 500}) == {"women": (2000, None, True), "men": (2000, None, False)}


def test_a_group_of_few_is_not_judged_and_its_size_not_given_away() -> None:
    found = shown({"women": 2000, "men": 3000, "x": 10}, {"women": 300, "men": 900, "x": 3})
    # men are 903 - 49 to 903 of 2961 to 3010, a rate of 0.284 at least, against 0.15
    assert found == {"women": (2000, 300, True), "men": (None, None, False), "x": (None, None, None)}


def test_a_rate_is_compared_by_its_bounds_where_the_highest_is_hidden() -> None:
    found = {each.group: (each.rate, each.ratio) for each in group_rates({"a": 900, "b": 1000, "c": 1000}, {"a": 300, "b": 200, "c": 20})}
    assert found == {"a": (None, None), "b": (0.2, None), "c": (None, None)}


def test_a_group_that_is_in_the_segment_nearly_whole_is_hidden_too() -> None:
    found = shown({"a": 1000, "b": 900, "c": 1000}, {"a": 980, "b": 400, "c": 300})
    assert {name: cells[1] for name, cells in found.items()} == {"a": None, "b": None, "c": 300}


@pytest.mark.parametrize("segments", [{"a": 0, "b": 0}, {"a": 49, "b": 49}, {"a": 3, "b": 20}])
def test_where_nobody_sets_a_highest_rate_nothing_is_judged(segments: dict[str, int]) -> None:
    assert shown({"a": 1000, "b": 100}, segments) == {"a": (1000, None, None), "b": (100, None, None)}


def test_one_group_alone_is_its_own_measure() -> None:
    assert group_rates({"all": 100}, {"all": 50}) == [GroupRate("all", 100, 1.0, 50, 1.0, 0.5, 1.0, False)]
    assert shown({"all": 100}, {"all": 49}) == {"all": (100, None, None)}


BASES = st.sampled_from([(2000, 2000), (2000, 100), (150, 3000), (400, 400), (5000, 150)])


@given(BASES, st.integers(0, 49), st.integers(0, 130))
def test_two_groups_and_their_total_leave_every_hidden_count_uncertain(bases: tuple[int, int], first: int, second: int) -> None:
    """Whoever knows the total tries every split of it: at least fifty (or all there are) must have looked the same."""
    second = min(second, bases[1])
    sizes = dict(zip("ab", bases, strict=True))
    seen = shown(sizes, {"a": first, "b": second})
    total = first + second
    possible = [n for n in range(total + 1) if total - n <= bases[1] and n <= bases[0]]
    same = [n for n in possible if shown(sizes, {"a": n, "b": total - n}) == seen]
    assert len(same) >= min(50, len(possible))


@given(st.tuples(*[st.integers(0, 60)] * 3))
@settings(max_examples=10, deadline=None)
def test_three_groups_and_their_total_leave_every_hidden_count_uncertain(segments: tuple[int, int, int]) -> None:
    sizes = {"a": 900, "b": 500, "c": 200}
    seen, total = shown(sizes, dict(zip("abc", segments, strict=True))), sum(segments)
    ranges = [range(total + 1) if seen[name][1] is None else (size,) for name, size in zip("abc", segments, strict=True)]
    splits = [(a, b, total - a - b) for a, b in product(*ranges[:2]) if 0 <= total - a - b <= 200]
    same = [split for split in splits if shown(sizes, dict(zip("abc", split, strict=True))) == seen]
    for place, name in enumerate("abc"):
        if seen[name][1] is None:
            assert len({split[place] for split in same}) >= min(50, total + 1)


def test_the_table_shows_counts_rates_and_what_is_under_the_line() -> None:
    text = fairness_text(group_rates({"men": 2000, "[b]北京🏃[/b]": 1000}, {"men": 500, "[b]北京🏃[/b]": 150}))
    assert [line.split() for line in text.splitlines()] == [
        ["group", "base", "share", "segment", "share", "rate", "ratio", "four", "fifths"],
        ["men", "2,000", "66.7%", "500", "76.9%", "25.0%", "1.00", "met"],
        ["[b]北京🏃[/b]", "1,000", "33.3%", "150", "23.1%", "15.0%", "0.60", "under"],
    ]


def test_the_table_says_what_a_dash_is_and_stays_in_its_width() -> None:
    text = fairness_text(group_rates({"men": 2000, "x" * 300: 10}, {"men": 500, "x" * 300: 2}))
    lines = text.splitlines()
    assert lines[-1] == "–: fewer than 50 people, or a count that would give such a one away"
    assert max(map(len, lines)) <= 100
    assert "too few to judge" in text


def test_a_table_of_nothing_is_its_heading() -> None:
    assert len(fairness_text([]).splitlines()) == 1
