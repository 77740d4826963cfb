"""A bundle: a stock Hugging Face checkpoint, and beside it `tagger.json` with what turns its logits into tags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from penchant.config import Settings, parse
from penchant.errors import DataError
from penchant.files import file_digest, fingerprint, read_json, write_json
from penchant.ingest.clean import CLEANING_VERSION
from penchant.taxonomy import Taxonomy

Floats = npt.NDArray[np.float64]
SPAN_HEAD = "span_head.safetensors"
"""Weights of the second head in a bundle for both tasks."""


class Curve(Settings):
    """A rising line through points, from a stated score to a calibrated one."""

    stated: tuple[float, ...] = Field(min_length=2)
    """Scores after the temperature, rising."""
    calibrated: tuple[float, ...] = Field(min_length=2)
    """What each becomes, never falling; straight lines between."""

    @model_validator(mode="after")
    def paired(self) -> "Curve":
        """As many of one as of the other."""
        if len(self.stated) != len(self.calibrated):
            raise ValueError(f"{len(self.stated)} stated but {len(self.calibrated)} calibrated scores")
        return self


class SpanSpec(Settings):
    """What turns logits of word pieces into spans."""

    dimensions: tuple[str, ...] = Field(min_length=1)
    """Dimensions of the tags; the model's classes are O, then B- and I- of each."""
    thresholds: tuple[float, ...]
    """Least probability, 0 to 1, at which a word is in a span of each dimension."""
    temperature: float = Field(gt=0)
    """Divides the logits before the softmax, fitted on validation."""
    curve: Curve | None = None
    """From a span's mean probability to how often such spans are exactly right, fitted on validation; absent: too few spans to tell."""
    stride: int = Field(ge=0)
    """Word pieces that two windows of a long text share."""
    head_sha256: str | None = None
    """Digest of `span_head.safetensors`, where the bundle is for both tasks."""


class TaggerSpec(Settings):
    """The contents of `tagger.json`."""

    dimension: str = "interest"
    """Dimension of the tags."""
    labels: tuple[str, ...] = ()
    """Tag values in the order of the model's outputs; empty: the bundle finds spans only."""
    thresholds: tuple[float, ...] = ()
    """Least score, 0 to 1, at which each label becomes a tag."""
    temperature: float = Field(1.0, gt=0)
    """Divides the logits before the sigmoid, fitted on validation (Guo et al. 2017, On Calibration of Modern Neural Networks)."""
    curves: tuple[Curve | None, ...] = ()
    """Per label, where its own calibration beats the temperature alone (isotonic regression); empty: none has one."""
    max_length: int = Field(ge=8)
    """Word pieces read at a time; beyond them interests read nothing, spans another window."""
    min_tags: int = Field(0, ge=0)
    """Tags every text gets at least, by score over threshold."""
    max_tags: int = Field(5, ge=1)
    """Tags a text gets at most."""
    cleaning_version: str = CLEANING_VERSION
    """Version of the cleaning its training texts went through."""
    mark_capitals: bool = False
    """Whether words with a capital first are told to the model as token type 1."""
    simplify_chinese: bool = False
    """Whether traditional Chinese characters are read as simplified ones."""
    taxonomy: Taxonomy | None = None
    """The taxonomy the labels belong to."""
    spans: SpanSpec | None = None
    """How spans are read; absent: the bundle finds interests only."""
    weights_sha256: str
    """Digest of `model.safetensors`."""

    @property
    def task(self) -> str:
        """`interests`, `spans` or `both`."""
        return "interests" if self.spans is None else "both" if self.labels else "spans"

    @property
    def written(self) -> tuple[str, ...]:
        """Dimensions its tags are of."""
        return (*((self.dimension,) if self.labels else ()), *(self.spans.dimensions if self.spans is not None else ()))

    @property
    def fingerprint(self) -> str:
        """Names the bundle: changes with its weights or anything that decides its tags."""
        return fingerprint(self.model_dump(mode="json"))


def scores(logits: Floats, temperature: float, curves: Sequence[Curve | None] = ()) -> Floats:
    """Calibrated probabilities; `curves` as in `TaggerSpec`.

    *Shape:* (texts, labels) to (texts, labels), 0 to 1.
    """
    score: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits / temperature, -60, 60)))
    for n, curve in enumerate(curves):
        if curve is not None:
            score[:, n] = np.interp(score[:, n], curve.stated, curve.calibrated)
    return score


def softmax(logits: Floats, temperature: float) -> Floats:
    """Probabilities of classes that exclude each other.

    *Shape:* (pieces, classes) to (pieces, classes), each row adding up to 1.
    """
    shifted = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def decide(score: Floats, thresholds: Floats, min_tags: int, max_tags: int) -> npt.NDArray[np.bool_]:
    """Which labels each text is tagged with: those at or over their threshold, ranked by margin and held between the limits.

    *Shape:* score (texts, labels), thresholds (labels,), result (texts, labels).
    """
    margin = score - thresholds
    rank = np.argsort(np.argsort(-margin, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(((margin >= 0) & (rank < max_tags)) | (rank < min_tags))


def save_spec(folder: Path, spec: TaggerSpec) -> None:
    """Write `tagger.json`, with the bundle's fingerprint in it for people to read."""
    write_json(folder / "tagger.json", spec.model_dump(mode="json") | {"fingerprint": spec.fingerprint})


def load_spec(folder: Path) -> TaggerSpec:
    """Read `tagger.json` and check that the weights beside it are the ones it was written for."""
    if not (folder / "tagger.json").exists():
        raise DataError(
            f"{folder}: no bundle (it has no tagger.json); train one with: penchant train --config configs/train-interests.yaml"
        )
    content: dict[str, Any] = read_json(folder / "tagger.json")
    if not isinstance(content, dict):
        raise DataError(f"{folder / 'tagger.json'}: expected keys and values, found a {type(content).__name__}")
    stated = content.pop("fingerprint", None)
    spec = parse(TaggerSpec, content, str(folder / "tagger.json"))
    for names, thresholds in ((spec.labels, spec.thresholds), (spec.spans.dimensions, spec.spans.thresholds) if spec.spans else ((), ())):
        if len(names) != len(thresholds):
            raise DataError(f"{folder / 'tagger.json'}: {len(names)} labels but {len(thresholds)} thresholds")
    if spec.curves and len(spec.curves) != len(spec.labels):
        raise DataError(f"{folder / 'tagger.json'}: {len(spec.labels)} labels but {len(spec.curves)} curves")
    if not spec.labels and spec.spans is None:
        raise DataError(f"{folder / 'tagger.json'}: finds neither interests nor spans")
    if spec.labels and spec.taxonomy is None:
        raise DataError(f"{folder / 'tagger.json'}: has labels but no taxonomy")
    if stated != spec.fingerprint:
        raise DataError(
            f"{folder / 'tagger.json'}: edited by hand (its fingerprint {stated} should be {spec.fingerprint}); train or export it again"
        )
    digests = {"model.safetensors": spec.weights_sha256}
    if spec.spans is not None and spec.spans.head_sha256 is not None:
        digests[SPAN_HEAD] = spec.spans.head_sha256
    for name, digest in digests.items():
        if not (folder / name).exists() or file_digest(folder / name) != digest:
            raise DataError(f"{folder / name}: missing or damaged: its SHA-256 is not the one in tagger.json")
    if spec.cleaning_version != CLEANING_VERSION:
        raise DataError(
            f"{folder}: trained on cleaning version {spec.cleaning_version}, this Penchant cleans by version {CLEANING_VERSION}; train it again"
        )
    return spec
