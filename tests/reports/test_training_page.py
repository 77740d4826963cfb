"""The training report as text and as a page: every figure at its place, every text as it is."""

import re
from typing import Any

import pytest

from penchant.reports.training_page import NAMES, marked, training_page, training_text
from tests.figures import LABELS, MARKED, NASTY, addresses, elements, figures, gap, span, words

TASKS = ("interests", "spans", "both")


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
    assert [line.split("  ")[0] for line in lines] == [NAMES["bert"], NAMES["logistic_regression"]] * 2  # figures, then intervals
    # macro F1, micro F1, samples F1, none F1, macro AP
    assert lines[0].split()[-5:] == ["0.800", "0.801", "0.802", "0.803", "0.900"]
    assert lines[1].split()[-5:] == ["0.600", "0.601", "0.602", "0.603", "0.900"]


def test_intervals_stand_in_the_text_and_on_the_page() -> None:
    assert "macro F1 0.711–0.912, micro F1 0.722–0.923, none F1 0.733–0.934" in training_text(figures())
    assert "0.711–0.912" in words(training_page(figures()))


def test_calibration_is_told() -> None:
    told = "expected calibration error 0.1234, 0.0567 after temperature 1.25"
    given = figures()
    assert f"{told}\n" in training_text(given)
    assert "after: ECE 0.0567" in training_page(given)
    given["calibration"]["method"] = "isotonic"
    assert f"{told} and a curve per interest\n" in training_text(given)
    assert f"{told} and a curve per interest." in words(training_page(given))


def test_every_baseline_has_a_name_for_people() -> None:
    given = figures()
    for name in ("random_forest", "zero_shot"):
        for part in ("results", "curves", "intervals"):
            given[part][name] = given[part]["bert"]
    for shown in (training_text(given), words(training_page(given))):
        assert [name for name in ("TF-IDF + random forest", "untrained encoder, by description") if name in shown] == [
            NAMES["random_forest"],
            NAMES["zero_shot"],
        ]


def test_the_text_has_a_line_per_dimension_and_both_rules_of_seqeval() -> None:
    lines = training_text(figures("spans")).splitlines()
    assert lines[0] == "minilm: 1,234 training texts, 62 s, 30 test texts"
    assert lines[1] == ""
    assert [line.split() for line in lines[2:9]] == [
        ["spans", "precision", "recall", "F1", "spans"],
        ["brand", "0.123", "0.456", "0.730", "4"],
        ["place", "0.123", "0.456", "0.740", "3"],
        ["micro", "0.123", "0.456", "0.710", "7"],
        ["macro", "0.123", "0.456", "0.720", "7"],
        ["micro,", "likeliest", "class,", "strict", "0.123", "0.456", "0.610", "7"],
        ["micro,", "likeliest", "class,", "default", "0.123", "0.456", "0.620", "7"],
    ]
    assert {len(line) for line in lines[2:9]} == {len(lines[2])}  # columns stand under their names
    assert lines[9:11] == [
        "95% intervals (bootstrap over the test texts): micro F1 0.411–0.812, macro F1 0.422–0.823",
        "98.8% of the spans begin and end where this tokenizer can begin and end one",
    ]


@pytest.mark.parametrize("task", TASKS)
def test_a_report_says_what_its_task_has_and_nothing_else(task: str) -> None:
    text, page = training_text(figures(task)), words(training_page(figures(task)))
    for of, in_text, on_page in (("interests", "sports.running", "Taken for another"), ("spans", "likeliest class", "Spans missed")):
        assert (in_text in text) is (task in (of, "both"))
        assert (on_page in page) is (task in (of, "both"))


def test_flagged_slices_of_both_tasks_are_told_and_the_others_are_not() -> None:
    lines = [line for line in training_text(figures("both")).splitlines() if "worse than elsewhere" in line]
    assert lines == [
        "interests worse than elsewhere: kind post, micro F1 0.511 on 40 texts against 0.844",
        "spans worse than elsewhere: length 4. longer, micro F1 0.433 on 40 texts against 0.844",
    ]
    assert "worse" not in training_text(figures("both") | {"slices": [], "spans": figures("spans")["spans"] | {"slices": []}})


def test_a_report_of_one_model_and_one_kind_has_no_parts() -> None:
    alone = figures()
    alone["results"] = {"bert": {"all": alone["results"]["bert"]["all"]}}
    alone["confusions"], alone["mistakes"] = [], []
    alone["curves"] = {"bert": alone["curves"]["bert"]}
    alone["intervals"] = {"bert": alone["intervals"]["bert"]}
    assert NAMES["logistic_regression"] not in training_text(alone)
    page = words(training_page(alone))
    assert "Per kind of text" not in page
    assert NAMES["logistic_regression"] not in page
    assert NAMES["bert"] in page


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The page of each task."""
    return {task: training_page(figures(task)) for task in TASKS}


@pytest.fixture(scope="module")
def page(pages: dict[str, str]) -> str:
    """The page of interests."""
    return pages["interests"]


def cells(page: str, start: str) -> list[list[str]]:
    """Cells of the table rows whose first cell starts so, as they are read."""
    found = [
        [words(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    ]
    return [row for row in found if row[0].startswith(start)]


@pytest.mark.parametrize("task", TASKS)
def test_the_page_asks_for_nothing(task: str, pages: dict[str, str]) -> None:
    page = pages[task]
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
    assert cells(page, NAMES["logistic_regression"])[0][1:] == ["0.600 0.711–0.912", "0.601", "0.602", "0.123", "0.456", "0.900", "0.603"]
    kinds: list[list[str]] = [row for row in cells(page, "") if len(row) == 10 and row[2] in NAMES.values()]
    # kind, texts, model, macro precision, macro recall, macro F1, micro F1, samples F1, macro average precision, F1 of no interest
    assert kinds[0] == ["post", "18", NAMES["bert"], "0.123", "0.456", "0.750", "0.751", "0.752", "0.900", "0.753"]
    assert kinds[1] == ["", "", NAMES["logistic_regression"], "0.123", "0.456", "0.550", "0.551", "0.552", "0.900", "0.553"]
    assert kinds[2] == ["review", "12", NAMES["bert"], "0.123", "0.456", "0.850", "0.851", "0.852", "–", "0.853"]
    assert len(kinds) == 4


def test_mistakes_show_what_was_true_and_what_was_tagged(page: str) -> None:
    wrong, nothing = cells(page, NASTY)[0], cells(page, "a parcel")[0]
    assert wrong[1:] == ["post", LABELS["pets.cats"], "Running 0.99"]
    assert nothing[1:] == ["review", "none", "none"]
    table = page[page.index("Worst mistakes") :]
    assert [attributes["class"] for name, attributes in elements(table) if "tag" in str(attributes.get("class"))] == ["tag good", "tag bad"]


@pytest.mark.parametrize(("task", "count"), [("interests", 5), ("spans", 3), ("both", 7)])
def test_the_page_holds_its_pictures(task: str, count: int, pages: dict[str, str]) -> None:
    assert [attributes.get("role") for name, attributes in elements(pages[task]) if name == "svg"] == ["img"] * count


def test_spans_that_were_never_found_have_no_picture_of_their_scores() -> None:
    given = figures("spans")
    given["spans"]["reliability"] = {}
    assert [name for name, _ in elements(training_page(given))].count("svg") == 2


def test_the_page_has_a_row_per_dimension_average_and_rule(pages: dict[str, str]) -> None:
    page = pages["spans"]
    assert cells(page, "brand") == [["brand", "0.123", "0.456", "0.730", "", "4", "0.35"]]
    assert cells(page, "place") == [["place", "0.123", "0.456", "0.740", "", "3", "0.60"]]
    assert cells(page, "micro")[0] == ["micro", "0.123", "0.456", "0.710", "0.411–0.812", "7", ""]
    assert cells(page, "macro")[0] == ["macro", "0.123", "0.456", "0.720", "0.422–0.823", "7", ""]
    raw = cells(page, "micro of the likeliest classes")
    assert [row[0].split()[-1] for row in raw] == ["strict", "default"]
    assert [row[3] for row in raw] == ["0.610", "0.620"]
    assert "98.8% of the true spans" in words(page)
    assert "before: ECE 0.0789" in page


def test_a_dimension_that_was_learned_and_never_fitted_has_a_dash_for_its_threshold() -> None:
    given = figures("spans")
    del given["spans"]["thresholds"]["place"]
    assert cells(training_page(given), "place")[0][-1] == "–"


def test_slices_stand_in_a_table_and_the_worse_ones_are_marked(pages: dict[str, str]) -> None:
    expected = [
        ["kind", "post", "40", "0.511", "0.388–0.599", "0.844", "worse"],
        ["language", "zh", "40", "0.822", "0.388–0.599", "0.844", ""],
        ["length", "4. longer", "40", "0.433", "0.388–0.599", "0.844", "worse"],
    ]
    found = {task: [row for row in cells(pages[task], "") if len(row) == 7 and row[2] == "40"] for task in TASKS}
    assert found == {"interests": expected[:2], "spans": expected[2:], "both": [expected[2], *expected[:2]]}


def test_the_value_of_a_slice_is_shown_as_it_is() -> None:
    given = figures() | {"slices": [gap("group", NASTY, 0.5)]}
    page = training_page(given)
    assert cells(page, "group")[0][1] == NASTY
    assert "<script" not in page


def marks(page: str) -> list[tuple[str, str]]:
    """The marked pieces of texts on a page, each with its kind, as they are read."""
    return [(words(text), kind) for kind, text in re.findall(r'<span class="mark (\w+)">(.*?)</span>', page, re.DOTALL)]


def test_spans_are_marked_in_their_text_and_the_text_is_as_it_was(pages: dict[str, str]) -> None:
    for task in ("spans", "both"):
        assert marks(pages[task]) == [("<b>Nike", "good"), ("rain", "bad"), ("北京", "missed")]
        line = re.search(r"<p>(<span class=.mark.*?)</p>", pages[task])
        assert line is not None
        assert re.sub(r"</?span[^>]*>", "", line[1]) == MARKED.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        ([], [], [("abcdefghij", "")]),
        ([(0, 4)], [(0, 4)], [("abcd", "good"), ("efghij", "")]),
        ([(0, 4)], [(2, 6)], [("ab", "missed"), ("cd", "bad"), ("ef", "bad"), ("ghij", "")]),
        ([(0, 10)], [(3, 5)], [("abc", "missed"), ("de", "bad"), ("fghij", "missed")]),
        ([(3, 5)], [(0, 10)], [("abc", "bad"), ("de", "bad"), ("fghij", "bad")]),
        ([(0, 2), (2, 4)], [(0, 4)], [("ab", "bad"), ("cd", "bad"), ("efghij", "")]),
        ([(0, 2), (8, 10)], [(8, 10)], [("ab", "missed"), ("cdefgh", ""), ("ij", "good")]),
    ],
)
def test_a_text_is_cut_where_spans_begin_and_end(
    true: list[tuple[int, int]], found: list[tuple[int, int]], expected: list[tuple[str, str]]
) -> None:
    assert marked("abcdefghij", [span(*each, "brand") for each in true], [span(*each, "brand") for each in found]) == expected


def test_a_span_of_the_wrong_dimension_is_wrong_and_an_empty_text_has_no_pieces() -> None:
    assert marked("跑 😀", [span(2, 3, "brand")], [span(2, 3, "place")]) == [("跑 ", ""), ("😀", "bad")]
    assert marked("", [], []) == []


@pytest.mark.parametrize("text", ["{{ 7 * 7 }}", "{% for x in y %}", "&amp;", "\u202egnirts", "é" * 5000])
def test_no_text_is_taken_for_a_template_or_markup(text: str) -> None:
    given: dict[str, Any] = figures()
    given["mistakes"] = [given["mistakes"][1] | {"text": text}]
    assert text in words(training_page(given))
    given = figures("spans")
    given["spans"]["mistakes"] = [{"text": text, "kind": "post", "true": [span(0, len(text), "brand")], "found": []}]
    assert marks(training_page(given)) == [(text, "missed")]
