"""Streams of documents through taggers: reading, tokenising, inference and writing beside each other, held back by bounded queues.

One thread reads, one looks texts up in the cache and tokenises, `workers` threads multiply, and the caller's own writes.
The network takes nearly all the time, so the first two are always a chunk ahead and cost it only the cycles they use.
"""

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import pyarrow as pa

from penchant.ingest.clean import text_key
from penchant.tagging.backends import Outputs
from penchant.tagging.cache import Tag, TagCache
from penchant.tagging.tagger import Prepared, Tagger, as_table, ignore

Item = TypeVar("Item")
AHEAD = 1
"""Chunks that a stage works ahead of the next."""
POLL_SECONDS = 0.1
"""After which a waiting thread looks whether it is still wanted."""


class Clock:
    """CPU seconds by stage, over all threads."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add what this thread spends in the block to `stage`."""
        start = time.thread_time()
        try:
            yield
        finally:
            with self.lock:
                self.seconds[stage] += time.thread_time() - start


class Ahead(Iterator[Item]):
    """Items, made by a thread of their own that works at most `AHEAD` of them ahead; what it raises comes out where they are taken."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(AHEAD)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.work, args=(items,), daemon=True)
        self.thread.start()

    def work(self, items: Iterable[Item]) -> None:
        """Make items until they end or nobody wants them any more."""
        try:
            for item in items:
                if not self.put((item, None)):
                    return
            self.put((None, StopIteration()))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller's thread shall see it
            self.put((None, error))

    def put(self, made: tuple[Item | None, BaseException | None]) -> bool:
        """Hand over, waiting for a free place; whether anybody still wants it."""
        while not self.stopped.is_set():
            try:
                self.waiting.put(made, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def __next__(self) -> Item:
        while not self.stopped.is_set():
            try:
                item, error = self.waiting.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if error is not None:
                self.stopped.set()
                raise error
            return item  # type: ignore[return-value] # None only beside an error
        raise StopIteration


class Share(NamedTuple):
    """What one tagger does of a chunk."""

    places: list[int]
    """Of the texts that the cache didn't know."""
    prepared: Prepared
    cached: dict[int, list[Tag]]
    """Tags the cache knew, by place."""


class Tagged(NamedTuple):
    """A chunk with its tags."""

    documents: pa.RecordBatch
    tags: pa.Table
    """Schema `records.TAGS`, one tagger's after the other's, each in the order of the texts."""
    hits: int
    """Texts whose tags came out of the cache, over all taggers."""


def tag_documents(
    taggers: Sequence[Tagger],
    chunks: Iterable[pa.RecordBatch],
    cache: TagCache | None = None,
    advance: Callable[[int], None] = ignore,
    clock: Clock | None = None,
) -> Iterator[Tagged]:
    """Tag batches of documents (`records.DOCUMENTS`), one result per batch, in order.

    The same batches give the same tags to the last bit, whatever runs beside them. `advance` is told of every text, once
    for each tagger. An error of any stage comes out here, and ends all of them.
    """
    clock = clock or Clock()
    models = [f"{each.spec.fingerprint}/{each.backend.variant}" for each in taggers]

    def prepare(chunk: pa.RecordBatch) -> tuple[pa.RecordBatch, list[bytes], list[Share]]:
        with clock("tokenise"):
            texts: list[str] = chunk["text"].to_pylist()
            digests = [bytes.fromhex(text_key(text)) for text in texts] if cache is not None else []
            return chunk, digests, [share(*each, texts, digests, cache) for each in zip(taggers, models, strict=True)]

    def infer(tagger: Tagger, prepared: Prepared, chosen: list[int]) -> Outputs:
        with clock("infer"):
            return tagger.infer(prepared, chosen)

    pool = ThreadPoolExecutor(max(each.backend.workers for each in taggers))
    reading = Ahead(timed(chunks, clock, "read"))
    preparing = Ahead(prepare(each) for each in reading)
    try:
        waiting: deque[tuple[pa.RecordBatch, list[bytes], list[Share], list[list[Future[Outputs]]]]] = deque()

        def finish() -> Tagged:
            chunk, digests, shares, futures = waiting.popleft()
            tables, hits = [], 0
            for tagger, model, own, pending in zip(taggers, models, shares, futures, strict=True):
                outputs = []
                for chosen, each in zip(own.prepared.batches, pending, strict=True):
                    outputs.append(each.result())
                    advance(sum(own.prepared.windows[n].first == 0 for n in chosen))
                advance(len(own.cached))
                with clock("decode"):
                    new = dict(zip(own.places, tagger.tags(own.prepared.texts, *tagger.read(own.prepared, outputs)), strict=True))
                    if cache is not None:
                        cache.put(model, {digests[place]: tags for place, tags in new.items()})
                    found = new | own.cached
                    tables.append(as_table(chunk["text_key"].to_pylist(), [found[place] for place in range(len(chunk))]))
                hits += len(own.cached)
            return Tagged(chunk, pa.concat_tables(tables), hits)

        for chunk, digests, shares in preparing:
            futures = [
                [pool.submit(infer, tagger, own.prepared, chosen) for chosen in own.prepared.batches]
                for tagger, own in zip(taggers, shares, strict=True)
            ]
            waiting.append((chunk, digests, shares, futures))
            if len(waiting) > AHEAD:
                yield finish()
        while waiting:
            yield finish()
    finally:
        for each in (reading, preparing):
            each.stopped.set()
        pool.shutdown(cancel_futures=True)
        for each in (reading, preparing):
            each.thread.join()


def share(tagger: Tagger, model: str, texts: list[str], digests: list[bytes], cache: TagCache | None) -> Share:
    """Look texts up, and prepare those that are new to this tagger."""
    known = cache.get(model, digests) if cache is not None else {}
    cached = {place: known[digest] for place, digest in enumerate(digests) if digest in known}
    places = [place for place in range(len(texts)) if place not in cached]
    return Share(places, tagger.prepare([texts[place] for place in places]), cached)


def timed(items: Iterable[Item], clock: Clock, stage: str) -> Iterator[Item]:
    """Items, with what they take counted."""
    source = iter(items)
    while True:
        with clock(stage):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item
