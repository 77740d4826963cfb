"""What multiplies: PyTorch over a bundle's checkpoint, or ONNX Runtime over a graph that `penchant export` put beside it."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import joblib
import numpy as np
import numpy.typing as npt
import torch

from penchant.errors import ConfigError, DataError, MissingExtraError, first_line
from penchant.tagging import packed
from penchant.tagging.bundle import Floats, SpanSpec, TaggerSpec
from penchant.tagging.encoder import load_model
from penchant.tagging.exports import ONNX_FILES, Export
from penchant.tagging.precision import measured_precision

log = logging.getLogger(__name__)
NAMES = ("torch", *ONNX_FILES)
"""Every backend there is; what `auto` picks from."""
PRECISIONS = ("no", "bf16")
"""PyTorch's: plain fp32, and bf16 where autocast takes it."""
MOST_READERS = 8
"""Processes that tokenise beside a GPU."""
PACKED_TOLERANCE = 0.05
"""Largest difference of a logit from that of the padded batch, as a share of the largest logit: some ten times bf16's rounding of it."""
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
    readers: int
    """Processes that tokenise for it in a long run; 0: this one does."""

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
    """The stock checkpoint, in bf16 where this hardware is much faster in it; on a GPU without padding then, where that works."""

    name = "torch"

    def __init__(self, bundle: Path, spec: TaggerSpec, precision: str = "auto", pack: bool | None = None) -> None:
        """`pack` says whether windows are packed rather than padded; None: in bf16 on a GPU, after a check that it gives the same."""
        if precision not in ("auto", *PRECISIONS):
            raise ConfigError(f"precision {precision!r}: there is auto, {', '.join(PRECISIONS)}")
        self.device = own_device()
        on_gpu = self.device.type != "cpu"
        self.precision, self.why = measured_precision(self.device) if precision == "auto" else (precision, f"{precision} as asked")
        self.workers = 2 if on_gpu else 1  # one makes a batch ready while the GPU is at the other's
        self.batch_tokens = 32_768 if on_gpu else 4096
        self.readers = min(MOST_READERS, own_cores() - 1) if on_gpu else 0
        if not on_gpu:
            torch.set_num_threads(own_cores())
        try:
            self.model = load_model(bundle, spec.task)
        except Exception as error:
            said = str(error).splitlines() or [""]
            raise DataError(f"{bundle}: the checkpoint can't be loaded: {type(error).__name__}: {said[0]}") from error
        require_outputs(bundle, spec, self.model)
        self.model.to(self.device).eval()
        self.pack = (on_gpu and self.precision == "bf16" and self.can_pack()) if pack is None else pack
        if self.pack:
            packed.prepare(self.model)
        self.variant = f"torch-{'fp32' if self.precision == 'no' else self.precision}{'.packed' * self.pack}"

    def can_pack(self) -> bool:
        """Whether packed windows give the logits of padded ones, but for rounding: the kernel is newer than most of PyTorch."""
        if not packed.can_pack(self.model):
            return False
        config = self.model.stock.config
        pieces = np.arange(min(16, config.max_position_embeddings))
        mask = np.tri(len(pieces), dtype=np.int64)[3:]  # windows of 4 to 16 pieces
        batch = {"input_ids": mask * (pieces % config.vocab_size), "attention_mask": mask}
        padded = self.run_padded(batch)
        if padded.pieces is not None:
            padded.pieces[mask == 0] = 0
        packed.prepare(self.model)
        try:
            apart = difference(self.run_packed(batch), padded)
        except Exception as error:  # noqa: BLE001 - whatever it is, padded windows can be read
            said = first_line(error)
        else:
            if apart <= PACKED_TOLERANCE:
                return True
            said = f"logits differ by {apart:.1g} of the largest"
        log.warning("texts are padded, for without padding: %s", said)
        self.model.stock.set_attn_implementation("sdpa")
        return False

    def run(self, batch: Batch) -> Outputs:
        """See `Backend`."""
        return self.run_packed(batch) if self.pack else self.run_padded(batch)

    def run_padded(self, batch: Batch) -> Outputs:
        """The model as it is."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = self.model(**self.moved(batch))
        return Outputs(*(each.double().cpu().numpy() if each is not None else None for each in outputs))

    def run_packed(self, batch: Batch) -> Outputs:
        """The model over the batch's pieces in one row; where there is padding, a piece's logits are 0."""
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = packed.forward(self.model, batch["input_ids"].shape[1], **self.moved(packed.packed(batch)))
        interests, row = (each.double().cpu().numpy() if each is not None else None for each in outputs)
        if row is None:
            return Outputs(interests, None)
        pieces = np.zeros((*batch["input_ids"].shape, row.shape[1]))
        pieces[batch["attention_mask"].astype(bool)] = row
        return Outputs(interests, pieces)

    def moved(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Arrays as tensors where the model is."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in batch.items()}
        if self.device.type == "cpu":
            return tensors
        return {name: each.pin_memory().to(self.device, non_blocking=True) for name, each in tensors.items()}


def difference(found: Outputs, expected: Outputs) -> float:
    """Largest difference of a logit, as a share of the largest one."""
    pairs = [(one, other) for one, other in zip(found, expected, strict=True) if one is not None and other is not None]
    return float(np.max([np.abs(one - other).max() / np.abs(other).max() for one, other in pairs]))  # NaN where any is


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
    readers = 0

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
