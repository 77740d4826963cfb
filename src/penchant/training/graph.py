"""A bundle's network as an ONNX graph, fused for inference."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.transformers import optimizer
from torch import nn

from penchant.tagging.encoder import TaggerModel

POSITIONWISE = {"MatMul", "Add", "LayerNormalization", "BiasGelu", "Gelu", "FastGelu"}
"""What treats every word piece on its own."""


class Positional(nn.Module):
    """The network with its inputs by position, as the exporter wants them, and only the outputs there are."""

    def __init__(self, model: TaggerModel, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Shapes as in `TaggerModel.forward`."""
        return tuple(each for each in self.model(**dict(zip(self.inputs, tensors, strict=True))) if each is not None)


def fused(model: TaggerModel) -> onnx.ModelProto:
    """The graph of a network, with attention, normalisation and activation each one node where ONNX Runtime knows the architecture."""
    config = model.stock.config
    model.stock.set_attn_implementation("eager")  # whose pattern the fusion knows
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if getattr(config, "type_vocab_size", 0) else [])]
    outputs = [name for name, task in (("interests", "spans"), ("pieces", "interests")) if model.task != task]
    example = torch.ones((2, 8), dtype=torch.long)
    axes = {name: {0: "texts", 1: "pieces"} for name in [*inputs, "pieces"]} | {"interests": {0: "texts"}}
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            Positional(model.eval(), inputs),
            tuple(example for _ in inputs),
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: axes[name] for name in [*inputs, *outputs]},
            opset_version=17,
            dynamo=False,  # the fusion doesn't know the newer exporter's graphs
        )
        found = optimizer.optimize_model(
            str(path), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
        )
    graph = plain_normalisation(found.model)
    return first_pieces_only(graph) if outputs == ["interests"] else graph


def plain_normalisation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with each `SkipLayerNormalization` taken apart again: on a CPU it took three times as long as its parts (ONNX Runtime 1.32)."""
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type != "SkipLayerNormalization":
            model.graph.node.append(node)
            continue
        added, skipped, gamma, beta, *bias = node.input
        name = node.output[0]
        if bias:
            model.graph.node.append(helper.make_node("Add", [added, *bias], [f"{name}/biased"]))
            added = f"{name}/biased"
        model.graph.node.append(helper.make_node("Add", [added, skipped], [f"{name}/summed"]))
        epsilon = next(each.f for each in node.attribute if each.name == "epsilon")
        model.graph.node.append(helper.make_node("LayerNormalization", [f"{name}/summed", gamma, beta], [name], axis=-1, epsilon=epsilon))
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the exporter and the fusion say of their own internals to themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def first_pieces_only(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its last layer computed for the first piece of each text alone, where that is all the output reads.

    After the last attention every piece goes its own way, and interests are read off the first. It is four fifths of
    the last layer. Returned as it was where the graph isn't of that form.
    """
    constants = constants_of(model)
    last = next((node for node in reversed(model.graph.node) if node.op_type == "Attention"), None)
    behind = positionwise_after(model, last.output[0], constants) if last is not None else set()
    if last is None or not behind:
        return model
    bounds = {"first": [0], "second": [1], "axis": [1]}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"first_piece/{key}") for key, value in bounds.items()
    )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    cut: set[str] = set()
    for node in nodes:
        for n, name in enumerate(node.input) if node.output[0] in behind else ():
            if name in behind or name in constants:
                continue
            if name not in cut:
                cut.add(name)
                model.graph.node.append(helper.make_node("Slice", [name, *(f"first_piece/{key}" for key in bounds)], [f"{name}/first"]))
            node.input[n] = f"{name}/first"
        model.graph.node.append(node)
    return model


def positionwise_after(model: onnx.ModelProto, name: str, constants: dict[str, Any]) -> set[str]:
    """Tensors computed from `name` piece by piece, up to where the first piece is picked; none where anything else is done with one."""
    users: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for each in node.input:
            users.setdefault(each, []).append(node)
    behind: set[str] = set()
    waiting = [name]
    while waiting:
        for node in users.get(waiting.pop(), []):
            if node.op_type == "Gather" and not np.any(constants.get(node.input[1], 1)) and axis_of(node) == 1:
                continue  # it picks the first piece
            if node.op_type not in POSITIONWISE or node.output[0] in {each.name for each in model.graph.output}:
                return set()
            if node.output[0] not in behind:
                behind.add(node.output[0])
                waiting.append(node.output[0])
    return behind


def constants_of(model: onnx.ModelProto) -> dict[str, Any]:
    """Arrays by name: weights, and what `Constant` nodes give."""
    found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    return found | {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in model.graph.node if node.op_type == "Constant"}


def axis_of(node: Any) -> int:
    """A node's axis, 0 where it says none."""
    return next((int(each.i) for each in node.attribute if each.name == "axis"), 0)
