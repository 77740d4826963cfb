"""python benchmarks/corpus.py: the honesty of the sample corpus, in figures.

Prints the share of distinct word 5-grams, near-duplicates within and across the splits, label and span counts, and the
macro-F1 of TF-IDF with logistic regression; the last line is one JSON object. Takes half a minute (`--quick` does the same).
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from datasketch import MinHashLSH
from rich.console import Console
from rich.table import Table

from penchant.config import load
from penchant.ingest.readers import rows
from penchant.training.baselines import baseline_scores
from penchant.training.evaluation import judge
from penchant.training.metrics import MultiLabel
from penchant.training.settings import TrainSettings
from penchant.training.splits import PERMUTATIONS, load_corpus, shingles, sketch

SPLITS = ("train", "validation", "test")
NEAR = 0.6


def read(settings: TrainSettings) -> list[dict[str, Any]]:
    """Rows of all splits, each with its `split`."""
    return [
        dict(row) | {"split": split}
        for split in SPLITS
        for path in getattr(settings, split)
        for _, row in rows(path)
        if isinstance(row, dict)
    ]


def distinct_share(texts: list[str], length: int = 5) -> float:
    """Distinct word n-grams over all word n-grams; n-grams don't run from one text into the next."""
    grams = Counter(
        tuple(words[n : n + length])
        for words in (re.findall(r"\w+", text.lower()) for text in texts)
        for n in range(len(words) - length + 1)
    )
    return len(grams) / sum(grams.values())


def near_duplicates(texts: list[str]) -> list[tuple[int, int]]:
    """Pairs whose sets of character 5-grams have a Jaccard similarity of at least 0.6: found by MinHash, checked exactly."""
    found: list[tuple[int, int]] = []
    grams = [shingles(text) for text in texts]
    index = MinHashLSH(threshold=NEAR - 0.25, num_perm=PERMUTATIONS)
    for n, own in enumerate(grams):
        drawn = sketch(own)
        found += [(other, n) for other in index.query(drawn) if len(own & grams[other]) >= NEAR * len(own | grams[other])]
        index.insert(n, drawn)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/train-interests.yaml"), help="names the corpus's files")
    parser.add_argument("--quick", action="store_true", help="the same: this benchmark is quick")
    settings = load(TrainSettings, parser.parse_args().config)
    texts = read(settings)
    console = Console(width=110)
    kinds = Table("split", "texts", "titles", "reviews", "posts", "2+ interests", "none", "with spans", title="texts")
    for split in (*SPLITS, "all"):
        chosen = [each for each in texts if split in (each["split"], "all")]
        count = [sum(each["kind"] == kind for each in chosen) for kind in ("title", "review", "post")]
        count += [sum(len(each["interests"]) > 1 for each in chosen), sum(not each["interests"] for each in chosen)]
        kinds.add_row(split, f"{len(chosen):,}", *(f"{each:,}" for each in (*count, sum(bool(each["spans"]) for each in chosen))))
    console.print(kinds)
    labels = Counter(label for each in texts for label in each["interests"])
    spans = Counter(span["dimension"] for each in texts for span in each["spans"])
    console.print("texts per interest:", ", ".join(f"{label} {count}" for label, count in labels.most_common()))
    console.print("spans:", ", ".join(f"{dimension} {count}" for dimension, count in spans.most_common()))
    pairs = near_duplicates([each["text"] for each in texts])
    across = [(one, other) for one, other in pairs if texts[one]["split"] != texts[other]["split"]]
    for one, other in pairs:
        console.print(f"near-duplicates: {texts[one]['id']} ({texts[one]['split']}) and {texts[other]['id']} ({texts[other]['split']})")
    corpus = load_corpus(settings)
    judged = judge(*baseline_scores("logistic_regression", corpus, settings.model, settings.max_length), corpus.validation, settings)
    result = MultiLabel().compute(
        predictions=judged.tagged.astype(int), references=corpus.test.targets.astype(int), scores=judged.score, labels=corpus.labels
    )
    share = len({n for pair in pairs for n in pair}) / len(texts)
    figures = {
        "texts": len(texts),
        "distinct_5gram_share": round(distinct_share([each["text"] for each in texts]), 4),
        "near_duplicate_share": round(share, 4),
        "near_duplicates_across_splits": len(across),
        "baseline_macro_f1": round(result["macro"]["f1"], 4),
    }
    table = Table("figure", "value", "should be", title="honesty")
    wanted = {
        "texts": "≥ 2,400",
        "distinct_5gram_share": "≥ 0.95",
        "near_duplicate_share": "< 0.005",
        "near_duplicates_across_splits": "0",
        "baseline_macro_f1": "≤ 0.80",
    }
    for name, value in figures.items():
        table.add_row(name, f"{value:,}", wanted[name])
    console.print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
