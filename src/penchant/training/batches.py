"""Splits as the loop takes them: read in windows, batched by length."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Sampler

from penchant.tagging.bundle import Floats
from penchant.tagging.encoder import Reader, Window
from penchant.tagging.spans import Unit, classes, units
from penchant.training.data import Labelled

IGNORED = -100
"""Class of a piece that no loss is computed on: all but the first of a unit."""


@dataclass(frozen=True)
class Prepared:
    """A split in windows.

    `rows` has `input_ids`, `labels` (of the text), `counts` (1 for a text's first window, which its interests are read off, else 0),
    `index` (the window's place) and, where they are used, `token_type_ids` and `classes` (of each piece).
    """

    rows: datasets.Dataset
    windows: list[Window]
    units: list[list[Unit]]
    """Per text; empty where spans aren't learned."""


def prepare(split: Labelled, reader: Reader, dimensions: Sequence[str]) -> Prepared:
    """Read a split; `dimensions` are those of the spans to learn, if any."""
    windows, offsets = reader.read(split.texts)
    columns: dict[str, list[Any]] = {
        "input_ids": [each.input_ids for each in windows],
        "labels": [split.targets[each.text].tolist() for each in windows],
        "counts": [float(each.first == 0) for each in windows],
        "index": list(range(len(windows))),
    }
    if reader.mark_capitals:
        columns["token_type_ids"] = [each.token_type_ids for each in windows]
    parts = [units(text, each) for text, each in zip(split.texts, offsets, strict=True)] if dimensions else [[] for _ in split.texts]
    if dimensions:
        by_piece = [
            dict(zip((unit.piece for unit in own), classes(spans, own, dimensions), strict=True))
            for spans, own in zip(split.spans, parts, strict=True)
        ]
        columns["classes"] = [piece_classes(each, by_piece[each.text], reader) for each in windows]
    return Prepared(datasets.Dataset.from_dict(columns), windows, parts)


def piece_classes(window: Window, by_piece: Mapping[int, int], reader: Reader) -> list[int]:
    """The class of each piece of a window, `IGNORED` for special ones and all but the first of a unit."""
    own = range(window.first, window.first + reader.content(window.input_ids))
    classes_of_own = [by_piece.get(piece, IGNORED) for piece in own]
    after = len(window.input_ids) - reader.lead - len(classes_of_own)
    return [IGNORED] * reader.lead + classes_of_own + [IGNORED] * after


def unit_logits(prepared: Prepared, rows: Sequence[Floats], reader: Reader) -> list[Floats]:
    """Each text's outputs by unit from its windows' outputs by piece. *Shape:* a row (pieces, classes), a result (units, classes)."""
    merged = reader.merge(prepared.windows, rows, len(prepared.units))
    return [each[[unit.piece for unit in own]] for each, own in zip(merged, prepared.units, strict=True)]


class LengthGrouped(Sampler):
    """Batches of texts of like length, in an order drawn anew for each epoch from (seed, epoch) and nothing else.

    Rows are shuffled, cut into stretches of 20 optimiser steps, sorted by length within a stretch, and the steps shuffled;
    each is given out in its `accumulation` batches, so a step has the same rows whatever it is split into. The few rows
    left over at the end of an epoch wait for the next draw, so that every step is full and every batch falls into equal
    parts over processes.
    """

    drop_last = True  # what accelerate reads to know that no batch is short

    def __init__(self, lengths: Sequence[int], batch_size: int, accumulation: int, seed: int) -> None:
        self.lengths, self.batch_size, self.accumulation, self.seed, self.epoch = lengths, batch_size, accumulation, seed, 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.lengths) // (self.batch_size * self.accumulation) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        draw, size = random.Random(f"{self.seed}/{self.epoch}"), self.batch_size * self.accumulation
        order = draw.sample(range(len(self.lengths)), len(self) * self.batch_size)
        stretch = 20 * size
        grouped = [
            n for start in range(0, len(order), stretch) for n in sorted(order[start : start + stretch], key=lambda n: self.lengths[n])
        ]
        steps = [grouped[start : start + size] for start in range(0, len(grouped), size)]
        draw.shuffle(steps)
        yield from (step[start : start + self.batch_size] for step in steps for start in range(0, size, self.batch_size))


class Collate:
    """Pads a list of rows to their longest.

    *Shape:* input_ids, attention_mask, token_type_ids, classes (batch, pieces); labels (batch, labels); counts, index (batch,).
    """

    def __init__(self, pad_token_id: int) -> None:
        self.fill = {"input_ids": pad_token_id, "attention_mask": 0, "token_type_ids": 0, "classes": IGNORED}

    def __call__(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of `Prepared` as one batch of tensors."""
        longest = max(len(row["input_ids"]) for row in batch)
        rows = [row | {"attention_mask": [1] * len(row["input_ids"])} for row in batch]
        return {
            name: torch.tensor(
                [row[name] + [self.fill[name]] * (longest - len(row[name])) if name in self.fill else row[name] for row in rows]
            )
            for name in rows[0]
        }


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What of a batch the model takes."""
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Places by falling length, for batches without padding to speak of."""
    return [int(n) for n in np.argsort([-each for each in lengths], kind="stable")]
