"""Counts that may be shown: none under 50, none that others give away, and private ones for what leaves the company."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penchant.errors import ConfigError, MissingExtraError

SMALLEST_SHOWN = 50
"""No count under this is shown to people (Ads Data Hub's row minimum)."""
LOWEST_EPSILON, HIGHEST_EPSILON = 1e-6, 20.0
"""Below this range the noise is in the millions; above it one person may make an outcome more than e²⁰ times likelier, which protects nobody."""


def shown_size(count: int) -> str:
    """A size as people may see it."""
    return f"{count:,}" if count >= SMALLEST_SHOWN else f"fewer than {SMALLEST_SHOWN}"


def shown_steps(counts: Sequence[int], kept: int = -1) -> list[int | None]:
    """The sizes of one table (a funnel, a curve over thresholds) that may stand beside each other; None for the others.

    Guarantees: every shown size, and every difference of two shown sizes, is at least 50; so each people counted between two
    steps is a cell of at least 50. The size at index `kept` (the last: the segment's own) is shown whenever it is 50 or more; from there
    outwards a size is shown where it is far enough from those shown already, which of nested steps hides as few as possible.

    A difference of 0 is hidden like one of 1 to 49. It says that everybody of one step meets the next condition too, which
    tells of each person known to be in the first that they do; and were it shown, what is hidden would be known not to be 0.
    """
    kept %= max(1, len(counts))
    shown = [0]  # nobody: a size is its own difference to that
    steps: list[int | None] = [None] * len(counts)
    for place in sorted(range(len(counts)), key=lambda n: abs(n - kept)):
        if all(abs(counts[place] - other) >= SMALLEST_SHOWN for other in shown):
            steps[place] = counts[place]
            shown.append(counts[place])
    return steps


def shown_overlap(a: int, b: int, both: int) -> tuple[int | None, int | None, int | None]:
    """How many are in both of two segments, in the first alone and in the second alone; three None where one of them is under 50.

    The sizes `a` and `b` are shown, so any of the three gives the others. 0 counts as under 50, as in `shown_steps`.
    """
    parts = (both, a - both, b - both)
    return parts if min(parts) >= SMALLEST_SHOWN else (None, None, None)


def shown_share(part: int, whole: int) -> float | None:
    """A part as a share of a whole whose size is shown; None where it, or the rest, is under 50."""
    return part / whole if min(part, whole - part) >= SMALLEST_SHOWN else None


def shown_changes(entered: int, left: int) -> tuple[int, int] | None:
    """How many entered and left between two sizes that are shown; None where one of them is under 50, since it follows from the other."""
    return (entered, left) if min(entered, left) >= SMALLEST_SHOWN else None


@dataclass(frozen=True)
class PrivateCount:
    """A count with noise. It may be shown whatever its size: the noise protects people, not a minimum."""

    value: int
    """The noisy count, never negative."""
    accuracy: int
    """The true count lies within so many of the noisy one with a probability of at least 95%, for each count alone."""


def private_counts(counts: Mapping[str, int], epsilon: float) -> dict[str, PrivateCount]:
    """Counts under epsilon-differential privacy (Dwork et al. 2006), with the noise of OpenDP.

    Each person is in each count at most once, but may be in all n of them, so that adding or removing one moves the counts by n
    together: each gets discrete Laplace (two-sided geometric) noise of scale n / epsilon, which is epsilon / n for
    each count and epsilon for all (sequential composition). There is no delta: this noise needs none.

    Two conditions are the caller's. The names must not depend on who is in the data: report a count of 0 too. And every call spends its
    epsilon anew, for the same people: publish one result, not several of which the mean is exact.
    Negative results become 0, which as post-processing costs nothing but makes very small counts come out a little too large on average.

    Raises `ConfigError` for an epsilon outside of 0.000001 to 20, and `MissingExtraError` without OpenDP.
    """
    if not LOWEST_EPSILON <= epsilon <= HIGHEST_EPSILON:
        raise ConfigError(
            f"epsilon {epsilon}: give a number of {LOWEST_EPSILON:f} to {HIGHEST_EPSILON:g}; 1 is a common choice, and less is more private"
        )
    try:
        import opendp.prelude as dp
    except ImportError as error:
        raise MissingExtraError("counting with differential privacy", "private") from error
    if not counts:
        return {}
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    # n / epsilon, up to the rounding with which the loss stays within epsilon
    scale = dp.binary_search_param(lambda scale: dp.m.make_laplace(*space, scale=scale), d_in=len(counts), d_out=float(epsilon))
    noisy = dp.m.make_laplace(*space, scale=scale)(list(counts.values()))
    accuracy = math.floor(dp.discrete_laplacian_scale_to_accuracy(scale, 0.05))
    return {name: PrivateCount(max(0, value), accuracy) for name, value in zip(counts, noisy, strict=True)}
