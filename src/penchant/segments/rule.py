"""Segment rules: any, all and not over conditions on interests; see configs/segments for complete examples."""

from collections.abc import Iterator
from functools import reduce
from operator import and_, or_
from pathlib import Path

import ibis.expr.types as ir
from pydantic import Field, model_validator

from penchant.config import Settings, load, suggestion
from penchant.errors import ConfigError, PolicyRefusal, problems
from penchant.profiles.fold import days_before
from penchant.profiles.snapshot import Snapshot
from penchant.taxonomy import Taxonomy


class Rule(Settings):
    """A node of the rule tree: exactly one of `all`, `any`, `not` and `interest`."""

    all: tuple["Rule", ...] | None = Field(None, min_length=1)
    """Every one of these holds."""
    any: tuple["Rule", ...] | None = Field(None, min_length=1)
    """At least one of these holds."""
    not_: "Rule | None" = Field(None, alias="not")
    """This doesn't hold."""
    interest: str | None = None
    """An interest; what lies below it counts for it."""
    min_weight: float | None = Field(None, ge=0, le=1)
    """Least weight, 0 to 1, summed over the interest and what lies below it."""
    seen_within_days: float | None = Field(None, gt=0)
    """Days back from the snapshot's instant in which the last event in favour of the interest has to lie."""
    sources: tuple[str, ...] | None = Field(None, min_length=1)
    """Sources of which at least one has to have contributed."""

    @model_validator(mode="after")
    def one_kind(self) -> "Rule":
        """A node is a combination or a condition, and only a condition has limits."""
        kinds = [
            name
            for name, value in (("all", self.all), ("any", self.any), ("not", self.not_), ("interest", self.interest))
            if value is not None
        ]
        if len(kinds) != 1:
            raise ValueError(f"expected exactly one of all, any, not, interest; found {', '.join(kinds) or 'none'}")
        if self.interest is None and (self.min_weight is not None or self.seen_within_days is not None or self.sources is not None):
            raise ValueError("min_weight, seen_within_days and sources belong beside an interest")
        return self

    def conditions(self) -> Iterator["Rule"]:
        """The leaves of the tree."""
        for inner in (*(self.all or ()), *(self.any or ()), *([self.not_] if self.not_ else ())):
            yield from inner.conditions()
        if self.interest is not None:
            yield self

    def positive(self) -> bool:
        """Whether everybody who meets the rule meets some condition that isn't negated, so that it can't mean the whole world."""
        if self.all is not None:
            return any(each.positive() for each in self.all)
        if self.any is not None:
            return all(each.positive() for each in self.any)
        return self.not_ is None


class Segment(Settings):
    """A named rule with what an export needs to know."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Lower-case letters, digits and dashes."""
    description: str = ""
    """Who these people are, in words."""
    purpose: str
    """What the audience is for."""
    min_size: int = Field(50, ge=50)
    """Fewer people than this are not exported; never below 50."""
    rule: Rule
    """Who belongs to it."""


def load_segment(path: Path, taxonomy: Taxonomy, sources: frozenset[str]) -> Segment:
    """Read a rule and check it against the taxonomy and the sources of the profiles.

    Raises `ConfigError` for unknown interests and sources, with the nearest names, and `PolicyRefusal` for sensitive ones.
    """
    segment = load(Segment, path)
    mistakes, refused = [], []
    for condition in segment.rule.conditions():
        assert condition.interest is not None
        if condition.interest not in taxonomy.by_id:
            mistakes.append(f"unknown interest {condition.interest!r}{suggestion(condition.interest, sorted(taxonomy.by_id))}")
        elif condition.interest in taxonomy.sensitive:
            refused.append(condition.interest)
        mistakes += [
            f"unknown source {each!r}{suggestion(each, sorted(sources))}" for each in condition.sources or () if each not in sources
        ]
    if not segment.rule.positive():
        mistakes.append("the rule holds for people nothing is known of; add an interest that is not negated")
    if mistakes:
        raise ConfigError(problems(str(path), mistakes))
    if refused:
        names = ", ".join(sorted(set(refused)))
        raise PolicyRefusal(
            f"{path}: {names}: sensitive. Inferred health, religion, politics, sexuality or ethnicity is special-category data, "
            "and advertising profiled on it is banned in the EU (DSA art. 26(3)); use an interest that isn't sensitive"
        )
    return segment


def members(segment: Segment, snapshot: Snapshot) -> ir.Table:
    """Who is in the segment: `user_id`, `weight` (of the rule's not negated interests together), `last_at`, by falling weight."""
    profiles = snapshot.profiles
    rows = profiles.filter((profiles.dimension == "interest") & profiles.value.notin(sorted(snapshot.taxonomy.sensitive) or [""]))
    wanted = {value for condition in positive_conditions(segment.rule) for value in below(condition, snapshot.taxonomy)}
    counts = rows.value.isin(sorted(wanted))
    people = rows.group_by("user_id").having(holds(segment.rule, rows, snapshot))
    found = people.agg(weight=rows.weight.sum(where=counts), last_at=rows.last_at.max(where=counts))
    return found.order_by(found.weight.desc(), found.user_id)


def below(condition: Rule, taxonomy: Taxonomy) -> list[str]:
    """The interest and everything under it."""
    assert condition.interest is not None
    return [condition.interest, *taxonomy.descendants(condition.interest)]


def positive_conditions(rule: Rule) -> Iterator[Rule]:
    """The conditions that aren't negated."""
    if rule.interest is not None:
        yield rule
    for inner in (*(rule.all or ()), *(rule.any or ())):
        yield from positive_conditions(inner)


def holds(rule: Rule, rows: ir.Table, snapshot: Snapshot) -> ir.BooleanScalar:
    """The rule as an aggregate over one user's rows."""
    if rule.all is not None:
        return reduce(and_, (holds(each, rows, snapshot) for each in rule.all))
    if rule.any is not None:
        return reduce(or_, (holds(each, rows, snapshot) for each in rule.any))
    if rule.not_ is not None:
        return ~holds(rule.not_, rows, snapshot)
    matching = rows.value.isin(below(rule, snapshot.taxonomy))
    result = matching.any()
    if rule.min_weight is not None:
        result &= rows.weight.sum(where=matching).fill_null(0.0) >= rule.min_weight
    if rule.seen_within_days is not None:
        result &= (matching & (days_before(snapshot.as_of, rows.last_positive_at) <= rule.seen_within_days)).any()
    if rule.sources is not None:
        from_source = reduce(or_, (rows.sources.contains(each) for each in rule.sources))
        result &= (matching & from_source).any()
    return result


def known_sources(snapshot: Snapshot) -> frozenset[str]:
    """Every source that contributed to any profile."""
    column = snapshot.state.select(source=snapshot.state.sources.unnest()).distinct().to_pyarrow()["source"]
    return frozenset(column.to_pylist())
