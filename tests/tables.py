"""Rows written as each of the file formats we read, with the standard library where there is one."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> Path:
    """Write `rows` in the format that the name of `path` says; times as ISO 8601 in text formats."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes: what must not change when a command refuses."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"folder" for path in folder.rglob("*")}
