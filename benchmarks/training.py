"""python benchmarks/training.py [--config configs/train-reddit.yaml]: a run's figures beside its baselines.

Trains into a temporary folder, then tags the test texts with `penchant tag` and computes F1 once more from the tags it
wrote: macro over the interests, micro over the spans. The last line is one JSON object. `--quick` trains one epoch on 200
rows, to show that the way is open; its figures say nothing about quality.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe
from rich.console import Console
from rich.table import Table

from penchant.config import load
from penchant.ingest.clean import text_key
from penchant.training.data import Corpus
from penchant.training.metrics import MultiLabel
from penchant.training.settings import TrainSettings
from penchant.training.splits import load_corpus

QUICK = ("epochs=1", "max_train_rows=200", "max_length=24", "stride=4", "probe_epochs=2", "baselines=[logistic_regression]")


def penchant(*arguments: str) -> None:
    """Run a command of the installed program, its lines on stderr."""
    subprocess.run([sys.executable, "-m", "penchant", *arguments], check=True, stdout=sys.stderr)


def tagged_f1(settings: TrainSettings, folder: Path) -> dict[str, float]:
    """F1 of what `penchant tag` writes for the test texts: `interests` (macro), `spans` (micro)."""
    corpus = load_corpus(settings)
    texts, tags_file = folder / "texts.parquet", folder / "tags.parquet"
    pq.write_table(pa.table({"text": corpus.test.texts}), texts)
    penchant("tag", str(texts), "--bundle", str(folder / "run" / "bundle"), "-o", str(tags_file))
    tags: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(tags_file).to_pylist():
        tags.setdefault(row["text_key"], []).append(row)
    found = [tags.get(text_key(text), []) for text in corpus.test.texts]
    result = {"interests": interests_f1(corpus, found)} if corpus.labels else {}
    return result | ({"spans": spans_f1(corpus, found)} if corpus.dimensions else {})


def interests_f1(corpus: Corpus, found: list[list[dict[str, Any]]]) -> float:
    """Macro-F1 of interest tags."""
    values = [{row["value"] for row in each if row["dimension"] == "interest"} for each in found]
    predicted = np.array([[label in each for label in corpus.labels] for each in values], int)
    true = corpus.test.targets.astype(int)
    result: dict[str, Any] = MultiLabel().compute(predictions=predicted, references=true, labels=list(corpus.labels))
    return float(result["macro"]["f1"])


def spans_f1(corpus: Corpus, found: list[list[dict[str, Any]]]) -> float:
    """Micro-F1 of span tags, exact matches."""
    hits = predicted = true = 0
    for each, spans in zip(found, corpus.test.spans, strict=True):
        own = {(row["start"], row["end"], row["dimension"]) for row in each if row["start"] is not None}
        hits, predicted, true = hits + len(own & {span[:3] for span in spans}), predicted + len(own), true + len(spans)
    return 2 * hits / max(predicted + true, 1)


def interests_table(report: dict[str, Any], title: str) -> Table:
    """The models side by side."""
    table = Table("model", "macro F1", "micro F1", "F1 of no interest", "macro average precision", title=title)
    for model, parts in report["results"].items():
        whole = parts["all"]
        shown = (whole["macro"]["f1"], whole["micro"]["f1"], whole["none"]["f1"], whole["macro_average_precision"])
        table.add_row(model, *(f"{each:.3f}" for each in shown))
    return table


def spans_table(spans: dict[str, Any], title: str) -> Table:
    """Dimensions and averages."""
    table = Table("spans", "precision", "recall", "F1", "true spans", title=title)
    for name, row in [*spans["decoded"]["per_type"].items(), *((each, spans["decoded"][each]) for each in ("micro", "macro"))]:
        table.add_row(name, f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", str(row["support"]))
    for mode, result in spans["raw"].items():
        row = result["micro"]
        table.add_row(f"micro, likeliest class, {mode}", f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", "")
    return table


def main() -> None:
    """Train, tag, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/train-interests.yaml"))
    parser.add_argument("--quick", action="store_true", help="one epoch on 200 rows")
    arguments = parser.parse_args()
    overrides = QUICK if arguments.quick else ()
    console = Console(width=110)
    console.print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changed = [part for each in (*overrides, f"output={folder / 'run'}") for part in ("--set", each)]
        penchant("train", "--config", str(arguments.config), *changed)
        report = json.loads((folder / "run" / "report" / "report.json").read_text(encoding="utf-8"))
        tagged = tagged_f1(load(TrainSettings, arguments.config, overrides), folder)
    figures: dict[str, Any] = {}
    if "results" in report:
        console.print(interests_table(report, str(arguments.config)))
        for model, parts in report["results"].items():
            whole = parts["all"]
            figures |= {f"{model}_{each}_f1": round(whole[each]["f1"], 4) for each in ("macro", "micro")}
            # with one label per text, micro-F1 of one tag per text is the accuracy
        figures["none_f1"] = round(report["results"]["bert"]["all"]["none"]["f1"], 4)
        console.print(f"macro F1 from the tags that penchant tag wrote: {tagged['interests']:.4f}")
    if "spans" in report:
        console.print(spans_table(report["spans"], str(arguments.config)))
        low, high = report["spans"]["intervals"]["micro"]
        figures |= {"span_f1": round(report["spans"]["decoded"]["micro"]["f1"], 4), "span_f1_interval": [round(low, 4), round(high, 4)]}
        console.print(f"micro F1 from the tags that penchant tag wrote: {tagged['spans']:.4f}")
    figures |= {f"tagged_{kind}_f1": round(value, 4) for kind, value in tagged.items()}
    print(json.dumps(figures | {"seconds": round(report["seconds"], 1), "quick": arguments.quick}))


if __name__ == "__main__":
    main()
