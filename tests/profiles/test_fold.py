"""The fold against its definition: by hand, and against a plain-Python reference over random events."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.ingest.clean import document
from penchant.profiles.fold import add_surfaces, contributions, fold, frequent_surfaces, masses_over_time, surfaces
from penchant.profiles.policy import Policy
from penchant.records import EVENTS, TAGS, state_schema
from penchant.taxonomy import Node, Taxonomy
from tests.profiles.reference import masses

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAXONOMY = Taxonomy(nodes=(Node(id="run", name="Running"), Node(id="cats", name="Cats"), Node(id="faith", name="Faith", sensitive=True)))


def event(number: int, text_key: str = "a", user: str = "u", days_ago: float = 0.0, **more: Any) -> dict[str, Any]:
    """One event with every column of the contract."""
    base = {field.name: None for field in EVENTS} | {"title": f"title {text_key}", "source": "shop", "action": "click"}
    base |= {"event_id": f"e{number}", "user_id": user, "text_key": text_key, "occurred_at": NOON - timedelta(days=days_ago)}
    return base | more


def tag(text_key: str, value: str, score: float = 1.0, dimension: str = "interest") -> dict[str, Any]:
    """One tag."""
    return {"text_key": text_key, "dimension": dimension, "value": value, "score": score, "start": None, "end": None}


def folded(events: list[dict[str, Any]], tags: list[dict[str, Any]], policy: Policy, as_of: datetime = NOON) -> dict[Any, dict[str, Any]]:
    """The profile state by key."""
    tables = (ibis.memtable(pa.Table.from_pylist(rows, schema)) for rows, schema in ((events, EVENTS), (tags, TAGS)))
    state = fold(contributions(*tables, policy, TAXONOMY), policy, as_of).to_pyarrow()
    assert state.schema.names == state_schema(policy.horizons).names
    return {(row["user_id"], row["dimension"], row["value"]): row for row in state.to_pylist()}


def test_mass_halves_every_half_life() -> None:
    policy = Policy(half_life_days={"recent": 7.0, "lasting": 90.0}, action_weights={"click": 2.0})
    row = folded([event(1, days_ago=14.0)], [tag("a", "run", 0.5)], policy)["u", "interest", "run"]
    # c = 0.5 · 2 = 1; 14 days are two half-lives of 7: 1/4
    assert row["mass_recent"] == pytest.approx(0.25, rel=1e-12)
    assert row["mass_lasting"] == pytest.approx(2 ** (-14 / 90), rel=1e-12)


def test_contribution_is_signed_and_reads_ratings_off_the_line() -> None:
    policy = Policy(action_weights={"review": 4.0}, source_weights={"shop": 0.5}, rating_factors={1: -1, 2: -0.5, 3: 0.5, 4: 1, 5: 1.2})
    events = [
        event(1, "a", action="review", rating=1.0),
        event(2, "b", action="review", rating=2.5),
        event(3, "c", action="review", rating=5.0),
    ]
    state = folded(events, [tag("a", "run"), tag("b", "cats"), tag("c", "x", dimension="brand")], policy)
    # 4 · 0.5 · factor: −1; halfway between −0.5 and 0.5; 1.2
    assert state["u", "interest", "run"]["mass_lasting"] == pytest.approx(-2.0)
    assert state["u", "interest", "cats"]["mass_lasting"] == pytest.approx(0.0, abs=1e-12)
    assert state["u", "brand", "x"]["mass_lasting"] == pytest.approx(2.4)


def test_a_refund_counts_against_whatever_its_rating() -> None:
    policy = Policy(action_weights={"refund": -5.0}, rating_factors={1: -1, 2: -0.5, 3: 0.5, 4: 1, 5: 1.2})
    events = [event(1, "a", action="refund", rating=1.0), event(2, "b", action="refund", rating=5.0), event(3, "c", action="refund")]
    state = folded(events, [tag("a", "run"), tag("b", "cats"), tag("c", "x", dimension="brand")], policy)
    assert state["u", "interest", "run"]["mass_lasting"] == pytest.approx(-5.0)
    assert state["u", "interest", "cats"]["mass_lasting"] == pytest.approx(-6.0)
    assert state["u", "brand", "x"]["mass_lasting"] == pytest.approx(-5.0)


def test_an_event_counts_once_however_often_it_is_delivered() -> None:
    once = folded([event(1)], [tag("a", "run")], Policy())
    twice = folded([event(1), event(1)], [tag("a", "run"), tag("a", "run", 0.3)], Policy())
    assert once == twice


def test_later_events_do_not_count_yet() -> None:
    state = folded([event(1), event(2, "b", days_ago=-0.001)], [tag("a", "run"), tag("b", "cats")], Policy())
    assert set(state) == {("u", "interest", "run")}


def test_sensitive_interests_stay_out_unless_allowed() -> None:
    events, tags = [event(1)], [tag("a", "faith"), tag("a", "run"), tag("a", "faith", dimension="work")]
    assert set(folded(events, tags, Policy())) == {("u", "interest", "run"), ("u", "work", "faith")}
    assert ("u", "interest", "faith") in folded(events, tags, Policy(allowed_sensitive=("faith",)))


def test_scores_under_the_minimum_are_left_out() -> None:
    assert set(folded([event(1)], [tag("a", "run", 0.6), tag("a", "cats", 0.59)], Policy(minimum_score=0.6))) == {("u", "interest", "run")}


def test_evidence_is_the_strongest_events_decayed_largest_first() -> None:
    policy = Policy(
        evidence_kept=2, half_life_days={"recent": 1.0, "lasting": 10.0}, action_weights={"like": 2.0, "unsave": -8.0, "view": 1.0}
    )
    events = [
        event(1, days_ago=0, action="view"),  # 1
        event(2, days_ago=20, action="unsave"),  # |−8| · 2^−2 = 2
        event(3, days_ago=5, action="like"),  # 2 · 2^−0.5 = 1.41
    ]
    row = folded(events, [tag("a", "run")], policy)["u", "interest", "run"]
    assert [each["event_id"] for each in row["evidence"]] == ["e2", "e3"]
    assert [each["contribution"] for each in row["evidence"]] == [-8.0, 2.0]
    assert row["events"] == 3
    assert row["sources"] == ["shop"]
    assert (row["first_at"], row["last_at"]) == (NOON - timedelta(days=20), NOON)


random_events = st.lists(
    st.builds(
        lambda number, text_key, user, seconds, action, source, rating: event(
            number, text_key, user, seconds / 86_400, action=action, source=source, rating=rating
        ),
        number=st.integers(0, 30),
        text_key=st.sampled_from("abcd"),
        user=st.sampled_from(["u", "v"]),
        seconds=st.integers(-86_400, 200 * 86_400),
        action=st.sampled_from(["view", "purchase", "unsave", "refund", "unheard"]),
        source=st.sampled_from(["shop", "social"]),
        rating=st.none() | st.floats(1, 5),
    ),
    max_size=25,
    unique_by=lambda each: each["event_id"],
)
random_tags = st.lists(
    st.builds(
        tag, st.sampled_from("abcd"), st.sampled_from(["run", "cats", "faith"]), st.floats(0, 1), st.sampled_from(["interest", "brand"])
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(random_events, random_tags)
def test_fold_equals_the_reference(events: list[dict[str, Any]], tags: list[dict[str, Any]]) -> None:
    policy = Policy(source_weights={"social": 0.7}, minimum_score=0.2, evidence_kept=100)
    expected = masses(events, tags, policy, NOON, {"faith"})
    found = folded(events, tags, policy)
    assert set(found) == set(expected)
    for key, row in found.items():
        # masses of opposite signs can cancel, so closeness is relative to what was summed
        size = sum(abs(each) for each in expected[key]["terms"].values())
        for name in policy.horizons:
            assert row[f"mass_{name}"] == pytest.approx(expected[key]["mass"][name], rel=1e-9, abs=1e-9 * size)
        assert row["events"] == expected[key]["events"]
        evidence = {each["event_id"]: each["contribution"] for each in row["evidence"]}
        assert evidence == pytest.approx(expected[key]["terms"], rel=1e-9, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(random_events, random_tags, st.integers(0, 250))
def test_decayed_old_mass_plus_new_events_equals_a_rebuild(events: list[dict[str, Any]], tags: list[dict[str, Any]], days: int) -> None:
    policy, later = Policy(), NOON + timedelta(days=days)
    whole = folded(events, tags, policy, later)
    cut = NOON - timedelta(days=100)
    old = folded([each for each in events if each["occurred_at"] <= cut], tags, policy, NOON)
    new = folded([each for each in events if each["occurred_at"] > cut], tags, policy, later)
    for key, row in whole.items():
        for name, half in policy.half_life_days.items():
            carried = old[key][f"mass_{name}"] * 2 ** (-days / half) if key in old else 0.0
            added = new[key][f"mass_{name}"] if key in new else 0.0
            assert row[f"mass_{name}"] == pytest.approx(carried + added, rel=1e-9, abs=1e-9)


def test_masses_over_time_are_what_the_fold_gives_at_each_instant() -> None:
    policy = Policy()
    events = [event(1, days_ago=9), event(2, days_ago=3, action="unsave"), event(3, "b", days_ago=1)]
    tags = [tag("a", "run", 0.8), tag("b", "cats")]
    tables = [ibis.memtable(pa.Table.from_pylist(rows, schema)) for rows, schema in ((events, EVENTS), (tags, TAGS))]
    instants = [NOON - timedelta(days=5), NOON]
    rows = masses_over_time(contributions(*tables, policy, TAXONOMY), policy, instants).to_pyarrow().to_pylist()
    assert len(rows) == 3  # on the first day the cats aren't there yet
    for row in rows:
        expected = folded(events, tags, policy, row["as_of"])[row["user_id"], row["dimension"], row["value"]]
        assert row["mass_recent"] == pytest.approx(expected["mass_recent"], rel=1e-9)
        assert row["mass_lasting"] == pytest.approx(expected["mass_lasting"], rel=1e-9)


SURFACES = {"dimension": "string", "value": "string", "surface": "string", "events": "int64"}
Counts = dict[tuple[str, str, str], int]


def span(text_key: str, value: str, start: int, end: int, score: float = 1.0, dimension: str = "brand") -> dict[str, Any]:
    """One tag of a span."""
    return tag(text_key, value, score, dimension) | {"start": start, "end": end}


def table_of_surfaces(
    events: list[dict[str, Any]], tags: list[dict[str, Any]], policy: Policy | None = None, as_of: datetime = NOON
) -> ibis.Table:
    """`surfaces` of rows, as a table in memory."""
    tables = (ibis.memtable(pa.Table.from_pylist(rows, schema)) for rows, schema in ((events, EVENTS), (tags, TAGS)))
    return ibis.memtable(surfaces(*tables, policy or Policy(), TAXONOMY, as_of).to_pyarrow())


def counted(table: ibis.Table) -> Counts:
    """The events of each dimension, value and surface; every row is another."""
    rows = table.to_pyarrow().to_pylist()
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
    found = counted(table_of_surfaces([event(1, title=title, body=body)], [span("a", "nike", start, start + 4)]))
    assert found == {("brand", "nike", text[start : start + 4]): 1}


def test_an_event_counts_once_for_each_form_in_its_text() -> None:
    events = [
        event(1, title="Nike and Nike, NIKE"),
        event(1, title="Nike and Nike, NIKE"),  # delivered twice
        event(2, title="Nike and Nike, NIKE", user="v"),  # a popular text
        event(3, "b", title="NIKE Paris"),
    ]
    tags = [span("a", "nike", 0, 4), span("a", "nike", 9, 13), span("a", "nike", 15, 19), span("b", "nike", 0, 4)]
    tags += [span("b", "paris", 5, 10, dimension="place"), span("b", "nike", 0, 4, 0.5)]
    assert counted(table_of_surfaces(events, tags)) == {
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
    assert counted(table_of_surfaces(events, tags, Policy(minimum_score=0.6))) == {("brand", "nike", "Nike"): 1}


def test_a_surface_across_title_and_body_is_one_line() -> None:
    events = [event(1, title="Air Max", body="90 by Nike")]
    assert counted(table_of_surfaces(events, [span("a", "air max 90", 0, 10)])) == {("brand", "air max 90", "Air Max 90"): 1}


def test_the_form_with_most_events_is_shown_and_of_several_the_first() -> None:
    rows = [
        ("brand", "nike", "NIKE", 3),
        ("brand", "nike", "Nike", 4),
        ("product", "nike", "nike's", 1),
        ("place", "são paulo", "são paulo", 2),
        ("place", "são paulo", "São Paulo", 2),
        ("place", "são paulo", "SAO", 1),
    ]
    table = ibis.memtable([dict(zip(SURFACES, row, strict=True)) for row in rows], schema=SURFACES)
    found = {(row["dimension"], row["value"]): row["surface"] for row in frequent_surfaces(table).to_pyarrow().to_pylist()}
    assert found == {("brand", "nike"): "Nike", ("product", "nike"): "nike's", ("place", "são paulo"): "São Paulo"}


def reference_surfaces(events: list[dict[str, Any]], tags: list[dict[str, Any]]) -> Counts:
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


@settings(max_examples=20, deadline=None)
@given(texted_events, random_spans, st.integers(1, 4))
def test_surfaces_of_all_events_are_the_sum_of_those_of_the_parts(
    events: list[dict[str, Any]], tags: list[dict[str, Any]], parts: int
) -> None:
    expected = reference_surfaces(events, tags)
    assert counted(table_of_surfaces(events, tags)) == expected
    shards = [table_of_surfaces(events[n::parts], tags) for n in range(parts)]
    assert counted(add_surfaces(*shards)) == expected
