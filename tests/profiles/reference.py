"""The profile arithmetic in plain Python, written from its definition in the design and the docstrings, and from nothing else."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from math import fsum, log2
from typing import Any, NamedTuple

Row = dict[str, Any]
Key = tuple[str, str, str]
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ORDER = ("occurred_at", "user_id", "text_key", "source", "action", "title", "body", "rating", "amount", "currency", "item_id", "language")
"""Of several events with one id the first in this order counts; what is missing comes last."""


class Term(NamedTuple):
    """What one event gives one value of one user."""

    key: Key
    event: Row
    worth: float


def factor(rating: float | None, factors: dict[int, float]) -> float:
    """Straight lines between the whole ratings."""
    if rating is None:
        return 1.0
    low = min(int(rating), 4)
    return factors[low] * (low + 1 - rating) + factors[low + 1] * (rating - low)


def once(events: Iterable[Row]) -> list[Row]:
    """Each event id once."""
    first: dict[str, Row] = {}
    for event in sorted(events, key=lambda each: [(each[name] is None, 0 if each[name] is None else each[name]) for name in ORDER]):
        first.setdefault(event["event_id"], event)
    return list(first.values())


def terms(events: Iterable[Row], tags: Iterable[Row], policy: Any, barred: set[str]) -> list[Term]:
    """The contributions of events, each id once, by their tags and habits."""
    events = once(events)
    best: dict[tuple[str, str, str], float] = {}
    for tag in tags:
        place = (tag["text_key"], tag["dimension"], tag["value"])
        best[place] = max(best.get(place, 0.0), tag["score"])
    found = []
    for event in events:
        for (text_key, dimension, value), score in best.items():
            hidden = dimension == "interest" and value in barred
            if text_key == event["text_key"] and score >= policy.minimum_score and not hidden:
                action, rated = policy.action_weights.get(event["action"], 1.0), factor(event["rating"], policy.rating_factors)
                worth = score * policy.source_weights.get(event["source"], 1.0) * action * (abs(rated) if action < 0 else rated)
                found.append(Term((event["user_id"], dimension, value), event, worth))
    if policy.daily_ceiling is not None:
        found = under_ceiling(found, policy.daily_ceiling)
    return found + [each for event in events for each in habits(event, policy)]


def under_ceiling(found: list[Term], ceiling: float) -> list[Term]:
    """Scaled by min(1, ceiling/Σ|c|), the sum over one user's UTC day and value."""
    sizes: defaultdict[tuple[Any, ...], float] = defaultdict(float)
    days = [(each.key, each.event["occurred_at"].astimezone(UTC).date()) for each in found]
    for day, each in zip(days, found, strict=True):
        sizes[day] += abs(each.worth)
    return [
        each._replace(worth=each.worth * min(1.0, ceiling / sizes[day])) if sizes[day] else each
        for day, each in zip(days, found, strict=True)
    ]


def habits(event: Row, policy: Any) -> list[Term]:
    """1 for the hour, weekday, source and action of an event; the amount for what is spent, below 0 where it comes back."""
    if not policy.habits:
        return []
    clock = event["occurred_at"].astimezone(UTC) + timedelta(hours=policy.habit_utc_offset_hours)
    values = {"hour": f"{clock.hour:02}", "weekday": WEEKDAYS[clock.weekday()], "source": event["source"], "action": event["action"]}
    found = [Term((event["user_id"], dimension, value), event, 1.0) for dimension, value in values.items()]
    if event["action"] in policy.spend_actions and event["amount"] is not None:
        amount = policy.spend_actions[event["action"]] * event["amount"]
        found.append(Term((event["user_id"], "spend", event["currency"] or "unknown"), event, amount))
    return found


def half_life(policy: Any, horizon: str, dimension: str) -> float:
    """Days, the dimension's own where it has any."""
    days: float = policy.dimension_half_life_days.get(dimension, {}).get(horizon, policy.half_life_days[horizon])
    return days


def state(found: Iterable[Term], policy: Any, as_of: datetime) -> dict[Key, Row]:
    """Profile state by key, and per horizon the `size`: what was summed without its signs, which rounding is measured by."""
    by_key: defaultdict[Key, list[Term]] = defaultdict(list)
    for each in found:
        if each.event["occurred_at"] <= as_of:
            by_key[each.key].append(each)
    result: dict[Key, Row] = {}
    for key, own in by_key.items():
        times = [each.event["occurred_at"] for each in own]
        row: Row = {"events": len(own), "first_at": min(times), "last_at": max(times)}
        row["last_positive_at"] = max((each.event["occurred_at"] for each in own if each.worth > 0), default=None)
        row["sources"] = sorted({each.event["source"] for each in own})
        for name in policy.half_life_days:
            ages = [(as_of - each) / timedelta(days=1) for each in times]
            faded = [each.worth * 2 ** (-age / half_life(policy, name, key[1])) for each, age in zip(own, ages, strict=True)]
            row[f"mass_{name}"], row[f"size_{name}"] = fsum(faded), fsum(map(abs, faded))
        result[key] = row
    return result


def population(states: dict[Key, Row], policy: Any) -> dict[tuple[str, str], Row]:
    """Masses and sizes of all users together, per dimension and value."""
    totals: defaultdict[tuple[str, str], Row] = defaultdict(lambda: defaultdict(float))
    for (_, dimension, value), row in states.items():
        for name in policy.half_life_days:
            for what in (f"mass_{name}", f"size_{name}"):
                totals[dimension, value][what] += row[what]
    return dict(totals)


def view(states: dict[Key, Row], totals: dict[tuple[str, str], Row], policy: Any) -> dict[Key, Row]:
    """Weight, index, confidence and trend of what has a mass above 0 on the long horizon."""
    short, long = (f"mass_{name}" for name in policy.half_life_days)
    everybody: defaultdict[str, float] = defaultdict(float)
    own: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for (dimension, _), row in totals.items():
        everybody[dimension] += max(row[long], 0.0)
    for (user, dimension, _), row in states.items():
        for name in (short, long):
            own[user, dimension, name] += max(row[name], 0.0)
    found: dict[Key, Row] = {}
    for (user, dimension, value), row in states.items():
        if row[long] > 0:
            total, kappa = everybody[dimension], policy.shrinkage
            share = max(totals[dimension, value][long], 0.0) / total if total else 0.0
            weight, lately = ((max(row[name], 0.0) + kappa * share) / (own[user, dimension, name] + kappa) for name in (long, short))
            found[user, dimension, value] = {
                "weight": weight,
                "index": 100 * weight / share if share else None,
                "confidence": own[user, dimension, long] / (own[user, dimension, long] + kappa),
                "trend": log2(lately / weight) if lately else None,
                "mass": row[long],
            }
    return found
