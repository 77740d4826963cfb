"""Audiences as files for a destination: found, checked, freed of everybody who said no, logged, and only then put in place."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.csv as pa_csv

from penchant import __version__
from penchant.errors import ConfigError, DataError, PolicyRefusal
from penchant.files import file_digest, fingerprint, write_json, written_aside
from penchant.profiles.snapshot import Snapshot
from penchant.segments.choices import Choices
from penchant.segments.counts import SMALLEST_SHOWN, shown_size
from penchant.segments.customer_list import Listing
from penchant.segments.destinations import NEEDS_IDENTITIES, Destinations, listing, write
from penchant.segments.identity import Identities
from penchant.segments.life import MEMBERS_SCHEMA, Records, definition_of, require_exportable
from penchant.segments.load import column, uses_sensitive
from penchant.segments.people import Audience, below
from penchant.taxonomy import AUDIENCE_1_1, Taxonomy

log = logging.getLogger(__name__)
AD_CONSENT = ("ad_user_data", "ad_personalization")
"""Purposes that Google asks consent to, as people's choices name them."""
OWN = ("csv", "parquet", "jsonl")
"""Destinations that are no ad platform's."""
Only = Literal["add", "remove"]
LOGGED = {None: "export", "add": "export of additions", "remove": "export of removals"}


def export(
    audience: Audience,
    snapshot: Snapshot,
    output: Path,
    destination: str,
    settings: Destinations,
    records: Records,
    choices: Choices,
    by: str,
    identities: Identities | None = None,
    only: Only | None = None,
    reason: str = "",
) -> dict[str, Any] | None:
    """Write a segment's people as a destination takes them, what was dropped as `<output>.rejects.csv`, and a label as `<output>.label.json`; the label.

    `only` writes those to `add` to what the destination was given before, or to `remove` from it: who left the segment, opted out or
    withdrew consent. Removing is never refused for size, expiry or a jump. None where there is nobody to add or remove: no file.

    Raises `PolicyRefusal`, and writes nothing, for sensitive interests at an ad platform, a segment that expired, jumped or is too
    small, and `DataError` for identities that can't be used.
    """
    require_place(output)
    if destination in NEEDS_IDENTITIES and identities is None:
        raise ConfigError(f"{destination}: its lists hold e-mails, phones or device ids; name the table that has them: --identities FILE")
    if only != "remove":
        refuse_platform(audience, snapshot, destination)
    with records.locked():
        life = records.of(audience.segment.name)
        refresh = life.refresh(audience, snapshot, by)
        allowed = permitted_people(life.members(refresh["number"]), audience, snapshot, choices)
        delivered = life.delivered(destination)
        least = getattr(settings, destination).min_size
        if only != "remove":
            require_exportable(audience, refresh, datetime.now(UTC).date())
            require_allowed(audience, refresh["size"], len(allowed), max(audience.segment.min_size, least), destination)
            require_size(len(allowed), max(audience.segment.min_size, least), audience.segment.name, destination)
        people = {None: allowed, "add": apart(snapshot, allowed, delivered), "remove": apart(snapshot, delivered, allowed)}[only]
        if not len(people):
            return None
        found = listing(destination, settings, with_details(people, audience, snapshot, choices, destination, settings, only), identities)
        if only is None:
            require_size(len(found.people), least, audience.segment.name, destination, found)
        elif not len(found.table):
            log.info("%s: nobody to %s can be matched at %s: %s", audience.segment.name, only, destination, reasons(found))
            return None
        count = len(allowed) if only == "add" else len(found.people)
        label = label_of(audience, snapshot, refresh, destination, settings, found, count)
        label["penchant"]["listed"] = shown_size(len(found.people))
        about = account(audience, snapshot, refresh, destination, reason)
        with ExitStack() as stack:
            noted = life.deliver(destination, kept(snapshot, delivered, found, only))
            if only == "remove":  # noted once the file is there: a removal that nobody was sent must be listed again
                stack.enter_context(noted)
            aside = stack.enter_context(put_in_place(output, destination, settings, found, label, only))
            if only != "remove":  # noted before: who may be there is there
                stack.enter_context(noted)
            size = {"people": len(found.people), "rows": len(found.table), "file": output.name, "sha256": file_digest(aside)}
            entry = records.audit.append(LOGGED[only], by, **about, **size)
            label["penchant"] |= {"audit_entry": entry["number"], "audit_hash": entry["hash"], "sha256": entry["sha256"]}
    return label


@contextmanager
def put_in_place(
    output: Path, destination: str, settings: Destinations, found: Listing, label: dict[str, Any], only: Only | None
) -> Iterator[Path]:
    """Give the list, written aside; put it in place once the block has ended well, and then what goes beside it."""
    with ExitStack() as stack:
        if only != "remove":
            label_aside = stack.enter_context(written_aside(output.with_name(f"{output.name}.label.json")))
        if len(found.rejects):
            pa_csv.write_csv(found.rejects, stack.enter_context(written_aside(output.with_name(f"{output.name}.rejects.csv"))))
        aside = stack.enter_context(written_aside(output))
        write(destination, settings, found, aside)
        yield aside
        if only != "remove":
            write_json(label_aside, label)


def account(audience: Audience, snapshot: Snapshot, refresh: dict[str, Any], destination: str, reason: str) -> dict[str, Any]:
    """What the log says of an export: for what, why, under which rule, of which profiles and model."""
    sensitive, purpose = uses_sensitive(audience, snapshot), audience.segment.purpose
    return {
        "segment": audience.segment.name,
        "destination": destination,
        "purpose": purpose,
        "legal_basis": audience.segment.legal_basis,
        "reason": reason,
        "rule": audience.rule.text(),
        "version": refresh["version"],
        "definition": refresh["definition"],
        "refresh": refresh["number"],
        "profiles": str(snapshot.head.store.uri),
        "profiles_version": refresh["profiles_version"],
        "as_of": snapshot.as_of.isoformat(),
        "policy": refresh["policy"],
        "bundle": refresh["bundle"],
        "sensitive": [each.model_dump() for each in snapshot.policy.permits(purpose) if each.interest in sensitive],
        "penchant": __version__,
    }


def require_place(output: Path) -> None:
    """Raise `DataError` where no file can be put, before anything is recorded."""
    if output.is_dir():
        raise DataError(f"{output}: a folder; name the file to write in it")
    if not next(each for each in output.absolute().parents if each.exists()).is_dir():
        raise DataError(f"{output}: can't be written there: not a folder")


def refuse_platform(audience: Audience, snapshot: Snapshot, destination: str) -> None:
    """Raise `PolicyRefusal` for people found by a sensitive interest on the way to an ad platform, whatever was permitted."""
    found = uses_sensitive(audience, snapshot)
    if found and destination not in OWN:
        raise PolicyRefusal(
            f"{', '.join(found)}: sensitive. A permit in the policy covers your own use ({', '.join(OWN)}), not an ad platform: advertising profiled on "
            f"special-category data is banned in the EU (DSA art. 26(3)); export segment {audience.segment.name!r} to a file, or without it"
        )


def require_allowed(audience: Audience, size: int, allowed: int, least: int, destination: str) -> None:
    """Raise `PolicyRefusal` where a segment is large enough, but for those who may not be used for its purpose."""
    segment = audience.segment
    if allowed < least <= size:
        basis = (
            f"its legal basis is consent, and too few gave it for {segment.purpose!r}"
            if segment.legal_basis == "consent"
            else "too many said no"
        )
        raise PolicyRefusal(
            f"segment {segment.name!r} has {shown_size(allowed)} people who may be used for the purpose {segment.purpose!r}, under the minimum of "
            f"{least:,} for {destination}: not exported; {basis} (penchant user choices)"
        )


def require_size(count: int, least: int, name: str, destination: str, found: Listing | None = None) -> None:
    """Raise `PolicyRefusal` for too few people."""
    if count < least:
        why = f" after dropping what can't be used ({reasons(found)})" if found is not None and found.dropped else ""
        advice = "widen the rule" if not why else "mend the identities or widen the rule"
        raise PolicyRefusal(
            f"segment {name!r} has {shown_size(count)} people{why}, under the minimum of {least:,} for {destination}: not exported; {advice}"
        )


def reasons(found: Listing) -> str:
    """What was dropped, by how often."""
    return (
        ", ".join(f"{count:,} × {identifier}: {reason}" for (identifier, reason), count in found.dropped.most_common())
        or "nothing was dropped"
    )


def permitted_people(people: pa.Table, audience: Audience, snapshot: Snapshot, choices: Choices) -> pa.Table:
    """People without those who opted out or withdrew consent for the purpose; under the basis of consent, those alone who gave it."""
    rows, purpose, connection = ibis.memtable(people), audience.segment.purpose, snapshot.connection
    rows = rows.anti_join(choices.suppressed(connection, purpose), "user_id")
    if audience.segment.legal_basis == "consent":
        rows = rows.semi_join(choices.granted(connection, [purpose]), "user_id")
    return connection.to_pyarrow(rows.order_by(ibis.desc("weight"), "user_id")).cast(MEMBERS_SCHEMA)


def apart(snapshot: Snapshot, people: pa.Table, others: pa.Table) -> pa.Table:
    """People who aren't among the others, with `MEMBERS_SCHEMA`."""
    rows = ibis.memtable(people).anti_join(ibis.memtable(others.select(["user_id"])), "user_id")
    types = ibis.Schema.from_pyarrow(MEMBERS_SCHEMA)
    rows = rows.select(**{name: rows[name] if name in rows.columns else ibis.null(kind) for name, kind in types.items()})
    return snapshot.connection.to_pyarrow(rows.order_by(ibis.desc("weight"), "user_id")).cast(MEMBERS_SCHEMA)


def kept(snapshot: Snapshot, delivered: pa.Table, found: Listing, only: Only | None) -> pa.Table:
    """Who is on a destination's lists after this one: a list of all doesn't take anybody off, since platforms add what they are given."""
    before, listed = ibis.memtable(delivered), ibis.memtable(pa.table({"user_id": found.people}))
    rows = before.anti_join(listed, "user_id") if only == "remove" else before.union(listed).distinct()
    return snapshot.connection.to_pyarrow(rows.order_by("user_id"))


def with_details(
    people: pa.Table, audience: Audience, snapshot: Snapshot, choices: Choices, destination: str, settings: Destinations, only: Only | None
) -> pa.Table:
    """People with what a destination asks beside their ids: Google the consent to ads, bid requests the interests."""
    rows: ir.Table = ibis.memtable(people)
    if destination == "google":
        granted = choices.granted(snapshot.connection, AD_CONSENT).select("user_id", ad_consent=ibis.literal(True))
        rows = rows.left_join(granted, "user_id").drop("user_id_right")
        rows = rows.mutate(ad_consent=ibis.literal(True) if only == "remove" else rows.ad_consent.fill_null(False))
    if destination == "openrtb" and only != "remove":
        rows = rows.left_join(interests(people, audience, snapshot, settings), "user_id").drop("user_id_right")
    return snapshot.connection.to_pyarrow(rows.order_by(ibis.desc("weight"), "user_id"))


def interests(people: pa.Table, audience: Audience, snapshot: Snapshot, settings: Destinations) -> ir.Table:
    """Each person's weights of the interests that the rule asks for, by their ids in the taxonomy's outside table, as a list of structs.

    Raises `ConfigError` for a rule whose interests have none.
    """
    wanted = [
        value
        for each in audience.rule.wanted()
        if each.interest is not None
        for value in below(("interest", each.interest), snapshot.taxonomy)
    ]
    outside = {value: found for value in wanted if (found := outside_id(value, snapshot.taxonomy)) is not None}
    if settings.openrtb.segtax != snapshot.taxonomy.segtax:
        raise ConfigError(
            f"openrtb.segtax: {settings.openrtb.segtax}, but the ids in the profiles' taxonomy are of segtax {snapshot.taxonomy.segtax}; set it to that"
        )
    if not outside:
        raise ConfigError(
            f"segment {audience.segment.name!r}: none of its interests has an id in an outside table (iab in the taxonomy), which bid requests name interests by"
        )
    ids = ibis.memtable(pa.Table.from_pylist([{"value": value, "id": found[0], "name": found[1]} for value, found in outside.items()]))
    rows = snapshot.profiles_of(ibis.memtable(people.select(["user_id"])))
    rows = rows.filter((rows.dimension == "interest") & rows.value.notin(sorted(snapshot.taxonomy.sensitive) or [""])).inner_join(
        ids, "value"
    )
    summed = rows.group_by("user_id", "id", "name").agg(value=rows.weight.sum())
    piece = ibis.struct({"id": summed.id, "name": summed.name, "value": summed["value"]})
    return summed.group_by("user_id").agg(interests=piece.collect().sort())


def outside_id(value: str, taxonomy: Taxonomy) -> tuple[str, str] | None:
    """The outside id of an interest and the name of the node that has it: its own, or that of the nearest one above."""
    node = taxonomy.by_id.get(value)
    while node is not None and node.iab is None:
        node = taxonomy.by_id.get(node.parent or "")
    return (str(node.iab), node.name) if node is not None else None


def label_of(
    audience: Audience, snapshot: Snapshot, refresh: dict[str, Any], destination: str, settings: Destinations, found: Listing, count: int
) -> dict[str, Any]:
    """The audience label: the fields of the IAB Tech Lab's data label, and what Penchant can say beyond them."""
    segment = audience.segment
    return {
        "provider": {"name": settings.provider.name, "contact": settings.provider.contact},
        "audience": {
            "name": segment.name,
            "standard_name": standard_names(audience, snapshot.taxonomy),
            "description": segment.description,
            "geography": settings.provider.geography,
            "count": count,
            "precision_level": "individual",
            "match_key": match_key(destination),
            "expansion": "none",
            "last_refresh": refresh["as_of"].isoformat(),
            "look_back_window": look_back(audience, snapshot),
        },
        "data": {
            "origin": "texts of interaction events: " + ", ".join(column(snapshot, "source")),
            "inclusion_method": "modelled from texts by a classifier, then selected by a rule",
            "seed_size": None,
            "source_refresh_frequency": segment.refresh,
        },
        "penchant": {
            "purpose": segment.purpose,
            "legal_basis": segment.legal_basis,
            "owner": segment.owner,
            "rule": audience.rule.text(),
            "rule_fingerprint": fingerprint(definition_of(audience)),
            "version": refresh["version"],
            "refresh": refresh["number"],
            "profiles_version": refresh["profiles_version"],
            "policy_fingerprint": refresh["policy"],
            "bundle_fingerprint": refresh["bundle"],
            "dropped": {f"{of}: {reason}": shown_dropped(of, number) for (of, reason), number in found.dropped.most_common()},
            "penchant": __version__,
        },
    }


def shown_dropped(identifier: str, number: int) -> int | str:
    """How many rows or cells were dropped; of people, as they may be counted."""
    return number if identifier != "person" or number >= SMALLEST_SHOWN else shown_size(number)


def standard_names(audience: Audience, taxonomy: Taxonomy) -> list[dict[str, str]]:
    """The rule's interests by the names and ids of the IAB's table."""
    keys = [each.interest for each in audience.rule.wanted() if each.interest is not None]
    found = [(each, outside_id(each, taxonomy)) for each in dict.fromkeys(keys)]
    table = "IAB Audience Taxonomy 1.1" if taxonomy.segtax == AUDIENCE_1_1 else f"segtax {taxonomy.segtax}"
    return [{"taxonomy": table, "id": node[0], "name": node[1]} for _, node in found if node is not None]


def match_key(destination: str) -> str:
    """What people are matched by."""
    return "hashed e-mail, hashed phone, device id" if destination in NEEDS_IDENTITIES else "user id"


def look_back(audience: Audience, snapshot: Snapshot) -> str:
    """How far back the events lie that count."""
    windows: Sequence[float] = [
        days
        for each in audience.rule.conditions()
        for days in (each.within_days, each.seen_days.limits.get("below", each.seen_days.max) if each.seen_days is not None else None)
        if days is not None
    ]
    half_life = snapshot.policy.half_life_days[snapshot.policy.horizons[1]]
    decay = f"all events, decayed by half every {half_life:g} days"
    return f"{max(windows):g} days; weights: {decay}" if windows else decay
