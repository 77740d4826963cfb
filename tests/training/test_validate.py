"""Cross-validation: every row is tested once on a model that saw neither it nor its group, and the folds are summed up as by hand."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState, GradientState

from penchant.config import load
from penchant.errors import ConfigError, DataError
from penchant.tagging.bundle import load_spec
from penchant.training import validate as module
from penchant.training.data import Corpus
from penchant.training.loop import train
from penchant.training.settings import TrainSettings
from penchant.training.validate import summarise, validate, validation_text
from tests.training.conftest import labelled, write_rows

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 8, "probe_epochs": 1, "validation_share": 0.25, "validation": None, "test": None}


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state per process; each run here is a program of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def corpora(monkeypatch: pytest.MonkeyPatch) -> list[Corpus]:
    """What each fold learned from and was tested on, noted on the way to the real training."""
    seen: list[Corpus] = []

    def noted(settings: TrainSettings, restart: bool, corpus: Corpus, name: str) -> Any:
        seen.append(corpus)
        return train(settings, restart, corpus, name)

    monkeypatch.setattr(module, "train", noted)
    return seen


def rows_of(tmp_path: Path, count: int, groups: int) -> Path:
    """Labelled texts of some users, a few more of the first ones, one text after the other."""
    return write_rows(tmp_path / "train.jsonl", [row | {"user": f"u{n % groups}"} for n, row in enumerate(labelled(count, 0))])


def places(split: Any) -> set[str]:
    """Where the rows of a split stand."""
    found = set(split.places)
    assert len(found) == len(split)
    return found


def test_at_random_every_row_is_tested_once(settings_file: Callable[..., Path], tmp_path: Path, corpora: list[Corpus]) -> None:
    path = settings_file(**SHORT, task="both")
    rows_of(tmp_path, 50, 7)
    summary = validate(load(TrainSettings, path), 3)
    assert summary is not None
    everything = {f"{tmp_path / 'train.jsonl'}:{n}" for n in range(1, 51)}
    tested = [places(each.test) for each in corpora]
    assert sorted(map(len, tested)) == [16, 17, 17]
    assert set().union(*tested) == everything
    for each in corpora:
        parts = [places(split) for split in (each.train, each.validation, each.test)]
        assert set().union(*parts) == everything
        assert sum(map(len, parts)) == 50  # none is on two sides
    # of 33 or 34 rows a quarter is set aside: 8.25 and 8.5, the latter rounded to even
    assert summary["rows"] == [{"train": 33 + (len(each) == 16) - 8, "validation": 8, "test": len(each)} for each in tested]
    assert list(summary["figures"]) == ["macro F1 of interests", "micro F1 of interests", "micro F1 of spans", "macro F1 of spans"]
    assert summary["split"] == "random"
    reports = [json.loads((tmp_path / "run" / "folds" / str(n) / "report" / "report.json").read_text()) for n in (1, 2, 3)]
    assert [each["spans"]["decoded"]["micro"]["f1"] for each in reports] == summary["figures"]["micro F1 of spans"]["folds"]
    assert len({load_spec(tmp_path / "run" / "folds" / str(n) / "bundle").fingerprint for n in (1, 2, 3)}) == 3
    assert json.loads((tmp_path / "run" / "folds" / "validation.json").read_text()) == summary


def test_a_group_never_stands_on_two_sides_and_is_tested_once(
    settings_file: Callable[..., Path], tmp_path: Path, corpora: list[Corpus]
) -> None:
    path = settings_file(**SHORT, split="group", columns={"group": "user"})
    rows_of(tmp_path, 50, 7)
    summary = validate(load(TrainSettings, path), 2)
    assert summary is not None
    assert summary["split"] == "group"
    groups = [[set(split.about["group"]) for split in (each.train, each.validation, each.test)] for each in corpora]
    for parts in groups:
        assert all(parts)
        assert sum(map(len, parts)) == 7
    assert set().union(*(parts[2] for parts in groups)) == {f"u{n}" for n in range(7)}
    assert not groups[0][2] & groups[1][2]
    assert [sum(each.values()) for each in summary["rows"]] == [50, 50]


def test_a_finished_validation_is_done_at_once(
    settings_file: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(TrainSettings, settings_file(**SHORT, task="spans"))
    rows_of(tmp_path, 96, 7)
    first = validate(settings, 2)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert validate(settings, 2) == first
    assert "epoch 1" not in caplog.text  # nothing was trained again
    assert caplog.text.count("resumed from") == 2


def test_files_to_validate_and_test_on_are_left_aside(
    settings_file: Callable[..., Path], tmp_path: Path, corpora: list[Corpus], caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(
        TrainSettings, settings_file(**SHORT | {"validation": str(tmp_path / "validation.jsonl"), "test": str(tmp_path / "absent")})
    )
    rows_of(tmp_path, 48, 7)
    with caplog.at_level("INFO"):
        validate(settings, 2)
    assert f"the folds are made of {tmp_path / 'train.jsonl'} alone" in caplog.text
    assert {place.rsplit(":", 1)[0] for each in corpora for place in each.validation.places} == {str(tmp_path / "train.jsonl")}


def test_nothing_is_trained_where_a_fold_can_not_be_made(settings_file: Callable[..., Path], tmp_path: Path, corpora: list[Corpus]) -> None:
    path = settings_file(**SHORT, split="group", columns={"group": "user"})
    rows_of(tmp_path, 48, 3)
    with pytest.raises(ConfigError, match="folds 1: at least 2"):
        validate(load(TrainSettings, path), 1)
    with pytest.raises(DataError, match="can't be split in 4 folds"):
        validate(load(TrainSettings, path), 4)
    write_rows(tmp_path / "train.jsonl", labelled(48, 0) + labelled(48, 0))
    with pytest.raises(DataError, match="nearly the same text on two sides of a split"):
        validate(load(TrainSettings, path, ("split=random", "leaks=refuse")), 2)
    assert corpora == []
    assert not (tmp_path / "run").exists()


def test_the_folds_are_summed_up_by_hand() -> None:
    found = summarise([{"F1": each, "other": 0.5} for each in (0.2, 0.4, 0.6)])["figures"]
    assert found["F1"]["mean"] == pytest.approx(0.4)
    assert found["F1"]["standard_deviation"] == pytest.approx(0.2)  # (0.04 + 0 + 0.04) / 2 is 0.2²
    # Student's t of 2 degrees of freedom at 97.5% is 4.3027, and 4.3027 · 0.2 / √3 is 0.4968
    assert found["F1"]["interval"] == pytest.approx([0.4 - 0.4968, 0.4 + 0.4968], abs=1e-4)
    assert found["F1"]["folds"] == [0.2, 0.4, 0.6]
    assert found["other"] == {"mean": 0.5, "standard_deviation": 0.0, "interval": [0.5, 0.5], "folds": [0.5] * 3}
    two = summarise([{"F1": 0.25}, {"F1": 0.75}])["figures"]["F1"]
    # t of 1 degree is 12.7062; the deviation √0.125, over √2 a quarter
    assert two["interval"] == pytest.approx([0.5 - 12.7062 / 4, 0.5 + 12.7062 / 4], abs=1e-4)


def test_the_summary_as_a_terminal_shows_it() -> None:
    summary = summarise([{"micro F1 of spans": 0.25}, {"micro F1 of spans": 0.75}]) | {"split": "group", "rows": [{}, {}]}
    assert validation_text(summary).splitlines() == [
        "2 folds, split: group",
        "micro F1 of spans        0.500 ± 0.354  95% -2.677–3.677  folds 0.250 0.750",
    ]
