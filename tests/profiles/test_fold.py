"""The fold against its definition: by hand, and against a plain-Python reference over random events."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.ingest.clean import document
from penchant.profiles.fold import (
    KEY,
    add_surfaces,
    best_tags,
    contributions,
    evidence,
    fold,
    frequent_surfaces,
    joined,
    masses_over_time,
    merge,
    microseconds,
    once_each,
    population,
    repeated_hashes,
    surfaces,
    tagged,
)
from penchant.profiles.policy import Policy
from penchant.records import EVENTS, EVIDENCE, KEPT, SURFACES, TAGS, state_schema
from penchant.taxonomy import Node, Taxonomy
from tests.profiles import reference
from tests.profiles.engines import Duck
from tests.snapshots import permits

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAXONOMY = Taxonomy(nodes=(Node(id="run", name="Running"), Node(id="cats", name="Cats"), Node(id="faith", name="Faith", sensitive=True)))
RUN = ("u", "interest", "run")
duck = Duck()
Row = dict[str, Any]


def event(number: int, text_key: str = "a", user: str = "u", days_ago: float = 0.0, **more: Any) -> Row:
    """One event with every column of the contract."""
    base = {field.name: None for field in EVENTS} | {"title": f"title {text_key}", "source": "shop", "action": "click"}
    base |= {"event_id": f"e{number}", "user_id": user, "text_key": text_key, "occurred_at": NOON - timedelta(days=days_ago)}
    return base | more


def tag(text_key: str, value: str, score: float = 1.0, dimension: str = "interest") -> Row:
    """One tag."""
    return {"text_key": text_key, "dimension": dimension, "value": value, "score": score, "start": None, "end": None}


def span(text_key: str, value: str, start: int, end: int, score: float = 1.0, dimension: str = "brand") -> Row:
    """One tag of a span."""
    return tag(text_key, value, score, dimension) | {"start": start, "end": end}


def tables(events: list[Row], tags: list[Row]) -> dict[str, pa.Table]:
    """Both as Arrow."""
    return {"events": pa.Table.from_pylist(events, EVENTS), "tags": pa.Table.from_pylist(tags, TAGS)}


def rows_of(events: ir.Table, tags: ir.Table, policy: Policy, kept: bool = False) -> ir.Table:
    """Contributions of events as they come, or as they are kept."""
    once = once_each(events)
    best = best_tags(tags, once)
    once, best = as_kept(once, best) if kept else (once, best)
    return contributions(joined(once, best, policy), once, policy, TAXONOMY)


def as_kept(events: ir.Table, best: ir.Table) -> tuple[ir.Table, ir.Table]:
    """Events and the tags of their texts as profiles keep them, the tags of another version among them."""
    others = best.mutate(tagging=ibis.literal(4, "int64"), score=best.score / 2)
    return events.mutate(tagging=ibis.literal(3, "int64")), best.mutate(tagging=ibis.literal(3, "int64")).union(others)


def by_key(state: pa.Table) -> dict[reference.Key, Row]:
    """Rows by their key, each of which is another."""
    found = {tuple(row[name] for name in KEY): row for row in state.to_pylist()}
    assert len(found) == len(state)
    return found  # type: ignore[return-value]


def states(
    events: list[Row],
    tags: list[Row],
    policy: Policy,
    as_of: datetime = NOON,
    kept: bool = False,
    sources: tuple[str, ...] | None = None,
) -> pa.Table:
    """Profile state."""
    key = ("fold", policy.fingerprint, as_of, kept, sources)
    found = duck(lambda e, t: fold(rows_of(e, t, policy, kept), policy, as_of, sources), key, **tables(events, tags))
    assert [(each.name, each.type) for each in found.schema] == [(each.name, each.type) for each in state_schema(policy.horizons)]
    return found


def folded(events: list[Row], tags: list[Row], policy: Policy, as_of: datetime = NOON) -> dict[reference.Key, Row]:
    """The profile state by key."""
    return by_key(states(events, tags, policy, as_of))


def merged(parts: list[pa.Table], policy: Policy, as_of: datetime = NOON) -> dict[reference.Key, Row]:
    """Parts of a state put together, by key."""
    return by_key(duck(lambda state: merge(state, policy, as_of), ("merge", policy.fingerprint, as_of), state=pa.concat_tables(parts)))


def behind(events: list[Row], tags: list[Row], policy: Policy) -> dict[reference.Key, list[Row]]:
    """Evidence by key."""
    found = duck(lambda e, t: evidence(rows_of(e, t, policy), policy), ("evidence", policy.fingerprint), **tables(events, tags))
    assert found.schema.field("evidence").type.value_type == EVIDENCE
    return {key: row["evidence"] for key, row in by_key(found).items()}


def assert_same(found: dict[reference.Key, Row], expected: dict[reference.Key, Row], policy: Policy) -> None:
    """A state is that of the reference; masses of opposite signs can cancel, so closeness is relative to what was summed."""
    assert set(found) == set(expected)
    for key, row in found.items():
        for name in policy.horizons:
            assert row[f"mass_{name}"] == pytest.approx(
                expected[key][f"mass_{name}"], rel=0, abs=1e-9 * expected[key][f"size_{name}"] + 1e-300
            )
        for name in ("events", "first_at", "last_at", "last_positive_at", "sources"):
            assert row[name] == expected[key][name], (key, name)


def test_mass_halves_every_half_life() -> None:
    policy = Policy(half_life_days={"recent": 7.0, "lasting": 90.0}, action_weights={"click": 2.0})
    row = folded([event(1, days_ago=14.0)], [tag("a", "run", 0.5)], policy)[RUN]
    # c = 0.5 · 2 = 1; 14 days are two half-lives of 7: 1/4
    assert row["mass_recent"] == pytest.approx(0.25, rel=1e-12)
    assert row["mass_lasting"] == pytest.approx(2 ** (-14 / 90), rel=1e-12)


def test_a_dimension_may_fade_at_its_own_pace() -> None:
    policy = Policy(dimension_half_life_days={"brand": {"lasting": 180.0}, "place": {"recent": 1.0, "lasting": 2.0}})
    tags = [tag("a", "run"), tag("a", "nike", dimension="brand"), tag("a", "paris", dimension="place")]
    state = folded([event(1, days_ago=14.0)], tags, policy)
    masses = {key[1]: (row["mass_recent"], row["mass_lasting"]) for key, row in state.items()}
    assert masses["interest"] == pytest.approx((1 / 4, 2 ** (-14 / 90)), rel=1e-11)
    assert masses["brand"] == pytest.approx((1 / 4, 2 ** (-14 / 180)), rel=1e-11)
    assert masses["place"] == pytest.approx((2**-14, 2**-7), rel=1e-10)
    later = merged([states([event(1, days_ago=14.0)], tags, policy)], policy, NOON + timedelta(days=180))
    # 180 days on: two half-lives of 90, one of 180, 90 of 2
    assert later[RUN]["mass_lasting"] == pytest.approx(2 ** (-14 / 90) / 4, rel=1e-11)
    assert later["u", "brand", "nike"]["mass_lasting"] == pytest.approx(2 ** (-14 / 180) / 2, rel=1e-11)
    assert later["u", "place", "paris"]["mass_lasting"] == pytest.approx(2.0**-97, rel=1e-10)


def test_contribution_is_signed_and_reads_ratings_off_the_line() -> None:
    policy = Policy(action_weights={"review": 4.0}, source_weights={"shop": 0.5}, rating_factors={1: -1, 2: -0.5, 3: 0.5, 4: 1, 5: 1.2})
    events = [
        event(1, "a", action="review", rating=1.0),
        event(2, "b", action="review", rating=2.5),
        event(3, "c", action="review", rating=5.0),
        event(4, "d", action="review", rating=4.25),
        event(5, "e", action="review"),
    ]
    tags = [tag("a", "run"), tag("b", "cats"), *(tag(text, text, dimension="brand") for text in "cde")]
    state = folded(events, tags, policy)
    # 4 · 0.5 · factor: −1; halfway between −0.5 and 0.5; 1.2; 1 and a quarter of the way to 1.2; 1 without a rating
    assert state[RUN]["mass_lasting"] == pytest.approx(-2.0)
    assert state["u", "interest", "cats"]["mass_lasting"] == pytest.approx(0.0, abs=1e-12)
    assert [state["u", "brand", text]["mass_lasting"] for text in "cde"] == pytest.approx([2.4, 2.1, 2.0])


def test_a_refund_counts_against_whatever_its_rating() -> None:
    policy = Policy(action_weights={"refund": -5.0}, rating_factors={1: -1, 2: -0.5, 3: 0.5, 4: 1, 5: 1.2})
    events = [event(1, "a", action="refund", rating=1.0), event(2, "b", action="refund", rating=5.0), event(3, "c", action="refund")]
    state = folded(events, [tag("a", "run"), tag("b", "cats"), tag("c", "x", dimension="brand")], policy)
    assert state[RUN]["mass_lasting"] == pytest.approx(-5.0)
    assert state["u", "interest", "cats"]["mass_lasting"] == pytest.approx(-6.0)
    assert state["u", "brand", "x"]["mass_lasting"] == pytest.approx(-5.0)


def test_the_last_event_in_favour_is_remembered() -> None:
    events = [
        event(1, days_ago=9),
        event(2, days_ago=5),
        event(3, days_ago=3, action="unsave"),
        event(4, "b", action="refund"),
        event(5, "c", action="review", rating=2.5),  # neither for nor against
    ]
    state = folded(events, [tag("a", "run"), tag("b", "cats"), tag("c", "x", dimension="brand")], Policy())
    assert (state[RUN]["last_at"], state[RUN]["last_positive_at"]) == (NOON - timedelta(days=3), NOON - timedelta(days=5))
    assert state["u", "interest", "cats"]["last_positive_at"] is None
    assert state["u", "brand", "x"]["last_positive_at"] is None
    assert state["u", "brand", "x"]["mass_lasting"] == pytest.approx(0.0, abs=1e-12)


def test_an_event_counts_once_however_often_it_is_delivered() -> None:
    once = folded([event(1)], [tag("a", "run")], Policy())
    twice = folded([event(1), event(1)], [tag("a", "run"), tag("a", "run", 0.3)], Policy())
    assert once == twice


def test_of_conflicting_events_the_first_in_order_counts_however_they_lie() -> None:
    first = event(1, "a", days_ago=2, title=None, body="b", rating=2.0)
    later = [
        first | {"rating": 5.0},
        first | {"rating": None},  # what is missing comes last
        first | {"body": None},
        first | {"title": "a", "body": None} | {"source": "social"},
        first | {"user_id": "v"},
        first | {"text_key": "b"},
        first | {"occurred_at": NOON - timedelta(days=2) + timedelta(microseconds=1), "user_id": "a"},
    ]
    for rows in ([first, *later], [*later, first], [*later[::-1], first, *later]):
        found = duck(once_each, "once", events=pa.Table.from_pylist([*rows, event(2)], EVENTS)).to_pylist()
        assert sorted(found, key=lambda row: row["event_id"]) == [first, event(2)]


def test_hashes_that_may_repeat_can_be_given() -> None:
    arrow = pa.Table.from_pylist([event(1), event(1), event(2), event(3)], EVENTS)
    suspects = duck(repeated_hashes, events=arrow)
    assert len(suspects) == 1
    found = duck(once_each, events=arrow, suspects=suspects)
    assert sorted(found["event_id"].to_pylist()) == ["e1", "e2", "e3"]
    assert found.schema.names == EVENTS.names


def test_later_events_do_not_count_yet() -> None:
    state = folded([event(1), event(2, "b", days_ago=-0.001)], [tag("a", "run"), tag("b", "cats")], Policy())
    assert set(state) == {RUN}


def test_sensitive_interests_stay_out_unless_allowed() -> None:
    events, tags = [event(1)], [tag("a", "faith"), tag("a", "run"), tag("a", "faith", dimension="work")]
    assert set(folded(events, tags, Policy())) == {RUN, ("u", "work", "faith")}
    assert ("u", "interest", "faith") in folded(events, tags, Policy(allowed_sensitive=permits("faith")))


def test_scores_under_the_minimum_are_left_out() -> None:
    assert set(folded([event(1)], [tag("a", "run", 0.6), tag("a", "cats", 0.59)], Policy(minimum_score=0.6))) == {RUN}


def test_a_day_adds_no_more_to_a_value_than_the_ceiling() -> None:
    day = [event(n, days_ago=n / 24, action="purchase") for n in range(3)]  # 10 to 12 o'clock
    others = [event(3, days_ago=1), event(4, "b"), event(5, user="v", action="purchase")]
    tags, policy = [tag("a", "run"), tag("b", "cats")], Policy(daily_ceiling=6.0, half_life_days={"recent": 1e9, "lasting": 2e9})
    state = folded(day + others, tags, policy)
    # the day's purchases: 3 · 5, scaled to 6; the click of the day before, the other value and the other user stay what they are
    assert state[RUN]["mass_lasting"] == pytest.approx(6 + 1)
    assert state["u", "interest", "cats"]["mass_lasting"] == pytest.approx(1)
    assert state["v", "interest", "run"]["mass_lasting"] == pytest.approx(5)
    assert [row["events"] for row in state.values()].count(4) == 1


def test_the_ceiling_counts_sizes_whatever_their_sign() -> None:
    policy = Policy(daily_ceiling=4.0, half_life_days={"recent": 1e9, "lasting": 2e9}, habits=True)
    events = [event(1, action="purchase", amount=100.0), event(2, action="save"), event(3, action="refund", amount=100.0)]
    state = folded([*events, event(4, action="view", rating=2.5, days_ago=1)], [tag("a", "run")], policy)
    # sizes 5 + 3 + 5 = 13, scaled by 4/13: 3 · 4/13 is left; a day of nothing but 0 stays 0
    assert state[RUN]["mass_lasting"] == pytest.approx(3 * 4 / 13)
    # habits know no ceiling: of 3 events on the Sunday, and 1 on the Saturday before
    assert state["u", "weekday", "sun"]["mass_lasting"] == pytest.approx(3)
    assert state["u", "source", "shop"]["mass_lasting"] == pytest.approx(4)


def test_days_of_the_ceiling_end_at_midnight_in_utc() -> None:
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    times = [midnight - timedelta(microseconds=1), midnight, midnight + timedelta(hours=9)]
    policy = Policy(daily_ceiling=1.0, half_life_days={"recent": 1e9, "lasting": 2e9}, habit_utc_offset_hours=-5)
    state = folded([event(n, occurred_at=moment) for n, moment in enumerate(times)], [tag("a", "run")], policy)
    assert state[RUN]["mass_lasting"] == pytest.approx(1 + 1)


def test_what_a_ceiling_changes_is_taken_back_and_added_again() -> None:
    policy = Policy(daily_ceiling=6.0)
    old = [event(1, action="purchase", days_ago=0.1), event(2, action="like", days_ago=1.5, source="social")]
    new = [event(3, action="purchase", days_ago=0.2), event(4, "b", days_ago=0.3)]
    tags = [tag("a", "run"), tag("b", "cats")]

    def change(events: ir.Table, tags: ir.Table) -> ir.Table:
        before = rows_of(events.filter(events.event_id.isin(["e1", "e2"])), tags, policy)
        after = rows_of(events, tags, policy)
        return fold(after.mutate(sign=ibis.literal(1)).union(before.mutate(sign=ibis.literal(-1))), policy, NOON)

    added = duck(change, **tables(old + new, tags))
    # 5 fades to 3 beside the new 5: −2 · 2^−(0.1/90), and 3 more; the like counts once more and once less
    row = by_key(added)[RUN]
    assert row["mass_lasting"] == pytest.approx(-2 * 2 ** (-0.1 / 90) + 3 * 2 ** (-0.2 / 90), rel=1e-9)
    assert row["events"] == 1
    whole = folded(old + new, tags, policy)
    together = merged([states(old, tags, policy), added], policy)
    assert set(together) == set(whole)
    for key, row in together.items():
        assert row == whole[key] | {name: pytest.approx(whole[key][name], rel=1e-9) for name in ("mass_recent", "mass_lasting")}


def test_an_event_taken_back_leaves_no_mass_and_no_count() -> None:
    def twice(events: ir.Table, tags: ir.Table) -> ir.Table:
        rows = rows_of(events, tags, Policy())
        return fold(rows.mutate(sign=ibis.literal(1)).union(rows.mutate(sign=ibis.literal(-1))), Policy(), NOON)

    row = by_key(duck(twice, **tables([event(1, days_ago=3)], [tag("a", "run")])))[RUN]
    assert (row["mass_recent"], row["mass_lasting"], row["events"]) == (0, 0, 0)


def test_evidence_is_the_strongest_events_decayed_largest_first() -> None:
    policy = Policy(
        evidence_kept=2, half_life_days={"recent": 1.0, "lasting": 10.0}, action_weights={"like": 2.0, "unsave": -8.0, "view": 1.0}
    )
    events = [
        event(1, days_ago=0, action="view"),  # 1
        event(2, days_ago=20, action="unsave"),  # |−8| · 2^−2 = 2
        event(3, days_ago=5, action="like"),  # 2 · 2^−0.5 = 1.41
    ]
    found = behind(events, [tag("a", "run")], policy)[RUN]
    assert [each["event_id"] for each in found] == ["e2", "e3"]
    assert [each["contribution"] for each in found] == [-8.0, 2.0]
    assert found[0] | {"snippet": ""} == {
        "event_id": "e2",
        "occurred_at": NOON - timedelta(days=20),
        "source": "shop",
        "action": "unsave",
        "snippet": "",
        "contribution": -8.0,
    }
    row = folded(events, [tag("a", "run")], policy)[RUN]
    assert row["events"] == 3
    assert row["sources"] == ["shop"]
    assert (row["first_at"], row["last_at"]) == (NOON - timedelta(days=20), NOON)


def test_evidence_of_a_dimension_is_ordered_by_its_own_half_life() -> None:
    # after 20 days the like has faded to 2 · 2^−2 = 0.5 of its 2 on a half-life of 10, to 2 · 2^−0.2 = 1.74 on one of 100
    policy = Policy(half_life_days={"recent": 1.0, "lasting": 10.0}, dimension_half_life_days={"brand": {"lasting": 100.0}})
    events, tags = [event(1, days_ago=20, action="like"), event(2)], [tag("a", "run"), tag("a", "nike", dimension="brand")]
    found = behind(events, tags, policy)
    assert [each["event_id"] for each in found[RUN]] == ["e2", "e1"]
    assert [each["event_id"] for each in found["u", "brand", "nike"]] == ["e1", "e2"]


def test_evidence_that_weighs_the_same_comes_by_id_and_what_weighs_nothing_last() -> None:
    events = [event(n, action="like") for n in (3, 12, 1, 2)]
    events += [event(0, action="review", rating=2.5), event(4, action="refund", days_ago=400)]
    found = behind(events, [tag("a", "run")], Policy(evidence_kept=6))[RUN]
    assert [each["event_id"] for each in found] == ["e1", "e12", "e2", "e3", "e4", "e0"]
    assert found[-1]["contribution"] == 0
    assert [each["event_id"] for each in behind(events, [tag("a", "run")], Policy(evidence_kept=2))[RUN]] == ["e1", "e12"]


def test_evidence_shows_contributions_under_the_ceiling() -> None:
    events = [event(1, action="purchase", days_ago=0.1), event(2, action="refund", days_ago=0.2), event(3, action="like", days_ago=1)]
    found = behind(events, [tag("a", "run")], Policy(daily_ceiling=2.0))[RUN]
    # 5 and −5 on one day are scaled to 1 and −1; the like of the day before is 2 and not scaled
    assert [(each["event_id"], each["contribution"]) for each in found] == [("e3", 2.0), ("e1", 1.0), ("e2", -1.0)]


@pytest.mark.parametrize(
    ("title", "body", "snippet"),
    [
        ("Nike", "Pegasus", "Nike · Pegasus"),
        ("Nike", None, "Nike"),
        ("", "Pegasus", "Pegasus"),
        ("👟" * 100, "跑" * 100, "👟" * 100 + " · " + "跑" * 57),
    ],
)
def test_a_snippet_is_the_beginning_of_title_and_body(title: str, body: str | None, snippet: str) -> None:
    assert behind([event(1, title=title, body=body)], [tag("a", "run")], Policy())[RUN][0]["snippet"] == snippet


def test_times_are_read_to_the_microsecond() -> None:
    times = [
        datetime(2026, 3, 1, 12, 0, 0, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2100, 2, 28, 23, 59, 59, 123_456, tzinfo=UTC),
    ]
    arrow = pa.Table.from_pylist([event(n, occurred_at=moment) for n, moment in enumerate(times)], EVENTS)
    found = duck(lambda events: events.select("event_id", count=microseconds(events.occurred_at)), events=arrow).to_pylist()
    # 20,513 days from 1970 to 1 March 2026, half a day, and a microsecond less than a second
    assert found[0]["count"] == 20_513 * 86_400_000_000 + 43_200_000_000 + 999_999
    assert [row["count"] for row in found[1:3]] == [1, -1]
    assert found[3]["count"] == (times[3] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def test_what_is_long_past_weighs_nothing() -> None:
    events = [
        event(1, occurred_at=datetime(1990, 1, 1, tzinfo=UTC)),
        event(2, "b", occurred_at=datetime(1, 1, 1, tzinfo=UTC)),
        event(3, "c", occurred_at=datetime(1990, 1, 1, tzinfo=UTC)),
        event(4, "c"),
    ]
    tags, policy = [tag("a", "run"), tag("b", "cats"), tag("c", "x", dimension="brand")], Policy(habits=True)
    state = folded(events, tags, policy)
    # 13,208.5 days are 146.8 half-lives of 90 days; 1,887 of 7 days leave less than the smallest number
    assert state[RUN]["mass_lasting"] == pytest.approx(2 ** (-13_208.5 / 90), rel=1e-9)
    assert state[RUN]["mass_recent"] == 0
    assert (state["u", "interest", "cats"]["mass_recent"], state["u", "interest", "cats"]["mass_lasting"]) == (0, 0)
    assert state["u", "brand", "x"]["mass_recent"] == pytest.approx(1)
    assert_same(state, reference.state(reference.terms(events, tags, policy, set()), policy, NOON), policy)
    later = merged([states(events, tags, policy)], policy, datetime(2300, 1, 1, tzinfo=UTC))
    assert later[RUN]["mass_lasting"] == 0
    assert [each["event_id"] for each in behind(events, tags, policy)["u", "brand", "x"]] == ["e4", "e3"]


@pytest.mark.parametrize("kept", [False, True])
def test_without_contributions_there_is_no_state(kept: bool) -> None:
    assert len(states([], [tag("a", "run")], Policy(habits=True), kept=kept)) == 0
    assert len(states([event(1)], [], Policy(daily_ceiling=1.0), kept=kept)) == 0
    assert behind([], [], Policy(habits=True)) == {}
    assert merged([states([], [], Policy())], Policy()) == {}


@pytest.mark.parametrize("kept", [False, True])
def test_an_event_without_tags_has_habits_alone(kept: bool) -> None:
    events, tags = [event(1), event(2, "untagged", source="social", days_ago=1)], [tag("a", "run")]
    state = by_key(states(events, tags, Policy(habits=True), kept=kept))
    assert set(state) == {
        RUN,
        *(("u", "source", each) for each in ("shop", "social")),
        ("u", "action", "click"),
        ("u", "hour", "12"),
        *(("u", "weekday", each) for each in ("sun", "sat")),
    }
    assert state["u", "action", "click"]["events"] == 2
    assert state["u", "action", "click"]["sources"] == ["shop", "social"]


def test_any_name_is_a_user() -> None:
    users = ["👩‍👩‍👧‍👦", "ü", "u\u0308", "007", "7", "' OR 1=1 --", "跑步"]
    state = folded([event(n, user=user) for n, user in enumerate(users)], [tag("a", "run")], Policy(habits=True))
    assert {user for user, _, _ in state} == set(users)
    assert {row["events"] for row in state.values()} == {1}


def test_events_are_kept_with_their_tags() -> None:
    events = [event(1, title="Nike, NIKE"), event(2, "untagged")]
    tags = [span("a", "nike", 0, 4, 0.5), span("a", "nike", 6, 10, 0.75), tag("a", "run", 0.25)]
    found = duck(lambda e, t: tagged(*as_kept(e, best_tags(t, e))), **tables(events, tags))
    assert found.schema.names == [*KEPT.names, "tags"]
    rows = {row["event_id"]: row["tags"] for row in found.to_pylist()}
    assert rows["e2"] is None
    kept = {(each["dimension"], each["value"]): (each["score"], sorted(each["surfaces"] or [])) for each in rows["e1"]}
    assert kept == {("brand", "nike"): (0.75, ["NIKE", "Nike"]), ("interest", "run"): (0.25, [])}


POLICIES = {
    "plain": Policy(source_weights={"social": 0.7}, minimum_score=0.2),
    "full": Policy(
        source_weights={"social": 0.7},
        dimension_half_life_days={"brand": {"lasting": 180.0}, "spend": {"recent": 30.0}, "hour": {"recent": 3.0, "lasting": 33.3}},
        daily_ceiling=3.5,
        habits=True,
        habit_utc_offset_hours=5.5,
        evidence_kept=100,
    ),
}
moments = st.integers(-86_400_000_000, 20 * 86_400_000_000) | st.integers(0, 12).map(lambda hours: hours * 3_600_000_000)
random_events = st.lists(
    st.builds(
        lambda number, text_key, user, microseconds_ago, action, source, rating, amount, currency: event(
            number,
            text_key,
            user,
            action=action,
            source=source,
            rating=rating,
            amount=amount,
            currency=currency,
            occurred_at=NOON - timedelta(microseconds=microseconds_ago),
        ),
        number=st.integers(0, 30),
        text_key=st.sampled_from("abcd"),
        user=st.sampled_from(["u", "v"]),
        microseconds_ago=moments,
        action=st.sampled_from(["view", "purchase", "unsave", "refund", "unheard"]),
        source=st.sampled_from(["shop", "social"]),
        rating=st.none() | st.integers(64, 320).map(lambda n: n / 64),  # exact: 2.5 is neither for nor against
        amount=st.none() | st.floats(0, 1000),
        currency=st.sampled_from([None, "EUR", "JPY"]),
    ),
    max_size=25,
)
scores = st.just(0.0) | st.floats(1e-9, 1)
random_tags = st.lists(
    st.builds(tag, st.sampled_from("abcd"), st.sampled_from(["run", "cats", "faith"]), scores, st.sampled_from(["interest", "brand"])),
    max_size=15,
)


@settings(max_examples=15, deadline=None)
@given(random_events, random_tags)
@pytest.mark.parametrize("name", POLICIES)
def test_fold_equals_the_reference(name: str, events: list[Row], tags: list[Row]) -> None:
    policy = POLICIES[name]
    terms = reference.terms(events, tags, policy, {"faith"})
    expected = reference.state(terms, policy, NOON)
    assert_same(by_key(states(events, tags, policy, kept=name == "full")), expected, policy)
    if name == "full":
        for key, found in behind(events, tags, policy).items():
            own = {each.event["event_id"]: each.worth for each in terms if each.key == key}
            assert {each["event_id"]: each["contribution"] for each in found} == pytest.approx(own, rel=1e-9, abs=1e-12)


@settings(max_examples=6, deadline=None)
@given(random_events, random_tags)
def test_sources_that_are_known_need_not_be_collected(events: list[Row], tags: list[Row]) -> None:
    policy = POLICIES["plain"]
    collected, known = (by_key(states(events, tags, policy, sources=each)) for each in (None, ("forum", "shop", "social")))
    assert {key: row["sources"] for key, row in known.items()} == {key: row["sources"] for key, row in collected.items()}


@settings(max_examples=10, deadline=None)
@given(random_events, random_tags, st.sampled_from([0, 1, 13]))
def test_decayed_old_mass_plus_new_events_equals_a_rebuild(events: list[Row], tags: list[Row], days: int) -> None:
    policy, events = POLICIES["full"].model_copy(update={"daily_ceiling": None}), reference.once(events)
    cut = NOON - timedelta(days=days)
    old, new = ([each for each in events if (each["occurred_at"] <= cut) == early] for early in (True, False))
    expected = reference.state(reference.terms(events, tags, policy, {"faith"}), policy, NOON)
    parts = [states(old, tags, policy, NOON - timedelta(days=days)), states(new, tags, policy)]
    assert_same(merged(parts, policy), expected, policy)


def test_merging_adds_what_adds_and_keeps_first_and_last() -> None:
    def part(days_ago: int, mass: float, positive: int | None, *sources: str) -> Row:
        days = {"first_at": days_ago + 5, "last_at": days_ago + 1, "last_positive_at": positive, "as_of": days_ago}
        times = {name: None if each is None else NOON - timedelta(days=each) for name, each in days.items()}
        masses = {"mass_recent": mass, "mass_lasting": mass}
        return dict(zip(KEY, RUN, strict=True)) | masses | {"events": days_ago + 1, "sources": list(sources)} | times

    rows = [part(0, 1.0, None, "web", "shop"), part(7, 2.0, 11, "shop"), part(90, -1.0, 94, "app"), part(97, 0.0, None)]
    [found] = merged([pa.Table.from_pylist(rows, state_schema(Policy().horizons))], Policy()).values()
    assert found == {
        **dict(zip(KEY, RUN, strict=True)),
        "mass_recent": pytest.approx(1 + 2 / 2 - 2 ** (-90 / 7)),
        "mass_lasting": pytest.approx(1 + 2 * 2 ** (-7 / 90) - 1 / 2),
        "events": 1 + 8 + 91 + 98,
        "first_at": NOON - timedelta(days=102),
        "last_at": NOON - timedelta(days=1),
        "last_positive_at": NOON - timedelta(days=11),
        "sources": ["app", "shop", "web"],
        "as_of": NOON,
    }


def test_the_population_is_the_sum_over_users_at_one_instant() -> None:
    def row(user: str, value: str, recent: float, lasting: float, days_ago: int, dimension: str = "interest") -> Row:
        times = dict.fromkeys(("first_at", "last_at", "as_of"), NOON - timedelta(days=days_ago))
        key = dict(zip(KEY, (user, dimension, value), strict=True))
        return key | {"mass_recent": recent, "mass_lasting": lasting, "events": 1, "sources": ["shop"]} | times

    policy = Policy(dimension_half_life_days={"brand": {"lasting": 45.0}})
    rows = [
        row("u", "run", 4.0, 4.0, 0),
        row("v", "run", 8.0, 8.0, 90),  # halved on the long horizon
        row("v", "run", 0.0, -1.0, 0),
        row("w", "cats", -3.0, -3.0, 7),
        row("w", "run", 1.0, 1.0, 90, "brand"),  # two half-lives of its own
    ]
    arrow = pa.Table.from_pylist(rows, state_schema(policy.horizons))
    found = duck(lambda state: population(state, policy, NOON), state=arrow)
    masses = {(each["dimension"], each["value"]): (each["mass_recent"], each["mass_lasting"]) for each in found.to_pylist()}
    assert masses == {
        ("interest", "run"): pytest.approx((4 + 8 * 2 ** (-90 / 7), 4 + 4 - 1)),
        ("interest", "cats"): pytest.approx((-1.5, -3 * 2 ** (-7 / 90))),
        ("brand", "run"): pytest.approx((2 ** (-90 / 7), 1 / 4)),
    }
    assert set(found["as_of"].to_pylist()) == {NOON}
    # of parts, each at an instant of its own, it is the same
    parts = [
        duck(lambda state, day=day: population(state, policy, NOON - timedelta(days=day)), state=arrow.slice(n, 3))
        for n, day in ((0, 3), (3, 8))
    ]
    again = duck(lambda state: population(state, policy, NOON), state=pa.concat_tables(parts))
    assert {(each["dimension"], each["value"]): (each["mass_recent"], each["mass_lasting"]) for each in again.to_pylist()} == {
        key: pytest.approx(each, rel=1e-9) for key, each in masses.items()
    }


def test_masses_over_time_are_what_the_fold_gives_at_each_instant() -> None:
    policy = Policy(dimension_half_life_days={"brand": {"lasting": 3.0}})
    events = [event(1, days_ago=9), event(2, days_ago=3, action="unsave"), event(3, "b", days_ago=1)]
    tags = [tag("a", "run", 0.8), tag("a", "nike", dimension="brand"), tag("b", "cats")]
    instants = [NOON - timedelta(days=5), NOON]
    rows = duck(lambda e, t: masses_over_time(rows_of(e, t, policy), policy, instants), **tables(events, tags)).to_pylist()
    assert len(rows) == 5  # on the first day the cats aren't there yet
    for row in rows:
        expected = folded(events, tags, policy, row["as_of"])[row["user_id"], row["dimension"], row["value"]]
        assert row["mass_recent"] == pytest.approx(expected["mass_recent"], rel=1e-9)
        assert row["mass_lasting"] == pytest.approx(expected["mass_lasting"], rel=1e-9)


Counts = dict[tuple[str, str, str], int]


def surface_rows(events: list[Row], tags: list[Row], policy: Policy | None = None, kept: bool = False) -> pa.Table:
    """`surfaces` of events, as they come or as they are kept."""
    policy = policy or Policy()

    def make(events: ir.Table, tags: ir.Table) -> ir.Table:
        once = once_each(events)
        best = best_tags(tags, once)
        once, best = as_kept(once, best) if kept else (once, best)
        return surfaces(joined(once, best, policy), policy, TAXONOMY, NOON)

    found = duck(make, ("surfaces", policy.fingerprint, kept), **tables(events, tags))
    assert found.schema == SURFACES
    return found


def counted(table: pa.Table) -> Counts:
    """The events of each dimension, value and surface; every row is another."""
    rows = table.to_pylist()
    found = {(row["dimension"], row["value"], row["surface"]): row["events"] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("跑鞋测评", "我的 Nike 飞马"),
        ("👟👩‍👩‍👧‍👦 🇨🇳 new", "NIKE"),
        ("e\u0301te\u0301 with nike", None),
        (None, "𝒩𝒾𝓀ℯ is no Nike 跑"),
        ("", "nike alone"),
        ("nike", ""),
    ],
)
def test_a_surface_is_the_text_between_two_offsets_of_the_document(title: str | None, body: str | None) -> None:
    text = document(title, body)
    start = text.casefold().index("nike")
    found = counted(surface_rows([event(1, title=title, body=body)], [span("a", "nike", start, start + 4)]))
    assert found == {("brand", "nike", text[start : start + 4]): 1}


@pytest.mark.parametrize("kept", [False, True])
def test_an_event_counts_once_for_each_form_in_its_text(kept: bool) -> None:
    events = [
        event(1, title="Nike and Nike, NIKE"),
        event(1, title="Nike and Nike, NIKE"),  # delivered twice
        event(2, title="Nike and Nike, NIKE", user="v"),  # a popular text
        event(3, "b", title="NIKE Paris"),
    ]
    tags = [span("a", "nike", 0, 4), span("a", "nike", 9, 13), span("a", "nike", 15, 19), span("b", "nike", 0, 4)]
    tags += [span("b", "paris", 5, 10, dimension="place"), span("b", "nike", 0, 4, 0.5)]
    assert counted(surface_rows(events, tags, kept=kept)) == {
        ("brand", "nike", "Nike"): 2,
        ("brand", "nike", "NIKE"): 3,
        ("place", "paris", "Paris"): 1,
    }


def test_surfaces_are_counted_of_what_enters_profiles_alone() -> None:
    events = [event(1, title="Nike"), event(2, days_ago=-0.001, title="Nike"), event(3, "untagged", title="Nike")]
    tags = [
        span("a", "nike", 0, 4, 0.6),
        span("a", "low", 0, 4, 0.59),
        tag("a", "whole"),
        tag("a", "run"),
        span("a", "faith", 0, 4, dimension="interest"),  # sensitive
        span("a", "beyond", 4, 9),
        span("elsewhere", "nike", 0, 4),
    ]
    assert counted(surface_rows(events, tags, Policy(minimum_score=0.6))) == {("brand", "nike", "Nike"): 1}


def test_a_surface_across_title_and_body_is_one_line() -> None:
    events = [event(1, title="Air Max", body="90 by Nike")]
    assert counted(surface_rows(events, [span("a", "air max 90", 0, 10)])) == {("brand", "air max 90", "Air Max 90"): 1}


def test_the_form_with_most_events_is_shown_and_of_several_the_first() -> None:
    rows = [
        ("brand", "nike", "NIKE", 3),
        ("brand", "nike", "Nike", 4),
        ("product", "nike", "nike's", 1),
        ("place", "são paulo", "são paulo", 2),
        ("place", "são paulo", "São Paulo", 2),
        ("place", "são paulo", "SAO", 1),
    ]
    table = pa.Table.from_pylist([dict(zip(SURFACES.names, row, strict=True)) for row in rows], SURFACES)
    found = {(row["dimension"], row["value"]): row["surface"] for row in duck(frequent_surfaces, counted=table).to_pylist()}
    assert found == {("brand", "nike"): "Nike", ("product", "nike"): "nike's", ("place", "são paulo"): "São Paulo"}


def reference_surfaces(events: list[Row], tags: list[Row]) -> Counts:
    """The counts in plain Python, from their definition."""
    bearing: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for each in events:
        for one in tags:
            if one["text_key"] == each["text_key"] and one["start"] is not None and each["occurred_at"] <= NOON:
                surface = document(each["title"], each["body"])[one["start"] : one["end"]].replace("\n", " ").strip()
                if surface:
                    bearing[one["dimension"], one["value"], surface].add(each["event_id"])
    return {key: len(found) for key, found in bearing.items()}


TITLES = {"a": ("跑 Nike", "👟 NIKE"), "b": ("Nike", None), "c": (None, "nike in 巴黎"), "d": ("", "👩‍👩‍👧 Paris")}
texted_events = st.lists(
    st.builds(
        lambda number, text_key, days: event(number, text_key, days_ago=days, title=TITLES[text_key][0], body=TITLES[text_key][1]),
        number=st.integers(0, 30),
        text_key=st.sampled_from(sorted(TITLES)),
        days=st.integers(-2, 20),
    ),
    max_size=20,
    unique_by=lambda each: each["event_id"],
)
random_spans = st.lists(
    st.builds(
        lambda text_key, value, start, length, dimension: span(text_key, value, start, start + length, dimension=dimension),
        text_key=st.sampled_from(sorted(TITLES)),
        value=st.sampled_from(["nike", "paris"]),
        start=st.integers(0, 12),
        length=st.integers(1, 5),
        dimension=st.sampled_from(["brand", "place"]),
    )
    | st.builds(tag, st.sampled_from(sorted(TITLES)), st.just("run")),
    max_size=12,
)


@settings(max_examples=10, deadline=None)
@given(texted_events, random_spans, st.integers(1, 3))
def test_surfaces_of_all_events_are_the_sum_of_those_of_the_parts(events: list[Row], tags: list[Row], parts: int) -> None:
    expected = reference_surfaces(events, tags)
    assert counted(surface_rows(events, tags)) == expected
    shards = [surface_rows(events[n::parts], tags, kept=n == 1) for n in range(parts)]
    assert counted(duck(add_surfaces, "add", counted=pa.concat_tables(shards))) == expected
