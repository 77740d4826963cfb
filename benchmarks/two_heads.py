"""python benchmarks/two_heads.py: one model for interests and spans beside two models, on the sample's test texts.

Takes the bundles in runs/interests, runs/spans and runs/both, trained by the configs of those names, and trains what is
missing. Times both ways of tagging in turns, five times, and prints the median rate of each and both F1 scores; the last
line is one JSON object. `--quick` takes bundles that are there already, and times each way once.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from machine import describe
from rich.console import Console
from rich.table import Table
from training import penchant

from penchant.config import load
from penchant.tagging.tagger import Tagger
from penchant.training.settings import TrainSettings
from penchant.training.splits import load_corpus

TASKS = ("interests", "spans", "both")
ROUNDS = 5


def bundles(quick: bool) -> dict[str, Path]:
    """The folder of each run; trains it where it isn't there, or ends with a word where that would not be quick."""
    found = {}
    for task in TASKS:
        config = Path(f"configs/train-{task}.yaml")
        found[task] = load(TrainSettings, config).output
        if (found[task] / "bundle" / "tagger.json").exists():
            continue
        if quick:
            raise SystemExit(f"{found[task] / 'bundle'}: not there; train it first: penchant train --config {config}")
        penchant("train", "--config", str(config))
    return found


def rate(taggers: list[Tagger], texts: list[str]) -> float:
    """Texts per second through all of these."""
    keys, start = [str(n) for n in range(len(texts))], time.perf_counter()
    for tagger in taggers:
        tagger.tag(keys, texts)
    return len(texts) / (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, with bundles that are there already")
    quick = parser.parse_args().quick
    console = Console(width=110)
    console.print(describe())
    runs = bundles(quick)
    reports: dict[str, Any] = {task: json.loads((run / "report" / "report.json").read_text(encoding="utf-8")) for task, run in runs.items()}
    taggers = {"interests": Tagger(runs["interests"] / "bundle", backend="torch")}
    taggers |= {task: Tagger(runs[task] / "bundle", taggers["interests"].backend.precision, "torch") for task in TASKS[1:]}
    texts = load_corpus(load(TrainSettings, Path("configs/train-both.yaml"))).test.texts
    ways = {"two models": [taggers["interests"], taggers["spans"]], "one model, two heads": [taggers["both"]]}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 if quick else ROUNDS):
        for way, chosen in ways.items():
            rates[way].append(rate(chosen, texts))
    table = Table("way", "macro F1 of interests", "micro F1 of spans", "texts/s, median (least–most)", title=f"{len(texts)} test texts")
    figures: dict[str, Any] = {}
    for way, (interests, spans) in {"two models": ("interests", "spans"), "one model, two heads": ("both", "both")}.items():
        scores = reports[interests]["results"]["bert"]["all"]["macro"]["f1"], reports[spans]["spans"]["decoded"]["micro"]["f1"]
        median = statistics.median(rates[way])
        table.add_row(way, f"{scores[0]:.3f}", f"{scores[1]:.3f}", f"{median:.0f} ({min(rates[way]):.0f}–{max(rates[way]):.0f})")
        short = way.split(maxsplit=1)[0]
        figures |= {
            f"{short}_macro_f1": round(scores[0], 4),
            f"{short}_span_f1": round(scores[1], 4),
            f"{short}_texts_per_second": round(median, 1),
        }
    console.print(table)
    figures["speedup"] = round(
        statistics.median(one / two for one, two in zip(rates["one model, two heads"], rates["two models"], strict=True)), 2
    )
    print(json.dumps(figures | {"quick": quick}))


if __name__ == "__main__":
    main()
