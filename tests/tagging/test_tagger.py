"""The tagger over a bundle whose tags can be told by eye."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertForTokenClassification, pipeline

from penchant import taxonomy as taxonomies
from penchant.errors import DataError
from penchant.files import file_digest
from penchant.records import TAGS
from penchant.tagging.backends import TorchBackend
from penchant.tagging.bundle import SPAN_HEAD, SpanSpec, TaggerSpec, load_spec, save_spec, softmax
from penchant.tagging.encoder import TaggerModel
from penchant.tagging.spans import Span, bio
from penchant.tagging.tagger import Tagger, length_batches
from tests.conftest import WORDS, write_model

TEXTS = ["run in the rain", "a cat and bread", "my parcel", "", "😀 \u202eoven", "trail " * 500]
EXPECTED = [{"sports.running"}, {"pets.cats", "food.baking"}, set(), set(), {"food.baking"}, {"sports.running"}]


BATCH_TOKENS = 512
DIMENSIONS = ("brand", "product", "place")
CLASSES = bio(DIMENSIONS)
BY_CLASS = {
    "B-brand": "nike 耐",
    "I-brand": "克",
    "B-product": "air shoe oven",
    "I-product": "max",
    "B-place": "paris 北",
    "I-place": "京",
}
NAMES = {piece: kind for kind, pieces in BY_CLASS.items() for piece in pieces.split()}
"""The class of each word piece that is in a name; every other one is `O`."""
PIECES = list(dict.fromkeys([*NAMES, *WORDS, "##s", "在", "跑"]))


def write_span_bundle(folder: Path, task: str = "spans", taxonomy: Path | None = None) -> Path:
    """A bundle that reads spans off the word pieces themselves: each has the class of `NAMES`.

    A piece's embedding points along the axis of its class, where the head finds it again. The attention adds, on axes of
    their own, the average over the window of the classes but `O`; there a bundle for both tasks sees whether any piece
    begins a brand (tagged as running) or a product (as baking).
    """
    model_folder = write_model(folder.with_name(f"{folder.name} encoder"), PIECES)
    count = len(CLASSES) if task == "spans" else 2
    config = BertConfig.from_pretrained(
        model_folder, num_labels=count, problem_type="multi_label_classification" if task == "both" else None
    )
    model = (BertForTokenClassification if task == "spans" else BertForSequenceClassification)(config)
    if task == "spans":
        config.id2label, config.label2id = dict(enumerate(CLASSES)), {name: n for n, name in enumerate(CLASSES)}
    reading = torch.zeros(len(CLASSES), 16)
    reading[:, : len(CLASSES)] = 2 * torch.eye(len(CLASSES))
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "LayerNorm" not in name:
                each.zero_()
        for n in range(config.vocab_size):
            kind = NAMES.get(PIECES[n - 5], "O") if n >= 5 else "O"
            model.bert.embeddings.word_embeddings.weight[n, CLASSES.index(kind)] = 20.0
        attention = model.bert.encoder.layer[0].attention
        for n in range(1, len(CLASSES)):
            attention.self.value.weight[8 + n, n] = 1.0
        attention.output.dense.weight.copy_(torch.eye(16))
        if task == "both":
            for n, kind in enumerate(("B-brand", "B-product")):
                model.bert.pooler.dense.weight[n, 8 + CLASSES.index(kind)] = 1.0
                model.bert.pooler.dense.weight[n, 15] = -1.0  # what such an axis is where there is none
                model.classifier.weight[n, n] = 200.0
            model.classifier.bias.fill_(-6.0)
        else:
            model.classifier.weight.copy_(reading)
    head = torch.nn.Linear(16, len(CLASSES))
    head.load_state_dict({"weight": reading, "bias": torch.zeros(len(CLASSES))})
    TaggerModel(model, task, head if task == "both" else None).save(folder)
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(folder)
    digest = file_digest(folder / SPAN_HEAD) if task == "both" else None
    spec = TaggerSpec(
        labels=("sports.running", "food.baking") if task == "both" else (),
        thresholds=(0.5, 0.5) if task == "both" else (),
        max_length=16,
        taxonomy=taxonomies.load(taxonomy) if taxonomy is not None else None,
        spans=SpanSpec(dimensions=DIMENSIONS, thresholds=(0.5, 0.5, 0.5), temperature=1.0, stride=4, head_sha256=digest),
        weights_sha256=file_digest(folder / "model.safetensors"),
    )
    save_spec(folder, spec)
    return folder


@pytest.fixture(scope="module")
def span_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-made bundle of spans."""
    return write_span_bundle(tmp_path_factory.mktemp("spans") / "bundle")


@pytest.fixture(scope="module")
def span_tagger(span_bundle: Path) -> Tagger:
    """In plain fp32."""
    return Tagger(span_bundle, "no")


@pytest.fixture(scope="module")
def both_tagger(tmp_path_factory: pytest.TempPathFactory, tiny_taxonomy: Path) -> Tagger:
    """The same with two heads."""
    return Tagger(write_span_bundle(tmp_path_factory.mktemp("both") / "bundle", "both", tiny_taxonomy), "no")


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
    alone = np.concatenate([tagger.score([text])[0] for text in TEXTS])
    order = list(range(len(TEXTS)))
    random.Random(3).shuffle(order)
    together, _ = tagger.score([TEXTS[n] for n in order])
    np.testing.assert_allclose(together, alone[order], rtol=1e-5, atol=1e-6)


def test_no_texts_give_no_tags(tagger: Tagger) -> None:
    assert tagger.tag([], []).num_rows == 0


def test_progress_is_told_of_every_text(tagger: Tagger) -> None:
    seen: list[int] = []
    tagger.score(TEXTS, seen.append)
    assert sum(seen) == len(TEXTS)


@pytest.mark.parametrize("lengths", [[], [5], [BATCH_TOKENS * 2], [3, 900, 17, 64, 64, 1, 2000, 8] * 40])
def test_length_batches_hold_every_text_once_within_the_budget(lengths: list[int]) -> None:
    batches = length_batches(lengths, BATCH_TOKENS)
    assert sorted(n for batch in batches for n in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[n] for n in batch) <= BATCH_TOKENS


def test_transformers_pipeline_loads_the_bundle_unchanged(tiny_bundle: Path, tagger: Tagger) -> None:
    stock = pipeline("text-classification", model=str(tiny_bundle), top_k=None, device="cpu")
    found = {each["label"]: each["score"] for each in stock("a cat and bread")[0]}
    ours = dict(zip(tagger.spec.labels, tagger.score(["a cat and bread"])[0][0], strict=True))
    assert found == pytest.approx(ours, abs=1e-5)


def test_precision_is_measured_once_and_is_a_format_this_machine_can_use(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENCHANT_CACHE", str(tmp_path))
    measured = Tagger(tiny_bundle)
    assert isinstance(measured.backend, TorchBackend)
    assert measured.backend.precision in {"no", "bf16"}
    assert f"{measured.backend.device.type} multiplies" in measured.backend.why
    again = Tagger(tiny_bundle).backend
    assert isinstance(again, TorchBackend)
    assert (again.precision, again.why) == (measured.backend.precision, f"{again.precision}, as measured on this machine before")
    np.testing.assert_allclose(measured.score(TEXTS)[0], Tagger(tiny_bundle, "no").score(TEXTS)[0], atol=0.05)
    assert torch.is_inference_mode_enabled() is False


NAMED = {
    "my Nike Air Max in Paris": [("brand", "Nike"), ("product", "Air Max"), ("place", "Paris")],
    "Nike": [("brand", "Nike")],
    "😀😀 跑 Nike": [("brand", "Nike")],
    "👨‍👩‍👧 é ne\u0301e İ ﬁ Paris": [("place", "Paris")],  # characters that lower case or taking accents off makes longer or shorter
    "在北京跑 my 耐克": [("place", "北京"), ("brand", "耐克")],
    "air nike max": [("product", "air"), ("brand", "nike")],  # an I- that goes on with nothing is no name
    "air\nmax": [("product", "air")],  # nor does a name run over a line
    "SHOES, oven; the rain": [("product", "SHOES"), ("product", "oven")],
    "Nike's in Paris.": [("brand", "Nike"), ("place", "Paris")],
    "the rain": [],
    "": [],
    "😀": [],
}


def surfaces(text: str, spans: list[Span]) -> list[tuple[str, str]]:
    """What spans say of their text."""
    return [(each.dimension, text[each.start : each.end]) for each in spans]


def test_spans_have_the_exact_characters_whatever_stands_before_them(span_tagger: Tagger) -> None:
    score, found = span_tagger.score(list(NAMED))
    assert score.shape == (len(NAMED), 0)
    for (text, expected), spans in zip(NAMED.items(), found, strict=True):
        assert surfaces(text, spans) == expected
        assert all(each.score > 0.99 for each in spans)


def test_a_span_s_tag_has_its_place_and_the_value_of_all_ways_to_write_it(span_tagger: Tagger) -> None:
    tags = span_tagger.tag(["a", "b"], ["😀 NIKE Air  Max", "the SHOES"])
    assert tags.schema.equals(TAGS)
    assert [tuple(row.values())[:3] + tuple(row.values())[4:] for row in tags.to_pylist()] == [
        ("a", "brand", "nike", 2, 6),
        ("a", "product", "air max", 7, 15),
        ("b", "product", "shoes", 4, 9),
    ]


def test_spans_of_long_texts_are_found_once_wherever_the_windows_end(span_tagger: Tagger) -> None:
    # a window holds 14 pieces of the text, four of them shared with the next
    texts = [f"{'rain ' * before}Air Max{' rain' * after}" for before in range(40) for after in (0, 3, 30)]
    _, found = span_tagger.score(texts)
    assert [[each[:3] for each in spans] for spans in found] == [[(text.index("Air"), text.index("Max") + 3, "product")] for text in texts]
    chinese = "跑" * 25 + "耐克" + "在" * 25 + "北京"
    _, (spans,) = span_tagger.score([chinese])
    assert [each[:3] for each in spans] == [(25, 27, "brand"), (52, 54, "place")]


def test_spans_do_not_depend_on_the_company(span_tagger: Tagger) -> None:
    texts = [*NAMED, "rain " * 100 + "Nike", "在" * 50 + "北京"]
    alone = [span_tagger.score([text])[1][0] for text in texts]
    order = list(range(len(texts)))
    random.Random(3).shuffle(order)
    _, together = span_tagger.score([texts[n] for n in order])
    for n, spans in zip(order, together, strict=True):
        assert [each[:3] for each in spans] == [each[:3] for each in alone[n]]
        assert [each.score for each in spans] == pytest.approx([each.score for each in alone[n]], rel=1e-5)


def test_thresholds_and_temperature_decide_which_spans_are_found(span_bundle: Path, span_tagger: Tagger) -> None:
    text = "Nike in Paris"
    spans = load_spec(span_bundle).spans
    assert spans is not None
    kept = span_tagger.spec
    try:
        span_tagger.spec = kept.model_copy(update={"spans": spans.model_copy(update={"thresholds": (1.0, 0.5, 0.5)})})
        assert surfaces(text, span_tagger.score([text])[1][0]) == [("place", "Paris")]
        span_tagger.spec = kept.model_copy(update={"spans": spans.model_copy(update={"temperature": 1000.0})})  # two sevenths for all
        assert span_tagger.score([text])[1][0] == []
    finally:
        span_tagger.spec = kept


def test_progress_of_long_texts_counts_each_once(span_tagger: Tagger) -> None:
    seen: list[int] = []
    span_tagger.score(["rain " * 100, "Nike", "", "rain " * 2000], seen.append)
    assert sum(seen) == 4


def test_transformers_pipeline_reads_the_spans_of_the_bundle_as_we_do(span_bundle: Path, span_tagger: Tagger) -> None:
    text = "my Nike Air Max 在 北京, SHOES"
    stock = pipeline("token-classification", model=str(span_bundle), ignore_labels=[], device="cpu")(text)
    prepared = span_tagger.prepare([text])
    windows, (offsets,) = prepared.windows, prepared.offsets
    [(interests, pieces)] = span_tagger.run(prepared)
    assert interests is None
    assert pieces is not None
    ours = softmax(pieces[0][1:-1], 1.0)
    assert [(each["start"], each["end"]) for each in stock] == offsets
    assert [each["entity"] for each in stock] == [CLASSES[n] for n in ours.argmax(axis=1)]
    assert [each["score"] for each in stock] == pytest.approx(ours.max(axis=1).tolist(), abs=1e-5)
    with torch.inference_mode():
        logits = BertForTokenClassification.from_pretrained(span_bundle)(torch.tensor([windows[0].input_ids])).logits
    np.testing.assert_allclose(pieces[0], logits[0].numpy(), atol=1e-4)


def test_one_bundle_for_both_tasks_gives_the_tags_of_each(both_tagger: Tagger, span_tagger: Tagger) -> None:
    texts = ["my Nike in Paris", "the oven", "rain", "nike shoe", "", "rain " * 20 + "nike oven"]
    score, spans = both_tagger.score(texts)
    assert (score > 0.5).tolist() == [[True, False], [False, True], [False, False], [True, True], [False, False], [False, False]]
    for found, expected in zip(spans, span_tagger.score(texts)[1], strict=True):  # also beyond the window that interests are read off
        assert [each[:3] for each in found] == [each[:3] for each in expected]
    tags = both_tagger.tag(["a", "b"], [texts[0], texts[1]]).to_pylist()
    assert [(row["text_key"], row["dimension"], row["value"], row["start"], row["end"]) for row in tags] == [
        ("a", "interest", "sports.running", None, None),
        ("a", "brand", "nike", 3, 7),
        ("a", "place", "paris", 11, 16),
        ("b", "interest", "food.baking", None, None),
        ("b", "product", "oven", 4, 8),
    ]


def test_a_checkpoint_with_other_outputs_than_its_classes_is_refused(span_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(span_bundle, tmp_path / "bundle")
    spans = SpanSpec(dimensions=("brand", "place"), thresholds=(0.5, 0.5), temperature=1.0, stride=4)
    save_spec(tmp_path / "bundle", load_spec(span_bundle).model_copy(update={"spans": spans}))
    with pytest.raises(DataError, match="the checkpoint has 7 outputs, tagger.json 5 labels"):
        Tagger(tmp_path / "bundle", "no")
