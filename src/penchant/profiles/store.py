"""Profiles on disk: one Delta table, in which each update is one commit.

The column `part` tells what a row is: a kept `event`, a `tag` of such events' texts, `state`, the `population`'s masses,
or the count of a `surface`. The first three are partitioned by user bucket too. A `layer` is what one commit wrote; within
a layer of state a key has one row. All parts stand in one table because a Delta commit is atomic per table: no reader,
ours or another engine's, sees events without the masses they came to.

Tags stand once for all events of a bucket, not beside each: an event's are those of its text (`text_key`) that were given
with the same version (`tagging`). DuckDB writes the files, faster than the writer of `deltalake`, which commits
them.

An update appends: state adds up (`fold.merge`), so nothing that stood there is read or written again. What many updates
left is put together by `compact`, which changes no number. Every commit names the version that it was made from; if
another came first it fails, and is made again from that one.
"""

import glob
import hashlib
import json
import logging
import math
import os
import random
import re
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import fs

from penchant.errors import DataError, first_line
from penchant.files import holds_only
from penchant.profiles.duck import CHUNK_ROWS, copied, in_order, typed
from penchant.profiles.fold import add_surfaces, carried, instant, merge, of_text, population, state_columns
from penchant.profiles.policy import Policy
from penchant.records import KEPT, KEPT_TAGS, POPULATION_KEY, SURFACES, state_schema

log = logging.getLogger(__name__)
ABOUT = "penchant"
"""Key of a commit's metadata that holds what the profiles were made with."""
TRIES = 8
"""How often an update is made again when another writer was first."""
LAYERS = 8
"""Layers of a part and bucket, beside the first, from which they are put together …"""
LOOSE_SHARE = 0.25
"""… or rows outside the largest layer, as a share of those in it."""
BUCKET_DIGITS = 1
"""Hex digits of a bucket's name: 16 buckets. A writer holds some rows of each in memory."""
EVERYBODY = "all"
"""Bucket of what isn't partitioned by user."""
SORTED = "s"
"""What the names of layers end with whose rows were put together, sorted by user."""
SORTED_ROWS = 2_000_000
"""Rows that are sorted at once."""
LOG = "_delta_log"
"""Folder of a table's commits, one JSON file per version."""
UNFIT = re.compile(r"[\[\]|^\\]|%[0-9a-fA-F]{2}")
"""What the path of a folder can't hold, because the `deltalake` package takes it for a URL."""
FOREVER_DAYS = 365_000
"""More than this lies outside the calendar."""
ABANDONED_HOURS = 24
"""Age from which a file that no version names is what a killed run left, and not what a run is writing."""


def columns_of(part: str, policy: Policy) -> pa.Schema:
    """The columns that rows of a part have."""
    state = state_schema(policy.horizons)
    masses = [state.field(f"mass_{name}") for name in policy.horizons]
    return {
        "event": KEPT,
        "tag": KEPT_TAGS,
        "state": state,
        "population": pa.schema([*POPULATION_KEY, *masses, state.field("as_of")]),
        "surface": SURFACES,
    }[part]


PARTS = ("event", "tag", "state", "population", "surface")
SORT_KEY = {"event": "user_id", "tag": "text_key", "state": "user_id", "population": "value", "surface": "value"}
"""What rows that are put together are sorted by."""
BY_USER = ("event", "tag", "state")
"""Parts that are partitioned by user bucket."""
PARTITIONS = ("part", "bucket", "layer")


def stored_schema(policy: Policy) -> pa.Schema:
    """All columns of the Delta table: those of every part, each once, and none of them required."""
    fields = {field.name: field.with_nullable(True) for part in PARTS for field in columns_of(part, policy)}
    return pa.schema([*(pa.field(name, pa.string()) for name in PARTITIONS), *fields.values()])


def bucket_of(user: ir.Value, digits: int) -> ir.Value:
    """A user's bucket: the first `digits` hex digits of the MD5 of the id, the same on every engine."""
    return user.hexdigest("md5").left(digits)


def bucket_in(part: str, rows: ir.Table, digits: int) -> ir.Value:
    """The bucket of each row of a part; tags come with that of the events they are kept for."""
    if part == "tag":
        return rows.bucket
    return bucket_of(rows.user_id, digits) if part in BY_USER else ibis.literal(EVERYBODY)


def bucket_name(user: str, digits: int) -> str:
    """`bucket_of` one id."""
    return hashlib.md5(user.encode(), usedforsecurity=False).hexdigest()[:digits]


@dataclass(frozen=True)
class Head:
    """One version of a store: its files, and what it was made with."""

    store: "Store"
    table: DeltaTable
    about: dict[str, Any]
    policy: Policy

    @property
    def as_of(self) -> datetime:
        """The latest instant that rows are valid at."""
        return datetime.fromisoformat(self.about["as_of"])

    @property
    def digits(self) -> int:
        """Hex digits of a bucket's name."""
        return int(self.about["bucket_digits"])

    def files(self, part: str, bucket: str | None = None) -> list[dict[str, Any]]:
        """Files of a part (and bucket): `path` to read, `bucket`, `rows`, and for events `first` and `last` of `occurred_at`."""
        return [each for each in self.listing[part] if bucket in (None, each["bucket"])]

    @cached_property
    def listing(self) -> dict[str, list[dict[str, Any]]]:
        """Files by part."""
        found: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
        for add in pa.table(self.table.get_add_actions(flatten=True)).to_pylist():
            found[add["partition.part"]].append(
                {
                    "path": f"{self.store.uri.rstrip('/')}/{add['path']}",
                    "name": add["path"],
                    "bytes": add["size_bytes"],
                    "bucket": add["partition.bucket"],
                    "layer": add["partition.layer"],
                    "rows": add["num_records"],
                    "first": add.get("min.occurred_at"),
                    "last": add.get("max.occurred_at"),
                }
            )
        return found

    def require_files(self) -> None:
        """Raise `DataError` for a file of this version that is gone or cut, which its name and size tell; only in a local store."""
        for each in [file for part in PARTS for file in self.files(part)] if self.store.local else ():
            path = Path(each["path"])
            if not path.is_file() or path.stat().st_size != each["bytes"]:
                raise DataError(
                    f"{path}: missing or damaged, and version {self.table.version()} needs it; if vacuum deleted it, that version is gone, "
                    "else go back to one that doesn't need it (penchant profile restore), or build the profiles again"
                )

    def rows(self, connection: Any, part: str, files: Sequence[dict[str, Any]] | None = None) -> ir.Table:
        """The rows of a part's files, all of them unless given; scanned where they lie."""
        files = self.files(part) if files is None else files
        schema = columns_of(part, self.policy)
        if not files:
            return ibis.memtable(schema.empty_table())
        if self.store.local:
            table = connection.read_parquet([glob.escape(each["path"]) for each in files], hive_partitioning=False)
        else:
            name = ibis.util.gen_name("penchant")
            connection.con.register(name, ds.dataset([each["name"] for each in files], filesystem=self.store.disk, format="parquet"))
            table = connection.table(name)
        return table.select(*schema.names)

    def tags(self, connection: Any, files: Sequence[dict[str, Any]] | None = None) -> ir.Table:
        """Tags of kept events, all of them unless their files are given, each once: several buckets may have the same text."""
        return self.rows(connection, "tag", files).distinct()

    def state(self, connection: Any, as_of: datetime, bucket: str | None = None, users: ir.Table | None = None) -> ir.Table:
        """Profile state at `as_of`, of `users` where they are given, one row per key: where updates have left several, they are merged."""

        def rows(files: list[dict[str, Any]]) -> ir.Table:
            found = self.rows(connection, "state", files)
            return found.semi_join(users, "user_id") if users is not None else found

        by_bucket = in_buckets(self.files("state", bucket))
        whole = [each for files in by_bucket.values() if len(in_layers(files)) == 1 for each in files]
        several = [each for files in by_bucket.values() if len(in_layers(files)) > 1 for each in files]
        single = rows(whole)
        result = single.mutate(**carried(single, self.policy, as_of), as_of=instant(as_of)).select(*state_columns(self.policy))
        if not several:
            return result
        merged = merge(rows(several), self.policy, as_of)
        return result.union(merged) if whole else merged

    def totals(self, connection: Any, as_of: datetime) -> ir.Table:
        """Masses of the whole population at `as_of`."""
        return population(self.rows(connection, "population"), self.policy, as_of)


class Store:
    """A store by its folder or URL. `options` are those of the object store, as the `deltalake` package names them."""

    def __init__(self, uri: str | Path, options: dict[str, str] | None = None) -> None:
        self.uri, self.options = unquote(str(uri).removeprefix("file://")) if str(uri).startswith("file://") else str(uri), options
        if self.local and (unfit := UNFIT.search(str(Path(self.uri).absolute()))):
            raise DataError(f"{self.uri}: profiles can't lie in a folder whose path holds {unfit[0]!r}; name another")

    @property
    def local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.uri

    @property
    def place(self) -> Path:
        """The folder of a local store under its own name, beside which other files lie: not a link to it, nor `.`."""
        folder = Path(self.uri)
        return folder.resolve() if folder.is_symlink() or folder.name in ("", "..") else folder

    @cached_property
    def disk(self) -> fs.FileSystem:
        """Where its files are, by their names in it."""
        if self.local:
            return fs.SubTreeFileSystem(str(Path(self.uri).absolute()), fs.LocalFileSystem())
        return fs.PyFileSystem(DeltaStorageHandler(self.uri, self.options))

    def exists(self) -> bool:
        """Whether there are profiles."""
        if self.local and not Path(self.uri).is_dir():
            return False
        try:
            return DeltaTable.is_deltatable(self.uri, self.options)
        except (DeltaError, OSError) as error:
            raise DataError(f"{self.uri}: can't be reached: {first_line(error)}") from error

    def table(self, version: int | None = None) -> DeltaTable:
        """The Delta table at a version, the last unless given. Raises `DataError` where there is none, or its log is damaged."""
        if not self.exists():
            raise DataError(f"{self.uri}: no profiles (no Delta table); make them with: penchant profile build")
        versions = self.versions()
        if version is not None and version not in versions:
            raise DataError(
                f"{self.uri}: has no version {version}; known: {', '.join(map(str, versions[:10]))}{' …' * (len(versions) > 10)}"
            )
        try:
            return DeltaTable(self.uri, version=version, storage_options=self.options)
        except (DeltaError, OSError) as error:
            raise DataError(
                f"{self.uri}: its log ({LOG}) is damaged: {first_line(error)}; get that folder from a backup, or build the profiles elsewhere"
            ) from error

    def versions(self) -> list[int]:
        """Versions by the files of the log, the newest first. Raises `DataError` for an empty one: Delta Lake would pass over it."""
        files = [each for each in self.disk.get_file_info(fs.FileSelector(LOG)) if re.fullmatch(r"\d{20}\.json", each.base_name)]
        for each in files:
            if each.size == 0:
                raise DataError(
                    f"{self.uri}: its log is damaged: {each.path} is empty; get it from a backup, or build the profiles elsewhere"
                )
        return sorted((int(each.base_name[:20]) for each in files), reverse=True)

    def said(self, version: int) -> dict[str, Any]:
        """What the commit of a version says of itself: `DeltaTable.history` numbers commits by their place, and knows no end."""
        name = f"{LOG}/{version:020}.json"
        try:
            with self.disk.open_input_stream(name) as stream:
                actions = [json.loads(line) for line in stream.read().splitlines() if b'"commitInfo"' in line]
        except (OSError, ValueError) as error:
            raise DataError(f"{self.uri}: its log is damaged: {name}: {first_line(error)}") from error
        return next((each["commitInfo"] for each in actions if "commitInfo" in each), {})

    def about(self, table: DeltaTable) -> dict[str, Any]:
        """What the profiles of a table were made with, as the last commit of ours says. Raises `DataError` where there is none."""
        said = (self.said(version) for version in self.versions() if version <= table.version())
        found = next((each[ABOUT] for each in said if ABOUT in each), None)
        if found is None:
            raise DataError(f"{self.uri}: a Delta table, but not one of profiles; give a folder of its own")
        return dict(json.loads(found))

    def open(self, version: int | None = None) -> Head:
        """The store at a version, the last unless given. Raises `DataError` where there is none, or not of ours."""
        table = self.table(version)
        try:
            about = self.about(table)
            head = Head(self, table, about, policy_of(about, self.uri))
            if head.as_of.tzinfo is None or head.digits not in (1, 2):
                raise ValueError(f"{about['as_of']}, {about['bucket_digits']} digits")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.uri}: what its log says is damaged ({type(error).__name__}: {error}); build the profiles again"
            ) from error
        return head

    def history(self) -> list[dict[str, Any]]:
        """Commits, the newest first: `version`, `at`, and `what` was done with which counts."""
        found = []
        for version in self.versions() if self.table() else ():
            said = self.said(version)
            about = json.loads(said.get(ABOUT, "{}"))
            kept = {name: about[name] for name in ("as_of", "events", "bundle_fingerprint", "policy_fingerprint") if name in about}
            at = datetime.fromtimestamp(said.get("timestamp", 0) / 1000, UTC)
            found.append({"version": version, "at": at, "what": about.get("what", said.get("operation", "?").lower())} | kept)
        return found

    def create(self, connection: Any, parts: Mapping[str, ir.Table], about: dict[str, Any], policy: Policy) -> None:
        """Write a new store, or a new version of one that replaces everything in it, in one commit."""
        head: Head | None = None
        if self.local:
            folder = Path(self.uri)
            if folder.exists() and not folder.is_dir():
                raise DataError(f"{folder}: a file; name a folder to write")
            holds_only(folder, {each.name for each in folder.glob("part=*")} | {"_delta_log"} if folder.is_dir() else ())
        if self.exists():
            head = Head(self, self.table(), about, policy)
            self.about(head.table)  # of ours, whatever it was made with
        self.commit(connection, head, parts, about, policy, mode="overwrite")

    def commit(
        self,
        connection: Any,
        head: Head | None,
        parts: Mapping[str, ir.Table],
        about: dict[str, Any],
        policy: Policy,
        mode: str = "append",
    ) -> None:
        """Write the parts as one commit upon `head`. Raises `CommitFailedError` where another commit came first."""
        if self.local:
            require_writable(Path(self.uri))
            Path(self.uri).parent.mkdir(parents=True, exist_ok=True)
        layer = layer_after(head)
        try:
            files = self.written(connection, parts, policy, int(about["bucket_digits"]), layer)
            self.commit_files(head, files, about, policy, mode)
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            if head is None and self.exists():  # made by another in the meantime
                raise CommitFailedError(first_line(error)) from error
            raise self.not_written(error) from error

    def commit_files(
        self, head: Head | None, files: list[AddAction], about: dict[str, Any], policy: Policy, mode: str, replaced: Any = None
    ) -> None:
        """Commit files upon `head`. Raises `CommitFailedError` where another commit came first."""
        schema, said = Schema.from_arrow(stored_schema(policy)), metadata(about, max_commit_retries=0)
        if head is None:
            create_table_with_add_actions(
                self.uri,
                schema,
                files,
                "error",
                list(PARTITIONS),
                configuration={"delta.enableExpiredLogCleanup": "false"},
                storage_options=self.options,
                commit_properties=said,
            )
        else:
            head.table.create_write_transaction(
                [*files], mode, schema, list(PARTITIONS), partition_filters=replaced, commit_properties=said
            )

    def written(self, connection: Any, parts: Mapping[str, ir.Table], policy: Policy, digits: int, layer: str) -> list[AddAction]:
        """Write files of all parts, of which no version knows yet; tags into the buckets of the events with their texts."""
        with self.folder() as folder:
            found: list[AddAction] = []
            for part in sorted(parts, key=PARTS.index):  # events before tags
                rows = parts[part] if part != "tag" else beside(connection, parts[part], folder, found)
                place = {"part": ibis.literal(part), "bucket": bucket_in(part, rows, digits), "layer": ibis.literal(layer)}
                new = {} if "tagging" in rows.columns else {"tagging": ibis.literal(int(layer))}
                own = typed(rows.mutate(**place, **new), columns_of(part, policy), PARTITIONS)
                found += copied(connection, own, folder, "APPEND, PARTITION_BY (part, bucket, layer), FILENAME_PATTERN '{uuid}'")
            return self.placed(folder, found)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Where files are written: the store's own folder, or a temporary one from which `placed` takes them to an object store."""
        if self.local:
            yield Path(self.uri)
        else:
            with tempfile.TemporaryDirectory(prefix="penchant-") as name:
                yield Path(name)

    def placed(self, folder: Path, files: list[AddAction]) -> list[AddAction]:
        """Files where the store is."""
        if not self.local:
            for each in files:
                fs.copy_files(str(folder / each.path), each.path, fs.LocalFileSystem(), self.disk)
        return files

    def retried(self, work: Callable[[], Any]) -> Any:
        """Do `work`, which opens the store and commits, again while other writers are first."""
        for attempt in range(TRIES):
            try:
                return work()
            except CommitFailedError as error:
                log.info("another writer was first (%s); made again from its version", str(error).splitlines()[0])
                time.sleep(0.05 * 2**attempt * random.uniform(0.5, 1))
        raise DataError(f"{self.uri}: other writers were first {TRIES} times; nothing was written, run the same command again")

    def compact(self, connection: Any, everything: bool = False) -> int:
        """Put together what updates have appended, where that is much (or `everything`); how many files were replaced. No number changes.

        Rows are sorted by user then, so that a look-up reads one piece of a file. Unless it is to be everything, what another
        writer comes before is left for the next time.
        """
        done, step = 0, partial(self.compact_some, connection, everything)
        try:
            while replaced := self.retried(step) if everything else step():
                done += replaced
        except CommitFailedError:
            log.info("%s: another writer is at work; put together another time", self.uri)
        return done

    def compact_some(self, connection: Any, everything: bool) -> int:
        """Put together the first buckets of a part that need it, in one commit: as many as are sorted in memory."""
        head = self.open()
        for part in PARTS:
            loose = {name: files for name, files in in_buckets(head.files(part)).items() if is_loose(files, everything)}
            names: list[str] = []
            for name in sorted(loose):
                if names and sum(each["rows"] for other in (*names, name) for each in loose[other]) > SORTED_ROWS:
                    break
                names.append(name)
            if names:
                files = [each for name in names for each in loose[name]]
                with self.damage_named(files):
                    self.replace(connection, head, part, {name: loose[name] for name in names})
                return len(files)
        return 0

    def replace(self, connection: Any, head: Head, part: str, buckets: Mapping[str, list[dict[str, Any]]]) -> None:
        """Put together the files of each of some buckets of a part, sorted, in one commit."""
        layer, found = f"{layer_after(head)}{SORTED}", []
        try:
            with self.folder() as folder, in_order(connection):
                for bucket, files in buckets.items():
                    rows = typed(self.together(head, head.rows(connection, part, files), part), columns_of(part, head.policy))
                    place = {"part": part, "bucket": bucket, "layer": layer}
                    target = folder / "/".join(f"{name}={value}" for name, value in place.items()) / f"{uuid.uuid4()}.parquet"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    found += copied(connection, rows.order_by(SORT_KEY[part]), target, "", place, folder)
                found = self.placed(folder, found)
            about = head.about | {"what": "compact", "events": 0}
            self.commit_files(head, found, about, head.policy, "overwrite", [("part", "=", part), ("bucket", "in", sorted(buckets))])
        except CommitFailedError:
            raise
        except (DeltaError, OSError) as error:
            raise self.not_written(error) from error

    def not_written(self, error: Exception) -> DataError:
        """What is said where something can't be written."""
        return DataError(f"{self.uri}: can't be written: {getattr(error, 'strerror', None) or first_line(error)}")

    @staticmethod
    def together(head: Head, rows: ir.Table, part: str) -> ir.Table:
        """Rows of several layers as one."""
        if part == "state":
            return merge(rows, head.policy, head.as_of)
        if part == "population":
            return population(rows, head.policy, head.as_of)
        return add_surfaces(rows) if part == "surface" else rows

    def restore(self, version: int) -> bool:
        """Make an earlier version the current one, in a commit of its own; False where it is that already. Raises `DataError` where its files are gone."""

        def attempt() -> bool:
            table, old = self.table(), self.open(version)
            if version == table.version():
                log.warning("%s: version %d is the current one already", self.uri, version)
                return False
            old.require_files()
            about = old.about | {"what": "restore", "events": 0}
            try:
                table.restore(version, commit_properties=metadata(about, max_commit_retries=0))
            except CommitFailedError:
                raise
            except (DeltaError, OSError) as error:
                raise DataError(f"{self.uri}: version {version} can't be restored: {first_line(error)}") from error
            return True

        return bool(self.retried(attempt))

    def vacuum(self, keep_days: float, dry_run: bool = False) -> list[str]:
        """Delete files that no version of the last `keep_days` needs; their names.

        What killed runs left goes too, when it is a day old: until then it may be what another run is about to commit.
        """
        hours, about = math.ceil(keep_days * 24), self.open().about | {"what": "vacuum", "events": 0}
        gone: list[str] = []
        for kept_hours, of_killed_runs in [(hours, True)] if hours >= ABANDONED_HOURS else [(hours, False), (ABANDONED_HOURS, True)]:
            clean = partial(
                self.table().vacuum,
                kept_hours,
                enforce_retention_duration=False,
                full=of_killed_runs,
                commit_properties=metadata(about),
            )
            try:
                named = set(clean(dry_run=True)) - set(gone)  # those that an earlier vacuum deleted among them
                found = sorted(each.path for each in self.disk.get_file_info(sorted(named)) if each.type == fs.FileType.File)
                if found and not dry_run:
                    clean(dry_run=False)
            except (DeltaError, OSError) as error:
                raise DataError(f"{self.uri}: not all of what is to go could be deleted: {first_line(error)}") from error
            gone += found
        return gone

    @contextmanager
    def damage_named(self, files: Sequence[dict[str, Any]]) -> Iterator[None]:
        """Turn what reading a damaged file raises into a `DataError` that names it."""
        try:
            yield
        except CommitFailedError:
            raise
        except (duckdb.Error, DeltaError, pa.ArrowException, OSError) as error:
            damaged = next((each["path"] for each in files if not readable(each["name"], self.disk)), None)
            if damaged is None:
                raise
            raise DataError(
                f"{damaged}: missing or damaged ({first_line(error)}); "
                "go back to a version that doesn't need it (penchant profile restore), or build the profiles again"
            ) from error


def beside(connection: Any, tags: ir.Table, folder: Path, events: Sequence[AddAction]) -> ir.Table:
    """Tags with each `bucket` that has events with their text, by the files of events just written to `folder`."""
    paths = [glob.escape(str(folder / each.path)) for each in events]
    kept = connection.read_parquet(paths, hive_partitioning=False, filename=True)
    bucket = kept.filename.re_extract(".*/bucket=([^/]*)/", 1)  # the last one: the store's own folder may be called so
    return kept.select(*of_text(tags), bucket=bucket).distinct().inner_join(tags, of_text(tags))


def metadata(about: dict[str, Any], **options: Any) -> CommitProperties:
    """What a commit says of itself."""
    return CommitProperties({ABOUT: json.dumps(about, ensure_ascii=False)}, **options)


def require_writable(folder: Path) -> None:
    """Raise `DataError` where a folder may not be written, or made: the writer would say so over many lines."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"{folder}: can't be written: {'permission denied' if there.is_dir() else f'{there} is a file'}")


def readable(path: str, disk: fs.FileSystem) -> bool:
    """Whether a Parquet file can be read to its end."""
    try:
        for _ in pq.ParquetFile(path, filesystem=disk).iter_batches(CHUNK_ROWS):
            continue
    except (pa.ArrowException, OSError):
        return False
    return True


def is_loose(files: Sequence[dict[str, Any]], everything: bool) -> bool:
    """Whether one bucket's files of a part are to be put together: where that is much, or in any case if they can be."""
    layers = in_layers(files)
    largest = max(layers.values())
    if everything:
        return len(layers) > 1 or not next(iter(layers)).endswith(SORTED)
    return len(layers) > LAYERS + 1 or sum(layers.values()) - largest > LOOSE_SHARE * largest + CHUNK_ROWS


def in_buckets(files: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Files by their bucket."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in files:
        found[each["bucket"]].append(each)
    return dict(found)


def in_layers(files: Sequence[dict[str, Any]]) -> Counter[str]:
    """Rows of each layer."""
    found: Counter[str] = Counter()
    for each in files:
        found[each["layer"]] += each["rows"]
    return found


def policy_of(about: dict[str, Any], origin: str) -> Policy:
    """The policy that profiles were made under. Raises `DataError` where it was edited or belongs to another version."""
    from penchant.config import parse

    policy = parse(Policy, about["policy"], origin)
    if policy.fingerprint != about["policy_fingerprint"]:
        raise DataError(f"{origin}: its policy belongs to another version of Penchant; build the profiles again")
    return policy


def layer_after(head: Head | None) -> str:
    """The layer of the commit that comes upon `head`: the number of its version."""
    return str(head.table.version() + 1 if head is not None else 0)


def overlapping(files: Sequence[dict[str, Any]], first: datetime, last: datetime, days: float) -> list[dict[str, Any]]:
    """Files of events that may hold one within `days` of the time from `first` to `last`, which the log knows to the millisecond."""
    margin = timedelta(days=min(days, FOREVER_DAYS), milliseconds=1)
    low, high = first - margin, last + margin
    return [each for each in files if each["last"] is None or (each["last"] >= low and each["first"] <= high)]
