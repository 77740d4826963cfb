"""Consumption habits, worked out by hand."""

from datetime import UTC, datetime, timedelta, timezone
from math import log, sqrt
from random import Random
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa
import pytest

from penchant.profiles.fold import contributions, dated, fold, joined, population
from penchant.profiles.habits import HABITS, WEEKDAYS, habits, summary
from penchant.profiles.policy import Policy
from penchant.profiles.view import view
from penchant.records import EVENTS
from penchant.taxonomy import Taxonomy
from tests.profiles.engines import Duck
from tests.snapshots import NOON, TAXONOMY, event

POLICY = Policy(habits=True)
duck = Duck()
Row = dict[str, Any]


def rows_of(events: list[Row], policy: Policy = POLICY) -> list[Row]:
    """The rows of `habits`."""
    arrow = pa.Table.from_pylist(events, EVENTS)
    return duck(lambda events: habits(dated(events), policy), policy.fingerprint, events=arrow).to_pylist()


def found(events: list[Row], dimension: str, policy: Policy = POLICY) -> list[tuple[str, str, float]]:
    """Event, value and contribution of each row of a dimension."""
    rows = [row for row in rows_of(events, policy) if row["dimension"] == dimension]
    return sorted((row["event_id"], row["value"], row["contribution"]) for row in rows)


def at(*times: datetime) -> list[Row]:
    """Events at those times, e0, e1, …"""
    return [event(n, "run", "u") | {"occurred_at": moment} for n, moment in enumerate(times)]


def clock(moment: datetime, offset_hours: float = 0.0) -> tuple[str, str]:
    """Hour and weekday that one event falls on."""
    policy = Policy(habits=True, habit_utc_offset_hours=offset_hours)
    [(_, hour, _)], [(_, weekday, _)] = (found(at(moment), dimension, policy) for dimension in ("hour", "weekday"))
    return hour, weekday


def profile(events: list[Row], policy: Policy, taxonomy: Taxonomy = TAXONOMY) -> list[Row]:
    """The view of what events without tags come to at `NOON`."""

    def make(events: ir.Table) -> ir.Table:
        nothing = (
            events.mutate(dimension=events.user_id, value=events.user_id, score=0.0)
            .filter(events.user_id == "")
            .select("text_key", "dimension", "value", "score")
        )
        return fold(contributions(joined(events, nothing, policy), events, policy, taxonomy), policy, NOON)

    state = duck(make, events=pa.Table.from_pylist(events, EVENTS))
    return duck(lambda state: view(state, population(state, policy, NOON), policy), state=state).to_pylist()


def test_each_event_counts_once_in_each_dimension_whatever_it_is_worth() -> None:
    events = [
        event(1, "run", "u", source="shop", action="view", rating=1.0),
        event(2, "run", "u", source="web", action="refund", title=None),
        event(3, "run", "v", source="shop", action="unheard"),
    ]
    policy = Policy(habits=True, source_weights={"shop": 0.0}, minimum_score=1.0, daily_ceiling=0.1)
    assert found(events, "source", policy) == [("e1", "shop", 1), ("e2", "web", 1), ("e3", "shop", 1)]
    assert found(events, "action", policy) == [("e1", "view", 1), ("e2", "refund", 1), ("e3", "unheard", 1)]
    assert found(events, "hour", policy) == [(f"e{n}", "12", 1) for n in (1, 2, 3)]
    assert found(events, "weekday", policy) == [(f"e{n}", "sun", 1) for n in (1, 2, 3)]
    assert found(events, "spend", policy) == []
    rows = rows_of(events, policy)
    assert {row["dimension"] for row in rows} == set(HABITS) - {"spend"}
    assert {(row["event_id"], row["user_id"]) for row in rows} == {("e1", "u"), ("e2", "u"), ("e3", "v")}


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 3, 1, 12, tzinfo=UTC), ("12", "sun")),
        (datetime(2026, 3, 1, 11, 59, 59, 999_999, tzinfo=UTC), ("11", "sun")),
        (datetime(2026, 3, 1, tzinfo=UTC), ("00", "sun")),
        (datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC), ("23", "sat")),
        (datetime(2024, 2, 29, 7, 30, tzinfo=UTC), ("07", "thu")),
        (datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=9))), ("00", "sun")),  # an instant is the same however it is written
        (datetime(1970, 1, 5, tzinfo=UTC), ("00", "mon")),
        (datetime(1970, 1, 4, 23, 59, 59, 999_999, tzinfo=UTC), ("23", "sun")),
        (datetime(1970, 1, 1, tzinfo=UTC), ("00", "thu")),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), ("23", "wed")),
        (datetime(1969, 12, 29, tzinfo=UTC), ("00", "mon")),
        (datetime(1969, 12, 28, 5, 1, tzinfo=UTC), ("05", "sun")),
        (datetime(1900, 1, 1, 22, tzinfo=UTC), ("22", "mon")),
        (datetime(1, 1, 1, 3, tzinfo=UTC), ("03", "mon")),
        (datetime(2199, 12, 31, 23, tzinfo=UTC), ("23", "tue")),
    ],
)
def test_hours_and_weekdays_are_those_of_the_calendar(moment: datetime, expected: tuple[str, str]) -> None:
    assert clock(moment) == expected


@pytest.mark.parametrize(
    ("hour", "minute", "offset", "expected", "just_before"),
    [
        (15, 0, 9.0, ("00", "mon"), ("23", "sun")),  # Tokyo
        (5, 0, -5.0, ("00", "sun"), ("23", "sat")),  # Bogotá
        (18, 30, 5.5, ("00", "mon"), ("23", "sun")),  # Mumbai
        (18, 15, 5.75, ("00", "mon"), ("23", "sun")),  # Kathmandu
        (3, 30, -3.5, ("00", "sun"), ("23", "sat")),  # St. John's
        (10, 0, 14.0, ("00", "mon"), ("23", "sun")),
        (11, 0, -12.0, ("23", "sat"), ("22", "sat")),
    ],
)
def test_the_clock_is_the_policys(hour: int, minute: int, offset: float, expected: tuple[str, str], just_before: tuple[str, str]) -> None:
    moment = datetime(2026, 3, 1, hour, minute, tzinfo=UTC)
    assert clock(moment, offset) == expected
    assert clock(moment - timedelta(microseconds=1), offset) == just_before


def test_no_event_slips_into_the_hour_beside_its_own() -> None:
    random, first = Random(0), datetime(1990, 1, 1, tzinfo=UTC)
    full = [first + timedelta(hours=random.randrange(39 * 365 * 24)) for _ in range(3000)]
    times = [hour + timedelta(microseconds=n) for hour in full for n in (-1, 0, 1)]
    expected = sorted((f"e{n}", f"{moment.hour:02}", 1.0) for n, moment in enumerate(times))
    assert found(at(*times), "hour") == expected
    assert found(at(*times), "weekday") == sorted((f"e{n}", WEEKDAYS[moment.weekday()], 1.0) for n, moment in enumerate(times))


def test_what_is_bought_counts_as_spent_and_what_is_refunded_as_given_back() -> None:
    events = [
        event(1, "run", "u", action="purchase", amount=20.0, currency="EUR"),
        event(2, "run", "u", action="refund", amount=5.0, currency="EUR"),
        event(3, "run", "u", action="purchase", amount=900.0, currency="JPY"),
        event(4, "run", "u", action="purchase", amount=7.5),
        event(5, "run", "u", action="view", amount=99.0, currency="EUR"),
        event(6, "run", "u", action="unsave", amount=99.0, currency="EUR"),
        event(7, "run", "u", action="purchase", currency="EUR"),
        event(8, "run", "u", action="purchase", amount=0.0, currency="USD"),
    ]
    assert found(events, "spend") == [("e1", "EUR", 20), ("e2", "EUR", -5), ("e3", "JPY", 900), ("e4", "unknown", 7.5), ("e8", "USD", 0)]
    rented = Policy(habits=True, spend_actions={"rent": 1, "unsave": -1})
    assert found([*events, event(9, "run", "u", action="rent", amount=3.0, currency="EUR")], "spend", rented) == [
        ("e6", "EUR", -99),
        ("e9", "EUR", 3),
    ]
    assert found(events, "spend", Policy(habits=True, spend_actions={})) == []
    careless = Policy(habits=True, action_weights={"refund": 0.0})  # what refunds say of interests is another matter
    assert found(events, "spend", careless) == found(events, "spend")


def test_spending_fades_by_its_own_half_life_and_a_refund_by_the_day_it_was_made() -> None:
    policy = Policy(habits=True, dimension_half_life_days={"spend": {"lasting": 30.0}}, shrinkage=1.0)
    events = [
        event(1, "run", "u", 60, action="purchase", amount=100.0, currency="EUR"),
        event(2, "run", "u", 30, action="refund", amount=30.0, currency="EUR"),
        event(3, "run", "u", 0, action="purchase", amount=3.0, currency="CHF"),
        event(4, "run", "u", 0, action="refund", amount=4.0, currency="CHF"),
    ]
    rows = {(row["dimension"], row["value"]): row for row in profile(events, policy)}
    # 100/4 − 30/2 = 10; of the francs more came back than went out, and that is no spending
    assert rows["spend", "EUR"]["mass"] == pytest.approx(10)
    assert rows["spend", "EUR"]["events"] == 2
    assert rows["spend", "EUR"]["last_positive_at"] == NOON - timedelta(days=60)
    assert ("spend", "CHF") not in rows
    assert rows["action", "purchase"]["mass"] == pytest.approx(2 ** (-60 / 90) + 1)


def attribute(dimension: str, value: str, mass: float, events: int = 1, first: float = 0.0, last: float = 0.0) -> Row:
    """An attribute of a view, its first and last event so many days before `NOON`."""
    times = {"first_at": NOON - timedelta(days=first), "last_at": NOON - timedelta(days=last)}
    return {"dimension": dimension, "value": value, "mass": mass, "events": events} | times


def test_a_summary_says_when_how_often_and_for_how_much() -> None:
    policy = Policy(habits=True, dimension_half_life_days={"spend": {"lasting": 30.0}, "action": {"recent": 1.0}})
    attributes = [
        attribute("interest", "sports.running", 1000.0, 1000),
        attribute("source", "web", 3.0, 4, first=200, last=20),
        attribute("source", "shop", 9.0, 9, first=100, last=2.5),
        attribute("action", "view", 6.0, 8, first=200, last=2.5),
        attribute("action", "purchase", 3.0, 5, first=90, last=10),
        attribute("hour", "20", 4.0),
        attribute("hour", "07", 7.0),
        attribute("hour", "08", 4.0),
        attribute("weekday", "sat", 12.0),
        attribute("spend", "EUR", 60.0),
        attribute("spend", "unknown", 0.5),
    ]
    found = summary(attributes, policy, NOON)
    assert found["recency_days"] == 2.5
    assert found["last_purchase_days"] == 10
    # mass · ln 2 / h · 30 with h = 90, and 30 for spending; of what a steady rate comes to, 200 days have made 1 − 2^(−200/h)
    made, made_of_spending = 1 - 2 ** (-200 / 90), 1 - 2 ** (-200 / 30)
    assert found["events_per_30_days"] == pytest.approx(12 * log(2) / 3 / made)
    assert found["frequency_per_30_days"] == {"view": pytest.approx(2 * log(2) / made), "purchase": pytest.approx(log(2) / made)}
    spent = {"EUR": pytest.approx(60 * log(2) / made_of_spending), "unknown": pytest.approx(0.5 * log(2) / made_of_spending)}
    assert found["spend_per_30_days"] == spent
    assert found["purchase_cycle_days"] == pytest.approx(80 / 4)
    assert list(found["hours"].items()) == [("07", pytest.approx(7 / 15)), ("08", pytest.approx(4 / 15)), ("20", pytest.approx(4 / 15))]
    assert found["weekdays"] == {"sat": 1.0}
    assert list(found["sources"].items()) == [("shop", 0.75), ("web", 0.25)]


def test_who_bought_once_or_never_has_no_purchase_cycle() -> None:
    source = attribute("source", "shop", 1.0)
    once = summary([source, attribute("action", "purchase", 1.0, last=4, first=4)], POLICY, NOON)
    assert (once["last_purchase_days"], once["purchase_cycle_days"]) == (4, None)
    never = summary([source, attribute("action", "view", 1.0, 9)], POLICY, NOON)
    assert (never["last_purchase_days"], never["purchase_cycle_days"]) == (None, None)
    assert (never["spend_per_30_days"], never["hours"]) == ({}, {})


def test_without_habits_there_is_no_summary() -> None:
    assert summary([], POLICY, NOON) == {}
    assert summary([attribute("interest", "sports.running", 1.0), attribute("brand", "nike", 1.0)], POLICY, NOON) == {}


def test_a_new_user_has_the_rate_of_the_days_it_is_known() -> None:
    daily = [event(n, "run", "u", n, action="view") for n in range(60)]
    policy = Policy(habits=True, half_life_days={"recent": 7.0, "lasting": 90.0})
    # one a day, within the half day by which sums and integrals differ
    assert summary(profile(daily, policy), policy, NOON)["events_per_30_days"] == pytest.approx(30, rel=0.03)
    once = summary(profile(daily[:1], policy), policy, NOON)
    assert once["events_per_30_days"] == pytest.approx(log(2) / 3 / (1 - 2 ** (-1 / 3)))  # as if it were known for 30 days


def test_a_steady_rate_is_read_off_the_mass() -> None:
    policy = Policy(habits=True, half_life_days={"recent": 1.0, "lasting": 2.0})
    events = [event(n, "run", "u", n, action="purchase", amount=10.0, currency="EUR") for n in range(80)]
    found = summary(profile(events, policy), policy, NOON)
    # one a day for 40 half-lives: Σ 2^(−n/2) = 1/(1 − 1/√2) = 2 + √2, times ln 2 / 2 a day
    assert found["events_per_30_days"] == pytest.approx((2 + sqrt(2)) * log(2) / 2 * 30, rel=1e-9)
    assert found["spend_per_30_days"] == {"EUR": pytest.approx((2 + sqrt(2)) * log(2) / 2 * 300, rel=1e-9)}
    assert found["purchase_cycle_days"] == pytest.approx(1)
    assert found["recency_days"] == found["last_purchase_days"] == 0
    assert found["hours"] == {"12": 1.0}
    assert next(iter(found["weekdays"])) == "sun"
    # the weekdays of the last week have 1, 1/√2, 1/2, …: Sunday's share is (1 − 2^−½) / (1 − 2^−7⁄2)
    assert found["weekdays"]["sun"] == pytest.approx((1 - 2**-0.5) / (1 - 2**-3.5), rel=1e-6)
