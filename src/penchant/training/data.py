"""Labelled texts: read, and checked as a whole before anything is trained."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from penchant import taxonomy as taxonomies
from penchant.config import suggestion
from penchant.errors import DataError, PenchantError, problems
from penchant.ingest.clean import clean, document, mask
from penchant.ingest.convert import as_labels
from penchant.ingest.readers import BadRow, Row, rows
from penchant.tagging.bundle import load_spec
from penchant.tagging.encoder import resolve
from penchant.tagging.spans import UNSPACED, Span
from penchant.taxonomy import Taxonomy
from penchant.training.settings import TrainSettings, shown

log = logging.getLogger(__name__)
SPLITS = ("train", "validation", "test", "unlabelled")
ABOUT = ("kind", "language", "user_group", "group", "time")


@dataclass(frozen=True)
class Labelled:
    """One split.

    `targets` *Shape:* (texts, labels), 0 or 1, or a teacher's probabilities. `about` holds a value per text for each of `ABOUT` that the rows have, and its `length`.
    """

    texts: list[str]
    targets: np.ndarray
    spans: list[tuple[Span, ...]]
    places: list[str]
    about: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def kinds(self) -> list[str]:
        """The kind of each text."""
        return self.about["kind"]

    def take(self, chosen: Sequence[int]) -> "Labelled":
        """The rows at these positions, in this order."""
        about = {name: [values[n] for n in chosen] for name, values in self.about.items()}
        return Labelled(
            [self.texts[n] for n in chosen],
            self.targets[list(chosen)],
            [self.spans[n] for n in chosen],
            [self.places[n] for n in chosen],
            about,
        )


@dataclass(frozen=True)
class Corpus:
    """Everything a run learns from and is measured on."""

    taxonomy: Taxonomy | None
    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    train: Labelled
    validation: Labelled
    test: Labelled
    unlabelled: Labelled | None = None
    """Texts that a teacher labels; until then they have no label and no span."""

    def name(self, label: str) -> str:
        """What people read for a label."""
        return self.taxonomy.label(label) if self.taxonomy is not None else label


@dataclass(frozen=True)
class RawRow:
    """One labelled text as it was read; spans are offsets into the cleaned text."""

    place: str
    text: str
    labels: list[str]
    spans: tuple[Span, ...]
    about: dict[str, str]


def read_splits(settings: TrainSettings) -> tuple[Taxonomy | None, tuple[str, ...], tuple[str, ...], dict[str, Labelled]]:
    """The taxonomy, the labels, the dimensions and the splits that have a file.

    Raises `DataError` that lists the mistakes of all files at once.
    """
    paths = {name: files for name in SPLITS if (files := getattr(settings, name)) is not None}
    raw: dict[str, list[RawRow]] = {}
    mistakes: list[str] = []
    for name, files in paths.items():
        raw[name] = []
        for path in files:
            try:
                found, wrong = read_unlabelled(path, settings) if name == "unlabelled" else read_labelled(path, settings)
            except DataError as error:  # damaged as a whole
                found, wrong = [], [str(error)]
            raw[name] += found
            mistakes += wrong or ([] if found else [f"{path}: no rows with a text"])
    if not raw["train"] and settings.taxonomy is None:
        raise DataError(problems("training data", mistakes))
    taxonomy = taxonomy_for(settings, raw["train"]) if settings.task != "spans" else None
    labels: tuple[str, ...] = ()
    if taxonomy is not None:
        labels = settings.labels or taxonomy.leaves
        mistakes += [
            f"labels: unknown interest {each!r}{suggestion(each, sorted(taxonomy.by_id))}" for each in labels if each not in taxonomy.by_id
        ]
    found_types = sorted({span.dimension for row in raw["train"] for span in row.spans})
    names = (settings.dimensions or {each: each for each in found_types}) if settings.task != "interests" else {}
    dimensions = tuple(dict.fromkeys(names.values()))
    if "interest" in dimensions:
        mistakes.append("dimensions: spans can't be of dimension 'interest', which is that of the interests")
    mistakes += wrong_start(settings, labels, dimensions) + wrong_teacher(settings, labels, dimensions)
    if raw["train"]:
        mistakes += unlearnable(settings, raw["train"], labels, names)
    for name in paths:  # last, as they may be many; where no type of span is known, each would be unknown
        mistakes += wrong_labels(raw[name], labels if settings.task != "spans" else None, names or None)
    if mistakes:
        raise DataError(problems("training data", list(dict.fromkeys(mistakes))))  # model and teacher may be one damaged bundle
    return taxonomy, labels, dimensions, {name: encode(found, labels, names) for name, found in raw.items()}


def taxonomy_for(settings: TrainSettings, found: Sequence[RawRow]) -> Taxonomy:
    """The taxonomy of the settings, or a flat one over the labels found."""
    if settings.taxonomy is not None:
        return taxonomies.load(settings.taxonomy)
    labels = sorted({label for row in found for label in row.labels})
    if not labels:
        raise DataError(f"{shown(settings.train)}: no row has a label in column {settings.columns.labels!r}, and no taxonomy is given")
    return taxonomies.from_labels(labels, name=settings.train[0].stem)


def wrong_labels(found: Sequence[RawRow], labels: Sequence[str] | None, names: Mapping[str, str] | None) -> list[str]:
    """Labels and types of spans that are none of the known ones; None: not learned, so not looked at."""
    wrong = [
        f"{row.place}: unknown interest {label!r}{suggestion(label, labels)}"
        for row in found
        for label in row.labels
        if labels is not None and label not in labels
    ]
    return wrong + [
        f"{row.place}: unknown type of span {span.dimension!r}{suggestion(span.dimension, sorted(names))}"
        for row in found
        for span in row.spans
        if names is not None and span.dimension not in names
    ]


def unlearnable(settings: TrainSettings, train: Sequence[RawRow], labels: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Labels and types of spans that no training text shows, or that all do."""
    mistakes: list[str] = []
    if settings.task != "spans":
        used = Counter(label for row in train for label in set(row.labels))
        mistakes += [
            f"{shown(settings.train)}: no row is labelled {label!r}; add some, or name the interests to train in 'labels'"
            for label in labels
            if not used[label]
        ]
        mistakes += [
            f"{shown(settings.train)}: every row is labelled {label!r}; add texts without it"
            for label in labels
            if used[label] == len(train)
        ]
    if settings.task != "interests":
        spans = {span.dimension for row in train for span in row.spans}
        mistakes += [
            f"{shown(settings.train)}: no row has a span of type {name!r}; add some, or name the types to train in 'dimensions'"
            for name in names
            if name not in spans
        ]
        if not names:
            mistakes.append(f"{shown(settings.train)}: no row has a span in column {settings.columns.spans!r}")
    return mistakes


def wrong_start(settings: TrainSettings, labels: tuple[str, ...], dimensions: tuple[str, ...]) -> list[str]:
    """Why the model, where it is a bundle, can't be trained on: damaged, or made for other labels."""
    folder = Path(resolve(settings.model))
    if not (folder / "tagger.json").exists():
        return []
    try:
        spec = load_spec(folder)
    except PenchantError as error:
        return [str(error)]
    mistakes = []
    if spec.task != settings.task:
        mistakes.append(f"model {folder}: a bundle for the task {spec.task!r}, the settings say {settings.task!r}")
    mistakes += [
        f"model {folder}: a bundle with {name}: {getattr(spec, name)}, the settings say {getattr(settings, name)}"
        for name in ("mark_capitals", "simplify_chinese")
        if getattr(spec, name) != getattr(settings, name)
    ]
    for known, wanted, what in (
        (spec.labels, labels, "interests"),
        (spec.spans.dimensions if spec.spans else (), dimensions, "dimensions"),
    ):
        if spec.task == settings.task and known != wanted:
            other = sorted(set(known) ^ set(wanted)) or ["the same in another order"]
            mistakes.append(
                f"model {folder}: a bundle of another taxonomy: its {what} differ in {', '.join(other[:5])}; start from the checkpoint it was made from"
            )
    return mistakes


def wrong_teacher(settings: TrainSettings, labels: tuple[str, ...], dimensions: tuple[str, ...]) -> list[str]:
    """Why the teacher can't teach this run: no bundle, damaged, or one that answers something else."""
    if settings.teacher is None:
        return []
    try:
        spec = load_spec(settings.teacher)
    except PenchantError as error:
        return [str(error)]
    if spec.task not in (settings.task, "both"):
        return [f"teacher {settings.teacher}: finds {spec.task} only, which doesn't teach task {settings.task}"]
    mistakes = []
    for known, wanted, what in (
        (spec.labels, labels, "interests"),
        (spec.spans.dimensions if spec.spans else (), dimensions, "dimensions"),
    ):
        other = sorted(set(known) ^ set(wanted)) if wanted else []
        if other:
            mistakes.append(
                f"teacher {settings.teacher}: its {what} aren't those of the run, they differ in {', '.join(other[:5])}; take a bundle of the same"
            )
    return mistakes


def read_labelled(path: Path, settings: TrainSettings) -> tuple[list[RawRow], list[str]]:
    """Rows with cleaned texts, and the mistakes found."""
    columns = settings.columns
    needed = [columns.text[0]]
    needed += [columns.labels] if settings.task != "spans" else []
    needed += [columns.spans] if settings.task != "interests" else []
    found: list[RawRow] = []
    mistakes: list[str] = []
    for number, row in records(path, settings):
        place = f"{path}:{number}"
        if isinstance(row, BadRow):
            mistakes.append(f"{place}: {row.reason}")
            continue
        missing = [name for name in needed if name not in row]
        if missing:
            mistakes.append(f"{place}: no column {missing[0]!r}; it has {', '.join(map(repr, row))}")
            if not found:
                break
            continue
        one, wrong = read_row(place, row, settings)
        mistakes += wrong
        found += [one] if one is not None else []
    return found, mistakes


def read_unlabelled(path: Path, settings: TrainSettings) -> tuple[list[RawRow], list[str]]:
    """Rows with cleaned texts alone, and what is wrong with the file. Rows without a usable text are left out and counted."""
    found: list[RawRow] = []
    unusable = 0
    for number, row in records(path, settings):
        place = f"{path}:{number}"
        if isinstance(row, BadRow):
            unusable += 1
            continue
        if not found and settings.columns.text[0] not in row:
            return [], [f"{place}: no column {settings.columns.text[0]!r}; it has {', '.join(map(repr, row))}"]
        _, text = texts_of(row, settings)
        found += [RawRow(place, text, [], (), {"kind": "text"})] if text else []
        unusable += not text
    if unusable:
        log.warning("%s: %d rows are left out that have no usable text", path, unusable)
    return found, []


def records(path: Path, settings: TrainSettings) -> Iterator[tuple[int, Row | BadRow]]:
    """Rows of a file with the line or row each stands at."""
    return conll(path, settings) if path.suffix == ".conll" else rows(path)


def texts_of(row: Row, settings: TrainSettings) -> tuple[list[str], str]:
    """The text columns of a row as they are, and the one cleaned text that is read."""
    parts = [str(row[name]) for name in settings.columns.text if row.get(name)]
    tidy = [mask(clean(each)) for each in parts]
    return parts, document(tidy[0], "\n".join(tidy[1:])) if tidy else ""


def read_row(place: str, row: Row, settings: TrainSettings) -> tuple[RawRow | None, list[str]]:
    """One row, or what is wrong with it."""
    columns = settings.columns
    parts, text = texts_of(row, settings)
    if not text and any(each.strip() for each in parts):
        log.warning("%s: left out, as cleaning leaves nothing of its text", place)
        return None, []
    if not text:
        return None, [f"{place}: empty text"]
    labels = as_labels(row[columns.labels]) if settings.task != "spans" else []
    if labels is None:
        return None, [f"{place}: {columns.labels} is {row[columns.labels]!r}, expected a list of ids"]
    spans: tuple[Span, ...] = ()
    if settings.task != "interests":
        try:
            spans = moved(as_spans(row[columns.spans], "\n".join(parts)), "\n".join(parts), text)
        except ValueError as error:
            return None, [f"{place}: {error}"]
    about = {name: str(row[column]) for name in ABOUT if (column := getattr(columns, name)) and row.get(column) not in (None, "")}
    return RawRow(place, text, labels, spans, {"kind": "text"} | about), []


def as_spans(value: Any, text: str) -> list[Span]:
    """A cell of spans, checked against the text it belongs to. Raises `ValueError` that says what is wrong with it."""
    try:
        listed = json.loads(value) if isinstance(value, str) and value.strip() else value or []
        spans = sorted(Span(index(each["start"]), index(each["end"]), each["dimension"]) for each in listed)
        stated = {(each["start"], each["end"]): each["text"] for each in listed if each.get("text") is not None}
        if not all(isinstance(span.dimension, str) and span.dimension for span in spans):
            raise ValueError("a span without a dimension")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"spans are {value!r}, expected a list of {{start, end, dimension}}") from error
    for n, span in enumerate(spans):
        surface = text[max(span.start, 0) : span.end]
        named = f"span {span.start}–{span.end} ({span.dimension})"
        if not 0 <= span.start < span.end <= len(text):
            raise ValueError(f"{named} doesn't lie in its text of {len(text)} characters")
        if surface != surface.strip():
            raise ValueError(f"{named} begins or ends with a blank: {surface!r}")
        if stated.get((span.start, span.end), surface) != surface:
            raise ValueError(f"{named} should be {stated[span.start, span.end]!r}, but its text has {surface!r} there")
        if n and span.start < spans[n - 1].end:
            raise ValueError(f"{named} overlaps the one before")
    return spans


def moved(spans: Sequence[Span], raw: str, text: str) -> tuple[Span, ...]:
    """Spans of the raw text where they stand in the cleaned one. Raises `ValueError` for one that cleaning took away."""
    if raw == text or not spans:
        return tuple(spans)
    blocks = SequenceMatcher(None, raw, text, autojunk=False).get_opcodes()
    found = []
    for span in spans:
        kept = [
            (new + max(span.start - old, 0), new_end - max(old_end - span.end, 0)) if old_end - old == new_end - new else (new, new_end)
            for _, old, old_end, new, new_end in blocks
            if old < span.end and old_end > span.start and new < new_end
        ]
        if not kept:
            raise ValueError(f"span {span.start}–{span.end} ({span.dimension}) is nothing that cleaning leaves of its text")
        found.append(Span(kept[0][0], kept[-1][1], span.dimension))
        if len(found) > 1 and found[-1].start < found[-2].end:
            raise ValueError(f"span {span.start}–{span.end} ({span.dimension}) can't be told from the one before once its text is cleaned")
    return tuple(found)


def conll(path: Path, settings: TrainSettings) -> Iterator[tuple[int, Row | BadRow]]:
    """Texts of a CoNLL file by the line they begin on, as rows: a token and its BIO tag per line, an empty line after each text.

    An `I-` that continues nothing begins a span.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as UTF-8 text: {error}") from error
    for filled, group in groupby(enumerate(lines, 1), key=lambda line: bool(line[1].strip())):
        if not filled:
            continue
        cells = [(number, line.rstrip("\r").rsplit("\t" if "\t" in line else " ", 1)) for number, line in group]
        wrong = next(
            ((number, each) for number, each in cells if len(each) < 2 or not (each[1] == "O" or each[1][:2] in ("B-", "I-"))), None
        )
        if wrong is not None:
            said = " ".join(wrong[1])
            yield wrong[0], BadRow(f"{said!r} is no token with a BIO tag, such as: Paris B-location", said)
            continue
        text, spans, is_open = "", list[dict[str, Any]](), False
        for _, (token, tag) in cells:
            start = len(text) + (len(settings.conll_joiner) if text else 0)
            text = f"{text}{settings.conll_joiner}{token}" if text else token
            if is_open and tag == f"I-{spans[-1]['dimension']}":
                spans[-1]["end"] = len(text)
            elif tag != "O":
                spans.append({"start": start, "end": len(text), "dimension": tag[2:]})
            is_open = tag != "O"
        yield cells[0][0], {settings.columns.text[0]: text, settings.columns.spans: spans}


def encode(raw: Sequence[RawRow], labels: Sequence[str], names: Mapping[str, str]) -> Labelled:
    """Raw rows as one split."""
    position = {label: n for n, label in enumerate(labels)}
    targets = np.zeros((len(raw), len(labels)), np.float32)
    for n, row in enumerate(raw):
        for label in row.labels:
            targets[n, position[label]] = 1
    columns = sorted({name for row in raw for name in row.about})
    about = {name: [row.about.get(name, "unknown") for row in raw] for name in columns}
    about.setdefault("language", [script(row.text) for row in raw])
    about["length"] = [length_class(row.text) for row in raw]
    spans = [tuple(span._replace(dimension=names[span.dimension]) for span in row.spans) for row in raw]
    return Labelled([row.text for row in raw], targets, spans, [row.place for row in raw], about)


def script(text: str) -> str:
    """`unspaced` for a text mostly of letters of scripts without spaces between words, such as Chinese; else `spaced`."""
    letters = [each for each in text if each.isalpha()]
    return "unspaced" if 2 * sum(bool(UNSPACED.match(each)) for each in letters) > len(letters) else "spaced"


def length_class(text: str) -> str:
    """Characters of a text, in classes for the report."""
    return next((f"{n + 1}. under {limit} characters" for n, limit in enumerate((40, 120, 400)) if len(text) < limit), "4. longer")
