"""Tagging on one machine: a file of events or texts in, a table of tags out."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from penchant.errors import DataError
from penchant.files import written_aside
from penchant.ingest.documents import Documents
from penchant.progress import progress
from penchant.records import TAGS
from penchant.runners.parts import Parts, digest_of
from penchant.tagging.bundle import load_spec
from penchant.tagging.cache import TagCache
from penchant.tagging.pipeline import Clock, tag_documents
from penchant.tagging.tagger import Tagger

log = logging.getLogger(__name__)
PART_TEXTS = 8_192
"""Distinct texts sorted by length, tagged and committed together: what a killed run loses at most, and what is held in memory."""


class Place(NamedTuple):
    """Which of the processes that one launch started this is."""

    rank: int = 0
    processes: int = 1


def own_place() -> Place:
    """As `accelerate launch` and `torch.distributed.run` say it."""
    return Place(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def tag_file(
    bundles: Sequence[Path],
    source: Path,
    output: Path,
    backend: str = "auto",
    cache: TagCache | None = None,
    place: Place | None = None,
    clock: Clock | None = None,
    taggers: Sequence[Tagger] | None = None,
) -> dict[str, int] | None:
    """Tag each distinct text of `source` once with every bundle and write `output` (.parquet, .csv or .jsonl); the counts.

    `source` is an events table, a folder with one, or any table with a `title`, `body` or `text` column; texts are
    cleaned and masked on the way, which leaves those of an events table as they are. Broken rows are written to
    `NAME.rejects.csv` beside the output. `taggers` are the bundles, where they are loaded already.

    Texts are tagged in parts, every process of a launch its own, each committed when it is done; the same call goes on
    after a kill and ends with the same table. The first process puts the parts together; the others return None.
    """
    place = place or own_place()
    if source.is_dir():
        source = source / "events.parquet"
    if output.exists() and source.exists() and output.samefile(source):
        raise DataError(f"{output}: is what is read; write the tags to a file of their own")
    if output.suffix not in (".parquet", ".csv", ".jsonl"):
        raise DataError(f"{output}: can't tell the format from the name; use .parquet, .csv or .jsonl")
    if output.is_dir():
        raise DataError(f"{output}: a folder; name the file to write in it")
    parts = Parts(output, first=place.rank == 0)
    taggers = taggers or open_taggers(bundles, backend, parts)
    parts.begin(manifest_of(taggers))
    try:
        counts, digests = tag_parts(taggers, source, parts, place, cache, clock or Clock())
    finally:
        parts.remove_if_empty()
    if place.rank:
        return None
    schema = TAGS.with_metadata(about(taggers))
    with written_aside(output) as aside, TagWriter(aside, output.suffix, schema) as writer:
        for tags in parts.all(digests):
            counts["tags"] += len(tags)
            counts["untagged_texts"] -= len(tags["text_key"].unique())
            writer.write(tags)
    parts.remove()
    return counts


def tag_parts(
    taggers: Sequence[Tagger], source: Path, parts: Parts, place: Place, cache: TagCache | None, clock: Clock
) -> tuple[dict[str, int], list[str]]:
    """Tag this process's parts that aren't there yet; counts of the whole source, and the digest of each part's documents."""
    digests: list[str] = []
    kept: Counter[str] = Counter()
    rejects = parts.folder / f"rejects-{place.rank}.csv"
    documents = Documents(source, PART_TEXTS, rejects)

    def missing() -> Iterator[pa.RecordBatch]:
        for number, chunk in enumerate(documents):
            digest = digest_of(chunk)
            digests.append(digest)
            kept["texts"] += len(chunk)
            if number % place.processes != place.rank:
                continue
            if parts.has(number, digest):
                kept["parts"] += 1
                continue
            yield chunk.replace_schema_metadata({"number": str(number), "digest": digest})

    total = rows_of(source)

    def told(count: int) -> None:
        read = documents.counts["rows"]  # at most three parts ahead of what is tagged
        advance(count, f"{read:,} rows read" if total is None else f"{read:,} of {total:,} rows read ({read / max(total, 1):.0%})")

    with ExitStack() as stack:
        advance = stack.enter_context(progress("tag", None, "texts"))
        for tagger in taggers:
            stack.enter_context(tagger.at_length())
        for tagged in tag_documents(taggers, missing(), cache, told, clock):
            metadata = tagged.documents.schema.metadata
            with clock("write"):
                parts.write(int(metadata[b"number"]), metadata[b"digest"].decode(), tagged.tags)
            kept["hits"] += tagged.hits
    if kept["parts"]:
        log.info("%d parts were there already", kept["parts"])
    put_rejects(rejects, parts, place, documents.counts["broken_rows"])
    return documents.counts | {"texts": kept["texts"], "tags": 0, "untagged_texts": kept["texts"], "cached": kept["hits"]}, digests


def rows_of(source: Path) -> int | None:
    """Rows of a Parquet file, by its footer; None where that would have to be counted."""
    try:
        return int(pq.read_metadata(source).num_rows)
    except (pa.ArrowException, OSError, ValueError):
        return None


def put_rejects(rejects: Path, parts: Parts, place: Place, broken: int) -> None:
    """Move the rejects beside the output, where there are any; an older file goes either way."""
    if place.rank:
        return
    target = parts.output.with_name(f"{parts.output.name}.rejects.csv")
    if broken:
        rejects.replace(target)
        log.warning("%d broken rows are listed in %s", broken, target)
    else:
        target.unlink(missing_ok=True)


def open_taggers(bundles: Sequence[Path], backend: str, parts: Parts) -> list[Tagger]:
    """The bundles, ready to tag, with the backends that the parts already there were made by, if they can stay.

    Raises `DataError` where two would write tags of the same dimension.
    """
    prints = [load_spec(each).fingerprint for each in bundles]

    def fits(known: Any) -> bool:
        return (
            isinstance(known, dict)
            and known.get("bundles") == prints
            and (backend == "auto" or all(each.rsplit("-", 1)[0] == backend for each in known["variants"]))
        )

    if not parts.first:
        parts.wait_until(lambda: fits(parts.manifest()), "the first process to begin")
    known = parts.manifest()
    chosen = known["variants"] if fits(known) else [None] * len(bundles)
    taggers: list[Tagger] = []
    for bundle, variant in zip(bundles, chosen, strict=True):
        precision = getattr(taggers[0].backend, "precision", "auto") if taggers else "auto"  # measured once
        taggers.append(open_tagger(bundle, variant, backend, precision))
    by_dimension: dict[str, Path] = {}
    for bundle, tagger in zip(bundles, taggers, strict=True):
        log.info("tagging with bundle %s (%s): %s", tagger.spec.fingerprint, tagger.spec.task, tagger.backend.why)
        for dimension in tagger.spec.written:
            if dimension in by_dimension:
                raise DataError(
                    f"{bundle}: writes tags of dimension {dimension!r}, and so does {by_dimension[dimension]}; give one of them"
                )
            by_dimension[dimension] = bundle
    return taggers


def open_tagger(bundle: Path, variant: str | None, backend: str, precision: str) -> Tagger:
    """A bundle by the variant of an earlier run, or else by `backend` and PyTorch's `precision`."""
    if variant is None:
        return Tagger(bundle, precision, backend)
    name, arithmetic = variant.removesuffix(".packed").rsplit("-", 1)
    return Tagger(bundle, {"fp32": "no"}.get(arithmetic, arithmetic), name)


def manifest_of(taggers: Sequence[Tagger]) -> dict[str, Any]:
    """All that decides a part beside its documents."""
    return {
        "bundles": [each.spec.fingerprint for each in taggers],
        "variants": [each.backend.variant for each in taggers],
        "part_texts": PART_TEXTS,
    }


def about(taggers: Sequence[Tagger]) -> dict[str, str]:
    """What a file of tags says of itself: the bundles' fingerprints and the taxonomy of its interests."""
    found = {"penchant.bundle": "+".join(each.spec.fingerprint for each in taggers)}
    for each in taggers:
        if each.spec.taxonomy is not None:
            found["penchant.taxonomy"] = json.dumps(each.spec.taxonomy.model_dump(mode="json"))
    return found


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
