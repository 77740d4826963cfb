"""The sample data keep what data/README.md promises."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penchant import taxonomy as taxonomies
from penchant.ingest.chinese import simplified
from penchant.ingest.events import ingest
from penchant.ingest.mapping import load_mapping


def read_corpus(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows by split."""
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").strip().split("\n")]
        for split in ("train", "validation", "test")
    }


@pytest.fixture(scope="module")
def corpus(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The English one."""
    return read_corpus(root / "data" / "corpus")


@pytest.fixture(scope="module")
def chinese(root: Path) -> dict[str, list[dict[str, Any]]]:
    """The Chinese one."""
    return read_corpus(root / "data" / "corpus-zh")


def test_counts(corpus: dict[str, list[dict[str, Any]]]) -> None:
    rows = [row for split in corpus.values() for row in split]
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) >= 2400
    assert min(kinds[kind] for kind in ("title", "review", "post")) >= 750
    assert sum(len(row["interests"]) > 1 for row in rows) >= len(rows) / 4
    assert sum(not row["interests"] for row in rows) >= len(rows) / 10
    spans = Counter(span["dimension"] for row in rows for span in row["spans"])
    assert sum(bool(row["spans"]) for row in rows) >= 600
    assert min(spans[each] for each in ("brand", "product", "work", "place")) >= 150
    for split, share in (("train", 0.7), ("validation", 0.15), ("test", 0.15)):
        assert len(corpus[split]) / len(rows) == pytest.approx(share, abs=0.01)
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["text"].casefold() for row in rows}) == len(rows)


def test_chinese_counts(chinese: dict[str, list[dict[str, Any]]]) -> None:
    rows = [row for split in chinese.values() for row in split]
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) >= 400
    assert min(kinds[kind] for kind in ("title", "review", "post")) >= 0.28 * len(rows)
    assert len({row["text"] for row in rows} | {row["id"] for row in rows}) == 2 * len(rows)
    assert all(re.search("[\u4e00-\u9fff]", row["text"]) for row in rows)
    assert sum(simplified(row["text"]) != row["text"] for row in rows) >= len(rows) / 12  # in traditional characters
    assert sum(bool(row["spans"]) for row in rows) >= 0.4 * len(rows)


@pytest.mark.parametrize("language", ["corpus", "chinese"])
def test_labels_and_spans_are_sound(language: str, request: pytest.FixtureRequest, root: Path) -> None:
    leaves = set(taxonomies.load(root / "data" / "taxonomy.yaml").leaves)
    for rows in request.getfixturevalue(language).values():
        assert {label for row in rows for label in row["interests"]} == leaves
        for row in rows:
            assert set(row) <= {"id", "kind", "text", "interests", "spans", "rating"}
            assert ("rating" in row) == (row["kind"] == "review")
            end = 0
            for span in row["spans"]:
                assert end <= span["start"] < span["end"] <= len(row["text"]), row["id"]
                surface = row["text"][span["start"] : span["end"]]
                assert surface == surface.strip()
                end = span["end"]


def test_events_are_drawn_anew_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(root / "data" / "make_events.py"), "-o", str(tmp_path)], check=True, capture_output=True)
    for file in ("shop.csv", "reviews.jsonl", "truth.jsonl"):
        assert (tmp_path / file).read_bytes() == (root / "data" / "events" / file).read_bytes()
    assert pq.read_table(tmp_path / "social.parquet").equals(pq.read_table(root / "data" / "events" / "social.parquet"))


def test_people_are_drawn_anew_to_the_same_bytes_and_are_nobody(root: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(root / "data" / "make_people.py"), "-o", str(tmp_path)], check=True, capture_output=True)
    for file in ("identities.csv", "choices.csv"):
        assert (tmp_path / file).read_bytes() == (root / "data" / file).read_bytes()
    text = (root / "data" / "identities.csv").read_text(encoding="utf-8").lower()
    assert set(re.findall(r"@([a-z.]+)", text)) == {"example.com", "example.net", "example.org"}  # RFC 2606
    assert set(re.findall(r"555-(\d\d)\d\d\b", text)) == {"01"}  # 555-0100 to 555-0199: kept free for fiction


def test_events_are_as_promised(root: Path, tmp_path: Path) -> None:
    summary = ingest(load_mapping(root / "data" / "events.yaml"), root / "data", tmp_path / "events")
    table = pq.read_table(tmp_path / "events" / "events.parquet")
    assert table.num_rows >= 40_000
    assert len(table["user_id"].unique()) >= 500
    moments = table["occurred_at"].to_pylist()
    assert 175 <= (max(moments) - min(moments)).days <= 180
    for source in ("shop", "reviews", "social"):
        reasons = {reason for reason in summary[source] if reason.startswith("rejected")}
        assert "rejected: duplicate event" in reasons
        assert len(reasons) >= 4
        assert summary[source]["events"] > 0.98 * summary[source]["rows"]
    views = Counter(key for key, source in zip(table["text_key"].to_pylist(), table["source"].to_pylist(), strict=True) if source == "shop")
    popular = [count for _, count in views.most_common()]
    # Zipf: the first tenth of the titles draws far more than a tenth of the events, and falls steeply
    assert sum(popular[: len(popular) // 10]) > 0.25 * sum(popular)
    assert popular[0] > 5 * popular[len(popular) // 2]
    text = "\n".join(filter(None, table["body"].to_pylist()))
    assert "[email]" in text
    assert "example.org" not in text
    assert "[card]" in text
    assert "4111" not in text
    assert "[phone]" in text
