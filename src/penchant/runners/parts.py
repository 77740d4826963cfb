"""An output in parts: each is committed by a rename, so that a run that was broken off goes on where it was."""

import hashlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penchant.errors import DataError, PenchantError
from penchant.files import fingerprint, read_json, write_json, written_aside

log = logging.getLogger(__name__)
POLL_SECONDS = 0.2
SECONDS_BETWEEN_LINES = 10.0


class Parts:
    """The folder `.NAME.parts` beside an output, shared by all processes of a run.

    `manifest.json` says what decides the tags (bundles, backends, texts to a part); parts of another manifest are thrown
    away. A part carries a digest of the documents it is of, and counts only for exactly these.
    """

    def __init__(self, output: Path, first: bool) -> None:
        """`first`: whether this process is the one that writes the manifest and puts the parts together."""
        self.output, self.folder, self.first = output, output.with_name(f".{output.name}.parts"), first

    def manifest(self) -> Any:
        """What an earlier run, or this one's first process, wrote; None where there is nothing readable."""
        try:
            return read_json(self.folder / "manifest.json")
        except PenchantError:
            return None

    def begin(self, manifest: dict[str, Any]) -> None:
        """Keep the parts of an equal manifest, throw away others; processes but the first wait until that has been done."""
        if not self.first:
            self.wait_until(lambda: self.manifest() == manifest, "the first process to begin")
            return
        if self.manifest() != manifest:
            if self.folder.exists():
                log.info("%s: of another bundle, backend or size of parts: begun anew", self.folder)
                shutil.rmtree(self.folder)
            try:
                self.folder.mkdir(parents=True)
            except OSError as error:
                raise DataError(f"{self.output}: can't be written there: {error.strerror}") from error
            write_json(self.folder / "manifest.json", manifest)

    def path(self, number: int) -> Path:
        """Of a part."""
        return self.folder / f"part-{number:06d}.parquet"

    def has(self, number: int, digest: str) -> bool:
        """Whether a part is there, whole, and of these documents."""
        return self.path(number).exists() and self.read(number, digest) is not None

    def read(self, number: int, digest: str) -> pa.Table | None:
        """A part, or None where it is damaged or of other documents."""
        try:
            table = pq.read_table(self.path(number))
        except (pa.ArrowException, OSError, ValueError) as error:
            log.warning("%s: can't be read, made again: %s", self.path(number), error)
            return None
        return table if (table.schema.metadata or {}).get(b"penchant.documents") == digest.encode() else None

    def write(self, number: int, digest: str, tags: pa.Table) -> None:
        """Commit a part. Raises `DataError` where the disk refuses it; those before it are kept."""
        metadata = (tags.schema.metadata or {}) | {b"penchant.documents": digest.encode()}
        try:
            with written_aside(self.path(number)) as aside:
                pq.write_table(tags.replace_schema_metadata(metadata), aside, compression="zstd")
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{self.path(number)}: can't be written: {error}; make room and run the same command again: the {number} parts before it are kept"
            ) from error

    def all(self, digests: list[str]) -> Iterator[pa.Table]:
        """The tags of all parts in order, waiting for those that other processes still make."""
        for number, digest in enumerate(digests):
            self.wait_until(lambda number=number: self.path(number).exists(), f"part {number} of another process")
            table = self.read(number, digest)
            if table is None:
                self.path(number).unlink(missing_ok=True)
                raise DataError(f"{self.path(number)}: damaged; run the same command again to make it anew")
            yield table.replace_schema_metadata(None)

    def wait_until(self, ready: Any, what: str) -> None:
        """Wait, saying so now and then."""
        last = time.monotonic()
        while not ready():
            time.sleep(POLL_SECONDS)
            if time.monotonic() - last > SECONDS_BETWEEN_LINES:
                log.info("waiting for %s", what)
                last = time.monotonic()

    def remove_if_empty(self) -> None:
        """Leave nothing behind where no part was made."""
        if self.first and not any(self.folder.glob("part-*")):
            self.remove()

    def remove(self) -> None:
        """Throw everything away, once the output stands."""
        shutil.rmtree(self.folder, ignore_errors=True)


def digest_of(documents: pa.RecordBatch) -> str:
    """Names a batch of documents: equal keys and texts in equal order, equal digest."""
    found = hashlib.sha256()
    for column in documents.columns:
        found.update(fingerprint(column.to_pylist()).encode())
    return found.hexdigest()
