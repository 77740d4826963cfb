"""Streams through taggers: in order, never far ahead, and an error of any stage ends them all."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from penchant.records import DOCUMENTS
from penchant.tagging.pipeline import AHEAD, Ahead, Clock, tag_documents
from penchant.tagging.tagger import Tagger
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def tagger(tiny_bundle: Path) -> Tagger:
    """The hand-made bundle in plain fp32."""
    return Tagger(tiny_bundle, "no", "torch")


def chunk(texts: list[str]) -> pa.RecordBatch:
    """Documents whose keys are their texts."""
    return pa.RecordBatch.from_pydict({"text_key": texts, "text": texts}, DOCUMENTS)


CHUNKS = [chunk([f"{word} {n}" for word in WORDS]) for n in range(5)]


def test_every_chunk_comes_out_in_order_with_the_tags_it_has_alone(tagger: Tagger) -> None:
    seen: list[int] = []
    clock = Clock()
    found = list(tag_documents([tagger], CHUNKS, None, seen.append, clock))
    assert [each.documents for each in found] == CHUNKS
    for each in found:
        texts = each.documents["text"].to_pylist()
        assert each.tags.equals(tagger.tag(texts, texts))
    assert sum(seen) == len(CHUNKS) * len(WORDS)
    assert {"read", "tokenise", "infer", "decode"} == set(clock.seconds)


def test_reading_stays_a_bounded_number_of_chunks_ahead(tagger: Tagger) -> None:
    read = 0

    def source() -> Iterator[pa.RecordBatch]:
        nonlocal read
        for each in CHUNKS * 20:
            read += 1
            yield each

    for taken, _ in enumerate(tag_documents([tagger], source()), 1):
        if taken > 5:
            break
        time.sleep(0.02)
        assert read <= taken + 2 * (AHEAD + 1) + AHEAD + 1  # each of two threads holds one and has AHEAD waiting; AHEAD are being tagged


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_what_a_stage_raises_comes_out_and_leaves_no_thread(tagger: Tagger, failure: type[BaseException]) -> None:
    def source() -> Iterator[pa.RecordBatch]:
        yield CHUNKS[0]
        raise failure

    before = threading.active_count()
    with pytest.raises(failure):
        list(tag_documents([tagger], source()))
    assert threading.active_count() == before


def test_an_error_of_the_network_comes_out(tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    before = threading.active_count()
    monkeypatch.setattr(tagger.backend, "run", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(tag_documents([tagger], CHUNKS))
    assert threading.active_count() == before


def test_a_consumer_that_stops_early_stops_the_threads(tagger: Tagger) -> None:
    before = threading.active_count()
    stream = tag_documents([tagger], CHUNKS * 50)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_items_made_ahead_are_the_items() -> None:
    assert list(Ahead(range(100))) == list(range(100))
    assert list(Ahead([])) == []
