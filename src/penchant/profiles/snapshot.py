"""Profiles as they are at an instant: built from events and tags, updated by new ones, opened to be read."""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from penchant import __version__
from penchant.config import parse
from penchant.errors import DataError
from penchant.files import written_aside
from penchant.profiles import habits
from penchant.profiles.duck import connect, put_aside
from penchant.profiles.fold import (
    KEY,
    SURFACE_KEY,
    add_surfaces,
    admitted,
    best_tags,
    contributions,
    evidence,
    fold,
    frequent_surfaces,
    hashed,
    instant,
    joined,
    merge,
    of_text,
    once_each,
    permitted,
    population,
    repeated_hashes,
    surfaces,
    tagged,
)
from penchant.profiles.inputs import Inputs, read_inputs, read_tags, usable
from penchant.profiles.policy import Policy
from penchant.profiles.store import (
    BUCKET_DIGITS,
    BY_USER,
    PARTS,
    Head,
    Store,
    bucket_name,
    columns_of,
    overlapping,
)
from penchant.profiles.view import view
from penchant.taxonomy import Taxonomy

log = logging.getLogger(__name__)
TOLERANCE = 1e-9
"""Largest difference of a mass from that of a rebuild, relative to the sum of its contributions' sizes: rounding, and no more."""


@dataclass(frozen=True)
class Snapshot:
    """Profiles as they were at an instant."""

    connection: Any
    head: Head
    taxonomy: Taxonomy
    as_of: datetime

    @property
    def policy(self) -> Policy:
        """What the masses were made under."""
        return self.head.policy

    @property
    def about(self) -> dict[str, Any]:
        """What the profiles were made with."""
        return self.head.about

    @cached_property
    def state(self) -> ir.Table:
        """Profile state of all users, one row per key."""
        return self.head.state(self.connection, self.as_of)

    @cached_property
    def users(self) -> int:
        """How many users have state."""
        return int(self.state.user_id.nunique().to_pyarrow().as_py())

    @cached_property
    def totals(self) -> ir.Table:
        """Masses of the whole population per dimension and value."""
        return ibis.memtable(self.head.totals(self.connection, self.as_of).to_pyarrow())

    @cached_property
    def profiles(self) -> ir.Table:
        """The view of all users."""
        return view(self.state, self.totals, self.policy)

    def profiles_of(self, users: ir.Table) -> ir.Table:
        """The view of some users, a table with `user_id`."""
        return view(self.head.state(self.connection, self.as_of, users=users), self.totals, self.policy)

    @cached_property
    def shares(self) -> dict[tuple[str, str], float]:
        """The population's share of each (dimension, value) on the long horizon, as in `penchant.profiles.view`."""
        long = f"mass_{self.policy.horizons[1]}"
        masses = {(row["dimension"], row["value"]): max(row[long], 0.0) for row in self.totals.to_pyarrow().to_pylist()}
        sums: dict[str, float] = defaultdict(float)
        for (dimension, _), mass in masses.items():
            sums[dimension] += mass
        return {key: mass / sums[key[0]] if sums[key[0]] > 0 else 0.0 for key, mass in masses.items()}

    @cached_property
    def interactions(self) -> ir.Table:
        """One row per kept event and tag that may enter profiles, `title` and `body` with it; one without dimension and value where there is none."""
        tags = admitted(self.head.tags(self.connection), self.policy, self.taxonomy)
        events = self.head.rows(self.connection, "event")
        rows = events.left_join(tags, of_text(events))
        return rows.select("user_id", "event_id", "occurred_at", "source", "action", "dimension", "value", "title", "body")

    @cached_property
    def kept(self) -> ir.Table:
        """The kept events of all users, `records.KEPT`, with their `tags` in a list."""
        return tagged(self.head.rows(self.connection, "event"), self.head.tags(self.connection))

    @cached_property
    def forms(self) -> dict[tuple[str, str], str]:
        """The most frequent form of each (dimension, value) that spans found."""
        counted = add_surfaces(self.head.rows(self.connection, "surface"))
        return {(row["dimension"], row["value"]): row["surface"] for row in frequent_surfaces(counted).to_pyarrow().to_pylist()}

    def label(self, dimension: str, value: str, language: str | None = None) -> str:
        """What people read for a value: an interest's name, in `language` where it has one, or the form most events write it in."""
        if dimension == "interest":
            return self.taxonomy.label(value, language)
        return self.forms.get((dimension, value), value)

    def contributions(self, users: ir.Table | None = None, bucket: str | None = None) -> ir.Table:
        """What the kept events of `users` (a table with `user_id`; all unless given) contributed; see `penchant.profiles.fold.contributions`."""
        kept = self.head.rows(self.connection, "event", self.head.files("event", bucket))
        if users is not None:
            kept = kept.semi_join(users, "user_id")
        best = self.head.tags(self.connection, self.head.files("tag", bucket))
        return contributions(joined(kept, best, self.policy), kept, self.policy, self.taxonomy)

    def explained(self, attributes: ir.Table, bucket: str | None = None) -> ir.Table:
        """Attributes of a view with `evidence`, the kept events that weigh most in each."""
        found = evidence(self.contributions(attributes.select("user_id").distinct(), bucket), self.policy)
        return attributes.left_join(found, list(KEY)).drop(*(f"{name}_right" for name in KEY))

    @cached_property
    def lookup(self) -> "Lookup":
        """Profiles of single users."""
        return Lookup(self)

    def of_user(self, user: str) -> list[dict[str, Any]]:
        """One user's attributes of all dimensions by falling weight, each with its `evidence`; none for a user without any."""
        return self.lookup(user)


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def getvariable(variable: str) -> str:  # type: ignore[empty-body] # DuckDB has the body
    """DuckDB's variable of a name."""


class Lookup:
    """Profiles of one user after the other: the statements are compiled once, and read the files of the user's bucket alone."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot, self.connection = snapshot, snapshot.connection
        self.buckets: dict[str, list[str]] = {}
        policy, wanted = snapshot.policy, getvariable("penchant_user")
        for part in BY_USER:
            self.connection.create_view(f"one_{part}", ibis.memtable(columns_of(part, policy).empty_table()))
        kept, tags, state = (self.connection.table(f"one_{part}") for part in BY_USER)
        kept, state = (table.filter(table.user_id == wanted) for table in (kept, state))
        shown = view(merge(state, policy, snapshot.as_of), snapshot.totals, policy)
        rows = contributions(joined(kept, tags, policy), kept, policy, snapshot.taxonomy)
        self.attributes = self.compiled(shown.order_by(shown.weight.desc(), shown.value, shown.dimension))
        self.behind = self.compiled(evidence(rows, policy))

    def compiled(self, rows: ir.Table) -> str:
        """The name of a view of `rows`, which may read tables in memory."""
        name: str = ibis.util.gen_name("penchant")
        self.connection.create_view(name, rows)
        return name

    def __call__(self, user: str) -> list[dict[str, Any]]:
        """One user's attributes, each with its evidence."""
        head, run = self.snapshot.head, self.connection.con.execute
        bucket = bucket_name(user, head.digits)
        with head.store.damage_named([each for part in BY_USER for each in head.files(part, bucket)]):
            if bucket not in self.buckets:
                self.buckets[bucket] = [self.compiled(head.rows(self.connection, part, head.files(part, bucket))) for part in BY_USER]
            for part, name in zip(BY_USER, self.buckets[bucket], strict=True):
                run(f'CREATE OR REPLACE VIEW one_{part} AS FROM "{name}"')
            run("SET VARIABLE penchant_user = ?", [user])
            rows, behind = (
                self.connection.con.sql(f'FROM "{name}"').to_arrow_table().to_pylist() for name in (self.attributes, self.behind)
            )
        by_key = {(row["dimension"], row["value"]): row["evidence"] for row in behind}
        return [row | {"evidence": by_key.get((row["dimension"], row["value"]), [])} for row in rows]


def build(
    events: Path, tags: Path, policy: Policy, output: Path | str, taxonomy: Path | None = None, as_of: datetime | None = None
) -> dict[str, Any]:
    """Fold all events into the store `output`, as a new version where there is one; what it was made with and how much it holds.

    `as_of` defaults to the last event's time; later events are left out, and not kept. Events that can't be used are listed
    in `NAME.rejects.csv` beside a local store.
    """
    store, connection = Store(output), connect()
    inputs = read_inputs(connection, events, tags, taxonomy)
    rows = usable(inputs.events, rejects_of(store))
    if as_of is not None:
        rows = rows.filter(rows.occurred_at <= instant(as_of))
    counts = (
        rows.agg(events=rows.count(), last=rows.occurred_at.max(), sources=rows.source.collect(distinct=True)).to_pyarrow().to_pylist()[0]
    )
    if not counts["events"]:
        raise DataError(f"{events}: no events{f' up to {as_of:%Y-%m-%d %H:%M}' if as_of is not None else ''}")
    as_of = (as_of or counts["last"]).astimezone(UTC)
    require_overlap(inputs, tags, events)
    require_allowed(policy, inputs.taxonomy)
    suspects = put_aside(connection, repeated_hashes(rows))
    once = once_each(rows, suspects, partial(put_aside, connection))
    best = put_aside(connection, kept_tags(inputs.tags, rows, policy, inputs.taxonomy))
    parts = folded(connection, once, best, policy, inputs.taxonomy, as_of, sorted(counts["sources"]))
    about = about_of(policy, inputs.taxonomy, inputs.bundle, as_of) | {"what": "build"}
    about |= {"events": counts["events"] - repeats(rows, suspects), **size_of(parts["state"])}
    store.retried(lambda: store.create(connection, parts, about, policy))
    return about


def kept_tags(tags: ir.Table, events: ir.Table, policy: Policy, taxonomy: Taxonomy) -> ir.Table:
    """The `best_tags` that are kept with events: sensitive interests that the policy doesn't allow stand beside no user's name."""
    best = best_tags(tags, events)
    return best.filter(permitted(best, policy, taxonomy))


def repeats(events: ir.Table, suspects: ir.Table) -> int:
    """How many events `once_each` leaves out."""
    several = hashed(events).semi_join(suspects, "id_hash")
    return int((several.count() - several.event_id.nunique()).to_pyarrow().as_py())


def folded(
    connection: Any,
    events: ir.Table,
    best: ir.Table,
    policy: Policy,
    taxonomy: Taxonomy,
    as_of: datetime,
    sources: list[str] | None = None,
) -> dict[str, ir.Table]:
    """The parts of a store that events and the tags of their texts come to."""
    rows = joined(events, best, policy)
    state = put_aside(connection, fold(contributions(rows, events, policy, taxonomy), policy, as_of, sources))
    return {
        "event": events,
        "tag": best,
        "state": state,
        "population": population(state, policy, as_of),
        "surface": surfaces(joined(events, best.filter(best.surfaces.length() > 0), policy), policy, taxonomy, as_of),
    }


def size_of(state: ir.Table) -> dict[str, int]:
    """Users and attributes of state."""
    return dict(state.agg(users=state.user_id.nunique(), attributes=state.count()).to_pyarrow().to_pylist()[0])


def about_of(policy: Policy, taxonomy: Taxonomy, bundle: str, as_of: datetime) -> dict[str, Any]:
    """What profiles are made with."""
    return {
        "as_of": as_of.isoformat(),
        "policy": policy.model_dump(mode="json"),
        "policy_fingerprint": policy.fingerprint,
        "bundle_fingerprint": bundle,
        "taxonomy": taxonomy.model_dump(mode="json"),
        "bucket_digits": BUCKET_DIGITS,
        "penchant": __version__,
    }


def rejects_of(store: Store) -> Path | None:
    """Where rejects are listed: beside a local store."""
    return store.place.with_name(f"{store.place.name}.rejects.csv") if store.local else None


def require_overlap(inputs: Inputs, tags: Path, events: Path) -> None:
    """Warn where there are tags, and not one is of a text among the events."""
    if len(inputs.tags.limit(1).to_pyarrow()) and not len(inputs.events.semi_join(inputs.tags, "text_key").limit(1).to_pyarrow()):
        log.warning("%s: not one of its tags is of a text in %s; were they made from other events?", tags, events)


def require_allowed(policy: Policy, taxonomy: Taxonomy) -> None:
    """Raise `ConfigError` for allowed interests that don't exist, and log those that do."""
    for each in sorted(policy.permitted - set(taxonomy.by_id)):
        taxonomy.get(each, "allowed_sensitive")
    if policy.allowed_sensitive:
        log.warning(
            "sensitive interests let in by the policy: %s",
            ", ".join(f"{each.interest} for {each.purpose}" for each in policy.allowed_sensitive),
        )


def update(
    events: Path,
    tags: Path,
    profiles: Path | str,
    policy: Policy | None = None,
    taxonomy: Path | None = None,
    before_commit: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Fold new events into a store, in one commit; how many were `new`, of how many `users`, and how many known before.

    An event whose id is among the kept ones within the policy's window changes nothing. `before_commit` is called when all
    is computed and nothing written.

    Raises `DataError` under another policy than the store's, or for tags of another model: their masses don't add up.
    """
    store = Store(profiles)
    connection = connect()
    head = store.open()
    inputs = read_inputs(connection, events, tags, taxonomy, parse(Taxonomy, head.about["taxonomy"], store.uri))
    require_same(head, policy, inputs, tags, store)
    rows = usable(inputs.events, rejects_of(store))
    once = put_aside(connection, once_each(rows))
    best = put_aside(connection, kept_tags(inputs.tags, once, head.policy, inputs.taxonomy))
    span = once.agg(first=once.occurred_at.min(), last=once.occurred_at.max(), events=once.count()).to_pyarrow().to_pylist()[0]
    if span["events"]:
        require_overlap(inputs, tags, events)

    def attempt() -> dict[str, Any]:
        head = store.open()
        require_same(head, policy, inputs, tags, store)
        with store.damage_named(head.files("event") + head.files("tag")):
            return added_to(head)

    def added_to(head: Head) -> dict[str, Any]:
        near = overlapping(head.files("event"), span["first"], span["last"], head.policy.deduplication_days) if span["events"] else []
        new = put_aside(connection, unknown(once, head.rows(connection, "event", near), head.policy))
        counts = new.agg(new=new.count(), users=new.user_id.nunique(), last=new.occurred_at.max()).to_pyarrow().to_pylist()[0]
        result = {"new": counts["new"], "known": span["events"] - counts["new"], "users": counts["users"]}
        if not counts["new"]:
            return result | {"as_of": head.about["as_of"]}
        as_of = max(head.as_of, counts["last"].astimezone(UTC))
        parts = added(connection, head, new, best, inputs.taxonomy, as_of)
        about = head.about | {"what": "update", "as_of": as_of.isoformat(), "events": counts["new"], "penchant": __version__}
        about = {name: value for name, value in about.items() if name not in ("users", "attributes")}
        bare = new.anti_join(best, "text_key").count().to_pyarrow().as_py()
        if bare:
            log.info(
                "%d of %d new events have no tag in %s; if their texts weren't tagged yet, tag all kept events and use: penchant profile migrate --tags",
                bare,
                counts["new"],
                tags,
            )
        if before_commit is not None:
            before_commit()
        store.commit(connection, head, parts, about, head.policy)
        return result | {"as_of": as_of.isoformat()}

    result: dict[str, Any] = store.retried(attempt)
    store.compact(connection)
    return result


def unknown(events: ir.Table, kept: ir.Table, policy: Policy) -> ir.Table:
    """Events whose id none of the kept ones has that occurred within the policy's window of it."""
    ids = kept.select("event_id", kept_at=kept.occurred_at)
    matched = events.inner_join(ids, "event_id").filter(
        lambda row: (row.occurred_at.epoch_seconds() - row.kept_at.epoch_seconds()).abs() <= policy.deduplication_days * 86_400
    )
    return events.anti_join(matched.select("event_id").distinct(), "event_id")


def added(connection: Any, head: Head, new: ir.Table, best: ir.Table, taxonomy: Taxonomy, as_of: datetime) -> dict[str, ir.Table]:
    """What new events add to the parts of a store.

    Under a daily ceiling the days they fall on are folded again with what is kept of them, and what they came to before is
    taken back.
    """
    policy = head.policy
    parts = folded(connection, new, best, policy, taxonomy, as_of)
    if policy.daily_ceiling is None:
        return parts
    span = new.agg(first=new.occurred_at.min(), last=new.occurred_at.max()).to_pyarrow().to_pylist()[0]
    days = new.select("user_id", day=new.occurred_at.date()).distinct()
    near = head.rows(connection, "event", overlapping(head.files("event"), span["first"], span["last"], 1))
    old = put_aside(connection, near.mutate(day=near.occurred_at.date()).semi_join(days, ["user_id", "day"]).drop("day"))
    now = {"tagging": ibis.literal(head.table.version() + 1, "int64")}
    whole, tags = old.union(new.mutate(**now).select(*old.columns)), head.tags(connection)
    tags = put_aside(connection, tags.semi_join(old, of_text(old)).union(best.mutate(**now).select(*tags.columns)))
    plain = policy.model_copy(update={"habits": False})  # habits know no ceiling: they are added as they are
    before, after = (contributions(joined(each, tags, policy), each, plain, taxonomy) for each in (old, whole))
    touched = contributions(joined(new, best, policy), new, plain, taxonomy).select(*KEY).distinct()
    signed = after.mutate(sign=ibis.literal(1)).union(before.mutate(sign=ibis.literal(-1))).semi_join(touched, list(KEY))
    state = put_aside(connection, fold(signed, policy, as_of))
    if policy.habits:
        state = state.union(parts["state"].filter(parts["state"].dimension.isin(habits.HABITS)))
    return parts | {"state": state, "population": population(state, policy, as_of)}


def require_same(head: Head, policy: Policy | None, inputs: Inputs, tags: Path, store: Store) -> None:
    """Raise `DataError` for another policy, model or taxonomy than the profiles were made with."""
    if policy is not None and policy.fingerprint != head.policy.fingerprint:
        raise DataError(
            f"{store.uri}: was made under another policy ({head.about['policy_fingerprint']}, not {policy.fingerprint}), "
            "and masses of two policies don't add up; rebuild it under the new one with: penchant profile migrate --policy"
        )
    if inputs.bundle != head.about["bundle_fingerprint"]:
        raise DataError(
            f"{store.uri}: was made from tags of bundle {head.about['bundle_fingerprint']}, {tags} of {inputs.bundle}; "
            "tag the kept events with the new one and rebuild: penchant profile migrate --tags"
        )
    if inputs.taxonomy.model_dump(mode="json") != head.about["taxonomy"]:
        raise DataError(f"{store.uri}: was made with another taxonomy than {tags}; rebuild it with: penchant profile migrate --tags")


def migrate(profiles: Path | str, policy: Policy | None = None, tags: Path | None = None, taxonomy: Path | None = None) -> dict[str, Any]:
    """Rebuild a store from its kept events under a new policy, or with tags of a new model; the old version stays until this one is done.

    Readers see the old version until the commit, and `restore` goes back to it until it is vacuumed.
    """
    store, connection = Store(profiles), connect()

    def attempt() -> dict[str, Any]:
        head = store.open()
        rule, nodes, bundle = policy or head.policy, parse(Taxonomy, head.about["taxonomy"], store.uri), head.about["bundle_fingerprint"]
        rows: ir.Table | None = None
        if tags is not None:
            rows, nodes, bundle = read_tags(connection, tags, taxonomy)
        require_allowed(rule, nodes)
        new = sorted(rule.permitted - head.policy.permitted)
        if new and rows is None:
            raise DataError(
                f"{store.uri}: {', '.join(new)}: the new policy allows what the old one didn't, so no event was kept with it; "
                "give the tags once more: --tags"
            )
        with store.damage_named(head.files("event") + head.files("tag")):
            kept = head.rows(connection, "event")
            if rows is not None:
                kept = put_aside(connection, kept.drop("tagging"))  # the version that is made now
                best = kept_tags(rows, kept, rule, nodes)
            else:
                best = head.tags(connection)
                best = best.filter(permitted(best, rule, nodes))
            parts = folded(connection, kept, put_aside(connection, best), rule, nodes, head.as_of)
        about = about_of(rule, nodes, bundle, head.as_of) | {"what": "migrate"}
        about |= {"events": kept.count().to_pyarrow().as_py(), **size_of(parts["state"])}
        store.commit(connection, head, parts, about, rule, mode="overwrite")
        return about

    result: dict[str, Any] = store.retried(attempt)
    return result


def load(profiles: Path | str, version: int | None = None) -> Snapshot:
    """Open a store, at a version or the last. Raises `DataError` where there is none, or it was made by other formulas than these."""
    head = Store(profiles).open(version)
    try:
        taxonomy = parse(Taxonomy, head.about["taxonomy"], str(profiles))
    except (KeyError, TypeError) as error:
        raise DataError(f"{profiles}: damaged ({type(error).__name__}: {error}); build the profiles again") from error
    head.require_files()
    return Snapshot(connect(), head, taxonomy, head.as_of)


def check(snapshot: Snapshot) -> dict[str, Any]:
    """Rebuild state, population and forms from the kept events and compare them with the stored ones.

    Gives the number of `attributes`, the rows that are `unequal` in anything but a mass, and the largest `difference` of a mass,
    relative to the sizes of what was summed.
    """
    connection, head, policy, as_of = snapshot.connection, snapshot.head, snapshot.policy, snapshot.as_of
    with head.store.damage_named([each for part in PARTS for each in head.files(part)]):
        rows = put_aside(connection, snapshot.contributions())
        rebuilt = put_aside(connection, fold(rows, policy, as_of))
        sizes = put_aside(connection, fold(rows.mutate(contribution=rows.contribution.abs()), policy, as_of))
        everybody, sizes_of_all = (population(each, policy, as_of) for each in (rebuilt, sizes))
        kept = joined(head.rows(connection, "event"), head.tags(connection), policy)
        forms = surfaces(kept, policy, snapshot.taxonomy, as_of)
        masses = [f"mass_{name}" for name in policy.horizons]
        found = [
            compared(snapshot.state, rebuilt, sizes, KEY, ("events", "first_at", "last_at", "last_positive_at", "sources"), masses),
            compared(snapshot.totals, everybody, sizes_of_all, ("dimension", "value"), (), masses),
            compared(add_surfaces(head.rows(connection, "surface")), forms, forms, SURFACE_KEY, ("events",), ()),
        ]
    return {
        "attributes": found[0]["rows"],
        "unequal": sum(each["unequal"] or 0 for each in found),
        "difference": max(each[name] or 0.0 for each in found[:2] for name in masses),
    }


def compared(
    stored: ir.Table, rebuilt: ir.Table, sizes: ir.Table, key: Sequence[str], columns: Sequence[str], masses: Sequence[str]
) -> dict[str, Any]:
    """How many rows two tables have together, in how many they are `unequal`, and each mass's largest difference, relative to its size."""
    both = stored.outer_join(rebuilt, list(key), rname="{name}_rebuilt")
    unequal = both[key[0]].isnull() | both[f"{key[0]}_rebuilt"].isnull()
    for name in columns:
        unequal |= ~both[name].identical_to(both[f"{name}_rebuilt"])
    both = both.mutate(unequal=unequal).left_join(
        sizes.select(*key, **{f"size_{name}": sizes[name] for name in masses}), list(key), rname="{name}_size"
    )
    differences = {}
    for name in masses:
        apart = (both[name] - both[f"{name}_rebuilt"]).abs()
        differences[name] = ibis.ifelse(apart.isnan(), float("inf"), apart / both[f"size_{name}"].nullif(0).fill_null(1.0)).max()
    return dict(both.agg(rows=both.count(), unequal=both.unequal.sum(), **differences).to_pyarrow().to_pylist()[0])


def user_profile(snapshot: Snapshot, user: str, language: str | None = None) -> list[dict[str, Any]]:
    """One user's attributes of all dimensions by falling weight, each with its `label` in `language`. Raises `DataError` for a user without any."""
    found = snapshot.of_user(user)
    if not found:
        known = snapshot.profiles.select("user_id").distinct().order_by("user_id").limit(3).to_pyarrow()["user_id"].to_pylist()
        others = f"users who have one: {', '.join(map(repr, known))} …" if known else "nobody has one"
        raise DataError(f"no profile for user {user!r}; {others}")
    return [{"label": snapshot.label(row["dimension"], row["value"], language)} | row for row in found]


def write_table(snapshot: Snapshot, what: str, output: Path, with_evidence: bool = False) -> int:
    """Write the whole view (with the events behind each weight, if asked for), state or kept events as Parquet; how many rows."""
    if what == "view":
        rows = snapshot.explained(snapshot.profiles) if with_evidence else snapshot.profiles
    else:
        rows = snapshot.state if what == "state" else snapshot.kept
    with written_aside(output) as aside:
        rows.to_parquet(aside, compression="zstd")
        return int(pq.read_metadata(aside).num_rows)
