"""Consumption habits: when, where, how and for how much a user acts, as contributions like those of interests, and what they come to."""

from typing import Any

import ibis
import ibis.expr.types as ir

from penchant.profiles.policy import Policy

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOUR, WEEKDAY, SOURCE, ACTION, SPEND = "hour", "weekday", "source", "action", "spend"
HABITS = (HOUR, WEEKDAY, SOURCE, ACTION, SPEND)
"""The dimensions of habits. Values: `00` to `23`, `mon` to `sun`, a source, an action, a currency (or `unknown`)."""
HALF_A_MICROSECOND = 0.5 / 3_600_000_000
"""In hours: what keeps a full hour from being rounded into the one before it."""
WHOLE_WEEKS = 168 * 110_000
"""Hours that keep times before 1970 above 0, below which engines' remainders are negative."""
LN_2 = 0.6931471805599453
DAYS_OF_A_RATE = 30


def habits(events: ir.Table, policy: Policy) -> ir.Table:
    """Events with `dimension`, `value` and `contribution`: 1 per event in each dimension of habits, for `spend` the amount.

    An event's `days` are those since 1970. An amount counts for the policy's `spend_actions`, with their sign.
    """
    hours = (events.days * 24 + policy.habit_utc_offset_hours + HALF_A_MICROSECOND).floor().cast("int64") + WHOLE_WEEKS
    weekday = ((hours / 24).floor().cast("int64") + 3) % 7  # 1 January 1970 was a Thursday
    signs = {name: float(sign) for name, sign in policy.spend_actions.items()}
    spent = events.amount * (events.action.cases(*signs.items()) if signs else ibis.null("float64"))
    pieces = [
        ibis.struct({"dimension": ibis.literal(name), "value": value, "contribution": worth})
        for name, value, worth in (
            (HOUR, (hours % 24).cast("string").lpad(2, "0"), ibis.literal(1.0)),
            (WEEKDAY, weekday.cases(*enumerate(WEEKDAYS)), ibis.literal(1.0)),
            (SOURCE, events.source, ibis.literal(1.0)),
            (ACTION, events.action, ibis.literal(1.0)),
            (SPEND, events.currency.fill_null("unknown"), spent),
        )
    ]
    rows = events.mutate(piece=ibis.array(pieces).unnest())
    rows = rows.mutate(**{name: rows.piece[name] for name in ("dimension", "value", "contribution")}).drop("piece")
    return rows.filter(rows.contribution.notnull())


def summary(attributes: list[dict[str, Any]], policy: Policy, as_of: Any) -> dict[str, Any]:
    """What one user's habits come to, from the attributes of a view on its long horizon.

    A steady rate of r a day over A days has the mass r · h/ln 2 · (1 − 2^(−A/h)) for the half-life h, so the rate is mass · ln 2 /
    (h · (1 − 2^(−A/h))): that of lately, where an event of a half-life ago counts half. A are the days since the user's first
    event, 30 at least: who came yesterday has no rate yet.

    - `recency_days` since the last event, `last_purchase_days` since the last purchase;
    - `events_per_30_days`, and by action `frequency_per_30_days`;
    - `spend_per_30_days` by currency;
    - `purchase_cycle_days`, the mean time between two purchases; None with fewer than two;
    - `hours`, `weekdays`, `sources`: the share of events in each, largest first.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in HABITS}
    for row in attributes:
        if row["dimension"] in found:
            found[row["dimension"]][row["value"]] = row
    if not found[SOURCE]:
        return {}

    common, own = policy.half_lives(policy.horizons[1])
    known_days = max((as_of - min(row["first_at"] for row in found[SOURCE].values())).total_seconds() / 86_400, DAYS_OF_A_RATE)

    def rates(dimension: str) -> dict[str, float]:
        half_life = own.get(dimension, common)
        of_mass_1 = LN_2 / half_life / (1 - 2 ** (-known_days / half_life)) * DAYS_OF_A_RATE
        return {value: row["mass"] * of_mass_1 for value, row in found[dimension].items()}

    def shares(dimension: str) -> dict[str, float]:
        total = sum(row["mass"] for row in found[dimension].values())
        ordered = sorted(found[dimension].items(), key=lambda each: (-each[1]["mass"], each[0]))
        return {value: row["mass"] / total for value, row in ordered}

    bought = found[ACTION].get("purchase")
    return {
        "recency_days": (as_of - max(row["last_at"] for row in found[SOURCE].values())).total_seconds() / 86_400,
        "last_purchase_days": (as_of - bought["last_at"]).total_seconds() / 86_400 if bought else None,
        "events_per_30_days": sum(rates(SOURCE).values()),
        "frequency_per_30_days": rates(ACTION),
        "spend_per_30_days": rates(SPEND),
        "purchase_cycle_days": (
            (bought["last_at"] - bought["first_at"]).total_seconds() / 86_400 / (bought["events"] - 1)
            if bought and bought["events"] > 1
            else None
        ),
        "hours": shares(HOUR),
        "weekdays": shares(WEEKDAY),
        "sources": shares(SOURCE),
    }
