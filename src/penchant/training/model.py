"""The network and what moves its weights."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from penchant.tagging.encoder import load_pretrained
from penchant.training.settings import TrainSettings


def build_model(settings: TrainSettings, labels: Sequence[str], targets: np.ndarray) -> Any:
    """A stock sequence classifier whose first predictions are the labels' base rates.

    A classifier that starts at its base rates spends no steps on learning that most interests are absent (Lin et al.
    2017, Focal Loss, section 3.3).
    """
    model = load_pretrained(
        AutoModelForSequenceClassification,
        settings.model,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: n for n, label in enumerate(labels)},
        problem_type="multi_label_classification",
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    base_rate = np.clip(targets.mean(axis=0), 1e-4, 1 - 1e-4)
    classifier = getattr(model, "classifier", None)
    if isinstance(classifier, nn.Linear):
        with torch.no_grad():
            classifier.bias.copy_(torch.tensor(np.log(base_rate / (1 - base_rate)), dtype=torch.float32))
            classifier.weight.mul_(0.1)
    return model


def in_head(name: str, model: Any) -> bool:
    """Whether a parameter belongs to the head: the pooler and the classifier."""
    return "pooler" in name or not name.startswith(model.base_model_prefix)


def head_logits(model: Any, first: torch.Tensor) -> torch.Tensor:
    """What the head makes of the vectors of first tokens, as the model's own forward pass would.

    *Shape:* first (batch, hidden), result (batch, labels).
    """
    sequence, pooler = first.unsqueeze(1), getattr(model.base_model, "pooler", None)
    if pooler is None:  # RoBERTa's way: the classifier takes the sequence
        return torch.as_tensor(model.classifier(sequence))
    return torch.as_tensor(model.classifier(model.dropout(pooler(sequence))))


def has_known_head(model: Any) -> bool:
    """Whether `head_logits` knows how this architecture gets from the encoder to its logits."""
    pooler = getattr(model.base_model, "pooler", None)
    if pooler is None:
        return not isinstance(getattr(model, "classifier", nn.Linear(1, 1)), nn.Linear)
    return hasattr(model, "classifier") and hasattr(model, "dropout") and not isinstance(pooler, nn.Linear)


def probe(model: Any, batches: Iterable[dict[str, torch.Tensor]], settings: TrainSettings) -> None:
    """Fit the head alone on the frozen encoder's vectors of `batches`, before everything is fine-tuned.

    The encoder then isn't bent to suit a head that knows nothing yet (Kumar et al. 2022, Fine-Tuning can Distort
    Pretrained Features, section 4), and one pass over the texts does what would take epochs.
    """
    model.eval()
    with torch.inference_mode():
        found = [(model.base_model(each["input_ids"], each["attention_mask"])[0][:, 0].float(), each["labels"]) for each in batches]
    vectors, targets = (torch.cat(each).clone() for each in zip(*found, strict=True))
    head = [each for name, each in model.named_parameters() if in_head(name, model)]
    optimizer = torch.optim.AdamW(head, lr=settings.head_learning_rate, weight_decay=settings.weight_decay)
    model.train()
    for _ in range(settings.probe_epochs):
        for chosen in torch.randperm(len(targets), device=targets.device).split(settings.batch_size):
            loss_of(head_logits(model, vectors[chosen]), targets[chosen], settings).backward()
            optimizer.step()
            optimizer.zero_grad()


def optimiser(model: Any, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with a rate of its own for the head (pooler and classifier), and no decay on biases and norms."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = settings.head_learning_rate if in_head(name, model) else settings.learning_rate
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    chosen = [{"params": each, "lr": rate, "weight_decay": decay} for (rate, decay), each in groups.items()]
    return torch.optim.AdamW(chosen, fused=True)


def loss_of(logits: torch.Tensor, targets: torch.Tensor, settings: TrainSettings) -> torch.Tensor:
    """Mean loss of a batch.

    `bce` is summed over labels and averaged over texts, so that its size does not depend on how many labels there are;
    `softmax` is cross-entropy against the labels' equal shares, texts without any left out.
    *Shape:* both (batch, labels); result a scalar.
    """
    logits = logits.float()
    if settings.loss == "softmax":
        count = targets.sum(dim=1, keepdim=True)
        return -(targets / count.clamp(min=1) * logits.log_softmax(dim=1)).sum() / (count > 0).sum().clamp(min=1)
    smoothed = targets * (1 - 2 * settings.label_smoothing) + settings.label_smoothing
    return nn.functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="sum") / len(logits)
