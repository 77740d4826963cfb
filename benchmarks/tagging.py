"""python benchmarks/tagging.py [--quick]: texts a second of `penchant tag` beside `transformers.pipeline`.

The pipeline at its best batch size, on the same texts in the same run. Texts: stretches of the sample corpus, half of 4
to 12 words, a third of 10 to 35, the rest up to 120. The event stream draws titles from them by Zipf's law. Speeds of the
tagger are of the whole of `penchant tag`: reading a Parquet file, tokenising, inference, writing; the cache is off. The
bundle and the student have to be exported (penchant export); --quick takes some hundred texts.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import describe
from sklearn.metrics import f1_score
from transformers import pipeline

from penchant.ingest.clean import text_key
from penchant.runners.local import tag_file
from penchant.tagging.backends import graph_feed, own_cores, own_device
from penchant.tagging.bundle import decide
from penchant.tagging.exports import FOLDER, ONNX_FILES, load_exports
from penchant.tagging.pipeline import Clock
from penchant.tagging.tagger import Tagger

CORPUS = Path("data/corpus")
LABELLED = CORPUS / "test.jsonl"
PIPELINE_BATCHES = (1, 8, 32)
WORK = {
    "matrix products": ("MatMul", "MatMulIntegerToFloat", "Gemm", "FusedGemm"),
    "attention, with its own products": ("Attention", "QAttention"),
    "activation": ("BiasGelu", "Gelu"),
    "normalisation and residuals": ("LayerNormalization", "Add"),
    "rounding to int8, splitting channels": ("QuantizeLinear", "Gather", "Concat", "Clip", "Sub", "Mul"),
}
"""Kinds of nodes by what they do."""
ZIPF = 1.1
"""Exponent of the items' popularity."""


def texts(count: int, seed: int = 7) -> list[str]:
    """Distinct texts of the stated lengths."""
    draw = random.Random(seed)
    words = [word for line in (CORPUS / "train.jsonl").open(encoding="utf-8") for word in json.loads(line)["text"].split()]
    found: dict[str, None] = {}
    while len(found) < count:
        kind = draw.random()
        length = draw.randint(4, 12) if kind < 1 / 2 else draw.randint(10, 35) if kind < 5 / 6 else draw.randint(35, 120)
        start = draw.randrange(len(words) - length)
        found[" ".join(words[start : start + length])] = None
    return list(found)


def write_events(path: Path, titles: list[str], places: Any) -> None:
    """An events table whose rows have these titles by place, written in slices."""
    keys = pa.array([text_key(each) for each in titles])
    own = pa.array(titles)
    with pq.ParquetWriter(path, pa.schema([("text_key", pa.string()), ("title", pa.string())])) as writer:
        for start in range(0, len(places), 1_000_000):
            chosen = pa.array(places[start : start + 1_000_000])
            writer.write_table(pa.table({"text_key": keys.take(chosen), "title": own.take(chosen)}))


def pipeline_rates(bundle: Path, sample: list[str]) -> dict[int, float]:
    """Texts a second by batch size."""
    torch.set_num_threads(own_cores())
    stock = pipeline("text-classification", model=str(bundle), top_k=None, truncation=True, max_length=128, device="cpu")
    rates = {}
    for size in PIPELINE_BATCHES:
        stock(sample[:16], batch_size=size)
        start = time.perf_counter()
        stock(sample, batch_size=size)
        rates[size] = len(sample) / (time.perf_counter() - start)
    return rates


def tagging_rate(bundle: Path, source: Path, backend: str) -> dict[str, Any]:
    """One run of `penchant tag`: rows and distinct texts a second, cores busy, and CPU seconds by stage.

    The bundle is loaded before the clock starts: what a long run takes is asked for, not what a short one does.
    """
    with tempfile.TemporaryDirectory() as folder:
        clock, output = Clock(), Path(folder) / "tags.parquet"
        taggers = [Tagger(bundle, backend=backend)]
        start, cpu = time.perf_counter(), time.process_time()
        counts = tag_file([bundle], source, output, backend, clock=clock, taggers=taggers)
        wall = time.perf_counter() - start
        assert counts is not None
        return {
            "backend": taggers[0].backend.name,
            "rows": counts["rows"] / wall,
            "texts": counts["texts"] / wall,
            "busy": (time.process_time() - cpu) / wall / own_cores(),
            "stages": {name: seconds / (wall * own_cores()) for name, seconds in clock.seconds.items()},
            "wall": wall,
        }


def macro_f1(tagger: Tagger) -> float:
    """On the labelled texts."""
    rows = [json.loads(line) for line in LABELLED.open(encoding="utf-8")]
    spec = tagger.spec
    true = np.array([[label in row["interests"] for label in spec.labels] for row in rows])
    score, _ = tagger.score([row["text"] for row in rows])
    return float(f1_score(true, decide(score, np.asarray(spec.thresholds), spec.min_tags, spec.max_tags), average="macro", zero_division=0))


def memory(bundle: Path, folder: Path, sizes: list[int], titles: list[str]) -> list[dict[str, float]]:
    """Seconds and peak memory of `penchant tag` in a process of its own, by events in the stream."""
    found = []
    for size in sizes:
        source = folder / f"events-{size}.parquet"
        write_events(source, titles, zipf(size, len(titles)))
        code = f"""
import resource, time
from pathlib import Path
from penchant.cli import prepare_output
prepare_output()
from penchant.runners.local import tag_file
start = time.perf_counter()
tag_file([Path({str(bundle)!r})], Path({str(source)!r}), Path({str(folder / "tags.parquet")!r}))
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
        seconds, gib = (float(each) for each in done.stdout.split())
        found.append({"events": size, "seconds": seconds, "gib": gib})
        source.unlink()
    return found


def kernel_seconds(bundle: Path, backend: str, sample: list[str]) -> dict[str, float]:
    """Seconds of ONNX Runtime by kind of node, over a sample of texts, on one thread."""
    tagger = Tagger(bundle, backend=backend)
    prepared = tagger.prepare(sample)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        path = bundle / FOLDER / ONNX_FILES[backend]
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for chosen in prepared.batches:
            session.run(None, graph_feed(session, tagger.padded([prepared.windows[n] for n in chosen])))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            found[event["args"]["op_name"]] += event["dur"] / 1e6
    return found


def draw_profile(path: Path, rows: dict[str, dict[str, float]], unit: str) -> None:
    """Stacked bars of seconds by kind of work, one bar a row."""
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.6 * len(rows)), layout="constrained")
    left = dict.fromkeys(rows, 0.0)
    known = {name for names in WORK.values() for name in names}
    for work, names in {**WORK, "others": ()}.items():
        widths = {row: sum(each[name] for name in each if (name in names if names else name not in known)) for row, each in rows.items()}
        axes.barh(list(rows), list(widths.values()), left=list(left.values()), label=work)
        left = {row: left[row] + widths[row] for row in rows}
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    figure.legend(ncols=3, fontsize=9, loc="outside lower center", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def zipf(count: int, items: int) -> Any:
    """Places of items drawn by their popularity."""
    draw = np.random.default_rng(11)
    share = 1 / np.arange(1, items + 1) ** ZIPF
    return draw.choice(items, count, p=share / share.sum())


def main() -> None:
    """Measure, print a table, and the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("runs/interests/bundle"))
    parser.add_argument("--student", type=Path, default=Path("runs/student/bundle"))
    parser.add_argument("--profile", type=Path, help="also draw where the network's time goes, as this picture")
    parser.add_argument("--quick", action="store_true", help="a few hundred texts, no table of memory")
    options = parser.parse_args()
    print(describe())
    distinct = texts(400 if options.quick else 3_000)
    stream = texts(300 if options.quick else 20_000, seed=8)
    events = 30_000 if options.quick else 2_000_000
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(folder / "distinct.parquet", distinct, np.arange(len(distinct)))
        write_events(folder / "stream.parquet", stream, zipf(events, len(stream)))
        best = pipeline_rates(options.bundle, distinct[: 120 if options.quick else 600])
        base = max(best.values())
        print(f"\n{'what':44}{'texts/s':>9}{'×':>7}{'busy':>7}  CPU time by stage")
        for size, rate in best.items():
            print(f"{f'transformers.pipeline, batch {size}':44}{rate:9.0f}{rate / base:7.2f}")
        models = {"bundle": options.bundle} | ({"student": options.student} if (options.student / "tagger.json").exists() else {})
        fastest = {}
        for who, bundle in models.items():
            on_cpu = own_device().type == "cpu"  # else there is PyTorch alone
            accepted = load_exports(bundle, Tagger(bundle, "no", "torch").spec).accepted if on_cpu else {}
            for backend in ("torch", *accepted) if who == "bundle" and not options.quick else list(accepted) or ["torch"]:
                row = tagging_rate(bundle, folder / "distinct.parquet", backend)
                fastest[who] = max(row, fastest.get(who, row), key=lambda each: each["texts"])
                print(line(f"{who}, {backend}", row["texts"], base, row))
        row = tagging_rate(options.bundle, folder / "stream.parquet", fastest["bundle"]["backend"])
        print(line("bundle, stream of events (Zipf), events/s", row["rows"], base, row))
        reference = macro_f1(Tagger(options.bundle, "no", "torch"))
        f1 = {who: macro_f1(Tagger(bundle, backend=fastest[who]["backend"])) for who, bundle in models.items()}
        print(
            f"\nmacro-F1 on {LABELLED}: checkpoint {reference:.4f}, "
            + ", ".join(f"{who} {fastest[who]['backend']} {each:.4f}" for who, each in f1.items())
        )
        if options.profile is not None:
            rows = {f"{who}, {backend}": kernel_seconds(models[who], backend, distinct[:1_000]) for who in models for backend in ONNX_FILES}
            draw_profile(options.profile, rows, "seconds for 1,000 texts on one core")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if not options.quick:
            table = memory(options.bundle, folder, [100_000, 1_000_000, 10_000_000], stream)
            print(f"\n{'events':>12}{'seconds':>9}{'peak GiB':>10}")
            for each in table:
                print(f"{each['events']:12,}{each['seconds']:9.1f}{each['gib']:10.2f}")
            peak = table[-1]["gib"]
            result["events_seconds"] = {str(each["events"]): round(each["seconds"], 1) for each in table}
    result |= {
        "speedup_distinct": round(fastest["bundle"]["texts"] / base, 2),
        "speedup_student": round(fastest["student"]["texts"] / base, 2) if "student" in fastest else None,
        "speedup_stream": round(row["rows"] / base, 1),
        "macro_f1_loss_points": round(100 * (reference - f1["bundle"]), 2),
        "student_loss_points": round(100 * (reference - f1["student"]), 2) if "student" in f1 else None,
        "peak_rss_gib": round(peak, 2),
    }
    print(json.dumps(result))


def line(what: str, rate: float, base: float, row: dict[str, Any]) -> str:
    """A row of the table."""
    stages = ", ".join(f"{name} {share:.0%}" for name, share in sorted(row["stages"].items(), key=lambda each: -each[1]))
    return f"{what:44}{rate:9.0f}{rate / base:7.2f}{row['busy']:7.0%}  {stages}"


if __name__ == "__main__":
    main()
