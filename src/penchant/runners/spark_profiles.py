"""Profiles on many machines: the same fold, merge and view as on one, by Spark."""

import json
from datetime import UTC, datetime
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from penchant.config import parse
from penchant.errors import DataError, MissingExtraError
from penchant.ingest.contract import needed_columns
from penchant.profiles.fold import best_tags, contributions, fold, instant, joined, once_each, population, surfaces
from penchant.profiles.inputs import CLOCK_SKEW, broken, faults
from penchant.profiles.policy import Policy
from penchant.profiles.view import view
from penchant.records import EVENTS, TAGS
from penchant.taxonomy import Taxonomy

try:
    from pyspark.errors import AnalysisException
    from pyspark.sql import DataFrame, SparkSession
except ImportError as error:
    raise MissingExtraError("profiles on Spark", "spark") from error

PARTS = ("state", "population", "surface", "view", "rejects")
"""Folders that a run writes."""


def profile_parquet(
    spark: SparkSession,
    events: str,
    tags: str,
    output: str,
    policy: Policy,
    taxonomy: Taxonomy | None = None,
    as_of: datetime | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, int]:
    """Fold `events` with their `tags` and write `output/state`, `population`, `surface`, `view` and `rejects`; rows of each.

    `events` and `tags` are Parquet anywhere Spark can read; the taxonomy is the one that the tags came with, unless given.
    Times are read and written in UTC. `as_of` defaults to the last event's time. Raises `DataError` for what can't be read.
    """
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")  # as the contracts have it
    connection = ibis.pyspark.connect(spark)
    tag_frame = read(spark, tags, TAGS, "penchant tag")
    nodes = taxonomy or taxonomy_of(tag_frame, tags)
    event_rows = table(connection, read(spark, events, EVENTS, "penchant ingest"), EVENTS, "penchant_events")
    tag_rows = table(connection, tag_frame, TAGS, "penchant_tags")
    reasons = faults(event_rows, datetime.now(UTC) + CLOCK_SKEW)
    usable = once_each(event_rows.filter(~broken(reasons)))
    last = as_of or spark.sql(connection.compile(usable.agg(last=usable.occurred_at.max()))).collect()[0]["last"]
    if last is None:
        raise DataError(f"{events}: no events")
    until = last if last.tzinfo is not None else last.astimezone(UTC)
    counted = usable.filter(usable.occurred_at <= instant(until))
    rows = joined(counted, best_tags(tag_rows, counted), policy)
    written: dict[str, int] = {}

    def write(part: str, made: ir.Table) -> ir.Table:
        folder = f"{output}/{part}"
        try:
            spark.sql(connection.compile(made)).write.mode("overwrite" if overwrite else "errorifexists").parquet(folder)
        except AnalysisException as error:
            raise DataError(f"{folder}: can't be written: {str(error).splitlines()[0]}; --overwrite replaces what is there") from error
        frame = spark.read.parquet(folder)
        written[part] = frame.count()
        frame.createOrReplaceTempView(f"penchant_{part}")
        return connection.table(f"penchant_{part}")

    state = write("state", fold(contributions(rows, counted, policy, nodes), policy, until))
    totals = write("population", population(state, policy, until))
    write("surface", surfaces(rows, policy, nodes, until))
    write("view", view(state, totals, policy))
    named = event_rows.filter(broken(reasons))
    write("rejects", named.select("event_id", reason=ibis.cases(*((each.fill_null(False), name) for name, each in reasons.items()))))
    return written


def read(spark: SparkSession, path: str, schema: pa.Schema, maker: str) -> DataFrame:
    """A Parquet table that holds the columns of a contract. Raises `DataError` that names `maker`, the command that writes such."""
    try:
        frame = spark.read.option("pathGlobFilter", "*.parquet").parquet(path)
    except AnalysisException as error:
        raise DataError(f"{path}: can't be read: {str(error).splitlines()[0]}; make it with: {maker}") from error
    missing = [name for name in needed_columns(schema) if name not in frame.columns]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}; make it with: {maker}")
    return frame


def table(connection: Any, frame: DataFrame, schema: pa.Schema, name: str) -> ir.Table:
    """A frame as a table for Ibis with all columns of a contract."""
    frame.createOrReplaceTempView(name)
    found = connection.table(name)
    kinds = ibis.Schema.from_pyarrow(schema).items()
    return found.select(**{column: found[column].cast(kind) if column in found.columns else ibis.null(kind) for column, kind in kinds})


def taxonomy_of(tags: DataFrame, origin: str) -> Taxonomy:
    """The taxonomy that tags made on Spark say they belong to. Raises `DataError` where they don't."""
    said = tags.schema["text_key"].metadata.get("penchant.taxonomy")
    if said is None:
        raise DataError(f"{origin}: doesn't say which taxonomy its tags belong to; give --taxonomy")
    return parse(Taxonomy, json.loads(said), origin)
