"""Labelled texts: read, checked as a whole before anything is trained, tokenised, batched by length."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Sampler

from penchant import taxonomy as taxonomies
from penchant.config import suggestion
from penchant.errors import DataError, problems
from penchant.ingest.clean import clean, document, mask
from penchant.ingest.convert import as_labels
from penchant.ingest.readers import BadRow, rows
from penchant.taxonomy import Taxonomy
from penchant.training.settings import Columns, TrainSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """One split.

    `targets` *Shape:* (texts, labels), 0 or 1.
    """

    texts: list[str]
    kinds: list[str]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: Sequence[int]) -> "Labelled":
        """The rows at these positions, in this order."""
        return Labelled([self.texts[n] for n in chosen], [self.kinds[n] for n in chosen], self.targets[list(chosen)])


@dataclass(frozen=True)
class Corpus:
    """Everything a run learns from and is measured on."""

    taxonomy: Taxonomy
    labels: tuple[str, ...]
    train: Labelled
    validation: Labelled
    test: Labelled


def load_corpus(settings: TrainSettings) -> Corpus:
    """Read and check all splits. Raises `DataError` that lists the mistakes of all files at once."""
    paths = {name: path for name in ("train", "validation", "test") if (path := getattr(settings, name)) is not None}
    raw: dict[str, list[RawRow]] = {}
    mistakes: list[str] = []
    for name, path in paths.items():
        raw[name], found = read_labelled(path, settings.columns)
        mistakes += found
    taxonomy = taxonomy_for(settings, raw["train"])
    labels = settings.labels or taxonomy.leaves
    for label in labels:
        taxonomy.get(label, "labels")
    for name, path in paths.items():
        mistakes += wrong_labels(path, raw[name], labels)
    used = {label for row in raw["train"] for label in row[2]}
    if raw["train"]:
        mistakes += [
            f"{settings.train}: no row is labelled {label!r}; add some, or name the interests to train in 'labels'"
            for label in labels
            if label not in used
        ]
    if mistakes:
        raise DataError(problems("training data", mistakes))
    return split_up(settings, taxonomy, tuple(labels), {name: encode(found, labels) for name, found in raw.items()})


def taxonomy_for(settings: TrainSettings, rows_of_training: "list[RawRow]") -> Taxonomy:
    """The taxonomy of the settings, or a flat one over the labels found."""
    if settings.taxonomy is not None:
        return taxonomies.load(settings.taxonomy)
    found = sorted({label for row in rows_of_training for label in row[2]})
    if not found:
        raise DataError(f"{settings.train}: no row has a label in column {settings.columns.labels!r}, and no taxonomy is given")
    return taxonomies.from_labels(found, name=settings.train.stem)


def wrong_labels(path: Path, found: "list[RawRow]", labels: Sequence[str]) -> list[str]:
    """What is wrong with a split's labels, and with having no rows."""
    if not found:
        return [f"{path}: no rows with a text"]
    return [
        f"{path}:{place}: unknown interest {label!r}{suggestion(label, labels)}"
        for place, _, row_labels, _ in found
        for label in row_labels
        if label not in labels
    ]


def split_up(settings: TrainSettings, taxonomy: Taxonomy, labels: tuple[str, ...], splits: dict[str, Labelled]) -> Corpus:
    """Sample the training rows and set validation rows aside, as the settings say."""
    train, chooser = splits["train"], random.Random(settings.seed)
    if settings.max_train_rows is not None and settings.max_train_rows < len(train):
        train = train.take(chooser.sample(range(len(train)), settings.max_train_rows))
    if "validation" not in splits:
        order = chooser.sample(range(len(train)), len(train))
        held_out = max(1, round(settings.validation_share * len(train)))
        splits["validation"], train = train.take(order[:held_out]), train.take(order[held_out:])
    if len(train) < settings.batch_size:
        raise DataError(f"{settings.train}: {len(train)} training rows are fewer than batch_size {settings.batch_size}")
    return Corpus(taxonomy, labels, train, splits["validation"], splits.get("test", splits["validation"]))


RawRow = tuple[int, str, list[str], str]


def read_labelled(path: Path, columns: Columns) -> tuple[list[RawRow], list[str]]:
    """Rows as (place, cleaned text, labels, kind), and the mistakes found."""
    found: list[RawRow] = []
    mistakes: list[str] = []
    for place, row in rows(path):
        if isinstance(row, BadRow):
            mistakes.append(f"{path}:{place}: {row.reason}")
            continue
        needed = [columns.text[0], columns.labels]
        missing = [name for name in needed if name not in row]
        if missing:
            mistakes.append(f"{path}:{place}: no column {missing[0]!r}; it has {', '.join(map(repr, row))}")
            if not found:
                break
            continue
        parts = [mask(clean(str(row[name]))) for name in columns.text if row.get(name)]
        text = document(parts[0], "\n".join(parts[1:])) if parts else ""
        labels = as_labels(row[columns.labels])
        if not text:
            mistakes.append(f"{path}:{place}: empty text")
        elif labels is None:
            mistakes.append(f"{path}:{place}: {columns.labels} is {row[columns.labels]!r}, expected a list of ids")
        else:
            found.append((place, text, labels, str(row.get(columns.kind) or "text") if columns.kind else "text"))
    return found, mistakes


def encode(raw: list[RawRow], labels: Sequence[str]) -> Labelled:
    """Raw rows as texts, kinds and a 0/1 matrix."""
    position = {label: n for n, label in enumerate(labels)}
    targets = np.zeros((len(raw), len(labels)), np.float32)
    for n, (_, _, row_labels, _) in enumerate(raw):
        for label in row_labels:
            targets[n, position[label]] = 1
    return Labelled([row[1] for row in raw], [row[3] for row in raw], targets)


def tokenised(split: Labelled, tokenizer: Any, max_length: int) -> datasets.Dataset:
    """A `datasets.Dataset` with `input_ids`, `attention_mask`, `labels`, and `index`: the row's place in the split."""
    table = datasets.Dataset.from_dict({"text": split.texts, "labels": split.targets.tolist(), "index": list(range(len(split)))})
    return table.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length, return_token_type_ids=False),
        batched=True,
        remove_columns=["text"],
        keep_in_memory=True,
    )


class LengthGrouped(Sampler):
    """Batches of texts of like length, in an order drawn anew for each epoch from (seed, epoch) and nothing else.

    Rows are shuffled, cut into stretches of 20 batches, sorted by length within a stretch, and the batches shuffled. The
    few rows left over at the end of an epoch wait for the next draw, so that every optimiser step has its full
    `accumulation` batches and every batch falls into equal parts over processes.
    """

    drop_last = True  # what accelerate reads to know that no batch is short

    def __init__(self, lengths: Sequence[int], batch_size: int, accumulation: int, seed: int) -> None:
        self.lengths, self.batch_size, self.accumulation, self.seed, self.epoch = lengths, batch_size, accumulation, seed, 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.lengths) // (self.batch_size * self.accumulation) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self.seed}/{self.epoch}")
        order = draw.sample(range(len(self.lengths)), len(self) * self.batch_size)
        stretch = 20 * self.batch_size
        grouped = [
            n for start in range(0, len(order), stretch) for n in sorted(order[start : start + stretch], key=lambda n: self.lengths[n])
        ]
        batches = [grouped[start : start + self.batch_size] for start in range(0, len(grouped), self.batch_size)]
        draw.shuffle(batches)
        yield from batches


class Collate:
    """Pads a list of rows to their longest.

    *Shape:* input_ids, attention_mask (batch, tokens); labels (batch, labels); index (batch,).
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of `tokenised` as one batch of tensors."""
        padded = self.tokenizer.pad([{key: row[key] for key in ("input_ids", "attention_mask")} for row in batch], return_tensors="pt")
        return {
            "input_ids": padded["input_ids"],
            "attention_mask": padded["attention_mask"],
            "labels": torch.tensor([row["labels"] for row in batch]),
            "index": torch.tensor([row["index"] for row in batch]),
        }
