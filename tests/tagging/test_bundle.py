"""What a bundle promises: its decisions, its fingerprint, and that it refuses to run when it isn't whole."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penchant.errors import DataError
from penchant.tagging.bundle import decide, load_spec, scores


def test_scores_are_the_sigmoid_of_the_cooled_logits() -> None:
    np.testing.assert_allclose(scores(np.array([[0.0, np.log(3.0) * 2, -1e6]]), 2.0), [[0.5, 0.75, 0.0]], atol=1e-12)


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
