"""Files written aside and renamed, so that a reader never sees half of one."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penchant.errors import DataError


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it to `target` when the block ends well, else remove it.

    A folder counts as one file: what stood at `target` is replaced as a whole, but never a folder by a file or a file by a folder.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)) / target.name
    except OSError as error:
        raise DataError(f"{target}: can't be written there: {error.strerror}") from error
    try:
        yield aside
        sync(aside)
        if target.exists() and target.is_dir() != aside.is_dir():
            raise DataError(
                f"{target}: {'a folder; name the file to write in it' if target.is_dir() else 'a file; name a folder to write'}"
            )
        if aside.is_dir() and target.exists():
            exchange(aside, target)
        else:
            aside.replace(target)
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def holds_only(folder: Path, names: Collection[str]) -> None:
    """Raise `DataError` for a folder with anything but `names` in it, so that replacing it as a whole throws nothing else away."""
    others = sorted({each.name for each in folder.iterdir()} - set(names)) if folder.is_dir() else []
    if others:
        raise DataError(f"{folder}: holds {', '.join(others[:5])}, which replacing the folder would delete; give a folder of its own")


def exchange(aside: Path, target: Path) -> None:
    """Put `aside` where `target` stands; what stood there comes back if that fails."""
    replaced = aside.with_name(f"{target.name}.replaced")
    target.rename(replaced)
    try:
        aside.rename(target)
    except BaseException:
        replaced.rename(target)
        raise


def sync(path: Path) -> None:
    """Force a file, or each file of a folder, to the disk."""
    for each in path.rglob("*") if path.is_dir() else [path]:
        if each.is_file():
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_text(target: Path, text: str) -> None:
    """Replace `target` by `text` in UTF-8 in one step."""
    with written_aside(target) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Replace `target` by indented JSON in one step."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; a missing or damaged one is a `DataError` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error


def fingerprint(value: Any) -> str:
    """16 hex digits that are equal exactly when two JSON-like values are equal (key order aside)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
