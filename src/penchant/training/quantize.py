"""Int8 arithmetic for a fused ONNX graph, with fixed ranges: a text's scores don't depend on the texts in its batch.

Weights get one scale per output column. Activations get one scale per tensor, fixed beforehand on sample texts, with the
range of least squared rounding error. A BERT has a few channels far outside of everyone else's range, which would cost
all others their resolution (Dettmers et al. 2022, LLM.int8(), section 4); what of such a channel lies beyond the range is
spread over extra channels with the same weights, so that nothing is lost (Zhao et al. 2019, Improving Neural Network
Quantization without Retraining using Outlier Channel Splitting).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from penchant.tagging.backends import Batch, graph_feed

Array = npt.NDArray[np.float32]
OUTLYING = 8
"""Channels of a tensor that may be split."""
LEAST_WIDTH = 64
"""Smaller matrices, such as the classifiers, stay in fp32: they cost nothing and decide most."""
SAMPLED_TOKENS = 8_000
"""Tokens that ranges are fitted on; outlying channels are looked for in all."""
LARGEST_WEIGHT = 63
"""Seven bits: processors without VNNI add two products of uint8 and int8 in 16 bits, and 2 · 255 · 63 still fits."""
LEAST_INPUTS = 3
"""Inputs to a row of weights from which there are enough to fit it."""
DAMPING = 0.01
"""Of the regression, as a share of the inputs' mean square."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15)
"""Parts of the full range that are tried."""
MICROSOFT = "com.microsoft"


class Activation(NamedTuple):
    """What a tensor was seen to hold."""

    sample: Array
    """*Shape:* (tokens, channels)."""
    low: Array
    """Least value of each channel over all tokens. *Shape:* (channels,)."""
    high: Array


def quantized(model: onnx.ModelProto, batches: Sequence[Batch]) -> onnx.ModelProto:
    """The graph with its large matrix products in int8; `batches` are of sample texts."""
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    wide = [
        node
        for node in model.graph.node
        if node.op_type in ("MatMul", "Attention")
        and node.input[1] in weights
        and weights[node.input[1]].ndim == 2
        and min(weights[node.input[1]].shape) >= LEAST_WIDTH
    ]
    seen = activations(model, list(dict.fromkeys(node.input[0] for node in wide)), batches)
    replaced = {node.output[0]: Product(node, weights[node.input[1]], seen[node.input[0]]) for node in wide}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        result.graph.node.extend(replaced[node.output[0]].nodes() if node.output[0] in replaced else [node])
    for product in replaced.values():
        result.graph.initializer.extend(product.constants())
    used = {name for node in result.graph.node for name in node.input}
    live = [each for each in result.graph.initializer if each.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(live)
    if not any(each.domain == MICROSOFT for each in result.opset_import):
        result.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return result


def activations(model: onnx.ModelProto, names: Sequence[str], batches: Sequence[Batch]) -> dict[str, Activation]:
    """What tensors of a graph hold over batches, padding left out."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    draw = np.random.default_rng(0)
    found: dict[str, list[Activation]] = {name: [] for name in names}
    for batch in batches:
        real = batch["attention_mask"].astype(bool)
        for name, value in zip(names, session.run(list(names), graph_feed(session, batch)), strict=True):
            held = value[real] if value.shape[1] == real.shape[1] else value.reshape(-1, value.shape[-1])  # the latter: of first pieces
            kept = draw.random(len(held)) < SAMPLED_TOKENS / tokens if value.shape[1] == real.shape[1] else np.ones(len(held), bool)
            found[name].append(Activation(held[kept], held.min(axis=0), held.max(axis=0)))
    return {
        name: Activation(
            np.concatenate([each.sample for each in parts]),
            np.min([each.low for each in parts], 0),
            np.max([each.high for each in parts], 0),
        )
        for name, parts in found.items()
    }


def rounded(values: Array, low: float, high: float) -> Array:
    """Values as uint8 over a range gives them back."""
    scale = (high - low) / 255
    zero = round(-low / scale)
    return np.asarray((np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale, np.float32)


def best_range(values: Array) -> tuple[float, float]:
    """The range around 0 with the least squared error of rounding and clipping."""
    low, high = min(float(values.min()), -1e-6), max(float(values.max()), 1e-6)
    values = np.random.default_rng(0).choice(values.ravel(), min(values.size, 200_000), replace=False)

    def error(bounds: tuple[float, float]) -> float:
        return float(np.square(rounded(values, *bounds) - values).mean())

    _, high = min(((low, high * share) for share in SHARES), key=error)
    low, _ = min(((low * share, high) for share in SHARES), key=error)
    return low, high


def fitted(weight: Array, inputs: Array, read: Array, split: list[int]) -> tuple[npt.NDArray[np.int8], Array]:
    """Integer weights and the scale of each column, so that `read` times them is close to `inputs` times `weight`.

    First the weights are moved by ridge regression to make up for what rounding does to the inputs; then they are rounded
    row by row, each row's error made up for by those still to come (Frantar et al. 2023, GPTQ, section 3). With too few
    inputs to fit anything to, they are just rounded.
    *Shape:* weight (channels, columns), inputs (tokens, channels), read (tokens, rows); results (rows, columns), (columns,).
    """
    moved = np.concatenate([weight, weight[split]]).astype(np.float64)
    enough = len(read) >= LEAST_INPUTS * read.shape[1]
    if enough:
        seen = read.astype(np.float64)
        moment = seen.T @ seen
        moment[np.diag_indices_from(moment)] += DAMPING * moment.diagonal().mean()
        moved += np.linalg.solve(moment, seen.T @ (inputs @ weight - seen @ moved))
    scale = np.maximum(np.abs(moved).max(axis=0) / LARGEST_WEIGHT, 1e-12)
    whole = np.empty_like(moved)
    factor = np.linalg.cholesky(np.linalg.inv(moment)).T if enough else np.eye(len(moved))
    for n in range(len(moved)):
        whole[n] = np.clip(np.round(moved[n] / scale), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        moved[n + 1 :] -= np.outer(factor[n, n + 1 :], (moved[n] - whole[n] * scale) / factor[n, n])
    return whole.astype(np.int8), scale.astype(np.float32)


class Product:
    """A matrix product in int8 in place of a `MatMul` or `Attention` node."""

    def __init__(self, node: Any, weight: Array, seen: Activation) -> None:
        self.node, self.name = node, node.output[0]
        reach = np.maximum(np.abs(seen.low), np.abs(seen.high))
        outlying = np.argsort(-reach)[:OUTLYING]
        self.low, self.high = best_range(np.delete(seen.sample, outlying, axis=1))
        copies = {int(n): self.copies(float(seen.low[n]), float(seen.high[n])) for n in outlying}
        self.split = [n for n, count in copies.items() for _ in range(count)]
        self.share = np.array([1 / copies[n] for n in self.split], np.float32)
        self.weight, self.scale = fitted(weight, seen.sample, self.read(seen.sample), self.split)

    def read(self, values: Array) -> Array:
        """Inputs as the int8 product sees them. *Shape:* (tokens, channels) to (tokens, channels and split ones)."""
        beyond = (values - np.clip(values, self.low, self.high))[:, self.split] * self.share
        return np.concatenate([rounded(values, self.low, self.high), rounded(beyond, self.low, self.high)], axis=1)

    def copies(self, low: float, high: float) -> int:
        """How many channels what is beyond the range needs."""
        return int(np.ceil(max(0.0, (high - self.high) / self.high, (self.low - low) / -self.low)))

    def constants(self) -> list[onnx.TensorProto]:
        """What the nodes need."""
        scale = (self.high - self.low) / 255
        values: dict[str, Any] = {
            "scale": np.float32(scale),
            "zero": np.uint8(round(-self.low / scale)),
            "weight": self.weight,
            "weight_scale": self.scale,
            "weight_zero": np.zeros(len(self.scale), np.int8),
            "split": np.array(self.split, np.int64),
            "share": self.share,
            "low": np.float32(self.low),
            "high": np.float32(self.high),
        }
        return [numpy_helper.from_array(np.asarray(value), f"{self.name}/{key}") for key, value in values.items()]

    def nodes(self) -> Iterator[Any]:
        """Nodes that give what the node gave, up to rounding."""
        whole = self.node.input[0]
        constant = {
            key: f"{self.name}/{key}" for key in ("scale", "zero", "weight", "weight_scale", "weight_zero", "split", "share", "low", "high")
        }
        yield helper.make_node("QuantizeLinear", [whole, constant["scale"], constant["zero"]], [f"{self.name}/inside"])
        quantised = f"{self.name}/inside"
        if self.split:
            step = {key: f"{self.name}/{key}" for key in ("own", "clipped", "beyond", "spread", "outside", "all")}
            yield helper.make_node("Gather", [whole, constant["split"]], [step["own"]], axis=2)
            yield helper.make_node("Clip", [step["own"], constant["low"], constant["high"]], [step["clipped"]])
            yield helper.make_node("Sub", [step["own"], step["clipped"]], [step["beyond"]])
            yield helper.make_node("Mul", [step["beyond"], constant["share"]], [step["spread"]])
            yield helper.make_node("QuantizeLinear", [step["spread"], constant["scale"], constant["zero"]], [step["outside"]])
            yield helper.make_node("Concat", [quantised, step["outside"]], [step["all"]], axis=2)
            quantised = step["all"]
        scales = [constant["scale"], constant["weight_scale"]]
        zeros = [constant["zero"], constant["weight_zero"]]
        if self.node.op_type == "MatMul":
            inputs = [quantised, constant["weight"], *scales, *zeros]
            yield helper.make_node("MatMulIntegerToFloat", inputs, [self.name], domain=MICROSOFT)
            return
        inputs = [quantised, constant["weight"], self.node.input[2], *scales, self.node.input[3], *zeros]
        attention = helper.make_node("QAttention", inputs, [self.name], domain=MICROSOFT)
        attention.attribute.extend(
            each for each in self.node.attribute if each.name in ("num_heads", "unidirectional", "mask_filter_value", "scale")
        )
        yield attention
