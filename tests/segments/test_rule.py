"""Rules select exactly the people that a plain reading of the rule over the profile rows selects."""

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penchant.config import parse
from penchant.errors import ConfigError, PolicyRefusal
from penchant.profiles.snapshot import Snapshot
from penchant.segments.rule import Rule, Segment, known_sources, load_segment, members
from tests.segments.conftest import AS_OF, event

PARENTS = {
    "sports.running": "sports",
    "sports.running.trail": "sports.running",
    "sports.football": "sports",
    "pets.cats": "pets",
    "life.health": "life",
    "life.health.sleep": "life.health",
    "life.work": "life",
}
SENSITIVE = {"life.health", "life.health.sleep"}
SOURCES = frozenset({"shop", "social", "reviews"})


def segment(rule: dict[str, Any]) -> Segment:
    return parse(Segment, {"name": "test", "purpose": "tests", "rule": rule}, "here")


def under(value: str, interest: str) -> bool:
    """Whether a value is the interest or lies below it."""
    return value == interest or (value in PARENTS and under(PARENTS[value], interest))


def meets(rule: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """A rule over one person's rows, read plainly."""
    if "all" in rule:
        return all(meets(each, rows) for each in rule["all"])
    if "any" in rule:
        return any(meets(each, rows) for each in rule["any"])
    if "not" in rule:
        return not meets(rule["not"], rows)
    found = [row for row in rows if under(row["value"], rule["interest"])]
    return (
        bool(found)
        and sum(row["weight"] for row in found) >= rule.get("min_weight", 0)
        and ("seen_within_days" not in rule or any(AS_OF - row["last_at"] <= timedelta(days=rule["seen_within_days"]) for row in found))
        and ("sources" not in rule or any(set(row["sources"]) & set(rule["sources"]) for row in found))
    )


def wanted(rule: dict[str, Any]) -> list[str]:
    """The interests that aren't negated."""
    if "interest" in rule:
        return [rule["interest"]]
    return [name for each in (*rule.get("all", ()), *rule.get("any", ())) for name in wanted(each)]


def plain_members(rule: dict[str, Any], snapshot: Snapshot) -> list[dict[str, Any]]:
    """Who meets the rule, with the weight and the last event of its wanted interests, by falling weight."""
    people: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in snapshot.profiles.to_pyarrow().to_pylist():
        if row["dimension"] == "interest" and row["value"] not in SENSITIVE:
            people[row["user_id"]].append(row)
    found = []
    for user, rows in people.items():
        if meets(rule, rows):
            counted = [row for row in rows if any(under(row["value"], name) for name in wanted(rule))]
            found.append(
                {"user_id": user, "weight": sum(row["weight"] for row in counted), "last_at": max(row["last_at"] for row in counted)}
            )
    return sorted(found, key=lambda row: (-row["weight"], row["user_id"]))


def users(rule: dict[str, Any], snapshot: Snapshot) -> set[str]:
    return set(members(segment(rule), snapshot).to_pyarrow()["user_id"].to_pylist())


def numbered(numbers: Any) -> set[str]:
    return {f"u{n:02}" for n in numbers}


# Expected people are read off `seventy_people`: u0 to u59 run, n days ago.
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"interest": "sports.running"}, numbered(range(60))),  # odd ones by trail running, which lies below; u67 has only an un-save
        ({"interest": "sports.running.trail"}, numbered(range(1, 60, 2))),
        ({"interest": "sports"}, numbered([*range(60), 69])),
        ({"interest": "pets"}, numbered(range(0, 60, 5))),  # not u68, whose pets.cats is a brand
        ({"interest": "chess"}, set()),
        ({"interest": "life"}, numbered(range(64, 67))),  # by life.work; what is sensitive below life counts for nothing
        ({"interest": "sports.running", "seen_within_days": 10}, numbered(range(11))),  # the tenth day to the microsecond still counts
        ({"interest": "sports.running", "seen_within_days": 9.999998}, numbered(range(10))),  # and 0.17 s less no more
        ({"interest": "sports.running", "sources": ["shop"]}, numbered(range(0, 60, 3))),
        ({"interest": "sports.running", "sources": ["shop", "social"]}, numbered(n for n in range(60) if n % 3 < 2)),
        ({"all": [{"interest": "sports.running"}, {"interest": "pets.cats"}]}, numbered(range(0, 60, 5))),
        ({"any": [{"interest": "pets.cats"}, {"interest": "life.work"}]}, numbered([*range(0, 60, 5), 64, 65, 66])),
        ({"all": [{"interest": "sports"}, {"not": {"interest": "sports.football"}}]}, numbered([*(n for n in range(60) if n % 3), 69])),
        ({"all": [{"interest": "sports"}, {"not": {"not": {"interest": "pets"}}}]}, numbered(range(0, 60, 5))),
        ({"interest": "sports.running", "min_weight": 1}, set()),  # shrinkage leaves nobody all of it
        ({"interest": "sports.running", "seen_within_days": 1e300}, numbered(range(60))),
        ({"interest": "sports.running", "seen_within_days": 1e6}, numbered(range(60))),
    ],
)
def test_people_read_off_the_events_are_the_members(rule: dict[str, Any], expected: set[str], snapshot: Snapshot) -> None:
    assert users(rule, snapshot) == expected


def test_least_weight_is_held_against_the_sum_below_the_interest(make_snapshot: Callable[..., Snapshot]) -> None:
    """Two people, κ = 5, clicks at the instant itself, so that a mass is a number of clicks.

    a: running 1, trail 1, cats 2. b: cats 4. π: running 1/8, trail 1/8, cats 6/8.
    Weights of a: running = trail = (1 + 5/8)/(4 + 5) = 0.18056, together 0.36111.
    """
    values = ["sports.running", "sports.running.trail", "pets.cats", "pets.cats"]
    events = [event(n, "a", value, 0) for n, value in enumerate(values)] + [event(n, "b", "pets.cats", 0) for n in range(4, 8)]
    snapshot = make_snapshot(events)
    assert users({"interest": "sports.running.trail", "min_weight": 0.18}, snapshot) == {"a"}
    assert users({"interest": "sports.running.trail", "min_weight": 0.19}, snapshot) == set()
    assert users({"interest": "sports", "min_weight": 0.361}, snapshot) == {"a"}
    assert users({"interest": "sports", "min_weight": 0.362}, snapshot) == set()
    assert members(segment({"interest": "sports"}), snapshot).to_pyarrow()["weight"].to_pylist() == pytest.approx([13 / 36])


LEAVES = st.fixed_dictionaries(
    {
        "interest": st.sampled_from(
            ["sports", "sports.running", "sports.running.trail", "sports.football", "pets", "pets.cats", "life", "life.work", "chess"]
        )
    },
    optional={
        "min_weight": st.sampled_from([0.0, 0.05, 0.13, 0.31, 0.52]),
        "seen_within_days": st.sampled_from([0.5, 3, 10, 30, 59.5, 80]),
        "sources": st.lists(st.sampled_from(sorted(SOURCES)), min_size=1, max_size=2),
    },
)
RULES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)


@given(rule=RULES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_any_rule_selects_whom_a_plain_reading_selects(open_snapshot: Snapshot, rule: dict[str, Any]) -> None:
    rule = {"all": [{"any": [{"interest": "sports"}, {"interest": "life"}]}, rule]}  # every rule has an interest that isn't negated
    found = members(segment(rule), open_snapshot).to_pyarrow().to_pylist()
    expected = plain_members(rule, open_snapshot)
    assert {row["user_id"]: row["last_at"] for row in found} == {row["user_id"]: row["last_at"] for row in expected}
    assert {row["user_id"]: row["weight"] for row in found} == pytest.approx({row["user_id"]: row["weight"] for row in expected})
    assert [row["weight"] for row in found] == sorted((row["weight"] for row in found), reverse=True)


def test_members_come_by_falling_weight_then_by_name(make_snapshot: Callable[..., Snapshot]) -> None:
    events = [event(n, user, "pets.cats", 1) for n, user in enumerate(["b", "a", "c", "c"])] + [
        event(9, "d", "pets.cats", 1),
        event(10, "d", "sports", 1),
    ]
    assert members(segment({"interest": "pets"}), make_snapshot(events)).to_pyarrow()["user_id"].to_pylist()[-1] == "d"
    assert members(segment({"interest": "pets"}), make_snapshot(events[:3])).to_pyarrow()["user_id"].to_pylist() == ["a", "b", "c"]


def test_a_negated_interest_adds_neither_weight_nor_time(make_snapshot: Callable[..., Snapshot]) -> None:
    snapshot = make_snapshot([event(0, "a", "sports.running", 10), event(1, "a", "pets.cats", 5)])
    running = {row["value"]: row["weight"] for row in snapshot.profiles.to_pyarrow().to_pylist()}["sports.running"]
    rule = {"all": [{"interest": "sports"}, {"not": {"interest": "pets", "seen_within_days": 1}}]}
    found = members(segment(rule), snapshot).to_pyarrow().to_pylist()
    assert found == [{"user_id": "a", "weight": pytest.approx(running), "last_at": AS_OF - timedelta(days=10)}]


def test_what_is_sensitive_selects_nobody_even_where_profiles_hold_it(open_snapshot: Snapshot) -> None:
    held = set(open_snapshot.state.filter(open_snapshot.state.value.isin(sorted(SENSITIVE))).to_pyarrow()["value"].to_pylist())
    assert held == SENSITIVE
    assert users({"interest": "life.health"}, open_snapshot) == set()
    assert users({"interest": "life"}, open_snapshot) == numbered(range(64, 67))
    assert users({"any": [{"interest": "life.health.sleep"}, {"interest": "pets"}]}, open_snapshot) == numbered(range(0, 60, 5))


def test_known_sources_are_those_of_the_profiles(snapshot: Snapshot, make_snapshot: Callable[..., Snapshot]) -> None:
    assert known_sources(snapshot) == SOURCES
    assert known_sources(make_snapshot([event(0, "a", "pets.cats", 1, source="forum")])) == {"forum"}


HEAD = "name: test\npurpose: tests\n"


@pytest.fixture
def read(tmp_path: Path, snapshot: Snapshot) -> Callable[[str], Segment]:
    """Load a rule written as YAML, without its name and purpose."""

    def load(text: str) -> Segment:
        path = tmp_path / "rule.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        return load_segment(path, snapshot.taxonomy, known_sources(snapshot))

    return load


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("{interest: life.health}", "life.health"),
        ("{interest: life.health.sleep}", "life.health.sleep"),  # marked by its parent alone
        ("{all: [{interest: pets}, {not: {any: [{interest: life.health}]}}]}", "life.health"),  # to leave ill people out is to profile them
        ("{any: [{interest: life.health.sleep}, {interest: life.health}]}", "life.health, life.health.sleep"),
    ],
)
def test_a_sensitive_interest_is_refused_wherever_it_stands(rule: str, named: str, read: Callable[[str], Segment]) -> None:
    with pytest.raises(PolicyRefusal, match=f"{named}: sensitive"):
        read(f"rule: {rule}")


def test_every_mistake_in_a_rule_is_told_at_once(read: Callable[[str], Segment]) -> None:
    with pytest.raises(ConfigError) as caught:
        read("rule: {not: {any: [{interest: sport, sources: [shopp, shop]}, {interest: zzz}]}}")
    heading, *mistakes = str(caught.value).splitlines()
    assert heading.endswith("rule.yaml: 4 mistakes")
    assert mistakes[0].startswith("  - unknown interest 'sport'; did you mean 'sports'")
    assert mistakes[1] == "  - unknown source 'shopp'; did you mean 'shop'?"
    assert mistakes[2].startswith("  - unknown interest 'zzz'; known: chess, life, ")
    assert "people nothing is known of" in mistakes[3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule: {interest: pets, all: [{interest: sports}]}", "expected exactly one of all, any, not, interest; found all, interest"),
        ("rule: {}", "expected exactly one of all, any, not, interest; found none"),
        ("rule: {all: []}", "rule.all: "),
        ("rule: {any: [{interest: pets}], min_weight: 0.1}", "belong beside an interest"),
        ("rule: {not: {interest: pets}, sources: [shop]}", "belong beside an interest"),
        ("rule: {interest: pets, min_weight: 1.01}", "got 1.01"),
        ("rule: {interest: pets, min_weight: -0.01}", "got -0.01"),
        ("rule: {interest: pets, min_weight: .nan}", "got nan"),
        ("rule: {interest: pets, seen_within_days: 0}", "got 0"),
        ("rule: {interest: pets, seen_within_days: .nan}", "got nan"),
        ("rule: {interest: pets, sources: []}", "rule.sources: "),
        ("rule: {interest: pets, min_wieght: 0.1}", "unknown key 'rule.min_wieght'; did you mean 'min_weight'"),
        ("rule: {all: [{interest: pets}, {nott: {interest: sports}}]}", "unknown key 'rule.all.1.nott'; did you mean 'not'"),
        ("rule: &again {all: [*again]}", "rule.all.0: "),
        ("rule: {interest: pets}\nmin_size: 49", "got 49"),
        ("rule: {interest: pets}\nminsize: 60", "unknown key 'minsize'; did you mean 'min_size'"),
        ("", "rule: missing"),
    ],
)
def test_a_malformed_rule_is_refused(text: str, message: str, read: Callable[[str], Segment]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["Upper", "", "-a", "a b", "../up", "a\n", "é"])
def test_a_segment_name_fits_a_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        parse(Segment, {"name": name, "purpose": "p", "rule": {"interest": "pets"}}, "here")


@pytest.mark.parametrize(
    ("rule", "positive"),
    [
        ({"interest": "pets"}, True),
        ({"not": {"interest": "pets"}}, False),
        ({"all": [{"not": {"interest": "pets"}}, {"interest": "sports"}]}, True),
        ({"any": [{"not": {"interest": "pets"}}, {"interest": "sports"}]}, False),  # who has no pets and is else unknown would belong
        ({"any": [{"all": [{"interest": "pets"}, {"not": {"interest": "sports"}}]}, {"interest": "sports"}]}, True),
        ({"all": [{"any": [{"not": {"interest": "pets"}}]}]}, False),
    ],
)
def test_a_rule_that_could_mean_the_whole_world_is_known_as_one(
    rule: dict[str, Any], positive: bool, read: Callable[[str], Segment]
) -> None:
    assert Rule.model_validate(rule).positive() is positive
    if positive:
        assert read(f"rule: {rule}").rule == Rule.model_validate(rule)
    else:
        with pytest.raises(ConfigError, match="not negated"):
            read(f"rule: {rule}")
