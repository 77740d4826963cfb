"""Files written aside and renamed, so that a reader never sees half of one."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penchant.errors import DataError


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it to `target` when the block ends well, else remove it.

    A folder counts as one file: what stood at `target` is replaced as a whole.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target}: can't make its folder: {error.strerror}") from error
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)) / target.name
    try:
        yield aside
        sync(aside)
        if target.is_dir():
            replaced = aside.parent / "replaced"
            target.rename(replaced)
        aside.replace(target)
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


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
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from error


def fingerprint(value: Any) -> str:
    """16 hex digits that are equal exactly when two JSON-like values are equal (key order aside)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
