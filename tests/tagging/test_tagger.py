"""The tagger over a bundle whose tags can be told by eye."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

from penchant.records import TAGS
from penchant.tagging.tagger import BATCH_TOKENS, Tagger, length_batches

TEXTS = ["run in the rain", "a cat and bread", "my parcel", "", "😀 \u202eoven", "trail " * 500]
EXPECTED = [{"sports.running"}, {"pets.cats", "food.baking"}, set(), set(), {"food.baking"}, {"sports.running"}]


@pytest.fixture(scope="module")
def tagger(tiny_bundle: Path) -> Tagger:
    """The hand-made bundle in plain fp32."""
    return Tagger(tiny_bundle, "no")


def test_tags_are_those_of_the_words_in_order_of_texts_and_falling_score(tagger: Tagger) -> None:
    tags = tagger.tag([f"k{n}" for n in range(len(TEXTS))], TEXTS)
    assert tags.schema.equals(TAGS)
    for n, expected in enumerate(EXPECTED):
        assert {row["value"] for row in tags.to_pylist() if row["text_key"] == f"k{n}"} == expected
    keys = tags["text_key"].to_pylist()
    assert keys == sorted(keys)
    by_text = [[row["score"] for row in tags.to_pylist() if row["text_key"] == key] for key in dict.fromkeys(keys)]
    assert all(scores == sorted(scores, reverse=True) for scores in by_text)


def test_tags_do_not_depend_on_the_company(tagger: Tagger) -> None:
    alone = np.concatenate([tagger.score([text]) for text in TEXTS])
    order = list(range(len(TEXTS)))
    random.Random(3).shuffle(order)
    together = tagger.score([TEXTS[n] for n in order])
    np.testing.assert_allclose(together, alone[order], rtol=1e-5, atol=1e-6)


def test_no_texts_give_no_tags(tagger: Tagger) -> None:
    assert tagger.tag([], []).num_rows == 0


def test_progress_is_told_of_every_text(tagger: Tagger) -> None:
    seen: list[int] = []
    tagger.score(TEXTS, seen.append)
    assert sum(seen) == len(TEXTS)


@pytest.mark.parametrize("lengths", [[], [5], [BATCH_TOKENS * 2], [3, 900, 17, 64, 64, 1, 2000, 8] * 40])
def test_length_batches_hold_every_text_once_within_the_budget(lengths: list[int]) -> None:
    batches = length_batches(lengths)
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= BATCH_TOKENS


def test_transformers_pipeline_loads_the_bundle_unchanged(tiny_bundle: Path, tagger: Tagger) -> None:
    stock = pipeline("text-classification", model=str(tiny_bundle), top_k=None, device="cpu")
    found = {each["label"]: each["score"] for each in stock("a cat and bread")[0]}
    ours = dict(zip(tagger.spec.labels, tagger.score(["a cat and bread"])[0], strict=True))
    assert found == pytest.approx(ours, abs=1e-5)


def test_precision_measurement_names_a_format_this_machine_can_use(tiny_bundle: Path) -> None:
    measured = Tagger(tiny_bundle)
    assert measured.precision in {"no", "bf16"}
    assert f"{measured.device.type} multiplies" in measured.why
    np.testing.assert_allclose(measured.score(TEXTS), Tagger(tiny_bundle, "no").score(TEXTS), atol=0.05)
    assert torch.is_inference_mode_enabled() is False
