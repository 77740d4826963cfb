"""Two bundles on the same texts: the better one is named, equal ones are equal, and what can't be compared is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from penchant.errors import ConfigError, DataError
from penchant.tagging import precision
from penchant.tagging.bundle import Curve, load_spec, save_spec
from penchant.training.compare import compare, comparison_text
from penchant.training.settings import Columns
from tests.tagging.test_tagger import write_span_bundle
from tests.training.conftest import write_rows

TEXTS: list[dict[str, Any]] = [
    {"text": "my Nike in Paris", "interests": ["sports.running"], "spans": [(3, 7, "brand"), (11, 16, "place")]},
    {"text": "the oven", "interests": ["food.baking"], "spans": [(4, 8, "product")]},
    {"text": "rain", "interests": [], "spans": []},
    {"text": "the 耐克 and the Air Max", "interests": ["sports.running", "food.baking"], "spans": [(4, 6, "brand"), (15, 22, "product")]},
]
"""What the hand-made bundle for both tasks says of these texts."""


@pytest.fixture(scope="module", autouse=True)
def short_measurement() -> Any:
    """Measure this machine on small products: the tagger is started often here."""
    real = precision.matmul_gflops
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "matmul_gflops", lambda *given, **_: real(*given, seconds=0.01, size=64))
        yield


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, tiny_taxonomy: Path) -> dict[str, Path]:
    """`both` that is always right, and what becomes of it by other settings.

    `no_baking` tags running alone and `no_places` finds no place; `interests` is one head of it, `spans` the other one;
    `turned` lists its labels and dimensions the other way round.
    """
    folder = tmp_path_factory.mktemp("bundles")
    found = {"both": write_span_bundle(folder / "both", "both", tiny_taxonomy), "spans": write_span_bundle(folder / "spans")}
    spec = load_spec(found["both"])
    assert spec.spans is not None
    changes = {
        "no_baking": {"thresholds": (0.5, 0.9), "curves": (None, Curve(stated=(0.0, 1.0), calibrated=(0.0, 0.5)))},
        "no_places": {"spans": spec.spans.model_copy(update={"thresholds": (0.5, 0.5, 1.0)})},
        "interests": {"spans": None},
        "renamed": {"labels": ("sports.running", "pets.cats")},
        "turned": {"labels": ("food.baking", "sports.running")},
    }
    for name, changed in changes.items():
        found[name] = folder / name
        shutil.copytree(found["both"], found[name])
        save_spec(found[name], spec.model_copy(update=changed))
    return found


def written(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Labelled texts in a file."""
    spelled = [row | {"spans": [dict(zip(("start", "end", "dimension"), each, strict=True)) for each in row["spans"]]} for row in rows]
    return write_rows(folder / "data.jsonl", spelled)


def test_equal_bundles_differ_by_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    found = compare(bundles["both"], bundles["both"], written(tmp_path, TEXTS * 5), Columns())
    same = {"one": 1.0, "other": 1.0, "difference": 0.0, "interval": (0.0, 0.0), "p": 1.0}
    assert found == {"texts": 20, "interests": {"macro": same, "micro": same}, "spans": {"macro": same, "micro": same}}
    text = comparison_text(found, Path("a"), Path("b"))
    assert text.splitlines()[:3] == ["A a", "B b", "20 texts"]
    assert text.count("A − B +0.0000 (95% +0.0000 to +0.0000), p = 1.0000: no difference to be sure of") == 4


def test_the_better_one_is_named_whichever_it_is(bundles: dict[str, Path], tmp_path: Path) -> None:
    data = written(tmp_path, TEXTS * 5)
    for one, other, sign in (("both", "no_baking", 1), ("no_baking", "both", -1)):
        found = compare(bundles[one], bundles[other], data, Columns())
        # without baking: F1 of 1 and 0; 10 of 20 tags, so 2 · 10 / (10 + 20)
        for average, worse in (("macro", 0.5), ("micro", 2 / 3)):
            row = found["interests"][average]
            assert sorted([row["one"], row["other"]]) == pytest.approx([worse, 1.0])
            assert row["difference"] == pytest.approx(sign * (1 - worse))
            assert row["interval"][0] <= row["difference"] <= row["interval"][1]
            assert row["interval"][0] * row["interval"][1] > 0
            assert row["p"] < 0.01
        assert found["spans"]["micro"]["difference"] == 0.0
        lines = comparison_text(found, bundles[one], bundles[other]).splitlines()
        assert [line.split(": ")[-1] for line in lines[3:]] == [
            *["A is better" if sign > 0 else "B is better"] * 2,
            *["no difference to be sure of"] * 2,
        ]


def test_spans_are_compared_exactly(bundles: dict[str, Path], tmp_path: Path) -> None:
    found = compare(bundles["both"], bundles["no_places"], written(tmp_path, TEXTS * 5), Columns())
    # 20 of 25 spans: 2 · 20 / (20 + 25); brands and products at 1, places at 0
    assert found["spans"]["micro"]["other"] == pytest.approx(40 / 45)
    assert found["spans"]["macro"]["other"] == pytest.approx(2 / 3)
    assert found["interests"]["micro"]["difference"] == 0.0
    shifted = [row | {"spans": [(start, end - 1, name) for start, end, name in row["spans"]]} for row in TEXTS]
    assert compare(bundles["both"], bundles["both"], written(tmp_path, shifted), Columns())["spans"]["micro"]["one"] == 0.0


def test_a_single_text_that_differs_may_be_chance(bundles: dict[str, Path], tmp_path: Path) -> None:
    found = compare(bundles["both"], bundles["no_baking"], written(tmp_path, TEXTS[:3]), Columns())
    # swapped or not, the one text is right in one answer and wrong in the other
    assert found["interests"]["micro"]["p"] == 1.0
    assert found["interests"]["micro"]["interval"][0] == 0.0
    assert "no difference to be sure of" in comparison_text(found, Path("a"), Path("b"))


@pytest.mark.parametrize(
    ("one", "other", "kinds"),
    [
        ("both", "interests", {"interests"}),
        ("interests", "both", {"interests"}),
        ("both", "spans", {"spans"}),
        ("spans", "both", {"spans"}),
    ],
)
def test_what_both_do_is_compared(one: str, other: str, kinds: set[str], bundles: dict[str, Path], tmp_path: Path) -> None:
    rows = [{"text": row["text"], **{kind: row[kind] for kind in kinds}} for row in TEXTS]  # the other column isn't needed
    data = written(tmp_path, rows) if "spans" in kinds else write_rows(tmp_path / "data.jsonl", rows)
    found = compare(bundles[one], bundles[other], data, Columns())
    assert set(found) == {"texts", *kinds}
    [kind] = kinds
    assert found[kind]["micro"] == {"one": 1.0, "other": 1.0, "difference": 0.0, "interval": (0.0, 0.0), "p": 1.0}


def test_labels_in_another_order_are_the_same_labels(bundles: dict[str, Path], tmp_path: Path) -> None:
    found = compare(bundles["both"], bundles["turned"], written(tmp_path, TEXTS), Columns())["interests"]
    # the outputs changed their names: of four tags the two on the text with both stay right
    assert (found["micro"]["one"], found["micro"]["other"]) == (1.0, 0.5)
    other_way = compare(bundles["turned"], bundles["both"], written(tmp_path, TEXTS), Columns())["interests"]
    assert other_way["micro"]["difference"] == -found["micro"]["difference"] == -0.5


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("interests", "spans", r"interests finds interests, .*spans spans: nothing to compare"),
        ("interests", "renamed", "the bundles' interests differ in food.baking, pets.cats: their figures can't be compared"),
        ("renamed", "both", "the bundles' interests differ in food.baking, pets.cats"),
    ],
)
def test_bundles_of_other_tasks_or_labels_are_refused(one: str, other: str, message: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(bundles[one], bundles[other], written(tmp_path, TEXTS), Columns())


def test_every_label_nobody_knows_is_named(bundles: dict[str, Path], tmp_path: Path) -> None:
    data = written(tmp_path, [{"text": "rain", "interests": ["food.bakin", "pets"], "spans": [(0, 4, "brnd")]}, *TEXTS])
    with pytest.raises(DataError) as error:
        compare(bundles["both"], bundles["both"], data, Columns())
    for each in (
        "3 mistakes",
        f"{data}:1: unknown interest 'food.bakin'; did you mean 'food.baking'",
        "'pets'",
        "'brnd'; did you mean 'brand'",
    ):
        assert each in str(error.value)
    data.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="data.jsonl: 1 mistake\n  - no rows with a text"):
        compare(bundles["both"], bundles["both"], data, Columns())


def test_texts_of_a_conll_file_can_be_compared_on(bundles: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "data.conll").write_text("my O\nNike B-brand\nin O\nParis B-place\n\nAir B-product\nMax I-product\n", encoding="utf-8")
    found = compare(bundles["spans"], bundles["spans"], tmp_path / "data.conll", Columns())
    assert (found["texts"], found["spans"]["micro"]["one"]) == (2, 1.0)
    (tmp_path / "zh.conll").write_text("在 O\n北 B-place\n京 I-place\n耐 B-brand\n克 I-brand\n", encoding="utf-8")
    found = compare(bundles["spans"], bundles["spans"], tmp_path / "zh.conll", Columns(), conll_joiner="")
    assert (found["texts"], found["spans"]["micro"]["one"]) == (1, 1.0)
    assert json.dumps(found)  # what the command line prints
