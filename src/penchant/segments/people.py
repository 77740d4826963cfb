"""Who meets a rule: one table of facts per person, and the rule over it, written once as Ibis for DuckDB, PostgreSQL and Spark.

Facts are what the rule's conditions ask: `c0_weight`, `c0_seen`, `c1_times` … for the conditions in `Rule.conditions` order. They
come from two tables with one row per user, dimension and value (the profile view, `penchant.profiles.view`) and per event and
tag (`INTERACTIONS`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import reduce
from operator import and_, or_
from typing import Any

import ibis
import ibis.expr.types as ir

from penchant.profiles.habits import DAYS_OF_A_RATE, LN_2
from penchant.profiles.policy import Policy
from penchant.segments.rule import TURN, Range, Rule, Segment
from penchant.taxonomy import Taxonomy

INTERACTIONS = ("user_id", "event_id", "occurred_at", "source", "action", "dimension", "value")
"""One row per kept event and tag of its text; an event without any has one row, without dimension and value."""
MEMBERS = ("user_id", "weight", "last_at")
"""`weight` is that of the rule's conditions that aren't negated together, `last_at` their last event; null for who was included by hand."""
FARTHEST_TREND = 49
"""What no trend reaches: so many times as strong that a limit of it is the largest there is."""


@dataclass(frozen=True)
class Profiles:
    """What a rule is asked of, on any engine."""

    attributes: ir.Table
    """The profile view."""
    interactions: ir.Table
    """The kept events with their tags, `INTERACTIONS`."""
    taxonomy: Taxonomy
    policy: Policy
    as_of: datetime
    shares: Mapping[tuple[str, str], float]
    """π: the population's share of each (dimension, value), of which `index` is a multiple."""


@dataclass(frozen=True)
class Audience:
    """A segment with everything it refers to, ready to be asked."""

    segment: Segment
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """User ids of each file it names."""
    others: Mapping[str, "Audience"] = field(default_factory=dict)
    """The segments its rule names."""
    permitted: frozenset[str] = frozenset()
    """Sensitive interests that may be used for its purpose."""
    text: str = ""
    """The rule as its author wrote it, where that was the short form."""
    origin: str = "rule"
    """What mistakes in it are told by."""

    @property
    def rule(self) -> Rule:
        """Its rule."""
        return self.segment.rule

    def everything(self) -> list["Audience"]:
        """It, and all that it names, directly or not."""
        return [self, *(each for other in self.others.values() for each in other.everything())]

    def with_rule(self, rule: Rule) -> "Audience":
        """The same with another rule, and nothing but that."""
        return replace(self, segment=self.segment.model_copy(update={"rule": rule, "top": None, "include": None, "exclude": None}))


def usable(profiles: Profiles, permitted: frozenset[str]) -> Profiles:
    """Profiles without the sensitive interests that aren't permitted."""
    barred = sorted(profiles.taxonomy.sensitive - permitted)
    if not barred:
        return profiles

    def without(rows: ir.Table) -> ir.Table:
        return rows.filter((rows.dimension != "interest").fill_null(True) | rows.value.notin(barred))

    return replace(profiles, attributes=without(profiles.attributes), interactions=without(profiles.interactions))


def below(key: tuple[str, str], taxonomy: Taxonomy) -> list[str]:
    """The values that count for a value: an interest's are it and all below it."""
    dimension, value = key
    return [value, *taxonomy.descendants(value)] if dimension == "interest" else [value]


def about(rows: ir.Table, key: tuple[str, str], taxonomy: Taxonomy) -> ir.BooleanValue:
    """Whether a row is about a value, or what counts for it."""
    return (rows.dimension == key[0]) & rows.value.isin(below(key, taxonomy))


def before(as_of: datetime, days: float) -> Any:
    """The instant so many days before."""
    try:
        return ibis.literal(as_of - timedelta(days=days), type="timestamp('UTC')")
    except OverflowError:
        return ibis.literal(datetime.min.replace(year=1, tzinfo=as_of.tzinfo), type="timestamp('UTC')")


def attribute_facts(n: int, condition: Rule, profiles: Profiles) -> dict[str, Any]:
    """What one user's profile says to a condition on it, as aggregates over the user's rows."""
    rows, as_of = profiles.attributes, profiles.as_of
    if condition.kind in ("spend", "frequency"):
        habit = condition.on_profile
        assert habit is not None
        known = ((as_of.timestamp() - rows.first_at.min(where=rows.dimension == "source").epoch_seconds()) / 86_400).fill_null(0.0)
        common, own = profiles.policy.half_lives(profiles.policy.horizons[1])
        rate = LN_2 / own.get(habit[0], common)
        kept = 1 - (ibis.greatest(known, float(DAYS_OF_A_RATE)) * -rate).exp()
        return {f"c{n}_rate": rows.mass.sum(where=about(rows, habit, profiles.taxonomy)).fill_null(0.0) * rate * DAYS_OF_A_RATE / kept}
    if condition.kind == "last":
        return {f"c{n}_seen": rows.last_at.max(where=about(rows, ("action", str(condition.last)), profiles.taxonomy))}
    key = condition.on_profile
    assert key is not None
    matching = about(rows, key, profiles.taxonomy)
    found: dict[str, Any] = {f"c{n}_weight": rows.weight.sum(where=matching)}
    if condition.trend is not None or condition.direction is not None:
        lately = rows.weight * (ibis.literal(2.0) ** rows.trend)
        found[f"c{n}_lately"] = lately.fill_null(0.0).sum(where=matching)
    if condition.confidence is not None:
        found[f"c{n}_confidence"] = rows.confidence.max(where=matching)
    if condition.events is not None:
        found[f"c{n}_events"] = rows.events.sum(where=matching).cast("int64")
    if condition.seen_days is not None:
        found[f"c{n}_seen"] = rows.last_positive_at.max(where=matching)
    if condition.sources is not None:
        of_these = reduce(or_, (rows.sources.contains(each) for each in condition.sources))
        found[f"c{n}_source"] = ibis.ifelse(matching & of_these, 1, 0).max()
    return found


def counted(condition: Rule, profiles: Profiles) -> ir.BooleanValue:
    """Whether an event is one of those that a `count` counts; later ones than the profiles' instant are none of it."""
    rows = profiles.interactions
    result = rows.occurred_at <= before(profiles.as_of, 0)
    if condition.within_days is not None:
        result &= rows.occurred_at > before(profiles.as_of, condition.within_days)
    if condition.actions is not None:
        result &= rows.action.isin(condition.actions)
    if condition.sources is not None:
        result &= rows.source.isin(condition.sources)
    return result & about(rows, condition.key, profiles.taxonomy) if condition.key is not None else result


def facts(audience: Audience, profiles: Profiles) -> ir.Table:
    """One row per user whom any of the tables knows: `user_id`, the conditions' facts, `weight`, `last_at`, `included`, `excluded`."""
    profiles = usable(profiles, audience.permitted)
    conditions = list(enumerate(audience.rule.conditions()))
    rows = profiles.attributes
    on_profile = {
        name: fact
        for n, each in conditions
        if each.kind not in ("count", "segment", "users")
        for name, fact in attribute_facts(n, each, profiles).items()
    }
    wanted = [each.key for each in audience.rule.wanted() if each.kind in ("interest", "attribute") and each.key is not None]
    counts = reduce(or_, (about(rows, key, profiles.taxonomy) for key in wanted)) if wanted else ibis.literal(False)
    parts = [rows.group_by("user_id").agg(**on_profile, weight=rows.weight.sum(where=counts), last_at=rows.last_at.max(where=counts))]
    events = profiles.interactions
    times = {f"c{n}_times": events.event_id.nunique(where=counted(each, profiles)) for n, each in conditions if each.kind == "count"}
    if times:
        parts.append(events.group_by("user_id").agg(**times))
    for n, each in conditions:
        if each.segment is not None:
            parts.append(flagged(members(audience.others[each.segment], profiles), f"c{n}_in"))
        elif each.users is not None:
            parts.append(flagged(listed(audience.lists[str(each.users)]), f"c{n}_in"))
    for name, path in (("included", audience.segment.include), ("excluded", audience.segment.exclude)):
        if path is not None:
            parts.append(flagged(listed(audience.lists[str(path)]), name))
    return together(parts)


def flagged(people: ir.Table, name: str) -> ir.Table:
    """User ids with a column of ones."""
    return people.select("user_id", **{name: ibis.literal(1, "int8")}).distinct()


def listed(users: Sequence[str]) -> ir.Table:
    """A list of user ids as a table."""
    return ibis.memtable({"user_id": list(users)}, schema={"user_id": "string"})


def together(parts: Sequence[ir.Table]) -> ir.Table:
    """Tables with one row per user as one with the columns of all, null where a table doesn't know the user."""
    if len(parts) == 1:
        return parts[0]
    types = {name: kind for part in parts for name, kind in part.schema().items()}
    padded = [
        part.select(**{name: part[name] if name in part.columns else ibis.null(kind) for name, kind in types.items()}) for part in parts
    ]
    rows = ibis.union(*padded)
    return rows.group_by("user_id").agg(**{name: rows[name].max() for name in types if name != "user_id"})


def in_range(figure: Any, limits: Range) -> ir.BooleanValue:
    """Whether a figure lies within limits; where there is no figure, it doesn't."""
    tests = {"min": figure.__ge__, "above": figure.__gt__, "max": figure.__le__, "below": figure.__lt__}
    return reduce(and_, (tests[name](value) for name, value in limits.limits.items())).fill_null(False)


def days_in_range(moment: Any, limits: Range, as_of: datetime) -> ir.BooleanValue:
    """Whether so many days have passed since a moment."""
    tests = {"min": moment.__le__, "above": moment.__lt__, "max": moment.__ge__, "below": moment.__gt__}
    return reduce(and_, (tests[name](before(as_of, value)) for name, value in limits.limits.items())).fill_null(False)


def share_of(condition: Rule, profiles: Profiles) -> float:
    """The population's share of what a condition is about."""
    assert condition.key is not None
    return sum(profiles.shares.get((condition.key[0], value), 0.0) for value in below(condition.key, profiles.taxonomy))


def condition_holds(n: int, condition: Rule, people: ir.Table, profiles: Profiles) -> ir.BooleanValue:
    """Whether a condition holds for each person of a table of `facts`."""
    if condition.kind in ("segment", "users"):
        return people[f"c{n}_in"].notnull()
    if condition.times is not None or condition.amount is not None:
        figure = people[f"c{n}_times" if condition.kind == "count" else f"c{n}_rate"].fill_null(0)
        limits = condition.times or condition.amount
        assert limits is not None
        return in_range(figure, limits)
    if condition.days is not None:
        return days_in_range(people[f"c{n}_seen"], condition.days, profiles.as_of)
    weight = people[f"c{n}_weight"]
    tests = [weight.notnull()]
    if condition.weight is not None:
        tests.append(in_range(weight, condition.weight))
    if condition.index is not None:
        share = share_of(condition, profiles)
        tests.append(in_range(100 * weight / share, condition.index) if share > 0 else ibis.literal(False))
    if condition.confidence is not None:
        tests.append(in_range(people[f"c{n}_confidence"], condition.confidence))
    trend = {"rising": Range(above=TURN), "fading": Range(below=-TURN)}.get(condition.direction or "", condition.trend)
    if trend is not None:
        tests.append(
            in_range(
                people[f"c{n}_lately"] / weight,
                Range(**{name: 2.0 ** min(max(value, -FARTHEST_TREND), FARTHEST_TREND) for name, value in trend.limits.items()}),
            )
        )
    if condition.events is not None:
        tests.append(in_range(people[f"c{n}_events"], condition.events))
    if condition.seen_days is not None:
        tests.append(days_in_range(people[f"c{n}_seen"], condition.seen_days, profiles.as_of))
    if condition.sources is not None:
        tests.append((people[f"c{n}_source"] == 1).fill_null(False))
    return reduce(and_, tests)


def holds(rule: Rule, people: ir.Table, profiles: Profiles, first: int = 0) -> ir.BooleanValue:
    """Whether a rule holds for each person of a table of `facts`, where its first condition is number `first`."""
    if rule.not_ is not None:
        return ~holds(rule.not_, people, profiles, first)
    if not rule.parts:
        return condition_holds(first, rule, people, profiles)
    found = []
    for part in rule.parts:
        found.append(holds(part, people, profiles, first))
        first += len(list(part.conditions()))
    return reduce(and_ if rule.all is not None else or_, found)


def members(audience: Audience, profiles: Profiles) -> ir.Table:
    """Who is in a segment, `MEMBERS`, each once, in no order: who meets the rule, of them the `top`, and who is included; never who is excluded."""
    segment, people = audience.segment, facts(audience, profiles)
    excluded = people.excluded.notnull() if segment.exclude is not None else ibis.literal(False)
    included = people.included.notnull() if segment.include is not None else ibis.literal(False)
    people = people.mutate(meets=holds(segment.rule, people, profiles) & ~excluded, by_hand=included & ~excluded)
    found = people.filter(people.meets)
    if segment.top is not None:
        order = [found[segment.top.by].desc(nulls_first=False), found.user_id]
        ranked = found.mutate(place=ibis.row_number().over(order_by=order))
        found = ranked.filter(ranked.place < segment.top.people)
    found = found.select(*MEMBERS)
    if segment.include is None:
        return found
    more = people.filter(people.by_hand).select(*MEMBERS)
    return found.union(more.anti_join(found, "user_id"))


def candidates(rule: Rule, audience: Audience, profiles: Profiles, state: ir.Table) -> ir.Table | None:
    """Users among whom all are who meet a rule, found without their profiles, from `state` (any rows with user_id, dimension and value); None: anybody."""
    if rule.all is not None or rule.any is not None:
        found = [candidates(each, audience, profiles, state) for each in rule.parts]
        known = [each for each in found if each is not None]
        if not known or (rule.any is not None and len(known) < len(found)):
            return None
        return reduce(lambda a, b: a.semi_join(b, "user_id") if rule.all is not None else a.union(b), known).distinct()
    if rule.not_ is not None or not rule.positive():
        return None
    if rule.kind == "segment":
        return reached(audience.others[str(rule.segment)], profiles, state)
    return who(rule, audience, profiles, state).select("user_id").distinct()


def who(condition: Rule, audience: Audience, profiles: Profiles, state: ir.Table) -> ir.Table:
    """Rows of everybody of whom something is known that a condition is about."""
    if condition.kind == "users":
        return listed(audience.lists[str(condition.users)])
    if condition.kind == "count":
        return profiles.interactions.filter(counted(condition, profiles))
    key = condition.on_profile
    assert key is not None
    return state.filter(about(state, key, profiles.taxonomy))


def reached(audience: Audience, profiles: Profiles, state: ir.Table) -> ir.Table | None:
    """`candidates` of a segment: those of its rule, and who is included by hand."""
    found = candidates(audience.rule, audience, profiles, state)
    if found is None or audience.segment.include is None:
        return found
    return found.union(listed(audience.lists[str(audience.segment.include)])).distinct()
