"""Exports: the same tags from a fused graph and from int8, and a gate that refuses what isn't good enough."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from penchant.config import load
from penchant.errors import ConfigError, DataError
from penchant.files import file_digest
from penchant.tagging.backends import OnnxBackend, TorchBackend
from penchant.tagging.bundle import load_spec
from penchant.tagging.choice import pick
from penchant.tagging.encoder import load_model
from penchant.tagging.exports import Gate, load_exports
from penchant.tagging.tagger import Tagger
from penchant.training import quantize
from penchant.training.export import LIMITS, Limits, export, gate_text, refusal
from penchant.training.graph import fused
from penchant.training.settings import TrainSettings
from tests.tagging.test_tagger import NAMED, TEXTS, write_span_bundle

GATE = Gate(texts=9, agreement=0.99, largest_difference=0.1, mean_difference=0.01, f1_before=0.5, f1_after=0.499)


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tiny models' products count as large, and measurements are kept in a folder of the test's own."""
    monkeypatch.setattr(quantize, "LEAST_WIDTH", 16)
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trained(settings_file: Callable[..., Path]) -> tuple[Path, TrainSettings]:
    """A bundle from a short run, and the settings of the run."""
    from penchant.training.evaluation import finish
    from penchant.training.loop import train

    settings = load(TrainSettings, settings_file(epochs=2))
    finish(train(settings), settings)
    return settings.output / "bundle", settings


def test_a_bundle_exports_tags_the_same_by_every_backend_that_passed(trained: tuple[Path, TrainSettings], tmp_path: Path) -> None:
    bundle, settings = trained
    before = load_spec(bundle)
    found = export(bundle, settings)
    assert [each.name for each in found.exports] == ["onnx", "onnx-int8"]
    assert load_exports(bundle, before) == found
    assert load_spec(bundle) == before  # the fingerprint stays, and with it the tags' name
    plain = found.accepted["onnx"].gate
    assert plain is not None
    assert (plain.agreement, plain.f1_before) == (1.0, plain.f1_after)
    assert plain.largest_difference < 1e-5
    reference = Tagger(bundle, "no", "torch").score(TEXTS)[0]
    for name in found.accepted:
        tagger = Tagger(bundle, backend=name)
        assert isinstance(tagger.backend, OnnxBackend)
        np.testing.assert_allclose(tagger.score(TEXTS)[0], reference, atol=1e-5 if name == "onnx" else LIMITS[name].difference)


@pytest.mark.parametrize("task", ["spans", "both"])
def test_spans_come_out_of_the_graph_as_out_of_the_checkpoint(task: str, tmp_path: Path, tiny_taxonomy: Path) -> None:
    bundle = write_span_bundle(tmp_path / "bundle", task, tiny_taxonomy if task == "both" else None)
    reference = Tagger(bundle, "no", "torch")
    prepared = reference.prepare(list(NAMED))
    graph = fused(load_model(bundle, task))
    assert {each.name for each in graph.graph.output} == ({"pieces"} if task == "spans" else {"interests", "pieces"})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for chosen, expected in zip(prepared.batches, reference.run(prepared), strict=True):
        from penchant.tagging.backends import graph_feed

        batch = reference.padded([prepared.windows[n] for n in chosen])
        names = [each.name for each in session.get_outputs()]
        got = dict(zip(names, session.run(names, graph_feed(session, batch)), strict=True))
        real = batch["attention_mask"].astype(bool)
        np.testing.assert_allclose(got["pieces"][real], expected.pieces[real], rtol=1e-4, atol=1e-4)
        if task == "both":
            np.testing.assert_allclose(got["interests"], expected.interests, rtol=1e-4, atol=1e-4)


def test_the_last_layer_is_computed_for_the_first_piece_alone(tiny_bundle: Path) -> None:
    graph = fused(load_model(tiny_bundle, "interests"))
    kinds = [node.op_type for node in graph.graph.node]
    last = len(kinds) - 1 - kinds[::-1].index("Attention")
    assert kinds[last + 1] == "Slice"
    batch = {"input_ids": np.array([[2, 5, 6, 3], [2, 9, 3, 0]]), "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]])}
    seen = onnx.ModelProto()
    seen.CopyFrom(graph)
    behind = next(node for node in graph.graph.node[last + 2 :] if node.op_type == "LayerNormalization").output[0]
    seen.graph.output.append(helper.make_tensor_value_info(behind, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    from penchant.tagging.backends import graph_feed

    logits, hidden = session.run(None, graph_feed(session, batch))
    assert hidden.shape == (2, 1, 16)
    with torch.inference_mode():
        expected, _ = load_model(tiny_bundle, "interests").eval()(**{name: torch.from_numpy(each) for name, each in batch.items()})
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def product(weight: Any, samples: Any, values: Any) -> tuple[Any, list[str]]:
    """A matrix product in int8 by ONNX Runtime, with ranges fitted on samples; and its kinds of nodes."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["a", "b", weight.shape[0]])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["a", "b", weight.shape[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    seen = quantize.Activation(samples, samples.min(axis=0), samples.max(axis=0))
    replaced = quantize.Product(model.graph.node[0], weight, seen)
    del model.graph.node[:]
    model.graph.node.extend(replaced.nodes())
    del model.graph.initializer[:]
    model.graph.initializer.extend(replaced.constants())
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values[None]})[0][0], [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_channel_far_outside_costs_the_others_no_resolution(sign: int) -> None:
    draw = np.random.default_rng(3)
    weight = draw.normal(size=(64, 32)).astype(np.float32)
    samples = draw.normal(size=(4_000, 64)).astype(np.float32)
    samples[:, 7] = sign * draw.uniform(30, 60, 4_000)
    values = samples[:200]
    got, kinds = product(weight, samples, values)
    error = np.sqrt(np.square(got - values @ weight).mean())
    # by hand: a range of 60 in 255 steps rounds with a standard deviation of 60 / 255 / √12 = 0.068 a channel, and
    # √64 channels of unit weight add up to 0.54; the split ones have a range of about 8, so a seventh of that
    assert error < 0.25
    assert "Concat" in kinds


def test_rounding_is_to_255_steps_over_the_range() -> None:
    values = np.array([-1.0, 0.0, 0.003, 0.005, 2.0, 1.5, 9.0], np.float32)
    step = 3 / 255
    expected = [-1.0, 0.0, 0.0, 0.0, 2.0, round(1.5 / step) * step, 2.0]
    np.testing.assert_allclose(quantize.rounded(values, -1.0, 2.0), expected, atol=1e-6)


def test_weights_are_fitted_so_that_the_product_errs_less_than_by_rounding_each(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(5)
    mixed = draw.normal(size=(48, 48))
    inputs = (draw.normal(size=(3_000, 48)) @ mixed).astype(np.float32)  # channels that go together
    weight = draw.normal(size=(48, 20)).astype(np.float32)
    errors = {}
    for name, least in (("fitted", 3), ("rounded", 10**9)):
        monkeypatch.setattr(quantize, "LEAST_INPUTS", least)
        monkeypatch.setattr(quantize, "LARGEST_WEIGHT", 7)
        whole, scale = quantize.fitted(weight, inputs, inputs, [])
        assert np.abs(whole).max() <= 7
        errors[name] = float(np.square(inputs @ (whole * scale) - inputs @ weight).mean())
    assert errors["fitted"] < 0.7 * errors["rounded"]


def test_int8_scores_do_not_depend_on_the_company(trained: tuple[Path, TrainSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, settings = trained
    monkeypatch.setattr("penchant.training.export.LIMITS", dict.fromkeys(LIMITS, Limits(100, 0, 1)))
    export(bundle, settings)
    graph = onnx.load(bundle / "onnx" / "model-int8.onnx")
    assert {"QAttention", "MatMulIntegerToFloat"} <= {node.op_type for node in graph.graph.node}
    tagger = Tagger(bundle, backend="onnx-int8")
    alone = np.concatenate([tagger.score([text])[0] for text in TEXTS])
    np.testing.assert_allclose(tagger.score(TEXTS)[0], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"f1_after": 0.49}, "it loses 1.00 points of F1, at most 0.3 are allowed"),
        ({"agreement": 0.5}, "50.0% of the tags agree, at least 90.0% have to"),
        ({"largest_difference": 0.6}, "a score differs by 0.600, at most 0.35 is allowed"),
    ],
)
def test_the_gate_says_what_is_wrong(changed: dict[str, float], said: str | None) -> None:
    assert refusal(GATE.model_copy(update=changed), LIMITS["onnx-int8"]) == said


def test_a_refused_export_is_kept_out_of_use(trained: tuple[Path, TrainSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, settings = trained
    strict = {"onnx": LIMITS["onnx"], "onnx-int8": Limits(-100, 1, 0)}
    monkeypatch.setattr("penchant.training.export.LIMITS", strict)
    found = export(bundle, settings)
    assert set(found.accepted) == {"onnx"}
    assert "REFUSED" in gate_text(found.exports[1])
    with pytest.raises(DataError, match="onnx-int8 was refused when it was exported: it loses"):
        Tagger(bundle, backend="onnx-int8")
    backend = Tagger(bundle).backend
    assert backend.name in {"torch", "onnx"}
    assert "onnx-int8" not in backend.why


def test_auto_measures_once_and_says_what_it_found(
    trained: tuple[Path, TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, settings = trained
    exports = export(bundle, settings)
    first = Tagger(bundle).backend
    assert "the fastest here of those that passed the gate" in first.why
    assert all(name in first.why for name in ("torch", *exports.accepted))
    kept = json.loads((tmp_path / "cache" / "backends.json").read_text())
    [(key, rates)] = [each for each in kept.items() if "torch" in each[1]]
    [precision] = [each for each in kept.values() if "torch" not in each]
    assert sorted(precision.values()) == [0.0, 1.0]  # PyTorch's, measured on the way
    assert first.name == max(rates, key=rates.get)
    slowest = min(rates, key=rates.get)
    (tmp_path / "cache" / "backends.json").write_text(json.dumps(kept | {key: rates | {slowest: 1e9}}))
    assert Tagger(bundle).backend.name == slowest  # remembered, not measured again
    (tmp_path / "cache" / "backends.json").write_text("{broken")
    assert Tagger(bundle).backend.name in rates


def test_what_can_not_be_run_is_refused(trained: tuple[Path, TrainSettings], settings_file: Callable[..., Path]) -> None:
    bundle, settings = trained
    spec = load_spec(bundle)
    with pytest.raises(DataError, match="not exported for onnx; run: penchant export"):
        pick(bundle, spec, 20, "onnx")
    with pytest.raises(ConfigError, match="backend 'onxx': there is auto, torch, onnx, onnx-int8"):
        pick(bundle, spec, 20, "onxx")
    with pytest.raises(ConfigError, match="precision 'fp8': there is auto, no, bf16"):
        Tagger(bundle, "fp8", "torch")
    assert isinstance(pick(bundle, spec, 20, "auto", "no"), TorchBackend)  # nothing exported
    with pytest.raises(ConfigError, match="has other labels than the settings"):
        export(bundle, settings.model_copy(update={"labels": spec.labels[::-1]}))
    export(bundle, settings)
    path = bundle / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"model\.onnx: missing or damaged; write it again with: penchant export"):
        Tagger(bundle, backend="onnx")
    about = json.loads((bundle / "onnx" / "exports.json").read_text())
    about["exports"][0]["sha256"] = file_digest(path)
    (bundle / "onnx" / "exports.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="ONNX Runtime can't load it"):
        Tagger(bundle, backend="onnx")
    (bundle / "onnx" / "exports.json").write_text(json.dumps(about | {"bundle": "0" * 16}))
    with pytest.raises(DataError, match="made from another bundle"):
        Tagger(bundle)
