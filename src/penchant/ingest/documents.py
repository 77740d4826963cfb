"""The distinct texts of a file, in batches: what is tagged."""

import csv
import logging
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penchant.errors import DataError
from penchant.ingest.clean import clean, document, mask, text_key
from penchant.ingest.convert import Unusable, to_text
from penchant.ingest.readers import BadRow, Row, damage_named, rows, sniff
from penchant.records import DOCUMENTS

log = logging.getLogger(__name__)
TEXT_COLUMNS = ("text", "title", "body")
ROWS_AT_ONCE = 65_536
LOGGED_ROWS = 20
"""Broken rows that are logged one by one; all are in the rejects."""


class Documents:
    """Iterates over the distinct documents of `source` once, in order of first appearance; counts and rejects what it leaves out.

    `source` is a table with a `title`, `body` or `text` column. Texts are cleaned and masked, but those of an events
    table (with a `text_key`), which are already. What is held is 16 bytes for each text seen, and one batch.
    """

    def __init__(self, source: Path, size: int, rejects: Path) -> None:
        """`size` documents make a batch (`records.DOCUMENTS`); `rejects` is the CSV file that broken rows are written to."""
        self.source, self.size, self.rejects = source, size, rejects
        self.counts = {"rows": 0, "rows_without_text": 0, "broken_rows": 0}
        self.seen: set[bytes] = set()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Batches of documents. Raises `DataError` for a file without rows or without a column of texts."""
        keys: list[str] = []
        texts: list[str] = []
        with self.rejects.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
            self.writer = csv.writer(stream, lineterminator="\n")
            self.writer.writerow(["file", "row", "reason"])
            for key, text in self.distinct():
                keys.append(key)
                texts.append(text)
                if len(keys) == self.size:
                    yield pa.RecordBatch.from_arrays([pa.array(keys), pa.array(texts)], schema=DOCUMENTS)
                    keys, texts = [], []
        if keys:
            yield pa.RecordBatch.from_arrays([pa.array(keys), pa.array(texts)], schema=DOCUMENTS)
        if not self.counts["rows"]:
            raise DataError(f"{self.source}: no rows")

    def distinct(self) -> Iterator[tuple[str, str]]:
        """Key and text of each distinct document."""
        if sniff(self.source) == "parquet" and (columns := event_columns(self.source)):
            yield from self.of_events(columns)
            return
        for place, row in rows(self.source):
            yield from self.of_row(place, row)

    def of_events(self, columns: list[str]) -> Iterator[tuple[str, str]]:
        """Documents of an events table, column by column: only rows with a key that wasn't seen are looked at."""
        try:
            for batch in pq.ParquetFile(self.source).iter_batches(ROWS_AT_ONCE, columns=columns):
                self.counts["rows"] += len(batch)
                blank = [pc.fill_null(pc.equal(batch[name], ""), True) for name in columns]
                textless = reduce(pc.and_, blank[1:])
                if pc.any(pc.and_not(blank[0], textless)).as_py():
                    raise DataError(f"{self.source}: an events table with rows that have no text_key; ingest it again")
                self.counts["rows_without_text"] += textless.true_count
                filled = batch.filter(pc.invert(textless))
                coded = filled["text_key"].dictionary_encode()
                _, first = np.unique(coded.indices.to_numpy(), return_index=True)
                keys = filled["text_key"].take(pa.array(np.sort(first)))
                new = [n for n, key in zip(np.sort(first).tolist(), keys.to_pylist(), strict=True) if self.is_new(key)]
                for row in filled.take(pa.array(new, pa.int64())).to_pylist():
                    yield row["text_key"], row_text(row)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{self.source}: damaged Parquet file: {error}") from error

    def of_row(self, place: int, row: Row | BadRow) -> Iterator[tuple[str, str]]:
        """The document of any row, if it is new."""
        self.counts["rows"] += 1
        if not isinstance(row, BadRow) and self.counts["rows"] - self.counts["broken_rows"] == 1:
            require_text(self.source, row)
        try:
            if isinstance(row, BadRow):
                raise Unusable(row.reason)
            text = row_text(row)
            own_key = text_key(text)  # raises for what is no Unicode
            key = to_text(row.get("text_key")) or own_key
            text_key(key)
        except (Unusable, UnicodeEncodeError) as error:
            self.reject(place, str(error))
            return
        if not text:
            self.counts["rows_without_text"] += 1
        elif self.is_new(key):
            yield key, text

    def is_new(self, key: str) -> bool:
        """Whether a key is met for the first time."""
        digest = bytes.fromhex(text_key(key))
        if digest in self.seen:
            return False
        self.seen.add(digest)
        return True

    def reject(self, place: int, reason: str) -> None:
        """Count a broken row and write down where it stands; the text itself is nowhere."""
        self.counts["broken_rows"] += 1
        self.writer.writerow([self.source, place, reason])
        if self.counts["broken_rows"] <= LOGGED_ROWS:
            log.warning("%s:%d: %s", self.source, place, reason)
        if self.counts["broken_rows"] == LOGGED_ROWS:
            log.warning("more broken rows are not shown here, only written to the rejects")


def event_columns(source: Path) -> list[str]:
    """What to read of a Parquet file that is an events table: `text_key`, then its columns of texts; empty where it is none."""
    with damage_named(source):
        try:
            schema = pq.read_schema(source)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"{source}: damaged Parquet file: {error}") from error
    texts = [name for name in TEXT_COLUMNS if name in schema.names]
    columns = ["text_key", *texts] if "text_key" in schema.names and texts else []
    return columns if all(pa.types.is_string(schema.field(name).type) for name in columns) else []


def require_text(source: Path, row: Row) -> None:
    """Raise `DataError` where the first row has none of the columns we tag."""
    if not any(column in row for column in TEXT_COLUMNS):
        raise DataError(
            f"{source}: no text, title or body column; it has {', '.join(map(repr, row))}. Map other names with penchant ingest"
        )


def row_text(row: dict[str, Any]) -> str:
    """The document of a row, cleaned and masked."""
    parts = [to_text(row.get(column)) for column in TEXT_COLUMNS]
    title, body = parts[0] or parts[1], parts[2]
    if row.get("text_key"):
        return document(title, body)
    return document(mask(clean(title)) if title else None, mask(clean(body)) if body else None)
