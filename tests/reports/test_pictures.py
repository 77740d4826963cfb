"""Pictures: well-formed, self-contained SVG that shows every name as it is and every number at its place."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from penchant.reports import pictures
from tests.figures import LABELS, NASTY, addresses, bins, figures

SVG = "{http://www.w3.org/2000/svg}"
DAYS = [datetime(2026, 3, 28, 12, tzinfo=UTC) + timedelta(days=n) for n in range(4)]
DRAWN: dict[str, Callable[[], str]] = {
    "losses": lambda: pictures.losses(figures("both")["history"]),
    "label_bars": lambda: pictures.label_bars([NASTY, "Cats"], {"BERT": [0.5, 0.25], "other": [0.1, 1.0]}, "F1"),
    "precision_recall": lambda: pictures.precision_recall(figures()["curves"]),
    "reliability": lambda: pictures.reliability({NASTY: bins(0.1234)}),
    "confusion": lambda: pictures.confusion(figures()["confusions"], LABELS | {"sports.running": NASTY}),
    "bars": lambda: pictures.bars([(NASTY, 3), ("Cats", 1234567)], "texts & <b>"),
    "shares_over_time": lambda: pictures.shares_over_time(DAYS, {NASTY: [0.1, 0.2, 0.3, 0.4], "Cats": [0.9, 0.8, 0.7, 0.6]}, DAYS[1]),
}


def texts(picture: str) -> list[str]:
    """The texts that a picture shows."""
    return ["".join(each.itertext()) for each in ET.fromstring(picture).iter(f"{SVG}text")]


def bar_lengths(picture: str) -> list[float]:
    """Lengths of the horizontal bars, in the order drawn: the closed paths that are filled with a colour of ours."""
    lengths = []
    for each in ET.fromstring(picture).iter(f"{SVG}path"):
        if any(f"fill: {colour}" in each.get("style", "") for colour in pictures.COLOURS):
            across = [float(pair.split()[0]) for pair in re.findall(r"[ML] ([-\d.]+ [-\d.]+)", each.get("d", ""))]
            lengths.append(max(across) - min(across))
    return lengths


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_one_svg_element_with_a_title_and_asks_for_nothing(name: str) -> None:
    picture = DRAWN[name]()
    tree = ET.fromstring(picture)
    assert tree.tag == f"{SVG}svg"
    assert tree.get("role") == "img"
    assert tree.findtext(f"{SVG}title")
    assert addresses(picture) == []
    assert not {each.tag for each in tree.iter()} & {f"{SVG}{tag}" for tag in ("script", "image", "a", "foreignObject")}
    references = [value for each in tree.iter() for key, value in each.attrib.items() if key.endswith("href")]
    assert all(each.startswith("#") for each in references)


@pytest.mark.parametrize("name", ["label_bars", "bars", "shares_over_time"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    assert NASTY in texts(DRAWN[name]())


@pytest.mark.parametrize("name", ["$5 or $6", r"$\nosuch$", r"100% \alpha_{x}", "a_b^c", "跑步与马拉松", "ラーメン", "مرحبا", "👟"])
def test_no_name_is_taken_for_a_formula_or_warned_of(name: str) -> None:
    assert name in texts(pictures.bars([(name, 1)], "texts"))
    assert name in texts(pictures.label_bars([name], {"BERT": [0.5]}, "F1"))
    assert f"{name} → {name}" in texts(pictures.confusion([{"true": "a", "tagged": "a", "count": 1}], {"a": name}))
    assert name in texts(pictures.precision_recall({name: figures()["curves"]["bert"]}))
    assert f"{name}: ECE 0.5000" in texts(pictures.reliability({name: bins(0.5)}))
    assert name in texts(pictures.shares_over_time(DAYS, {name: [0.25] * 4}, None))


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_figures_give_the_same_picture(name: str) -> None:
    assert DRAWN[name]() == DRAWN[name]()


def test_bars_are_to_scale_in_the_order_given_each_with_its_number() -> None:
    picture = pictures.bars([("a", 10), ("b", 40), ("c", 2500)], "texts")
    lengths = bar_lengths(picture)
    assert lengths[1] / lengths[0] == pytest.approx(4, rel=1e-3)
    assert lengths[2] / lengths[0] == pytest.approx(250, rel=1e-3)
    shown = texts(picture)
    assert [each for each in shown if each in {"10", "40", "2,500"}] == ["10", "40", "2,500"]
    assert [each for each in shown if each in {"a", "b", "c"}] == ["a", "b", "c"]
    assert "texts" in shown


def test_bars_of_nothing_are_an_empty_picture() -> None:
    assert bar_lengths(pictures.bars([], "texts")) == []


def test_confusions_name_the_missed_and_the_tagged_interest() -> None:
    pairs = [{"true": "a", "tagged": "b", "count": 6}, {"true": "b", "tagged": "a", "count": 3}]
    picture = pictures.confusion(pairs, {"a": "Running", "b": "Cats"})
    assert [each for each in texts(picture) if "→" in each] == ["Running → Cats", "Cats → Running"]
    first, second = bar_lengths(picture)
    assert first / second == pytest.approx(2, rel=1e-3)


def test_no_confusions_are_no_picture() -> None:
    assert pictures.confusion([], LABELS) == ""


def test_legends_name_every_series() -> None:
    assert {"BERT", "other"} <= set(texts(DRAWN["label_bars"]()))
    assert {"bert", "logistic_regression"} <= set(texts(DRAWN["precision_recall"]()))


SERIES = ("training", "validation", "interests: macro average precision", "spans: F1")


@pytest.mark.parametrize(("task", "expected"), [("interests", SERIES[:3]), ("spans", (SERIES[0], SERIES[3])), ("both", SERIES)])
def test_losses_and_scores_are_those_of_the_task(task: str, expected: tuple[str, ...]) -> None:
    shown = texts(pictures.losses(figures(task)["history"]))
    assert [each for each in shown if each in SERIES] == list(expected)
    assert {"loss per text", "validation score"} <= set(shown)


@pytest.mark.parametrize("names", [("spans found",), ("before", "after"), ("a", "b", "c")])
def test_reliability_draws_any_number_of_series_with_their_errors(names: tuple[str, ...]) -> None:
    shown = texts(pictures.reliability({name: bins(n / 100) for n, name in enumerate(names)}))
    assert [each for each in shown if "ECE" in each] == [f"{name}: ECE 0.0{n}00" for n, name in enumerate(names)]


def test_a_picture_says_what_its_rows_are() -> None:
    picture = pictures.label_bars(["brand", "place"], {"precision": [0.5, 0.25]}, "exact matches", "dimension")
    assert ET.fromstring(picture).findtext(f"{SVG}title") == "exact matches per dimension"
    assert ET.fromstring(DRAWN["label_bars"]()).findtext(f"{SVG}title") == "F1 per interest"


def test_a_score_that_could_not_be_measured_leaves_a_gap() -> None:
    history = [{"epoch": n, "loss": 1.0 / n, "validation_loss": 1.0 / n, "macro_average_precision": None} for n in (1, 2)]
    assert "epoch" in texts(pictures.losses(history))


def test_a_planted_change_is_marked_only_where_there_is_one() -> None:
    series = {"Cats": [0.9, 0.8, 0.7, 0.6]}
    assert "planted change" in texts(pictures.shares_over_time(DAYS, series, DAYS[1]))
    assert "planted change" not in texts(pictures.shares_over_time(DAYS, series, None))


def test_shares_of_one_instant_can_be_drawn() -> None:
    assert "Cats" in texts(pictures.shares_over_time(DAYS[:1] * 3, {"Cats": [1.0] * 3}, None))
