"""Tokenising in processes beside this one: a GPU takes word pieces faster than one process makes them ready.

The tokenizer itself uses every core, but what it found becomes Python's numbers in one thread, piece by piece. Other
processes do that too, and hand over what they made, which is unpacked faster than it is made.
"""

import math
import os
import pickle
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
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
        self.folder = tempfile.TemporaryDirectory(prefix="penchant-")
        path = (
            Path(self.folder.name) / "reader.pickle"
        )  # not an argument: one that fills a pipe would wait for ever for a process that died
        path.write_bytes(pickle.dumps(reader))
        self.pool = ProcessPoolExecutor(processes, get_context("spawn"), begin, (path,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.folder.cleanup()

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
        except (BrokenProcessPool, OSError) as error:  # OSError: its pipes are closed already
            for each in list(self.pool._processes.values()):  # noqa: SLF001 - the pool waits for one that began just then, and doesn't end it
                each.kill()
            raise DataError(
                "a process that tokenises was killed, most likely for want of memory; run the same command again, it goes on"
            ) from error
        return found


def begin(path: Path) -> None:
    """What one of the processes does first."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # each has a core
    threading.Thread(target=end_with_parent, daemon=True).start()
    Readers.own = pickle.loads(path.read_bytes())  # noqa: S301 - our own


def end_with_parent() -> None:
    """End this process when the one that began it does, however that ends."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def read(first: int, texts: Sequence[str]) -> Read:
    """Texts of which there are `first` others before, in one of the processes."""
    windows, offsets = Readers.own.read(texts)
    return Read([each._replace(text=each.text + first) for each in windows], offsets)
