"""Which backend tags: the one asked for, or the fastest here of those that passed the gate."""

import importlib.util
import logging
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from penchant.errors import ConfigError, DataError, PenchantError
from penchant.files import fingerprint, read_json, write_json
from penchant.tagging.backends import NAMES, Backend, Batch, OnnxBackend, TorchBackend, own_cores, own_device
from penchant.tagging.bundle import TaggerSpec
from penchant.tagging.cache import default_path
from penchant.tagging.exports import Exports, load_exports

log = logging.getLogger(__name__)
SAMPLE_LENGTHS = (6, 8, 10, 12, 14, 18, 28, 40, 60, 90)
"""Word pieces of the texts that a measurement runs: what titles and posts have, 28.6 of them on average."""
SAMPLE_TOKENS = 6_000
"""Word pieces of a measurement."""


def pick(bundle: Path, spec: TaggerSpec, vocabulary: int, name: str, precision: str = "auto") -> Backend:
    """A backend by its name, or by `auto`: on a GPU PyTorch, else by a measurement that is kept per machine and bundle.

    `vocabulary` is the number of word pieces the bundle knows.

    Raises `ConfigError` for a name there isn't, `DataError` for an export that isn't there or was refused.
    """
    if name not in ("auto", *NAMES):
        raise ConfigError(f"backend {name!r}: there is auto, {', '.join(NAMES)}")
    if name == "torch" or own_device().type != "cpu":
        if name.startswith("onnx"):
            raise ConfigError(f"backend {name!r} runs on the CPU; on this GPU take torch or auto")
        return in_torch(bundle, spec, precision)
    exports = load_exports(bundle, spec)
    if name != "auto":
        return OnnxBackend(bundle, require_accepted(bundle, exports, name))
    if not exports.accepted or importlib.util.find_spec("onnxruntime") is None:
        return in_torch(bundle, spec, precision)
    return fastest(bundle, spec, vocabulary, exports, precision)


def in_torch(bundle: Path, spec: TaggerSpec, precision: str) -> TorchBackend:
    """PyTorch; a measured precision is kept per machine, so that it is the same tomorrow and the cache's tags still hold."""
    if precision != "auto":
        return TorchBackend(bundle, spec, precision)
    key = fingerprint([machine("torch"), str(own_device())])
    known = remembered().get(key, {})
    if known.keys() == {"no", "bf16"}:
        backend = TorchBackend(bundle, spec, max(known, key=lambda name: known[name]))
        backend.why = f"{backend.precision}, as measured on this machine before"
        return backend
    backend = TorchBackend(bundle, spec)
    remember(key, {name: float(name == backend.precision) for name in ("no", "bf16")})
    return backend


def require_accepted(bundle: Path, exports: Exports, name: str) -> Any:
    """The export a backend runs."""
    if name in exports.accepted:
        return exports.accepted[name]
    refused = {each.name: each.gate.refused for each in exports.exports if each.gate is not None}
    if name in refused:
        raise DataError(f"{bundle}: {name} was refused when it was exported: {refused[name]}")
    raise DataError(f"{bundle}: not exported for {name}; run: penchant export {bundle}")


def fastest(bundle: Path, spec: TaggerSpec, vocabulary: int, exports: Exports, precision: str) -> Backend:
    """The backend that a short measurement found fastest, now or before."""
    key = fingerprint([machine("torch", "onnxruntime"), spec.fingerprint, precision, [each.sha256 for each in exports.accepted.values()]])
    rates = remembered().get(key, {})
    makers: dict[str, Callable[[], Backend]] = {"torch": partial(in_torch, bundle, spec, precision)}
    makers |= {name: partial(OnnxBackend, bundle, each) for name, each in exports.accepted.items()}
    if set(rates) != set(makers):
        rates = {name: texts_per_second(make(), vocabulary, spec.max_length) for name, make in makers.items()}
        remember(key, rates)
    picked = max(rates, key=lambda name: rates[name])
    backend = makers[picked]()
    listed = ", ".join(f"{name} {rate:.0f}" for name, rate in sorted(rates.items(), key=lambda each: -each[1]))
    backend.why = f"{picked}, the fastest here of those that passed the gate (texts/s in a short measurement: {listed})"
    return backend


def memory() -> Path:
    """Where measurements are kept."""
    return default_path().with_name("backends.json")


def remember(key: str, rates: dict[str, float]) -> None:
    """Keep a measurement, if that can be done."""
    try:
        write_json(memory(), remembered() | {key: rates})
    except (OSError, PenchantError) as error:
        log.warning("the measurement of backends can't be kept: %s", error)


def remembered() -> dict[str, dict[str, float]]:
    """Measurements by machine and bundle; none where the file is missing or damaged."""
    try:
        found = read_json(memory())
        return {str(key): {str(name): float(rate) for name, rate in rates.items()} for key, rates in found.items()}
    except (PenchantError, AttributeError, TypeError, ValueError):
        return {}


def machine(*packages: str) -> list[str]:
    """What a measurement holds for: processor, cores of this process, versions of packages."""
    cpu = Path("/proc/cpuinfo")
    names = sorted({line for line in cpu.read_text().splitlines() if line.startswith(("model name", "flags"))}) if cpu.exists() else []
    return [platform.machine(), *names, str(own_cores()), *(f"{name} {version(name)}" for name in packages)]


def texts_per_second(backend: Backend, vocabulary: int, max_length: int) -> float:
    """Texts of `SAMPLE_LENGTHS` a second, after one batch to warm up."""
    batches = sample(backend.batch_tokens, vocabulary, max_length)
    backend.run(batches[-1])
    start = time.perf_counter()
    with ThreadPoolExecutor(backend.workers) as pool:
        list(pool.map(backend.run, batches))
    return sum(len(each["input_ids"]) for each in batches) / (time.perf_counter() - start)


def sample(batch_tokens: int, vocabulary: int, max_length: int) -> list[Batch]:
    """Batches of `SAMPLE_TOKENS` word pieces in all, the same on every call."""
    draw = np.random.default_rng(0)
    copies = SAMPLE_TOKENS // sum(SAMPLE_LENGTHS)
    batches: list[Batch] = []
    for length in sorted((min(each, max_length) for each in SAMPLE_LENGTHS), reverse=True):
        for start in range(0, copies, max(1, batch_tokens // length)):
            shape = (min(copies - start, max(1, batch_tokens // length)), length)
            batches.append({"input_ids": draw.integers(0, vocabulary, shape), "attention_mask": np.ones(shape, np.int64)})
    return batches
