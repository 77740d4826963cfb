"""What commands have in common: kinds of arguments, options, examples."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

File = click.Path(path_type=Path)
Existing = click.Path(exists=True, path_type=Path)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 time; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """A text as an aware `datetime`."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write it like 2026-03-31 or 2026-03-31T18:00+02:00", param, ctx)


def example(text: str) -> Callable[[Any], Any]:
    """Add an example to a command's help."""

    def add(command: Any) -> Any:
        command.__doc__ = f"{command.__doc__}\n\n    \b\n    Example:\n      {text}\n    "
        return command

    return add


def profiles_option(command: Any) -> Any:
    """The store that a command reads or changes."""
    return click.option("--profiles", default="out/profiles", show_default=True, help="The store: a folder, or a URL.")(command)
