"""Training: it learns, and a killed run ends with the weights of an unbroken one."""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel

from penchant.config import load
from penchant.errors import ConfigError, DataError, PenchantError
from penchant.tagging.bundle import SPAN_HEAD
from penchant.tagging.tagger import Tagger
from penchant.training import checkpoint
from penchant.training.evaluation import finish
from penchant.training.loop import out_of_patience, run_name, train
from penchant.training.settings import TrainSettings
from tests.training.conftest import write_rows

SettingsFile = Callable[..., Path]


class Killed(Exception):  # noqa: N818
    """Stands for a kill inside this process."""


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state per process; each run here is a program of its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run(path: Path, *overrides: str, restart: bool = False) -> dict[str, Any]:
    """Train to the end; the figures."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    settings = load(TrainSettings, path, overrides)
    figures = finish(train(settings, restart), settings)
    assert figures is not None
    return figures


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a run's bundle."""
    found: dict[str, torch.Tensor] = load_file(folder / "bundle" / "model.safetensors")
    return found


def same_weights(one: Path, other: Path) -> bool:
    """Bit for bit, of both heads."""
    left, right = weights(one), weights(other)
    heads = [(folder / "bundle" / SPAN_HEAD) for folder in (one, other)]
    if heads[0].exists() and heads[0].read_bytes() != heads[1].read_bytes():
        return False
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_learns_and_ships_a_bundle_that_tags(settings_file: SettingsFile, tmp_path: Path, tiny_bundle: Path) -> None:
    encoder = tmp_path / "encoder"  # the hand-made bundle without its classifier: what is left to learn is the classifier
    BertModel.from_pretrained(tiny_bundle).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(tiny_bundle).save_pretrained(encoder)
    figures = run(settings_file(model=str(encoder), epochs=30, patience=30, learning_rate=1e-4, head_learning_rate=0.03))
    assert figures["results"]["bert"]["all"]["macro"]["f1"] > 0.85
    assert figures["results"]["bert"]["all"]["none"]["f1"] > 0.9
    assert set(figures["results"]["bert"]) == {"all", "title", "post"}
    tagger = Tagger(tmp_path / "run" / "bundle", "no")
    found = tagger.tag(["k"], ["the trail marathon shoe"])
    assert found["value"].to_pylist() == ["sports.running"]
    assert {"report.html", "report.json", "report.txt"} == {each.name for each in (tmp_path / "run" / "report").iterdir()}
    assert "| macro over interests |" in (tmp_path / "run" / "bundle" / "README.md").read_text(encoding="utf-8")


def test_spans_are_learned_and_the_bundle_finds_them_at_their_characters(settings_file: SettingsFile, tmp_path: Path) -> None:
    figures = run(settings_file(task="spans", epochs=12, patience=12, weight_average=0.8, mark_capitals=True))
    assert figures["spans"]["decoded"]["micro"]["f1"] > 0.95
    assert set(figures["spans"]["decoded"]["per_type"]) == {"product", "place"}
    assert figures["spans"]["expressible"] == 1.0
    assert "results" not in figures
    tagger = Tagger(tmp_path / "run" / "bundle", "no")
    text = "rain late " * 20 + "my SHOE and the trail"  # longer than a window
    found = tagger.tag(["k"], [text]).to_pylist()
    assert [(row["dimension"], row["value"], text[row["start"] : row["end"]]) for row in found] == [
        ("product", "shoe", "SHOE"),
        ("place", "trail", "trail"),
    ]
    assert {"report.html", "report.json", "report.txt"} == {each.name for each in (tmp_path / "run" / "report").iterdir()}
    assert "spans: product" in (tmp_path / "run" / "bundle" / "README.md").read_text(encoding="utf-8")


def test_one_model_learns_both_tasks(settings_file: SettingsFile, tmp_path: Path) -> None:
    figures = run(settings_file(task="both", epochs=25, patience=25, head_learning_rate=0.02, stride=4, max_length=16))
    assert figures["spans"]["decoded"]["micro"]["f1"] > 0.95
    assert figures["results"]["bert"]["all"]["macro"]["f1"] > 0.6
    tags = Tagger(tmp_path / "run" / "bundle", "no").tag(["k"], ["the trail marathon shoe"]).to_pylist()
    assert [(row["dimension"], row["value"]) for row in tags if row["dimension"] != "interest"] == [("place", "trail"), ("product", "shoe")]
    assert next(row["value"] for row in tags if row["dimension"] == "interest") == "sports.running"


def test_chinese_is_learned_character_by_character_in_both_scripts(
    settings_file: SettingsFile, tmp_path: Path, character_model: Path
) -> None:
    draw = random.Random(2)
    topics = {"sports.running": "跑步鞋", "pets.cats": "猫咪粮", "food.baking": "手机"}  # a baker's phone will do
    for name, count in {"train": 120, "validation": 40, "test": 40}.items():
        rows = []
        for _ in range(count):
            topic, brand = draw.choice(sorted(topics)), draw.choice(["华为", "小米", "耐克"])
            text = (
                f"{draw.choice(['我', '只', ''])}{draw.choice(['买了', '用'])}{brand}{topics[topic]}{draw.choice(['很好', '下雨', '的'])}"
            )
            start = text.index(brand)
            rows.append({"text": text, "interests": [topic], "spans": [{"start": start, "end": start + 2, "dimension": "brand"}]})
        write_rows(tmp_path / f"{name}.jsonl", rows)
    options = {"epochs": 12, "patience": 12, "head_learning_rate": 0.02, "simplify_chinese": True}
    figures = run(settings_file(task="both", model=str(character_model), **options))
    assert figures["spans"]["decoded"]["micro"]["f1"] > 0.95
    tagger = Tagger(tmp_path / "run" / "bundle", "no")
    text = "我買了華為跑步鞋"  # traditional characters, of which the vocabulary has none
    traditional, plain = (tagger.tag(["k"], [each]).to_pylist() for each in (text, "我买了华为跑步鞋"))
    assert traditional == plain
    (brand,) = (row for row in traditional if row["dimension"] == "brand")
    assert (brand["value"], text[brand["start"] : brand["end"]]) == ("华为", "華為")


@pytest.mark.parametrize(("task", "accumulation", "average"), [("interests", 1, 0.0), ("both", 2, 0.9), ("spans", 1, 0.9)])
def test_broken_off_at_every_checkpoint_it_ends_with_the_same_weights(
    settings_file: SettingsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, accumulation: int, average: float
) -> None:
    options = {"checkpoint_steps": 1, "task": task, "accumulation_steps": accumulation, "weight_average": average}
    unbroken, broken = (settings_file(name, **options) for name in ("unbroken", "broken"))
    run(unbroken)
    saved: list[int] = []
    real = checkpoint.save

    def save_then_die(accelerator: Any, folder: Path, progress: dict[str, Any]) -> None:
        real(accelerator, folder, progress)
        saved.append(progress["step"])
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    # 96 rows in batches of 16 are 6 steps an epoch; the end of an epoch saves once more than its last step does not
    for _ in range(12):
        with pytest.raises(Killed):
            run(broken)
    monkeypatch.setattr(checkpoint, "save", real)
    run(broken)
    assert saved == list(range(1, 13))
    assert same_weights(tmp_path / "unbroken", tmp_path / "broken")


def test_ten_sigkills_at_random_moments_leave_the_weights_of_an_unbroken_run(
    settings_file: SettingsFile, tmp_path: Path, root: Path
) -> None:
    options = {"task": "both", "checkpoint_steps": 2, "epochs": 60, "patience": 60, "weight_average": 0.9, "learning_rate": 1e-4}
    run(settings_file("unbroken", **options))
    path, checkpoints = settings_file("broken", **options), tmp_path / "broken" / "checkpoints"
    draw = random.Random(5)
    for _ in range(10):
        process = subprocess.Popen([sys.executable, str(root / "train"), "--config", str(path)], stderr=subprocess.PIPE)
        before, deadline = newest(checkpoints), time.monotonic() + 120
        while newest(checkpoints) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.4))  # anywhere: in a step, while a checkpoint is written, between two epochs
        process.send_signal(signal.SIGKILL)
        _, complaint = process.communicate()
        assert process.returncode == -signal.SIGKILL, complaint.decode()
        assert not (tmp_path / "broken" / "bundle").exists()
    run(path)
    assert same_weights(tmp_path / "unbroken", tmp_path / "broken")


def newest(checkpoints: Path) -> str:
    """Name of the last whole checkpoint."""
    return max((each.name for each in checkpoints.glob("step-*")), default="")


@pytest.fixture
def calm(tiny_model: Path, tmp_path: Path) -> str:
    """The tiny model without dropout, which every process draws for itself."""
    config = json.loads((tiny_model / "config.json").read_text())
    folder = tmp_path / "calm"
    shutil.copytree(tiny_model, folder)
    (folder / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    return str(folder)


CURVE = ("loss", "validation_loss", "macro_average_precision", "entity_f1")


@pytest.mark.parametrize(("options", "tolerance"), [({"accumulation_steps": 4}, 1e-3), ({"mixed_precision": "bf16"}, 0.03)])
def test_accumulation_and_mixed_precision_give_the_same_loss_curve(
    settings_file: SettingsFile, calm: str, options: dict[str, Any], tolerance: float
) -> None:
    common = {"task": "both", "model": calm, "epochs": 4, "patience": 4, "learning_rate": 1e-3, "head_learning_rate": 5e-3}
    plain, other = run(settings_file("plain", **common)), run(settings_file("other", **common, **options))
    for key in CURVE[:2]:
        assert [each[key] for each in other["history"]] == pytest.approx([each[key] for each in plain["history"]], rel=tolerance)
    assert plain["history"][-1]["loss"] < 0.9 * plain["history"][0]["loss"]


def test_two_processes_give_the_metrics_of_one(settings_file: SettingsFile, tmp_path: Path, calm: str, root: Path) -> None:
    # 40 validation and test rows fall into batches of 64 · 2 with rows to spare: padding must not be counted twice
    options = {"task": "both", "model": calm, "weight_average": 0.9}
    alone = run(settings_file("alone", **options))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=0",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=127.0.0.1:0",
    ]
    command = [*launch, str(root / "train"), "--config", str(settings_file("together", **options))]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    together = json.loads((tmp_path / "together" / "report" / "report.json").read_text(encoding="utf-8"))
    assert together["rows"] == alone["rows"]
    for key in CURVE:
        tolerance = 1e-3 if "loss" in key else 1e-2  # a rank or a match that rounding decides moves the scores by one
        assert [each[key] for each in together["history"]] == pytest.approx([each[key] for each in alone["history"]], rel=tolerance)
    left, right = weights(tmp_path / "alone"), weights(tmp_path / "together")
    assert all(torch.allclose(left[name], right[name], atol=1e-3) for name in left)


def test_a_damaged_checkpoint_is_passed_over(settings_file: SettingsFile, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = settings_file(checkpoint_steps=1)
    run(path)
    before = weights(tmp_path / "run")
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    damaged = next(newest.glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-3])
    run(path)
    assert f"{newest}: damaged ({damaged.name}), trying the one before" in caplog.text
    after = weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_settings_do_not_go_on_from_an_unfinished_run(settings_file: SettingsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = settings_file(checkpoint_steps=1), checkpoint.save

    def save_then_die(*arguments: Any) -> None:
        real(*arguments)
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_then_die)
    with pytest.raises(Killed):
        run(path)
    monkeypatch.setattr(checkpoint, "save", real)
    with pytest.raises(DataError, match="a checkpoint of an unfinished run with other settings or other data; give --restart"):
        run(path, "learning_rate=0.02")
    assert run(path, "learning_rate=0.02", restart=True)["history"]


def test_after_a_finished_run_other_settings_start_over_and_the_same_are_done_at_once(settings_file: SettingsFile, tmp_path: Path) -> None:
    path = settings_file()
    first = run(path)
    assert run(path)["seconds"] == first["seconds"]  # nothing was trained again
    other = run(path, "learning_rate=0.02")
    assert [each["epoch"] for each in other["history"]] == [1, 2]
    assert other["history"][-1]["loss"] != first["history"][-1]["loss"]


def test_a_model_on_disk_that_changed_is_another_run(settings_file: SettingsFile, tmp_path: Path, tiny_model: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    settings = load(TrainSettings, settings_file(model=str(copy)))
    before = run_name(settings)
    assert run_name(settings) == before
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    assert run_name(settings) != before


def test_a_length_the_model_cannot_read_is_refused(settings_file: SettingsFile) -> None:
    with pytest.raises(ConfigError, match="max_length 65: the model reads at most 64 word pieces"):
        run(settings_file(max_length=65))


def test_curves_go_to_tensorboard_when_asked(settings_file: SettingsFile, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figures = run(settings_file(tracker="tensorboard"))
    logs = EventAccumulator(str(tmp_path / "run" / "logs" / "penchant"))
    logs.Reload()
    assert [each.value for each in logs.Scalars("loss")] == pytest.approx([each["loss"] for each in figures["history"]])


@pytest.mark.parametrize(
    ("name", "message"), [("tensorboard", r"pip install 'penchant\[tracking\]'"), ("comet_ml", "pip install comet-ml")]
)
def test_a_missing_tracker_is_named_before_anything_starts(
    settings_file: SettingsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted, *more: None if wanted == name else real(wanted, *more))
    with pytest.raises(PenchantError, match=message):
        run(settings_file(tracker=name))
    assert not (tmp_path / "run").exists()


def test_patience_counts_epochs_without_a_better_score() -> None:
    history = [{"score": each} for each in (0.5, 0.7, 0.6, 0.7)]
    assert not out_of_patience(history, 3)
    assert out_of_patience(history, 2)
    assert not out_of_patience(history[:2], 2)


def test_a_diverging_run_ends_with_a_word(settings_file: SettingsFile) -> None:
    with pytest.raises(ConfigError, match="the loss is (nan|inf) at step [0-9]+: take a smaller learning_rate"):
        run(settings_file(learning_rate=1e30, head_learning_rate=1e30))


def test_a_damaged_best_epoch_is_named(settings_file: SettingsFile, tmp_path: Path) -> None:
    path = settings_file(epochs=1)
    run(path)
    (tmp_path / "run" / "best" / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(DataError, match="weights.pt: missing or damaged; give --restart"):
        run(path)


def test_a_trained_bundle_is_gone_on_from(settings_file: SettingsFile, tmp_path: Path) -> None:
    run(settings_file("first", task="both", epochs=6))
    run(
        settings_file(
            "second", task="both", model=str(tmp_path / "first" / "bundle"), epochs=1, learning_rate=1e-12, head_learning_rate=1e-12
        )
    )
    left, right = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(left[name], right[name], atol=1e-6) for name in left)
