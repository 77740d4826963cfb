"""Whether a segment takes in some groups of people far less often than others, by the four-fifths rule."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penchant.config import suggestion
from penchant.errors import DataError, problems
from penchant.ingest.clean import UNPRINTABLE
from penchant.ingest.contract import typed
from penchant.ingest.readers import BadRow, Row, rows
from penchant.segments.counts import SMALLEST_SHOWN

SMALLEST_HIDDEN = 2 * SMALLEST_SHOWN - 1
"""People that are hidden together at least: two groups of 49 are 98, so fewer could tell that both are under 50 and nearly how many."""
FOUR_FIFTHS = Fraction(4, 5)
Bounds = tuple[int, int]
UNKNOWN = "unknown"
"""The group of those of whom no group is known."""
GROUPS = pa.schema([pa.field("user_id", pa.string(), nullable=False), ("group", pa.string())])


@dataclass(frozen=True)
class GroupRate:
    """How often a segment takes in one group. None stands for what may not be shown."""

    group: str
    base: int | None
    """People of the group in the base population …"""
    base_share: float | None
    """… and their share of it, 0 to 1."""
    segment: int | None
    """People of the group in the segment …"""
    segment_share: float | None
    """… and their share of it, 0 to 1."""
    rate: float | None
    """Selection rate: segment / base, 0 to 1."""
    ratio: float | None
    """The rate over the highest rate of a group; under 0.8 is past the four-fifths line."""
    flagged: bool | None
    """Whether the ratio is under 0.8, as far as what is shown tells it for certain; None: too few to judge."""


def read_groups(path: Path, column: str, user_column: str = "user_id") -> pa.Table:
    """The group of each user, as a table `user_id, group`, from a CSV, TSV, JSON Lines or Parquet file; blank groups are left out.

    Raises `DataError` for a file without rows or without one of the two columns, and lists rows that can't be read, rows without a user, and
    users who stand in two groups (by their rows, as a user's id may be personal).
    """
    found: dict[str, tuple[str, int]] = {}
    mistakes: list[str] = []
    known: dict[str, None] = {}
    for place, row in rows(path):
        if isinstance(row, BadRow):
            mistakes.append(f"row {place}: {row.reason}")
            continue
        known |= dict.fromkeys(row)
        if user_column not in row:
            continue
        try:
            user, group = user_and_group(row, user_column, column)
        except ValueError as error:
            mistakes.append(f"row {place}: {error}")
            continue
        if group and found.setdefault(user, (group, place))[0] != group:
            mistakes.append(f"rows {found[user][1]} and {place}: one user in two groups, {found[user][0]!r} and {group!r}")
    require(path, (user_column, column), list(known), mistakes)
    return pa.table([list(found), [group for group, _ in found.values()]], GROUPS)


def user_and_group(row: Row, user_column: str, column: str) -> tuple[str, str]:
    """The two values of a row; a group's white space is folded, and no group is an empty text. Raises `ValueError` that shows no user."""
    try:
        user = typed(row[user_column], GROUPS.field("user_id"))
    except ValueError as error:
        reason = "missing" if str(error) == "missing" else "no UTF-8 text or number"
        raise ValueError(f"{user_column}: {reason}") from None
    try:
        group = typed(row.get(column), GROUPS.field("group")) or ""
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None
    return user, " ".join(UNPRINTABLE.sub(" ", group).split())


def require(path: Path, needed: Sequence[str], known: list[str], mistakes: list[str]) -> None:
    """Raise `DataError` for no rows, for a column that none of them has, or for what is wrong with single rows."""
    missing = [f"no column {name!r}{suggestion(name, known)}" for name in needed if name not in known]
    if missing and known:
        raise DataError(f"{path}: {'; '.join(missing)}")
    if mistakes:
        raise DataError(problems(str(path), mistakes))
    if not known:
        raise DataError(f"{path}: no rows; expected the columns {' and '.join(needed)}")


def fairness(members: ir.Table, base: ir.Table, groups: ir.Table) -> list[GroupRate]:
    """The selection rate of each group of the base population, largest group first, against the highest rate of a group.

    `members` and `base` have a `user_id`, `groups` also a `group`, one per user; who has none is in the group `unknown`. Members who
    aren't in the base don't count. The tables are of one connection, or in memory.

    A ratio under 0.8 is flagged (the four-fifths rule: US EEOC Uniform Guidelines, 29 CFR 1607.4(D)). A group with fewer than 50
    people in the base is not judged, and one with fewer than 50 in the segment sets no highest rate.

    A count is hidden where it, or what is left of the group outside of the segment, is under 50, and so that the totals give nothing away:
    with it the group of the smallest base (for bases, the first name), until two are hidden and 99 people. A hidden count has no rate
    either, as the two give each other. Such a group is judged by the least and the most that it may be for all that a reader can work out, so
    that what it is judged tells no more. Tables of two and three groups of 200 people or more were tried: even to somebody who knows these
    rules, a hidden count in the segment may be any of 50 at least, or of all that the total allows. In smaller groups it may be fewer.
    """
    counted = group_counts(members, base, groups).to_pyarrow().to_pylist()
    return group_rates({row["group"]: row["base"] for row in counted}, {row["group"]: row["segment"] for row in counted})


def group_rates(bases: Mapping[str, int], segments: Mapping[str, int]) -> list[GroupRate]:
    """`fairness` of groups that are counted already: people of each group in the base and, of those, in the segment."""
    hidden_bases = hidden([bases], sorted(bases))
    rests = {name: bases[name] - segments[name] for name in bases}
    hidden_segments = hidden([segments, rests], sorted(bases, key=lambda name: (bases[name], name)), hidden_bases)
    of_segments = known_bounds(segments, hidden_segments, {name: bases[name] for name in bases if name not in hidden_bases})
    rates = rate_bounds(known_bounds(bases, hidden_bases, {}), of_segments)
    highest = highest_rate(rates, of_segments)
    return [
        GroupRate(
            group=name,
            base=None if name in hidden_bases else bases[name],
            base_share=None if name in hidden_bases else bases[name] / sum(bases.values()),
            segment=None if name in hidden_segments else segments[name],
            segment_share=None if name in hidden_segments else segments[name] / sum(segments.values()),
            rate=None if name in hidden_segments else segments[name] / bases[name],
            ratio=float(rates[name][0] / highest[0]) if name not in hidden_segments and highest[0] == highest[1] else None,
            flagged=below_the_line(rates[name], highest) if name in rates else None,
        )
        for name in bases
    ]


def group_counts(members: ir.Table, base: ir.Table, groups: ir.Table) -> ir.Table:
    """People of each `group` in the `base` and in the `segment`, largest base first."""
    people = base.select("user_id").distinct()
    grouped = groups.select("group", of="user_id")
    chosen = members.select(member="user_id").distinct()
    joined = people.left_join(grouped, people.user_id == grouped.of).left_join(chosen, people.user_id == chosen.member)
    counted = joined.group_by(group=joined["group"].fill_null(UNKNOWN)).agg(base=joined.count(), segment=joined.member.count())
    return counted.order_by(counted.base.desc(), counted["group"])


def hidden(columns: Sequence[Mapping[str, int]], order: Sequence[str], already: frozenset[str] = frozenset()) -> frozenset[str]:
    """Groups to hide: `already`, those with a cell under 50, and more in this `order` until they are two or more, of 99 people or more.

    The order must be known to a reader anyway: were the next smallest cell taken, that it is no larger than those shown would bound it.
    """
    found = already | {name for cells in columns for name, size in cells.items() if size < SMALLEST_SHOWN}
    for name in order:
        if not found or (len(found) > 1 and all(sum(cells[each] for each in found) >= SMALLEST_HIDDEN for cells in columns)):
            break
        found |= {name}
    return found


def known_bounds(sizes: Mapping[str, int], unseen: frozenset[str], limits: Mapping[str, int]) -> dict[str, Bounds]:
    """The least and the most that each count may be, for all that a reader can tell from those shown, their total and their `limits`.

    Which of the hidden ones are under 50 is used only where that still leaves these anything from 0 to 49.
    """
    left = sum(sizes[name] for name in unseen)
    small = (0, SMALLEST_SHOWN - 1)
    large = {name: (SMALLEST_SHOWN, min(left, limits[name] - SMALLEST_SHOWN) if name in limits else left) for name in unseen}
    own = {name: small if sizes[name] < SMALLEST_SHOWN else large[name] for name in unseen}
    least, most = (sum(bounds[end] for bounds in own.values()) for end in (0, 1))
    tight = {name: (max(low, left - (most - high)), min(high, left - (least - low))) for name, (low, high) in own.items()}
    if any(own[name] == small != tight[name] or sizes[name] > own[name][1] for name in unseen):
        tight = {name: (0, min(left, limits.get(name, left))) for name in unseen}
    return {name: (size, size) for name, size in sizes.items()} | tight


def rate_bounds(bases: Mapping[str, Bounds], segments: Mapping[str, Bounds]) -> dict[str, tuple[Fraction, Fraction]]:
    """The least and the highest rate that each group may have; groups that may have fewer than 50 people in the base are left out."""
    return {
        name: (Fraction(segments[name][0], most), min(Fraction(1), Fraction(segments[name][1], least)))
        for name, (least, most) in bases.items()
        if least >= SMALLEST_SHOWN
    }


def highest_rate(rates: Mapping[str, tuple[Fraction, Fraction]], segments: Mapping[str, Bounds]) -> tuple[Fraction, Fraction]:
    """Bounds of the highest rate among groups that have 50 people or more in the segment; 0 to 1 where there is none."""
    found = [rate for name, rate in rates.items() if segments[name][0] >= SMALLEST_SHOWN]
    return (max(low for low, _ in found), max(high for _, high in found)) if found else (Fraction(0), Fraction(1))


def below_the_line(rate: tuple[Fraction, Fraction], highest: tuple[Fraction, Fraction]) -> bool | None:
    """Whether the rate is under four fifths of the highest, whatever they are within their bounds; None where that depends."""
    if rate[1] < FOUR_FIFTHS * highest[0]:
        return True
    return False if rate[0] >= FOUR_FIFTHS * highest[1] else None


VERDICTS = {True: "under", False: "met", None: "too few to judge"}


def fairness_text(found: Sequence[GroupRate]) -> str:
    """The groups as a table for a terminal, 100 cells wide."""
    table = Table("group", box=None)
    for heading in ("base", "share", "segment", "share", "rate", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("four fifths", no_wrap=True)
    for each in found:
        shares = [f"{share:.1%}" if share is not None else "–" for share in (each.base_share, each.segment_share, each.rate)]
        counts = [f"{count:,}" if count is not None else "–" for count in (each.base, each.segment)]
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else "–"
        table.add_row(Text(each.group), counts[0], shares[0], counts[1], shares[1], shares[2], ratio, VERDICTS[each.flagged])
    stream = io.StringIO()
    Console(file=stream, width=100, color_system=None).print(table)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    if any(each.segment is None for each in found):
        lines.append(f"–: fewer than {SMALLEST_SHOWN} people, or a count that would give such a one away")
    return "\n".join(lines)
