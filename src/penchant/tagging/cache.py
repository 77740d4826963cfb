"""Tags of texts seen before, kept on disk, so that a run tags only the texts that no run has tagged yet.

One SQLite file in WAL mode that any number of processes read and write at once. It holds digests of texts and their tags,
never a text; but a span's value is words of one, so erasing a text means `TagCache.forget` too. A cache never stops a
run: what goes wrong with it is logged once, and the texts are tagged anew.

The tags lie in order of last use: a text used on a later day than before moves to the end of its table. So the least
recently used ones are its first rows, and evicting them empties whole pages in one go, where rows in order of their keys
would lie scattered over all of them, and half of them have to go until a fifth of the pages is free. Where the tags of a
key lie is kept in a table of its own, which is swept once after an eviction.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from penchant.errors import DataError

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DEFAULT_LIMIT = 2 << 30
"""Bytes a cache's file may fill, if nobody says otherwise."""
KEPT_SHARE = 0.8
"""Share of the limit that is left full when it was passed."""
BUSY_SECONDS = 60.0
"""How long another process is waited for."""
LAYOUT = 0x50540001
"""`user_version` of the file: two letters against foreign files with a small number, then the version of the tables and of the JSON in them."""
EVICTED_AT_ONCE = 100
"""Texts of one step of an eviction; between two steps other processes get their turn."""
TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE places (model INTEGER NOT NULL, key BLOB NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (model, key)) WITHOUT ROWID;
CREATE TABLE texts (place INTEGER PRIMARY KEY, day INTEGER NOT NULL, tags BLOB NOT NULL);
CREATE TABLE counter (next INTEGER NOT NULL);
INSERT INTO counter VALUES (1);
"""
FOUND = "FROM asked CROSS JOIN places USING (key) CROSS JOIN texts USING (place) WHERE model = (SELECT id FROM models WHERE name = ?)"
"""A model's texts by the keys in the temporary table `asked`; CROSS JOIN says which table leads."""
ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""What SQLite says of a broken file or of other tables than these; anything else is about the disk or another process."""


class Tag(NamedTuple):
    """A tag as the contract `penchant.records.TAGS` has it, without its text."""

    dimension: str
    value: str
    score: float
    start: int | None
    end: int | None


class ForeignError(sqlite3.DatabaseError):
    """A sound SQLite file, but not one that this version wrote."""


class TagCache:
    """Tags by model and text; `path` is the SQLite file, whose folder is created.

    When the file fills over `limit_bytes` after a call, the least recently used texts go until it fills under 80 % of that;
    it may so be larger by what one call writes. The space is used again, not given back. Threads may share a cache; a
    forked process opens its own. Opening and using it raises nothing for the file's sake: a damaged or foreign file is set
    aside as `<name>.damaged` and a new one begun; where that is no help (no right to write, a full disk, another process
    that keeps it locked), there are no hits and nothing is kept.
    """

    def __init__(self, path: Path, limit_bytes: int = DEFAULT_LIMIT) -> None:
        self.path = path.resolve()  # SQLite puts its other files beside what a link points to
        self.limit_bytes = limit_bytes
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.inode = 0
        self.renewed = False
        self.open()

    def get(self, model: str, keys: Sequence[bytes]) -> dict[bytes, list[Tag]]:
        """The tags of those texts that `model` has tagged; a text without tags is there with an empty list."""
        day = today()
        nothing: tuple[dict[bytes, list[Tag]], list[bytes]] = {}, []
        hits, unused = self.attempt(lambda connection: read(connection, model, keys, day), nothing)
        if unused:
            self.attempt(lambda connection: touch(connection, model, unused, day, self.limit_bytes), None)
        return hits

    def put(self, model: str, tags: Mapping[bytes, Sequence[Tag]]) -> None:
        """Keep what `model` found in these texts, all of it or nothing; it replaces what was kept of them."""
        day = today()
        encoded = {key: encode(found) for key, found in tags.items()}
        if encoded:
            self.attempt(lambda connection: write(connection, model, encoded, day, self.limit_bytes), None)

    def forget(self, keys: Sequence[bytes]) -> int:
        """Erase these texts' rows of every model, their bytes in the file too; the number of rows that were there.

        Raises `DataError` where that can't be done, since an erasure must not fail unsaid. A file set aside isn't searched.
        """
        with self.lock:
            if self.connection is None:
                if not self.path.exists():
                    return 0
                raise DataError(f"{self.path}: the tag cache can't be used, so nothing was erased from it; delete the file instead")
            try:
                return erase(self.connection, keys)
            except sqlite3.DatabaseError as error:
                self.failed(error)
                advice = f"delete the file and {aside(self.path).name}"
                raise DataError(f"{self.path}: can't be erased from ({reason(error)}); {advice}") from error

    def close(self) -> None:
        """Let go of the file; afterwards there are no hits, and nothing is kept."""
        with self.lock:
            if self.connection is None:
                return
            connection, self.connection = self.connection, None
            try:
                with alone(self.path):  # the last to close removes the log by its name, which must still be its own
                    connection.close()
            except sqlite3.Error:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def open(self, *, damaged: str | None = None) -> None:
        """Connect to the file, one process at a time, and begin a new one where it is none of ours or, while it was in use, turned out `damaged`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with alone(self.path):
                if damaged and self.path.exists() and self.path.stat().st_ino == self.inode:  # else another process has done it
                    set_aside(self.path, damaged)
                try:
                    self.connection = connect(self.path)
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    set_aside(self.path, reason(error))
                    self.connection = connect(self.path)
                self.inode = self.path.stat().st_ino
        except (OSError, sqlite3.Error) as error:
            self.give_up(error)

    def attempt(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """What `work` gives, or `otherwise` where there is no cache or none any more."""
        with self.lock:
            if self.connection is None:
                return otherwise
            try:
                return work(self.connection)
            except sqlite3.DatabaseError as error:
                self.failed(error)
                return otherwise

    def failed(self, error: sqlite3.DatabaseError) -> None:
        """Begin a new file in place of a damaged one, but only once; else do without."""
        if self.renewed or not is_damage(error):
            self.give_up(error)
            return
        self.renewed = True
        self.close()
        self.open(damaged=reason(error))

    def give_up(self, error: Exception) -> None:
        """Do without a cache from here on."""
        self.close()
        log.warning("%s: the tag cache can't be used (%s); texts are tagged anew and not kept", self.path, reason(error))


def default_path() -> Path:
    """Where the cache is if nobody says: `$PENCHANT_CACHE/tags.sqlite`, else `penchant/tags.sqlite` in `$XDG_CACHE_HOME` or `~/.cache`."""
    own, everyone = os.environ.get("PENCHANT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return (Path(own) if own else Path(everyone or "~/.cache") / "penchant").expanduser() / "tags.sqlite"


def today() -> int:
    """Days since 1970."""
    return int(time.time() // 86_400)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes from opening, closing and replacing the cache at `path` meanwhile.

    SQLite finds a file's log by name and when it is first read. Were the file replaced between, the log of the new one would
    be applied to the old. The lock is that on an empty SQLite file, which waits, works everywhere and ends with its process.
    """
    lock = sqlite3.connect(path.with_name(f"{path.name}.lock"), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection to the cache at `path`, created where there is none; a `sqlite3.DatabaseError` if it is none of ours."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"{TABLES} PRAGMA user_version = {LAYOUT}; COMMIT")
        elif version != LAYOUT:
            raise ForeignError(f"layout {version}, not {LAYOUT}")
        for setting in (
            "synchronous = NORMAL",  # a power cut may cost the last puts, never the file
            "secure_delete = ON",  # what is forgotten is overwritten
            "cache_size = -32768",  # KiB: what one call changes
            "wal_autocheckpoint = 8192",  # pages: few calls at a time are copied from the log to the file
            f"journal_size_limit = {64 << 20}",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {setting}")
        connection.execute("CREATE TEMP TABLE asked (key BLOB PRIMARY KEY) WITHOUT ROWID")
        connection.execute("SELECT model, key, place, day, tags, next FROM places JOIN texts USING (place) JOIN counter LIMIT 1").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says that the file can't be read as a cache, now or later."""
    return isinstance(error, ForeignError) or getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in DAMAGE


def reason(error: Exception) -> str:
    """An error in words that quote nothing from the file."""
    if isinstance(error, ForeignError):
        return str(error)
    return getattr(error, "sqlite_errorname", None) or getattr(error, "strerror", None) or type(error).__name__


def aside(path: Path) -> Path:
    """Where a damaged file goes."""
    return path.with_name(f"{path.name}.damaged")


def set_aside(path: Path, why: str) -> None:
    """Move a damaged file and its log away, over an older one. The main file goes last, so that a new one never meets an old log."""
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    for suffix in ("-journal", "-wal", ""):
        source, target = (each.with_name(f"{each.name}{suffix}") for each in (path, aside(path)))
        if source.exists():
            source.replace(target)
        else:
            target.unlink(missing_ok=True)
    log.warning("%s: no tag cache that this version can read (%s); set aside as %s, a new one is begun", path, why, aside(path).name)


def ask(connection: sqlite3.Connection, keys: Sequence[bytes]) -> None:
    """Make `keys` the contents of the temporary table `asked`, inside a transaction."""
    connection.execute("DELETE FROM asked")
    connection.executemany("INSERT OR IGNORE INTO asked VALUES (?)", zip(keys))


def read(connection: sqlite3.Connection, model: str, keys: Sequence[bytes], day: int) -> tuple[dict[bytes, list[Tag]], list[bytes]]:
    """Tags by key, and which of these keys were last used on another day."""
    with connection:
        connection.execute("BEGIN")
        ask(connection, keys)
        rows = connection.execute(f"SELECT key, day, tags {FOUND}", (model,)).fetchall()
    return decode(rows), [key for key, last, _ in rows if last != day]


def touch(connection: sqlite3.Connection, model: str, keys: Sequence[bytes], day: int, limit_bytes: int) -> None:
    """Move the texts that are still there to the end of the table, in the order they had, as used on this day."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        ask(connection, keys)
        rows = connection.execute(f"SELECT place, model, key {FOUND} AND day <> ? ORDER BY place", (model, day)).fetchall()
        moves = list(enumerate(rows, new_places(connection, len(rows))))
        connection.executemany("UPDATE texts SET place = ?, day = ? WHERE place = ?", ((new, day, old) for new, (old, _, _) in moves))
        connection.executemany("UPDATE places SET place = ? WHERE model = ? AND key = ?", ((new, *row[1:]) for new, row in moves))
    evict(connection, limit_bytes)


def write(connection: sqlite3.Connection, model: str, tags: Mapping[bytes, bytes], day: int, limit_bytes: int) -> None:
    """Put texts at the end of the table."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO models (name) VALUES (?)", (model,))
        number = connection.execute("SELECT id FROM models WHERE name = ?", (model,)).fetchone()[0]
        first = new_places(connection, len(tags))
        places = [(number, key, place) for place, key in enumerate(tags, first)]
        insert = "INSERT OR IGNORE INTO places VALUES (?, ?, ?)"
        if connection.executemany(insert, places).rowcount < len(places):  # some have a place already, which is rare
            drop(connection, list(tags), model)
            connection.executemany(insert, places)
        connection.executemany(
            "INSERT INTO texts VALUES (?, ?, ?)", ((place, day, found) for place, found in enumerate(tags.values(), first))
        )
    evict(connection, limit_bytes)


def new_places(connection: sqlite3.Connection, count: int) -> int:
    """The first of `count` places at the end; none is given twice, so that one whose text was evicted leads nowhere."""
    first = connection.execute("SELECT next FROM counter").fetchone()[0]
    connection.execute("UPDATE counter SET next = next + ?", (count,))
    return int(first)


def drop(connection: sqlite3.Connection, keys: Sequence[bytes], model: str | None = None) -> int:
    """Delete texts of one model or of every model; the number that were there."""
    ask(connection, keys)
    removed = connection.execute(
        "DELETE FROM texts WHERE place IN (SELECT place FROM models CROSS JOIN asked CROSS JOIN places USING (key)"
        " WHERE model = models.id AND name = ifnull(?, name))",
        (model,),
    ).rowcount
    connection.execute(
        "DELETE FROM places WHERE model IN (SELECT id FROM models WHERE name = ifnull(?, name)) AND key IN (SELECT key FROM asked)",
        (model,),
    )
    return removed


def evict(connection: sqlite3.Connection, limit_bytes: int) -> None:
    """Delete the least recently used texts if the file fills over the limit."""
    if filled(connection) <= limit_bytes:
        return
    removed = EVICTED_AT_ONCE
    while removed:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if filled(connection) < KEPT_SHARE * limit_bytes:
                break
            statement = "DELETE FROM texts WHERE place IN (SELECT place FROM texts ORDER BY place LIMIT ?)"
            removed = connection.execute(statement, (EVICTED_AT_ONCE,)).rowcount
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        first = connection.execute("SELECT ifnull((SELECT min(place) FROM texts), next) FROM counter").fetchone()
        connection.execute("DELETE FROM places WHERE place < ?", first)


def erase(connection: sqlite3.Connection, keys: Sequence[bytes]) -> int:
    """Delete texts of every model and empty the log, which still has them."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        removed = drop(connection, keys)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return removed


def filled(connection: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    found = connection.execute(
        "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
    ).fetchone()
    return int(found[0])


def encode(tags: Sequence[Tag]) -> bytes:
    """JSON of lists: its numbers come back as the same floats, and every text comes back, half a surrogate pair too."""
    return ENCODER.encode(tags).encode("utf-8", "surrogatepass")


def decode(rows: Sequence[tuple[bytes, int, bytes]]) -> dict[bytes, list[Tag]]:
    """Tags of rows of key, day and tags, parsed in one go, which is faster than one by one."""
    try:
        lists: list[list[list[Any]]] = json.loads(b"[%b]" % b",".join([row[2] for row in rows]))
        return {row[0]: list(map(Tag._make, found)) for row, found in zip(rows, lists, strict=True)}
    except (ValueError, TypeError) as error:
        raise ForeignError("a row holds something else than tags") from error
