"""Runs a bundle over texts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoTokenizer

from penchant.errors import DataError
from penchant.records import TAGS
from penchant.tagging.bundle import Floats, SpanSpec, TaggerSpec, decide, load_spec, scores, softmax
from penchant.tagging.encoder import Reader, Window, load_model
from penchant.tagging.precision import measured_precision
from penchant.tagging.spans import Span, decode, normal_form, recalibrated, units

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
            tokenizer = AutoTokenizer.from_pretrained(bundle, local_files_only=True)
            self.model = load_model(bundle, self.spec.task)
        except Exception as error:
            said = str(error).splitlines() or [""]
            raise DataError(f"{bundle}: the checkpoint can't be loaded: {type(error).__name__}: {said[0]}") from error
        wanted = len(self.spec.labels) if self.spec.task != "spans" else classes_of(self.spec.spans)
        if self.model.stock.config.num_labels != wanted:
            raise DataError(f"{bundle}: the checkpoint has {self.model.stock.config.num_labels} outputs, tagger.json {wanted} labels")
        head = self.model.span_head
        if head is not None and head.out_features != classes_of(self.spec.spans):
            raise DataError(f"{bundle}: the span head has {head.out_features} outputs, tagger.json {classes_of(self.spec.spans)} classes")
        self.reader = reader_of(self.spec, tokenizer)
        self.model.to(self.device).eval()

    def score(self, texts: Sequence[str], advance: Callable[[int], None] = ignore) -> tuple[Floats, list[list[Span]]]:
        """Calibrated scores of the interests and the spans of cleaned texts; `advance` is told of every batch done.

        *Shape:* first result (texts, labels), 0 to 1.
        """
        windows, offsets = self.reader.read(texts)
        logits = np.empty((len(texts), len(self.spec.labels)))
        rows: list[Any] = [None] * len(windows)
        for chosen, interests, pieces in self.run(windows, advance):
            for place, n in enumerate(chosen):
                if interests is not None and windows[n].first == 0:
                    logits[windows[n].text] = interests[place]
                if pieces is not None:
                    rows[n] = pieces[place, : len(windows[n].input_ids)]
        score = scores(logits, self.spec.temperature, self.spec.curves)
        if self.spec.spans is None:
            return score, [[] for _ in texts]
        merged = self.reader.merge(windows, rows, len(texts))
        return score, [read_spans(text, each, own, self.spec.spans) for text, each, own in zip(texts, merged, offsets, strict=True)]

    def run(self, windows: list[Window], advance: Callable[[int], None]) -> Iterator[tuple[list[int], Floats | None, Floats | None]]:
        """Batches of windows as their places, the logits of their interests and of their pieces."""
        pad = self.reader.tokenizer.pad
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            for chosen in length_batches([len(each.input_ids) for each in windows]):
                batch = pad({"input_ids": [windows[n].input_ids for n in chosen]}, return_tensors="pt")
                if self.reader.mark_capitals:
                    batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
                    for place, n in enumerate(chosen):
                        batch["token_type_ids"][place, : len(windows[n].input_ids)] = torch.tensor(windows[n].token_type_ids)
                outputs = self.model(**batch.to(self.device))
                interests, pieces = (each.double().cpu().numpy() if each is not None else None for each in outputs)
                yield chosen, interests, pieces
                advance(sum(windows[n].first == 0 for n in chosen))

    def tag(self, keys: Sequence[str], texts: Sequence[str], advance: Callable[[int], None] = ignore) -> pa.Table:
        """Tags of cleaned texts, in the order of the texts and, within one, interests by falling score, then spans by place; schema `records.TAGS`."""
        score, spans = self.score(texts, advance)
        chosen = decide(score, np.asarray(self.spec.thresholds), self.spec.min_tags, self.spec.max_tags)
        found: list[tuple[str, str, str, float, int | None, int | None]] = []
        for n, (key, text) in enumerate(zip(keys, texts, strict=True)):
            labels = np.flatnonzero(chosen[n])
            ranked = labels[np.argsort(-score[n, labels], kind="stable")]
            found += [(key, self.spec.dimension, self.spec.labels[label], float(score[n, label]), None, None) for label in ranked]
            found += [
                (key, each.dimension, normal_form(text[each.start : each.end]), each.score, each.start, each.end) for each in spans[n]
            ]
        columns = [[row[n] for row in found] for n in range(len(TAGS))]
        return pa.Table.from_arrays([pa.array(each, field.type) for each, field in zip(columns, TAGS, strict=True)], schema=TAGS)


def classes_of(spec: SpanSpec | None) -> int:
    """Outputs of the token classifier."""
    return 1 + 2 * len(spec.dimensions) if spec is not None else 0


def reader_of(spec: TaggerSpec, tokenizer: Any) -> Reader:
    """How a bundle's texts are read."""
    stride = spec.spans.stride if spec.spans is not None else None
    return Reader(tokenizer, spec.max_length, stride, spec.mark_capitals, spec.simplify_chinese)


def read_spans(text: str, logits: Floats, offsets: list[tuple[int, int]], spec: SpanSpec) -> list[Span]:
    """Spans of a text from its pieces' logits. *Shape:* logits (pieces, classes)."""
    parts = units(text, offsets)
    probability = softmax(logits[[each.piece for each in parts]], spec.temperature)
    return recalibrated(decode(text, probability, parts, spec.dimensions, spec.thresholds), spec.curve)


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
