"""Rules typed on a line: their size is told while one types, and line by line where nobody types."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from penchant.profiles.snapshot import Snapshot
from penchant.reports import prompt
from penchant.reports.prompt import HELP, answers, run
from tests.segments.conftest import event
from tests.segments.test_export import Desk

SIXTY = "interest:sports.running"
"""u00 to u59 run; 56 of them within 55 days; 12 have a cat."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Desk(tmp_path_factory.mktemp("seventy")).snapshot


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", ""),
        ("   ", ""),
        (SIXTY, "60 people"),
        (f"{SIXTY} and seen<=55d", "56 people"),
        ("interest:pets", "fewer than 50 people"),
        ("interest:chess", "fewer than 50 people"),
        ("interest:sports.runing", "rule, character 10: unknown interest 'sports.runing'; did you mean 'sports.running'"),
        (f"{SIXTY} weight>=2", "rule, character 25: impossible range: weight is 0 to 1, so never >=2"),
        ("not interest:pets", "the rule holds for people nothing is known of"),
        ("interest:life.health", "rule: life.health: sensitive."),
        ("🐈", "rule, character 1: '🐈' can't stand here"),
        ("interest:", "rule, character 1"),
        ("segment:nobody", "unknown segment 'nobody'"),
        ("users:nowhere.txt", "can't be read"),
    ],
)
def test_an_answer_is_a_size_that_may_be_shown_or_what_is_wrong(text: str, answer: str, snapshot: Snapshot) -> None:
    found = answers(snapshot)(text)
    assert answer in found
    assert "\n" not in found
    assert (found == "") == (answer == "")


def test_everything_on_the_way_to_a_rule_is_answered(snapshot: Snapshot) -> None:
    answer, rule = answers(snapshot), "not (interest:pets or count(any last 30d)>=1) and interest:sports"
    for end in range(1, len(rule) + 1):
        assert answer(rule[:end])
        assert "\n" not in answer(rule[:end])


@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        'users:"a\\u0000b"',
        'brand:"\\ud800"',
        "users:.",
        "users:/",
        "(" * 5000,
        "not " * 5000,
        f"{SIXTY} index>=1e308",
        f"{SIXTY} seen<1e400d",
        f"{SIXTY} trend<1e15",
        "🏃" * 10_000,
    ],
    ids=[
        "nul",
        "nul in a file name",
        "half a character",
        "a folder",
        "the root",
        "brackets",
        "not not",
        "huge",
        "infinite",
        "huge trend",
        "long",
    ],
)
def test_nonsense_is_answered_in_a_line(text: str, snapshot: Snapshot) -> None:
    found = answers(snapshot)(text)
    assert found
    assert "\n" not in found


def test_a_text_is_asked_once(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = prompt.size

    def counted(*arguments: Any) -> int:
        asked.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(prompt, "size", counted)
    answer = answers(snapshot)
    assert [answer(SIXTY) for _ in range(3)] == ["60 people"] * 3
    assert len(asked) == 1


def test_lines_from_a_pipe_are_answered_one_by_one(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SIXTY}\n\n  interest:pets \r\nnonsense"))
    shown: list[str] = []
    run(snapshot, shown.append)
    assert shown[:2] == [f"{SIXTY}: 60 people", "interest:pets: fewer than 50 people"]
    assert shown[2].startswith("nonsense: rule, character 1: 'nonsense' can't stand here")
    assert len(shown) == 3


def test_an_empty_pipe_is_no_fault(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    shown: list[str] = []
    run(snapshot, shown.append)
    assert shown == []


def test_a_real_pipe_in_any_encoding_gets_a_line_per_line(snapshot: Snapshot) -> None:
    """Emoji in UTF-8, then bytes that are no text at all."""
    program = [sys.executable, "-m", "penchant", "segment", "try", "--profiles", str(snapshot.head.store.uri)]
    found = subprocess.run(program, input=f"{SIXTY}\n猫🐈\n".encode() + b"\xff\xfe\x00\n", capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    lines = found.stdout.decode().splitlines()
    assert lines[0] == f"{SIXTY}: 60 people"
    assert lines[1].startswith("猫🐈: rule, character 1")
    assert len(lines) == 3


class Terminal(io.StringIO):
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    """What somebody types."""
    monkeypatch.setattr(sys, "stdin", Terminal())
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


def test_a_typed_rule_is_answered_on_enter(keys: PipeInput, snapshot: Snapshot) -> None:
    shown: list[str] = []
    keys.send_text(f"{SIXTY}\rinterest:petz\r\r\x04")  # Ctrl-D
    run(snapshot, shown.append)
    assert shown[:2] == [HELP, "60 people"]
    assert shown[2].startswith("rule, character 10: unknown interest 'petz'; did you mean 'pets'")
    assert shown[3:] == [""]


@pytest.mark.parametrize("end", ["\x03", "\x04", "half a rule\x03"], ids=["Ctrl-C", "Ctrl-D", "Ctrl-C within"])
def test_a_session_ends_without_a_trace(end: str, keys: PipeInput, snapshot: Snapshot) -> None:
    shown: list[str] = []
    keys.send_text(end)
    run(snapshot, shown.append)
    assert shown == [HELP]


def test_the_size_stands_below_while_one_types(keys: PipeInput, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody presses Enter: what is asked is asked for the line below. Ctrl-C comes once that is answered, or after half a minute."""
    below: list[str] = []

    def watched(of: Snapshot) -> Callable[[str], str]:
        real = answers(of)

        def answer(text: str) -> str:
            found = real(text)
            if text == SIXTY:
                below.append(found)
                keys.send_text("\x03")
            return found

        return answer

    monkeypatch.setattr(prompt, "answers", watched)
    end = Timer(30, keys.send_text, ["\x03"])
    end.start()
    shown: list[str] = []
    keys.send_text(SIXTY)
    run(snapshot, shown.append)
    end.cancel()
    assert below[:1] == ["60 people"]
    assert shown == [HELP]


def test_a_long_unicode_line_can_be_typed(keys: PipeInput, tmp_path: Path) -> None:
    store = Desk(tmp_path, [event(n, f"跑者 {n}", "sports.running", 1) for n in range(50)]).snapshot
    shown: list[str] = []
    keys.send_text(" or ".join([SIXTY] * 20) + "\r猫🐈\r\x04")
    run(store, shown.append)
    assert shown[1] == "50 people"
    assert shown[2].startswith("rule, character 1: '猫")
