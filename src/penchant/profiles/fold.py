"""The fold: events joined with their tags become one row of profile state per user, dimension and value.

Written as Ibis expressions, so that every engine runs the same formulas. With c the signed contribution of an event, t
its time, h a horizon's half-life and T the instant `as_of`:

    c = score · source_weight · action_weight · rating_factor      (|rating_factor| where action_weight < 0)
    mass = Σ c · 2^(−(T − t)/h)

Beside it, `surfaces` counts how people write what spans found, so that "nike" can be shown as "Nike".
"""

from collections.abc import Iterable
from datetime import datetime
from functools import reduce

import ibis
import ibis.expr.types as ir

from penchant.profiles.policy import Policy
from penchant.taxonomy import Taxonomy

SNIPPET_CHARACTERS = 160
MICROSECONDS_PER_DAY = 86_400_000_000
KEY = ("user_id", "dimension", "value")
SURFACE_KEY = ("dimension", "value", "surface")


def microseconds(moment: ir.Value) -> ir.Value:
    """Microseconds since 1970."""
    whole_seconds = moment.truncate("s").epoch_seconds()  # DuckDB's epoch has a fraction, Spark's has none
    return whole_seconds * 1_000_000 + moment.microsecond() % 1_000_000


def days_before(as_of: datetime | ir.Value, moment: ir.Value) -> ir.Value:
    """Days from `moment` to `as_of`, with fractions."""
    until = ibis.literal(int(as_of.timestamp() * 1_000_000)) if isinstance(as_of, datetime) else microseconds(as_of)
    return (until - microseconds(moment)) / MICROSECONDS_PER_DAY


def decay(days: ir.Value, half_life_days: float) -> ir.Value:
    """2^(−days/half-life)."""
    return (days * (-0.6931471805599453 / half_life_days)).exp()


def lookup(column: ir.Value, table: dict[str, float]) -> ir.Value:
    """The table's number for each value, 1 where it has none."""
    return column.cases(*table.items(), else_=1.0) if table else ibis.literal(1.0)


def rating_factor(rating: ir.Value, factors: dict[int, float]) -> ir.Value:
    """Factor of a rating from 1 to 5, on straight lines between the whole ones; 1 where there is no rating."""
    below = rating.floor().clip(1, 4)
    low, high = (below.cast("int8").cases(*((n, factors[n + step]) for n in range(1, 5)), else_=1.0) for step in (0, 1))
    return ibis.ifelse(rating.isnull(), 1.0, low + (rating - below) * (high - low))


def contributions(events: ir.Table, tags: ir.Table, policy: Policy, taxonomy: Taxonomy) -> ir.Table:
    """One row per event and tag, with its `contribution`; sensitive interests left out unless the policy allows them.

    What speaks against an interest, such as a refund, does so whatever its rating: its rating factor counts by its size.
    An event counts once however often its id occurs, and a tag that a text bears several times (a brand named twice)
    counts once, with its best score.
    """
    kept = admitted(tags, policy, taxonomy)
    best = kept.group_by("text_key", "dimension", "value").agg(score=kept.score.max())
    joined = once_each(events).inner_join(best, "text_key")
    action, factor = lookup(joined.action, policy.action_weights), rating_factor(joined.rating, policy.rating_factors)
    worth = lookup(joined.source, policy.source_weights) * action * ibis.ifelse(action < 0, factor.abs(), factor)
    return joined.select(
        *KEY,
        "event_id",
        "occurred_at",
        "source",
        "action",
        snippet=text_of(joined, " · ").left(SNIPPET_CHARACTERS),
        contribution=joined.score * worth,
    )


def admitted(tags: ir.Table, policy: Policy, taxonomy: Taxonomy) -> ir.Table:
    """The tags that may enter profiles: those that score enough and are no sensitive interests, unless the policy allows them."""
    barred = sorted(taxonomy.sensitive - set(policy.allowed_sensitive))
    kept = tags.filter(tags.score >= policy.minimum_score)
    return kept.filter((kept.dimension != "interest") | kept.value.notin(barred)) if barred else kept


def once_each(events: ir.Table) -> ir.Table:
    """Each event once, however often its id occurs."""
    return events.distinct(on="event_id", keep="first")


def text_of(events: ir.Table, between: str) -> ir.Value:
    """Title and body of each event with `between` between them, or the one there is: with a line feed, `ingest.clean.document`."""
    title, body = events.title.nullif(""), events.body.nullif("")
    return ibis.ifelse(title.isnull(), body, ibis.ifelse(body.isnull(), title, title + between + body))


def fold(rows: ir.Table, policy: Policy, as_of: datetime) -> ir.Table:
    """Profile state at `as_of` from `contributions`; later events don't count yet. Columns: `records.state_schema`.

    Evidence is the events with the largest decayed |contribution|, largest first; since all decay by the same factor,
    their order doesn't change with `as_of`.
    """
    rows = rows.filter(rows.occurred_at <= ibis.literal(as_of, type="timestamp('UTC')"))
    age = days_before(as_of, rows.occurred_at)
    long = policy.half_life_days[policy.horizons[1]]
    strength = rows.contribution.abs().nullif(0).ln().fill_null(-1e9) - age * (0.6931471805599453 / long)
    ranked = rows.mutate(age=age, rank=ibis.row_number().over(group_by=KEY, order_by=[strength.desc(), rows.event_id]))
    piece = ibis.struct({name: ranked[name] for name in ("event_id", "occurred_at", "source", "action", "snippet", "contribution")})
    return ranked.group_by(*KEY).agg(
        **{f"mass_{name}": (ranked.contribution * decay(ranked.age, days)).sum() for name, days in policy.half_life_days.items()},
        events=ranked.count(),
        first_at=ranked.occurred_at.min(),
        last_at=ranked.occurred_at.max(),
        sources=ranked.source.collect(distinct=True).sort(),
        evidence=piece.collect(where=ranked["rank"] < policy.evidence_kept, order_by=ranked["rank"]),
        as_of=ibis.literal(as_of, type="timestamp('UTC')"),
    )


def surfaces(events: ir.Table, tags: ir.Table, policy: Policy, taxonomy: Taxonomy, as_of: datetime) -> ir.Table:
    """How spans are written: per `dimension`, `value` and `surface`, the number of `events` up to `as_of` whose text bears that form.

    An event counts once, however often its id or the form in its text occurs. Offsets count code points of
    `ingest.clean.document`. Tables of parts that have no event in common add up to that of the whole: see `add_surfaces`.
    """
    kept = admitted(tags, policy, taxonomy)
    spans = kept.filter(kept.start.notnull() & kept.end.notnull()).select("text_key", "dimension", "value", "start", "end")
    counted = once_each(events).filter(lambda row: row.occurred_at <= ibis.literal(as_of, type="timestamp('UTC')"))
    joined = counted.inner_join(spans, "text_key")
    surface = text_of(joined, "\n").substr(joined.start, joined.end - joined.start).replace("\n", " ").strip()
    borne = joined.select("dimension", "value", "event_id", surface=surface).filter(lambda row: row.surface != "")
    return borne.group_by(*SURFACE_KEY).agg(events=borne.event_id.nunique())


def add_surfaces(first: ir.Table, *others: ir.Table) -> ir.Table:
    """The `surfaces` of all events from those of parts that have no event in common."""
    together = reduce(lambda one, other: one.union(other), others, first)
    return together.group_by(*SURFACE_KEY).agg(events=together.events.sum())


def frequent_surfaces(counted: ir.Table) -> ir.Table:
    """Of `surfaces`, the form of each dimension and value with the most events; of several, the alphabetically first."""
    order = ibis.row_number().over(group_by=["dimension", "value"], order_by=[counted.events.desc(), counted.surface])
    return counted.mutate(order=order).filter(lambda row: row.order == 0).select(*SURFACE_KEY)


def masses_over_time(rows: ir.Table, policy: Policy, instants: Iterable[datetime]) -> ir.Table:
    """Mass of each user, dimension and value on each horizon at several instants: what `fold` gives at each, without evidence."""
    moments = ibis.memtable({"as_of": list(instants)}, schema={"as_of": "timestamp('UTC')"})
    crossed = rows.join(moments, rows.occurred_at <= moments.as_of)
    age = days_before(crossed.as_of, crossed.occurred_at)
    return crossed.group_by(*KEY, "as_of").agg(
        **{f"mass_{name}": (crossed.contribution * decay(age, days)).sum() for name, days in policy.half_life_days.items()}
    )
