"""The life of segments, in a folder of records: their versions, who was found by each refresh, and what each destination was given.

    RECORDS/audit.jsonl                       who exported what, when and why (`penchant.segments.audit`)
    RECORDS/NAME/definitions/000001.json      each definition that was ever refreshed: the rule, its lists, the segments it names
    RECORDS/NAME/refreshes.jsonl              one line per refresh
    RECORDS/NAME/members/000001.parquet       who was found by it
    RECORDS/NAME/delivered/DESTINATION.parquet    who is on the lists that a destination has

A refresh writes its members first and its line last, so that one that was killed is as if it had never been begun.
"""

import fcntl
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from penchant.config import suggestion
from penchant.errors import DataError, PolicyRefusal
from penchant.files import fingerprint, holds_only, write_json, write_text, written_aside
from penchant.profiles.snapshot import Snapshot
from penchant.records import INSTANT
from penchant.segments.audit import AuditLog
from penchant.segments.counts import shown_size
from penchant.segments.insight import find
from penchant.segments.people import Audience

MEMBERS_SCHEMA = pa.schema([("user_id", pa.string()), ("weight", pa.float64()), ("last_at", INSTANT)])
DELIVERED_SCHEMA = pa.schema([("user_id", pa.string())])
PERIODS = {"daily": timedelta(days=1), "weekly": timedelta(days=7), "monthly": timedelta(days=30)}
AUDIT = "audit.jsonl"


class Records:
    """A folder of records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def audit(self) -> AuditLog:
        """The log of exports."""
        return AuditLog(self.folder / AUDIT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time find people and hand them on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def of(self, name: str) -> "Life":
        """The records of one segment."""
        return Life(self, name)

    def names(self) -> list[str]:
        """Segments that were ever refreshed."""
        return sorted(each.parent.name for each in self.folder.glob("*/refreshes.jsonl"))

    def naming(self, users: Collection[str]) -> list[tuple[str, str]]:
        """(segment, destination) of every list that one of these is on."""
        lists, wanted = sorted(self.folder.glob("*/delivered/*.parquet")), pa.array(users, pa.string())
        on = [(path, pq.read_table(path, columns=["user_id"])["user_id"]) for path in lists] if len(wanted) else []
        return [(path.parent.parent.name, path.stem) for path, found in on if pc.any(pc.is_in(found, wanted)).as_py()]


class Life:
    """The records of one segment."""

    def __init__(self, records: Records, name: str) -> None:
        self.records, self.name, self.folder = records, name, records.folder / name

    @property
    def refreshes(self) -> list[dict[str, Any]]:
        """Every refresh, oldest first; each with what was `accepted` of it since."""
        path = self.folder / "refreshes.jsonl"
        if not path.is_file():
            return []
        try:
            found = [json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]
            return [each | {"at": datetime.fromisoformat(each["at"]), "as_of": datetime.fromisoformat(each["as_of"])} for each in found]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: damaged: {error}; get it from a backup, or move the folder away and refresh anew") from error

    @property
    def last(self) -> dict[str, Any] | None:
        """The last refresh."""
        found = self.refreshes
        return found[-1] if found else None

    def members(self, number: int) -> pa.Table:
        """Who was found by a refresh."""
        path = self.folder / "members" / f"{number:06d}.parquet"
        if not path.is_file():
            raise DataError(f"{path}: missing; segment {self.name} has no refresh {number}, or its records are damaged")
        return pq.read_table(path, schema=MEMBERS_SCHEMA)

    def refresh(self, audience: Audience, snapshot: Snapshot, by: str) -> dict[str, Any]:
        """Find the segment's people and record who entered and who left. Where neither the profiles nor the definition changed, the last one stands.

        A change of size by more than the segment's `largest_jump`, under the same definition, is marked as a `jump`, beside the
        last size that was none or was accepted.
        """
        definition = definition_of(audience)
        before = self.refreshes
        last = before[-1] if before else None
        version = self.version_of(definition, last)
        table = snapshot.head.table
        of_profiles = {"profiles_id": str(table.metadata().id), "profiles_version": table.version()}
        if last is not None and last["version"] == version and all(last.get(name) == each for name, each in of_profiles.items()):
            return last
        number = last["number"] + 1 if last is not None else 1
        people = find(audience, snapshot)
        rows = people.order_by(ibis.desc("weight"), "user_id").to_pyarrow().cast(MEMBERS_SCHEMA)
        entered, left = changes(self.members(last["number"]) if last is not None else MEMBERS_SCHEMA.empty_table(), rows)
        good = next(
            (each["size"] for each in reversed(before) if each["version"] == version and (not each["jump"] or each["accepted"])), None
        )
        entry = {
            "number": number,
            "at": datetime.now(UTC),
            "by": by,
            "version": version,
            "definition": fingerprint(definition),
            **of_profiles,
            "as_of": snapshot.as_of,
            "policy": snapshot.about["policy_fingerprint"],
            "bundle": snapshot.about["bundle_fingerprint"],
            "size": len(rows),
            "entered": len(entered),
            "left": len(left),
            "compared_with": good,
            "jump": good is not None and abs(len(rows) - good) > audience.segment.largest_jump * max(good, 1),
            "accepted": None,
        }
        with written_aside(self.folder / "members" / f"{number:06d}.parquet") as aside:
            pq.write_table(rows, aside, compression="zstd")
        write_json(self.folder / "definitions" / f"{version:06d}.json", definition)
        self.write([*before, entry])
        return entry

    def version_of(self, definition: dict[str, Any], last: dict[str, Any] | None) -> int:
        """The version of a definition: that of the last refresh where it is the same, else the next."""
        if last is None:
            return 1
        return int(last["version"]) if last["definition"] == fingerprint(definition) else int(last["version"]) + 1

    def write(self, refreshes: list[dict[str, Any]]) -> None:
        """Replace the list of refreshes."""
        lines = (json.dumps(each, default=lambda moment: moment.isoformat(), ensure_ascii=False) for each in refreshes)
        write_text(self.folder / "refreshes.jsonl", "".join(f"{line}\n" for line in lines))

    def accept(self, by: str, reason: str) -> dict[str, Any]:
        """Accept the jump of the last refresh, so that it is exported. Raises `DataError` where there is none to accept."""
        with self.records.locked():
            found = self.refreshes
            if not found or not found[-1]["jump"] or found[-1]["accepted"]:
                raise DataError(f"{self.name}: its last refresh made no jump that waits for somebody to accept it")
            last = found[-1]
            last["accepted"] = {"by": by, "reason": reason, "at": datetime.now(UTC)}
            self.records.audit.append("jump accepted", by, segment=self.name, refresh=last["number"], size=last["size"], reason=reason)
            self.write(found)
            return last

    def due(self, period: str, now: datetime) -> bool:
        """Whether a segment that is refreshed so often has to be now."""
        last = self.last
        return last is None or (period in PERIODS and now - last["at"] >= PERIODS[period])

    def changed(self, since: int | None = None) -> tuple[list[str], list[str], int, int]:
        """Who entered and who left between a refresh (the one before the last unless given) and the last, and the numbers of both."""
        found = self.refreshes
        last = found[-1]["number"]
        first = since if since is not None else last - 1
        if not 0 <= first < last:
            raise DataError(
                f"{self.name}: no refresh {first} before the last, {last}; known: {', '.join(str(each['number']) for each in found)}"
            )
        old = self.members(first) if first else MEMBERS_SCHEMA.empty_table()
        entered, left = changes(old, self.members(last))
        return entered, left, first, last

    def delivered(self, destination: str) -> pa.Table:
        """Who is on the lists that a destination was given and not told to remove."""
        path = self.folder / "delivered" / f"{destination}.parquet"
        return pq.read_table(path, schema=DELIVERED_SCHEMA) if path.is_file() else DELIVERED_SCHEMA.empty_table()

    @contextmanager
    def deliver(self, destination: str, users: pa.Table) -> Iterator[None]:
        """Note who is on a destination's lists once the block is done."""
        with written_aside(self.folder / "delivered" / f"{destination}.parquet") as aside:
            pq.write_table(users.select(["user_id"]).cast(DELIVERED_SCHEMA), aside, compression="zstd")
            yield


def changes(old: pa.Table, new: pa.Table) -> tuple[list[str], list[str]]:
    """User ids in `new` alone, and in `old` alone, sorted."""
    before, after = (set(each["user_id"].to_pylist()) for each in (old, new))
    return sorted(after - before), sorted(before - after)


def definition_of(audience: Audience) -> dict[str, Any]:
    """What decides who is in a segment, and what is done with it: all of it but its words."""
    return {
        "segment": audience.segment.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"description", "owner"}),
        "rule": audience.rule.text(),
        "lists": {name: fingerprint(list(users)) for name, users in audience.lists.items()},
        "segments": {name: definition_of(other) for name, other in audience.others.items()},
        "permitted": sorted(audience.permitted),
    }


def require_exportable(audience: Audience, refresh: dict[str, Any], today: date) -> None:
    """Raise `PolicyRefusal` for a segment past its last day, or whose size has jumped."""
    segment = audience.segment
    if segment.expires is not None and today > segment.expires:
        raise PolicyRefusal(
            f"segment {segment.name!r} expired on {segment.expires}: not exported; its owner{f', {segment.owner},' if segment.owner else ''} may set a new day"
        )
    if refresh["jump"] and not refresh["accepted"]:
        sizes = f"from {shown_size(refresh['compared_with'])} to {shown_size(refresh['size'])} people"
        raise PolicyRefusal(
            f"segment {segment.name!r} jumped {sizes} at refresh {refresh['number']}, by more than {segment.largest_jump:.0%}, under the same rule: "
            f"not exported; see whether the events are to be trusted, then: penchant segment accept {segment.name} --reason …"
        )


def known(folder: Path, name: str) -> Life:
    """The records of a segment that was refreshed. Raises `DataError` for one that wasn't, with the nearest names."""
    records = Records(folder)
    if not records.of(name).refreshes:
        raise DataError(
            f"{folder}: segment {name!r} was never refreshed{suggestion(name, records.names())}; do that first: penchant segment refresh"
        )
    return records.of(name)


def write_changes(life: Life, output: Path, since: int | None = None) -> tuple[int, int]:
    """Write who entered and who left by the last refresh as `entered.csv` and `left.csv` in a folder; the refreshes compared."""
    holds_only(output, ("entered.csv", "left.csv"))
    entered, left, first, last = life.changed(since)
    with written_aside(output) as aside:
        aside.mkdir()
        for name, users in (("entered", entered), ("left", left)):
            pa_csv.write_csv(pa.table({"user_id": pa.array(users, pa.string())}), aside / f"{name}.csv")
    return first, last
