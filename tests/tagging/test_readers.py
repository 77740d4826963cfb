"""Tokenising in several processes: what comes out is what one process finds."""

import copy
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from penchant.errors import DataError
from penchant.runners.local import tag_file
from penchant.tagging.readers import FEW, Readers
from penchant.tagging.tagger import Tagger
from tests.conftest import WORDS
from tests.tables import write_rows
from tests.tagging.test_tagger import write_span_bundle

TEXTS = [" ".join(WORDS[(n + k) % len(WORDS)] for k in range(n % 40)) for n in range(FEW + 1)]
"""Of no word up to 39, so that some have several windows."""


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """One that finds spans in windows of 16 pieces, by the capitals too."""
    return Tagger(write_span_bundle(tmp_path_factory.mktemp("readers") / "spans"), "no", "torch")


def test_windows_and_offsets_are_those_of_one_process(tagger: Tagger) -> None:
    expected = tagger.reader.read(TEXTS)
    assert len(expected.windows) > len(TEXTS) == len(expected.offsets)
    with Readers(tagger.reader, 3) as readers:
        assert readers.read(TEXTS) == expected
        assert len(readers.pool._processes) == 3
        assert readers.read(TEXTS[::-1]) == tagger.reader.read(TEXTS[::-1])


def test_few_texts_start_no_process(tagger: Tagger) -> None:
    with Readers(tagger.reader, 3) as readers:
        assert readers.read(TEXTS[: FEW - 1]) == tagger.reader.read(TEXTS[: FEW - 1])
        assert readers.read([]) == ([], [])
        assert not readers.pool._processes


def test_a_long_run_has_them_and_writes_the_same(tagger: Tagger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "texts.parquet", [{"text": f"{text} {n}"} for n, text in enumerate(TEXTS)])
    bundle = [tmp_path / "by its tagger"]
    used: list[int] = []
    read = Readers.read

    def counted(self: Readers, texts: list[str]) -> object:
        used.append(len(texts))
        return read(self, texts)

    monkeypatch.setattr(Readers, "read", counted)
    tag_file(bundle, tmp_path / "texts.parquet", tmp_path / "one.jsonl", "torch", taggers=[tagger])
    assert used == []
    monkeypatch.setattr(tagger.backend, "readers", 2)
    tag_file(bundle, tmp_path / "texts.parquet", tmp_path / "many.jsonl", "torch", taggers=[tagger])
    assert used == [len(TEXTS)]
    assert tagger.readers is None
    assert (tmp_path / "many.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert (tmp_path / "one.jsonl").stat().st_size > 0


def test_what_a_process_begins_with_fits_a_pipe(tagger: Tagger) -> None:
    large = replace(tagger.reader, tokenizer=copy.deepcopy(tagger.reader.tokenizer))
    large.tokenizer.add_tokens([f"word{n}" for n in range(5_000)])
    assert len(pickle.dumps(large)) > 65_536  # more than a pipe holds: who writes it would wait for ever for a process that died
    with Readers(large, 2) as readers:
        assert len(pickle.dumps(readers.pool._initargs)) < 1_000
        begin = readers.pool.submit(len, TEXTS)
        assert begin.result() == len(TEXTS)


def test_processes_end_with_the_one_that_began_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, pickle, sys\nfrom penchant.tagging.readers import Readers\n"
        "if __name__ == '__main__':\n    readers = Readers(None, 2)\n    readers.pool.submit(abs, -1).result()\n"
        "    print(*readers.pool._processes, flush=True)\n    os.kill(os.getpid(), 9)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(program)], check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "src"}, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    ids = [int(each) for each in done.stdout.split()]
    assert ids  # and they ended, or their output would still be open


def test_a_process_that_is_killed_is_told(tagger: Tagger) -> None:
    with Readers(tagger.reader, 2) as readers:
        readers.read(TEXTS)
        for process in readers.pool._processes:
            os.kill(process, signal.SIGKILL)
        with pytest.raises(DataError, match="a process that tokenises was killed"):
            readers.read(TEXTS)
