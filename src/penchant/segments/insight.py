"""What a rule means before it is used: its size, what each condition removes, what thresholds do, overlaps, and what is special about its people.

All numbers here are exact; what may be shown of them is for `penchant.segments.counts` to say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import and_
from typing import Any

import ibis
import ibis.expr.types as ir

from penchant.profiles.duck import put_aside
from penchant.profiles.fold import KEY
from penchant.profiles.habits import HABITS
from penchant.profiles.snapshot import Snapshot
from penchant.segments.load import everybody, known_people, profiles_for
from penchant.segments.people import Audience, Profiles, facts, holds, members, usable
from penchant.segments.rule import FIGURES, SCALES, SIGNS, Range, Rule, number

POINTS = 20
LIMITED = (*FIGURES, "seen_days", "times", "amount", "days")
WHOLE = ("events", "times")
"""Figures that are counts, beside the `times` of a frequency."""


def find(audience: Audience, snapshot: Snapshot) -> ir.Table:
    """A segment's people, computed once."""
    return put_aside(snapshot.connection, members(audience, profiles_for(audience, snapshot)))


def size(audience: Audience, snapshot: Snapshot) -> int:
    """How many people are in a segment."""
    return int(members(audience, profiles_for(audience, snapshot)).count().to_pyarrow().as_py())


def funnel(audience: Audience, snapshot: Snapshot) -> list[tuple[str, int]]:
    """What is left after each condition of the rule, the first being everybody who has a profile; then lists and `top`."""
    segment, rule = audience.segment, audience.rule
    parts = rule.parts if rule.all is not None else (rule,)
    first_step = audience.with_rule(parts[0])  # each later step is a part of the first one's people
    profiles = profiles_for(first_step, snapshot)
    people = put_aside(snapshot.connection, facts(audience, profiles))
    steps: list[tuple[str, Any]] = []
    tests: list[Any] = []
    first = 0
    for part in parts:
        tests.append(holds(part, people, profiles, first))
        first += len(list(part.conditions()))
        text = f"({part.text()})" if len(parts) > 1 and part.any is not None else part.text()
        steps.append((f"and {text}" if steps else text, reduce(and_, tests)))
    met = steps[-1][1]
    if segment.exclude is not None:
        met = met & people.excluded.isnull()
        steps.append((f"not in {segment.exclude}", met))
    counts = {f"n{n}": people.count(where=test) for n, (_, test) in enumerate(steps)}
    known = known_people(snapshot, audience.permitted).count()
    row = people.agg(**counts).to_pyarrow().to_pylist()[0]
    result = [("everybody with a profile", int(known.to_pyarrow().as_py()))]
    result += [(text, row[f"n{n}"]) for n, (text, _) in enumerate(steps)]
    if segment.top is not None:
        result.append((f"top {segment.top.people:,} by {segment.top.by}", min(segment.top.people, result[-1][1])))
    if segment.include is not None:
        result.append((f"and everybody in {segment.include}", size(audience, snapshot)))
    return result


@dataclass(frozen=True)
class Curve:
    """How a segment's size follows one limit of its rule."""

    condition: str
    """The condition in the short form."""
    limit: str
    """The limit, such as `weight>=0.2`."""
    current: float
    thresholds: list[float]
    sizes: list[int]


def curves(audience: Audience, snapshot: Snapshot) -> list[Curve]:
    """A curve for each limit of the rule, from 0 to twice the limit; lists and `top` aside.

    A limit that would let in people of whom nothing is known, such as 0 events or more, has no point.
    """
    profiles = profiles_for(audience.with_rule(audience.rule), snapshot)
    people = put_aside(snapshot.connection, facts(audience, profiles))
    found = []
    for n, condition, name, key in limits(audience.rule):
        current = getattr(condition, name).limits[key]
        steps = thresholds(condition, name, current)
        sizes = {}
        for m, value in enumerate(steps):
            changed = changed_limit(condition, name, key, value)
            if changed is not None:
                sizes[f"t{m}"] = people.count(where=holds(replaced(audience.rule, n, changed), people, profiles))
        row = people.agg(**sizes).to_pyarrow().to_pylist()[0]
        shown = {"seen_days": "seen", "times": "times"}.get(name, name)
        kept = [m for m in range(len(steps)) if f"t{m}" in row]
        found.append(
            Curve(
                condition.text(), f"{shown}{SIGNS[key]}{number(current)}", current, [steps[m] for m in kept], [row[f"t{m}"] for m in kept]
            )
        )
    return found


def limits(rule: Rule) -> Iterator[tuple[int, Rule, str, str]]:
    """Each limit of each condition: the condition's number, it, the figure and the name of the limit."""
    for n, condition in enumerate(rule.conditions()):
        for name in LIMITED:
            for key in found.limits if (found := getattr(condition, name)) is not None else ():
                yield n, condition, name, key


def thresholds(condition: Rule, name: str, current: float) -> list[float]:
    """Values to try for a limit: 20 steps from 0 to twice what it is, on the figure's scale, and the limit itself."""
    low, high = SCALES.get(name, (0.0, float("inf")))
    twice = 2 * abs(current)
    low, high = max(low, -twice if current < 0 else 0.0), min(high, twice or 1.0)
    steps = {low + n * (high - low) / POINTS for n in range(POINTS + 1)} | {current}
    if name in WHOLE and condition.kind != "frequency":
        steps = {float(round(each)) for each in steps} | {current}
    return sorted(steps)


def changed_limit(condition: Rule, name: str, key: str, value: float) -> Rule | None:
    """A condition with another value of one limit; None where that leaves no range, or asks for people whom the first doesn't know."""
    given = getattr(condition, name).limits | {key: value}
    try:
        changed = condition.model_copy(update={name: Range(**given)})
    except ValueError:
        return None
    return changed if changed.positive() == condition.positive() else None


def replaced(rule: Rule, n: int, condition: Rule) -> Rule:
    """A rule with another condition in the place of number `n`."""
    count = iter(range(len(list(rule.conditions()))))

    def walk(node: Rule) -> Rule:
        if not node.parts:
            return condition if next(count) == n else node
        if node.not_ is not None:
            return node.model_copy(update={"not_": walk(node.not_)})
        return node.model_copy(update={node.kind: tuple(walk(each) for each in node.parts)})

    return walk(rule)


def overlaps(audiences: Sequence[Audience], snapshot: Snapshot) -> list[list[int]]:
    """How many people each two segments have in common; on the diagonal, the sizes."""
    tables = [find(each, snapshot) for each in audiences]
    found = [[0] * len(tables) for _ in tables]
    for a, table in enumerate(tables):
        found[a][a] = int(table.count().to_pyarrow().as_py())
    for a, b in combinations(range(len(tables)), 2):
        found[a][b] = found[b][a] = int(tables[a].semi_join(tables[b], "user_id").count().to_pyarrow().as_py())
    return found


def special(audience: Audience, snapshot: Snapshot, least: int = 50) -> list[dict[str, Any]]:
    """What the segment's people have more of, or less, than all others with a profile: by falling index.

    Per attribute that at least so many of both have: `people` of the `size` and `others` of the `rest` who have it, and the
    `index`: 100 · the people's mean weight / the others', where who lacks the attribute has weight 0. `asked` says that the
    rule itself asks for it.
    """
    profiles = usable(everybody(snapshot), audience.permitted)
    known = known_people(snapshot, audience.permitted)
    inside = put_aside(snapshot.connection, find(audience, snapshot).semi_join(known, "user_id"))
    rows = profiles.attributes.filter(profiles.attributes.dimension.notin(HABITS))
    flagged = rows.left_join(inside.select("user_id", inside=ibis.literal(True)), "user_id")
    within = flagged.inside.fill_null(False)
    sums = flagged.group_by(*KEY[1:]).agg(
        people=within.cast("int64").sum(),
        others=(~within).cast("int64").sum(),
        weight=flagged.weight.sum(where=within),
        other_weight=flagged.weight.sum(where=~within),
    )
    sums = sums.filter((sums.people >= least) & (sums.others >= least))
    size = int(inside.count().to_pyarrow().as_py())
    rest = int(known.count().to_pyarrow().as_py()) - size
    asked = {each.key for each in audience.rule.conditions() if each.key is not None}
    found = [
        {
            "dimension": row["dimension"],
            "value": row["value"],
            "label": snapshot.label(row["dimension"], row["value"]),
            "people": row["people"],
            "others": row["others"],
            "size": size,
            "rest": rest,
            "index": 100 * (row["weight"] / size) / (row["other_weight"] / rest),
            "asked": (row["dimension"], row["value"]) in asked,
        }
        for row in sums.to_pyarrow().to_pylist()
    ]
    return sorted(found, key=lambda row: (-row["index"], row["value"]))


def condition_values(audience: Audience, profiles: Profiles) -> ir.Table:
    """The facts of each person, and for each condition whether it holds (`h0`, `h1` …)."""
    people = facts(audience, profiles)
    return people.mutate(**{f"h{n}": holds(each, people, profiles, n) for n, each in enumerate(audience.rule.conditions())})
