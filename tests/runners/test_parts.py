"""Tagging in parts: what a kill leaves is gone on with, several processes share the work, and the table is always the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.errors import DataError
from penchant.records import DOCUMENTS, TAGS
from penchant.runners import local
from penchant.runners.local import Place, tag_file
from penchant.runners.parts import Parts, digest_of
from penchant.tagging.cache import TagCache
from penchant.tagging.tagger import Tagger
from tests.conftest import WORDS
from tests.tables import write_rows

PROGRAM = """
import sys
from pathlib import Path
from penchant.runners import local
local.PART_TEXTS = 40
local.tag_file([Path(sys.argv[1])], Path(sys.argv[2]), Path(sys.argv[3]), "torch")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Eleven hundred events on some seven hundred texts."""
    draw = random.Random(2)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(700)]
    return write_rows(tmp_path / "texts.parquet", [{"text": draw.choice(texts)} for _ in range(1_100)])


@pytest.fixture
def whole(source: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """What an unbroken run gives, in parts of forty texts."""
    monkeypatch.setattr(local, "PART_TEXTS", 40)
    tag_file([tiny_bundle], source, tmp_path / "whole.parquet", "torch")
    return pq.read_table(tmp_path / "whole.parquet")


def begin(bundle: Path, source: Path, output: Path, **env: str) -> subprocess.Popen[bytes]:
    """A process of its own that tags."""
    command = [sys.executable, "-c", PROGRAM, str(bundle), str(source), str(output)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": "src", "HF_HUB_OFFLINE": "1"} | env, stderr=subprocess.PIPE)


def parts_of(output: Path) -> list[Path]:
    """Those committed so far."""
    return sorted(output.with_name(f".{output.name}.parts").glob("part-*.parquet"))


def written_at(path: Path) -> int | None:
    """When a file was last written, or none where it is gone, as it may be at any moment."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_a_run_killed_at_any_time_goes_on_and_ends_the_same(source: Path, whole: pa.Table, tiny_bundle: Path, tmp_path: Path) -> None:
    output, draw = tmp_path / "tags.parquet", random.Random()
    kept: list[int] = []
    for share in (0.05, 0.4):
        process = begin(tiny_bundle, source, output)
        wanted = int(share * len(whole) / 40) + 1
        while process.poll() is None and len(parts_of(output)) < wanted:
            time.sleep(0.002)
        time.sleep(draw.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        kept.append(len(parts_of(output)))
    stamps = {path: written_at(path) for path in parts_of(output)}
    process = begin(tiny_bundle, source, output)
    seen = set()
    while process.poll() is None:  # those kept aren't made again, until they are taken away at the end
        seen |= {path for path, stamp in stamps.items() if written_at(path) not in {None, stamp}}
        time.sleep(0.01)
    _, said = process.communicate()
    assert process.returncode == 0, said.decode()
    assert kept[0] <= kept[1]
    assert seen == set()
    assert pq.read_table(output).equals(whole, check_metadata=True)
    assert not output.with_name(".tags.parquet.parts").exists()


def test_two_processes_share_the_texts_without_overlap_or_gap(source: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    expected, output = tmp_path / "expected.parquet", tmp_path / "tags.parquet"
    half = {"LOCAL_WORLD_SIZE": "2"}  # half of the cores, so that what is measured to be the fastest there holds for each of them
    for processes in (
        [begin(tiny_bundle, source, expected, **half)],
        [begin(tiny_bundle, source, output, WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), **half) for rank in (1, 0)],
    ):
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said.decode()
    assert pq.read_table(output).equals(pq.read_table(expected), check_metadata=True)


def test_each_process_makes_its_own_parts(source: Path, whole: pa.Table, tiny_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "tags.parquet"
    first = Parts(output, first=True)
    taggers = local.open_taggers([tiny_bundle], "torch", first)  # by the arithmetic that `whole` was made with
    first.begin(local.manifest_of(taggers))
    assert tag_file([tiny_bundle], source, output, "torch", place=Place(1, 2), taggers=taggers) is None
    assert [int(path.stem[-6:]) % 2 for path in parts_of(output)] == [1] * len(parts_of(output))
    counts = tag_file([tiny_bundle], source, output, "torch", place=Place(0, 2), taggers=taggers)
    assert counts is not None
    assert pq.read_table(output).equals(whole, check_metadata=True)
    assert counts["tags"] == len(whole)
    assert counts["untagged_texts"] == counts["texts"] - len(whole["text_key"].unique())


def test_parts_of_another_bundle_or_other_texts_are_never_used(tiny_bundle: Path, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "tags.csv", first=True)
    parts.begin({"bundles": ["a"]})
    documents = pa.RecordBatch.from_pydict({"text_key": ["k"], "text": ["run"]}, DOCUMENTS)
    others = pa.RecordBatch.from_pydict({"text_key": ["k"], "text": ["ran"]}, DOCUMENTS)
    assert digest_of(documents) != digest_of(others)
    tags = pa.Table.from_pylist([{"text_key": "k", "dimension": "interest", "value": "x", "score": 0.5}], TAGS)
    parts.write(0, digest_of(documents), tags)
    assert parts.has(0, digest_of(documents))
    assert not parts.has(0, digest_of(others))
    parts.begin({"bundles": ["a"]})
    assert parts.has(0, digest_of(documents))
    parts.path(0).write_bytes(parts.path(0).read_bytes()[:-20])
    assert not parts.has(0, digest_of(documents))  # damaged
    parts.write(0, digest_of(documents), tags)
    parts.begin({"bundles": ["b"]})
    assert not parts.has(0, digest_of(documents))


def test_a_full_disk_keeps_the_parts_before(
    source: Path, whole: pa.Table, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = tmp_path / "tags.parquet", pq.write_table

    def full(table: pa.Table, where: Path, **options: object) -> None:
        if "000003" in str(where):
            raise OSError(28, "No space left on device", str(where))
        write(table, where, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(
        DataError, match="No space left on device.*; make room and run the same command again: the 3 parts before it are kept"
    ):
        tag_file([tiny_bundle], source, output, "torch")
    assert [path.name for path in parts_of(output)] == [f"part-00000{n}.parquet" for n in range(3)]
    assert not output.exists()
    monkeypatch.setattr(pq, "write_table", write)
    tag_file([tiny_bundle], source, output, "torch")
    assert pq.read_table(output).equals(whole)


def test_tomorrow_only_new_texts_are_tagged(
    source: Path, whole: pa.Table, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged: list[str] = []
    prepare = Tagger.prepare
    monkeypatch.setattr(Tagger, "prepare", lambda self, texts: (tagged.extend(texts), prepare(self, texts))[1])
    with TagCache(tmp_path / "cache.sqlite") as cache:
        first = tag_file([tiny_bundle], source, tmp_path / "first.parquet", "torch", cache)
        assert first is not None
        assert (first["cached"], len(tagged)) == (0, first["texts"])
        tagged.clear()
        more = pa.concat_tables([pq.read_table(source), pa.table({"text": ["a new oven", "run"]})])
        pq.write_table(more, tmp_path / "more.parquet")
        second = tag_file([tiny_bundle], tmp_path / "more.parquet", tmp_path / "second.parquet", "torch", cache)
    assert second is not None
    assert tagged == [text for text in ("a new oven", "run") if text in tagged]
    assert second["cached"] == second["texts"] - len(tagged)
    assert pq.read_table(tmp_path / "first.parquet").equals(whole)
    assert pq.read_table(tmp_path / "second.parquet").slice(0, len(whole)).equals(whole)


def test_a_changed_bundle_never_reads_a_stale_tag(source: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    import shutil

    from penchant.tagging.bundle import load_spec, save_spec

    changed = tmp_path / "changed"
    shutil.copytree(tiny_bundle, changed)
    save_spec(changed, load_spec(tiny_bundle).model_copy(update={"max_tags": 1}))
    with TagCache(tmp_path / "cache.sqlite") as cache:
        tag_file([tiny_bundle], source, tmp_path / "first.parquet", "torch", cache)
        counts = tag_file([changed], source, tmp_path / "second.parquet", "torch", cache)
    assert counts is not None
    assert counts["cached"] == 0
    by_text = pq.read_table(tmp_path / "second.parquet").group_by("text_key").aggregate([("value", "count")])
    assert max(by_text["value_count"].to_pylist()) == 1


def test_the_manifest_says_what_decides_the_tags(tiny_bundle: Path, tmp_path: Path) -> None:
    parts = Parts(tmp_path / "tags.csv", first=True)
    tagger = Tagger(tiny_bundle, "no", "torch")
    parts.begin(local.manifest_of([tagger]))
    found = json.loads((tmp_path / ".tags.csv.parts" / "manifest.json").read_text())
    assert found == {"bundles": [tagger.spec.fingerprint], "variants": ["torch-fp32"], "part_texts": local.PART_TEXTS}
    parts.remove_if_empty()
    assert not (tmp_path / ".tags.csv.parts").exists()
