"""Segments in a terminal: exact where that may be, and never a count, or a difference of two of one table, under 50."""

import re
from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profiles.snapshot import Snapshot
from penchant.reports.segments_text import (
    called,
    curve_text,
    funnel_text,
    history_text,
    overlap_text,
    shown_curve,
    shown_funnel,
    shown_history,
    shown_matrix,
    special_text,
    why_text,
)
from penchant.segments.insight import Curve
from penchant.segments.load import checked, of_text, read_audience
from penchant.segments.why import why
from tests.snapshots import NOON, event, snapshot_of

COUNT = st.one_of(st.integers(0, 200), st.integers(0, 3_000_000))
FALLING = st.lists(COUNT, min_size=1, max_size=8).map(lambda sizes: sorted(sizes, reverse=True))
CELL = re.compile(r"(?:^|(?<= ))(\d[\d,]*)(?= |$)")
"""A count that stands alone between blanks."""


def figures(line: str) -> list[int]:
    """The counts printed on a line."""
    return [int(each.replace(",", "")) for each in CELL.findall(line)]


def far_apart(counts: Sequence[int]) -> bool:
    """Whether each count, and each difference of two, is 50 or more."""
    return all(each >= 50 for each in counts) and all(abs(a - b) >= 50 for a, b in combinations(counts, 2))


def steps_of(sizes: Sequence[int]) -> list[tuple[str, int]]:
    return [(f"step-{chr(97 + n)}", size) for n, size in enumerate(sizes)]


def curve_of(sizes: Sequence[int], current: int, limit: str = "weight>=x") -> Curve:
    """A curve whose thresholds can't be taken for counts."""
    return Curve("interest:sports", limit, current + 0.5, [n + 0.5 for n in range(len(sizes))], list(sizes))


@given(FALLING)
def test_no_funnel_prints_what_it_may_not(sizes: list[int]) -> None:
    text = funnel_text(steps_of(sizes))
    printed = [count for line in text.splitlines()[: len(sizes)] for count in figures(line)]
    assert far_apart(printed)
    assert printed == [count for _, count in shown_funnel(steps_of(sizes)) if count is not None]
    assert set(printed) <= set(sizes)
    assert (sizes[-1] in printed) == (sizes[-1] >= 50)  # the segment's own
    assert ("would give away" in text) == (len(printed) < len(sizes))


@given(FALLING)
def test_the_bars_of_a_funnel_tell_no_more(sizes: list[int]) -> None:
    """A bar stands only where its count does."""
    for line in funnel_text(steps_of(sizes)).splitlines()[: len(sizes)]:
        assert "█" not in line or figures(line)


@given(st.lists(COUNT, min_size=1, max_size=8), st.integers(0, 7), st.sampled_from([1, -1]))
def test_no_curve_prints_what_it_may_not(sizes: list[int], current: int, direction: int) -> None:
    sizes, current = sorted(sizes)[::direction], current % len(sizes)
    lines = curve_text(curve_of(sizes, current)).splitlines()[1:]
    printed = [count for line in lines for count in figures(line)]
    assert far_apart(printed)
    assert printed == [count for count in shown_curve(curve_of(sizes, current)) if count is not None]
    assert [line.startswith("→") for line in lines] == [n == current for n in range(len(sizes))]
    assert (figures(lines[current]) == [sizes[current]]) == (sizes[current] >= 50)
    assert all(figures(line) for line in lines if "█" in line)


@given(st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=4), st.lists(COUNT, min_size=10, max_size=10))
def test_no_overlap_prints_what_it_may_not(segments: list[set[int]], parts: list[int]) -> None:
    """Segments are unions of ten kinds of people that have nobody in common, of `parts` people each."""
    found = [[sum(parts[n] for n in a & b) for b in segments] for a in segments]
    names = [f"segment-{chr(97 + n)}" for n in range(len(segments))]
    shown = shown_matrix(found)
    lines = overlap_text(names, found).splitlines()[1:]
    for a, line in enumerate(lines):
        assert figures(line) == [count for count in shown[a] if count is not None]
        for b, count in enumerate(shown[a]):
            if a != b and count is not None:
                assert min(count, found[a][a] - count, found[b][b] - count) >= 50
                assert count == shown[b][a] == found[a][b]
    sizes = [(shown[n][n], segment) for n, segment in enumerate(segments) if shown[n][n] is not None]
    for (a, inner), (b, outer) in permutations(sizes, 2):
        assert not inner < outer or not 0 < b - a < 50  # who is in the outer alone could be counted
        assert a >= 50


def test_a_funnel_in_full() -> None:
    """Bars of 30 for 2,000; 1,230 is 18.45 of them, 90 is 1.35. From 90 outwards, 110 is too near."""
    steps = [("everybody with a profile", 2000), ("interest:sports", 1230), ("and not interest:pets", 110), ("and seen<30d", 90)]
    assert funnel_text(steps) == (
        "everybody with a profile        2,000  ██████████████████████████████\n"
        "interest:sports                 1,230  ██████████████████\n"
        "and not interest:pets               –\n"
        "and seen<30d                       90  █\n"
        "–: a size under 50, or one that would give away how few a condition removes"
    )


def test_a_funnel_of_nobody_shows_nothing() -> None:
    assert funnel_text([("everybody with a profile", 0), ("interest:chess", 0)]).splitlines()[:2] == [
        f"{'everybody with a profile':<24}  {'–':>11}",
        f"{'interest:chess':<24}  {'–':>11}",
    ]


def test_a_curve_in_full() -> None:
    assert curve_text(Curve("interest:sports weight>=0.2", "weight>=0.2", 0.2, [0.0, 0.2, 0.4], [1200, 600, 40])) == (
        "interest:sports weight>=0.2: how weight>=0.2 decides\n"
        "           0        1,200  ██████████████████████████████\n"
        "→        0.2          600  ███████████████\n"
        "         0.4            –"
    )


def test_an_overlap_in_full() -> None:
    """The third has 60 of its 100 in the first; of the second it has but 49."""
    text = overlap_text(["runners", "film-fans", "riders"], [[200, 50, 60], [50, 400, 49], [60, 49, 110]])
    assert [line.split() for line in text.splitlines()] == [
        ["runners", "film-fans", "riders"],
        ["runners", "200", "(100%)", "50", "(25%)", "60", "(30%)"],
        ["film-fans", "50", "(12%)", "400", "(100%)", "–"],
        ["riders", "60", "(55%)", "–", "110", "(100%)"],
    ]


def test_segments_are_called_by_name_and_rules_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "runners.yaml").write_text("{name: runners, purpose: tests, rule: 'interest:sports'}", encoding="utf-8")
    audiences = [read_audience(tmp_path / "runners.yaml"), of_text("interest:pets  and  seen<30d")]
    assert called(audiences) == ["runners", "interest:pets seen<30d"]


def refreshes(*sizes: tuple[int, int, int], jump: bool = False, accepted: Any = None) -> list[dict[str, Any]]:
    """Refreshes a day apart: size, who entered, who left."""
    return [
        {
            "number": n + 1,
            "at": NOON + timedelta(days=n),
            "as_of": NOON + timedelta(days=n),
            "version": 1,
            "size": size,
            "entered": entered,
            "left": left,
            "jump": jump and n == len(sizes) - 1,
            "accepted": accepted if n == len(sizes) - 1 else None,
        }
        for n, (size, entered, left) in enumerate(sizes)
    ]


def test_a_history_in_full() -> None:
    found = refreshes((1200, 1200, 0), (1300, 250, 150))
    assert history_text("runners", found, NOON + timedelta(days=2, hours=12)).splitlines()[::2] == [
        "runners: refreshed 1.5 days ago, profiles as of 2026-03-02 12:00",
        "   2  2026-03-02 12:00  version 1  as of 2026-03-02           1,300 people  250 entered, 150 left",
    ]


@pytest.mark.parametrize(("accepted", "end"), [(None, "JUMP: exports are stopped"), ({"by": "ann"}, "JUMP, accepted")])
def test_a_history_tells_of_jumps(accepted: Any, end: str) -> None:
    lines = history_text("runners", refreshes((100, 100, 0), (300, 250, 50), jump=True, accepted=accepted), NOON).splitlines()
    assert "JUMP" not in lines[1]
    assert lines[2].endswith(end)


SIZES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6)


def lived(changes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Refreshes that come of so many entering and leaving each time."""
    sizes, size = [], 0
    for entered, leaving in changes:
        left = min(leaving, size)
        size += entered - left
        sizes.append((size, entered, left))
    return refreshes(*sizes)


@given(SIZES)
def test_no_history_prints_or_gives_away_a_count_under_fifty(changes: list[tuple[int, int]]) -> None:
    """Size before + entered − left = size: were all known but one, that would be known too. So entered and left come together, or not at all."""
    found = lived(changes)
    lines = history_text("runners", found, NOON).splitlines()
    for line, each in zip(lines[1:], found, strict=True):
        printed = [
            int(count.replace(",", "")) for count in re.findall(r"([\d,]+) (?:people|entered|left)", line.replace("than 50 people", ""))
        ]
        size, both = [each["size"]] if each["size"] >= 50 else [], [each["entered"], each["left"]]
        assert printed in ([size, size + both] if min(both) >= 50 else [size])
    for each, *drawn in zip(found, *shown_history(found), strict=True):
        both = [each["entered"], each["left"]]
        assert drawn == [
            each["as_of"],
            each["size"] if each["size"] >= 50 else None,
            *(both if min(both) >= 50 else [None, None]),
        ]


def test_what_is_special_in_full() -> None:
    """Of 250 people 126 have the first, all the second and 201 the fourth, which 49 lack; of 1,000 others 100, 951 and 250."""
    row = {"size": 250, "rest": 1000, "dimension": "interest", "asked": False}
    rows = [
        row | {"index": 251.4, "people": 126, "others": 100, "dimension": "brand", "label": "nike"},
        row | {"index": 99.6, "people": 250, "others": 250, "label": "跑步 🏃", "asked": True},
        row | {"index": 50.4, "people": 200, "others": 951, "label": "Dogs"},
        row | {"index": 1.0, "people": 201, "others": 250, "label": "Cats"},
    ]
    assert special_text(rows, 3).splitlines() == [
        " index   these  others  attribute",
        "   251     50%     10%  brand: nike",
        "   100       –     25%  interest: 跑步 🏃  (in the rule)",
        "    50     80%       –  interest: Dogs",
        "index: 100 · their mean weight / that of all others; shares: who has the attribute at all",
        "–: fewer than 50 are without it",
    ]
    assert "–" not in special_text(rows, 1)
    assert special_text(rows, 4).splitlines()[4] == "     1       –     25%  interest: Cats"
    assert special_text([], 2) == "nothing that at least 50 of these people and 50 of all others have"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Two people: 猫 🐈 runs and has a cat, bob runs."""
    events = [
        event(1, "run", "猫 🐈", days_ago=10.5, source="social", action="like"),
        event(2, "run", "猫 🐈", days_ago=2, action="purchase"),
        event(3, "cat", "猫 🐈", days_ago=1),
        event(4, "run", "bob", days_ago=40),
    ]
    return snapshot_of(tmp_path_factory.mktemp("why"), events)


def why_lines(rule: str, user: str, snapshot: Snapshot) -> list[str]:
    return why_text(why(checked(of_text(rule), snapshot), snapshot, user), snapshot).splitlines()


def test_why_shows_each_condition_with_the_values_and_the_events_behind_them(snapshot: Snapshot) -> None:
    """A click is worth 1, a like 2, a purchase 5; their evidence is undecayed."""
    lines = why_lines("interest:sports.running seen<5d and not interest:pets and count(any last 30d by like)>=1", "猫 🐈", snapshot)
    assert lines[0] == "猫 🐈 is not in rule as of 2026-03-01 12:00 UTC"
    assert lines[1] == "✓ interest:sports.running seen<5d"
    assert re.fullmatch(r"    weight 0\.\d{3}, 2\.0 days ago", lines[2])
    assert re.fullmatch(r"    Running: weight 0\.\d{3}, index \d+, 2 events, last 2026-02-27", lines[3])
    assert sorted(lines[4:6]) == ["      +2.00  2026-02-19 social/like: run", "      +5.00  2026-02-27 shop/purchase: run"]
    assert lines[6] == "✗ not interest:pets"
    assert re.fullmatch(r"    weight 0\.\d{3}", lines[7])
    assert lines[8].startswith("    Cats: weight 0.")
    assert lines[9] == "      +1.00  2026-02-28 shop/click: cat"
    assert lines[10:] == ["✓ count(any last 30d by like)>=1", "    times 1", "      2026-02-19 social/like: run"]


def test_why_says_of_what_a_person_lacks_only_that(snapshot: Snapshot) -> None:
    assert why_lines("interest:pets and not interest:society", "bob", snapshot) == [
        "bob is not in rule as of 2026-03-01 12:00 UTC",
        "✗ interest:pets",
        "✓ not interest:society",
    ]


def test_why_names_who_was_included_or_excluded_by_hand(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "yes.txt").write_text("bob\n猫 🐈\n", encoding="utf-8")
    (tmp_path / "no.txt").write_text("猫 🐈\n", encoding="utf-8")
    path = tmp_path / "cats.yaml"
    path.write_text("{name: cats, purpose: tests, rule: 'interest:pets', include: yes.txt, exclude: no.txt}", encoding="utf-8")
    audience = checked(read_audience(path), snapshot)
    assert why_text(why(audience, snapshot, "bob"), snapshot).splitlines() == [
        "bob is in cats as of 2026-03-01 12:00 UTC",
        "  included by hand",
        "✗ interest:pets",
    ]
    assert why_text(why(audience, snapshot, "猫 🐈"), snapshot).splitlines()[:3] == [
        "猫 🐈 is not in cats as of 2026-03-01 12:00 UTC",
        "  included by hand",
        "  excluded by hand",
    ]
