"""Why somebody is in a segment, or is not: each condition with the person's own values, and the events behind them."""

from dataclasses import replace
from typing import Any

import ibis
import ibis.expr.types as ir

from penchant.errors import DataError
from penchant.profiles.fold import SNIPPET_CHARACTERS, text_of
from penchant.profiles.snapshot import Snapshot
from penchant.segments.insight import condition_values
from penchant.segments.load import everybody, profiles_for
from penchant.segments.people import Audience, Profiles, below, counted, listed, members
from penchant.segments.rule import Rule

LISTED = 5
"""Events listed per count."""


def why(audience: Audience, snapshot: Snapshot, user: str) -> dict[str, Any]:
    """`member`, `beyond_top` where only the segment's `top` leaves the person out, and the `conditions`: each with its `text`, whether it `holds`, whether it is `negated`, the person's `attributes` it is about
    with their evidence, or the `events` it counts.

    Raises `DataError` for somebody of whom nothing is known.
    """  # noqa: D205 - one sentence
    attributes = [row for row in snapshot.of_user(user) if row["value"] not in snapshot.taxonomy.sensitive - audience.permitted]
    one = listed([user])
    whole = everybody(snapshot)
    alone = Profiles(
        snapshot.profiles_of(one), whole.interactions.semi_join(one, "user_id"), whole.taxonomy, whole.policy, whole.as_of, whole.shares
    )
    others = {name: is_member(other, snapshot, user) for name, other in audience.others.items()}
    known = condition_values(audience, alone)
    rows = known.filter(known.user_id == user).to_pyarrow().to_pylist()
    if not rows:
        raise DataError(f"nothing is known of user {user!r}: no profile, no event; penchant profile show tells whom the profiles know")
    wanted = {id(each) for each in audience.rule.wanted()}
    conditions = [
        {
            "text": condition.text(),
            "holds": others[condition.segment] if condition.segment is not None else rows[0][f"h{n}"],
            "negated": id(condition) not in wanted,
            "figure": figure(rows[0], n),
            "attributes": [row for row in attributes if matches(row, condition, snapshot)],
            "events": counted_events(condition, alone) if condition.kind == "count" else [],
        }
        for n, condition in enumerate(audience.rule.conditions())
    ]
    segment = audience.segment
    lists = {
        name: path is not None and user in audience.lists[str(path)]
        for name, path in (("included", segment.include), ("excluded", segment.exclude))
    }
    return {
        "user_id": user,
        "segment": segment.name,
        "as_of": snapshot.as_of,
        "member": is_member(audience, snapshot, user),
        **lists,
        "beyond_top": beyond_top(audience, snapshot, user),
        "conditions": conditions,
    }


def beyond_top(audience: Audience, snapshot: Snapshot, user: str) -> str | None:
    """The segment's `top` in words, where somebody is left out by it alone."""
    top = audience.segment.top
    if top is None or is_member(audience, snapshot, user):
        return None
    everyone = replace(audience, segment=audience.segment.model_copy(update={"top": None}))
    return f"the first {top.people:,} by {top.by}" if is_member(everyone, snapshot, user) else None


def is_member(audience: Audience, snapshot: Snapshot, user: str) -> bool:
    """Whether somebody is in a segment."""
    found = members(audience, profiles_for(audience, snapshot))
    return bool(found.filter(found.user_id == user).count().to_pyarrow().as_py())


def figure(row: dict[str, Any], n: int) -> dict[str, Any]:
    """The facts of a condition, by their names without its number."""
    return {name.partition("_")[2]: value for name, value in row.items() if name.startswith(f"c{n}_") and name != f"c{n}_in"}


def matches(row: dict[str, Any], condition: Rule, snapshot: Snapshot) -> bool:
    """Whether an attribute is what a condition is about."""
    key = condition.on_profile
    return key is not None and row["dimension"] == key[0] and row["value"] in below(key, snapshot.taxonomy)


def counted_events(condition: Rule, alone: Profiles) -> list[dict[str, Any]]:
    """The last of the events that a `count` counts, each once."""
    rows: ir.Table = alone.interactions.filter(counted(condition, alone))
    found = rows.mutate(snippet=text_of(rows, " · ").left(SNIPPET_CHARACTERS)).select(
        "event_id", "occurred_at", "source", "action", "snippet"
    )
    return list(found.distinct().order_by(ibis.desc("occurred_at"), "event_id").limit(LISTED).to_pyarrow().to_pylist())
