"""python benchmarks/segments.py [--quick] [--rows N]: seconds until a segment of 1% of many people is found, beside pandas and beside a look at every profile.

Ten million profile rows are made up: 1.25 million users with 8 of 200 interests each, one event a row, over 180 days, in a
store that `penchant profile build` made. The rule asks for an interest, its recency and the absence of another. Each time
is that of `penchant.segments.insight.find` in a process of its own, opened profiles at hand; "first" is the first question, "again"
the median of five more with another interest each; a look at every profile is asked once. pandas reads the view that `penchant profile table` wrote, whose weights
are computed already, and has to find the same people. --quick takes 400,000 rows.
"""

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe

from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build, load, write_table
from penchant.records import EVENTS, TAGS
from penchant.segments.insight import find
from penchant.segments.load import everybody, of_text
from penchant.segments.people import members
from penchant.taxonomy import Node, Taxonomy, to_yaml

INTERESTS = [f"topic{n:03}" for n in range(200)]
PER_USER, DAYS, TIMES = 8, 180, 5
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
CHUNK = 100_000
"""Users whose events are made at once."""


def rule(n: int) -> str:
    """A rule that about 1.2% of the users meet."""
    return f"interest:{INTERESTS[n]} seen<60d and not interest:{INTERESTS[n + 1]}"


def make(folder: Path, rows: int) -> None:
    """A store with so many rows of state."""
    draw = np.random.default_rng(5)
    names = pa.array(INTERESTS)
    with pq.ParquetWriter(folder / "events.parquet", EVENTS, compression="zstd") as writer:
        for start in range(0, rows // PER_USER, CHUNK):
            users = np.arange(start, min(start + CHUNK, rows // PER_USER))
            chosen = np.argsort(draw.random((len(users), len(INTERESTS)), dtype=np.float32), axis=1)[:, :PER_USER].ravel()
            moments = int(AS_OF.timestamp() * 1_000_000) - draw.integers(0, DAYS * 86_400_000_000, len(chosen))
            ids = np.repeat(users, PER_USER)
            table = {
                "event_id": pa.array([f"e{start * PER_USER + n}" for n in range(len(chosen))]),
                "user_id": pa.array([f"user{n:07d}" for n in ids]),
                "occurred_at": pa.array(moments, pa.int64()).cast(EVENTS.field("occurred_at").type),
                "source": pa.array(["shop"] * len(chosen)),
                "action": pa.array(["click"] * len(chosen)),
                "title": names.take(pa.array(chosen)),
                "text_key": names.take(pa.array(chosen)),
            }
            nothing = {field.name: pa.nulls(len(chosen), field.type) for field in EVENTS if field.name not in table}
            writer.write_table(pa.table({field.name: (table | nothing)[field.name] for field in EVENTS}, EVENTS))
    tags = [{"text_key": each, "dimension": "interest", "value": each, "score": 1.0} for each in INTERESTS]
    pq.write_table(pa.Table.from_pylist(tags, TAGS), folder / "tags.parquet")
    nodes = tuple(Node(id=each, name=each) for each in INTERESTS)
    (folder / "taxonomy.yaml").write_text(to_yaml(Taxonomy(name="made up", nodes=nodes)))
    build(folder / "events.parquet", folder / "tags.parquet", Policy(), folder / "profiles", folder / "taxonomy.yaml", AS_OF)
    write_table(load(folder / "profiles"), "view", folder / "view.parquet")


def ours(folder: Path, narrowed: bool = True) -> dict[str, Any]:
    """Seconds of the first question and of others, and who was found by the first."""
    snapshot = load(folder / "profiles")
    taken, found = [], []
    for n in range(TIMES + 1 if narrowed else 1):
        audience = of_text(rule(10 * n))
        start = time.perf_counter()
        people = find(audience, snapshot) if narrowed else members(audience, everybody(snapshot))
        found.append(sorted(people.to_pyarrow()["user_id"].to_pylist()))
        taken.append(time.perf_counter() - start)
    return {"first": taken[0], "again": statistics.median(taken[1:]) if narrowed else None, "people": found[0], "memory": peak()}


def by_pandas(folder: Path) -> dict[str, Any]:
    """The same by pandas, of weights that are there already."""
    start = time.perf_counter()
    view = pd.read_parquet(folder / "view.parquet", columns=["user_id", "value", "last_positive_at"])
    recent = view.last_positive_at > pd.Timestamp(AS_OF - timedelta(days=60))
    wanted = view.loc[(view["value"] == INTERESTS[0]) & recent, "user_id"]
    without = view.loc[view["value"] == INTERESTS[1], "user_id"]
    found = sorted(wanted[~wanted.isin(without)])
    return {"first": time.perf_counter() - start, "again": None, "people": found, "memory": peak()}


def peak() -> float:
    """The most memory this process had, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Make the profiles, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="400,000 rows")
    parser.add_argument("--rows", type=int, default=10_000_000, help="profile rows")
    options = parser.parse_args()
    rows = 400_000 if options.quick else options.rows
    folder = Path(tempfile.mkdtemp())
    try:
        ways = {"penchant": ours, "penchant, every profile looked at": partial(ours, narrowed=False), "pandas, weights known": by_pandas}
        in_new_process = partial(ProcessPoolExecutor, 1, get_context("spawn"))
        with in_new_process() as process:
            process.submit(make, folder, rows).result()
        figures = {}
        for name, way in ways.items():
            with in_new_process() as process:
                figures[name] = process.submit(way, folder).result()
    finally:
        shutil.rmtree(folder)
    people = figures["penchant"]["people"]
    assert all(each["people"] == people for each in figures.values()), "not the same people"
    print(
        f"{rows:,} profile rows of {rows // PER_USER:,} users, {len(people):,} found ({len(people) * PER_USER / rows:.1%}); {describe()}\n"
    )
    print("| who asks | first, s | again, s | memory, GiB |\n|---|---|---|---|")
    for name, each in figures.items():
        again = f"{each['again']:.2f}" if each["again"] is not None else "–"
        print(f"| {name} | {each['first']:.2f} | {again} | {each['memory']:.2f} |")
    ratio = figures["pandas, weights known"]["first"] / figures["penchant"]["first"]
    print(
        json.dumps(
            {
                "rows": rows,
                "people": len(people),
                "seconds_first": figures["penchant"]["first"],
                "seconds_again": figures["penchant"]["again"],
                "times_pandas": ratio,
                "memory_gib": figures["penchant"]["memory"],
            }
        )
    )


if __name__ == "__main__":
    main()
