"""The profile arithmetic in plain Python, written from its definition in the design and from nothing else."""

from collections import defaultdict
from datetime import datetime
from typing import Any

Key = tuple[str, str, str]


def factor(rating: float | None, factors: dict[int, float]) -> float:
    """Straight lines between the whole ratings."""
    if rating is None:
        return 1.0
    low = min(int(rating), 4)
    return factors[low] * (low + 1 - rating) + factors[low + 1] * (rating - low)


def masses(
    events: list[dict[str, Any]], tags: list[dict[str, Any]], policy: Any, as_of: datetime, barred: set[str]
) -> dict[Key, dict[str, Any]]:
    """Mass per horizon, number of events and evidence of every (user, dimension, value)."""
    best: dict[tuple[str, str, str], float] = {}
    for tag in tags:
        place = (tag["text_key"], tag["dimension"], tag["value"])
        best[place] = max(best.get(place, 0.0), tag["score"])
    found: defaultdict[Key, list[tuple[float, float, str]]] = defaultdict(list)
    for event in {each["event_id"]: each for each in events}.values():
        for (text_key, dimension, value), score in best.items():
            hidden = dimension == "interest" and value in barred
            if text_key != event["text_key"] or score < policy.minimum_score or hidden or event["occurred_at"] > as_of:
                continue
            action, rated = policy.action_weights.get(event["action"], 1.0), factor(event["rating"], policy.rating_factors)
            worth = score * policy.source_weights.get(event["source"], 1.0) * action * (abs(rated) if action < 0 else rated)
            age = (as_of - event["occurred_at"]).total_seconds() / 86_400
            found[event["user_id"], dimension, value].append((worth, age, event["event_id"]))
    result: dict[Key, dict[str, Any]] = {}
    for key, terms in found.items():
        mass = {name: sum(worth * 2 ** (-age / half) for worth, age, _ in terms) for name, half in policy.half_life_days.items()}
        result[key] = {"mass": mass, "events": len(terms), "terms": {event_id: worth for worth, _, event_id in terms}}
    return result
