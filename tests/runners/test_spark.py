"""Tagging on Spark, on a cluster of two executors: processes of their own, with a directory of their own each."""

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from penchant.errors import DataError, MissingExtraError
from penchant.ingest.clean import document, text_key
from penchant.ingest.events import ingest
from penchant.ingest.mapping import load_mapping
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build, load
from penchant.records import EVENTS, TAGS
from penchant.runners import local
from penchant.runners.local import tag_file
from penchant.tagging.tagger import Tagger
from tests import snapshots

pyspark = pytest.importorskip("pyspark", reason="pyspark is missing: pip install 'penchant[spark]'")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Java is missing", allow_module_level=True)

from pyspark import SparkContext, TaskContext  # noqa: E402 - where there is no pyspark, this file is skipped above
from pyspark.errors import PythonException  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402

from penchant.runners import spark as runner  # noqa: E402
from penchant.runners.spark_profiles import profile_parquet  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.xdist_group("spark"),  # one cluster, where pytest runs with --dist loadgroup
]
JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"  # nothing here runs long enough to be worth optimising
SETTINGS = {
    "spark.driver.extraJavaOptions": JAVA,
    "spark.executor.extraJavaOptions": JAVA,
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "512m",
    "spark.executor.memory": "512m",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.task.maxFailures": "2",
}
FP32 = ("no", "torch")
"""Precision and backend of both sides: they are not to be compared on arithmetic."""
TITLED = [("run shoe", "my cat"), ("bread", "the late parcel"), ("marathon", None), (None, "marathon")]

MIXED = [("run", "click"), ("goal", "purchase"), ("cat", "unsave"), ("stage", "view"), ("choir", "like"), ("untagged", "post")] * 4
IN_ORDER = [(name, "ascending") for name in ("user_id", "dimension", "value")]


@pytest.fixture(scope="session")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Spark's folder with nothing in it but links to the package: executors write below it."""
    home = tmp_path_factory.mktemp("spark")
    for each in Path(pyspark.__file__).parent.iterdir():
        (home / each.name).symlink_to(each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_HOME", str(home))
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        yield home


@pytest.fixture(scope="session")
def archive(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, zipped as docs/spark.md says."""
    return Path(shutil.make_archive(str(tmp_path_factory.mktemp("archive") / "bundle"), "zip", tiny_bundle))


@pytest.fixture(scope="session")
def spark(spark_home: Path, archive: Path) -> Iterator[SparkSession]:
    """A session on two executors of one core, to which the tiny bundle was shipped as `tiny`."""
    builder = SparkSession.builder.master("local-cluster[2,1,512]").appName("tests")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.addArchive(f"{archive}#tiny")
    yield session
    session.stop()
    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(30)


@pytest.fixture(scope="session")
def events(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's social posts, ingested, and a few events with titles."""
    mapping = load_mapping(root / "data" / "events.yaml")
    folder = tmp_path_factory.mktemp("events") / "events"
    ingest(mapping.model_copy(update={"sources": {"social": mapping.sources["social"]}}), root / "data", folder)
    posts = pq.read_table(folder / "events.parquet")
    first = posts.slice(0, 1).to_pylist()[0]
    titled = [
        first | {"event_id": f"titled:{n}", "title": title, "body": body, "text_key": text_key(document(title, body))}
        for n, (title, body) in enumerate(TITLED)
    ]
    pq.write_table(pa.concat_tables([posts, pa.Table.from_pylist(titled, EVENTS)]), folder / "events.parquet")
    return folder


@pytest.fixture(scope="session")
def local_tags(events: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What one machine makes of them."""
    path = tmp_path_factory.mktemp("local") / "tags.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "open_tagger", lambda bundle, *_: Tagger(bundle, *FP32))
        tag_file([tiny_bundle], events, path)
    return pq.read_table(path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, list[Any]]], str]:
    """Writes columns as a Parquet file and gives its path."""

    def write(columns: dict[str, list[Any]]) -> str:
        pq.write_table(pa.table(columns), tmp_path / "table.parquet")
        return str(tmp_path / "table.parquet")

    return write


def in_order(tags: pa.Table) -> tuple[list[tuple[Any, ...]], list[float]]:
    """Rows without their scores, sorted, and the scores in that order."""
    rows = sorted(tags.to_pylist(), key=lambda row: (row["text_key"], row["dimension"], row["value"]))
    return [tuple(value for name, value in row.items() if name != "score") for row in rows], [row["score"] for row in rows]


def assert_like_local(tags: Path, local: pa.Table) -> None:
    """A folder of tags that Spark wrote holds what one machine gives."""
    found = pq.read_table(tags)
    assert [(each.name, each.type) for each in found.schema] == [(each.name, each.type) for each in TAGS]
    rows, scores = in_order(found)
    expected, expected_scores = in_order(local)
    assert rows == expected
    assert scores == pytest.approx(expected_scores, abs=1e-5)
    assert (tags / "_SUCCESS").exists()


def test_tags_equal_those_of_one_machine(spark: SparkSession, events: Path, local_tags: pa.Table, tmp_path: Path) -> None:
    count = runner.tag_parquet(spark, str(events), str(tmp_path / "tags"), ["tiny"], partitions=6, backend="torch", precision="no")
    assert_like_local(tmp_path / "tags", local_tags)
    assert count == len(local_tags) > len(TITLED)
    assert len(list((tmp_path / "tags").glob("part-*.parquet"))) == 6
    about = spark.read.parquet(str(tmp_path / "tags")).schema["text_key"].metadata
    assert about == {name.decode(): value.decode() for name, value in local_tags.schema.metadata.items() if name.startswith(b"penchant.")}
    with pytest.raises(DataError, match="tags: can't be written: .*already exists.*--overwrite replaces what is there"):
        runner.tag_parquet(spark, str(events), str(tmp_path / "tags"), ["tiny"])


def test_each_text_is_tagged_once_and_by_a_model_that_is_loaded_once(
    spark: SparkSession, spark_home: Path, tiny_bundle: Path, events: Path, local_tags: pa.Table, tmp_path: Path
) -> None:
    loads = tmp_path / "loads"
    model = runner.model_of(Tagger(tiny_bundle, *FP32))

    def probe(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import torch

        from penchant.runners import spark as runner

        real = runner.open_tagger

        def noted(*args: Any) -> Any:
            with loads.open("a") as stream:
                stream.write(f"{os.getpid()}\n")
            return real(*args)

        keys: list[str] = []

        def seen() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                keys.extend(batch["text_key"].to_pylist())
                yield batch

        runner.open_tagger = noted
        try:
            tags = sum(each.num_rows for each in runner.tag_batches(seen(), ("./tiny",), (model,)))
        finally:
            runner.open_tagger = real
        row = [os.getpid(), torch.get_num_threads(), str(runner.resolve("tiny").resolve()), tags, " ".join(keys)]
        yield pa.RecordBatch.from_pylist([dict(zip(("process", "threads", "place", "tags", "keys"), row, strict=True))])

    table = spark.read.parquet(str(events / "events.parquet"))
    tasks = runner.documents(table, 8).mapInArrow(probe, "process long, threads long, place string, tags long, keys string").collect()
    assert len(tasks) == 8
    assert sum(each.tags for each in tasks) == len(local_tags)
    keys = pq.read_table(events / "events.parquet")["text_key"].to_pylist()
    assert sorted(key for each in tasks for key in each["keys"].split()) == sorted(set(keys))
    assert len(keys) > 10 * len(set(keys))

    processes = {str(each.process) for each in tasks}
    assert sorted(loads.read_text().split()) == sorted(processes)
    assert str(os.getpid()) not in processes
    assert len(processes) <= 2
    assert {each.threads for each in tasks} == {1}
    places = {Path(each.place) for each in tasks}
    assert len(places) == len(processes)
    assert all(place.name == "tiny" and place.is_relative_to(spark_home.resolve() / "work") for place in places)


def test_a_task_that_is_repeated_writes_its_tags_once(
    spark: SparkSession, tiny_bundle: Path, events: Path, local_tags: pa.Table, tmp_path: Path
) -> None:
    model = runner.model_of(Tagger(tiny_bundle, *FP32))
    died = tmp_path / "died"

    def dying(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from runner.tag_batches(batches, ("tiny",), (model,))
        task = TaskContext.get()
        if task.partitionId() == 0 and task.attemptNumber() == 0:
            died.touch()
            os._exit(1)  # when all its tags are on their way

    table = spark.read.parquet(str(events / "events.parquet"))
    runner.documents(table, 2).mapInArrow(dying, runner.from_arrow_schema(TAGS)).write.parquet(str(tmp_path / "tags"))
    assert died.exists()
    assert_like_local(tmp_path / "tags", local_tags)


def test_titles_alone_and_texts_that_are_empty_over_an_older_output(
    spark: SparkSession, tiny_bundle: Path, write: Callable[..., str], tmp_path: Path
) -> None:
    path = write({"text_key": ["a", "b", "c", "a"], "title": ["run", None, "", "run"]})
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "part-old.parquet").touch()
    assert runner.tag_parquet(spark, path, str(tmp_path / "tags"), [str(tiny_bundle)], overwrite=True) == 1
    (row,) = pq.read_table(tmp_path / "tags").to_pylist()
    assert (row["text_key"], row["value"], row["start"]) == ("a", "sports.running", None)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"title": ["run"]}, "the events have no column text_key, only title; make them with: penchant ingest"),
        ({"text_key": ["a"], "words": ["run"]}, "the events have no column title or body, only text_key, words; make"),
        ({"text_key": [7], "title": ["run"], "body": [["run"]]}, "text_key is bigint, body is array<string>, expected string; make"),
        ({"text_key": ["a", None], "body": ["run", "cat"]}, "there are events that have no text_key; ingest them again"),
    ],
)
def test_a_table_that_is_none_of_events_is_refused(
    columns: dict[str, list[Any]], said: str, spark: SparkSession, write: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        runner.tag_parquet(spark, write(columns), str(tmp_path / "tags"), ["tiny"])
    assert not (tmp_path / "tags" / "_SUCCESS").exists()


def test_replacing_what_is_read_or_what_is_no_output_is_refused(spark: SparkSession, events: Path, tmp_path: Path) -> None:
    for output in (events, events.parent):
        with pytest.raises(DataError, match=r"replacing it would delete .*events\.parquet; give a folder of its own"):
            runner.tag_parquet(spark, str(events), str(output), ["tiny"], overwrite=True)
    (tmp_path / "parts").mkdir()
    shutil.copy(events / "events.parquet", tmp_path / "parts" / "part-0.parquet")
    with pytest.raises(DataError, match=r"parts: replacing it would delete .*part-0\.parquet"):
        runner.tag_parquet(spark, str(tmp_path / "parts"), str(tmp_path / "parts"), ["tiny"], overwrite=True)
    assert (events / "events.parquet").exists()


def test_a_missing_table_is_named(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: can't be read: .*does not exist.*; make it with: penchant ingest"):
        runner.tag_parquet(spark, str(tmp_path / "nowhere"), str(tmp_path / "tags"), ["tiny"])


@pytest.mark.parametrize(
    ("bundles", "said"),
    [
        (["nowhere"], r"bundle 'nowhere': .* has no tagger.json in .*/work/.*/nowhere; ship it \(spark-submit --archives"),
        (["tiny", "./tiny"], "tiny, ./tiny: more than one writes tags of dimension interest; give one of them"),
    ],
)
def test_bundles_are_tried_before_anything_is_written(
    bundles: list[str], said: str, spark: SparkSession, write: Callable[..., str], tmp_path: Path
) -> None:
    path = write({"text_key": ["a"], "title": ["run"]})
    with pytest.raises(DataError, match=said):
        runner.tag_parquet(spark, path, str(tmp_path / "tags"), bundles)
    assert not (tmp_path / "tags").exists()


def test_a_worker_with_another_bundle_than_the_others_is_refused(spark: SparkSession, write: Callable[..., str]) -> None:
    path = write({"text_key": ["a"], "title": ["run"]})
    tag = partial(runner.tag_batches, bundles=("tiny",), models=("0123456789abcdef/torch-fp32",))
    found = runner.documents(spark.read.parquet(path), 1).mapInArrow(tag, runner.from_arrow_schema(TAGS))
    with pytest.raises(
        PythonException, match="DataError: bundle 'tiny': .* has .*/torch-fp32, others have 0123456789abcdef/torch-fp32; ship"
    ):
        found.collect()


def test_spark_submit_runs_the_job(root: Path, spark_home: Path, archive: Path, events: Path, local_tags: pa.Table, tmp_path: Path) -> None:
    settings = [part for name, value in SETTINGS.items() for part in ("--conf", f"{name}={value}")]
    command = [str(spark_home / "bin" / "spark-submit"), "--master", "local[1]", *settings, "--archives", f"{archive}#tiny"]
    job = [str(root / "infer" / "spark_job.py"), str(events), str(tmp_path / "tags")]
    options = ["--bundle", "tiny", "--backend", "torch", "--precision", "no"]
    done = subprocess.run([*command, *job, *options], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(local_tags):,} tags: {tmp_path / 'tags'}"
    assert_like_local(tmp_path / "tags", local_tags)


def test_a_job_that_fails_ends_with_one_message_and_a_code(
    root: Path, spark: SparkSession, write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SparkSession, "__exit__", lambda *_: None)  # the other tests' session
    job = runpy.run_path(str(root / "infer" / "spark_job.py"))["main"]
    done = CliRunner().invoke(job, [write({"title": ["run"]}), str(tmp_path / "tags"), "--bundle", "tiny"])
    assert done.exit_code == 1
    assert done.output == "Error: the events have no column text_key, only title; make them with: penchant ingest\n"


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.delitem(sys.modules, "penchant.runners.spark")
    with pytest.raises(MissingExtraError, match=r"pip install 'penchant\[spark\]'"):
        __import__("penchant.runners.spark")


def test_profiles_on_spark_are_those_on_one_machine(spark: SparkSession, tmp_path: Path) -> None:
    rows = [snapshots.event(n, text, f"u{n % 7}", n / 3, action=action) for n, (text, action) in enumerate(MIXED)]
    rows += [rows[3], rows[0] | {"event_id": "late", "occurred_at": snapshots.NOON + timedelta(days=4_000)}]  # a copy, and a wrong clock
    events, tags = snapshots.write_inputs(tmp_path, rows)
    policy = Policy(habits=True, source_weights={"shop": 0.5})
    build(events, tags, policy, tmp_path / "profiles")
    here = load(tmp_path / "profiles")
    found = profile_parquet(spark, str(events), str(tags), str(tmp_path / "out"), policy, snapshots.TAXONOMY)
    assert found["rejects"] == 1
    assert pq.read_table(tmp_path / "out" / "rejects").to_pylist()[0]["reason"].startswith("occurred_at: ")
    for part, expected in (("state", here.state), ("view", here.profiles)):
        there = pq.read_table(tmp_path / "out" / part).select(expected.columns).sort_by(IN_ORDER).to_pylist()
        assert found[part] == len(there)
        assert there == [
            {name: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value for name, value in row.items()}
            for row in expected.to_pyarrow().sort_by(IN_ORDER).to_pylist()
        ]
    with pytest.raises(DataError, match="can't be written: .*; --overwrite replaces what is there"):
        profile_parquet(spark, str(events), str(tags), str(tmp_path / "out"), policy, snapshots.TAXONOMY)
    with pytest.raises(DataError, match="doesn't say which taxonomy"):
        profile_parquet(spark, str(events), str(tags), str(tmp_path / "other"), policy)
    with pytest.raises(DataError, match="has no column .*score.*make it with: penchant tag"):
        profile_parquet(spark, str(events), str(events), str(tmp_path / "other"), policy)
