"""python benchmarks/profiles.py [--quick] [--events N] [--large]: events a second that become profiles, beside pandas and Spark.

Ten million events of 180 days are made up: 80 a user, activity log-normal, 85% of a user's events on five interests of
their own, texts of one or two of 42 interests, one event in 200 delivered twice. Each figure is taken in a process of its
own, without its imports; its peak memory is that of the process. pandas gets 2.5 million events at most and Spark a tenth;
their masses have to equal ours on these, and they are compared by events a second. New events come after the others, a
fifth of them up to 20 days late. --large builds from 50 million events too; --quick takes 200,000, without Spark.
"""

import argparse
import json
import os
import random
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context, set_forkserver_preload
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from penchant.ingest.clean import text_key
from penchant.ingest.events import BATCH_ROWS
from penchant.profiles.duck import connect, put_aside
from penchant.profiles.duck import copied as copied_by_duckdb
from penchant.profiles.fold import KEY, best_tags, contributions, evidence, fold, joined, once_each, repeated_hashes
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build, load, update, user_profile, write_table
from penchant.profiles.store import BUCKET_DIGITS, Store, bucket_of
from penchant.records import EVENTS, TAGS
from penchant.taxonomy import Node, Taxonomy

POLICY = Policy()
INTERESTS = [f"topic{n // 7}.sub{n}" for n in range(42)]
PARENTS = [Node(id=f"topic{n}", name=f"topic {n}") for n in range(6)]
TAXONOMY = Taxonomy(name="made up", nodes=(*PARENTS, *(Node(id=each, name=each, parent=each[:6]) for each in INTERESTS)))
SOURCES = ("shop", "reviews", "social")
ACTIONS = {"view": 0.5, "click": 0.2, "like": 0.1, "review": 0.08, "purchase": 0.1, "refund": 0.02}
DAY = 86_400_000_000
START, DAYS = 1_735_689_600_000_000, 180
"""Microseconds since 1970 at the first event, and days until the last."""
LATE_SHARE, LATE_DAYS = 0.2, 20
REPEATED = 200
"""One event in so many is a repetition."""
CHUNK = 1_000_000
PANDAS_MOST, LARGE = 2_500_000, 50_000_000
LOOKUPS = "one user's profile with evidence, 50 times"
EQUAL = 1e-9
"""Largest difference of two masses, relative to the sizes of what was summed."""


class World:
    """Who acts how often on what, and which texts there are; the same for the same number of `events`."""

    def __init__(self, events: int) -> None:
        draw = np.random.default_rng(7)
        self.events, users, texts = events, events // 80, max(events // 100, 2_000)
        activity = draw.lognormal(size=users)
        self.activity = activity / activity.sum()
        self.own = draw.integers(0, len(INTERESTS), (users, 5))
        self.first = draw.integers(0, len(INTERESTS), texts)
        self.second = np.where(draw.random(texts) < 0.5, draw.integers(0, len(INTERESTS), texts), -1)
        self.scores = draw.random((2, texts))
        self.by_interest = np.argsort(self.first, kind="stable")
        self.texts_of = np.bincount(self.first, minlength=len(INTERESTS))
        titles = [f"a title of some words number {n} that is read" for n in range(texts)]
        self.titles, self.keys = pa.array(titles), pa.array([text_key(each) for each in titles])
        self.user_ids = pa.array([f"user{n:07d}" for n in range(users)])

    def write(self, folder: Path, first: int, count: int, late_share: float) -> None:
        """Write events number `first` and following, and the tags of their texts, as ingest and tag do."""
        folder.mkdir()
        seen = np.zeros(len(self.first), dtype=bool)
        with pq.ParquetWriter(folder / "events.parquet", EVENTS, compression="zstd") as writer:
            for start in range(first, first + count, CHUNK):
                size = min(CHUNK, first + count - start)
                draw = np.random.default_rng([self.events, start])
                texts, rows = self.chunk(draw, np.arange(start, start + size - size // REPEATED), late_share)
                again = rows.take(pa.array(draw.integers(0, rows.num_rows, size // REPEATED)))
                writer.write_table(pa.concat_tables([rows, again]), row_group_size=BATCH_ROWS)
                seen[texts] = True
        texts = np.concatenate([np.flatnonzero(seen), np.flatnonzero(seen & (self.second >= 0))])
        second = np.arange(len(texts)) >= seen.sum()
        value = np.where(second, self.second[texts], self.first[texts])
        columns = [self.keys.take(texts), pa.repeat("interest", len(texts)), pa.array(INTERESTS).take(value)]
        columns += [pa.array(self.scores[second.astype(int), texts]), *[pa.nulls(len(texts), pa.int32())] * 2]
        about = {"penchant.taxonomy": json.dumps(TAXONOMY.model_dump(mode="json")), "penchant.bundle": "made up"}
        pq.write_table(pa.table(columns, TAGS.with_metadata(about)), folder / "tags.parquet", compression="zstd")

    def chunk(self, draw: np.random.Generator, numbers: Any, late_share: float) -> tuple[Any, pa.Table]:
        """Events with these numbers, and the places of their texts."""
        n = len(numbers)
        users = draw.choice(len(self.activity), n, p=self.activity)
        own = self.own[users, np.minimum(draw.geometric(0.4, n), 5) - 1]
        interest = np.where(draw.random(n) < 0.85, own, draw.integers(0, len(INTERESTS), n))
        before = (np.cumsum(self.texts_of) - self.texts_of)[interest]
        texts = self.by_interest[before + (draw.random(n) ** 2 * self.texts_of[interest]).astype(int)]
        late_days = (draw.random(n) < late_share) * draw.random(n) * LATE_DAYS
        moments = START + ((numbers / self.events * DAYS - late_days) * DAY).astype(int) + draw.integers(0, DAY // 24, n)
        columns = {
            "event_id": pa.array([f"shop:{number:012d}" for number in numbers]),
            "user_id": self.user_ids.take(users),
            "occurred_at": pa.array(moments, pa.timestamp("us", "UTC")),
            "source": pa.array(SOURCES).take(draw.integers(0, len(SOURCES), n)),
            "action": pa.array(list(ACTIONS)).take(draw.choice(len(ACTIONS), n, p=list(ACTIONS.values()))),
            "title": self.titles.take(texts),
            "rating": pa.array(draw.integers(1, 6, n).astype(float), mask=draw.random(n) >= 0.1),
            "amount": pa.array(draw.random(n) * 100, mask=draw.random(n) >= 0.1),
            "text_key": self.keys.take(texts),
        }
        return texts, pa.table([columns.get(field.name, pa.nulls(n, field.type)) for field in EVENTS], EVENTS)


def write(folder: Path, world: int, first: int, count: int, late_share: float = 0.0) -> None:
    """Inputs out of the world of so many events."""
    World(world).write(folder, first, count, late_share)


@dataclass(frozen=True)
class Measured:
    """What a task took; `said` is what else it found."""

    rows: int
    seconds: float
    gib: float
    said: dict[str, float]

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def with_peak(task: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What `task` returns, and this process's peak memory in GiB."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # DuckDB takes a forked process for an interactive one, and draws progress bars
    return task(*arguments), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def alone(task: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """`with_peak` in a process of its own, which others' peaks don't count in: it is forked from one that did nothing but import."""
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(with_peak, task, *arguments).result()


def measure(what: str, rows: int, task: Callable[..., tuple[float, dict[str, float]]], *arguments: Any) -> Measured:
    """Measure a task alone, and print it as a row of the table."""
    (seconds, said), gib = alone(task, *arguments)
    found = Measured(rows, seconds, gib, said)
    more = ", ".join(f"{number:,.{0 if isinstance(number, int) else 2}f} {name}" for name, number in said.items())
    print(f"{what:56}{rows:12,}{seconds:9.2f}{found.rate:12,.0f}{gib:7.2f}  {more}".rstrip(), flush=True)
    return found


def whole_build(inputs: Path, store: Path) -> tuple[float, dict[str, float]]:
    """`penchant profile build`."""
    start = time.perf_counter()
    about = build(inputs / "events.parquet", inputs / "tags.parquet", POLICY, store)
    return time.perf_counter() - start, {"rows of state": about["attributes"]}


def contributed(connection: Any, inputs: Path, aside: Callable[[ir.Table], ir.Table]) -> tuple[ir.Table, Callable[[ir.Table], ir.Table]]:
    """Contributions of the inputs, each event once, and how they are folded."""
    events, tags = (connection.read_parquet(str(inputs / f"{name}.parquet")) for name in ("events", "tags"))
    found = events.agg(last=events.occurred_at.max(), sources=events.source.collect(distinct=True)).to_pyarrow().to_pylist()[0]
    once = once_each(events, aside(repeated_hashes(events)))
    rows = contributions(joined(once, aside(best_tags(tags, events)), POLICY), once, POLICY, TAXONOMY)
    return rows, partial(fold, policy=POLICY, as_of=found["last"], sources=sorted(found["sources"]))


def fold_alone(inputs: Path, output: Path) -> tuple[float, dict[str, float]]:
    """The fold without a store around it: Parquet in, one Parquet file of state out."""
    start = time.perf_counter()
    connection = connect()
    rows, folded = contributed(connection, inputs, partial(put_aside, connection))
    folded(rows).to_parquet(output, compression="zstd")
    return time.perf_counter() - start, {}


def copied(inputs: Path, output: Path) -> tuple[float, dict[str, float]]:
    """Events read and written again by user bucket, and nothing else: what no build that keeps them can do without."""
    start = time.perf_counter()
    connection = connect()
    events = connection.read_parquet(str(inputs / "events.parquet"))
    rows = events.mutate(bucket=bucket_of(events.user_id, BUCKET_DIGITS))
    copied_by_duckdb(connection, rows, output, "PARTITION_BY (bucket)")
    return time.perf_counter() - start, {}


def spark_fold(inputs: Path, output: Path) -> tuple[float, dict[str, float]]:
    """The same Ibis expression on Spark, the second time, when its virtual machine is warm."""
    from pyspark.sql import SparkSession

    warnings.simplefilter("ignore", FutureWarning)  # of pandas 3, which isn't used
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    settings = {"ui.enabled": "false", "ui.showConsoleProgress": "false", "driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1"}
    settings |= {
        "driver.memory": "4g",
        "sql.shuffle.partitions": "8",
        "sql.session.timeZone": "UTC",
        "sql.warehouse.dir": str(output.with_name("warehouse")),
    }
    builder = SparkSession.builder.master("local[2]").config(map={f"spark.{name}": value for name, value in settings.items()})
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    connection = ibis.pyspark.connect(session)

    def aside(rows: ir.Table) -> ir.Table:
        name = ibis.util.gen_name("penchant")
        session.sql(connection.compile(rows)).cache().createOrReplaceTempView(name)
        return connection.table(name)

    for _ in range(2):
        session.catalog.clearCache()
        start = time.perf_counter()
        rows, folded = contributed(connection, inputs, aside)
        session.sql(connection.compile(folded(rows))).write.mode("overwrite").parquet(str(output))
        seconds = time.perf_counter() - start
    session.stop()
    return seconds, {}


def pandas_fold(inputs: Path, output: Path) -> tuple[float, dict[str, float]]:
    """The same fold as one writes it in pandas, and the strongest events of each row of state."""
    start = time.perf_counter()
    columns = ["event_id", "user_id", "occurred_at", "source", "action", "title", "body", "rating", "text_key"]
    events = pd.read_parquet(inputs / "events.parquet", columns=columns).drop_duplicates("event_id")
    tags = pd.read_parquet(inputs / "tags.parquet").groupby(["text_key", "dimension", "value"], as_index=False).score.max()
    action = events.action.map(POLICY.action_weights).fillna(1.0)
    rating = np.interp(events.rating, list(POLICY.rating_factors), list(POLICY.rating_factors.values()))
    events["worth"] = action * np.where(events.rating.isna(), 1.0, np.where(action < 0, np.abs(rating), rating))
    events["age"] = (events.occurred_at.max() - events.occurred_at).dt.total_seconds() / 86_400
    rows = events.merge(tags, on="text_key")
    rows["contribution"] = rows.score * rows.worth
    rows["positive_at"] = rows.occurred_at.where(rows.contribution > 0)
    for name, days in POLICY.half_life_days.items():
        rows[f"mass_{name}"] = rows.contribution * 2 ** (-rows.age / days)
    for name in SOURCES:
        rows[name] = rows.source == name
    state = rows.groupby(list(KEY), as_index=False, sort=False).agg(
        **{f"mass_{name}": (f"mass_{name}", "sum") for name in POLICY.horizons},
        events=("event_id", "size"),
        first_at=("occurred_at", "min"),
        last_at=("occurred_at", "max"),
        last_positive_at=("positive_at", "max"),
        **{f"from_{name}": (name, "any") for name in SOURCES},
    )
    state.to_parquet(output, compression="zstd")
    folded = time.perf_counter() - start
    rows["strength"] = rows[f"mass_{POLICY.horizons[1]}"].abs()
    strongest = rows.sort_values("strength", ascending=False).groupby(list(KEY), sort=False).head(POLICY.evidence_kept)
    snippet = strongest.title.fillna("").str.cat(strongest.body.fillna(""), " · ").str[:160]
    kept = strongest[[*KEY, "event_id", "occurred_at", "source", "action", "contribution"]].assign(snippet=snippet)
    kept.to_parquet(output.with_suffix(".evidence"), compression="zstd")
    return time.perf_counter() - start, {"s without evidence": folded}


def difference(inputs: Path, ours: Path, other: str) -> float:
    """Largest difference of a mass between two tables of state, relative to the sizes of what was summed; infinite where rows differ."""
    connection = connect()
    rows, folded = contributed(connection, inputs, partial(put_aside, connection))
    mine, theirs = connection.read_parquet(str(ours)), connection.read_parquet(other)
    both = mine.inner_join(theirs, list(KEY), rname="{name}_other")
    both = both.inner_join(folded(rows.mutate(contribution=rows.contribution.abs())), list(KEY), rname="{name}_size")
    names = [f"mass_{name}" for name in POLICY.horizons]
    worst = {name: ((both[name] - both[f"{name}_other"]).abs() / both[f"{name}_size"].nullif(0)).max() for name in names}
    found = both.agg(equal=(both.events == both.events_other).sum(), **worst).to_pyarrow().to_pylist()[0]
    same_rows = found["equal"] == mine.count().to_pyarrow().as_py() == theirs.count().to_pyarrow().as_py()
    return max(found[name] for name in names) if same_rows else float("inf")


def require_equal(inputs: Path, ours: Path, other: str) -> None:
    """Assert that two tables of state have the same masses."""
    found, _ = alone(difference, inputs, ours, other)
    assert found < EQUAL, f"{other}: masses differ by {found}"
    print(f"  the same masses as ours: they differ by {found:.0e} at most", flush=True)


def updated(store: Path, inputs: Path) -> tuple[float, dict[str, float]]:
    """`penchant profile update` of a copy of the store, which goes again."""
    copy = store.with_name("copy")
    shutil.copytree(store, copy)
    start = time.perf_counter()
    said = update(inputs / "events.parquet", inputs / "tags.parquet", copy)
    seconds = time.perf_counter() - start
    shutil.rmtree(copy)
    return seconds, {"new": said["new"], "users": said["users"]}


def looked_up(store: Path) -> tuple[float, dict[str, float]]:
    """One user's profile with its evidence: of 50 users, after 5 others."""
    snapshot = load(store)
    users = sorted(snapshot.state.select("user_id").distinct().to_pyarrow()["user_id"].to_pylist())
    seconds = []
    for user in random.Random(7).sample(users, 55):
        start = time.perf_counter()
        user_profile(snapshot, user)
        seconds.append(1e3 * (time.perf_counter() - start))
    median, most = np.quantile(seconds[5:], [0.5, 0.95])
    rows = sum(each["rows"] for each in snapshot.head.files("state"))
    return sum(seconds[5:]) / 1e3, {"ms median": float(median), "ms 95th percentile": float(most), "rows of state": rows}


def put_together(store: Path) -> tuple[float, dict[str, float]]:
    """What `penchant profile vacuum` does but for deleting: each bucket's rows are sorted by user."""
    start = time.perf_counter()
    files = Store(store).compact(connect(), everything=True)
    return time.perf_counter() - start, {"files replaced": files}


def viewed(store: Path) -> tuple[float, dict[str, float]]:
    """The view of all users as a table."""
    start = time.perf_counter()
    rows = write_table(load(store), "view", store.with_name("view.parquet"))
    return time.perf_counter() - start, {"rows of it": rows}


def explained(store: Path) -> tuple[float, dict[str, float]]:
    """The strongest events of every row of state, as a table."""
    start = time.perf_counter()
    evidence(load(store).contributions(), POLICY).to_parquet(store.with_name("evidence.parquet"), compression="zstd")
    return time.perf_counter() - start, {}


def compare(folder: Path, events: int, with_spark: bool) -> dict[str, float | None]:
    """The build and its fold beside pandas and Spark; leaves the store, and the inputs of a tenth of the events."""
    alone(write, folder / "all", events, 0, events)
    whole = measure("penchant profile build", events, whole_build, folder / "all", folder / "store")
    fewer, inputs, state = events, folder / "all", folder / "state.parquet"
    ours = less = measure("its fold alone", events, fold_alone, inputs, state)
    copy = measure("its events written by bucket, and nothing else", events, copied, inputs, folder / "copied")
    shutil.rmtree(folder / "copied")
    if events > PANDAS_MOST:
        fewer, inputs, state = PANDAS_MOST, folder / "fewer", folder / "fewer.parquet"
        alone(write, inputs, fewer, 0, fewer)
        less = measure("its fold alone", fewer, fold_alone, inputs, state)
    pandas = measure("the fold in pandas, and evidence", fewer, pandas_fold, inputs, folder / "pandas.parquet")
    require_equal(inputs, state, str(folder / "pandas.parquet"))
    ratios = whole.rate / pandas.rate, pandas.said["s without evidence"] / less.seconds
    print(f"  times pandas in events a second: build {ratios[0]:.1f}; fold alone, on the same events and without evidence, {ratios[1]:.1f}")
    tenth, inputs, state = events // 10, folder / "tenth", folder / "tenth.parquet"
    alone(write, inputs, tenth, 0, tenth)
    spark = None
    if with_spark:
        measure("its fold alone", tenth, fold_alone, inputs, state)
        spark = measure("the fold on Spark, 2 cores, warm (GiB without Java)", tenth, spark_fold, inputs, folder / "spark")
        require_equal(inputs, state, str(folder / "spark/*.parquet"))
    return {
        "build_seconds": round(whole.seconds, 2),
        "build_events_per_second": round(whole.rate),
        "fold_events_per_second": round(ours.rate),
        "copy_events_per_second": round(copy.rate),
        "speedup_pandas": round(ratios[0], 1),
        "speedup_pandas_fold": round(ratios[1], 1),
        "spark_events_per_second": round(spark.rate) if spark is not None else None,
        "peak_rss_gib": round(whole.gib, 2),
    }


def updates(folder: Path, events: int, build_seconds: float) -> dict[str, float]:
    """Updates of the store by new events, and by the same ones of stores with less history of the same users."""
    shares = {}
    for part in (100, 1_000, 10_000):
        alone(write, folder / f"new-{part}", events, events, events // part, LATE_SHARE)
        found = measure(f"update with 1/{part:,}", events // part, updated, folder / "store", folder / f"new-{part}")
        shares[part] = found.seconds / build_seconds
        print(f"  {shares[part]:.2%} of the build's time")
    for part in (10, 100):
        alone(write, folder / f"last-{part}", events, events - events // part, events // part)
        alone(whole_build, folder / f"last-{part}", folder / f"store-{part}")
        what = f"the first update, on a store of the last {events // part:,}"
        measure(what, events // 100, updated, folder / f"store-{part}", folder / "new-100")
    return {"update_share_1pct": round(shares[100], 4), "update_share_01pct": round(shares[1_000], 4)}


def reads(folder: Path, events: int) -> dict[str, float]:
    """Lookups before and after the rows are sorted, the view of all users, and the evidence of all in a store of a tenth of the events."""
    before = measure(LOOKUPS, 50, looked_up, folder / "store")
    measure("penchant profile vacuum", events, put_together, folder / "store")
    one = measure(LOOKUPS, 50, looked_up, folder / "store")
    view = measure("view of all users", events, viewed, folder / "store")
    alone(whole_build, folder / "tenth", folder / "store-tenth")
    measure("evidence of all users", events // 10, explained, folder / "store-tenth")
    return {
        "lookup_ms": round(one.said["ms median"], 1),
        "lookup_ms_before_vacuum": round(before.said["ms median"], 1),
        "view_seconds": round(view.seconds, 2),
    }


def large(folder: Path) -> dict[str, float]:
    """A build of so many events that memory has to be minded, and lookups in what it leaves."""
    alone(write, folder / "large", LARGE, 0, LARGE)
    built = measure("penchant profile build", LARGE, whole_build, folder / "large", folder / "store-large")
    before = measure(LOOKUPS, 50, looked_up, folder / "store-large")
    measure("penchant profile vacuum", LARGE, put_together, folder / "store-large")
    one = measure(LOOKUPS, 50, looked_up, folder / "store-large")
    found = {"large_lookup_ms": one, "large_lookup_ms_before_vacuum": before}
    return {"large_peak_rss_gib": round(built.gib, 2), **{name: round(each.said["ms median"], 1) for name, each in found.items()}}


def main() -> None:
    """Measure, print a table, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000, help="how many events the store is built from")
    parser.add_argument("--large", action="store_true", help=f"build from {LARGE:,} events too")
    parser.add_argument("--quick", action="store_true", help="200,000 events, without Spark")
    options = parser.parse_args()
    events = 200_000 if options.quick else options.events
    set_forkserver_preload(["penchant.profiles.snapshot", "ibis.backends.duckdb", "ibis.formats.pandas", "deltalake"])
    from machine import describe  # not above, where every process would load PyTorch

    print(describe())
    has_spark = find_spec("pyspark") is not None and (shutil.which("java") is not None or "JAVA_HOME" in os.environ)
    print(f"\n{'what':56}{'rows':>12}{'seconds':>9}{'rows/s':>12}{'GiB':>7}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = compare(folder, events, has_spark and not options.quick)
        result |= updates(folder, events, result["build_seconds"])
        result |= reads(folder, events)
        result |= large(folder) if options.large else {}
    print(json.dumps(result | {"events": events}))


if __name__ == "__main__":
    main()
