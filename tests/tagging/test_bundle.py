"""What a bundle promises: its decisions, its fingerprint, and that it refuses to run when it isn't whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from penchant.errors import ConfigError, DataError
from penchant.tagging.bundle import Curve, SpanSpec, TaggerSpec, decide, load_spec, save_spec, scores, softmax
from penchant.tagging.tagger import Tagger
from tests.tagging.test_tagger import write_span_bundle

SPANS = SpanSpec(dimensions=("brand", "place"), thresholds=(0.4, 0.6), temperature=1.5, stride=4)


def test_scores_are_the_sigmoid_of_the_cooled_logits() -> None:
    np.testing.assert_allclose(scores(np.array([[0.0, np.log(3.0) * 2, -1e6]]), 2.0), [[0.5, 0.75, 0.0]], atol=1e-12)


def test_a_label_s_own_curve_is_read_between_its_points() -> None:
    curve = Curve(stated=(0.25, 0.5, 0.75), calibrated=(0.1, 0.2, 0.9))
    logits = np.array([[0.0, 0.0], [np.log(1.5), np.log(1.5)], [-9.0, -9.0], [9.0, 9.0]])
    # the sigmoid of ln 1.5 is 0.6, two fifths of the way from 0.5 to 0.75; outside the points the line goes on level
    found = scores(logits, 1.0, (curve, None))
    np.testing.assert_allclose(found[:, 0], [0.2, 0.2 + 0.4 * 0.7, 0.1, 0.9])
    np.testing.assert_allclose(found[:, 1], scores(logits, 1.0)[:, 1])
    # the temperature comes first: 2 ln 1.5 over 2
    np.testing.assert_allclose(scores(2 * logits[:2], 2.0, (curve, None)), found[:2])


def test_softmax_of_the_cooled_logits() -> None:
    np.testing.assert_allclose(softmax(np.log([[1.0, 9.0, 0.25]]), 2.0), [[1 / 4.5, 3 / 4.5, 0.5 / 4.5]])
    np.testing.assert_allclose(softmax(np.array([[1e6, -1e6]]), 1.0), [[1.0, 0.0]])


@pytest.mark.parametrize(
    ("parts", "task", "written"),
    [
        ({"labels": ("a",), "thresholds": (0.5,)}, "interests", ("interest",)),
        ({"spans": SPANS}, "spans", ("brand", "place")),
        ({"labels": ("a",), "thresholds": (0.5,), "dimension": "topic", "spans": SPANS}, "both", ("topic", "brand", "place")),
    ],
)
def test_a_bundle_knows_its_task_and_what_it_writes(parts: dict[str, object], task: str, written: tuple[str, ...]) -> None:
    spec = TaggerSpec.model_validate({"max_length": 32, "weights_sha256": "0" * 64} | parts)
    assert (spec.task, spec.written) == (task, written)


@pytest.mark.parametrize("wrong", [{"dimensions": ()}, {"temperature": 0.0}, {"stride": -1}, {"thresholds": ("high", 0.5)}])
def test_spans_that_can_not_be_read_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SpanSpec.model_validate(SPANS.model_dump() | wrong)


def test_decide_takes_what_reaches_its_threshold_within_the_limits() -> None:
    score = np.array([[0.9, 0.6, 0.2], [0.1, 0.2, 0.1]])
    thresholds = np.array([0.5, 0.3, 0.2])
    # margins: 0.4, 0.3, 0.0 and −0.4, −0.1, −0.1
    assert decide(score, thresholds, 0, 5).tolist() == [[True, True, True], [False, False, False]]
    assert decide(score, thresholds, 0, 2).tolist() == [[True, True, False], [False, False, False]]
    assert decide(score, thresholds, 1, 5).tolist() == [[True, True, True], [False, True, False]]


@given(arrays(float, (4, 6), elements=st.floats(0, 1)), st.integers(0, 3), st.integers(3, 6))
def test_decide_never_leaves_its_limits(score: np.ndarray, least: int, most: int) -> None:
    count = decide(score, np.full(6, 0.5), least, most).sum(axis=1)
    assert ((count >= least) & (count <= most)).all()


def test_a_damaged_bundle_is_refused_with_what_is_wrong(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    spec = load_spec(copy)
    weights = copy / "model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(DataError, match="model.safetensors: missing or damaged"):
        load_spec(copy)
    weights.write_bytes(original)
    content = json.loads((copy / "tagger.json").read_text())
    (copy / "tagger.json").write_text(json.dumps(content | {"thresholds": [0.1, 0.5, 0.5]}))
    with pytest.raises(DataError, match=f"edited by hand .its fingerprint {spec.fingerprint}"):
        load_spec(copy)
    (copy / "tagger.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        load_spec(copy)
    (copy / "tagger.json").unlink()
    with pytest.raises(DataError, match=r"no bundle .*penchant train"):
        load_spec(copy)


def test_fingerprint_follows_what_decides_the_tags(tiny_bundle: Path) -> None:
    spec = load_spec(tiny_bundle)
    assert spec.model_copy(update={"thresholds": (0.5, 0.5, 0.4)}).fingerprint != spec.fingerprint
    assert spec.model_copy(update={"weights_sha256": "0" * 64}).fingerprint != spec.fingerprint
    assert load_spec(tiny_bundle).fingerprint == spec.fingerprint


@pytest.fixture(scope="module")
def both_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_taxonomy: Path) -> Path:
    """A bundle with two heads."""
    return write_span_bundle(tmp_path_factory.mktemp("both") / "bundle", "both", tiny_taxonomy)


def test_a_bundle_for_both_tasks_is_as_it_was_written(both_bundle: Path) -> None:
    spec = load_spec(both_bundle)
    assert (spec.task, spec.labels) == ("both", ("sports.running", "food.baking"))
    assert spec.written == ("interest", "brand", "product", "place")
    assert spec.spans is not None
    for changed in ({"thresholds": (0.5, 0.5, 0.4)}, {"temperature": 1.1}, {"stride": 5}, {"head_sha256": "0" * 64}):
        assert spec.model_copy(update={"spans": spec.spans.model_copy(update=changed)}).fingerprint != spec.fingerprint


@pytest.mark.parametrize("name", ["span_head.safetensors", "model.safetensors"])
@pytest.mark.parametrize("damage", ["one bit", "cut", "missing"])
def test_a_damaged_head_is_refused(name: str, damage: str, both_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(both_bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if damage == "one bit" else whole[:-1])
    if damage == "missing":
        path.unlink()
    for load in (load_spec, Tagger):
        with pytest.raises(DataError, match=f"{name}: missing or damaged"):
            load(tmp_path / "bundle")


def rewritten(bundle: Path, folder: Path, **changed: object) -> Path:
    """A copy of a bundle whose `tagger.json` says something else, with the fingerprint that belongs to it."""
    shutil.copytree(bundle, folder)
    save_spec(folder, load_spec(bundle).model_copy(update=changed))
    return folder


def test_a_bundle_whose_parts_do_not_fit_is_refused(both_bundle: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    spans = load_spec(both_bundle).spans
    assert spans is not None
    few = rewritten(both_bundle, tmp_path / "few", spans=spans.model_copy(update={"thresholds": (0.5, 0.5)}))
    with pytest.raises(DataError, match=r"tagger.json: 3 labels but 2 thresholds"):
        load_spec(few)
    many = rewritten(both_bundle, tmp_path / "many", thresholds=(0.5, 0.5, 0.5))
    with pytest.raises(DataError, match=r"tagger.json: 2 labels but 3 thresholds"):
        load_spec(many)
    neither = rewritten(tiny_bundle, tmp_path / "neither", labels=(), thresholds=())
    with pytest.raises(DataError, match="tagger.json: finds neither interests nor spans"):
        load_spec(neither)
    nameless = rewritten(both_bundle, tmp_path / "nameless", taxonomy=None)
    with pytest.raises(DataError, match="tagger.json: has labels but no taxonomy"):
        load_spec(nameless)
    old = rewritten(both_bundle, tmp_path / "old", cleaning_version="0")
    with pytest.raises(DataError, match="trained on cleaning version 0"):
        load_spec(old)


def test_what_no_bundle_can_say_is_named_with_its_place(both_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(both_bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / "tagger.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["spans"]["temperature"] = 0
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"spans.temperature"):
        load_spec(tmp_path / "bundle")
