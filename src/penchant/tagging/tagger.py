"""Runs a bundle over texts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from penchant.errors import DataError
from penchant.records import TAGS
from penchant.tagging.bundle import Floats, TaggerSpec, decide, load_spec, scores
from penchant.tagging.precision import measured_precision

BATCH_TOKENS = 4096
"""Word pieces of a batch, padding included: keeps long and short batches equally heavy."""


def ignore(count: int) -> None:
    """Progress nobody asked for."""


class Tagger:
    """A loaded bundle. `tag` is a pure function of the texts: equal texts give equal tags, whatever they are batched with, up to rounding."""

    def __init__(self, bundle: Path, precision: str = "auto") -> None:
        self.spec: TaggerSpec = load_spec(bundle)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision, self.why = measured_precision(self.device) if precision == "auto" else (precision, f"{precision} as asked")
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(bundle, local_files_only=True)
            self.model = AutoModelForSequenceClassification.from_pretrained(bundle, local_files_only=True, dtype=torch.float32)
        except Exception as error:
            said = str(error).splitlines() or [""]
            raise DataError(f"{bundle}: the checkpoint can't be loaded: {type(error).__name__}: {said[0]}") from error
        if self.model.config.num_labels != len(self.spec.labels):
            raise DataError(
                f"{bundle}: the checkpoint has {self.model.config.num_labels} outputs, tagger.json {len(self.spec.labels)} labels"
            )
        self.model.to(self.device).eval()

    def score(self, texts: Sequence[str], advance: Callable[[int], None] = ignore) -> Floats:
        """Calibrated scores of cleaned texts; `advance` is told of every batch done.

        *Shape:* result (texts, labels), 0 to 1.
        """
        logits = np.empty((len(texts), len(self.spec.labels)))
        if not texts:
            return logits
        pieces = self.tokenizer(list(texts), truncation=True, max_length=self.spec.max_length, return_token_type_ids=False)["input_ids"]
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            for chosen in length_batches([len(each) for each in pieces]):
                batch = self.tokenizer.pad({"input_ids": [pieces[n] for n in chosen]}, return_tensors="pt").to(self.device)
                logits[chosen] = self.model(**batch).logits.float().cpu().numpy()
                advance(len(chosen))
        return scores(logits, self.spec.temperature)

    def tag(self, keys: Sequence[str], texts: Sequence[str], advance: Callable[[int], None] = ignore) -> pa.Table:
        """Tags of cleaned texts, in the order of the texts and, within one, of falling score; schema `records.TAGS`."""
        score = self.score(texts, advance)
        chosen = decide(score, np.asarray(self.spec.thresholds), self.spec.min_tags, self.spec.max_tags)
        row, label = np.nonzero(chosen)
        order = np.lexsort((-score[row, label], row))
        row, label = row[order], label[order]
        empty = pa.nulls(len(row), pa.int32())
        columns = [
            pa.array([keys[int(n)] for n in row], pa.string()),
            pa.array([self.spec.dimension] * len(row), pa.string()),
            pa.array([self.spec.labels[int(n)] for n in label], pa.string()),
            pa.array(score[row, label], pa.float64()),
            empty,
            empty,
        ]
        return pa.Table.from_arrays(columns, schema=TAGS)


def length_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Positions in batches of like length, longest first, each of at most `BATCH_TOKENS` padded word pieces."""
    batches: list[list[int]] = []
    longest = 0
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if not batches or (len(batches[-1]) + 1) * longest > BATCH_TOKENS:
            batches.append([])
            longest = lengths[n]
        batches[-1].append(n)
    return batches
