"""The training report as text and as a page: every figure at its place, every text as it is."""

import re
from typing import Any

import pytest

from penchant.reports.training_page import NAMES, training_page, training_text
from tests.figures import LABELS, NASTY, addresses, elements, figures, words


def test_the_text_has_a_line_per_interest_with_its_figures() -> None:
    lines = training_text(figures()).splitlines()
    assert lines[0] == "minilm: 1,234 training texts, 62 s, 30 test texts"
    header = next(line for line in lines if line.startswith("interest"))
    assert header.split() == ["interest", "precision", "recall", "F1", "AP", "texts"]
    running = next(line for line in lines if line.startswith("sports.running"))
    assert running.split() == ["sports.running", "0.123", "0.456", "0.804", "0.900", "40"]
    assert len(running) == len(header)  # columns stand under their names


def test_the_text_averages_all_texts_and_each_kind() -> None:
    text = training_text(figures())
    parts = {block.splitlines()[0]: [line.split() for line in block.splitlines()[1:]] for block in text.split("\n\n")}
    assert parts["all texts"] == [
        ["macro", "0.123", "0.456", "0.800", "0.900"],
        ["micro", "0.123", "0.456", "0.801", "–"],
        ["samples", "0.123", "0.456", "0.802", "–"],
        ["no", "interest", "0.123", "0.456", "0.803", "–", "4"],
    ]
    assert parts["posts"][0] == ["macro", "0.123", "0.456", "0.750", "0.900"]
    assert parts["reviews"][0] == ["macro", "0.123", "0.456", "0.850", "–"]  # nothing to measure it on


def test_the_text_sets_the_models_side_by_side() -> None:
    lines = [line for line in training_text(figures()).splitlines() if line.startswith(tuple(NAMES.values()))]
    assert [line.split("  ")[0] for line in lines] == [NAMES["bert"], NAMES["tfidf"]] * 2  # figures, then intervals
    # macro F1, micro F1, samples F1, none F1, macro AP
    assert lines[0].split()[-5:] == ["0.800", "0.801", "0.802", "0.803", "0.900"]
    assert lines[1].split()[-5:] == ["0.600", "0.601", "0.602", "0.603", "0.900"]


def test_intervals_stand_in_the_text_and_on_the_page() -> None:
    assert "macro F1 0.711–0.912, micro F1 0.722–0.923, none F1 0.733–0.934" in training_text(figures())
    assert "0.711–0.912" in words(training_page(figures()))


def test_calibration_is_told() -> None:
    assert "expected calibration error 0.1234, 0.0567 after temperature 1.25" in training_text(figures())
    assert "after: ECE 0.0567" in training_page(figures())


def test_a_report_of_one_model_and_one_kind_has_no_parts() -> None:
    alone = figures()
    alone["results"] = {"bert": {"all": alone["results"]["bert"]["all"]}}
    alone["confusions"], alone["mistakes"] = [], []
    alone["curves"] = {"bert": alone["curves"]["bert"]}
    alone["intervals"] = {"bert": alone["intervals"]["bert"]}
    assert NAMES["tfidf"] not in training_text(alone)
    page = words(training_page(alone))
    assert "Per kind of text" not in page
    assert NAMES["tfidf"] not in page
    assert NAMES["bert"] in page


@pytest.fixture(scope="module")
def page() -> str:
    """The page of the figures."""
    return training_page(figures())


def cells(page: str, start: str) -> list[list[str]]:
    """Cells of the table rows whose first cell starts so, as they are read."""
    found = [
        [words(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]
    return [row for row in found if row[0].startswith(start)]


def test_the_page_asks_for_nothing(page: str) -> None:
    assert addresses(page) == []
    names = {name for name, _ in elements(page)}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert [attributes for _, attributes in elements(page) if {"src", "href", "action", "onload", "onclick"} & set(attributes)] == []


def test_the_page_shows_texts_and_names_as_they_are(page: str) -> None:
    assert NASTY in words(page)
    assert "<script" not in page
    assert not [name for name, _ in elements(page) if name == "i"]  # the name of the cats has one
    assert cells(page, "Cats & <i>kittens</i>")


def test_the_page_has_a_row_per_interest(page: str) -> None:
    assert cells(page, "Running")[0] == ["Running sports.running", "0.123", "0.456", "0.804", "0.900", "40"]
    assert cells(page, LABELS["pets.cats"])[0][1:] == ["0.123", "0.456", "0.805", "0.900", "50"]


def test_the_page_has_a_row_per_model_and_kind(page: str) -> None:
    # macro F1, micro F1, samples F1, macro precision, macro recall, macro average precision, F1 of no interest
    assert cells(page, NAMES["tfidf"])[0][1:] == ["0.600 0.711–0.912", "0.601", "0.602", "0.123", "0.456", "0.900", "0.603"]
    kinds: list[list[str]] = [row for row in cells(page, "") if len(row) == 10 and row[2] in NAMES.values()]
    # kind, texts, model, macro precision, macro recall, macro F1, micro F1, samples F1, macro average precision, F1 of no interest
    assert kinds[0] == ["post", "18", NAMES["bert"], "0.123", "0.456", "0.750", "0.751", "0.752", "0.900", "0.753"]
    assert kinds[1] == ["", "", NAMES["tfidf"], "0.123", "0.456", "0.550", "0.551", "0.552", "0.900", "0.553"]
    assert kinds[2] == ["review", "12", NAMES["bert"], "0.123", "0.456", "0.850", "0.851", "0.852", "–", "0.853"]
    assert len(kinds) == 4


def test_mistakes_show_what_was_true_and_what_was_tagged(page: str) -> None:
    wrong, nothing = cells(page, NASTY)[0], cells(page, "a parcel")[0]
    assert wrong[1:] == ["post", LABELS["pets.cats"], "Running 0.99"]
    assert nothing[1:] == ["review", "none", "none"]
    assert [attributes["class"] for name, attributes in elements(page) if name == "span" and "tag" in str(attributes.get("class"))] == [
        "tag good",
        "tag bad",
    ]


def test_the_page_holds_its_five_pictures(page: str) -> None:
    assert [attributes.get("role") for name, attributes in elements(page) if name == "svg"] == ["img"] * 5


@pytest.mark.parametrize("text", ["{{ 7 * 7 }}", "{% for x in y %}", "&amp;", "\u202egnirts", "é" * 5000])
def test_no_text_is_taken_for_a_template_or_markup(text: str) -> None:
    given: dict[str, Any] = figures()
    given["mistakes"] = [given["mistakes"][1] | {"text": text}]
    assert text in words(training_page(given))
