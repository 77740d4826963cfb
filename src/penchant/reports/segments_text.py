"""What segments are, in a terminal."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from penchant.profiles.snapshot import Snapshot
from penchant.segments.counts import SMALLEST_SHOWN, shown_changes, shown_overlap, shown_share, shown_size, shown_steps
from penchant.segments.insight import Curve
from penchant.segments.load import SCRATCH
from penchant.segments.people import Audience
from penchant.segments.rule import number

BAR_WIDTH = 30
HIDDEN = "–"


def shown_funnel(steps: Sequence[tuple[str, int]]) -> list[tuple[str, int | None]]:
    """The steps of a funnel with the sizes that may be shown."""
    return list(zip((text for text, _ in steps), shown_steps([count for _, count in steps]), strict=True))


def funnel_text(steps: Sequence[tuple[str, int]]) -> str:
    """A line per step: how many are left, and a bar."""
    shown = shown_funnel(steps)
    most = max((count for _, count in shown if count is not None), default=0) or 1
    width = max(len(text) for text, _ in shown)
    return "\n".join(
        f"{text:<{width}}  {f'{count:,}' if count is not None else HIDDEN:>11}  {'█' * round(BAR_WIDTH * (count or 0) / most)}".rstrip()
        for text, count in shown
    ) + (
        f"\n{HIDDEN}: a size under 50, or one that would give away how few a condition removes"
        if any(count is None for _, count in shown)
        else ""
    )


def shown_curve(curve: Curve) -> list[int | None]:
    """The sizes of a curve that may be shown."""
    return shown_steps(curve.sizes, curve.thresholds.index(curve.current))


def called(audiences: Sequence[Audience]) -> list[str]:
    """What segments are called side by side: by their names, rules alone by themselves."""
    return [each.segment.name if each.segment.name != SCRATCH else each.rule.text() for each in audiences]


def shown_history(
    refreshes: Sequence[dict[str, Any]],
) -> tuple[list[datetime], list[int | None], list[int | None], list[int | None]]:
    """When a segment was refreshed, its sizes, who entered and who left; None for what may not be shown."""
    changes = [shown_changes(each["entered"], each["left"]) or (None, None) for each in refreshes]
    sizes = [each["size"] if each["size"] >= SMALLEST_SHOWN else None for each in refreshes]
    return [each["as_of"] for each in refreshes], sizes, [entered for entered, _ in changes], [left for _, left in changes]


def curve_text(curve: Curve) -> str:
    """A line per threshold, the one of the rule marked."""
    shown = shown_curve(curve)
    most = max((count for count in shown if count is not None), default=0) or 1
    lines = [f"{curve.condition}: how {curve.limit} decides"]
    for threshold, count in zip(curve.thresholds, shown, strict=True):
        mark = "→" if threshold == curve.current else " "
        bar = "█" * round(BAR_WIDTH * (count or 0) / most)
        lines.append(f"{mark} {number(round(threshold, 6)):>10}  {f'{count:,}' if count is not None else HIDDEN:>11}  {bar}".rstrip())
    return "\n".join(lines)


def shown_matrix(found: Sequence[Sequence[int]]) -> list[list[int | None]]:
    """Overlaps as they may be shown; on the diagonal the sizes, but for a segment within another that has only a few people more."""
    sizes = [row[n] for n, row in enumerate(found)]
    told = {a for a, row in enumerate(found) for b, both in enumerate(row) if both == sizes[a] and 0 < sizes[b] - sizes[a] < SMALLEST_SHOWN}
    return [
        [
            (size if size >= SMALLEST_SHOWN and a not in told else None) if a == b else shown_overlap(sizes[a], sizes[b], count)[0]
            for b, count in enumerate(row)
        ]
        for a, (row, size) in enumerate(zip(found, sizes, strict=True))
    ]


def overlap_text(names: Sequence[str], found: Sequence[Sequence[int]]) -> str:
    """Rows and columns are segments; each cell says how many are in both, and which share of the row's."""
    shown, width = shown_matrix(found), max(16, *(len(each) for each in names))
    lines = [" " * width + "".join(f"  {name:>{width}}" for name in names)]
    for name, row, size in zip(names, shown, (shown[n][n] for n in range(len(names))), strict=True):
        cells = (HIDDEN if count is None else f"{count:,}" + (f" ({count / size:.0%})" if size else "") for count in row)
        lines.append(f"{name:<{width}}" + "".join(f"  {cell:>{width}}" for cell in cells))
    return "\n".join(lines)


def special_text(rows: Sequence[dict[str, Any]], top: int) -> str:
    """The attributes that stand out most: index against all others, and how many of both have it."""
    if not rows:
        return "nothing that at least 50 of these people and 50 of all others have"
    lines = [f"{'index':>6}  {'these':>6}  {'others':>6}  attribute"]
    for row in rows[:top]:
        shares = [shown_share(row["people"], row["size"]), shown_share(row["others"], row["rest"])]
        cells = "".join(f"  {HIDDEN if share is None else f'{share:.0%}':>6}" for share in shares)
        lines.append(f"{row['index']:>6.0f}{cells}  {row['dimension']}: {row['label']}{'  (in the rule)' if row['asked'] else ''}")
    notes = ["index: 100 · their mean weight / that of all others; shares: who has the attribute at all"]
    notes += [f"{HIDDEN}: fewer than 50 are without it"] if any(HIDDEN in line for line in lines) else []
    return "\n".join([*lines, *notes])


def shown_special(rows: Sequence[dict[str, Any]], top: int) -> list[tuple[str, float, float | None]]:
    """The attributes that stand out most, for a picture."""
    return [(row["label"], row["index"], shown_share(row["people"], row["size"])) for row in rows[:top]]


def why_text(found: dict[str, Any], snapshot: Snapshot) -> str:
    """Each condition with the person's values and the events behind them."""
    verdict = "is" if found["member"] else "is not"
    lines = [f"{found['user_id']} {verdict} in {found['segment']} as of {found['as_of']:%Y-%m-%d %H:%M} UTC"]
    lines += [f"  {name} by hand" for name in ("included", "excluded") if found[name]]
    lines += [f"  meets the rule, but is not among {found['beyond_top']}"] if found["beyond_top"] is not None else []
    for each in found["conditions"]:
        wanted = not each["negated"]
        lines.append(f"{'✓' if each['holds'] == wanted else '✗'} {'' if wanted else 'not '}{each['text']}")
        lines += [f"    {values_text(each['figure'], snapshot)}"] if values_text(each["figure"], snapshot) else []
        for row in each["attributes"]:
            index = f"{row['index']:.0f}" if row["index"] is not None else HIDDEN
            label = snapshot.label(row["dimension"], row["value"])
            lines.append(
                f"    {label}: weight {row['weight']:.3f}, index {index}, {row['events']} {'event' if row['events'] == 1 else 'events'}, last {row['last_at']:%Y-%m-%d}"
            )
            lines += [f"      {event['contribution']:+.2f}  {event_text(event)}" for event in row["evidence"]]
        lines += [f"      {event_text(event)}" for event in each["events"]]
    return "\n".join(lines)


def values_text(figure: dict[str, Any], snapshot: Snapshot) -> str:
    """The person's figures of a condition."""
    found = []
    for name, value in figure.items():
        if value is None:
            continue
        if name == "seen":
            found.append(f"{(snapshot.as_of - value).total_seconds() / 86_400:.1f} days ago")
        elif name == "rate":
            found.append(f"{value:,.2f} per 30 days")
        elif name == "source" and figure["weight"] is None:
            continue  # nothing at all is no other source
        elif name == "source":
            found.append("from such a source" if value else "from other sources")
        elif name != "lately":
            found.append(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value:,}")
    return ", ".join(found)


def event_text(event: dict[str, Any]) -> str:
    """One event on one line."""
    return f"{event['occurred_at']:%Y-%m-%d} {event['source']}/{event['action']}: {event['snippet']}"


def changes_text(refresh: dict[str, Any]) -> str:
    """How many entered and left, where both may be shown."""
    if refresh["number"] == 1:
        return "the first time"
    changes = shown_changes(refresh["entered"], refresh["left"])
    return f"{changes[0]:,} entered, {changes[1]:,} left" if changes is not None else "too few entered or left to be shown"


def history_text(name: str, refreshes: Sequence[dict[str, Any]], now: datetime) -> str:
    """Each refresh of a segment: when, of which profiles, how many, how many came and went."""
    lines = [
        f"{name}: refreshed {(now - refreshes[-1]['at']).total_seconds() / 86_400:.1f} days ago, profiles as of {refreshes[-1]['as_of']:%Y-%m-%d %H:%M}"
    ]
    for each in refreshes:
        jump = "" if not each["jump"] else "  JUMP, accepted" if each["accepted"] else "  JUMP: exports are stopped"
        lines.append(
            f"{each['number']:>4}  {each['at']:%Y-%m-%d %H:%M}  version {each['version']}  as of {each['as_of']:%Y-%m-%d}  "
            f"{shown_size(each['size']):>14} people  {changes_text(each)}{jump}"
        )
    return "\n".join(lines)
