"""Checkpoints: everything a killed run needs to go on as if nothing had happened, written aside and renamed."""

import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from penchant.errors import DataError
from penchant.files import file_digest, read_json, sync, write_json

log = logging.getLogger(__name__)
KEPT = 2


def save(accelerator: Accelerator, folder: Path, progress: dict[str, Any]) -> None:
    """Save weights, optimiser, schedule, random states and `progress` (with its `step`) as `folder/step-N`; keep the last two.

    All processes call it. The folder gets its name only when it is whole.
    """
    target = folder / f"step-{progress['step']:08d}"
    aside = folder / f".{target.name}"
    if accelerator.is_main_process:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(aside))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        digests = {str(file.relative_to(aside)): file_digest(file) for file in sorted(aside.rglob("*")) if file.is_file()}
        write_json(aside / "progress.json", progress | {"sha256": digests})
        sync(aside)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def finish(folder: Path, run: str) -> None:
    """Note that the run of these checkpoints came to its end, so that another may take their place."""
    write_json(folder / "finished.json", {"run": run})


def superseded(folder: Path, run: str) -> bool:
    """Whether the checkpoints are of another run that came to its end: nothing is lost by starting over."""
    return (folder / "finished.json").exists() and read_json(folder / "finished.json")["run"] != run


def latest(folder: Path, run: str) -> Path | None:
    """The newest whole checkpoint of this very run, or None. A damaged one is passed over with a warning.

    Raises `DataError` when the checkpoints are of an unfinished run with other settings or other data.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            progress = read_json(path / "progress.json")
        except DataError as error:
            log.warning("%s; trying the checkpoint before", error)
            continue
        if progress["run"] != run:
            raise DataError(
                f"{path}: a checkpoint of an unfinished run with other settings or other data; give --restart to start over, or another 'output'"
            )
        damaged = [name for name, digest in progress["sha256"].items() if not (path / name).exists() or file_digest(path / name) != digest]
        if not damaged:
            return path
        log.warning("%s: damaged (%s), trying the one before", path, ", ".join(damaged))
    return None


def load(accelerator: Accelerator, path: Path) -> dict[str, Any]:
    """Restore what `save` saved and return its `progress`."""
    accelerator.load_state(str(path))
    progress: dict[str, Any] = read_json(path / "progress.json")
    return progress
