"""Tagging on many machines: a Spark table of events in, one of tags out.

What workers run here is found by its name, so Penchant has to be installed where they run.
"""

import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import pyarrow as pa

from penchant.errors import DataError, MissingExtraError, PenchantError, first_line
from penchant.ingest.documents import TEXT_COLUMNS, row_text
from penchant.records import TAGS
from penchant.runners.local import about, open_tagger
from penchant.tagging.tagger import Tagger

try:
    from pyspark import SparkFiles, TaskContext
    from pyspark.errors import AnalysisException, PythonException
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema
except ImportError as error:
    raise MissingExtraError("tagging on Spark", "spark") from error

PART = re.compile(r"/part-[^/]*\.parquet$")
"""Names of the files that Spark writes."""


def tag_parquet(
    spark: SparkSession,
    events: str,
    tags: str,
    bundles: Sequence[str],
    *,
    overwrite: bool = False,
    partitions: int | None = None,
    backend: str = "auto",
    precision: str = "auto",
) -> int:
    """Tag each distinct text of `events` once and write the folder `tags`; how many tags it holds.

    `events` is an ingested folder, or Parquet anywhere Spark can read. Guarantee: the tags of a text come from one
    committed attempt of one task, however often tasks are repeated; the folder is whole once it holds `_SUCCESS`.
    """
    try:
        table = spark.read.option("pathGlobFilter", "*.parquet").parquet(events)
    except AnalysisException as error:
        raise DataError(f"{events}: can't be read: {first_line(error)}; make it with: penchant ingest") from error
    if overwrite:
        require_replaceable(tags, table)
    found = tag_frame(documents(table, partitions), bundles, backend, precision)
    try:
        found.write.mode("overwrite" if overwrite else "errorifexists").parquet(tags)
    except AnalysisException as error:
        hint = "" if overwrite else "; --overwrite replaces what is there"
        raise DataError(f"{tags}: can't be written: {first_line(error)}{hint}") from error
    except PythonException as error:
        last = str(error).rstrip().splitlines()[-1]
        if last.startswith("penchant.errors."):
            raise DataError(last.split(": ", 1)[1]) from error
        raise
    return int(spark.read.parquet(tags).count())


def require_replaceable(tags: str, events: DataFrame) -> None:
    """Raise `DataError` where replacing the folder `tags` would delete what is read, or anything but Spark's Parquet."""
    files = events.sparkSession.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        there = files.load(tags).inputFiles()
    except AnalysisException:  # nothing there
        return
    read = set(events.inputFiles())
    if kept := sorted(each for each in there if each in read or not PART.search(each)):
        raise DataError(f"{tags}: replacing it would delete {kept[0]}; give a folder of its own")


def documents(events: DataFrame, partitions: int | None = None) -> DataFrame:
    """A row of each `text_key` with its texts, shared out to `partitions` tasks (`spark.sql.shuffle.partitions`).

    They are shared out by the key, so that a repeated task sees the texts it saw before. Raises `DataError` for a table
    without keys or texts.
    """
    texts = [name for name in TEXT_COLUMNS if name in events.columns]
    if "text_key" not in events.columns or not texts:
        missing = "text_key" if texts else "title or body"
        raise DataError(f"the events have no column {missing}, only {', '.join(events.columns)}; make them with: penchant ingest")
    if wrong := [f"{name} is {kind}" for name, kind in events.dtypes if name in ("text_key", *texts) and kind != "string"]:
        raise DataError(f"the events' {', '.join(wrong)}, expected string; make them with: penchant ingest")
    count = partitions or int(events.sparkSession.conf.get("spark.sql.shuffle.partitions"))
    return events.select("text_key", *texts).dropDuplicates(["text_key"]).repartition(count, "text_key")


def tag_frame(documents: DataFrame, bundles: Sequence[str], backend: str = "auto", precision: str = "auto") -> DataFrame:
    """Tags of documents, schema `records.TAGS`; the column `text_key` has as metadata what a local file of tags has.

    A bundle is the name of a shipped archive or a path that every machine has. One worker loads them at once, to pick the
    backends that all will use; `DataError` where that fails. `backend` and `precision` are what `Tagger` takes.
    """
    ask = partial(describe, bundles=tuple(bundles), backend=backend, precision=precision)
    one = documents.sparkSession.range(0, 1, 1, 1)
    ((said, refused),) = one.mapInArrow(ask, "said string, refused string").collect()
    if refused is not None:
        raise DataError(refused)
    chosen = json.loads(said)
    tag = partial(tag_batches, bundles=tuple(bundles), models=tuple(chosen["models"]))
    return documents.mapInArrow(tag, from_arrow_schema(TAGS)).withMetadata("text_key", chosen["about"])


def describe(batches: Iterator[pa.RecordBatch], bundles: tuple[str, ...], backend: str, precision: str) -> Iterator[pa.RecordBatch]:
    """In a worker: the models it picks and what tags of them say of themselves, or why it can't load them, as one row."""
    for _ in batches:
        row: dict[str, str | None] = {"said": None, "refused": None}
        try:
            use_own_cores()
            taggers = [open_tagger(resolve(each), None, backend, precision) for each in bundles]
            require_apart(bundles, taggers)
            row["said"] = json.dumps({"models": [model_of(each) for each in taggers], "about": about(taggers)})
        except PenchantError as error:
            row["refused"] = str(error)
        yield pa.RecordBatch.from_pylist([row], pa.schema({name: pa.string() for name in row}))


def tag_batches(batches: Iterator[pa.RecordBatch], bundles: tuple[str, ...], models: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """In a worker: the tags of batches of documents."""
    for batch in batches:
        texts = {row["text_key"]: text for row in batch.to_pylist() if (text := row_text(row))}
        if not all(texts):
            raise DataError("there are events that have no text_key; ingest them again")
        for tagger in loaded(bundles, models):
            yield from tagger.tag(list(texts), list(texts.values())).to_batches()


@lru_cache(maxsize=1)
def loaded(bundles: tuple[str, ...], models: tuple[str, ...]) -> list[Tagger]:
    """In a worker: the taggers, loaded once for as long as Spark keeps the worker. Raises `DataError` where they aren't the job's `models`."""
    use_own_cores()
    taggers = []
    for bundle, model in zip(bundles, models, strict=True):
        taggers.append(open_tagger(resolve(bundle), model.split("/")[1], "auto", "auto"))
        if model_of(taggers[-1]) != model:
            raise DataError(f"bundle {bundle!r}: {socket.gethostname()} has {model_of(taggers[-1])}, others have {model}; ship one to all")
    return taggers


def use_own_cores() -> None:
    """In a worker: let backends (by joblib's count) and tokenizers (by rayon's) take the cores of one task, not the machine's."""
    os.environ["LOKY_MAX_CPU_COUNT"] = os.environ["RAYON_NUM_THREADS"] = str(TaskContext.get().cpus())


def model_of(tagger: Tagger) -> str:
    """Names the bundle and the arithmetic."""
    return f"{tagger.spec.fingerprint}/{tagger.backend.variant}"


def require_apart(bundles: Sequence[str], taggers: Sequence[Tagger]) -> None:
    """Raise `DataError` where two bundles would write tags of the same dimension."""
    written = [dimension for each in taggers for dimension in each.spec.written]
    if twice := {each for each in written if written.count(each) > 1}:
        raise DataError(f"{', '.join(bundles)}: more than one writes tags of dimension {', '.join(sorted(twice))}; give one of them")


def resolve(bundle: str) -> Path:
    """In a worker: a bundle's folder, among what the job shipped or as a path of this machine."""
    places = list(dict.fromkeys([Path(SparkFiles.get(bundle)), Path(bundle).absolute()]))
    for place in places:
        if (place / "tagger.json").exists():
            return place
    raise DataError(
        f"bundle {bundle!r}: {socket.gethostname()} has no tagger.json in {' or '.join(map(str, places))}; ship it "
        "(spark-submit --archives bundle.zip#bundle … --bundle bundle) or give a path that every machine has"
    )
