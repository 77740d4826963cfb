"""Runs a bundle over texts."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from transformers import AutoTokenizer

from penchant.errors import DataError
from penchant.records import TAGS
from penchant.tagging.backends import Backend, Batch, Outputs
from penchant.tagging.bundle import Floats, SpanSpec, TaggerSpec, decide, load_spec, scores, softmax
from penchant.tagging.cache import Tag
from penchant.tagging.choice import pick
from penchant.tagging.encoder import Reader, Window
from penchant.tagging.readers import Readers
from penchant.tagging.spans import Span, decode, normal_form, recalibrated, units


class Prepared(NamedTuple):
    """Texts as the network reads them."""

    texts: Sequence[str]
    windows: list[Window]
    offsets: list[list[tuple[int, int]]]
    """Of the pieces of each text; empty where no spans are read."""
    batches: list[list[int]]
    """Places of windows of like length."""


def ignore(count: int) -> None:
    """Progress nobody asked for."""


class Tagger:
    """A loaded bundle. `tag` is a pure function of the texts: equal texts give equal tags, whatever they are batched with, up to rounding."""

    def __init__(self, bundle: Path, precision: str = "auto", backend: str = "auto") -> None:
        """`precision` is PyTorch's (`auto`, `no`, `bf16`); `backend` one of `backends.NAMES`, or `auto` for the fastest here."""
        self.spec: TaggerSpec = load_spec(bundle)
        try:
            tokenizer = AutoTokenizer.from_pretrained(bundle, local_files_only=True)
        except Exception as error:
            said = str(error).splitlines() or [""]
            raise DataError(f"{bundle}: the tokenizer can't be loaded: {type(error).__name__}: {said[0]}") from error
        self.reader = reader_of(self.spec, tokenizer)
        self.backend: Backend = pick(bundle, self.spec, len(tokenizer), backend, precision)
        self.readers: Readers | None = None

    @contextmanager
    def at_length(self) -> Iterator[None]:
        """Tokenise in as many processes as the backend is worth, in a long run."""
        if not self.backend.readers:
            yield
            return
        with Readers(self.reader, self.backend.readers) as readers:
            self.readers = readers
            try:
                yield
            finally:
                self.readers = None

    def prepare(self, texts: Sequence[str]) -> Prepared:
        """Cut texts into windows of pieces, and these into batches. May run in a thread beside `infer`."""
        windows, offsets = (self.readers or self.reader).read(texts)
        return Prepared(texts, windows, offsets, length_batches([len(each.input_ids) for each in windows], self.backend.batch_tokens))

    def infer(self, prepared: Prepared, chosen: Sequence[int]) -> Outputs:
        """Logits of one batch of windows."""
        return self.backend.run(self.padded([prepared.windows[n] for n in chosen]))

    def padded(self, windows: Sequence[Window]) -> Batch:
        """Windows as one batch."""
        shape = (len(windows), max(len(each.input_ids) for each in windows))
        batch = {"input_ids": np.full(shape, self.reader.tokenizer.pad_token_id or 0), "attention_mask": np.zeros(shape, np.int64)}
        for n, each in enumerate(windows):
            batch["input_ids"][n, : len(each.input_ids)] = each.input_ids
            batch["attention_mask"][n, : len(each.input_ids)] = 1
        if self.reader.mark_capitals:
            batch["token_type_ids"] = np.zeros(shape, np.int64)
            for n, each in enumerate(windows):
                batch["token_type_ids"][n, : len(each.input_ids)] = each.token_type_ids
        return batch

    def logits(self, prepared: Prepared, outputs: Sequence[Outputs]) -> tuple[Floats, list[Floats]]:
        """What `infer` gave for each batch, put together by text.

        *Shape:* first result (texts, labels); second, where the bundle finds spans, per text (pieces, classes).
        """
        interests = np.empty((len(prepared.texts), len(self.spec.labels)))
        rows: list[Any] = [None] * len(prepared.windows)
        for chosen, found in zip(prepared.batches, outputs, strict=True):
            for place, n in enumerate(chosen):
                window = prepared.windows[n]
                if found.interests is not None and window.first == 0:
                    interests[window.text] = found.interests[place]
                if found.pieces is not None:
                    rows[n] = found.pieces[place, : len(window.input_ids)]
        return interests, self.reader.merge(prepared.windows, rows, len(prepared.texts)) if self.spec.spans is not None else []

    def read(self, prepared: Prepared, outputs: Sequence[Outputs]) -> tuple[Floats, list[list[Span]]]:
        """Calibrated scores of the interests, and the spans. *Shape:* first result (texts, labels), 0 to 1."""
        interests, pieces = self.logits(prepared, outputs)
        score = scores(interests, self.spec.temperature, self.spec.curves)
        spans = self.spec.spans
        if spans is None:
            return score, [[] for _ in prepared.texts]
        return score, [read_spans(*each, spans) for each in zip(prepared.texts, pieces, prepared.offsets, strict=True)]

    def run(self, prepared: Prepared, advance: Callable[[int], None] = ignore) -> list[Outputs]:
        """Logits of every batch; `advance` is told how many texts each one finishes."""
        found = []
        with ThreadPoolExecutor(self.backend.workers) as pool:
            for chosen, outputs in zip(prepared.batches, pool.map(lambda each: self.infer(prepared, each), prepared.batches), strict=True):
                found.append(outputs)
                advance(sum(prepared.windows[n].first == 0 for n in chosen))
        return found

    def score(self, texts: Sequence[str], advance: Callable[[int], None] = ignore) -> tuple[Floats, list[list[Span]]]:
        """`read` of cleaned texts."""
        prepared = self.prepare(texts)
        return self.read(prepared, self.run(prepared, advance))

    def tags(self, texts: Sequence[str], score: Floats, spans: Sequence[Sequence[Span]]) -> list[list[Tag]]:
        """Tags of each text: interests by falling score, then spans by place. *Shape:* score (texts, labels)."""
        chosen = decide(score, np.asarray(self.spec.thresholds), self.spec.min_tags, self.spec.max_tags)
        found: list[list[Tag]] = []
        for n, text in enumerate(texts):
            labels = np.flatnonzero(chosen[n])
            ranked = labels[np.argsort(-score[n, labels], kind="stable")]
            found.append([Tag(self.spec.dimension, self.spec.labels[label], float(score[n, label]), None, None) for label in ranked])
            found[-1] += [
                Tag(each.dimension, normal_form(text[each.start : each.end]), each.score, each.start, each.end) for each in spans[n]
            ]
        return found

    def tag(self, keys: Sequence[str], texts: Sequence[str], advance: Callable[[int], None] = ignore) -> pa.Table:
        """Tags of cleaned texts, in the order of the texts; schema `records.TAGS`."""
        return as_table(keys, self.tags(texts, *self.score(texts, advance)))


def as_table(keys: Sequence[str], tags: Sequence[Sequence[Tag]]) -> pa.Table:
    """Tags of texts with these keys, as the contract has them."""
    rows = [(key, *each) for key, own in zip(keys, tags, strict=True) for each in own]
    return pa.Table.from_arrays([pa.array([row[n] for row in rows], field.type) for n, field in enumerate(TAGS)], schema=TAGS)


def reader_of(spec: TaggerSpec, tokenizer: Any) -> Reader:
    """How a bundle's texts are read."""
    stride = spec.spans.stride if spec.spans is not None else None
    return Reader(tokenizer, spec.max_length, stride, spec.mark_capitals, spec.simplify_chinese)


def read_spans(text: str, logits: Floats, offsets: list[tuple[int, int]], spec: SpanSpec) -> list[Span]:
    """Spans of a text from its pieces' logits. *Shape:* logits (pieces, classes)."""
    parts = units(text, offsets)
    probability = softmax(logits[[each.piece for each in parts]], spec.temperature)
    return recalibrated(decode(text, probability, parts, spec.dimensions, spec.thresholds), spec.curve)


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions in batches of like length, longest first, each of at most `budget` padded word pieces (or one text)."""
    batches: list[list[int]] = []
    longest = 0
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if not batches or (len(batches[-1]) + 1) * longest > budget:
            batches.append([])
            longest = lengths[n]
        batches[-1].append(n)
    return batches
