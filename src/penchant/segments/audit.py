"""Who exported what, when, why and under which rule: a log in which each entry holds the hash of the one before, so that no edit goes unseen.

The file is JSON Lines in UTF-8, one entry a line, keys sorted and without blanks, so that an entry has one way to be written.
`hash` is the SHA-256 of the entry without it, written that way; `previous` is the hash of the entry before, 64 zeros in the first.
"""

import fcntl
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penchant.errors import DataError

FIRST = "0" * 64
"""`previous` of the first entry."""
START = {"number": 0, "hash": FIRST}
"""What the first entry comes after."""
OWN = ("number", "at", "what", "by", "previous", "hash")
"""Keys that every entry has."""


@dataclass(frozen=True)
class Verified:
    """What `verify` found: how many sound entries there are, the hash of the last, and what is wrong, by line."""

    entries: int
    head: str
    problems: tuple[str, ...]


class AuditLog:
    """A log by its file, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, what: str, by: str, **facts: Any) -> dict[str, Any]:
        """Add an entry of `what` was done `by` whom, and return it once it is on the disk. `facts` are anything JSON can hold.

        Several processes may append at once. Half a line at the end, which a killed process left, is kept in `NAME.torn`, and
        the new entry says so in `torn` (its `bytes` and `sha256`); a last line that only lacks its line break gets one.

        Raises `DataError`, and adds nothing, where the last entry isn't sound, a fact can't be written, or the disk is full.
        """
        facts = self.writable({"what": what, "by": by, **facts})
        with self.locked() as descriptor:
            last, end, torn = self.ending(descriptor)
            whole = torn and self.sound(torn + b"\n")
            if whole:
                last, end = whole, end + len(torn)
            elif torn:
                facts["torn"] = self.set_aside(torn)
            entry = {"number": last["number"] + 1, "at": datetime.now(UTC).isoformat(), **facts, "previous": last["hash"]}
            entry["hash"] = digest(entry)
            self.write(descriptor, b"\n" * bool(whole) + canonical(entry) + b"\n", end)
        return entry

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every entry, the oldest first; none where there is no file. An unfinished last line is no entry yet.

        Raises `DataError` for a line that isn't sound.
        """
        if not self.path.exists():
            return
        with named(self.path), self.path.open("rb") as stream:
            for place, line in enumerate(stream, 1):
                if line.endswith(b"\n"):
                    try:
                        yield read(line)
                    except ValueError as error:
                        raise DataError(f"{self.path}:{place}: {error}") from None

    def writable(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Facts as they will be read again."""
        if taken := sorted({"number", "at", "previous", "hash", "torn"} & set(facts)):
            raise DataError(f"{self.path}: a fact can't be called {', '.join(taken)}, which the log itself writes")
        try:
            as_read: dict[str, Any] = json.loads(json.dumps(facts))  # keys that are numbers become text, which sorts otherwise
            canonical(as_read)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: facts that JSON can't hold: {error}") from None
        return as_read

    @contextmanager
    def locked(self) -> Iterator[int]:
        """The file's descriptor, while no other process writes or verifies."""
        with named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield descriptor
            finally:
                os.close(descriptor)

    def ending(self, descriptor: int) -> tuple[dict[str, Any], int, bytes]:
        """The last entry, where its line ends, and what stands behind that."""
        if os.fstat(descriptor).st_size == 0:
            return START, 0, b""
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
            line, torn = content[content.rfind(b"\n", 0, max(end - 1, 0)) + 1 : end], content[end:]
        last = self.sound(line) if line else START
        if last is None or (end == 0 and torn and not torn.startswith(b"{")):
            raise DataError(
                f"{self.path}: its last line is no sound entry of an audit log, so nothing was added; keep the file as evidence, "
                "and go on in a new one or in a sound copy"
            )
        return last, end, torn

    @staticmethod
    def sound(line: bytes) -> dict[str, Any] | None:
        """The entry of a line, None where it isn't sound."""
        try:
            return read(line)
        except ValueError:
            return None

    def set_aside(self, torn: bytes) -> dict[str, Any]:
        """Keep half a line beside the log; what the log says of it."""
        with self.path.with_name(f"{self.path.name}.torn").open("ab") as stream:
            stream.write(torn + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        return {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}

    def write(self, descriptor: int, line: bytes, end: int) -> None:
        """Write a line at `end`, over what was torn, in one step; where that fails nothing of it stays."""
        try:
            if os.pwrite(descriptor, line, end) < len(line):
                raise DataError(f"{self.path}: can't be written: no space left")
            os.ftruncate(descriptor, end + len(line))
            os.fsync(descriptor)
            if end == 0:
                sync_name(self.path)
        except BaseException:
            os.ftruncate(descriptor, end)
            raise


def verify(path: Path, known: Sequence[str] = ()) -> Verified:
    """Read a log through and find every line that was changed, added, removed, moved or written twice.

    What a log can't tell of itself is that its last entries were cut off, or that everything from some line on was made anew.
    Therefore `known`: hashes of entries that are noted elsewhere, as in the labels beside exports; one that isn't in the log is
    a problem. Raises `DataError` for a file that can't be read.
    """
    problems: list[str] = []
    missing = dict.fromkeys(known)
    entries, head, previous, number = 0, FIRST, FIRST, 0
    with named(path), path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        for place, line in enumerate(stream, 1):
            number += 1
            try:
                entry = read(line if line.endswith(b"\n") else line + b"\n")
            except ValueError as error:
                half = not line.endswith(b"\n")
                problems.append(f"line {place}: {f'half a line, {len(line)} bytes: its writer was stopped' if half else error}")
                previous = ""
                continue
            if not line.endswith(b"\n"):
                problems.append(f"line {place}: lacks its line break")
            if previous not in ("", entry["previous"]):
                problems.append(f"line {place}: doesn't follow the line before: a line was changed, removed, added or moved here")
            elif entry["number"] != number:
                problems.append(
                    f"line {place}: is entry {entry['number']} where {number} was to come: lines were removed or added before it"
                )
            entries, head, previous, number = entries + 1, entry["hash"], entry["hash"], entry["number"]
            missing.pop(head, None)
    problems += [f"no line has the hash {each}, which is noted elsewhere: its entry was changed, or cut off" for each in missing]
    return Verified(entries, head, tuple(problems))


def read(line: bytes) -> dict[str, Any]:
    """The entry of a line. Raises `ValueError` that says why it can't have been written by the log."""
    try:
        entry = json.loads(line.decode())
        as_written = canonical(entry) + b"\n"
    except (ValueError, RecursionError):
        raise ValueError("no JSON in UTF-8: the line was changed") from None
    if not isinstance(entry, dict) or not all(name in entry for name in OWN) or type(entry["number"]) is not int:
        raise ValueError("no entry of an audit log")
    if as_written != line:
        raise ValueError("written otherwise than the log writes (blanks, order of keys, escapes): the line was changed")
    if digest(entry) != entry["hash"]:
        raise ValueError("its hash isn't that of its content: the line was changed")
    return entry


def canonical(value: Any) -> bytes:
    """The one way in which a value is written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(entry: dict[str, Any]) -> str:
    """SHA-256 of an entry without its hash, hex."""
    return hashlib.sha256(canonical({name: value for name, value in entry.items() if name != "hash"})).hexdigest()


def sync_name(path: Path) -> None:
    """Force a new file's name to the disk."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Turn what the system raises into a `DataError` that names the log."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: can't be read or written: {error.strerror or error}") from error
