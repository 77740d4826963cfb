"""Who opted out, and who gave or withdrew consent for what: a Delta table beside the profiles, `<profiles>.choices`, that only grows.

A person's latest choice for a purpose counts; of several at the same instant, a denied one. `EVERYTHING` stands in place of a
purpose: denied, it is an opt-out, which beats every grant until it is lifted; granted, it lifts the opt-out and grants nothing.
User ids are compared as they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from pyarrow import fs

from penchant.config import parse
from penchant.errors import ConfigError, DataError, first_line, problems
from penchant.profiles.duck import connect
from penchant.profiles.store import Store
from penchant.segments.choice import (
    CHOICES,
    DENIED,
    EVERYTHING,
    GRANTED,
    IDENTIFYING,
    PURPOSE,
    ChoiceColumns,
    Rejected,
    checked,
    read_file,
    shown,
    value_of,
)


class Choices:
    """The choices beside profiles, by the folder or URL of these; there need be none of either yet."""

    def __init__(self, profiles: str | Path, options: dict[str, str] | None = None) -> None:
        of = Store(profiles, options)
        self.store = Store(f"{str(of.place) if of.local else of.uri.rstrip('/')}.choices", options)

    def record(self, choices: Iterable[Mapping[str, Any]]) -> None:
        """Add choices, all in one commit: `user_id`, `status`, and unless the defaults are meant `purpose` (everything), `at` (now), `reason`.

        Each call makes one file, so many choices are better given at once, or as a file of them.
        Raises `DataError`, and adds none, where one of them can't be taken.
        """
        now = datetime.now(UTC)
        found, mistakes = [], []
        for place, given in enumerate(choices, 1):
            try:
                found.append(checked(partial(value_of, given, now), ChoiceColumns(), now))
            except Rejected as bad:
                mistakes.append(f"choice {place}: {bad}, got {shown(bad.value)!r}")
        if mistakes:
            raise DataError(problems("choices that can't be recorded", mistakes))
        if found:
            self.store.retried(partial(self.appended, pa.Table.from_pylist(found, CHOICES)))

    def opt_out(self, user: str, at: datetime | str | None = None, reason: str = "") -> None:
        """Leave somebody out of everything."""
        self.record([{"user_id": user, "purpose": EVERYTHING, "status": DENIED, "at": at, "reason": reason}])

    def lift_opt_out(self, user: str, at: datetime | str | None = None, reason: str = "") -> None:
        """Let somebody's choices for single purposes count again."""
        self.record([{"user_id": user, "purpose": EVERYTHING, "status": GRANTED, "at": at, "reason": reason}])

    def consent(self, user: str, purpose: str, status: str, at: datetime | str | None = None, reason: str = "") -> None:
        """Note that somebody gave or withdrew consent for one purpose."""
        if purpose == EVERYTHING:
            raise DataError(f"purpose {purpose!r}: consent is for one purpose; out of everything leads an opt-out, and lifting it back")
        self.record([{"user_id": user, "purpose": purpose, "status": status, "at": at, "reason": reason}])

    def load(self, path: Path, columns: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Add the choices of a CSV, TSV, JSON Lines or Parquet file in one commit; how many `rows` were `added`, `known` or `rejected`.

        `columns` says which columns hold what where they aren't called as in `ChoiceColumns`. Values are stripped of blanks
        around them, as when events are ingested. What can't be taken is listed in `NAME.rejects.csv` beside the file.
        Guarantees: rows = added + known + rejected; a file that is loaded again adds nothing.
        """
        mapping = parse(ChoiceColumns, columns or {}, "columns of choices")
        found = read_file(path, mapping, datetime.now(UTC))
        added = int(self.store.retried(partial(self.added, found.choices))) if len(found.choices) else 0
        return {"rows": found.rows, "added": added, "known": found.rows - added - found.rejected, "rejected": found.rejected}

    def appended(self, choices: pa.Table) -> None:
        """Add choices. Raises `CommitFailedError` where other writers came first too often."""
        with self.named():
            write_deltalake(self.made(), choices, mode="append")

    def added(self, choices: pa.Table) -> int:
        """Add the choices that aren't there yet; how many. Raises `CommitFailedError` where another file was loaded meanwhile."""
        table = self.made()
        with self.named():
            kept = self.dataset(table).to_table(list(IDENTIFYING))
            new = choices.join(kept, list(IDENTIFYING), join_type="left anti").select(CHOICES.names).cast(CHOICES)
            if len(new):
                alone = CommitProperties(app_transactions=[Transaction("penchant choices load", table.version())])
                write_deltalake(table, new, mode="append", commit_properties=alone)
            return len(new)

    def of_user(self, user: str) -> list[dict[str, Any]]:
        """Somebody's choices, the newest first; of several at the same instant the one that counts."""
        with self.named():
            found = self.dataset(self.table()).to_table(filter=pc.field("user_id") == user).to_pylist()
        return sorted(found, key=lambda row: (row["at"], row["status"] == DENIED, row["recorded_at"]), reverse=True)

    def said_no(self) -> list[str]:
        """Everybody whose choice for any purpose, or for everything, is denied now."""
        current = self.current(connect())
        return list(current.filter(current.status == DENIED).select("user_id").distinct().to_pyarrow()["user_id"].to_pylist())

    def current(self, connection: Any) -> ir.Table:
        """What counts: `user_id`, `purpose`, `status` and since when (`at`), one row per user and purpose."""
        name = ibis.util.gen_name("penchant")
        connection.con.register(name, self.dataset(self.table()))
        choices = connection.table(name)
        latest = choices.group_by("user_id", "purpose").agg(at=choices.at.max(), denied_at=choices.at.max(where=choices.status == DENIED))
        denied = (latest.denied_at == latest.at).fill_null(False)
        return latest.select("user_id", "purpose", status=ibis.ifelse(denied, DENIED, GRANTED), at=latest.at)

    def suppressed(self, connection: Any, purpose: str) -> ir.Table:
        """`user_id` of everybody who opted out of everything, or whose latest choice for the purpose is denied."""
        require_purposes([purpose] if purpose != EVERYTHING else [])
        current = self.current(connection)
        return current.filter((current.status == DENIED) & current.purpose.isin([EVERYTHING, purpose])).select("user_id").distinct()

    def granted(self, connection: Any, purposes: Sequence[str]) -> ir.Table:
        """`user_id` of everybody who granted each of these purposes and didn't opt out of everything."""
        require_purposes(purposes)
        if not purposes:
            raise ConfigError("no purpose: consent is for a purpose, so name at least one")
        current = self.current(connection)
        grants = (current.status == GRANTED) & current.purpose.isin(purposes)
        out = (current.status == DENIED) & (current.purpose == EVERYTHING)
        people = current.group_by("user_id").agg(granted=grants.sum(), out=out.any())
        return people.filter((people.granted == len(set(purposes))) & ~people.out).select("user_id")

    def table(self) -> DeltaTable | None:
        """The Delta table, None where nothing was recorded yet.

        Raises `DataError` for a damaged one: to take it for an empty one would lift every opt-out.
        """
        if self.store.local and Path(self.store.uri).is_file():
            raise DataError(f"{self.store.uri}: a file, where the folder of choices belongs; move it elsewhere")
        with self.named():
            if not self.store.exists():
                found = self.store.disk.get_file_info(fs.FileSelector("", allow_not_found=True))
                if any(each.base_name.endswith(".parquet") for each in found):
                    raise DataError(f"{self.store.uri}: holds choices but no log of them (_delta_log); get that folder from a backup")
                return None
            self.store.versions()  # refuses an empty one, which the package would pass over
            table = DeltaTable(self.store.uri, storage_options=self.store.options)
            if [field.name for field in table.schema().fields] != CHOICES.names:
                raise DataError(f"{self.store.uri}: a Delta table, but not one of choices; move it elsewhere")
            return table

    def made(self) -> DeltaTable:
        """The Delta table, made where there is none."""
        found = self.table()
        if found is not None:
            return found
        only_grows = {"delta.appendOnly": "true"}  # whatever engine writes to it
        return DeltaTable.create(self.store.uri, CHOICES, "ignore", configuration=only_grows, storage_options=self.store.options)

    def dataset(self, table: DeltaTable | None) -> ds.Dataset:
        """Every choice of a version, read where it lies. Raises `DataError` for a file that is gone or cut."""
        with self.named():
            files = pa.table(table.get_add_actions(flatten=True)).to_pylist() if table is not None else []
            names = [each["path"] for each in files]
            for each, found in zip(files, self.store.disk.get_file_info(names), strict=True):
                if found.size != each["size_bytes"]:
                    raise DataError(f"{self.store.uri}/{each['path']}: missing or damaged; get it from a backup")
            if not names:
                return ds.dataset(CHOICES.empty_table())
            return ds.dataset(names, schema=CHOICES, filesystem=self.store.disk, format="parquet")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn what the disk or the package raises into a `DataError` that names the table."""
        try:
            yield
        except CommitFailedError:
            raise
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.store.uri}: can't be read or written: {getattr(error, 'strerror', None) or first_line(error)}"
            ) from error


def require_purposes(purposes: Sequence[str]) -> None:
    """Raise `ConfigError` for what is no purpose."""
    for each in purposes:
        if not PURPOSE.fullmatch(each):
            raise ConfigError(f"purpose {each!r}: expected lower-case letters, digits, - and _, such as newsletter")
