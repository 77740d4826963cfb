"""The model card: metadata a hub reads, the figures people read, and where the model does worse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from penchant import __version__
from penchant import taxonomy as taxonomies
from penchant.tagging.bundle import SpanSpec, TaggerSpec
from penchant.training.card import headline, model_card
from penchant.training.data import Corpus, Labelled
from penchant.training.settings import TrainSettings
from tests.figures import LABELS, figures

TASKS = ("interests", "spans", "both")
SETTINGS: dict[str, Any] = {"model": "bert-base-cased", "train": "data/train.jsonl", "test": "data/held-out.jsonl", "output": "runs/both"}


def spec_of(task: str, taxonomy: Path) -> TaggerSpec:
    """What goes with the figures made by hand."""
    parts: dict[str, Any] = {"max_length": 32, "weights_sha256": "0" * 64}
    if task != "spans":
        parts |= {"labels": tuple(LABELS), "thresholds": (0.5, 0.5), "taxonomy": taxonomies.load(taxonomy)}
    if task != "interests":
        parts["spans"] = SpanSpec(dimensions=("brand", "place"), thresholds=(0.35, 0.6), temperature=1.5, stride=4)
    return TaggerSpec(**parts)


def card(task: str, taxonomy: Path, languages: tuple[str, ...] = ("zh", "en", "en", "unknown"), **changed: Any) -> str:
    """The card of a run whose figures were made by hand."""
    count = len(languages)
    train = Labelled(["x"] * count, np.zeros((count, 2)), [()] * count, ["here"] * count, {"language": list(languages)})
    spec = spec_of(task, taxonomy)
    corpus = Corpus(spec.taxonomy, spec.labels, (), train, train, train)
    return model_card(TrainSettings.model_validate(SETTINGS | {"task": task}), figures(task) | changed, spec, corpus)


def front_matter(text: str) -> dict[str, Any]:
    """The metadata, which are YAML between two lines of dashes."""
    start, metadata, _ = text.split("---\n", 2)
    assert start == ""
    found: dict[str, Any] = yaml.safe_load(metadata)
    return found


@pytest.mark.parametrize(
    ("task", "pipeline", "tag", "expected"),
    [
        ("interests", "text-classification", "interests", {"macro F1 of interests": 0.8, "micro F1 of interests": 0.801}),
        ("spans", "token-classification", "named-entities", {"micro F1 of spans": 0.71, "macro F1 of spans": 0.72}),
        (
            "both",
            "text-classification",
            "interests",
            {"macro F1 of interests": 0.8, "micro F1 of interests": 0.801, "micro F1 of spans": 0.71, "macro F1 of spans": 0.72},
        ),
    ],
)
def test_the_metadata_say_what_the_bundle_is_and_how_good(
    task: str, pipeline: str, tag: str, expected: dict[str, float], tiny_taxonomy: Path
) -> None:
    found = front_matter(card(task, tiny_taxonomy))
    assert (found["pipeline_tag"], found["base_model"], found["library_name"]) == (pipeline, "bert-base-cased", "transformers")
    assert found["language"] == ["en", "zh"]
    assert found["tags"] == ["penchant", tag]
    [model] = found["model-index"]
    assert model["name"] == "both"
    results = [result for result in model["results"] if result["dataset"]["name"] == "held-out"]
    assert len(results) == len(model["results"])
    assert {each["name"]: each["value"] for result in results for each in result["metrics"]} == expected
    assert {result["dataset"]["type"] for result in results} == {"held-out"}
    assert dict(headline(figures(task))) == expected


@pytest.mark.parametrize("task", TASKS)
def test_a_hub_loads_the_card(task: str, tiny_taxonomy: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(card(task, tiny_taxonomy), encoding="utf-8")
    found = ModelCard.load(tmp_path / "README.md")
    assert found.data.base_model == "bert-base-cased"
    assert found.data.model_name == "both"
    assert found.data.eval_results is not None
    assert [(each.metric_name, each.metric_value) for each in found.data.eval_results] == headline(figures(task))
    assert {each.metric_type for each in found.data.eval_results} == {"f1"}
    assert found.text.startswith("# Tagger ")


def test_a_corpus_without_languages_names_none(tiny_taxonomy: Path) -> None:
    assert "language" not in front_matter(card("interests", tiny_taxonomy, ("spaced", "unspaced")))


def test_people_read_what_it_is_and_what_it_was_trained_on(tiny_taxonomy: Path) -> None:
    lines = {task: card(task, tiny_taxonomy).split("---\n", 2)[2].splitlines() for task in TASKS}
    assert [lines[task][0] for task in TASKS] == [
        "# Tagger over tiny (2 interests)",
        "# Tagger of brand, place",
        "# Tagger over tiny (2 interests) and of brand, place",
    ]
    text = "\n".join(lines["both"])
    assert f"Fine-tuned from `bert-base-cased` by Penchant {__version__} on 1,234 texts (train.jsonl)" in text
    assert f"bundle `{spec_of('both', tiny_taxonomy).fingerprint}`" in text
    assert "## Measured on 30 test texts" in text
    assert "the second head in `span_head.safetensors`" in text
    assert "span_head" not in "\n".join(lines["spans"])
    assert '`transformers.pipeline("token-classification")` loads this folder' in "\n".join(lines["spans"])


@pytest.mark.parametrize(("model", "begun"), [("bert-base-cased", "as `bert-base-cased`"), ("src", "with its teacher's weights")])
def test_people_read_whose_student_it_is(tiny_taxonomy: Path, monkeypatch: pytest.MonkeyPatch, root: Path, model: str, begun: str) -> None:
    monkeypatch.chdir(root)  # where `src` is a folder, as a bundle is
    monkeypatch.setitem(SETTINGS, "model", model)
    monkeypatch.setitem(SETTINGS, "teacher", "src")
    student = {"teacher": "0123456789abcdef", "layers": 3, "texts": 7234, "unlabelled": 6000}
    text = card("interests", tiny_taxonomy, student=student)
    assert (
        f"A student with 3 layers of the bundle `0123456789abcdef`, begun {begun} and taught by Penchant {__version__} its teacher's"
        " answers to 7,234 texts: 1,234 labelled ones (train.jsonl), thresholds and calibration on" in text
    )


def test_people_read_of_layers_left_out(tiny_taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "layers", 6)
    assert f"Fine-tuned from `bert-base-cased` with 6 of its layers by Penchant {__version__} on 1,234 texts" in card(
        "interests", tiny_taxonomy
    )


def table(text: str) -> list[list[str]]:
    """Cells of the table's rows under its heading."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")][1:]


def test_the_table_has_the_figures_with_their_intervals(tiny_taxonomy: Path) -> None:
    of_interests = [
        ["macro over interests", "0.123", "0.456", "0.800", "0.711–0.912"],
        ["micro over interests", "0.123", "0.456", "0.801", "0.722–0.923"],
        ["no interest", "0.123", "0.456", "0.803", "0.733–0.934"],
    ]
    of_spans = [
        ["micro over spans, exact", "0.123", "0.456", "0.710", "0.411–0.812"],
        ["macro over spans, exact", "0.123", "0.456", "0.720", "0.422–0.823"],
        ["spans: brand", "0.123", "0.456", "0.730", ""],
        ["spans: place", "0.123", "0.456", "0.740", ""],
    ]
    assert table(card("interests", tiny_taxonomy)) == of_interests
    assert table(card("spans", tiny_taxonomy)) == of_spans
    assert table(card("both", tiny_taxonomy)) == of_interests + of_spans
    assert "Expected calibration error of the scores: 0.0567." in card("both", tiny_taxonomy)


def test_flagged_slices_are_named_and_the_others_are_not(tiny_taxonomy: Path) -> None:
    worse = card("both", tiny_taxonomy).split("## Where it does worse\n\n")[1].splitlines()
    assert worse == [
        "- interests, kind post: micro F1 0.511 on 40 texts, 0.844 elsewhere",
        "- spans, length 4. longer: micro F1 0.433 on 40 texts, 0.844 elsewhere",
    ]
    even = figures("both")["spans"] | {"slices": []}
    text = card("both", tiny_taxonomy, slices=[figures()["slices"][1]], spans=even)
    assert text.endswith(
        "## Where it does worse\n\nNo slice of at least 30 test texts (kind, language, length, user group) is significantly worse than the rest.\n"
    )
