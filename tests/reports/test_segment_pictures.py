"""Pictures of segments: every number in its place and to scale, and what is hidden told apart from what is none."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from penchant.reports import segment_pictures as pictures
from penchant.reports.pictures import COLOURS
from penchant.segments.fairness import group_rates
from tests.figures import NASTY, addresses

SVG = "{http://www.w3.org/2000/svg}"
DAYS = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=7 * n) for n in range(4)]
LONG = "a very long name of a segment that nobody could ever read to its end in a picture"
RATES = group_rates({"men": 2000, "women": 2000, "unknown": 2000}, {"men": 500, "women": 300, "unknown": 420})
DRAWN: dict[str, Callable[[], str]] = {
    "funnel": lambda: pictures.funnel([("everyone", 8000), (NASTY, 4000), (LONG, None), ("跑步", 1000)]),
    "overlap": lambda: pictures.overlap([NASTY, "跑步"], [1000, 500], [[1000, 250], [250, 500]]),
    "curve": lambda: pictures.curve(NASTY, [0.1, 0.2, 0.3], [900, 300, None], 0.2),
    "special": lambda: pictures.special([(NASTY, 200.0, 0.5), (LONG, 50.0, 0.25), ("跑步", 0.0, 0.0)]),
    "sizes_over_time": lambda: pictures.sizes_over_time(DAYS, [500, 600, None, 700], [None, 150, 60, 80], [None, 50, None, 60]),
    "shares": lambda: pictures.shares(RATES),
}
SPECIALS = [[("one", 140.0, 0.2)], [(str(n), 10.0**n, 0.1) for n in range(-3, 9)], [("infinite", float("inf"), 1.0)]]
EDGES: list[Callable[[], str]] = [
    lambda: pictures.funnel([]),
    lambda: pictures.funnel([("one", 50)]),
    lambda: pictures.funnel([(str(n), None) for n in range(12)]),
    lambda: pictures.funnel([("", 2**60), ("x" * 5000, 60)]),
    lambda: pictures.overlap(["one"], [50], [[50]]),
    lambda: pictures.overlap([LONG] * 12, [None] * 12, [[None] * 12] * 12),
    lambda: pictures.curve("x", [0.3], [400], None),
    lambda: pictures.curve("x", [0.3], [None], 0.3),
    lambda: pictures.curve(LONG * 3, [1, 2, 3], [None, None, None], 2),
    *(lambda rows=rows: pictures.special(rows) for rows in SPECIALS),  # type: ignore[misc]
    lambda: pictures.special([]),
    lambda: pictures.sizes_over_time(DAYS[:1], [300], [None], [None]),
    lambda: pictures.sizes_over_time(DAYS, [None] * 4, [None] * 4, [None] * 4),
    lambda: pictures.shares([]),
    lambda: pictures.shares(group_rates({"women": 2000, "men": 2000, "x": 3}, {"women": 10, "men": 500, "x": 0})),
]


def texts(picture: str) -> list[str]:
    """The texts that a picture shows."""
    return ["".join(each.itertext()) for each in ET.fromstring(picture).iter(f"{SVG}text")]


def boxes(picture: str, colour: str) -> list[tuple[float, float]]:
    """Widths and heights of what is filled with a colour, in the order drawn."""
    found = []
    for each in ET.fromstring(picture).iter(f"{SVG}path"):
        if f"fill: {colour}" in each.get("style", ""):
            pairs = [tuple(map(float, pair.split())) for pair in re.findall(r"[ML] ([-\d.]+ [-\d.]+)", each.get("d", ""))]
            across, down = zip(*pairs, strict=True)
            found.append((max(across) - min(across), max(down) - min(down)))
    return found


def hatched(picture: str) -> int:
    """How many fields are hatched."""
    return sum("fill: url(" in each.get("style", "") for each in ET.fromstring(picture).iter(f"{SVG}path"))


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_one_svg_element_with_a_title_and_asks_for_nothing(name: str) -> None:
    picture = DRAWN[name]()
    tree = ET.fromstring(picture)
    assert (tree.tag, tree.get("role")) == (f"{SVG}svg", "img")
    assert tree.findtext(f"{SVG}title")
    assert addresses(picture) == []
    assert not {each.tag for each in tree.iter()} & {f"{SVG}{tag}" for tag in ("script", "image", "a", "foreignObject")}


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_figures_give_the_same_picture(name: str) -> None:
    assert DRAWN[name]() == DRAWN[name]()


@pytest.mark.parametrize("n", range(len(EDGES)))
def test_one_row_no_row_and_nothing_but_hidden_counts_are_drawn_without_a_warning(n: int) -> None:
    ET.fromstring(EDGES[n]())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cats", ["Cats"]),
        ("  a \n b\t ", ["a b"]),
        ("Watches running videos and buys shoes", ["Watches running videos and", "buys shoes"]),
        ("x" * 40, ["x" * 28, "x" * 12]),
        ("跑" * 20, ["跑" * 14, "跑" * 6]),  # two cells each
        ("跑" * 40, ["跑" * 14, "跑" * 13 + "…"]),
        ("[b]$a$[/b]", ["[b]$a$[/b]"]),
    ],
)
def test_a_name_takes_two_lines_at_most(name: str, expected: list[str]) -> None:
    assert pictures.short(name) == expected


@pytest.mark.parametrize("name", ["$5 or $6", "a_b^c", "跑步与马拉松", "مرحبا", "👟 & <b>"])
def test_no_name_is_taken_for_a_formula_or_for_markup(name: str) -> None:
    assert name in texts(pictures.funnel([(name, 100)]))
    assert name in texts(pictures.overlap([name], [100], [[100]]))
    assert name in texts(pictures.curve(name, [0.1, 0.2], [100, None], 0.1))
    assert name in texts(pictures.special([(name, 120.0, 0.1)]))
    assert name in texts(pictures.shares(group_rates({name: 1000}, {name: 500})))


def test_a_funnel_is_to_scale_with_a_hidden_step_as_long_as_the_next() -> None:
    picture = pictures.funnel([("everyone", 8000), ("Running", 4000), ("Cats", None), ("bought", 1000)])
    lengths = [width for width, _ in boxes(picture, COLOURS[0])]
    assert [each / lengths[0] for each in lengths] == pytest.approx([1, 0.5, 0.125], rel=1e-3)
    assert {"8,000", "4,000", "1,000", "fewer than 50 more than below"} <= set(texts(picture))
    assert hatched(picture) == 1


def test_a_funnel_that_ends_in_few_says_no_more_than_that() -> None:
    shown = texts(pictures.funnel([("everyone", 8000), ("Cats", None)]))
    assert "fewer than 50" in shown
    assert not any("more than below" in each for each in shown)


def test_overlaps_are_shares_of_the_row_s_segment() -> None:
    picture = pictures.overlap(["a", "b"], [1000, 500], [[1000, 250], [250, 500]])
    assert {"25%", "50%", "100%", "250", "1,000", "500"} <= {part for each in texts(picture) for part in each.split("\n")}
    assert hatched(picture) == 0


def test_no_segments_overlap_in_no_picture() -> None:
    assert pictures.overlap([], [], []) == ""


def test_hidden_overlaps_are_hatched_dashes() -> None:
    picture = pictures.overlap(["a", "b"], [1000, 500], [[1000, None], [None, 500]])
    assert texts(picture).count("–") == 2
    assert hatched(picture) == 2


def test_a_curve_marks_the_current_threshold_and_what_is_hidden() -> None:
    picture = pictures.curve("weight", [0.1, 0.2, 0.3, 0.4], [900, 300, None, None], 0.2)
    assert {"now", "weight", "hidden: fewer than 50 people, or from another size"} <= set(texts(picture))
    assert hatched(picture) == 3  # two bands, and one in the legend
    plain = pictures.curve("weight", [0.1, 0.2], [900, 300], None)
    assert hatched(plain) == 0
    assert "now" not in texts(plain)


def test_twice_and_half_the_index_are_equally_far_from_the_rest() -> None:
    picture = pictures.special([("a", 200.0, 0.5), ("b", 50.0, 0.25)])
    assert {"200 · 50%", "50 · 25%"} <= set(texts(picture))
    lines = {}
    for each in ET.fromstring(picture).iter(f"{SVG}path"):
        found = re.fullmatch(r"M ([\d.]+) ([\d.]+)\s+L ([\d.]+) \2\s*", each.get("d", ""))
        for colour in COLOURS[:2]:
            if found and f"stroke: {colour}" in each.get("style", ""):
                lines[colour] = float(found[3]) - float(found[1])
    assert lines[COLOURS[0]] == pytest.approx(-lines[COLOURS[1]], rel=1e-3)


def test_bars_of_who_entered_and_left_are_to_scale() -> None:
    picture = pictures.sizes_over_time(DAYS, [500, 600, 650, 700], [None, 150, 60, 75], [None, 50, None, 75])
    entered = [height for _, height in boxes(picture, COLOURS[2])[: len(DAYS)]]
    left = [height for _, height in boxes(picture, COLOURS[4])[: len(DAYS)]]
    assert [each / entered[1] for each in entered] == pytest.approx([0, 1, 0.4, 0.5], abs=1e-3)
    assert [each / entered[1] for each in left] == pytest.approx([0, 1 / 3, 0, 0.5], abs=1e-3)
    assert {"entered", "left"} <= set(texts(picture))


def test_sizes_that_may_not_be_shown_are_said_to_be_so() -> None:
    assert texts(pictures.sizes_over_time(DAYS, [None] * 4, [None] * 4, [None] * 4)).count("nothing that may be shown") == 2


def test_ratios_under_four_fifths_have_another_colour() -> None:
    picture = pictures.shares(RATES)
    assert {"1.00", "0.60", "0.84", "four fifths"} <= set(texts(picture))
    longest, other = (width for width, _ in boxes(picture, COLOURS[0]))
    (flagged,) = (width for width, _ in boxes(picture, COLOURS[4]))
    assert (other / longest, flagged / longest) == pytest.approx((0.84, 0.6), rel=1e-3)


def test_hidden_ratios_show_their_verdict_alone() -> None:
    shown = texts(pictures.shares(group_rates({"women": 2000, "men": 2000}, {"women": 10, "men": 500})))
    assert {"ratio hidden: under four fifths", "ratio hidden: four fifths or more"} <= set(shown)
    assert not any(re.fullmatch(r"\d\.\d\d", each) for each in shown)
