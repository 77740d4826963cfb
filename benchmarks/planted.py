"""python benchmarks/planted.py: how well profiles tell the planted interests, also from texts the tagger never saw.

Reads what `make demo` left in `out/`. The sample events draw from the whole corpus, most of which the tagger was trained
on, so the same is measured once more on the events whose texts aren't in the training split. The last line is one JSON
object; `--quick` does the same.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from penchant.config import load
from penchant.ingest.clean import text_key
from penchant.profiles.evaluate import evaluate
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build
from penchant.training.settings import TrainSettings
from penchant.training.splits import load_corpus

EVENTS, TAGS = Path("out/events/events.parquet"), Path("out/tags.parquet")
TRUTH = Path("data/events/truth.jsonl")


def measured(events: pa.Table, folder: Path) -> dict[str, Any]:
    """Precision@3 and recall@3 of profiles built from these events alone."""
    path = folder / "events.parquet"
    pq.write_table(events, path)
    build(path, TAGS, Policy(), folder / "profiles")
    return evaluate(folder / "profiles", TRUTH)


def main() -> None:
    """Measure twice and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/train-interests.yaml"), help="names the training texts")
    parser.add_argument("--quick", action="store_true", help="the same: this benchmark is quick")
    corpus = load_corpus(load(TrainSettings, parser.parse_args().config))
    seen = pa.array({text_key(text) for text in corpus.train.texts})
    events = pq.read_table(EVENTS)
    unseen = events.filter(pc.invert(pc.is_in(events["text_key"], seen)))
    table = Table("events", "of them", "a user", "precision@3", "recall@3", title="planted interests")
    figures: dict[str, float] = {}
    for name, chosen in (("all", events), ("unseen", unseen)):
        with tempfile.TemporaryDirectory() as folder:
            result = measured(chosen, Path(folder))
        table.add_row(
            {"all": "all", "unseen": "on texts outside the training split"}[name],
            f"{chosen.num_rows:,}",
            f"{chosen.num_rows / result['users']:.0f}",
            f"{result['precision_at_3']:.3f}",
            f"{result['recall_at_3']:.3f}",
        )
        figures |= {f"precision_at_3_{name}": round(result["precision_at_3"], 4), f"recall_at_3_{name}": round(result["recall_at_3"], 4)}
    Console(width=110).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
