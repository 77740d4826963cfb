"""Spans: units of words and characters, classes and back, one reading of every sequence, one value for every way of writing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.tagging.bundle import Curve
from penchant.tagging.spans import (
    Span,
    Unit,
    bio,
    character_tags,
    classes,
    decode,
    leaders,
    normal_form,
    raw_character_tags,
    recalibrated,
    taught,
    units,
)

DIMENSIONS = ("brand", "place")


def offsets(text: str, pieces: list[str]) -> list[tuple[int, int]]:
    """Where pieces stand in a text, one after the other; an empty one is a special piece."""
    found, place = [], 0
    for each in pieces:
        if not each:
            found.append((0, 0))
            continue
        place = text.index(each, place)
        found.append((place, place + len(each)))
        place += len(each)
    return found


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("Levi's 501s", ["", "Lev", "i", "'", "s", "50", "1s", ""], ["Levi", "'", "s", "501s"]),
        ("小米手环9Pro好", ["小米", "手", "环", "9", "Pro", "好"], ["小米", "手", "环", "9Pro", "好"]),
        ("a b", ["a", " b"], ["a", "b"]),  # a tokenizer whose pieces begin with the blank
        ("ne\u0301", ["ne", "\u0301"], ["ne\u0301"]),  # the accent is a character of its own
        ("कि", ["क", "ि"], ["कि"]),
        ("서울에", ["서울", "에"], ["서울", "에"]),
        ("snake_case", ["snake", "_", "case"], ["snake", "_", "case"]),
        (" ", [" "], []),
    ],
)
def test_units_are_words_where_words_have_spaces_and_pieces_elsewhere(text: str, pieces: list[str], expected: list[str]) -> None:
    assert [text[each.start : each.end] for each in units(text, offsets(text, pieces))] == expected


def test_a_unit_is_read_off_its_first_piece_and_pieces_of_one_character_are_one() -> None:
    assert units("😀ab", [(0, 0), (0, 1), (0, 1), (1, 2), (2, 3)]) == [Unit(1, 0, 1), Unit(3, 1, 3)]


def test_classes_are_of_the_units_that_lie_at_least_half_in_a_span() -> None:
    text = "the Nikes in New York"
    parts = units(text, offsets(text, text.split()))
    spans = [Span(4, 8, "brand"), Span(13, 21, "place")]  # "Nike" of "Nikes"
    assert classes(spans, parts, DIMENSIONS) == [0, 1, 0, 3, 4]
    assert classes([Span(4, 6, "brand")], parts, DIMENSIONS) == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("see http://t.co", ["see", "http", ":", "/", "/", "t", ".", "co"], ["see", *["http"] * 7]),
        ("@ann it's", ["@", "ann", "it", "'", "s"], ["@", "@", "it", "it", "it"]),
        ('("Nike," x', ["(", '"', "Nike", ",", '"', "x"], ["(", '"', "Nike", "Nike", "Nike", "x"]),  # a bracket leads nothing
        ("小米9Pro a", ["小米", "9", "Pro", "a"], ["小米", "9Pro", "a"]),
        ("Nike鞋", ["Nike", "鞋"], ["Nike", "鞋"]),
    ],
)
def test_what_stands_between_blanks_is_led_by_its_first_unit(text: str, pieces: list[str], expected: list[str]) -> None:
    parts = units(text, offsets(text, pieces))
    assert [text[parts[n].start : parts[n].end] for n in leaders(text, parts)] == expected


def test_fragments_outside_of_spans_teach_nothing() -> None:
    text = "@ann likes Nike, says t.co/x"
    parts = units(text, offsets(text, ["@", "ann", "likes", "Nike", ",", "says", "t", ".", "co", "/", "x"]))
    chosen = classes([Span(11, 15, "brand")], parts, DIMENSIONS)
    assert chosen == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    #                               @     ann    likes Nike  ,     says  t     .      co     /      x
    assert taught(text, parts, chosen) == [True, False, True, True, True, True, True, False, False, False, False]


def test_a_fragment_is_no_span_where_the_word_or_name_that_leads_it_is_none() -> None:
    text = "@ann t.co #nike A&B"
    parts = units(text, offsets(text, ["@", "ann", "t", ".", "co", "#", "nike", "A", "&", "B"]))
    found = decode(text, one_hot([0, 1, 0, 0, 1, 0, 1, 1, 2, 2]), parts, DIMENSIONS, [0.5, 0.5])
    assert [text[each.start : each.end] for each in found] == ["nike", "A&B"]


def one_hot(chosen: list[int]) -> np.ndarray:
    """Certain classes."""
    return np.eye(len(bio(DIMENSIONS)))[chosen]


WORDS = "a b c d e"
PARTS = units(WORDS, offsets(WORDS, WORDS.split()))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([0, 1, 2, 2, 0], [(2, 7, "brand")]),
        ([0, 2, 2, 0, 0], []),  # I- after O goes on with nothing
        ([1, 1, 0, 0, 0], [(0, 1, "brand"), (2, 3, "brand")]),
        ([1, 4, 4, 2, 0], [(0, 1, "brand")]),  # nor does an I- of another dimension, nor the one after it
        ([0, 0, 0, 0, 1], [(8, 9, "brand")]),
        ([0, 0, 0, 0, 0], []),
    ],
)
def test_every_sequence_of_classes_has_one_reading(chosen: list[int], expected: list[tuple[int, int, str]]) -> None:
    found = decode(WORDS, one_hot(chosen), PARTS, DIMENSIONS, [0.5, 0.5])
    assert [each[:3] for each in found] == expected
    assert all(each.score == 1.0 for each in found)


def test_thresholds_decide_whether_a_unit_is_in_a_span_and_the_score_is_the_mean() -> None:
    probability = np.array([[0.6, 0.3, 0.1, 0.0, 0.0], [0.5, 0.1, 0.2, 0.12, 0.08], [0.9, 0.0, 0.1, 0.0, 0.0]])
    # brand has 0.4, 0.3, 0.1; the first two go together, as I- is likelier than B- in the second
    assert decode("a b c", probability, PARTS[:3], DIMENSIONS, [0.3, 0.9]) == [Span(0, 3, "brand", pytest.approx(0.35))]
    assert decode("a b c", probability, PARTS[:3], DIMENSIONS, [0.35, 0.9]) == [Span(0, 1, "brand", pytest.approx(0.4))]
    assert decode("a b c", probability, PARTS[:3], DIMENSIONS, [0.45, 0.9]) == []
    # place exceeds its threshold by more
    assert [each.dimension for each in decode("a b c", probability, PARTS[:3], DIMENSIONS, [0.3, 0.05])] == ["brand", "place"]


def test_no_span_runs_over_a_line_break_or_where_there_are_no_units() -> None:
    parts = units("a\nb", [(0, 1), (2, 3)])
    assert [each[:2] for each in decode("a b", one_hot([1, 2]), parts, DIMENSIONS, [0.5, 0.5])] == [(0, 3)]
    assert [each[:2] for each in decode("a\nb", one_hot([1, 2]), parts, DIMENSIONS, [0.5, 0.5])] == [(0, 1)]
    assert decode("", np.zeros((0, 5)), [], DIMENSIONS, [0.5, 0.5]) == []


@given(st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_what_is_decoded_is_encoded_to_the_same_spans(chosen: list[int]) -> None:
    found = decode(WORDS, one_hot(chosen), PARTS, DIMENSIONS, [0.5, 0.5])
    again = decode(WORDS, one_hot(classes(found, PARTS, DIMENSIONS)), PARTS, DIMENSIONS, [0.5, 0.5])
    assert again == found


def test_character_tags() -> None:
    assert character_tags(7, [Span(0, 3, "brand"), Span(3, 5, "brand")]) == [
        *("B-brand", "I-brand", "I-brand", "B-brand", "I-brand", "O", "O"),
    ]
    # as they stand, with the blank inside a name; nothing is repaired
    assert raw_character_tags(9, one_hot([2, 2, 0, 1, 4]), PARTS, DIMENSIONS) == [
        *("I-brand", "I-brand", "I-brand", "O", "O", "O", "B-brand", "O", "I-place")
    ]


@pytest.mark.parametrize(
    ("surface", "value"),
    [
        ("Nike", "nike"),
        ("NIKE’s", "nike"),
        ("Adidas'", "adidas"),
        ("#Vans", "van"),
        ("#adidas", "adidas"),
        ("@Nike", "nike"),
        ("Levi's", "levi"),
        ("New  York", "new york"),
        ("ＮＩＫＥ", "nike"),
        ("華為", "华为"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("#", "#"),
        ("Vans", "vans"),
    ],
)
def test_one_value_for_all_ways_of_writing(surface: str, value: str) -> None:
    assert normal_form(surface) == value


@given(st.text(min_size=1, max_size=12))
def test_a_value_is_never_empty_where_the_surface_is_not(surface: str) -> None:
    value = normal_form(surface)
    assert bool(value) == bool(surface.split())


def test_scores_follow_the_curve_and_stay_without_one() -> None:
    spans = [Span(0, 1, "brand", 0.6), Span(2, 3, "place", 0.9)]
    curve = Curve(stated=(0.5, 0.7, 0.9), calibrated=(0.2, 0.4, 0.8))
    assert recalibrated(spans, curve) == [Span(0, 1, "brand", pytest.approx(0.3)), Span(2, 3, "place", pytest.approx(0.8))]
    assert recalibrated(spans, None) == spans
