"""Rows of CSV, TSV, JSON Lines and Parquet files, told apart by their content, with each row's place kept."""

import csv
import gzip
import io
import json
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from penchant.errors import DataError

csv.field_size_limit(4 << 20)
Row = dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that can't even be split into columns."""

    reason: str
    text: str


def sniff(path: Path) -> str:
    """`parquet`, `jsonl`, `csv` or `tsv` (`;`-separated counts as csv), or `empty`, from the first bytes.

    Raises `DataError` for what is none of these.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir():
        raise DataError(f"{path}: a folder; name the files in it")
    with damage_named(path):
        with path.open("rb") as raw:
            if raw.read(4) == b"PAR1":
                return "parquet"
        with open_text(path) as stream:
            start = stream.read(65536)
    if "\x00" in start[:1024]:
        raise DataError(f"{path}: neither Parquet nor text (CSV, TSV, JSON Lines)")
    line = next((each for each in start.splitlines() if each.strip()), "")
    if not line:
        return "empty"
    if line.lstrip().startswith("{"):
        return "jsonl"
    if line.lstrip().startswith("["):
        raise DataError(f"{path}: looks like one JSON array; write one JSON object per line (JSON Lines)")
    return "tsv" if line.count("\t") > max(line.count(","), line.count(";")) else "csv"


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what reading a damaged or forbidden file raises into a `DataError` that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: damaged: {error}") from error


def open_text(path: Path) -> IO[str]:
    """Open plain or gzip text as UTF-8 (UTF-16 where a mark says so); undecodable bytes become lone surrogates."""
    with path.open("rb") as raw:
        start = raw.read(2)
    stream: Any = gzip.open(path) if start == b"\x1f\x8b" else path.open("rb")  # noqa: SIM115 - the caller closes it through the text stream
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")


def rows(path: Path) -> Iterator[tuple[int, Row | BadRow]]:
    """Yield (place, row): the line of a text file, the 1-based row of a Parquet file.

    Guarantees: places ascend; every row of the file comes out once, as columns or as a `BadRow`.
    Raises `DataError` when the file as a whole can't be read.
    """
    kind = sniff(path)
    with damage_named(path):
        if kind == "parquet":
            yield from parquet_rows(path)
        elif kind == "jsonl":
            yield from json_rows(path)
        elif kind != "empty":
            yield from delimited_rows(path, "\t" if kind == "tsv" else None)


def parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file in batches, timestamps as aware or naive `datetime`."""
    try:
        file = pq.ParquetFile(path)
        place = 0
        for batch in file.iter_batches(batch_size=8192):
            for row in batch.to_pylist():
                place += 1
                yield place, row
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last two: bytes that aren't UTF-8, a year Python lacks
        raise DataError(f"{path}: damaged Parquet file: {error}") from error


def json_rows(path: Path) -> Iterator[tuple[int, Row | BadRow]]:
    """One JSON object a line; blank lines are skipped."""
    with open_text(path) as stream:
        for place, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield place, BadRow(f"not JSON: {getattr(error, 'msg', error)}", line)
                continue
            yield place, row if isinstance(row, dict) else BadRow("not a JSON object", line)


class Lines:
    """Lines of a stream that can be put back, for records that turn out not to be one."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.waiting: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self.stream)
        self.number += 1
        self.taken.append(line)
        return line

    def keep_first(self) -> str:
        """Put back all but the first line of the record just read; return that first line."""
        first, *rest = self.taken
        self.waiting.extendleft(reversed(rest))
        self.number -= len(rest)
        return first


def delimited_rows(path: Path, delimiter: str | None) -> Iterator[tuple[int, Row | BadRow]]:
    """Rows of a CSV or TSV file by its header. An unclosed quote costs its own line only."""
    with open_text(path) as stream:
        lines = Lines(stream)
        first = next((line for line in lines if line.strip()), "")
        separator = delimiter or (";" if first.count(";") > first.count(",") else ",")
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator))]
        if len(set(header)) < len(header):
            raise DataError(f"{path}: its header names a column twice: {', '.join(header)}")
        reader = csv.reader(lines, delimiter=separator, strict=True)
        while True:
            lines.taken = []
            place = lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, BadRow(f"not {'TSV' if separator == chr(9) else 'CSV'}: {error}", lines.keep_first())
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                yield place, BadRow(f"{len(cells)} columns where the header has {len(header)}", separator.join(cells))
            else:
                yield place, dict(zip(header, cells, strict=True))
