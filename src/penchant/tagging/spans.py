"""Spans: from what a token classifier says about word pieces to exact characters of a text, and back.

A tokenizer's pieces are joined into units first: pieces of one word, in scripts that put spaces between words, are one
unit, and so are pieces that share a character; in Chinese, Japanese and Korean each piece is a unit of its own. A span
begins and ends with a unit, so it never cuts a word piece, nor a word of spaced scripts.

What stands between two blanks is led by its first unit: `http` leads the fragments of an address, `@` a user's name, `it`
those of `it's`. Fragments that are in no span teach nothing: they look like the rare names that are to be found, and a
model taught that they are none found fewer (W-NUT 2017: F1 0.40 with them, 0.46 without). So they also begin no span
where their leader, a word or an `@`, is in none.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from penchant.ingest.chinese import simplified
from penchant.tagging.bundle import Curve, Floats

UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
"""Letters of scripts that don't put spaces between words, and Hangul, whose particles stick to the word: Thai, Lao, Myanmar, Khmer, kana, Han."""

OPENING = re.compile(r"[\"'`*_~<«‹“„‘‚(\[{-]+")
"""What stands before a word without belonging to it."""

LEADING = re.compile(r"[\w@]")
"""How a leader begins without which nothing behind it is a span."""

POSSESSIVE = re.compile(r"(?<=\w)['’]s?$|(?<=s)['’]$")


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text name something of this dimension."""

    start: int
    end: int
    dimension: str
    score: float = 1.0


class Unit(NamedTuple):
    """The piece a unit is read off, and its characters."""

    piece: int
    start: int
    end: int


def units(text: str, offsets: Sequence[tuple[int, int]]) -> list[Unit]:
    """The units of a text from its pieces' character offsets; pieces without a character, or with blanks alone, belong to none."""
    found: list[Unit] = []
    for piece, (first, end) in enumerate(offsets):
        start = end - len(text[first:end].lstrip())
        if start == end:
            continue
        if found and (start < found[-1].end or (start == found[-1].end and within_word(text, start))):
            found[-1] = found[-1]._replace(end=max(end, found[-1].end))
        else:
            found.append(Unit(piece, start, end))
    return found


def within_word(text: str, place: int) -> bool:
    """Whether the characters before and at `place` belong to one word of a spaced script."""
    return all(unicodedata.category(each)[0] in "LMN" and not UNSPACED.match(each) for each in text[place - 1 : place + 1])


def leaders(text: str, parts: Sequence[Unit]) -> list[int]:
    """For each unit the place of the unit that leads it: the first since the last blank that is no bracket or quote; up to there, and in scripts without blanks, itself."""
    found: list[int] = []
    leader = None
    for n, unit in enumerate(parts):
        if n and (unit.start > parts[n - 1].end or UNSPACED.match(text[unit.start]) or UNSPACED.match(text[unit.start - 1])):
            leader = None
        if leader is None and not OPENING.fullmatch(text[unit.start : unit.end]):
            leader = n
        found.append(n if leader is None else leader)
    return found


def taught(text: str, parts: Sequence[Unit], chosen: Sequence[int]) -> list[bool]:
    """Whether each unit, of these classes, is learned from: all but fragments outside of spans, led by a unit outside."""
    return [bool(chosen[n] or chosen[leader] or leader == n) for n, leader in enumerate(leaders(text, parts))]


def bio(dimensions: Sequence[str]) -> tuple[str, ...]:
    """The classes of the token classifier: `O`, then `B-` and `I-` of each dimension."""
    return ("O", *(f"{position}-{dimension}" for dimension in dimensions for position in "BI"))


def classes(spans: Sequence[Span], parts: Sequence[Unit], dimensions: Sequence[str]) -> list[int]:
    """The class (place in `bio`) of each unit. A unit belongs to the first span that holds at least half of its characters."""
    found = [0] * len(parts)
    for span in sorted(spans):
        inside = [n for n, unit in enumerate(parts) if 2 * (min(unit.end, span.end) - max(unit.start, span.start)) >= unit.end - unit.start]
        free = [n for n in inside if not found[n]]
        for n in free:
            found[n] = 2 + 2 * dimensions.index(span.dimension)
        if free:
            found[free[0]] -= 1
    return found


def decode(text: str, probability: Floats, parts: Sequence[Unit], dimensions: Sequence[str], thresholds: Sequence[float]) -> list[Span]:
    """Spans of a text.

    A unit belongs to the dimension whose probability (`B-` and `I-` together) exceeds its threshold most, if any does and
    the unit that leads it belongs to one too. It
    begins a span where `B-` is at least as likely as `I-`; else it goes on with the span that the unit before is in, on
    the same line, if that is of the same dimension. An `I-` that goes on with nothing is no span: so every sequence has
    one reading (seqeval's strict one, which the data sets of docs/training.md score higher). A span's score is
    the mean over its units. *Shape:* probability (units, classes).
    """
    found: list[tuple[int, int, int]] = []
    inside = probability[:, 1::2] + probability[:, 2::2]
    margin = inside - np.asarray(thresholds)
    named = (margin.max(axis=1) >= 0).tolist() if len(parts) else []
    leading = [leader if LEADING.match(text[parts[leader].start]) else n for n, leader in enumerate(leaders(text, parts))]
    for n, chosen in enumerate(margin.argmax(axis=1).tolist() if len(parts) else []):
        if not (named[n] and named[leading[n]]):
            continue
        if probability[n, 1 + 2 * chosen] >= probability[n, 2 + 2 * chosen]:
            found.append((n, n + 1, chosen))
        elif found and found[-1][1:] == (n, chosen) and "\n" not in text[parts[n - 1].end : parts[n].start]:
            found[-1] = (found[-1][0], n + 1, chosen)
    return [
        Span(parts[first].start, parts[end - 1].end, dimensions[chosen], float(inside[first:end, chosen].mean()))
        for first, end, chosen in found
    ]


def recalibrated(spans: Sequence[Span], curve: Curve | None) -> list[Span]:
    """Spans with their scores as probabilities of being exactly right."""
    if curve is None:
        return list(spans)
    return [each._replace(score=float(np.interp(each.score, curve.stated, curve.calibrated))) for each in spans]


def character_tags(length: int, spans: Sequence[Span]) -> list[str]:
    """One BIO tag per character: what is compared, so that the tokenizer has no say in what counts as right."""
    tags = ["O"] * length
    for span in spans:
        tags[span.start : span.end] = [f"B-{span.dimension}", *[f"I-{span.dimension}"] * (span.end - span.start - 1)]
    return tags


def raw_character_tags(length: int, probability: Floats, parts: Sequence[Unit], dimensions: Sequence[str]) -> list[str]:
    """Per character, the likeliest class of its unit, nothing repaired; blanks within a name are inside it. *Shape:* probability (units, classes)."""
    names, tags = bio(dimensions), ["O"] * length
    end = 0
    for unit, chosen in zip(parts, probability.argmax(axis=1).tolist() if len(parts) else [], strict=True):
        name = names[chosen]
        inside = f"I-{name[2:]}"
        if name.startswith("I-") and end and tags[end - 1][2:] == name[2:]:
            tags[end : unit.start] = [inside] * (unit.start - end)
        if name != "O":
            tags[unit.start : unit.end] = [name, *[inside] * (unit.end - unit.start - 1)]
        end = unit.end
    return tags


def normal_form(surface: str) -> str:
    """The value of a span's tag: one for all the ways a name is written.

    Compatibility characters folded (NFKC), one case, simplified Chinese characters, single blanks, no possessive, no
    `#` or `@` before it, and a hashtag's plural s taken off (`#Adidas` stays: `as`, `is`, `os`, `us` and `ss` end names).
    """
    folded = " ".join(unicodedata.normalize("NFKC", simplified(surface)).casefold().split())
    bare = POSSESSIVE.sub("", folded.lstrip("#@").strip()) or folded
    plural = folded.startswith("#") and len(bare) > 3 and bare.endswith("s") and bare[-2] not in "aious"
    return bare[:-1] if plural else bare
