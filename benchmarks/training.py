"""python benchmarks/training.py [--config configs/train-reddit.yaml]: the fine-tuned BERT beside its baselines.

Trains into a temporary folder, then tags the test texts with `penchant tag` and computes the macro-F1 once more from the
tags it wrote. The last line is one JSON object. `--quick` trains one epoch on 200 rows, to show that the way is open; its
figures say nothing about quality.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import describe
from rich.console import Console
from rich.table import Table

from penchant.config import load
from penchant.ingest.clean import text_key
from penchant.training.data import load_corpus
from penchant.training.metrics import MultiLabel
from penchant.training.settings import TrainSettings

QUICK = ("epochs=1", "max_train_rows=200", "max_length=24")


def penchant(*arguments: str) -> None:
    """Run a command of the installed program, its lines on stderr."""
    subprocess.run([sys.executable, "-m", "penchant", *arguments], check=True, stdout=sys.stderr)


def tagged_macro_f1(settings: TrainSettings, folder: Path) -> float:
    """Macro-F1 of what `penchant tag` writes for the test file."""
    assert settings.test is not None
    tags_file = folder / "tags.parquet"
    penchant("tag", str(settings.test), "--bundle", str(folder / "run" / "bundle"), "-o", str(tags_file))
    corpus = load_corpus(settings)
    tags: dict[str, set[str]] = {}
    for row in pq.read_table(tags_file, columns=["text_key", "value"]).to_pylist():
        tags.setdefault(row["text_key"], set()).add(row["value"])
    predicted = np.array([[label in tags.get(text_key(text), ()) for label in corpus.labels] for text in corpus.test.texts], int)
    result: dict[str, Any] = MultiLabel().compute(
        predictions=predicted, references=corpus.test.targets.astype(int), labels=list(corpus.labels)
    )
    return float(result["macro"]["f1"])


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
        tagged = tagged_macro_f1(load(TrainSettings, arguments.config, overrides), folder)
    table = Table("model", "macro F1", "micro F1", "F1 of no interest", "macro average precision", title=str(arguments.config))
    for model, parts in report["results"].items():
        whole = parts["all"]
        table.add_row(
            model,
            *(
                f"{each:.3f}"
                for each in (whole["macro"]["f1"], whole["micro"]["f1"], whole["none"]["f1"], whole["macro_average_precision"])
            ),
        )
    console.print(table)
    console.print(f"macro F1 from the tags that penchant tag wrote: {tagged:.4f}")
    results = {model: parts["all"] for model, parts in report["results"].items()}
    print(
        json.dumps(
            {
                "bert_macro_f1": round(results["bert"]["macro"]["f1"], 4),
                "baseline_macro_f1": round(results["tfidf"]["macro"]["f1"], 4),
                "zero_shot_macro_f1": round(results["zero_shot"]["macro"]["f1"], 4),
                "none_f1": round(results["bert"]["none"]["f1"], 4),
                "tagged_macro_f1": round(tagged, 4),
                "seconds": round(report["seconds"], 1),
                "quick": arguments.quick,
            }
        )
    )


if __name__ == "__main__":
    main()
