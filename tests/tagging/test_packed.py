"""Windows without padding: the same logits as padded ones, here by the arithmetic of the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from penchant.runners.local import open_tagger
from penchant.tagging import packed
from penchant.tagging.backends import PACKED_TOLERANCE, Outputs, TorchBackend, difference
from penchant.tagging.bundle import load_spec
from penchant.tagging.tagger import Tagger
from tests.tagging.test_tagger import TEXTS, write_span_bundle

Bundles = Callable[[str], Path]


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, tiny_taxonomy: Path) -> Bundles:
    """A bundle for a task."""
    folder = tmp_path_factory.mktemp("packed")
    made = {task: write_span_bundle(folder / task, task, tiny_taxonomy if task == "both" else None) for task in ("spans", "both")}
    return lambda task: made.get(task, tiny_bundle)


def test_a_batch_in_a_row() -> None:
    batch = {
        "input_ids": np.array([[2, 7, 8, 3], [2, 9, 3, 0]]),
        "token_type_ids": np.array([[0, 1, 0, 0], [0, 0, 0, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    found = {name: each.tolist() for name, each in packed.packed(batch).items()}
    assert found == {
        "input_ids": [[2, 7, 8, 3, 2, 9, 3]],
        "token_type_ids": [[0, 1, 0, 0, 0, 0, 0]],
        "position_ids": [[0, 1, 2, 3, 0, 1, 2]],
        "ends": [0, 4, 7],
    }


@pytest.mark.parametrize("task", ["interests", "spans", "both"])
def test_logits_are_those_of_padded_windows(task: str, bundle_of: Bundles) -> None:
    bundle = bundle_of(task)
    tagger, spec = Tagger(bundle, "no", "torch"), load_spec(bundle)
    backend = TorchBackend(bundle, spec, "no", pack=True)
    assert isinstance(tagger.backend, TorchBackend)
    assert (tagger.backend.pack, tagger.backend.variant) == (False, "torch-fp32")
    assert tagger.backend.can_pack()  # a GPU would
    tagger.backend = TorchBackend(bundle, spec, "no", pack=False)
    assert backend.variant == "torch-fp32.packed"
    prepared = tagger.prepare([*TEXTS, "Nike Air Max in Paris", "oven"])
    batch = tagger.padded(prepared.windows)
    if tagger.reader.mark_capitals:
        assert batch["token_type_ids"].any()
    inside = batch["attention_mask"].astype(bool)
    found, expected = backend.run(batch), tagger.backend.run(batch)
    assert (found.interests is None, found.pieces is None) == (task == "spans", task == "interests")
    if found.interests is not None:
        np.testing.assert_allclose(found.interests, expected.interests, atol=1e-5)
    if found.pieces is not None and expected.pieces is not None:
        np.testing.assert_allclose(found.pieces[inside], expected.pieces[inside], atol=1e-5)
        assert not found.pieces[~inside].any()
    spans = tagger.read(prepared, [tagger.infer(prepared, chosen) for chosen in prepared.batches])
    tagger.backend = backend
    score, again = tagger.read(prepared, [tagger.infer(prepared, chosen) for chosen in prepared.batches])
    np.testing.assert_allclose(score, spans[0], atol=1e-5)
    assert [[each[:3] for each in own] for own in again] == [[each[:3] for each in own] for own in spans[1]]


def test_packing_is_taken_only_where_it_gives_the_same(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = TorchBackend(tiny_bundle, load_spec(tiny_bundle), "no", pack=False)
    assert backend.can_pack()
    assert backend.model.stock.config._attn_implementation == packed.NAME
    backend.model.stock.set_attn_implementation("sdpa")

    run = TorchBackend.run_packed
    monkeypatch.setattr(TorchBackend, "run_packed", lambda self, batch: shifted(run(self, batch)))
    assert not backend.can_pack()
    assert "texts are padded, for without padding: logits differ by" in caplog.text
    assert backend.model.stock.config._attn_implementation == "sdpa"

    def fails(*_: object) -> Outputs:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nmore")

    caplog.clear()
    monkeypatch.setattr(TorchBackend, "run_packed", fails)
    assert not backend.can_pack()
    assert caplog.messages == ["texts are padded, for without padding: FlashAttention only supports Ampere GPUs or newer."]
    assert backend.model.stock.config._attn_implementation == "sdpa"

    monkeypatch.setattr(packed, "varlen_attn", None)  # as with an older PyTorch
    assert not packed.can_pack(backend.model)


def test_a_run_goes_on_in_the_same_arithmetic(tiny_bundle: Path) -> None:
    backend = open_tagger(tiny_bundle, "torch-bf16.packed", "auto", "no").backend
    assert isinstance(backend, TorchBackend)
    assert (backend.precision, backend.variant) == ("bf16", "torch-bf16")  # padded, on this CPU: parts of another arithmetic are made again


def shifted(outputs: Outputs) -> Outputs:
    """Logits that are off by a tenth of the largest."""
    assert outputs.interests is not None
    return Outputs(outputs.interests + 2 * PACKED_TOLERANCE * np.abs(outputs.interests).max(), None)


def test_only_bert_with_places_learned_one_by_one_is_packed(tiny_bundle: Path) -> None:
    model = TorchBackend(tiny_bundle, load_spec(tiny_bundle), "no").model
    assert isinstance(model.stock, BertForSequenceClassification)
    assert packed.can_pack(model)
    model.stock = torch.nn.Linear(2, 2)
    assert not packed.can_pack(model)


def test_how_far_logits_are_apart() -> None:
    expected = Outputs(np.array([[1.0, -4.0]]), np.array([[[2.0, 0.5]]]))
    assert difference(expected, expected) == 0
    assert difference(Outputs(np.array([[1.0, -4.2]]), np.array([[[2.0, 0.3]]])), expected) == pytest.approx(0.1)  # 0.05 and 0.1
    assert np.isnan(difference(Outputs(np.array([[1.0, -4.0]]), np.array([[[np.nan, 0.5]]])), expected))
    assert difference(Outputs(np.array([[2.0, -4.0]]), None), expected._replace(pieces=None)) == pytest.approx(0.25)
