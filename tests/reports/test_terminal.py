"""The profile drawn in a terminal: bars to scale, figures as people read them, texts as they are."""

import io
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from penchant.profiles.policy import Policy
from penchant.reports.terminal import draw_profile, trend_arrow
from penchant.taxonomy import Node, Taxonomy

NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
TAXONOMY = Taxonomy(nodes=(Node(id="run", name="Running"), Node(id="cats", name="Cats & [bold]kittens[/bold]")))


def row(value: str, weight: float, *snippets: str, **more: Any) -> dict[str, Any]:
    """One attribute of a profile."""
    evidence = [
        {"contribution": -1.25, "occurred_at": NOON, "source": "shop", "action": "refund", "snippet": snippet} for snippet in snippets
    ]
    base = {
        "label": TAXONOMY.label(value),
        "dimension": "interest",
        "value": value,
        "weight": weight,
        "index": 149.6,
        "trend": 0.0,
        "confidence": 0.876,
    }
    return base | {"events": 3, "last_at": NOON, "evidence": evidence} | more


def drawn(*rows: dict[str, Any], user: str = "u", as_of: datetime = NOON, top: int | None = None) -> list[str]:
    """The lines a wide terminal without colours shows."""
    stream = io.StringIO()
    draw_profile(
        user, list(rows), Policy(), as_of, top, Console(file=stream, width=200, color_system=None, highlight=False, soft_wrap=True)
    )
    return stream.getvalue().splitlines()


def test_heading_names_user_instant_and_confidence() -> None:
    assert drawn(row("run", 0.5), user="[u]")[0] == "[u]  as of 2026-03-01 12:30 UTC, confidence 0.88"


def test_bars_are_to_the_scale_of_the_strongest() -> None:
    lines = [line for line in drawn(row("run", 0.5), row("cats", 0.25), row("x", 0.0001)) if "█" in line]
    assert [line.count("█") for line in lines] == [30, 15, 1]  # even the faintest is seen


def test_figures_stand_beside_the_name_people_read() -> None:
    found = drawn(row("run", 0.1234, trend=1.0))[2]
    assert found.startswith("Running  ")
    assert found.endswith("weight 0.123  index 150  trend ↗ ×2.0  3 events, last 2026-03-01")


def test_a_value_outside_the_taxonomy_is_shown_as_it_is() -> None:
    assert drawn(row("gone.node", 0.5))[2].startswith("gone.node ")


def test_dimensions_stand_below_each_other_with_heading_scale_and_top_of_their_own() -> None:
    found = drawn(
        row("nike", 0.08, label="Nike", dimension="brand", confidence=0.4),
        row("run", 0.5),
        row("zara", 0.02, label="ZARA", dimension="brand", confidence=0.4),
        row("cats", 0.25),
        row("x", 0.1),
        row("paris", 0.001, label="Paris", dimension="place", confidence=0.125),
        row("leo", 0.9, dimension="zodiac", confidence=0.5),
        top=2,
    )
    assert [line.split("█")[0].strip() for line in found if line] == [
        "u  as of 2026-03-01 12:30 UTC, confidence 0.88",  # that of the interests
        "Interests, confidence 0.88",
        "Running",
        "Cats & [bold]kittens[/bold]",
        "Brands, confidence 0.40",
        "Nike",
        "ZARA",
        "Places, confidence 0.12",
        "Paris",
        "Zodiac, confidence 0.50",
        "leo",
    ]
    assert [line.count("█") for line in found if "█" in line] == [30, 15, 30, 8, 30, 30]  # 30 · 0.02/0.08 = 7.5, rounded to even


def test_interests_alone_need_no_heading_and_another_dimension_does() -> None:
    assert "Interests" not in "\n".join(drawn(row("run", 0.5), row("cats", 0.5)))
    found = drawn(row("nike", 0.5, label="Nike", dimension="brand", confidence=0.25))
    assert found[0].endswith("confidence 0.25")
    assert found[2] == "Brands, confidence 0.25"


@pytest.mark.parametrize("longest", ["跑步", "跑鞋测评与马拉松训练计划大全及装备推荐", "👟 shoes", "x" * 60])
def test_bars_stand_below_each_other_whatever_the_script(longest: str) -> None:
    lines = [
        line
        for line in drawn(row("run", 0.5), row("cats", 0.4), row("r", 0.3, label="飞马", dimension="product"), row("s", 0.5, label=longest))
        if "█" in line
    ]
    width = max(28, cell_len(longest) + 1)  # a Chinese character and an emoji are two cells wide
    assert [cell_len(line.split("█")[0]) for line in lines] == [width] * 4
    assert len({cell_len(line.split("weight")[0]) for line in lines}) == 1


@pytest.mark.parametrize("text", ["[bold red]not a style[/]", "[/] ]", "ラーメン 🍜 :smile:", "https://shop.example/x?[1]", "", "x" * 160])
def test_texts_are_shown_as_they_are(text: str) -> None:
    assert drawn(row("cats", 0.5, text))[3] == f"    -1.25  2026-03-01 shop/refund: {text}"
    assert "Cats & [bold]kittens[/bold]" in drawn(row("cats", 0.5))[2]


def test_instant_of_the_snapshot_is_the_one_shown() -> None:
    other = datetime(2025, 12, 31, 23, 59, tzinfo=UTC)
    assert "as of 2025-12-31 23:59 UTC" in drawn(row("run", 0.5), as_of=other)[0]


def test_what_has_no_figure_is_shown_as_none() -> None:
    assert "index –  trend ↘ ×0  3 events" in drawn(row("run", 0.5, index=None, trend=None))[2]


def habit(dimension: str, value: str, mass: float, **more: Any) -> dict[str, Any]:
    """One attribute of a habit."""
    base = {"label": value, "dimension": dimension, "value": value, "mass": mass, "weight": 1.0, "index": 100.0, "trend": 0.0}
    return base | {"confidence": 0.5, "events": 2, "first_at": NOON, "last_at": NOON, "evidence": []} | more


def test_habits_are_summed_up_in_charts_and_figures() -> None:
    bought = {"first_at": NOON - timedelta(days=30), "events": 4}
    habits = [habit("hour", "00", 4.0), habit("hour", "23", 2.0), habit("weekday", "sun", 1.0), habit("source", "shop", 3.0)]
    habits += [habit("source", "social", 1.0), habit("action", "purchase", 1.0, **bought), habit("spend", "EUR", 90 / math.log(2))]
    found = drawn(row("run", 0.5), *habits, as_of=NOON + timedelta(days=2))
    assert found[found.index("Habits") + 1 :] == [
        "    hours    0 █" + " " * 22 + "▄ 23      weekdays  Mon       █ Sun",
        # known for 30 days, in which a steady rate comes to 1 − 2^(−30/90) of its mass: 4 · ln 2 / 90 · 30 / 0.2063 = 4.48
        "    last seen 2.0 days ago, 4.5 events per 30 days lately",
        "    spends 145.42 EUR per 30 days, buys every 10 days",  # 90/ln 2 · ln 2/90 · 30 / 0.2063; 30 days between 4 purchases
        "    sources  shop 75%, social 25%",
    ]
    alone = drawn(*habits)
    assert alone[0].endswith("nothing but habits")
    assert not any("█ weight" in line for line in alone)


@pytest.mark.parametrize(
    ("trend", "shown"),
    [(0.0, "→ ×1.0"), (1.0, "↗ ×2.0"), (-1.0, "↘ ×0.5"), (0.25, "→ ×1.2"), (-0.25, "→ ×0.8"), (0.26, "↗ ×1.2"), (3.0, "↗ ×8.0")],
)
def test_trend_is_an_arrow_with_its_factor(trend: float, shown: str) -> None:
    assert trend_arrow(trend) == shown
