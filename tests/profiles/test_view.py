"""The view: weights, index, confidence and trend worked out by hand."""

from datetime import UTC, datetime
from math import log2
from typing import Any

import ibis
import pyarrow as pa
import pytest

from penchant.profiles.policy import Policy
from penchant.profiles.view import by_dimension, heading, view
from penchant.records import state_schema

POLICY = Policy(shrinkage=2.0)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def viewed(*rows: tuple[str, str, float, float], dimensions: dict[str, str] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """The view of a state given as (user, value, recent mass, lasting mass); values are interests unless `dimensions` says otherwise."""
    more = {"events": 1, "first_at": NOW, "last_at": NOW, "sources": ["shop"], "evidence": [], "as_of": NOW}
    table = pa.Table.from_pylist(
        [
            {"user_id": user, "dimension": (dimensions or {}).get(value, "interest"), "value": value}
            | {"mass_recent": recent, "mass_lasting": lasting}
            | more
            for user, value, recent, lasting in rows
        ],
        state_schema(POLICY.horizons),
    )
    return {(row["user_id"], row["value"]): row for row in view(ibis.memtable(table), POLICY).to_pyarrow().to_pylist()}


def test_weight_is_a_share_drawn_to_the_population() -> None:
    # population: run 6 + 0, cats 2 + 2 → π = 0.6 and 0.4; κ = 2
    found = viewed(("u", "run", 3.0, 6.0), ("u", "cats", 0.0, 2.0), ("v", "cats", 2.0, 2.0))
    assert found["u", "run"]["weight"] == pytest.approx((6 + 2 * 0.6) / (8 + 2))
    assert found["u", "cats"]["weight"] == pytest.approx((2 + 2 * 0.4) / (8 + 2))
    assert found["v", "cats"]["weight"] == pytest.approx((2 + 2 * 0.4) / (2 + 2))
    assert found["u", "run"]["index"] == pytest.approx(100 * 0.72 / 0.6)
    assert found["u", "run"]["confidence"] == pytest.approx(8 / 10)
    assert found["v", "cats"]["confidence"] == pytest.approx(2 / 4)


def test_trend_compares_the_recent_share_with_the_lasting_one() -> None:
    found = viewed(("u", "run", 3.0, 6.0), ("u", "cats", 0.0, 2.0), ("v", "cats", 2.0, 2.0))
    # lately u's run: (3 + 1.2) / (3 + 2) = 0.84 against 0.72
    assert found["u", "run"]["trend"] == pytest.approx(log2(0.84 / 0.72))
    assert found["u", "cats"]["trend"] == pytest.approx(log2((0 + 0.8) / 5 / 0.28))


def test_weights_of_a_user_and_the_untouched_rest_sum_to_one() -> None:
    found = viewed(("u", "run", 1.0, 5.0), ("u", "cats", 1.0, 1.0), ("v", "books", 1.0, 4.0))
    rest = POLICY.shrinkage * (4 / 10) / (6 + POLICY.shrinkage)  # u never touched books, whose share is 0.4
    assert found["u", "run"]["weight"] + found["u", "cats"]["weight"] + rest == pytest.approx(1.0)


def test_negative_mass_counts_as_none() -> None:
    found = viewed(("u", "run", 1.0, 4.0), ("u", "cats", -2.0, -3.0), ("v", "cats", 1.0, 4.0))
    assert ("u", "cats") not in found
    assert found["u", "run"]["confidence"] == pytest.approx(4 / 6)  # the cats' −3 takes nothing away


def test_nobody_with_anything_gives_an_empty_view() -> None:
    assert viewed(("u", "run", -1.0, -1.0)) == {}


def test_what_a_user_has_in_one_dimension_changes_nothing_in_another() -> None:
    interests = (("u", "run", 3.0, 6.0), ("u", "cats", 0.0, 2.0), ("v", "cats", 2.0, 2.0))
    brands = (("u", "nike", 50.0, 100.0), ("v", "nike", 1.0, 1.0), ("v", "asics", 1.0, 1.0))
    alone, together = viewed(*interests), viewed(*interests, *brands, dimensions={"nike": "brand", "asics": "brand"})
    for key, row in alone.items():
        assert together[key] == row
    # brands: nike 101 of 102; u: (100 + 2 · 101/102) / 102
    assert together["u", "nike"]["weight"] == pytest.approx((100 + 2 * 101 / 102) / 102)


def test_dimensions_stand_in_their_order_and_attributes_in_theirs() -> None:
    names = ["place", "zodiac", "brand", "interest", "actor", "product", "interest", "work", "brand"]
    rows = [{"dimension": dimension, "value": n} for n, dimension in enumerate(names)]
    found = {dimension: [row["value"] for row in each] for dimension, each in by_dimension(rows).items()}
    assert list(found.items()) == [
        ("interest", [3, 6]),
        ("brand", [2, 8]),
        ("product", [5]),
        ("work", [7]),
        ("place", [0]),
        ("actor", [4]),
        ("zodiac", [1]),
    ]
    assert by_dimension([]) == {}


def test_a_dimension_nobody_foresaw_has_a_heading_too() -> None:
    assert [heading(each) for each in ("interest", "brand", "zodiac")] == ["Interests", "Brands", "Zodiac"]
