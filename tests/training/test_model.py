"""The head's start, the loss and the optimiser's groups."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from penchant.training.model import build_model, has_known_head, head_logits, loss_of, optimiser, probe
from penchant.training.settings import TrainSettings

SHAPE = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}


def settings(**more: object) -> TrainSettings:
    """Of a run that is never started."""
    return TrainSettings.model_validate({"train": "train.jsonl", "output": "run", **more})


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


def test_the_probe_fits_the_head_and_leaves_the_encoder(tiny_bundle: Path) -> None:
    targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 0] * 8]
    model = build_model(settings(model=str(tiny_bundle)), ["a", "b", "c"], targets)
    batch = {
        "input_ids": torch.tensor([[2, 5 + 4 * int(row.argmax()), 3] for row in targets]),
        "attention_mask": torch.ones(len(targets), 3, dtype=torch.long),
        "labels": torch.tensor(targets),
    }
    torch.nn.init.normal_(model.classifier.weight, std=0.02)
    before = {name: each.clone() for name, each in model.named_parameters()}

    def loss() -> float:
        model.eval()
        with torch.inference_mode():
            return float(loss_of(model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"], settings()))

    at_first = loss()
    probe(model, [batch, batch], settings(probe_epochs=30, batch_size=8, head_learning_rate=0.01))
    assert loss() < 0.5 * at_first
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert moved == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}


def test_first_predictions_are_the_base_rates(tiny_model: Path) -> None:
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)
    model = build_model(settings(model=str(tiny_model)), ["a", "b"], targets)
    torch.testing.assert_close(model.classifier.bias.detach(), torch.tensor([math.log(3), -math.log(3)]))
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == {0: "a", 1: "b"}


def test_losses_by_hand() -> None:
    logits, targets = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    # −ln ½ − ln ¾, and −2 ln ½; the mean over two texts
    assert loss_of(logits, targets, settings()).item() == pytest.approx((math.log(2) - math.log(0.75) + 2 * math.log(2)) / 2)
    # the second text has no label and is left out; softmax of (0, ln 3) is (¼, ¾)
    assert loss_of(logits, targets, settings(loss="softmax")).item() == pytest.approx(-math.log(0.75))


def test_head_and_encoder_learn_at_their_own_rates_and_biases_do_not_decay(tiny_model: Path) -> None:
    model = build_model(settings(model=str(tiny_model)), ["a"], np.ones((1, 1), np.float32))
    chosen = optimiser(model, settings(learning_rate=1e-5, head_learning_rate=1e-2, weight_decay=0.1))
    group_of = {id(parameter): group for group in chosen.param_groups for parameter in group["params"]}
    rates = {name: (group_of[id(each)]["lr"], group_of[id(each)]["weight_decay"]) for name, each in model.named_parameters()}
    assert rates["classifier.weight"] == (1e-2, 0.1)
    assert rates["classifier.bias"] == (1e-2, 0.0)
    assert rates["bert.pooler.dense.weight"] == (1e-2, 0.1)
    assert rates["bert.embeddings.word_embeddings.weight"] == (1e-5, 0.1)
    assert rates["bert.embeddings.LayerNorm.weight"] == (1e-5, 0.0)
    assert len(rates) == len(group_of)
