"""Graphs that `penchant export` put beside a bundle's checkpoint, and what they were found to lose."""

from pathlib import Path

from pydantic import Field

from penchant.config import Settings, parse
from penchant.errors import DataError
from penchant.files import file_digest, read_json, write_json
from penchant.tagging.bundle import TaggerSpec

FOLDER = "onnx"
ONNX_FILES = {"onnx": "model.onnx", "onnx-int8": "model-int8.onnx"}
"""The file of each backend, in `FOLDER`."""


class Gate(Settings):
    """What an export was held against the checkpoint for, on labelled texts."""

    texts: int
    """Texts they were compared on."""
    agreement: float = Field(ge=0, le=1)
    """Tags that both give, of those that either gives."""
    largest_difference: float = Field(ge=0, le=1)
    """Of any score of an interest, or of any class of a word."""
    mean_difference: float = Field(ge=0, le=1)
    """Likewise, on average."""
    f1_before: float = Field(ge=0, le=1)
    """Of the checkpoint: macro F1 of the interests, or F1 of the spans (for both tasks: their mean); thresholds fitted on other folds."""
    f1_after: float = Field(ge=0, le=1)
    """Of the export, at the same thresholds."""
    refused: str | None = None
    """Why it didn't pass, if it didn't."""

    @property
    def points_lost(self) -> float:
        """F1 lost, in points."""
        return 100 * (self.f1_before - self.f1_after)


class Export(Settings):
    """One graph."""

    name: str
    """The backend that runs it."""
    file: str
    sha256: str
    """Of the file."""
    gate: Gate | None
    """Absent: not compared yet."""

    def path(self, bundle: Path) -> Path:
        """Where it is."""
        return bundle / FOLDER / self.file

    def verified(self, bundle: Path) -> Path:
        """Its path. Raises `DataError` where the file isn't the one the gate was passed by."""
        path = self.path(bundle)
        if not path.exists() or file_digest(path) != self.sha256:
            raise DataError(f"{path}: missing or damaged; write it again with: penchant export {bundle}")
        return path


class Exports(Settings):
    """The contents of `onnx/exports.json`."""

    bundle: str
    """Fingerprint of the bundle they were made from."""
    exports: tuple[Export, ...]

    @property
    def accepted(self) -> dict[str, Export]:
        """Those that passed the gate, by backend."""
        return {each.name: each for each in self.exports if each.gate is not None and each.gate.refused is None}


def save_exports(folder: Path, exports: Exports) -> None:
    """Write `exports.json`."""
    write_json(folder / "exports.json", exports.model_dump(mode="json"))


def load_exports(bundle: Path, spec: TaggerSpec) -> Exports:
    """What `penchant export` wrote; empty where it never ran. Raises `DataError` where the bundle has changed since."""
    path = bundle / FOLDER / "exports.json"
    if not path.exists():
        return Exports(bundle=spec.fingerprint, exports=())
    found = parse(Exports, read_json(path), str(path))
    if found.bundle != spec.fingerprint:
        raise DataError(f"{path}: made from another bundle ({found.bundle}, this is {spec.fingerprint}); run: penchant export {bundle}")
    return found
