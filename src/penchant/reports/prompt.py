"""A line to type rules on, with the size of the audience below it while one types."""

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from penchant.errors import PenchantError
from penchant.profiles.snapshot import Snapshot
from penchant.segments.counts import shown_size
from penchant.segments.insight import size
from penchant.segments.load import checked, of_text

HELP = "Type a rule, such as interest:sports.running weight>=0.2 and seen<30d; its size stands below it. Enter keeps it, Ctrl-D ends."


def answers(snapshot: Snapshot) -> Callable[[str], str]:
    """What is said to a rule: its size as it may be shown, or the first line of what is wrong with it."""

    @lru_cache(maxsize=256)
    def answer(text: str) -> str:
        if not text.strip():
            return ""
        try:
            return f"{shown_size(size(checked(of_text(text), snapshot), snapshot))} people"
        except PenchantError as error:
            return str(error).splitlines()[0]

    return answer


def run(snapshot: Snapshot, show: Callable[[str], Any]) -> None:
    """Answer rule after rule: while one types on a terminal, else line by line from standard input."""
    answer = answers(snapshot)
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if line.strip():
                show(f"{line.strip()}: {answer(line.strip())}")
        return
    from prompt_toolkit import PromptSession

    show(HELP)
    session: PromptSession[str] = PromptSession("rule> ")
    while True:
        try:
            text = session.prompt(bottom_toolbar=lambda: answer(session.default_buffer.text))
        except (EOFError, KeyboardInterrupt):
            return
        show(answer(text))
