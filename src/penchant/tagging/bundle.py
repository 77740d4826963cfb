"""A bundle: a stock Hugging Face checkpoint, and beside it `tagger.json` with what turns its logits into tags."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from penchant.config import Settings, parse
from penchant.errors import DataError
from penchant.files import file_digest, fingerprint, read_json, write_json
from penchant.ingest.clean import CLEANING_VERSION
from penchant.taxonomy import Taxonomy

Floats = npt.NDArray[np.float64]


class TaggerSpec(Settings):
    """The contents of `tagger.json`."""

    dimension: str = "interest"
    """Dimension of the tags."""
    labels: tuple[str, ...]
    """Tag values in the order of the model's outputs."""
    thresholds: tuple[float, ...]
    """Least score, 0 to 1, at which each label becomes a tag."""
    temperature: float = Field(gt=0)
    """Divides the logits before the sigmoid, fitted on validation (Guo et al. 2017, On Calibration of Modern Neural Networks)."""
    max_length: int = Field(ge=8)
    """Word pieces read; the rest of a text is cut."""
    min_tags: int = Field(0, ge=0)
    """Tags every text gets at least, by score over threshold."""
    max_tags: int = Field(5, ge=1)
    """Tags a text gets at most."""
    cleaning_version: str = CLEANING_VERSION
    """Version of the cleaning its training texts went through."""
    taxonomy: Taxonomy
    """The taxonomy the labels belong to."""
    weights_sha256: str
    """Digest of `model.safetensors`."""

    @property
    def fingerprint(self) -> str:
        """Names the bundle: changes with its weights or anything that decides its tags."""
        return fingerprint(self.model_dump(mode="json"))


def scores(logits: Floats, temperature: float) -> Floats:
    """Calibrated probabilities.

    *Shape:* (texts, labels) to (texts, labels), 0 to 1.
    """
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits / temperature, -60, 60))))


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
    if len(spec.thresholds) != len(spec.labels):
        raise DataError(f"{folder / 'tagger.json'}: {len(spec.labels)} labels but {len(spec.thresholds)} thresholds")
    if stated != spec.fingerprint:
        raise DataError(
            f"{folder / 'tagger.json'}: edited by hand (its fingerprint {stated} should be {spec.fingerprint}); train or export it again"
        )
    weights = folder / "model.safetensors"
    if not weights.exists() or file_digest(weights) != spec.weights_sha256:
        raise DataError(f"{weights}: missing or damaged: its SHA-256 is not the one in tagger.json")
    if spec.cleaning_version != CLEANING_VERSION:
        raise DataError(
            f"{folder}: trained on cleaning version {spec.cleaning_version}, this Penchant cleans by version {CLEANING_VERSION}; train it again"
        )
    return spec
