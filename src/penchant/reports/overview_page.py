"""The page that shows everything: corpus, model, profiles with their evidence, the segment, the rejects."""

import csv
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import ibis
from markupsafe import Markup
from pydantic import Field

from penchant.config import Settings
from penchant.errors import DataError
from penchant.files import read_json
from penchant.ingest.convert import as_labels
from penchant.ingest.readers import BadRow, Row, rows
from penchant.profiles.evaluate import Planted, evaluate, load_truth
from penchant.profiles.fold import masses_over_time
from penchant.profiles.snapshot import Snapshot, load, user_profile
from penchant.profiles.view import by_dimension, heading
from penchant.reports import pictures, segment_pictures
from penchant.reports.page import render
from penchant.reports.segments_text import changes_text, shown_funnel, shown_history, shown_matrix, shown_special
from penchant.reports.training_page import report_values
from penchant.segments.counts import shown_size
from penchant.segments.insight import funnel, overlaps, special
from penchant.segments.life import Records
from penchant.segments.load import checked, read_audience
from penchant.segments.people import Audience
from penchant.taxonomy import Taxonomy

POINTS = 60
ROWS_PER_USER = 8
OTHERS_PER_USER = 5
"""Attributes of each dimension but interests."""
LINES_PER_USER = 6
SENSITIVE_HIDDEN = 10
SPECIAL = 12
"""Attributes that a segment is told apart by."""
FIGURES = {
    "labels",
    "rows",
    "history",
    "results",
    "intervals",
    "calibration",
    "curves",
    "confusions",
    "mistakes",
    "model",
    "parts",
    "slices",
    "temperature",
}


class ReportSettings(Settings):
    """What `penchant report` reads."""

    corpus: tuple[Path, ...] = Field(min_length=1)
    """Labelled texts."""
    training: Path
    """`report.json` of the training run."""
    events: Path
    """Folder that `penchant ingest` wrote."""
    profiles: Path
    """Store that `penchant profile build` wrote."""
    truth: Path | None = None
    """Planted truth, where there is one."""
    users: tuple[str, ...] = ()
    """Users to show; absent: three chosen from the truth or by number of events."""
    segments: tuple[Path, ...] = Field(min_length=1)
    """Segments to show: size, what each condition leaves, what is special about the people, and how they overlap."""
    records: Path | None = None
    """Folder of what `penchant segment refresh` recorded, for their sizes over time."""
    language: str | None = None
    """Call interests by their names in this language (ISO 639-1), such as zh; absent: by the names themselves."""


def overview_page(settings: ReportSettings) -> str:
    """One self-contained HTML page."""
    snapshot = load(settings.profiles)
    taxonomy, language = snapshot.taxonomy, settings.language
    taxonomy.require_language(language, "language")
    figures = read_json(settings.training)
    if not isinstance(figures, dict) or not FIGURES.issubset(figures):
        raise DataError(
            f"{settings.training}: no training report of interests; penchant train writes one as report.json for the tasks interests and both"
        )
    truth = load_truth(settings.truth) if settings.truth is not None else {}
    measured = None
    if settings.truth is not None:
        measured = evaluate(settings.profiles, settings.truth)
    if language is not None:
        figures["labels"] = {
            label: taxonomy.label(label, language) if label in taxonomy.by_id else name for label, name in figures["labels"].items()
        }
    return render(
        "overview.html",
        corpus=corpus_figures(settings.corpus, taxonomy, language),
        **report_values(figures),
        sources={
            name: {"rows": counts.get("rows", 0), "events": counts.get("events", 0)}
            for name, counts in read_json(settings.events / "summary.json").items()
        },
        rejects=rejects(settings.events / "rejects.csv"),
        snapshot=snapshot,
        measured=measured,
        users=users(settings, snapshot, truth),
        **segments(settings, snapshot),
        hidden=sorted(taxonomy.label(each, language) for each in taxonomy.sensitive)[:SENSITIVE_HIDDEN],
    )


def corpus_figures(paths: tuple[Path, ...], taxonomy: Taxonomy, language: str | None) -> dict[str, Any]:
    """Counts of the labelled texts, and a picture of how often each interest occurs."""
    texts: list[Row] = []
    for path in paths:
        for place, row in rows(path):
            if isinstance(row, BadRow) or "interests" not in row or (labels := as_labels(row["interests"])) is None:
                raise DataError(
                    f"{path}:{place}: {row.reason if isinstance(row, BadRow) else 'expected a labelled text with a list of interests'}"
                )
            texts.append(row | {"interests": labels})
    if not texts:
        raise DataError(f"{', '.join(map(str, paths))}: no texts")
    counts = Counter(label for text in texts for label in text["interests"])
    drawn = pictures.bars([(taxonomy.label(label, language), count) for label, count in counts.most_common()], "texts per interest")
    return {
        "texts": len(texts),
        "kinds": Counter(text.get("kind") or "text" for text in texts),
        "several": sum(len(text["interests"]) > 1 for text in texts),
        "none": sum(not text["interests"] for text in texts),
        "picture": Markup(drawn),  # noqa: S704 - our own SVG
    }


def rejects(path: Path) -> dict[str, Any]:
    """Rejected rows: how many for which reason, and the first of each."""
    with path.open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    reasons = Counter((row["source"], row["reason"]) for row in table)
    first: dict[tuple[str, str], dict[str, str]] = {}
    for row in table:
        first.setdefault((row["source"], row["reason"]), row)
    return {
        "count": len(table),
        "reasons": [
            {"source": source, "reason": reason, "count": count, "first": first[source, reason]}
            for (source, reason), count in reasons.most_common()
        ],
    }


def users(settings: ReportSettings, snapshot: Snapshot, truth: dict[str, Planted]) -> list[dict[str, Any]]:
    """The chosen users with their attributes, and a picture of how their interests changed."""
    chosen = {user: user_profile(snapshot, user, settings.language) for user in list(settings.users) or choose(snapshot, truth)}
    worth = snapshot.contributions(ibis.memtable({"user_id": list(chosen)}, schema={"user_id": "string"}))
    worth = worth.filter(worth.dimension == "interest")
    first = worth.occurred_at.min().to_pyarrow().as_py()
    days = [first + n * (snapshot.as_of - first) / POINTS for n in range(1, POINTS + 1)] if first is not None else []
    days = [day.replace(microsecond=0) + timedelta(seconds=1) for day in days]
    short = f"mass_{snapshot.policy.horizons[0]}"
    mass: defaultdict[str, dict[str, dict[Any, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in masses_over_time(worth, snapshot.policy, days).to_pyarrow().to_pylist() if days else []:
        mass[row["user_id"]][row["value"]][row["as_of"]] = max(row[short], 0.0)
    label = partial(snapshot.label, "interest", language=settings.language)
    barred = snapshot.taxonomy.sensitive - snapshot.policy.permitted
    return [one_user(user, attributes, mass[user], days, label, barred, truth.get(user)) for user, attributes in chosen.items()]


def one_user(
    user: str,
    attributes: list[dict[str, Any]],
    mass: dict[str, dict[Any, float]],
    days: list[Any],
    label: Callable[[str], str],
    barred: frozenset[str],
    planted: Planted | None,
) -> dict[str, Any]:
    """What the page shows of one user; interests are called by their `label`, and those that are `barred` stay out of what was planted."""
    strongest = sorted(mass, key=lambda value: -max(mass[value].values()))[:LINES_PER_USER]
    totals = {day: sum(series.get(day, 0.0) for series in mass.values()) or 1.0 for day in days}
    lines = {label(value): [mass[value].get(day, 0.0) / totals[day] for day in days] for value in strongest}
    drawn = pictures.shares_over_time(days, lines, planted.changed_at if planted is not None else None) if lines else ""
    dimensions = by_dimension(attributes)
    return {
        "id": user,
        "rows": dimensions.pop("interest", [])[:ROWS_PER_USER],
        "others": [{"heading": heading(dimension), "rows": rows[:OTHERS_PER_USER]} for dimension, rows in dimensions.items()],
        "planted": sorted(label(each) for each in planted.interests - barred) if planted is not None else [],
        "dropped": label(planted.dropped) if planted is not None and planted.dropped and planted.dropped not in barred else None,
        "picture": Markup(drawn),  # noqa: S704 - our own SVG
    }


def choose(snapshot: Snapshot, truth: dict[str, Planted]) -> list[str]:
    """Three users with many events behind their interests, two of whom changed an interest where that is known."""
    state = snapshot.state
    table = state.group_by("user_id").agg(events=state.events.sum(where=state.dimension == "interest").fill_null(0))
    busiest = table.order_by(table.events.desc(), table.user_id).limit(200).to_pyarrow()["user_id"].to_pylist()
    changed = [user for user in busiest if user in truth and truth[user].changed_at is not None][:2]
    return (changed + [user for user in busiest if user not in changed])[:3]


def segments(settings: ReportSettings, snapshot: Snapshot) -> dict[str, Any]:
    """Each segment with its size as it may be shown and its pictures, and the picture of how they overlap."""
    audiences = [checked(read_audience(path), snapshot) for path in settings.segments]
    shown = shown_matrix(overlaps(audiences, snapshot))
    names = [each.segment.name for each in audiences]
    overlap = segment_pictures.overlap(names, [row[n] for n, row in enumerate(shown)], shown) if len(names) > 1 else ""
    return {
        "segments": [one_segment(each, snapshot, settings.records) for each in audiences],
        "overlap": Markup(overlap),  # noqa: S704 - our own SVG
    }


def one_segment(audience: Audience, snapshot: Snapshot, records: Path | None) -> dict[str, Any]:
    """What the page shows of one segment."""
    steps, standing = funnel(audience, snapshot), special(audience, snapshot)
    refreshes = Records(records).of(audience.segment.name).refreshes if records is not None else []
    drawn = {
        "funnel": segment_pictures.funnel(shown_funnel(steps)),
        "special": segment_pictures.special(shown_special(standing, SPECIAL)) if standing else "",
        "history": segment_pictures.sizes_over_time(*shown_history(refreshes)) if len(refreshes) > 1 else "",
    }
    changes = changes_text(refreshes[-1]) if len(refreshes) > 1 else None
    return {
        "segment": audience.segment,
        "rule": audience.rule.text(),
        "size": shown_size(steps[-1][1]),
        "changes": changes,
        "pictures": {name: Markup(each) for name, each in drawn.items()},  # noqa: S704 - our own SVG
    }
