"""Tagging on one machine: a file of events or texts in, a table of tags out."""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from penchant.errors import DataError
from penchant.files import written_aside
from penchant.ingest.clean import clean, document, mask, text_key
from penchant.ingest.convert import Unusable, to_text
from penchant.ingest.readers import BadRow, Row, rows
from penchant.progress import progress
from penchant.records import TAGS
from penchant.tagging.tagger import Tagger

log = logging.getLogger(__name__)
CHUNK_TEXTS = 20_000
"""Distinct texts sorted by length and tagged together; what a run holds in memory beside the keys it has seen."""
TEXT_COLUMNS = ("text", "title", "body")


def tag_file(bundles: Sequence[Path], source: Path, output: Path) -> dict[str, int]:
    """Tag each distinct text of `source` once with every bundle and write `output` (.parquet, .csv or .jsonl); the counts.

    `source` is an events table, a folder with one, or any table with a `title`, `body` or `text` column; texts are
    cleaned and masked on the way, which leaves those of an events table as they are.
    """
    if source.is_dir():
        source = source / "events.parquet"
    if output.exists() and source.exists() and output.samefile(source):
        raise DataError(f"{output}: is what is read; write the tags to a file of their own")
    if output.suffix not in (".parquet", ".csv", ".jsonl"):
        raise DataError(f"{output}: can't tell the format from the name; use .parquet, .csv or .jsonl")
    counts = {"rows": 0, "texts": 0, "tags": 0, "untagged_texts": 0, "rows_without_text": 0, "broken_rows": 0}
    taggers = load_taggers(bundles)
    schema = TAGS.with_metadata(about(taggers))
    with written_aside(output) as aside, TagWriter(aside, output.suffix, schema) as writer:
        for chunk in distinct_documents(source, counts):
            with progress("tag", len(chunk) * len(taggers), "texts") as advance:
                tags = pa.concat_tables(each.tag(list(chunk), list(chunk.values()), advance) for each in taggers)
            counts["texts"] += len(chunk)
            counts["tags"] += len(tags)
            counts["untagged_texts"] += len(chunk) - len(set(tags["text_key"].to_pylist()))
            writer.write(tags)
    return counts


def load_taggers(bundles: Sequence[Path]) -> list[Tagger]:
    """The bundles, ready to tag. Raises `DataError` where two would write tags of the same dimension."""
    taggers = [Tagger(bundles[0])]
    taggers += [Tagger(each, taggers[0].precision) for each in bundles[1:]]
    by_dimension: dict[str, Path] = {}
    for bundle, tagger in zip(bundles, taggers, strict=True):
        log.info("tagging with bundle %s (%s): %s", tagger.spec.fingerprint, tagger.spec.task, taggers[0].why)
        for dimension in tagger.spec.written:
            if dimension in by_dimension:
                raise DataError(
                    f"{bundle}: writes tags of dimension {dimension!r}, and so does {by_dimension[dimension]}; give one of them"
                )
            by_dimension[dimension] = bundle
    return taggers


def about(taggers: Sequence[Tagger]) -> dict[str, str]:
    """What a file of tags says of itself: the bundles' fingerprints and the taxonomy of its interests."""
    found = {"penchant.bundle": "+".join(each.spec.fingerprint for each in taggers)}
    for each in taggers:
        if each.spec.taxonomy is not None:
            found["penchant.taxonomy"] = json.dumps(each.spec.taxonomy.model_dump(mode="json"))
    return found


def distinct_documents(source: Path, counts: dict[str, int]) -> Iterator[dict[str, str]]:
    """Chunks of key → text over the distinct texts of a file, in order of first appearance."""
    seen: set[bytes] = set()
    chunk: dict[str, str] = {}
    for place, row in rows(source):
        counts["rows"] += 1
        if not isinstance(row, BadRow) and counts["rows"] - counts["broken_rows"] == 1:
            require_text(source, row)
        try:
            if isinstance(row, BadRow):
                raise Unusable(row.reason)
            text = row_text(row)
            own_key = text_key(text)
            key = to_text(row.get("text_key")) or own_key
            digest = bytes.fromhex(text_key(key))
        except (Unusable, UnicodeEncodeError) as error:
            counts["broken_rows"] += 1
            log.warning("%s:%d: %s", source, place, error)
            continue
        if not text:
            counts["rows_without_text"] += 1
            continue
        if digest not in seen:
            seen.add(digest)
            chunk[key] = text
            if len(chunk) == CHUNK_TEXTS:
                yield chunk
                chunk = {}
    if chunk:
        yield chunk
    if not counts["rows"]:
        raise DataError(f"{source}: no rows")


def require_text(source: Path, row: Row) -> None:
    """Raise `DataError` where the first row has none of the columns we tag."""
    if not any(column in row for column in TEXT_COLUMNS):
        raise DataError(
            f"{source}: no text, title or body column; it has {', '.join(map(repr, row))}. Map other names with penchant ingest"
        )


def row_text(row: Row) -> str:
    """The document of a row, cleaned and masked."""
    parts = [to_text(row.get(column)) for column in TEXT_COLUMNS]
    title, body = parts[0] or parts[1], parts[2]
    if row.get("text_key"):
        return document(title, body)
    return document(mask(clean(title)) if title else None, mask(clean(body)) if body else None)


class TagWriter:
    """Writes tables of tags to one Parquet, CSV or JSON Lines file, chunk by chunk."""

    def __init__(self, path: Path, suffix: str, schema: pa.Schema) -> None:
        self.path, self.suffix, self.schema = path, suffix, schema

    def __enter__(self) -> Self:
        if self.suffix == ".parquet":
            self.parquet = pq.ParquetWriter(self.path, self.schema, compression="zstd")
        elif self.suffix == ".csv":
            self.csv = pyarrow.csv.CSVWriter(self.path, self.schema)
        else:
            self.lines = self.path.open("w", encoding="utf-8")
        return self

    def write(self, tags: pa.Table) -> None:
        """Append a table."""
        if self.suffix == ".parquet":
            self.parquet.write_table(tags.replace_schema_metadata(self.schema.metadata))
        elif self.suffix == ".csv":
            self.csv.write_table(tags)
        else:
            self.lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in tags.to_pylist())

    def __exit__(self, *_: object) -> None:
        open_file: Any = {".parquet": "parquet", ".csv": "csv", ".jsonl": "lines"}[self.suffix]
        getattr(self, open_file).close()
