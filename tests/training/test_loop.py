"""Training: it learns, and a killed run ends with the weights of an unbroken one."""

import importlib.util
import json
import os
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
from penchant.tagging.tagger import Tagger
from penchant.training import checkpoint
from penchant.training.evaluation import finish
from penchant.training.loop import out_of_patience, run_name, train
from penchant.training.settings import TrainSettings

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
    """Bit for bit."""
    left, right = weights(one), weights(other)
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
    assert "macro over 3 interests" in (tmp_path / "run" / "bundle" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("accumulation", [1, 2])
def test_broken_off_at_every_checkpoint_it_ends_with_the_same_weights(
    settings_file: SettingsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    unbroken, broken = (settings_file(name, checkpoint_steps=1, accumulation_steps=accumulation) for name in ("unbroken", "broken"))
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


def test_sigkill_leaves_a_run_that_goes_on(settings_file: SettingsFile, tmp_path: Path, root: Path) -> None:
    options = {"checkpoint_steps": 1, "epochs": 4}
    run(settings_file("unbroken", **options))
    path, checkpoints = settings_file("broken", **options), tmp_path / "broken" / "checkpoints"
    environment = os.environ | {"PENCHANT_TEST": "1"}
    process = subprocess.Popen([sys.executable, str(root / "train"), "--config", str(path)], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(checkpoints.glob("step-*"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, complaint = process.communicate()
    assert process.returncode == -signal.SIGKILL, complaint.decode()
    assert not (tmp_path / "broken" / "bundle").exists()
    run(path)
    assert same_weights(tmp_path / "unbroken", tmp_path / "broken")


def test_two_processes_give_the_metrics_of_one(settings_file: SettingsFile, tmp_path: Path, tiny_model: Path, root: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    calm = tmp_path / "calm"  # without dropout, which each process draws for itself
    calm.mkdir()
    for file in tiny_model.iterdir():
        (calm / file.name).write_bytes(file.read_bytes())
    (calm / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    # 40 validation and test rows fall into batches of 64 · 2 with rows to spare: padding must not be counted twice
    alone = run(settings_file("alone", model=str(calm)))
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=0",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=127.0.0.1:0",
    ]
    command = [*launch, str(root / "train"), "--config", str(settings_file("together", model=str(calm)))]
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
    for key in ("loss", "validation_loss", "macro_average_precision"):
        assert [each[key] for each in together["history"]] == pytest.approx([each[key] for each in alone["history"]], rel=1e-3)
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
    history = [{"macro_average_precision": each} for each in (0.5, 0.7, 0.6, 0.7)]
    assert not out_of_patience(history, 3)
    assert out_of_patience(history, 2)
    assert not out_of_patience(history[:2], 2)
