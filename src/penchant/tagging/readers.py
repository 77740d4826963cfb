"""Tokenising in processes beside this one: a GPU takes word pieces faster than one process makes them ready.

The tokenizer itself uses every core, but what it found becomes Python's numbers in one thread, piece by piece; other
processes do that too, and hand over their pieces as bytes.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from penchant.errors import DataError
from penchant.tagging.encoder import Read, Reader

FEW = 1_000
"""Texts that aren't worth another process."""


class Readers:
    """A `Reader` in several processes, which start when there is much to read."""

    own: Reader
    """The reader of one of these processes."""

    def __init__(self, reader: Reader, processes: int) -> None:
        self.reader, self.processes = reader, processes
        self.pool = ProcessPoolExecutor(processes, get_context("spawn"), begin, (reader,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(cancel_futures=True)

    def read(self, texts: Sequence[str]) -> Read:
        """As `Reader.read`. Raises `DataError` where a process was killed."""
        if len(texts) < FEW:
            return self.reader.read(texts)
        size = math.ceil(len(texts) / self.processes)
        starts = range(0, len(texts), size)
        found = Read([], [])
        try:
            for windows, offsets in self.pool.map(read, starts, [texts[n : n + size] for n in starts]):
                found.windows.extend(windows)
                found.offsets.extend(offsets)
        except BrokenProcessPool as error:
            raise DataError(
                "a process that tokenises was killed, most likely for want of memory; run the same command again, it goes on"
            ) from error
        return found


def begin(reader: Reader) -> None:
    """What one of the processes does first."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each has a core
    Readers.own = reader


def read(first: int, texts: Sequence[str]) -> Read:
    """Texts of which there are `first` others before, in one of the processes."""
    windows, offsets = Readers.own.read(texts)
    return Read([each._replace(text=each.text + first) for each in windows], offsets)
