"""Progress: a bar on a terminal, a line now and then in a log; the clock is set by hand."""

import logging
from types import SimpleNamespace

import pytest

from penchant import progress as module
from penchant.progress import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> SimpleNamespace:
    """A clock that stands still until its `now` is moved, and no terminal."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    found = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: found.now))
    caplog.set_level(logging.INFO, logger="penchant.progress")
    return found


def test_a_log_gets_one_line_in_ten_seconds_with_rate_and_time_left(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    with progress("tagging", 10_000, "texts") as advance:
        for _ in range(4):
            clock.now += 5
            advance(500, "loss 0.5")
    # after 10 s: 1,000 at 100/s leave 9,000, so 90 s; after 20 s: 2,000 at 100/s leave 8,000, so 80 s
    assert [each.strip() for each in caplog.messages] == [
        "tagging: 1,000 of 10,000 texts, 100/s, 90 s left loss 0.5",
        "tagging: 2,000 of 10,000 texts, 100/s, 80 s left loss 0.5",
    ]


def test_short_work_says_nothing(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("tagging", 3, "texts") as advance:
        clock.now += 9.9
        advance(3)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")


def test_what_an_earlier_run_did_counts_as_done_but_not_for_the_rate(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    with progress("training", 1000, "texts", done=800) as advance:
        clock.now += 10
        advance(100)
    assert [each.strip() for each in caplog.messages] == ["training: 900 of 1,000 texts, 10/s, 10 s left"]  # 100 left at 10/s


def test_where_nobody_knows_the_total_none_is_shown(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    with progress("ingest", None, "rows") as advance:
        clock.now += 20
        advance(3000)
    assert [each.strip() for each in caplog.messages] == ["ingest: 3,000 rows, 150/s"]


@pytest.mark.parametrize("total", [None, 0, 10])
def test_work_that_stands_still_is_no_error(clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, total: int | None) -> None:
    with progress("waiting", total, "texts") as advance:
        clock.now += 60
        advance(0, "nothing yet")
    assert len(caplog.messages) == 1
    assert "0/s" in caplog.messages[0]
    assert "nothing yet" in caplog.messages[0]


def test_an_error_inside_comes_out(clock: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="inside"), progress("tagging", 3, "texts"):
        raise ValueError("inside")


@pytest.mark.parametrize(("total", "expected"), [(40, "30/40"), (None, "30/?")])
def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, total: int | None, expected: str
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "120")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_COLOR", "1")  # else colours stand between the digits
    caplog.set_level(logging.INFO)
    with progress("tagging", total, "texts", done=10) as advance:
        advance(15, "first")
        advance(5, "loss 0.25")
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.rstrip().removesuffix("\x1b[?25h").rstrip().splitlines()[-1]  # what shows the cursor again stands behind the last line
    for part in ("tagging", expected, "texts/s", "loss 0.25"):
        assert part in last
    assert caplog.messages == []
