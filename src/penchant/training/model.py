"""The network and what moves its weights."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

from penchant.errors import ConfigError
from penchant.tagging.bundle import SPAN_HEAD
from penchant.tagging.encoder import TaggerModel, load_model, load_pretrained, resolve
from penchant.tagging.spans import bio
from penchant.training.batches import IGNORED, Prepared, inputs
from penchant.training.data import Corpus
from penchant.training.settings import TrainSettings


def build_model(settings: TrainSettings, corpus: Corpus) -> TaggerModel:
    """The network of `whole_model` with the encoder layers that the settings keep."""
    model = whole_model(settings, corpus)
    if settings.layers is not None:
        keep_layers(model.stock, settings.layers)
    return model


def keep_layers(stock: Any, count: int) -> None:
    """Leave the encoder `count` of its layers, evenly spaced; all else stays. Raises `ConfigError` where it hasn't so many.

    A student that begins with layers of its teacher learns faster than one that begins anew (Sanh et al. 2019,
    DistilBERT, section 3).
    """
    encoder = layered(stock)
    if count > len(encoder.layer):
        raise ConfigError(f"layers {count}: the model has {len(encoder.layer)}; give at most as many")
    kept = np.linspace(0, len(encoder.layer) - 1, count).round().astype(int).tolist()
    encoder.layer = nn.ModuleList(encoder.layer[n] for n in kept)
    stock.config.num_hidden_layers = count  # DistilBERT's config knows its n_layers by this name too


def layered(stock: Any) -> Any:
    """The part of a network that has its layers as `layer`: in the families of BERT, RoBERTa, DeBERTa and MPNet the encoder, in DistilBERT the transformer."""
    base = stock.base_model
    encoder = getattr(base, "encoder", getattr(base, "transformer", None))
    if not isinstance(getattr(encoder, "layer", None), nn.ModuleList):
        raise ConfigError(f"layers: a {type(stock).__name__} has no list of layers of which some could be kept; leave the setting out")
    return encoder


def require_layers(settings: TrainSettings) -> None:
    """Raise `ConfigError` before anything starts where the model hasn't the layers to be kept."""
    if settings.layers is not None:
        with torch.device("meta"):  # its shape, without weights
            keep_layers(AutoModel.from_config(load_pretrained(AutoConfig, settings.model)), settings.layers)


def whole_model(settings: TrainSettings, corpus: Corpus) -> TaggerModel:
    """A stock classifier; its first predictions of interests are their base rates.

    A classifier that starts at its base rates spends no steps on learning that most interests are absent (Lin et al.
    2017, Focal Loss, section 3.3). A span head starts as stock ones do: with base rates, rare dimensions were found less.
    """
    if settings.task == "spans":
        options = stock_options(settings, bio(corpus.dimensions))
        return TaggerModel(load_pretrained(AutoModelForTokenClassification, settings.model, **options), "spans")
    stock = load_pretrained(
        AutoModelForSequenceClassification,
        settings.model,
        **stock_options(settings, corpus.labels),
        problem_type="multi_label_classification",
    )
    if from_bundle(settings):
        return TaggerModel(stock, settings.task, load_model(Path(resolve(settings.model)), settings.task).span_head)
    base_rate = np.clip(corpus.train.targets.mean(axis=0), 1e-4, 1 - 1e-4)
    set_base_rates(getattr(stock, "classifier", None), np.log(base_rate / (1 - base_rate)))
    if settings.task == "interests":
        return TaggerModel(stock, "interests")
    head = nn.Linear(stock.config.hidden_size, len(bio(corpus.dimensions)))
    nn.init.normal_(head.weight, std=getattr(stock.config, "initializer_range", 0.02))
    nn.init.zeros_(head.bias)
    return TaggerModel(stock, "both", head)


def stock_options(settings: TrainSettings, names: Sequence[str]) -> dict[str, Any]:
    """What a stock checkpoint is loaded with: the names of its outputs, and its dropout where the settings give one."""
    named = {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": {name: n for n, name in enumerate(names)}}
    dropout = {}
    if settings.dropout is not None:
        config = load_pretrained(AutoConfig, settings.model)
        dropout = {"hidden_dropout_prob" if hasattr(config, "hidden_dropout_prob") else "dropout": settings.dropout}
    return {**named, **dropout, "ignore_mismatched_sizes": True, "dtype": torch.float32}


def set_base_rates(classifier: Any, bias: np.ndarray) -> None:
    """Let a linear classifier begin with this bias and small weights; one of another kind is left alone."""
    if isinstance(classifier, nn.Linear):
        with torch.no_grad():
            classifier.bias.copy_(torch.tensor(bias, dtype=torch.float32))
            classifier.weight.mul_(0.1)


def in_head(name: str, model: TaggerModel) -> bool:
    """Whether a parameter of a `TaggerModel` belongs to a head: the pooler and the classifiers."""
    return "pooler" in name or not name.startswith(f"stock.{model.stock.base_model_prefix}")


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


def probe(
    model: TaggerModel, batches: Iterable[dict[str, torch.Tensor]], settings: TrainSettings, autocast: AbstractContextManager[Any]
) -> None:
    """Fit the head alone on the frozen encoder's vectors of `batches`, before everything is fine-tuned.

    The encoder runs within `autocast`, the head in fp32 outside: autocast keeps its copies of weights until it is left, so
    steps within it would change nothing of what the head answers.

    The encoder then isn't bent to suit a head that knows nothing yet (Kumar et al. 2022, Fine-Tuning can Distort
    Pretrained Features, section 4), and one pass over the texts does what would take epochs.
    """
    model.eval()
    stock = model.stock
    with torch.inference_mode(), autocast:
        found = [(stock.base_model(**inputs(each))[0][:, 0].float(), each["labels"]) for each in batches]
    vectors, targets = (torch.cat(each).clone() for each in zip(*found, strict=True))
    head = [each for name, each in model.named_parameters() if in_head(name, model) and not name.startswith("span_head")]
    optimizer = torch.optim.AdamW(head, lr=settings.head_learning_rate, weight_decay=settings.weight_decay)
    model.train()
    for _ in range(settings.probe_epochs):
        for chosen in torch.randperm(len(targets), device=targets.device).split(settings.batch_size):
            interest_loss(
                head_logits(stock, vectors[chosen]), targets[chosen], torch.ones(len(chosen), device=targets.device), settings
            ).backward()
            optimizer.step()
            optimizer.zero_grad()


def optimiser(model: TaggerModel, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW with a rate of its own for the head (pooler and classifier), and no decay on biases and norms."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = settings.head_learning_rate if in_head(name, model) else settings.learning_rate
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    chosen = [{"params": each, "lr": rate, "weight_decay": decay} for (rate, decay), each in groups.items()]
    return torch.optim.AdamW(chosen, fused=True)


class Scale(NamedTuple):
    """What a window of the training rows has on average."""

    counted: float | None = None
    """Share of windows whose interests count: a text's first ones, with a label where interests compete."""
    units: float = 1.0
    """Units that have a class."""


EVEN = Scale()
"""Windows that all count, each of one unit."""


def scale_of(prepared: Prepared, targets: np.ndarray, settings: TrainSettings) -> Scale:
    """Of the training rows. *Shape:* targets (texts, labels)."""
    windows = len(prepared.windows)
    counting = targets.any(axis=1).sum() if settings.loss == "softmax" else len(targets)
    units = (
        sum(each != IGNORED for classes in prepared.rows["classes"] for each in classes) if "classes" in prepared.rows.column_names else 0
    )
    return Scale(max(1.0, float(counting)) / windows, max(1.0, units / windows))


def from_bundle(settings: TrainSettings) -> bool:
    """Whether the run goes on from a trained bundle for its task, whose heads are kept as they are."""
    folder = Path(resolve(settings.model))
    return (folder / "tagger.json").exists() and (settings.task == "both") == (folder / SPAN_HEAD).exists()


def loss_of(
    outputs: tuple[torch.Tensor | None, torch.Tensor | None],
    batch: dict[str, torch.Tensor],
    settings: TrainSettings,
    scale: Scale = EVEN,
) -> torch.Tensor:
    """Loss of a batch: of the interests, and `span_weight` times that of the units.

    Both are summed over the batch and divided by what a batch of as many windows has on average in the training rows:
    the mean over texts and over units, but in a form that adds up exactly when a step is split over processes and
    accumulation steps.
    """
    interests, pieces = outputs
    total = torch.zeros((), device=batch["input_ids"].device)
    if interests is not None:
        total = total + interest_loss(interests, batch["labels"], batch["counts"], settings, scale.counted)
    if pieces is not None:
        summed = nn.functional.cross_entropy(pieces.transpose(1, 2), batch["classes"], ignore_index=IGNORED, reduction="sum")
        weight = settings.span_weight or (scale.units if interests is not None else 1.0)
        total = total + weight * summed / (len(pieces) * scale.units)
    return total


def interest_loss(
    logits: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor, settings: TrainSettings, counted: float | None = None
) -> torch.Tensor:
    """Mean loss over the rows that count; `counted` is their share where that is known beforehand, absent: it is theirs in the batch.

    `bce` is summed over labels, so that its size does not depend on how many labels there are; `softmax` is cross-entropy
    against the labels' equal shares, texts without any left out. *Shape:* logits and targets (batch, labels); counts
    (batch,), 0 or 1; result a scalar.
    """
    logits = logits.float()
    if settings.loss == "softmax":
        number = targets.sum(dim=1, keepdim=True)
        counts = counts * (number[:, 0] > 0)
        by_row = -(targets / number.clamp(min=1) * logits.log_softmax(dim=1)).sum(dim=1)
    else:
        smoothed = targets * (1 - 2 * settings.label_smoothing) + settings.label_smoothing
        by_row = nn.functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").sum(dim=1)
    return (by_row * counts).sum() / (counts.sum().clamp(min=1) if counted is None else len(logits) * counted)
