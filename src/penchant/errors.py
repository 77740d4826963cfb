"""Errors a user can act on. The command line turns them into one message and an exit code; the library raises them."""


class PenchantError(Exception):
    """Base of every error that is the input's fault and not the program's."""


class ConfigError(PenchantError):
    """A settings file, mapping, policy, rule or taxonomy that can't be used."""


class DataError(PenchantError):
    """A data file that can't be used as a whole (single bad rows are rejects, not errors)."""


class PolicyRefusal(PenchantError):  # noqa: N818 - a refusal is no fault
    """Something that is well formed but not allowed: a sensitive interest, an audience under its minimum size."""


class MissingExtraError(PenchantError):
    """An optional part that isn't installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional part: pip install 'penchant[{extra}]'")


SHOWN_MISTAKES = 20


def problems(heading: str, found: list[str]) -> str:
    """One message that lists every mistake (the first twenty), so that a user mends a file once and not once per mistake."""
    more = [f"and {len(found) - SHOWN_MISTAKES} more"] if len(found) > SHOWN_MISTAKES else []
    shown = (f"  - {each}" for each in [*found[:SHOWN_MISTAKES], *more])
    return "\n".join([f"{heading}: {len(found)} {'mistake' if len(found) == 1 else 'mistakes'}", *shown])


def first_line(error: Exception) -> str:
    """What an error says, without the notes below it."""
    return (str(error) or type(error).__name__).splitlines()[0]
