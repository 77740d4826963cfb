"""A small labelled corpus and settings for the tiny model."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import WORDS

TOPICS = {"sports.running": WORDS[:4], "pets.cats": WORDS[4:8], "food.baking": WORDS[8:12]}
NAMED = {"shoe": "product", "litter": "product", "oven": "product", "trail": "place"}
"""Words that are spans."""


def labelled(count: int, seed: int) -> list[dict[str, Any]]:
    """Texts of one, two or no topics."""
    draw = random.Random(seed)
    found = []
    for n in range(count):
        interests = sorted(draw.sample(sorted(TOPICS), draw.choice([0, 1, 1, 2])))
        words = [draw.choice(TOPICS[each]) for each in interests for _ in range(2)] + draw.choices(WORDS[12:], k=draw.randint(2, 9))
        draw.shuffle(words)
        text = " ".join(words)
        spans = [
            {"start": each.start(), "end": each.end(), "dimension": NAMED[each[0]], "text": each[0]}
            for each in re.finditer(r"\w+", text)
            if each[0] in NAMED
        ]
        found.append({"text": text, "interests": interests, "kind": ("title", "post")[n % 2], "spans": spans})
    return found


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def settings_file(tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path) -> Callable[..., Path]:
    """Writes a complete settings file for the tiny model; keyword arguments override it."""
    for n, (name, count) in enumerate({"train": 96, "validation": 40, "test": 40}.items()):
        write_rows(tmp_path / f"{name}.jsonl", labelled(count, n))

    def write(name: str = "run", **overrides: Any) -> Path:
        values = {
            "model": str(tiny_model),
            **{split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation", "test")},
            "taxonomy": str(tiny_taxonomy),
            "labels": list(TOPICS),
            "output": str(tmp_path / name),
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 0.01,
            "head_learning_rate": 0.05,
            "max_length": 32,
            "mixed_precision": "no",
            "stride": 8,
            "leaks": "allow",  # few words make few texts
            "baselines": [],
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values | overrides), encoding="utf-8")
        return path

    return write
