"""The view: what people see of profile state. Computed when it is read, never stored and added to."""

from typing import Any

import ibis
import ibis.expr.types as ir

from penchant.profiles.policy import Policy

DIMENSIONS = {
    "interest": "Interests",
    "brand": "Brands",
    "product": "Products",
    "work": "Works",
    "place": "Places",
    "hour": "Active hours",
    "weekday": "Active weekdays",
    "source": "Favourite sources",
    "action": "What they do",
    "spend": "Spending",
}
"""Headings of the dimensions, in the order in which they are shown."""


def heading(dimension: str) -> str:
    """What stands over a dimension's attributes."""
    return DIMENSIONS.get(dimension, dimension.capitalize())


def by_dimension(attributes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Attributes per dimension, in the order of `DIMENSIONS` and then of the alphabet; within one they stay as they were."""
    known = {dimension: n for n, dimension in enumerate(DIMENSIONS)}
    found = sorted({row["dimension"] for row in attributes}, key=lambda each: (known.get(each, len(known)), each))
    return {dimension: [row for row in attributes if row["dimension"] == dimension] for dimension in found}


def view(state: ir.Table, totals: ir.Table, policy: Policy) -> ir.Table:
    """Profile attributes of the users in `state`, which has one row per key, all at the instant of `totals`, the `population` of all users.

    Within a user and dimension, with m⁺ = max(mass, 0), π the population's share of the value (its positive masses over
    their sum) and κ the policy's shrinkage:

    - `weight` = (m⁺ + κ·π) / (Σm⁺ + κ) on the long horizon, 0 to 1: the values a user never touched hold the rest;
    - `index` = 100 · weight / π: 100 is the population's average; null where the population is on balance against the value;
    - `confidence` = Σm⁺ / (Σm⁺ + κ), 0 to 1: how much of the weight is the user's own doing;
    - `trend` = log2 of the short horizon's weight over the long one's: 1 is twice as strong lately, −1 half; null where
      the short horizon's is 0: nothing of the user's own is left there, and π is 0.

    Rows whose mass is 0 or less on the long horizon are no interests and are left out; they still stand in the state.
    """
    short, long = (f"mass_{name}" for name in policy.horizons)
    everybody = totals.select("dimension", "value", mass=ibis.greatest(totals[long], 0.0))
    in_dimension = everybody.group_by("dimension").agg(total=everybody.mass.sum())
    shares = everybody.inner_join(in_dimension, "dimension")
    shares = shares.select("dimension", "value", share=ibis.ifelse(shares.total > 0, shares.mass / shares.total, 0.0))
    positive = state.mutate(short=ibis.greatest(state[short], 0.0), long=ibis.greatest(state[long], 0.0))
    own = positive.group_by("user_id", "dimension").agg(own_short=positive.short.sum(), own_long=positive.long.sum())
    kappa = policy.shrinkage
    joined = positive.filter(positive.long > 0).inner_join(shares, ["dimension", "value"]).inner_join(own, ["user_id", "dimension"])
    weight = (joined.long + kappa * joined.share) / (joined.own_long + kappa)
    lately = (joined.short + kappa * joined.share) / (joined.own_short + kappa)
    return joined.select(
        "user_id",
        "dimension",
        "value",
        weight=weight,
        index=100 * weight / joined.share.nullif(0),
        confidence=joined.own_long / (joined.own_long + kappa),
        trend=(lately / weight).nullif(0).log2(),
        mass=joined.long,
        events=joined.events,
        first_at=joined.first_at,
        last_at=joined.last_at,
        last_positive_at=joined.last_positive_at,
        sources=joined.sources,
        as_of=joined.as_of,
    )
