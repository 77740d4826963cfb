"""Splits as the loop takes them: read in windows, batched by length; and what a model makes of one."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Sampler

from penchant.progress import Advance
from penchant.tagging.bundle import Floats
from penchant.tagging.encoder import Reader, Window
from penchant.tagging.spans import Span, Unit, classes, taught, units
from penchant.training.data import Labelled

IGNORED = -100
"""Class of a piece that no loss is computed on: all but the first of a unit, and fragments that teach nothing."""


EVALUATION_BATCH = 64


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


@dataclass(frozen=True)
class Evaluation:
    """A split to predict on: its windows, and batches of them shared out over the processes."""

    prepared: Prepared
    loader: Any


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
        by_piece = [pieces_taught(*each, dimensions) for each in zip(split.texts, split.spans, parts, strict=True)]
        columns["classes"] = [piece_classes(each, by_piece[each.text], reader) for each in windows]
    return Prepared(datasets.Dataset.from_dict(columns), windows, parts)


def pieces_taught(text: str, spans: Sequence[Span], parts: Sequence[Unit], dimensions: Sequence[str]) -> dict[int, int]:
    """The class of each piece of a text that one is learned from."""
    chosen = classes(spans, parts, dimensions)
    return {unit.piece: chosen[n] for n, (unit, counts) in enumerate(zip(parts, taught(text, parts, chosen), strict=True)) if counts}


def piece_classes(window: Window, by_piece: Mapping[int, int], reader: Reader) -> list[int]:
    """The class of each piece of a window, `IGNORED` for special ones and those no class is learned from."""
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


def unheard(count: int) -> None:
    """Progress nobody asked for."""


def evaluation(accelerator: Accelerator, reader: Reader, split: Labelled, dimensions: tuple[str, ...]) -> Evaluation:
    """A split in batches, longest windows first, shared out over the processes."""
    prepared = prepare(split, reader, dimensions)
    rows = prepared.rows.select(longest_first([len(each.input_ids) for each in prepared.windows]))
    loader = DataLoader(
        rows,
        batch_size=EVALUATION_BATCH * accelerator.num_processes,
        collate_fn=Collate(reader.tokenizer.pad_token_id),
        generator=torch.Generator(),
    )
    return Evaluation(prepared, accelerator.prepare(loader))


def predict(
    accelerator: Accelerator, model: Any, split: Evaluation, reader: Reader, labels: int, advance: Advance = unheard
) -> tuple[Floats, list[Floats]]:
    """Logits of a split's texts and of their units, on every process, in the split's order; `advance` is told of every batch's windows.

    Rows that fill up the last batch so that every process has one are not counted.
    *Shape:* (texts, labels), and per text (units, classes).
    """
    model.eval()
    interests: Floats = np.empty((len(split.prepared.units), labels))
    pieces: list[Any] = [None] * len(split.prepared.windows)
    with torch.no_grad(), accelerator.autocast():  # inference tensors would break training in shards
        for batch in split.loader:
            of_texts, of_pieces = model(**inputs(batch))
            index = accelerator.gather_for_metrics(batch["index"]).tolist()
            windows = [split.prepared.windows[n] for n in index]
            if of_texts is not None:
                for window, row in zip(windows, accelerator.gather_for_metrics(of_texts.contiguous()).double().cpu().numpy(), strict=True):
                    if window.first == 0:
                        interests[window.text] = row
            if of_pieces is not None:
                padded = accelerator.pad_across_processes(of_pieces, dim=1)
                for n, window, row in zip(index, windows, accelerator.gather_for_metrics(padded).double().cpu().numpy(), strict=True):
                    pieces[n] = row[: len(window.input_ids)]
            advance(len(index))
    return interests, unit_logits(split.prepared, pieces, reader) if reader.stride is not None else []
