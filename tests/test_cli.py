"""The command line from sources to an audience, and how each command refuses: one message, no trace."""

import csv
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.cli import cli, main
from penchant.ingest.clean import text_key
from penchant.profiles.snapshot import load
from penchant.records import EVENTS
from penchant.tagging.bundle import load_spec, save_spec
from tests.chain import BOLD, CAT_PEOPLE, LAST, RUNNERS, SCRIPT, go_through, write_sources
from tests.snapshots import span
from tests.tables import everything_in, write_rows
from tests.tagging.test_tagger import write_span_bundle
from tests.training.conftest import TOPICS, labelled

TEXTS = {
    "Run in the rain": {"sports.running"},
    "A cat and bread": {"pets.cats", "food.baking"},
    SCRIPT: {"food.baking"},
    "trail 😀 https://shop.example/run": {"sports.running"},
    "my shoe\nthe, marathon": {"sports.running"},
}


@pytest.fixture(scope="module", autouse=True)
def short_measurement() -> Iterator[None]:
    """Let each start of the tagger measure this machine on small products: it is started often here."""
    from penchant.tagging import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "matmul_gflops", partial(precision.matmul_gflops, seconds=0.01, size=64))
        yield


@pytest.fixture(scope="module")
def chain(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources, events, tags and profiles; not to be written into."""
    before = list(logging.root.handlers)
    folder = go_through(tmp_path_factory.mktemp("chain"), tiny_bundle)
    logging.root.handlers[:] = before
    return folder


@pytest.fixture(scope="module")
def text_tags(chain: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chain's tags as tags.csv and tags.jsonl."""
    before, folder = list(logging.root.handlers), tmp_path_factory.mktemp("tags")
    for suffix in ("csv", "jsonl"):
        main(["tag", str(chain / "events"), "--bundle", str(tiny_bundle), "-o", str(folder / f"tags.{suffix}")])
    logging.root.handlers[:] = before
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs one command and gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            main([str(each) for each in arguments])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return call


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it."""
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from commands(below, (*path, name))
    else:
        yield path, command


COMMANDS = dict(commands())


def state(profiles: Path) -> list[dict[str, Any]]:
    """The rows of a store's state, sorted."""
    rows = load(profiles).state
    found: list[dict[str, Any]] = rows.order_by("user_id", "dimension", "value").to_pyarrow().to_pylist()
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(path: tuple[str, ...], run: Any) -> None:
    code, out, err = run(*path, "--help")
    assert (code, err) == (0, "")
    shown = out.split("Example:\n")[1].splitlines()[0].split()
    assert shown[: len(path) + 1] == ["penchant", *path] or shown[:3] == ["accelerate", "launch", *path]
    for parameter in COMMANDS[path].params:
        assert isinstance(parameter, click.Argument) or parameter.help  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [(), ("profile",), ("segment",), ("taxonomy",)])
def test_a_group_alone_says_what_there_is(path: tuple[str, ...], run: Any) -> None:
    code, out, _ = run(*path, "-h")
    assert code == 0
    for name in {each[len(path)] for each in COMMANDS if each[: len(path)] == path}:
        assert f"\n  {name} " in out


def test_each_distinct_text_is_tagged_once_with_the_tags_of_its_words(chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any) -> None:
    code, out, _ = run("tag", chain / "events" / "events.parquet", "--bundle", tiny_bundle, "-o", tmp_path / "tags.parquet")
    assert code == 0
    assert out.startswith("58 rows, 5 distinct texts, 6 tags; 0 texts without a tag, 0 rows without a usable text\n")
    found = pq.read_table(tmp_path / "tags.parquet").to_pylist()
    expected = {(text_key(text), value) for text, values in TEXTS.items() for value in values}
    assert len(found) == len(expected)
    assert {(row["text_key"], row["value"]) for row in found} == expected


def test_a_second_run_is_answered_by_the_cache(chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any) -> None:
    arguments = ("tag", chain / "events", "--bundle", tiny_bundle, "--backend", "torch")
    for name, known in (("first", 0), ("second", 5)):
        code, out, _ = run(*arguments, "-o", tmp_path / f"{name}.jsonl", "--cache", tmp_path / "cache.sqlite")
        assert (code, out.splitlines()[1]) == (0, f"cache: {known} of 5 lookups answered")
    code, out, _ = run(*arguments, "-o", tmp_path / "third.jsonl", "--no-cache")
    assert (code, "cache" in out) == (0, False)
    first, second, third = ((tmp_path / f"{name}.jsonl").read_bytes() for name in ("first", "second", "third"))
    assert first == second == third


def test_a_backend_that_was_not_exported_is_refused(chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any) -> None:
    result = run("tag", chain / "events", "--bundle", tiny_bundle, "--backend", "onnx-int8", "-o", tmp_path / "tags.csv")
    refuses(result, 1, tiny_bundle, "not exported for onnx-int8; run: penchant export")
    assert list(tmp_path.iterdir()) == []


def test_export_without_its_extra_names_it(tiny_bundle: Path, root: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnxruntime" else found(name, *more))
    result = run("export", tiny_bundle, "--config", root / "configs" / "train-interests.yaml")
    refuses(result, 1, "penchant export needs an optional part: pip install 'penchant[onnx]'")


def test_ingest_says_what_came_in_of_every_format(tmp_path: Path, run: Any) -> None:
    write_sources(tmp_path)
    code, out, _ = run("ingest", tmp_path / "mapping.yaml", "-o", tmp_path / "events")
    assert code == 0
    assert out.splitlines()[:4] == [
        "shop: 55 rows, 52 events, 3 rejected",
        "reviews: 3 rows, 3 events, 0 rejected",
        "social: 2 rows, 2 events, 0 rejected",
        "forum<i>: 1 rows, 1 events, 0 rejected",
    ]
    with (tmp_path / "events" / "rejects.csv").open(newline="") as stream:
        assert [(row["row"], row["column"]) for row in csv.DictReader(stream)] == [
            ("54", "event_id"),
            ("55", "event"),
            ("56", "clicked_at"),
        ]
    events = pq.read_table(tmp_path / "events" / "events.parquet").to_pylist()
    assert events[0]["occurred_at"].isoformat() == "2026-03-01T09:00:00+00:00"  # Berlin is an hour ahead in winter
    assert events[-1]["occurred_at"] == LAST


def test_tags_are_equal_in_every_format(chain: Path, text_tags: Path) -> None:
    expected = pq.read_table(chain / "tags.parquet").to_pylist()
    with (text_tags / "tags.csv").open(newline="") as stream:
        from_csv = list(csv.DictReader(stream))
    from_jsonl = [json.loads(line) for line in (text_tags / "tags.jsonl").read_text().splitlines()]
    for found in (from_csv, from_jsonl):
        assert [(row["text_key"], row["dimension"], row["value"]) for row in found] == [
            (row["text_key"], row["dimension"], row["value"]) for row in expected
        ]
        # each run measures which precision is fastest, and bf16 keeps 8 bits
        assert [float(row["score"]) for row in found] == pytest.approx([row["score"] for row in expected], abs=0.02)
        assert all(row["start"] in ("", None) for row in found)


@pytest.mark.parametrize(("events", "tags"), [(".csv", ".jsonl"), (".jsonl", ".csv"), (".tsv", ".tsv"), (".parquet", ".csv")])
def test_profiles_from_text_files_equal_those_from_parquet(
    events: str, tags: str, chain: Path, tiny_taxonomy: Path, tmp_path: Path, run: Any
) -> None:
    tables = [pq.read_table(path) for path in (chain / "events" / "events.parquet", chain / "tags.parquet")]
    names = (tmp_path / f"events{events}", tmp_path / f"tags{tags}")
    for path, table in zip(names, tables, strict=True):
        write_rows(path, table.to_pylist(), table.schema)
    code, out, _ = run("profile", "build", *names, "--taxonomy", tiny_taxonomy, "-o", tmp_path / "profiles")
    assert code == 0
    assert out.startswith(
        "58 events, 56 users, 60 attributes as of 2026-03-29T01:30:00+00:00\n"
    )  # a cat person has two, so has the one with two posts
    assert state(tmp_path / "profiles") == state(chain / "profiles")


def test_profile_show_gives_a_picture_or_json(chain: Path, run: Any) -> None:
    code, out, _ = run("profile", "show", "c1", "--profiles", chain / "profiles", "--top", 1)
    assert code == 0
    assert out.splitlines()[0].startswith("c1  as of 2026-03-29 01:30 UTC, confidence 0.")
    assert out.count("█") == 30
    assert "2026-03-02 reviews/review: A cat and bread" in out
    code, out, _ = run("profile", "show", BOLD, "--profiles", chain / "profiles", "--json")
    found = json.loads(out)
    assert (found["user_id"], found["as_of"]) == (BOLD, "2026-03-29T01:30:00+00:00")
    snippets = {row["value"]: [each["snippet"] for each in row["evidence"]] for row in found["attributes"]}
    assert snippets == {"food.baking": [SCRIPT], "sports.running": ["trail 😀 https://shop.example/run"]}


def test_profile_show_sums_up_habits(chain: Path, tmp_path: Path, run: Any) -> None:
    (tmp_path / "policy.yaml").write_text("habits: true")
    inputs = (chain / "events", chain / "tags.parquet", "--policy", tmp_path / "policy.yaml")
    assert run("profile", "build", *inputs, "-o", tmp_path / "profiles")[0] == 0
    code, out, _ = run("profile", "show", "r00", "--profiles", tmp_path / "profiles")
    assert code == 0
    assert "\nHabits\n" in out
    assert "last seen 0.0 days ago" in out  # theirs was the last event of all
    assert out.count("█") == 30 + 1 + 1  # one interest, the later one's hour, one weekday (both were Sundays)
    found = json.loads(run("profile", "show", "r00", "--profiles", tmp_path / "profiles", "--json")[1])
    assert list(found["habits"]["hours"]) == ["01", "09"]  # in UTC, and the later one first
    assert {row["value"]: row["events"] for row in found["attributes"] if row["dimension"] == "action"} == {"view": 1, "post": 1}


SPANS = (
    ("Run in the rain", "Run", "pets.cats", "brand"),  # called like an interest, and 52 people read it
    ("A cat and bread", "A cat", "a cat", "brand"),
    ("A cat and bread", "bread", "bread", "brand"),
    ("A cat and bread", "bread", "sports.running", "product"),
    ("A cat and bread", "cat", "cat", "place"),
    (SCRIPT, "oven", "pets.cats", "work"),
)


@pytest.fixture(scope="module")
def spanned(chain: Path, tiny_taxonomy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the chain's tags and spans beside them, and profiles of both, whose taxonomy has a Chinese name."""
    before, folder = list(logging.root.handlers), tmp_path_factory.mktemp("spanned")
    named = tiny_taxonomy.read_text(encoding="utf-8").replace("name: Cats", "name: Cats, names: {zh: 猫咪}")
    (folder / "taxonomy.yaml").write_text(named, encoding="utf-8")
    tags = pq.read_table(chain / "tags.parquet")
    spans = [span(text, surface, value, dimension) for text, surface, value, dimension in SPANS]
    pq.write_table(pa.concat_tables([tags, pa.Table.from_pylist(spans, tags.schema)]), folder / "tags.parquet")
    inputs = [str(chain / "events"), str(folder / "tags.parquet"), "--taxonomy", str(folder / "taxonomy.yaml")]
    main(["profile", "build", *inputs, "-o", str(folder / "profiles")])
    logging.root.handlers[:] = before
    return folder


def test_profile_show_draws_every_dimension_with_its_top_and_surfaces(spanned: Path, run: Any) -> None:
    code, out, _ = run("profile", "show", "c1", "--profiles", spanned / "profiles", "--top", 1, "--language", "zh")
    assert code == 0
    headings = [line.split(", confidence")[0] for line in out.splitlines() if ", confidence" in line]
    assert headings == ["c1  as of 2026-03-29 01:30 UTC", "Interests", "Brands", "Products", "Places"]
    assert out.count("█") == 4 * 30
    assert [shown for shown in ("A cat  ", "bread  ", "cat  ") if f"\n{shown}" in out] == ["A cat  ", "bread  ", "cat  "]
    code, out, _ = run("profile", "show", "c1", "--profiles", spanned / "profiles", "--language", "zh")
    assert out.count("█") > 4 * 30  # both interests and both brands
    assert "\n猫咪  " in out
    code, out, _ = run("profile", "show", "c1", "--profiles", spanned / "profiles", "--json", "--language", "zh", "--top", 1)
    labels = {(row["dimension"], row["value"]): row["label"] for row in json.loads(out)["attributes"]}
    assert labels == {
        ("interest", "pets.cats"): "猫咪",
        ("interest", "food.baking"): "Baking",
        ("brand", "a cat"): "A cat",
        ("brand", "bread"): "bread",
        ("product", "sports.running"): "bread",
        ("place", "cat"): "cat",
    }


def test_spans_count_for_no_interest(chain: Path, spanned: Path, run: Any) -> None:
    code, out, _ = run("segment", "size", chain / "cats.yaml", "--profiles", spanned / "profiles")
    assert (code, out) == (0, "cats: fewer than 50 people as of 2026-03-29 01:30 UTC\n")
    assert run("segment", "size", chain / "sporty.yaml", "--profiles", spanned / "profiles")[1].startswith("sporty: 53 people")
    found = [
        json.loads(run("profile", "evaluate", "--profiles", each / "profiles", "--truth", chain / "truth.jsonl")[1])
        for each in (chain, spanned)
    ]
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def span_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of spans that can be told by eye."""
    return write_span_bundle(tmp_path_factory.mktemp("spans") / "bundle")


def test_two_bundles_tag_for_profiles_of_interests_and_names(
    chain: Path, tiny_bundle: Path, span_bundle: Path, tmp_path: Path, run: Any
) -> None:
    both = ("--bundle", tiny_bundle, "--bundle", span_bundle)
    code, out, _ = run("tag", chain / "events", *both, "-o", tmp_path / "tags.parquet")
    assert code == 0
    # the six tags of interests, an oven and a shoe
    assert out.startswith("58 rows, 5 distinct texts, 8 tags; 0 texts without a tag, 0 rows without a usable text\n")
    metadata = pq.read_schema(tmp_path / "tags.parquet").metadata
    assert metadata[b"penchant.bundle"].decode() == f"{load_spec(tiny_bundle).fingerprint}+{load_spec(span_bundle).fingerprint}"
    assert run("profile", "build", chain / "events", tmp_path / "tags.parquet", "-o", tmp_path / "profiles")[0] == 0
    for user, expected in (
        ("r00", {("interest", "sports.running"), ("product", "shoe")}),
        (BOLD, {("interest", "sports.running"), ("interest", "food.baking"), ("product", "oven")}),
        ("c0", {("interest", "pets.cats"), ("interest", "food.baking")}),
    ):
        found = json.loads(run("profile", "show", user, "--profiles", tmp_path / "profiles", "--json")[1])
        assert {(row["dimension"], row["value"]) for row in found["attributes"]} == expected
    shown = run("profile", "show", "r00", "--profiles", tmp_path / "profiles")[1]
    assert [line.split(", confidence")[0] for line in shown.splitlines() if ", confidence" in line][1:] == ["Interests", "Products"]
    assert "shop/view" in shown
    assert "forum<i>/post: my shoe" in shown


LABELLED = [
    {"text": "run in the rain", "interests": ["sports.running"], "spans": []},
    {"text": "a cat and bread", "interests": ["pets.cats", "food.baking"], "spans": []},
    {"text": "my shoe", "interests": ["sports.running"], "spans": [{"start": 3, "end": 7, "dimension": "product"}]},
    {"text": "Nike in Paris", "interests": [], "spans": [{"start": 0, "end": 4, "dimension": "brand"}]},
] * 5
"""The tiny bundle is right in all; the one of spans finds a place that nobody marked."""


@pytest.fixture
def compared(tiny_bundle: Path, span_bundle: Path, tmp_path: Path) -> dict[str, Path]:
    """Labelled texts as `data`, and bundles: `a`, `b` that hardly ever tags, `other` with other labels, `spans`."""
    write_rows(tmp_path / "data.jsonl", LABELLED)
    for name, changes in (("b", {"thresholds": (1.0, 0.5, 1.0)}), ("other", {"labels": ("sports.running", "pets.cats", "faith")})):
        shutil.copytree(tiny_bundle, tmp_path / name)
        save_spec(tmp_path / name, load_spec(tiny_bundle).model_copy(update=changes))
    return {name: tmp_path / name for name in ("b", "other")} | {"a": tiny_bundle, "spans": span_bundle, "data": tmp_path / "data.jsonl"}


def test_compare_says_which_bundle_is_better(compared: dict[str, Path], run: Any) -> None:
    code, out, _ = run("compare", compared["a"], compared["b"], "--data", compared["data"])
    assert code == 0
    lines = out.splitlines()
    assert lines[:3] == [f"A {compared['a']}", f"B {compared['b']}", "20 texts"]
    # B misses running and baking: cats alone of three, and 5 of 20 tags, so 2 · 5 / (5 + 20)
    assert lines[3].startswith("macro F1 of interests: A 1.0000, B 0.3333; A − B +0.6667 (95% +0.")
    assert lines[4].startswith("micro F1 of interests: A 1.0000, B 0.4000; A − B +0.6000 (95% +0.")
    assert all(line.endswith(": A is better") for line in lines[3:])
    code, out, _ = run("compare", compared["spans"], compared["spans"], "--data", compared["data"], "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"texts", "spans"}
    # ten names are right, and five places are wrong: 2 · 10 / (15 + 10)
    assert found["spans"]["micro"] == {"one": 0.8, "other": 0.8, "difference": 0.0, "interval": [0.0, 0.0], "p": 1.0}


def test_compare_reads_texts_as_settings_lay_them_out(compared: dict[str, Path], tmp_path: Path, run: Any) -> None:
    write_rows(tmp_path / "data.csv", [{"review": row["text"], "topics": ";".join(row["interests"])} for row in LABELLED])
    (tmp_path / "settings.yaml").write_text("train: x.csv\noutput: x\ncolumns: {text: [review], labels: topics}\n")
    arguments = ("compare", compared["a"], compared["b"], "--data", tmp_path / "data.csv")
    refuses(run(*arguments), 1, tmp_path / "data.csv", "no column 'text'; it has 'review', 'topics'")
    assert (
        run(*arguments, "--config", tmp_path / "settings.yaml")[1].splitlines()[3].startswith("macro F1 of interests: A 1.0000, B 0.3333")
    )


@pytest.mark.parametrize(
    ("a", "b", "text", "shown"),
    [
        ("a", "other", None, ("the bundles' interests differ in faith, food.baking",)),
        ("a", "spans", None, ("finds interests", "spans: nothing to compare")),
        (
            "a",
            "b",
            {"text": "x", "interests": ["sports.runing"]},
            (":21: unknown interest 'sports.runing'", "did you mean 'sports.running'"),
        ),
        (
            "spans",
            "spans",
            {"text": "x", "spans": [{"start": 0, "end": 1, "dimension": "plaec"}]},
            (":21: unknown type of span 'plaec'", "'place'"),
        ),
        (
            "spans",
            "spans",
            {"text": "x", "spans": [{"start": 0, "end": 9, "dimension": "place"}]},
            (":21: span 0–9 (place) doesn't lie in",),
        ),
        ("a", "b", {"text": "x"}, (":21: no column 'interests'",)),
    ],
)
def test_compare_refuses_what_can_not_be_compared(
    a: str, b: str, text: dict[str, Any] | None, shown: tuple[str, ...], compared: dict[str, Path], run: Any
) -> None:
    if text is not None:
        with compared["data"].open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(text) + "\n")
    refuses(run("compare", compared[a], compared[b], "--data", compared["data"]), 1, *shown)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps one state per process; a run of the command line is a process of its own."""
    from accelerate.state import AcceleratorState, GradientState

    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def settings_path(tiny_model: Path, tiny_taxonomy: Path, tmp_path: Path) -> Path:
    """Settings of a short run of the tiny model over 48 texts."""
    write_rows(tmp_path / "train.jsonl", labelled(48, 0))
    values: dict[str, Any] = {"model": str(tiny_model), "train": str(tmp_path / "train.jsonl"), "output": str(tmp_path / "run")}
    values |= {"taxonomy": str(tiny_taxonomy), "labels": list(TOPICS), "epochs": 1, "batch_size": 8, "max_length": 32, "probe_epochs": 1}
    values |= {"mixed_precision": "no", "leaks": "allow", "baselines": [], "validation_share": 0.25}
    (tmp_path / "settings.yaml").write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return tmp_path / "settings.yaml"


@pytest.mark.usefixtures("fresh_accelerate")
def test_validate_trains_and_tests_once_per_fold(settings_path: Path, tmp_path: Path, run: Any) -> None:
    code, out, _ = run("validate", "--config", settings_path, "--folds", 2)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "2 folds, split: random"
    assert [line.split("  ")[0] for line in lines[1:3]] == ["macro F1 of interests", "micro F1 of interests"]
    assert lines[3] == f"folds: {tmp_path / 'run' / 'folds'}"
    # 24 of 48 rows are tested in each, and a quarter of the other 24 set aside
    found = json.loads((tmp_path / "run" / "folds" / "validation.json").read_text(encoding="utf-8"))
    assert found["rows"] == [{"train": 18, "validation": 6, "test": 24}] * 2
    assert {each.name for each in (tmp_path / "run" / "folds").iterdir()} == {"1", "2", "validation.json"}


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize(
    ("more", "shown"),
    [
        (("--folds", 49), "train.jsonl: can't be split in 49 folds"),
        (("--set", "split=group", "--set", "columns.group=user"), ":1: has no group, which the split goes by"),
        (("--set", "split=time", "--set", "columns.time=at"), ":1: has no time, which the split goes by"),
        (("--set", "labels=[faith]"), "no row is labelled 'faith'"),
        (("--set", "batch_size=64"), "18 training rows are fewer than batch_size 64"),
    ],
)
def test_validate_refuses_before_it_trains(more: tuple[object, ...], shown: str, settings_path: Path, tmp_path: Path, run: Any) -> None:
    before = everything_in(tmp_path)
    refuses(run("validate", "--config", settings_path, *(more if "--folds" in more else (*more, "--folds", 2))), 1, shown)
    assert everything_in(tmp_path) == before


def test_profile_build_as_of_an_earlier_time_knows_nothing_later(chain: Path, tmp_path: Path, run: Any) -> None:
    arguments = ("profile", "build", chain / "events", chain / "tags.parquet", "-o", tmp_path / "profiles")
    code, out, _ = run(*arguments, "--as-of", "2026-03-01T10:09:30+01:00")
    assert code == 0
    assert out.startswith("10 events, 10 users, 10 attributes as of 2026-03-01T09:09:30+00:00\n")  # one a minute from 9 o'clock UTC on


def test_evaluate_prints_the_figures(chain: Path, run: Any) -> None:
    code, out, _ = run("profile", "evaluate", "--profiles", chain / "profiles", "--truth", chain / "truth.jsonl")
    assert code == 0
    # hits: running of 1; cats and baking of 2; baking, but not cats, of 2
    expected = {"users": 3, "precision_at_3": 4 / 9, "recall_at_3": 2.5 / 3, "after_a_change": {"changed_users": 0}}
    assert json.loads(out) == {key: pytest.approx(value) for key, value in expected.items()}


def test_a_segment_is_sized_and_exported_with_its_label(chain: Path, tmp_path: Path, run: Any) -> None:
    records = ("--records", tmp_path / "records")
    code, out, _ = run("segment", "size", chain / "sporty.yaml", "--profiles", chain / "profiles")
    assert (code, out) == (0, "sporty: 53 people as of 2026-03-29 01:30 UTC\n")
    code, out, _ = run(
        "segment", "export", chain / "sporty.yaml", "--profiles", chain / "profiles", *records, "-o", tmp_path / "sporty.csv"
    )
    assert (code, out) == (0, f"53 people: {tmp_path / 'sporty.csv'}\n")
    with (tmp_path / "sporty.csv").open(newline="") as stream:
        people = list(csv.DictReader(stream))
    assert list(people[0]) == ["user_id", "weight", "last_at"]
    assert sorted(row["user_id"] for row in people) == sorted([*RUNNERS, BOLD])
    assert datetime.fromisoformat(next(row["last_at"] for row in people if row["user_id"] == "r00")) == datetime(
        2026, 3, 29, 1, 30, tzinfo=UTC
    )
    weights = [float(row["weight"]) for row in people]
    assert weights == sorted(weights, reverse=True)
    label = json.loads((tmp_path / "sporty.csv.label.json").read_text())
    assert (label["audience"]["name"], label["audience"]["count"], label["penchant"]["rule"]) == ("sporty", 53, "interest:sports")


def test_an_audience_under_the_minimum_is_neither_counted_nor_exported(chain: Path, tmp_path: Path, run: Any) -> None:
    records = ("--records", tmp_path / "records")
    code, out, _ = run("segment", "size", chain / "cats.yaml", "--profiles", chain / "profiles")
    assert (code, out) == (0, "cats: fewer than 50 people as of 2026-03-29 01:30 UTC\n")
    code, out, err = run("segment", "export", chain / "cats.yaml", "--profiles", chain / "profiles", *records, "-o", tmp_path / "cats.csv")
    assert (code, out) == (1, "")
    assert err.startswith("error: segment 'cats' has fewer than 50 people, under the minimum of 50 for csv")
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_sensitive_interests_reach_neither_profiles_nor_segments(chain: Path, tiny_taxonomy: Path, tmp_path: Path, run: Any) -> None:
    marked = tmp_path / "taxonomy.yaml"
    marked.write_text(tiny_taxonomy.read_text().replace("{id: pets, name: Pets}", "{id: pets, name: Pets, sensitive: true}"))
    profiles = tmp_path / "profiles"
    assert run("profile", "build", chain / "events", chain / "tags.parquet", "--taxonomy", marked, "-o", profiles)[0] == 0
    assert {row["value"] for row in state(profiles)} == {"sports.running", "food.baking"}
    for user in CAT_PEOPLE:
        shown = json.loads(run("profile", "show", user, "--profiles", profiles, "--json")[1])
        assert [row["value"] for row in shown["attributes"]] == ["food.baking"]
    for command in (("size",), ("export", "--records", tmp_path / "records", "-o", tmp_path / "cats.csv")):
        code, out, err = run("segment", *command, chain / "cats.yaml", "--profiles", profiles)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {chain / 'cats.yaml'}: pets.cats: sensitive.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profiles", "taxonomy.yaml"]


def test_running_the_chain_again_gives_the_same_profiles(chain: Path, tmp_path: Path, run: Any) -> None:
    write_sources(tmp_path)
    shutil.copy(chain / "tags.parquet", tmp_path / "tags.parquet")  # a new run might measure another precision
    for _ in range(2):  # the second replaces what the first wrote
        assert run("ingest", tmp_path / "mapping.yaml", "-o", tmp_path / "events")[0] == 0
        assert run("profile", "build", tmp_path / "events", tmp_path / "tags.parquet", "-o", tmp_path / "profiles")[0] == 0
    for name in ("events/events.parquet", "events/rejects.csv", "events/summary.json"):
        assert (tmp_path / name).read_bytes() == (chain / name).read_bytes()
    assert state(tmp_path / "profiles") == state(chain / "profiles")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in chain.iterdir())


def refuses(result: tuple[int, str, str], code: int, *shown: object) -> None:
    """Check that a command ended with `code` and one message that shows what was wrong."""
    found, out, err = result
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    assert sum(line.lower().startswith("error:") for line in err.splitlines()) == 1
    message = err[err.lower().index("error:") :]
    for each in shown:
        assert str(each) in message


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_an_unknown_option_is_named(path: tuple[str, ...], run: Any) -> None:
    refuses(run(*path, "--colour"), 2, "No such option", "--colour")


@pytest.mark.parametrize("words", [["profil"], ["profile", "biuld"], ["segment", "delete"]])
def test_an_unknown_command_is_named(words: list[str], run: Any) -> None:
    refuses(run(*words), 2, repr(words[-1]))


READS = {
    "train": "train --config {bad} --restart",
    "compress": "compress {bundle} --config {bad} --restart",
    "compress a bundle": "compress {bad}",
    "export a bundle": "export {bad}",
    "export by settings": "export {bundle} --config {bad}",
    "ingest": "ingest {bad} -o {out}",
    "tag": "tag {bad} --bundle {bundle} -o {out}.csv",
    "tag with a bundle": "tag {events} --bundle {bad} -o {out}.csv",
    "tag with a second bundle": "tag {events} --bundle {bundle} --bundle {bad} -o {out}.csv",
    "validate": "validate --config {bad} --folds 2",
    "compare one": "compare {bad} {bundle} --data {truth}",
    "compare another": "compare {bundle} {bad} --data {truth}",
    "compare on texts": "compare {bundle} {bundle} --data {bad}",
    "compare by settings": "compare {bundle} {bundle} --data {truth} --config {bad}",
    "build from events": "profile build {bad} {tags} -o {out}",
    "build from tags": "profile build {events} {bad} -o {out}",
    "build by a policy": "profile build {events} {tags} --policy {bad} -o {out}",
    "build with a taxonomy": "profile build {events} {tags} --taxonomy {bad} -o {out}",
    "evaluate a truth": "profile evaluate --profiles {profiles} --truth {bad}",
    "update by events": "profile update {bad} {tags} --profiles {profiles}",
    "update by tags": "profile update {events} {bad} --profiles {profiles}",
    "fuse events": "profile fuse {bad} {tags} -o {out}",
    "fuse tags": "profile fuse {events} {bad} -o {out}",
    "migrate by tags": "profile migrate --profiles {profiles} --tags {bad}",
    "size": "segment size {bad} --profiles {profiles}",
    "export": "segment export {bad} --profiles {profiles} --records {out} -o {out}.csv",
    "taxonomy check": "taxonomy check {bad}",
    "taxonomy import": "taxonomy import {bad} -o {out}",
    "report": "report --config {bad} -o {out}",
}


STORES = {
    "show": "profile show r00 --profiles {bad}",
    "evaluate": "profile evaluate --profiles {bad} --truth {truth}",
    "update": "profile update {events} {tags} --profiles {bad}",
    "migrate": "profile migrate --profiles {bad}",
    "history": "profile history --profiles {bad}",
    "restore": "profile restore 0 --profiles {bad}",
    "vacuum": "profile vacuum --profiles {bad}",
    "check": "profile check --profiles {bad}",
    "table": "profile table --profiles {bad} -o {out}",
    "size": "segment size {sporty} --profiles {bad}",
}


@pytest.fixture
def fill(chain: Path, tiny_bundle: Path, tmp_path: Path) -> Any:
    """A function that puts this test's paths into a line of `READS`."""
    names = ("events", "profiles")
    known = {name: chain / name for name in names} | {"tags": chain / "tags.parquet", "truth": chain / "truth.jsonl", "bundle": tiny_bundle}
    known["sporty"] = chain / "sporty.yaml"
    return lambda line, bad: [each.format(bad=bad, out=tmp_path / "out", **known) for each in line.split()]


@pytest.mark.parametrize("line", READS.values(), ids=READS)
def test_a_missing_file_is_named(line: str, fill: Any, tmp_path: Path, run: Any) -> None:
    refuses(run(*fill(line, tmp_path / "absent.file")), 2, tmp_path / "absent.file", "does not exist")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", STORES.values(), ids=STORES)
@pytest.mark.parametrize("kind", ["absent", "empty", "folder", "file"])
def test_what_is_no_store_is_named(kind: str, line: str, fill: Any, tmp_path: Path, run: Any) -> None:
    bad = tmp_path / "bad"
    if kind in ("empty", "folder"):
        bad.mkdir()
    if kind in ("folder", "file"):
        (bad / "events.parquet" if kind == "folder" else bad).write_bytes(b"PAR1")
    before = everything_in(tmp_path)
    refuses(run(*fill(line, bad)), 1, f"{bad}: no profiles", "penchant profile build")
    assert everything_in(tmp_path) == before


def test_profiles_are_updated_checked_and_brought_back(chain: Path, tmp_path: Path, run: Any) -> None:
    events, profiles = pq.read_table(chain / "events" / "events.parquet").to_pylist(), tmp_path / "profiles"
    half = write_rows(tmp_path / "half.parquet", events[::2], EVENTS)
    tags = chain / "tags.parquet"
    assert run("profile", "build", half, tags, "-o", profiles)[0] == 0
    earlier = state(profiles)
    arguments = ("profile", "update", chain / "events", tags, "--profiles", profiles)
    code, out, _ = run(*arguments)
    assert (code, out.splitlines()[0]) == (0, "29 new events of 29 users, 29 known already; as of 2026-03-29T01:30:00+00:00")
    assert [row["mass_lasting"] for row in state(profiles)] == pytest.approx([row["mass_lasting"] for row in state(chain / "profiles")])
    assert run(*arguments)[1].startswith("0 new events of 0 users, 58 known already; as of 2026-03-29")
    assert run("profile", "check", "--profiles", profiles)[1].startswith("60 attributes, 0 unequal, largest difference of a mass ")
    code, out, _ = run("profile", "history", "--profiles", profiles)
    assert [line.split()[0] for line in out.splitlines()] == ["1", "0"]
    assert [line.split()[3] for line in out.splitlines()] == ["update", "build"]
    assert run("profile", "restore", 0, "--profiles", profiles)[:2] == (0, f"restored version 0: {profiles}\n")
    assert state(profiles) == earlier
    assert run("profile", "restore", 2, "--profiles", profiles)[1] == f"nothing to do, the current one is version 2: {profiles}\n"
    code, out, _ = run("profile", "migrate", "--profiles", profiles)
    assert out.startswith("29 events, ")
    assert (
        run("profile", "vacuum", "--profiles", profiles, "--dry-run")[1] == f"0 files put together, 0 files would be deleted: {profiles}\n"
    )
    code, out, _ = run("profile", "table", "--profiles", profiles, "--evidence", "-o", tmp_path / "view.parquet")
    view = pq.read_table(tmp_path / "view.parquet")
    assert (code, out) == (0, f"{len(view)} rows: {tmp_path / 'view.parquet'}\n")
    assert all(1 <= len(each) <= 5 for each in view["evidence"].to_pylist())


@pytest.mark.parametrize("name", [name for name in READS if name not in ("build by a policy", "update by events")])
def test_an_empty_file_is_named(name: str, fill: Any, tmp_path: Path, run: Any) -> None:
    (tmp_path / "empty.file").touch()
    refuses(run(*fill(READS[name], tmp_path / "empty.file")), 1, tmp_path / "empty.file")
    assert everything_in(tmp_path) == {"empty.file": b""}


def test_an_empty_policy_is_the_defaults(chain: Path, tmp_path: Path, run: Any) -> None:
    (tmp_path / "policy.yaml").touch()
    arguments = ("profile", "build", chain / "events", chain / "tags.parquet", "-o", tmp_path / "profiles")
    assert run(*arguments, "--policy", tmp_path / "policy.yaml")[0] == 0
    assert load(tmp_path / "profiles").policy == load(chain / "profiles").policy


@pytest.mark.parametrize("line", READS.values(), ids=READS)
def test_bytes_that_are_no_text_are_refused_with_the_file_named(line: str, fill: Any, tmp_path: Path, run: Any) -> None:
    content = bytes(range(256)) * 8
    (tmp_path / "bad.file").write_bytes(content)
    refuses(run(*fill(line, tmp_path / "bad.file")), 1, tmp_path / "bad.file")
    assert everything_in(tmp_path) == {"bad.file": content}


@pytest.mark.parametrize(
    ("name", "header", "missing"),
    [
        ("tag", "id,words", "text, title or body"),
        ("build from events", "event_id,occurred_at,source,action,title,text_key", "user_id"),
        ("build from tags", "text_key,dimension,value", "score"),
        ("evaluate a truth", "user_id,likes", "interests"),
        ("taxonomy import", "Name,Tier 1", "Unique ID"),
    ],
)
def test_a_missing_column_is_named(name: str, header: str, missing: str, fill: Any, tmp_path: Path, run: Any) -> None:
    (tmp_path / "bad.csv").write_text(f"{header}\n{','.join('x' for _ in header.split(','))}\n")
    before = everything_in(tmp_path)
    refuses(run(*fill(READS[name], tmp_path / "bad.csv")), 1, tmp_path / "bad.csv", missing)
    assert everything_in(tmp_path) == before


def test_a_bundle_whose_weights_changed_is_refused(chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    with (tmp_path / "bundle" / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    result = run("tag", chain / "events", "--bundle", tmp_path / "bundle", "-o", tmp_path / "tags.csv")
    refuses(result, 1, tmp_path / "bundle" / "model.safetensors", "missing or damaged")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_profiles_damaged_in_their_middle_end_in_one_message(chain: Path, tmp_path: Path, run: Any) -> None:
    shutil.copytree(chain / "profiles", tmp_path / "profiles")
    for state in (tmp_path / "profiles" / "part=state").rglob("*.parquet"):
        whole = state.read_bytes()
        state.write_bytes(whole[:4] + b"\xff" * (len(whole) // 3) + whole[4 + len(whole) // 3 :])
    refuses(run("profile", "show", "r00", "--profiles", tmp_path / "profiles"), 1, tmp_path / "profiles" / "part=state", "damaged")
    refuses(run("segment", "size", chain / "sporty.yaml", "--profiles", tmp_path / "profiles"), 1, "the data can't be read")


def test_a_bundle_whose_thresholds_were_edited_is_refused(chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    spec = json.loads((tmp_path / "bundle" / "tagger.json").read_text())
    (tmp_path / "bundle" / "tagger.json").write_text(json.dumps(spec | {"thresholds": [0.5, 0.5, 0.1]}))
    result = run("tag", chain / "events", "--bundle", tmp_path / "bundle", "-o", tmp_path / "tags.csv")
    refuses(result, 1, tmp_path / "bundle" / "tagger.json", "edited by hand", spec["fingerprint"])
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("tagger.json", "[]"), ("tagger.json", "{"), ("tokenizer.json", "{}"), ("tokenizer.json", "{"), ("config.json", "{")],
)
def test_a_bundle_with_a_damaged_file_is_refused(name: str, content: str, chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / name).write_text(content)
    refuses(run("tag", chain / "events", "--bundle", tmp_path / "bundle", "-o", tmp_path / "tags.csv"), 1, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("user", ["r52", "R00", ""])
def test_an_unknown_user_is_named(user: str, chain: Path, run: Any) -> None:
    refuses(run("profile", "show", user, "--profiles", chain / "profiles"), 1, f"user {user!r}", repr(BOLD))


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ("{interest: sport.running}", ("unknown interest 'sport.running'", "did you mean 'sports.running'")),
        ("{interest: sports, sources: [shpo]}", ("unknown source 'shpo'", "did you mean 'shop'")),
        ("{interest: faith}", ("faith: sensitive",)),
        ("{not: {interest: sports}}", ("people nothing is known of",)),
        ("{interest: sports, wieght: {min: 0.1}}", ("wieght", "did you mean 'weight'")),
        ("{interest: sports, weight: {min: heavy}}", ("rule.weight.min", "'heavy'")),
        ("interest:sports weight>=heavy", ("rule, character 25: 'heavy' can't stand here",)),
        ("{interest: sports", ("not valid YAML",)),
    ],
)
@pytest.mark.parametrize("command", ["size", "export"])
def test_a_rule_that_can_not_be_used_is_refused(
    command: str, rule: str, shown: tuple[str, ...], chain: Path, tmp_path: Path, run: Any
) -> None:
    (tmp_path / "rule.yaml").write_text(f"name: x\npurpose: test\nrule: {rule}\n")
    before = everything_in(tmp_path)
    more = ("--records", tmp_path / "records", "-o", tmp_path / "out.csv") if command == "export" else ()
    refuses(run("segment", command, tmp_path / "rule.yaml", "--profiles", chain / "profiles", *more), 1, tmp_path / "rule.yaml", *shown)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("line", "code", "shown"),
    [
        ("tag {events} --bundle {bundle} -o {out}.xlsx", 1, "out.xlsx: can't tell the format from the name"),
        ("tag {events} --bundle {bundle}", 2, "Missing option '-o'"),
        ("profile build {events} {tags} -o {out} --as-of tomorrow", 2, "'tomorrow' is no time; write it like 2026-03-31"),
        ("profile build {events} {tags} -o {out} --as-of 9999-12-31T23:59-10:00", 2, "'9999-12-31T23:59-10:00' is no time"),
        ("profile show r00 --profiles {profiles} --top 0", 2, "0 is not in the range"),
        ("profile show r00 --profiles {profiles} --language zh", 1, "--language: no interest has a name in 'zh'"),
        ("tag {events} --bundle {bundle} --bundle {bundle} -o {out}.csv", 1, "writes tags of dimension 'interest', and so does"),
        ("validate --config {bad} --folds 1", 2, "1 is not in the range x>=2"),
        ("validate --config {bad} --set split=group", 1, "split: group needs columns.group"),
        ("compare {bundle} {bundle}", 2, "Missing option '--data'"),
        ("compare {bundle} --data {truth}", 2, "Missing argument 'B'"),
        ("train --config {bad} --set epochs", 1, "--set 'epochs': expected key=value"),
        ("train --config {bad} --set epoch=3", 1, "unknown key 'epoch'; did you mean 'epochs'"),
    ],
)
def test_a_wrong_value_is_shown_with_what_would_work(line: str, code: int, shown: str, fill: Any, tmp_path: Path, run: Any) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("train: train.jsonl\noutput: run\n")
    before = everything_in(tmp_path)
    refuses(run(*fill(line, settings)), code, shown)
    assert everything_in(tmp_path) == before


WRITES = ("ingest {mapping} -o {at}", "profile build {events} {tags} -o {at}", "tag {events} --bundle {bundle} -o {at}")


@pytest.mark.parametrize("line", [*WRITES, "segment export {rule} --profiles {profiles} --records {records} -o {at}"])
@pytest.mark.parametrize("where", ["under a file", "over other things"])
def test_what_can_not_be_written_is_refused_and_nothing_is_lost(
    line: str, where: str, chain: Path, tiny_bundle: Path, tmp_path: Path, run: Any
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.csv" / "photo").write_text("precious")
    before = everything_in(tmp_path)
    at = tmp_path / ("file/out.csv" if where == "under a file" else "folder.csv")
    known = {name: chain / name for name in ("events", "profiles")} | {"tags": chain / "tags.parquet", "bundle": tiny_bundle}
    known |= {"mapping": chain / "mapping.yaml", "rule": chain / "sporty.yaml", "at": at, "records": tmp_path / "records"}
    code, _, err = run(*[each.format(**known) for each in line.split()])
    assert code == 1
    assert f"error: {at}" in err
    assert everything_in(tmp_path) == before


def test_an_interrupted_command_says_how_to_go_on(chain: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penchant.profiles.store.copied", interrupted)
    code, out, err = run("profile", "build", chain / "events", chain / "tags.parquet", "-o", tmp_path / "profiles")
    assert (code, out) == (130, "")
    assert err.strip() == "interrupted; run the same command again to go on"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_it_without_a_word(chain: Path) -> None:
    code = (
        "import os, sys; from penchant.cli import main; read, write = os.pipe(); os.close(read); os.dup2(write, 1);"
        "main(['profile', 'show', 'r00', '--json', '--profiles', sys.argv[1]])"
    )
    found = subprocess.run([sys.executable, "-c", code, chain / "profiles"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (1, "")


def test_a_terminal_without_the_characters_shows_their_codes(chain: Path) -> None:
    command = [sys.executable, "-m", "penchant", "profile", "show", "r00", "--profiles", chain / "profiles"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (found.returncode, found.stderr) == (0, "")
    assert "\\u2588 weight" in found.stdout  # the end of a bar


def test_the_module_runs_as_a_program() -> None:
    found = subprocess.run([sys.executable, "-m", "penchant", "tags"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "No such command 'tags'" in found.stderr
    assert "Traceback" not in found.stderr
