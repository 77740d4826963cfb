"""Cross-validation: how good the settings are, whatever rows happened to be set aside."""

import logging
from typing import Any

import numpy as np
from scipy.stats import t

from penchant.errors import ConfigError
from penchant.files import write_json
from penchant.training.card import headline
from penchant.training.data import Corpus, read_splits
from penchant.training.evaluation import finish
from penchant.training.loop import train
from penchant.training.settings import TrainSettings, shown
from penchant.training.splits import folds, require_classes, sampled, set_aside, without_leaks

log = logging.getLogger(__name__)


def validate(settings: TrainSettings, count: int, restart: bool = False) -> dict[str, Any] | None:
    """Train and test once per fold of the training rows, by the settings' `split`; the figures, or None on all but the first process.

    Each fold sets `validation_share` of its training rows aside for thresholds, by the same `split`. Bundles and reports
    go to `output/folds/N`, the figures to `output/folds/validation.json`. The interval is Student's over the folds, whose
    training rows overlap: it is too narrow rather than too wide (Bengio and Grandvalet 2004).
    """
    if count < 2:
        raise ConfigError(f"folds {count}: at least 2")
    if settings.validation is not None or settings.test is not None:
        log.info("the folds are made of %s alone", shown(settings.train))
    alone = settings.model_copy(update={"validation": None, "test": None})
    taxonomy, labels, dimensions, splits = read_splits(alone)
    whole = sampled(splits["train"], alone)
    corpora = []
    for kept, held_out in folds(whole, alone, count):
        rest = whole.take(kept)
        train_rows, validation_rows = set_aside(rest, alone, settings.validation_share)
        corpus = Corpus(taxonomy, labels, dimensions, rest.take(train_rows), rest.take(validation_rows), whole.take(held_out))
        corpora.append(without_leaks(corpus, alone))
        require_classes(corpora[-1], alone)
    found: list[dict[str, Any]] = []
    for n, corpus in enumerate(corpora, 1):
        log.info("fold %d of %d: %d training, %d test rows", n, count, len(corpus.train), len(corpus.test))
        fold = alone.model_copy(update={"output": settings.output / "folds" / str(n)})
        trained = train(fold, restart, corpus, f"/{count}/{n}")
        alone = alone.model_copy(update={"mixed_precision": trained.accelerator.mixed_precision})  # as measured, for all folds
        figures = finish(trained, fold)
        if figures is not None:
            found.append(figures)
    if not found:
        return None
    summary = summarise([dict(headline(each)) for each in found]) | {"split": settings.split, "rows": [each["rows"] for each in found]}
    write_json(settings.output / "folds" / "validation.json", summary)
    return summary


def summarise(folds: list[dict[str, float]]) -> dict[str, Any]:
    """Mean, standard deviation, 95% interval and the folds' own values of each figure."""
    result: dict[str, Any] = {}
    for name in folds[0]:
        values = np.array([each[name] for each in folds])
        deviation = float(values.std(ddof=1))
        margin = float(t.ppf(0.975, len(values) - 1)) * deviation / np.sqrt(len(values))
        result[name] = {
            "mean": float(values.mean()),
            "standard_deviation": deviation,
            "interval": [float(values.mean() - margin), float(values.mean() + margin)],
            "folds": values.tolist(),
        }
    return {"figures": result}


def validation_text(summary: dict[str, Any]) -> str:
    """The figures for a terminal."""
    lines = [f"{len(summary['rows'])} folds, split: {summary['split']}"]
    for name, each in summary["figures"].items():
        low, high = each["interval"]
        values = " ".join(f"{value:.3f}" for value in each["folds"])
        lines.append(f"{name:24} {each['mean']:.3f} ± {each['standard_deviation']:.3f}  95% {low:.3f}–{high:.3f}  folds {values}")
    return "\n".join(lines)
