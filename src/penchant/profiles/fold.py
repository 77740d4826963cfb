"""The fold: tagged events become profile state, one row per user, dimension and value, and state of parts adds up to that of the whole.

Written as Ibis expressions, so that every engine runs the same formulas. With c the signed contribution of an event, t
its time, h a horizon's half-life and T the instant `as_of`:

    c = score · source_weight · action_weight · rating_factor      (|rating_factor| where action_weight < 0)
    mass(T) = Σ c · 2^(−(T − t)/h)
    mass(T₂) = mass(T₁) · 2^(−(T₂ − T₁)/h) + Σ new

The last line is `merge`: whatever order events come in, and however they are dealt out, the sums are the same.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import reduce
from operator import add
from typing import Any

import ibis
import ibis.expr.types as ir

from penchant.profiles.habits import habits
from penchant.profiles.policy import Policy
from penchant.records import EVIDENCE
from penchant.taxonomy import Taxonomy

SNIPPET_CHARACTERS = 160
MICROSECONDS_PER_DAY = 86_400_000_000
LN_2 = 0.6931471805599453
KEY = ("user_id", "dimension", "value")
TAG = ("dimension", "value", "score", "surfaces")
SURFACE_KEY = ("dimension", "value", "surface")
EVENT_ORDER = (
    "occurred_at",
    "user_id",
    "text_key",
    "source",
    "action",
    "title",
    "body",
    "rating",
    "amount",
    "currency",
    "item_id",
    "language",
)
"""Which of several events with the same id counts: the first in this order."""


def microseconds(moment: ir.Value) -> ir.Value:
    """Microseconds since 1970, in a session whose times are in UTC."""
    naive = moment.cast("timestamp")  # DuckDB counts between two of these three times as fast as with a zone
    return naive.delta(ibis.literal(datetime(1970, 1, 1), type="timestamp"), unit="microsecond")  # noqa: DTZ001


def days_before(as_of: datetime | ir.Value, moment: ir.Value) -> ir.Value:
    """Days from `moment` to `as_of`, with fractions."""
    until = ibis.literal(int(as_of.timestamp() * 1_000_000)) if isinstance(as_of, datetime) else microseconds(as_of)
    return (until - microseconds(moment)) / MICROSECONDS_PER_DAY


def days_of(moment: datetime) -> float:
    """Days since 1970, with fractions."""
    return moment.timestamp() / 86_400


def instant(moment: datetime) -> ir.Value:
    """A moment as a value of a table."""
    return ibis.literal(moment, type="timestamp('UTC')")


def decay(days: ir.Value, dimension: ir.Value, policy: Policy, horizon: str) -> ir.Value:
    """2^(−days/half-life), by the dimension's own half-life where it has one."""
    common, own = policy.half_lives(horizon)
    rates = {name: -LN_2 / half_life for name, half_life in own.items()}
    return (days * (dimension.cases(*rates.items(), else_=-LN_2 / common) if rates else -LN_2 / common)).exp()


def lookup(column: ir.Value, table: dict[str, float]) -> ir.Value:
    """The table's number for each value, 1 where it has none."""
    return column.cases(*table.items(), else_=1.0) if table else ibis.literal(1.0)


def rating_factor(rating: ir.Value, factors: dict[int, float]) -> ir.Value:
    """Factor of a rating from 1 to 5, on straight lines between the whole ones; 1 where there is no rating."""
    steps = (ibis.least(1.0, ibis.greatest(0.0, rating - n)) * (factors[n + 1] - factors[n]) for n in range(1, 5))
    return ibis.ifelse(rating.isnull(), 1.0, reduce(add, steps, ibis.literal(factors[1])))


def whole(total: ir.Value) -> ir.Value:
    """A sum of whole numbers as one of 64 bits: DuckDB's have 128, for which files have fractions."""
    return total.cast("decimal(38, 0)").cast("int64")


@ibis.udf.scalar.builtin(signature=(("string",), "uint64"))  # type: ignore[untyped-decorator]
def hash(value: str) -> int:  # type: ignore[empty-body] # noqa: A001 - the engine's own, by its name
    """A number that equal texts share, on one engine; Ibis's own `hash` takes DuckDB's through a string of bits."""


def as_it_is(rows: ir.Table) -> ir.Table:
    """Rows that are computed wherever they are used."""
    return rows


def once_each(events: ir.Table, suspects: ir.Table | None = None, aside: Callable[[ir.Table], ir.Table] = as_it_is) -> ir.Table:
    """Each event once, however often its id occurs: of several, the first in `EVENT_ORDER`.

    `suspects` are hashes of ids that may occur more than once (`repeated_hashes`), where they are known already. `aside`
    keeps rows that are used more than once: without it every use of the result reads `events` twice.
    """
    suspects = suspects if suspects is not None else repeated_hashes(events)
    alone = hashed(events).anti_join(suspects, "id_hash").drop("id_hash")
    several = hashed(events).semi_join(suspects, "id_hash").drop("id_hash")
    order = ibis.row_number().over(group_by="event_id", order_by=[several[name] for name in EVENT_ORDER])
    return alone.union(aside(several.mutate(order=order).filter(lambda row: row.order == 0).drop("order")))


def repeated_hashes(events: ir.Table) -> ir.Table:
    """Hashes that several events' ids have: numbers are counted faster than ids, and mostly there are none."""
    hashes = hashed(events).select("id_hash")
    return hashes.group_by("id_hash").agg(n=hashes.count()).filter(lambda row: row.n > 1).select("id_hash")


def hashed(events: ir.Table) -> ir.Table:
    """Events with a hash of their ids."""
    return events.mutate(id_hash=hash(events.event_id))


def best_tags(tags: ir.Table, events: ir.Table) -> ir.Table:
    """One row per text, dimension and value, with the best `score` and the `surfaces`: every form in which the text has the value.

    A brand that a text names twice counts once.
    """
    spans = tags.filter(tags.start.notnull() & tags.end.notnull())
    of_spans = events.semi_join(spans, "text_key")
    texts = of_spans.group_by("text_key").agg(text=text_of(of_spans, "\n").min())
    joined = tags.left_join(texts, "text_key").drop("text_key_right")
    form = joined.text.substr(joined.start, joined.end - joined.start).replace("\n", " ").strip().nullif("")
    formed = joined.select("text_key", "dimension", "value", "score", form=form)
    return formed.group_by("text_key", "dimension", "value").agg(
        score=formed.score.max(), surfaces=formed.form.collect(distinct=True, where=formed.form.notnull()).sort()
    )


def of_text(events: ir.Table) -> list[str]:
    """What an event's tags are found by: its text, and for kept events the version that they were given with."""
    return [name for name in ("text_key", "tagging") if name in events.columns]


def tagged(events: ir.Table, best: ir.Table) -> ir.Table:
    """Events with the `best_tags` of their text in a list, by dimension and value."""
    key, piece = of_text(events), ibis.struct({name: best[name] for name in TAG})
    lists = best.group_by(key).agg(tags=piece.collect().sort())
    return events.left_join(lists, key).drop(*(f"{name}_right" for name in key))


def weighed(events: ir.Table, policy: Policy) -> ir.Table:
    """Events with `worth`, what each gives a tag of score 1, and `days` since 1970: before they meet their tags, of which there are more.

    What speaks against an interest, such as a refund, does so whatever its rating: its rating factor counts by its size.
    """
    action, factor = lookup(events.action, policy.action_weights), rating_factor(events.rating, policy.rating_factors)
    against = sorted(name for name, weight in policy.action_weights.items() if weight < 0)
    worth = lookup(events.source, policy.source_weights) * action * ibis.ifelse(events.action.isin(against), factor.abs(), factor)
    return dated(events.mutate(worth=worth))


def dated(events: ir.Table) -> ir.Table:
    """Events with the `days` since 1970 that each occurred at."""
    return events.mutate(days=microseconds(events.occurred_at) / MICROSECONDS_PER_DAY)


def joined(events: ir.Table, best: ir.Table, policy: Policy) -> ir.Table:
    """One row per event and tag of `best_tags`, weighed."""
    return weighed(events, policy).inner_join(best, of_text(events))


def text_of(events: ir.Table, between: str) -> ir.Value:
    """Title and body of each event with `between` between them, or the one there is: with a line feed, `ingest.clean.document`."""
    title, body = events.title.nullif(""), events.body.nullif("")
    return ibis.ifelse(title.isnull(), body, ibis.ifelse(body.isnull(), title, title + between + body))


def permitted(tag: Any, policy: Policy, taxonomy: Taxonomy) -> ir.BooleanValue:
    """Whether a tag, a row or a struct with `dimension` and `value`, is no sensitive interest, or the policy allows it."""
    barred = sorted(taxonomy.sensitive - policy.permitted)
    return (tag["dimension"] != "interest") | tag["value"].notin(barred) if barred else ibis.literal(True)


def admitted(rows: ir.Table, policy: Policy, taxonomy: Taxonomy) -> ir.Table:
    """The tags that may enter profiles: those that score enough and are `permitted`."""
    return rows.filter((rows.score >= policy.minimum_score) & permitted(rows, policy, taxonomy))


def contributions(rows: ir.Table, events: ir.Table, policy: Policy, taxonomy: Taxonomy) -> ir.Table:
    """One row per event and value with its signed `contribution`; habits too, where the policy wants them.

    `rows` are the events with their tags, `joined`; `events` are all of them, with a tag or without.
    """
    rows = admitted(rows, policy, taxonomy)
    columns = (*KEY, "event_id", "occurred_at", "days", "source", "action", "title", "body", "contribution")
    result = rows.mutate(contribution=rows.score * rows.worth).select(*columns)
    if policy.daily_ceiling is not None:
        result = under_ceiling(result, policy.daily_ceiling)
    if policy.habits:
        result = result.union(habits(dated(events), policy).select(*columns))
    return result


def under_ceiling(rows: ir.Table, ceiling: float) -> ir.Table:
    """Contributions scaled down where those of one user, day (UTC) and value come to more than `ceiling` in size together."""
    total = rows.contribution.abs().sum().over(group_by=[*(rows[name] for name in KEY), rows.days.floor()])
    return rows.mutate(contribution=rows.contribution * ibis.least(1.0, ceiling / total.nullif(0).fill_null(1.0)))


def fold(rows: ir.Table, policy: Policy, as_of: datetime, sources: Sequence[str] | None = None) -> ir.Table:
    """Profile state at `as_of` from `contributions`; later events don't count yet. Columns: `records.state_schema`.

    `sources` are all that occur, where that is known: it saves collecting them. A column `sign` of 1 and −1, where there
    is one, adds an event or takes it back.
    """
    rows = rows.filter(rows.occurred_at <= instant(as_of))
    signed = rows.contribution * rows.sign if "sign" in rows.columns else rows.contribution
    rows = rows.mutate(age=days_of(as_of) - rows.days, signed=signed)
    by_source = {f"from_{n}": (rows.source == name).any() for n, name in enumerate(sources or ())}
    collected = {} if sources is not None else {"sources": rows.source.collect(distinct=True).sort()}
    folded = rows.group_by(*KEY).agg(
        **{f"mass_{name}": (rows.signed * decay(rows.age, rows.dimension, policy, name)).sum() for name in policy.horizons},
        events=whole(rows.sign.sum()) if "sign" in rows.columns else rows.count(),
        first_at=rows.occurred_at.min(),
        last_at=rows.occurred_at.max(),
        last_positive_at=rows.occurred_at.max(where=rows.contribution > 0),
        **by_source,
        **collected,
    )
    if sources is not None:
        names = [ibis.ifelse(folded[f"from_{n}"], name, ibis.null("string")) for n, name in enumerate(sources)]
        folded = folded.mutate(sources=ibis.array(names).filter(lambda each: each.notnull()))
    return folded.select(*state_columns(policy)[:-1], as_of=instant(as_of))


def state_columns(policy: Policy) -> tuple[str, ...]:
    """Columns of profile state, in order."""
    masses = (f"mass_{name}" for name in policy.horizons)
    return (*KEY, *masses, "events", "first_at", "last_at", "last_positive_at", "sources", "as_of")


def carried(state: ir.Table, policy: Policy, as_of: datetime) -> dict[str, ir.Value]:
    """Each horizon's mass, decayed from the instant of its row to `as_of`."""
    age = days_before(as_of, state.as_of)
    return {f"mass_{name}": state[f"mass_{name}"] * decay(age, state.dimension, policy, name) for name in policy.horizons}


def merge(state: ir.Table, policy: Policy, as_of: datetime) -> ir.Table:
    """State at `as_of` from state of parts that have no event in common, each at its own instant, as one table with several rows per key."""
    rows = state.mutate(**carried(state, policy, as_of))
    return (
        rows.group_by(*KEY)
        .agg(
            **{f"mass_{name}": rows[f"mass_{name}"].sum() for name in policy.horizons},
            events=whole(rows.events.sum()),
            first_at=rows.first_at.min(),
            last_at=rows.last_at.max(),
            last_positive_at=rows.last_positive_at.max(),
            sources=rows.sources.collect().flatten().unique().sort(),
        )
        .select(*state_columns(policy)[:-1], as_of=instant(as_of))
    )


def population(state: ir.Table, policy: Policy, as_of: datetime) -> ir.Table:
    """Mass of all users together per dimension and value at `as_of`; as linear as the state itself, so that parts of it, or of the state, add up."""
    rows = state.mutate(**carried(state, policy, as_of))
    totals = {f"mass_{name}": rows[f"mass_{name}"].sum() for name in policy.horizons}
    return rows.group_by("dimension", "value").agg(**totals).mutate(as_of=instant(as_of))


def surfaces(rows: ir.Table, policy: Policy, taxonomy: Taxonomy, as_of: datetime) -> ir.Table:
    """How spans are written: per `dimension`, `value` and `surface`, the number of `events` up to `as_of` whose text bears that form.

    `rows` are those of `contributions`. Tables of parts that have no event in common add up to that of the whole: see `add_surfaces`.
    """
    rows = admitted(rows.filter(rows.occurred_at <= instant(as_of)), policy, taxonomy)
    borne = rows.select("dimension", "value", surface=rows.surfaces.unnest())
    return borne.group_by(*SURFACE_KEY).agg(events=borne.count())


def add_surfaces(counted: ir.Table) -> ir.Table:
    """The `surfaces` of all events from those of parts, as one table with several rows per form."""
    return counted.group_by(*SURFACE_KEY).agg(events=whole(counted.events.sum()))


def frequent_surfaces(counted: ir.Table) -> ir.Table:
    """Of `surfaces`, the form of each dimension and value with the most events; of several, the alphabetically first."""
    order = ibis.row_number().over(group_by=["dimension", "value"], order_by=[counted.events.desc(), counted.surface])
    return counted.mutate(order=order).filter(lambda row: row.order == 0).select(*SURFACE_KEY)


def evidence(rows: ir.Table, policy: Policy) -> ir.Table:
    """Per user, dimension and value, the events of `contributions` with the largest decayed |contribution|, largest first, as `evidence`.

    Since all decay by the same factor, their order is the same at every instant; strengths are compared as logarithms.
    """
    _, long = policy.horizons
    common, own = policy.half_lives(long)
    rates = {name: LN_2 / days for name, days in own.items()}
    rate = rows.dimension.cases(*rates.items(), else_=LN_2 / common) if rates else LN_2 / common
    strength = rows.contribution.abs().nullif(0).ln().fill_null(-1e9) + rows.days * rate
    ranked = rows.mutate(rank=ibis.row_number().over(group_by=KEY, order_by=[strength.desc(), rows.event_id]))
    ranked = ranked.filter(lambda row: row["rank"] < policy.evidence_kept)
    ranked = ranked.mutate(snippet=text_of(ranked, " · ").left(SNIPPET_CHARACTERS))
    piece = ibis.struct({name: ranked[name] for name in ("rank", *EVIDENCE.names)})
    listed = ranked.group_by(*KEY).agg(ranked=piece.collect().sort())  # by rank, which stands first: Spark can't collect in an order
    return listed.select(*KEY, evidence=listed.ranked.map(lambda each: ibis.struct({name: each[name] for name in EVIDENCE.names})))


def masses_over_time(rows: ir.Table, policy: Policy, instants: Iterable[datetime]) -> ir.Table:
    """Mass of each user, dimension and value on each horizon at several instants: what `fold` gives at each."""
    moments = ibis.memtable({"as_of": list(instants)}, schema={"as_of": "timestamp('UTC')"})
    crossed = rows.join(moments, rows.occurred_at <= moments.as_of)
    crossed = crossed.mutate(age=days_before(crossed.as_of, crossed.occurred_at))
    return crossed.group_by(*KEY, "as_of").agg(
        **{f"mass_{name}": (crossed.contribution * decay(crossed.age, crossed.dimension, policy, name)).sum() for name in policy.horizons}
    )
