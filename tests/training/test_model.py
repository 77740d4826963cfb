"""The head's start, the loss and the optimiser's groups."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from penchant.tagging.encoder import load_model
from penchant.tagging.spans import Span
from penchant.training.batches import IGNORED
from penchant.training.data import Corpus, Labelled
from penchant.training.model import build_model, has_known_head, head_logits, interest_loss, loss_of, optimiser, probe
from penchant.training.settings import TrainSettings

SHAPE = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}


def settings(**more: object) -> TrainSettings:
    """Of a run that is never started."""
    return TrainSettings.model_validate({"train": "train.jsonl", "output": "run", **more})


def corpus(targets: list[list[int]], texts: list[str] | None = None, spans: list[tuple[Span, ...]] | None = None) -> Corpus:
    """Training rows with these targets for labels a, b, c, and with spans of brands and places; nothing to measure on."""
    count = len(targets)
    train = Labelled(texts or ["x"] * count, np.array(targets, np.float32), spans or [()] * count, ["here"] * count, {})
    return Corpus(None, tuple("abc"[: len(targets[0])]), ("brand", "place"), train, train.take([]), train.take([]))


@pytest.mark.parametrize(
    ("architecture", "known"), [("bert", True), ("roberta", True), ("electra", True), ("albert", False), ("distilbert", False)]
)
def test_the_head_alone_gives_the_model_s_logits_where_it_is_known(architecture: str, known: bool) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(architecture, **SHAPE)).eval()
    assert has_known_head(model) is known
    if known:
        tokens = torch.randint(5, 50, (4, 7))
        with torch.inference_mode():
            first = model.base_model(tokens, torch.ones_like(tokens))[0][:, 0]
            torch.testing.assert_close(head_logits(model, first), model(tokens, torch.ones_like(tokens)).logits)


@pytest.mark.parametrize(("task", "bf16"), [("interests", False), ("both", False), ("interests", True)])
def test_the_probe_fits_the_head_of_interests_and_leaves_the_rest(task: str, bf16: bool, tiny_bundle: Path) -> None:
    targets = np.eye(3, dtype=int)[[0, 1, 2, 0] * 8]
    model = build_model(settings(model=str(tiny_bundle), task=task), corpus(targets.tolist()))
    batch = {
        "input_ids": torch.tensor([[2, 5 + 4 * int(row.argmax()), 3] for row in targets]),
        "attention_mask": torch.ones(len(targets), 3, dtype=torch.long),
        "labels": torch.tensor(targets, dtype=torch.float32),
    }
    torch.nn.init.normal_(model.stock.classifier.weight, std=0.02)
    before = {name: each.clone() for name, each in model.named_parameters()}

    def loss() -> float:
        model.eval()
        with torch.inference_mode():
            found, _ = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            return float(interest_loss(found, batch["labels"], torch.ones(len(targets)), settings()))

    at_first = loss()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    probe(model, [batch, batch], settings(probe_epochs=30, batch_size=8, head_learning_rate=0.01), autocast)
    assert loss() < 0.5 * at_first
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert moved == {
        f"stock.{each}" for each in ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    }


def test_first_predictions_are_the_base_rates_of_the_interests(tiny_model: Path) -> None:
    model = build_model(settings(model=str(tiny_model)), corpus([[1, 0], [1, 0], [1, 1], [0, 0]]))
    torch.testing.assert_close(model.stock.classifier.bias.detach(), torch.tensor([math.log(3), -math.log(3)]))
    assert model.stock.config.problem_type == "multi_label_classification"
    assert model.stock.config.id2label == {0: "a", 1: "b"}
    assert model.span_head is None


SPANNED = corpus([[0, 0], [0, 1]], ["aaaa bb", "ccc"], [(Span(0, 4, "brand"),), (Span(2, 3, "place"),)])


@pytest.mark.parametrize("task", ["spans", "both"])
def test_a_head_of_spans_begins_as_stock_ones_do(task: str, tiny_model: Path) -> None:
    torch.manual_seed(0)
    model = build_model(settings(model=str(tiny_model), task=task), SPANNED)
    head = model.stock.classifier if task == "spans" else model.span_head
    assert head.weight.shape == (5, 16)  # O, then two classes of each dimension
    assert not head.bias.any()
    assert 0.015 < head.weight.std() < 0.025  # the checkpoint's initializer_range is 0.02
    model.eval()
    with torch.inference_mode():
        interests, pieces = model(input_ids=torch.tensor([[2, 5, 6, 3]]))
    assert pieces.shape == (1, 4, 5)
    if task == "both":
        assert interests.shape == (1, 2)
    else:
        assert interests is None
        assert model.stock.config.id2label == dict(enumerate(["O", "B-brand", "I-brand", "B-place", "I-place"]))


@pytest.mark.parametrize(("given", "expected"), [(None, 0.1), (0.0, 0.0), (0.35, 0.35)])
@pytest.mark.parametrize("task", ["interests", "spans", "both"])
def test_dropout_is_that_of_the_settings_or_the_checkpoint(task: str, given: float | None, expected: float, tiny_model: Path) -> None:
    model = build_model(settings(model=str(tiny_model), task=task, dropout=given), SPANNED)
    assert model.stock.config.hidden_dropout_prob == expected
    found = {name: each.p for name, each in model.named_modules() if isinstance(each, torch.nn.Dropout) and "attention.self" not in name}
    assert set(found.values()) == {expected}
    assert {"stock.dropout", "stock.bert.embeddings.dropout"} <= set(found)
    assert model.stock.config.attention_probs_dropout_prob == 0.1


@pytest.mark.parametrize(("given", "expected"), [(None, 0.1), (0.35, 0.35)])
def test_dropout_is_set_in_a_trained_bundle_too(given: float | None, expected: float, tiny_bundle: Path) -> None:
    model = build_model(settings(model=str(tiny_bundle), dropout=given), corpus([[1, 0, 0], [0, 1, 1]]))
    assert model.dropout.p == model.stock.dropout.p == model.stock.bert.embeddings.dropout.p == expected
    assert torch.equal(model.stock.classifier.weight, load_model(tiny_bundle, "interests").stock.classifier.weight)


def test_losses_of_interests_by_hand() -> None:
    logits, targets = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    both = torch.ones(2)
    # −ln ½ − ln ¾, and −2 ln ½; the mean over two texts
    first, second = math.log(2) - math.log(0.75), 2 * math.log(2)
    assert interest_loss(logits, targets, both, settings()).item() == pytest.approx((first + second) / 2)
    # the second text has no label and is left out; softmax of (0, ln 3) is (¼, ¾)
    assert interest_loss(logits, targets, both, settings(loss="softmax")).item() == pytest.approx(-math.log(0.75))
    # targets of 0.1 and 0.9: −ln ½ − 0.9 ln ¾ − 0.1 ln ¼, and again −2 ln ½
    smoothed = math.log(2) - 0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    found = interest_loss(logits, targets, both, settings(label_smoothing=0.1)).item()
    assert found == pytest.approx((smoothed + second) / 2)


@pytest.mark.parametrize("loss", ["bce", "softmax"])
def test_a_window_that_does_not_count_has_no_say(loss: str) -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [50.0, -50.0]])
    targets = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    chosen = settings(loss=loss)
    alone = interest_loss(logits[:1], targets[:1], torch.ones(1), chosen).item()
    assert alone == pytest.approx({"bce": math.log(2) - math.log(0.75), "softmax": -math.log(0.75)}[loss])
    assert interest_loss(logits, targets, torch.tensor([1.0, 0.0]), chosen).item() == pytest.approx(alone)
    assert interest_loss(logits, targets, torch.zeros(2), chosen).item() == 0.0


def test_the_loss_of_both_tasks_is_their_sum_by_hand() -> None:
    interests = torch.tensor([[0.0, math.log(3.0)], [50.0, -50.0]])
    pieces = torch.tensor(
        [[[0.0, 0.0, math.log(2.0)], [0.0, 0.0, 0.0], [9.0, 9.0, 0.0]], [[0.0, 0.0, math.log(2.0)], [1.0, 1.0, 1.0], [9.0, 0.0, 9.0]]]
    )
    batch = {
        "input_ids": torch.ones(2, 3),
        "labels": torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
        "counts": torch.tensor([1.0, 0.0]),  # the second window goes on with the text of the first
        "classes": torch.tensor([[2, 1, IGNORED], [0, IGNORED, IGNORED]]),
    }
    of_interests = math.log(2) - math.log(0.75)
    # softmax of (0, 0, ln 2) is (¼, ¼, ½), of three zeros ⅓ each; the sum over pieces that count, by two windows
    of_pieces = (math.log(2) + math.log(3) + math.log(4)) / 2
    assert loss_of((interests, None), batch, settings()).item() == pytest.approx(of_interests)
    assert loss_of((None, pieces), batch, settings(task="spans")).item() == pytest.approx(of_pieces)
    assert loss_of((interests, pieces), batch, settings(task="both")).item() == pytest.approx(of_interests + of_pieces)


def test_a_batch_without_a_piece_that_counts_has_no_loss() -> None:
    batch = {"input_ids": torch.ones(1, 2), "classes": torch.tensor([[IGNORED, IGNORED]])}
    assert loss_of((None, torch.zeros(1, 2, 3)), batch, settings(task="spans")).item() == 0.0


@pytest.mark.parametrize("task", ["interests", "spans", "both"])
def test_heads_and_encoder_learn_at_their_own_rates_and_biases_do_not_decay(task: str, tiny_model: Path) -> None:
    model = build_model(settings(model=str(tiny_model), task=task), SPANNED)
    chosen = optimiser(model, settings(learning_rate=1e-5, head_learning_rate=1e-2, weight_decay=0.1))
    group_of = {id(parameter): group for group in chosen.param_groups for parameter in group["params"]}
    rates = {name: (group_of[id(each)]["lr"], group_of[id(each)]["weight_decay"]) for name, each in model.named_parameters()}
    assert rates["stock.classifier.weight"] == (1e-2, 0.1)
    assert rates["stock.classifier.bias"] == (1e-2, 0.0)
    assert rates["stock.bert.embeddings.word_embeddings.weight"] == (1e-5, 0.1)
    assert rates["stock.bert.embeddings.LayerNorm.weight"] == (1e-5, 0.0)
    assert rates.get("stock.bert.pooler.dense.weight") == ((1e-2, 0.1) if task != "spans" else None)
    assert rates.get("span_head.weight") == ((1e-2, 0.1) if task == "both" else None)
    assert rates.get("span_head.bias") == ((1e-2, 0.0) if task == "both" else None)
    assert len(rates) == len(group_of)
