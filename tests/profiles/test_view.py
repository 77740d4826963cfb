"""The view: weights, index, confidence and trend worked out by hand, and against the reference."""

from datetime import UTC, datetime
from math import log2
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.profiles.fold import KEY, population
from penchant.profiles.policy import Policy
from penchant.profiles.view import by_dimension, heading, view
from penchant.records import state_schema
from tests.profiles import reference
from tests.profiles.engines import Duck

POLICY = Policy(shrinkage=2.0)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
duck = Duck()


def states(*rows: tuple[str, str, float, float], dimensions: dict[str, str] | None = None) -> pa.Table:
    """A state given as (user, value, recent mass, lasting mass); values are interests unless `dimensions` says otherwise."""
    more = {"events": 1, "first_at": NOW, "last_at": NOW, "last_positive_at": NOW, "sources": ["shop"], "as_of": NOW}
    return pa.Table.from_pylist(
        [
            {"user_id": user, "dimension": (dimensions or {}).get(value, "interest"), "value": value}
            | {"mass_recent": recent, "mass_lasting": lasting}
            | more
            for user, value, recent, lasting in rows
        ],
        state_schema(POLICY.horizons),
    )


def viewed(
    *rows: tuple[str, str, float, float], dimensions: dict[str, str] | None = None, users: tuple[str, ...] = ()
) -> dict[tuple[str, str], dict[str, Any]]:
    """The view of those users, or all, among the population that the rows are."""
    everybody = states(*rows, dimensions=dimensions)
    state = pa.Table.from_pylist([row for row in everybody.to_pylist() if not users or row["user_id"] in users], everybody.schema)
    totals = duck(lambda state: population(state, POLICY, NOW), "population", state=everybody)
    found = duck(lambda state, totals: view(state, totals, POLICY), "view", state=state, totals=totals).to_pylist()
    assert len({tuple(row[name] for name in KEY) for row in found}) == len(found)
    return {(row["user_id"], row["value"]): row for row in found}


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
    # of the population it does: run 4, cats −3 + 4 → π = 4/5 and 1/5
    assert found["u", "run"]["weight"] == pytest.approx((4 + 2 * 4 / 5) / 6)
    assert found["v", "cats"]["weight"] == pytest.approx((4 + 2 * 1 / 5) / 6)
    assert found["v", "cats"]["mass"] == 4


def test_what_the_population_is_against_has_no_index_and_no_share() -> None:
    rows = (("u", "run", 1.0, 4.0), ("u", "cats", 0.0, 4.0), ("u", "books", 0.5, 8.0), ("v", "cats", 0.0, -5.0), ("w", "books", 0.0, -8.0))
    found = viewed(*rows)
    # run 4, cats −1, books 0: all of π is run's, and the others' weight is the user's own alone
    assert found["u", "run"]["index"] == pytest.approx(100 * (4 + 2) / (16 + 2) / 1)
    assert [found["u", value]["index"] for value in ("cats", "books")] == [None, None]
    assert found["u", "cats"]["weight"] == pytest.approx(4 / 18)
    assert found["u", "books"]["weight"] == pytest.approx(8 / 18)
    assert sum(row["weight"] for row in found.values()) == pytest.approx(1)
    # lately: nothing of the cats, 0.5 of 1.5 + κ of the books
    assert found["u", "cats"]["trend"] is None
    assert found["u", "books"]["trend"] == pytest.approx(log2((0.5 / 3.5) / (8 / 18)))


def test_who_was_not_seen_lately_drifts_to_the_population() -> None:
    found = viewed(("u", "run", 0.0, 6.0), ("u", "cats", 0.0, 2.0), ("v", "cats", 2.0, 2.0))
    # lately nothing but π is left of u: 0.6 and 0.4
    assert found["u", "run"]["trend"] == pytest.approx(log2(0.6 / 0.72))
    assert found["u", "cats"]["trend"] == pytest.approx(log2(0.4 / 0.28))


def test_nobody_with_anything_gives_an_empty_view() -> None:
    assert viewed(("u", "run", -1.0, -1.0)) == {}
    assert viewed(("u", "run", 1.0, 0.0)) == {}
    assert viewed() == {}


def test_a_user_alone_is_seen_among_all() -> None:
    rows = (("u", "run", 3.0, 6.0), ("u", "cats", 0.0, 2.0), ("v", "cats", 2.0, 2.0), ("v", "books", -1.0, -1.0))
    everybody = viewed(*rows)
    assert viewed(*rows, users=("u",)) == {key: row for key, row in everybody.items() if key[0] == "u"}


def test_what_a_user_has_in_one_dimension_changes_nothing_in_another() -> None:
    interests = (("u", "run", 3.0, 6.0), ("u", "cats", 0.0, 2.0), ("v", "cats", 2.0, 2.0))
    brands = (("u", "nike", 50.0, 100.0), ("v", "nike", 1.0, 1.0), ("v", "asics", 1.0, 1.0))
    alone, together = viewed(*interests), viewed(*interests, *brands, dimensions={"nike": "brand", "asics": "brand"})
    for key, row in alone.items():
        assert together[key] == row
    # brands: nike 101 of 102; u: (100 + 2 · 101/102) / 102
    assert together["u", "nike"]["weight"] == pytest.approx((100 + 2 * 101 / 102) / 102)


masses = st.just(0.0) | st.floats(-10, 10).map(lambda mass: round(mass, 3))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.sampled_from(["run", "cats", "nike", "asics"]), masses, masses),
        max_size=12,
        unique_by=lambda each: each[:2],
    )
)
def test_the_view_equals_the_reference(rows: list[tuple[str, str, float, float]]) -> None:
    dimensions = {"nike": "brand", "asics": "brand"}
    found = viewed(*rows, dimensions=dimensions)
    state: dict[reference.Key, reference.Row] = {
        (user, dimensions.get(value, "interest"), value): {
            "mass_recent": recent,
            "mass_lasting": lasting,
            "size_recent": 1,
            "size_lasting": 1,
        }
        for user, value, recent, lasting in rows
    }
    expected = reference.view(state, reference.population(state, POLICY), POLICY)
    assert {(row["user_id"], row["dimension"], row["value"]) for row in found.values()} == set(expected)
    for (user, _, value), row in expected.items():
        shown = {name: found[user, value][name] for name in row}
        assert [name for name, each in shown.items() if each is None] == [name for name, each in row.items() if each is None]
        assert {name: each for name, each in shown.items() if each is not None} == pytest.approx(
            {name: each for name, each in row.items() if each is not None}, rel=1e-9, abs=1e-12
        )


def test_dimensions_stand_in_their_order_and_attributes_in_theirs() -> None:
    names = ["place", "zodiac", "hour", "brand", "interest", "actor", "product", "interest", "spend", "work", "brand"]
    rows = [{"dimension": dimension, "value": n} for n, dimension in enumerate(names)]
    found = {dimension: [row["value"] for row in each] for dimension, each in by_dimension(rows).items()}
    assert list(found.items()) == [
        ("interest", [4, 7]),
        ("brand", [3, 10]),
        ("product", [6]),
        ("work", [9]),
        ("place", [0]),
        ("hour", [2]),
        ("spend", [8]),
        ("actor", [5]),
        ("zodiac", [1]),
    ]
    assert by_dimension([]) == {}


def test_a_dimension_nobody_foresaw_has_a_heading_too() -> None:
    assert [heading(each) for each in ("interest", "brand", "hour", "zodiac")] == ["Interests", "Brands", "Active hours", "Zodiac"]
