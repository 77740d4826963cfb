"""What multiplies: PyTorch over a bundle's checkpoint, or ONNX Runtime over a graph that `penchant export` put beside it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib
import numpy as np
import numpy.typing as npt
import torch

from penchant.errors import ConfigError, DataError, MissingExtraError
from penchant.tagging.bundle import Floats, SpanSpec, TaggerSpec
from penchant.tagging.encoder import load_model
from penchant.tagging.exports import ONNX_FILES, Export
from penchant.tagging.precision import measured_precision

NAMES = ("torch", *ONNX_FILES)
"""Every backend there is; what `auto` picks from."""
PRECISIONS = ("no", "bf16")
"""PyTorch's: plain fp32, and bf16 where autocast takes it."""
Batch = Mapping[str, npt.NDArray[np.int64]]


class Outputs(NamedTuple):
    """Logits of the interests and of the pieces, each None where the bundle has none. *Shape:* (texts, labels), (texts, pieces, classes)."""

    interests: Floats | None
    pieces: Floats | None


class Backend(Protocol):
    """Runs padded batches. `run` may be called from `workers` threads at once; equal rows give equal logits up to rounding, whatever stands beside them."""

    name: str
    variant: str
    """Names the arithmetic: tags of different variants are never taken for one another."""
    why: str
    """A sentence on how it was picked."""
    workers: int
    batch_tokens: int
    """Word pieces of a batch, padding included, that it is fastest with."""

    def run(self, batch: Batch) -> Outputs:
        """*Shape:* each of `input_ids`, `attention_mask` and, where they are used, `token_type_ids` (texts, pieces)."""
        ...


def own_cores() -> int:
    """Cores of this process: those of the machine, shared by the processes that one launch started on it."""
    return max(1, int(joblib.cpu_count()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def own_device() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


class TorchBackend:
    """The stock checkpoint, in bf16 where this hardware is much faster in it."""

    name = "torch"

    def __init__(self, bundle: Path, spec: TaggerSpec, precision: str = "auto") -> None:
        if precision not in ("auto", *PRECISIONS):
            raise ConfigError(f"precision {precision!r}: there is auto, {', '.join(PRECISIONS)}")
        self.device = own_device()
        self.precision, self.why = measured_precision(self.device) if precision == "auto" else (precision, f"{precision} as asked")
        self.variant = f"torch-{'fp32' if self.precision == 'no' else self.precision}"
        self.workers = 1
        self.batch_tokens = 4096 if self.device.type == "cpu" else 32_768
        if self.device.type == "cpu":
            torch.set_num_threads(own_cores())
        try:
            self.model = load_model(bundle, spec.task)
        except Exception as error:
            said = str(error).splitlines() or [""]
            raise DataError(f"{bundle}: the checkpoint can't be loaded: {type(error).__name__}: {said[0]}") from error
        require_outputs(bundle, spec, self.model)
        self.model.to(self.device).eval()

    def run(self, batch: Batch) -> Outputs:
        """See `Backend`."""
        on_gpu = self.device.type != "cpu"
        tensors = {name: torch.from_numpy(each) for name, each in batch.items()}
        if on_gpu:
            tensors = {name: each.pin_memory().to(self.device, non_blocking=True) for name, each in tensors.items()}
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.model(**tensors)
        return Outputs(*(each.double().cpu().numpy() if each is not None else None for each in outputs))


def require_outputs(bundle: Path, spec: TaggerSpec, model: Any) -> None:
    """Raise `DataError` where the checkpoint has other outputs than `tagger.json` reads."""
    wanted = len(spec.labels) if spec.task != "spans" else classes_of(spec.spans)
    if model.stock.config.num_labels != wanted:
        raise DataError(f"{bundle}: the checkpoint has {model.stock.config.num_labels} outputs, tagger.json {wanted} labels")
    head = model.span_head
    if head is not None and head.out_features != classes_of(spec.spans):
        raise DataError(f"{bundle}: the span head has {head.out_features} outputs, tagger.json {classes_of(spec.spans)} classes")


def classes_of(spec: SpanSpec | None) -> int:
    """Outputs of the token classifier."""
    return 1 + 2 * len(spec.dimensions) if spec is not None else 0


class OnnxBackend:
    """A fused graph on the CPU: one thread to a batch, as many batches at once as there are cores.

    Batches side by side wait for nobody; threads that share one small batch wait for each other at every layer.
    """

    batch_tokens = 512  # activations of a batch stay in a core's own cache

    def __init__(self, bundle: Path, export: Export) -> None:
        runtime = require_onnxruntime()
        self.name, self.variant = export.name, f"{export.name}-{export.sha256[:16]}"
        self.why = f"{export.name} as asked"
        self.workers = own_cores()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # the graph is fused as it shall be
        options.log_severity_level = 3
        path = export.verified(bundle)
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise DataError(f"{path}: ONNX Runtime can't load it: {str(error).splitlines()[0]}; export it again") from error
        self.outputs = [each.name for each in self.session.get_outputs()]

    def run(self, batch: Batch) -> Outputs:
        """See `Backend`."""
        found = dict(zip(self.outputs, self.session.run(self.outputs, graph_feed(self.session, batch)), strict=True))
        return Outputs(*(found[name].astype(np.float64) if name in found else None for name in Outputs._fields))


def graph_feed(session: Any, batch: Batch) -> dict[str, npt.NDArray[np.int64]]:
    """What a graph takes of a batch; where token types aren't marked, they are 0."""
    return {each.name: batch.get(each.name, np.zeros_like(batch["input_ids"])) for each in session.get_inputs()}


def require_onnxruntime() -> Any:
    """The module. Raises `MissingExtraError` where it isn't installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("a backend of ONNX Runtime", "onnx") from error
    return onnxruntime
