"""How well profiles tell a known truth: which interests a user has, and how fast a change of interest shows."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import ibis.expr.types as ir

from penchant.errors import DataError
from penchant.ingest.convert import to_text
from penchant.ingest.readers import BadRow, rows
from penchant.profiles.fold import masses_over_time
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import load

TOP = 3


@dataclass(frozen=True)
class Planted:
    """One user's true interests, and at most one change of them."""

    user_id: str
    interests: frozenset[str]
    """At the end."""
    changed_at: datetime | None
    dropped: str | None
    gained: str | None


def load_truth(path: Path) -> dict[str, Planted]:
    """Read planted truth: JSON Lines (or CSV, Parquet) with `user_id`, `interests`, and for a change `changed_at`, `dropped`, `gained`."""
    truth: dict[str, Planted] = {}
    for place, row in rows(path):
        if isinstance(row, BadRow):
            raise DataError(f"{path}:{place}: {row.reason}")
        try:
            interests = row["interests"] if isinstance(row["interests"], list) else json.loads(row["interests"])
            if not isinstance(interests, list) or not interests:
                raise ValueError(f"interests: {interests!r}")
            changed = row.get("changed_at") or None
            moment = datetime.fromisoformat(str(changed)) if changed is not None else None
            if moment is not None and moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            user = to_text(row["user_id"])
            if user is None:
                raise ValueError("user_id: missing")
            truth[user] = Planted(user, frozenset(interests), moment, row.get("dropped") or None, row.get("gained") or None)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{path}:{place}: expected user_id, a list of interests, and perhaps changed_at, dropped, gained ({error})"
            ) from error
    if not truth:
        raise DataError(f"{path}: no users")
    return truth


def top_interests(profiles: ir.Table, count: int = TOP) -> dict[str, list[str]]:
    """The `count` interests with the largest weights of every user, largest first."""
    table = profiles.filter(profiles.dimension == "interest").select("user_id", "value", "weight").to_pyarrow().to_pylist()
    found: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for row in table:
        found[row["user_id"]].append((-row["weight"], row["value"]))
    return {user: [value for _, value in sorted(each)[:count]] for user, each in found.items()}


def precision_recall(profiles: ir.Table, truth: dict[str, Planted]) -> dict[str, float]:
    """Precision@3 and recall@3, averaged over the users of the truth; one without a profile has 0 of both."""
    top = top_interests(profiles)
    hits = {user: len(planted.interests & set(top.get(user, []))) for user, planted in truth.items()}
    return {
        "users": len(truth),
        "precision_at_3": sum(hits.values()) / (TOP * len(truth)),
        "recall_at_3": sum(hits[user] / len(planted.interests) for user, planted in truth.items()) / len(truth),
    }


def days_to_follow(rows: ir.Table, policy: Policy, truth: dict[str, Planted], horizon_days: int = 60) -> dict[str, Any]:
    """Per horizon: days after a change until the gained interest stands over the dropped one, daily looked at.

    Gives the median over the users who changed, counting one that never follows within `horizon_days` (or before the
    events end) as infinitely late, and the share that followed.
    """
    changed = {user: planted for user, planted in truth.items() if planted.changed_at is not None and planted.gained and planted.dropped}
    if not changed:
        return {"changed_users": 0}
    rows = rows.filter(rows.dimension == "interest")
    first = min(planted.changed_at for planted in changed.values() if planted.changed_at is not None)
    last = rows.occurred_at.max().to_pyarrow().as_py()
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)] if last is not None else []
    rows_of_changed = rows.filter(rows.user_id.isin(list(changed)))
    mass: defaultdict[tuple[str, datetime], dict[str, dict[str, float]]] = defaultdict(dict)
    for row in masses_over_time(rows_of_changed, policy, days).to_pyarrow().to_pylist() if days else []:
        mass[row["user_id"], row["as_of"]][row["value"]] = {name: row[f"mass_{name}"] for name in policy.horizons}
    result: dict[str, Any] = {"changed_users": len(changed)}
    for name in policy.horizons:
        took: list[float] = []
        for user, planted in changed.items():
            assert planted.changed_at is not None
            followed = (
                (day - planted.changed_at).total_seconds() / 86_400
                for day in days
                if timedelta(0) <= day - planted.changed_at <= timedelta(days=horizon_days)
                and mass[user, day].get(planted.gained or "", {}).get(name, 0.0)
                > mass[user, day].get(planted.dropped or "", {}).get(name, 0.0)
            )
            took.append(next(followed, float("inf")))
        middle = median(took)
        result[name] = {
            "median_days": middle if middle != float("inf") else None,
            "share_followed": sum(each != float("inf") for each in took) / len(took),
        }
    return result


def evaluate(profiles: Path | str, truth: Path) -> dict[str, Any]:
    """`precision_recall` of profiles, and `days_to_follow` from the events they keep."""
    planted = load_truth(truth)
    snapshot = load(profiles)
    followed = days_to_follow(snapshot.contributions(), snapshot.policy, planted)
    return precision_recall(snapshot.profiles, planted) | {"after_a_change": followed}
