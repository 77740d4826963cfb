"""After the last epoch: thresholds, the bundle, and everything the report shows."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from penchant import __version__
from penchant.files import file_digest, write_json, written_aside
from penchant.reports.training_page import training_page, training_text
from penchant.tagging.bundle import Floats, TaggerSpec, decide, save_spec, scores
from penchant.training import checkpoint
from penchant.training.baselines import tfidf_scores, zero_shot_scores
from penchant.training.calibration import fit_temperature, fit_thresholds, reliability
from penchant.training.data import Corpus, Labelled
from penchant.training.loop import Trained, evaluation_loader, predict
from penchant.training.metrics import MultiLabel, f1_intervals
from penchant.training.settings import TrainSettings

log = logging.getLogger(__name__)
MISTAKES_SHOWN = 25
CONFUSIONS_SHOWN = 20
CURVE_POINTS = 120


@dataclass(frozen=True)
class Judged:
    """One model's test scores and the tags they lead to. *Shape:* both (texts, labels)."""

    score: Floats
    tagged: Any


def finish(trained: Trained, settings: TrainSettings) -> dict[str, Any] | None:
    """Fit thresholds, write `output/bundle` and the report beside it; the figures, or None on all but the first process."""
    accelerator, corpus = trained.accelerator, trained.corpus
    loaders = (evaluation_loader(accelerator, trained.tokenizer, split, settings.max_length) for split in (corpus.validation, corpus.test))
    on_validation, on_test = (predict(accelerator, trained.model, loader) for loader in loaders)
    if not accelerator.is_main_process:
        return None
    temperature = fit_temperature(on_validation, corpus.validation.targets)
    validation, test = scores(on_validation, temperature), scores(on_test, temperature)
    thresholds = fit_thresholds(validation, corpus.validation.targets, settings.threshold_precision)
    judged = {"bert": Judged(test, decide(test, thresholds, settings.min_tags, settings.max_tags))}
    if settings.baselines:
        log.info("measuring the baselines on the same rows")
        judged["tfidf"] = judge(*tfidf_scores(corpus), corpus.validation, settings)
        judged["zero_shot"] = judge(*zero_shot_scores(corpus, settings.model, settings.max_length), corpus.validation, settings)
    figures = measure(corpus, judged, trained.history) | {
        "seconds": trained.seconds,
        "model": settings.model,
        "temperature": temperature,
        "calibration": {
            "before": reliability(scores(on_test, 1.0), corpus.test.targets),
            "after": reliability(test, corpus.test.targets),
        },
        "penchant": __version__,
    }
    save_bundle(trained, settings, temperature, thresholds, figures)
    with written_aside(settings.output / "report") as aside:
        aside.mkdir()
        write_json(aside / "report.json", figures)
        (aside / "report.txt").write_text(training_text(figures), encoding="utf-8")
        (aside / "report.html").write_text(training_page(figures), encoding="utf-8")
    checkpoint.finish(settings.output / "checkpoints", trained.name)
    return figures


def judge(validation: Floats, test: Floats, split: Labelled, settings: TrainSettings) -> Judged:
    """A baseline's tags, its thresholds fitted as the model's are."""
    thresholds = fit_thresholds(validation, split.targets, settings.threshold_precision)
    return Judged(test, decide(test, thresholds, settings.min_tags, settings.max_tags))


def save_bundle(trained: Trained, settings: TrainSettings, temperature: float, thresholds: Floats, figures: dict[str, Any]) -> None:
    """Write the checkpoint, the tokenizer, `tagger.json`, `metrics.json` and a model card as `output/bundle`."""
    with written_aside(settings.output / "bundle") as aside:
        trained.accelerator.unwrap_model(trained.model).save_pretrained(aside)
        trained.tokenizer.save_pretrained(aside)
        spec = TaggerSpec(
            labels=trained.corpus.labels,
            thresholds=tuple(float(each) for each in thresholds),
            temperature=temperature,
            max_length=settings.max_length,
            min_tags=settings.min_tags,
            max_tags=settings.max_tags,
            taxonomy=trained.corpus.taxonomy,
            weights_sha256=file_digest(aside / "model.safetensors"),
        )
        save_spec(aside, spec)
        write_json(aside / "metrics.json", {name: figures["results"][name]["all"] for name in figures["results"]})
        (aside / "README.md").write_text(model_card(settings, figures, spec), encoding="utf-8")
    log.info("bundle %s: %s", spec.fingerprint, settings.output / "bundle")


def model_card(settings: TrainSettings, figures: dict[str, Any], spec: TaggerSpec) -> str:
    """The bundle's README: what it is, on what it was trained, how well it did."""
    overall = figures["results"]["bert"]["all"]
    return f"""---
pipeline_tag: text-classification
library_name: transformers
tags: [penchant, interests, multi-label]
---
# Interest tagger over {spec.taxonomy.name}

Fine-tuned from `{settings.model}` by Penchant {__version__} on {figures["rows"]["train"]:,} texts; bundle `{spec.fingerprint}`.
`transformers.pipeline("text-classification")` loads this folder; `penchant tag --bundle` also applies the temperature
and the thresholds in `tagger.json`.

| measured on {figures["rows"]["test"]:,} test texts | precision | recall | F1 |
|---|---|---|---|
| macro over {len(spec.labels)} interests | {overall["macro"]["precision"]:.3f} | {overall["macro"]["recall"]:.3f} | {overall["macro"]["f1"]:.3f} |
| micro | {overall["micro"]["precision"]:.3f} | {overall["micro"]["recall"]:.3f} | {overall["micro"]["f1"]:.3f} |
| no interest | {overall["none"]["precision"]:.3f} | {overall["none"]["recall"]:.3f} | {overall["none"]["f1"]:.3f} |
"""


def measure(corpus: Corpus, judged: dict[str, Judged], history: list[dict[str, float]]) -> dict[str, Any]:
    """All figures of the report: results of each model over all texts and by kind, curves, confusions, worst mistakes."""
    test, kinds = corpus.test, sorted(set(corpus.test.kinds))
    parts = {"all": np.arange(len(test))} | {
        kind: np.flatnonzero([each == kind for each in test.kinds]) for kind in kinds if len(kinds) > 1
    }
    results = {
        name: {
            part: MultiLabel().compute(
                predictions=each.tagged[chosen].astype(int),
                references=test.targets[chosen].astype(int),
                scores=each.score[chosen],
                labels=corpus.labels,
            )
            for part, chosen in parts.items()
        }
        for name, each in judged.items()
    }
    return {
        "labels": {label: corpus.taxonomy.label(label) for label in corpus.labels},
        "rows": {"train": len(corpus.train), "validation": len(corpus.validation), "test": len(test)}
        | {f"test_{kind}": len(parts[kind]) for kind in parts if kind != "all"},
        "history": history,
        "results": results,
        "intervals": {name: f1_intervals(test.targets, each.tagged) for name, each in judged.items()},
        "curves": {name: curve(test.targets, each.score) for name, each in judged.items()},
        "confusions": confusions(test.targets, judged["bert"].tagged, corpus.labels),
        "mistakes": mistakes(test, judged["bert"], corpus.labels),
    }


def curve(targets: Any, score: Floats) -> dict[str, list[float]]:
    """Precision and recall over all decisions, as at most `CURVE_POINTS` points."""
    precision, recall, _ = precision_recall_curve(targets.reshape(-1), score.reshape(-1))
    chosen = np.searchsorted(-recall, -np.linspace(1, 0, CURVE_POINTS)).clip(0, len(recall) - 1)
    return {"recall": recall[chosen].tolist(), "precision": precision[chosen].tolist()}


def confusions(targets: Any, tagged: Any, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Where an interest was missed and another one tagged instead: pairs with their counts, most frequent first."""
    missed, wrong = (targets > 0) & ~tagged, tagged & (targets == 0)
    count = missed.astype(int).T @ wrong.astype(int)
    order = np.argsort(-count, axis=None, kind="stable")[:CONFUSIONS_SHOWN]
    pairs = [np.unravel_index(n, count.shape) for n in order]
    return [
        {"true": labels[row], "tagged": labels[column], "count": int(count[row, column])} for row, column in pairs if count[row, column]
    ]


def mistakes(split: Labelled, judged: Judged, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The texts whose tags are most surely wrong, by the log loss of their worst label."""
    probability = np.clip(judged.score, 1e-6, 1 - 1e-6)
    loss = np.where(split.targets > 0, -np.log(probability), -np.log(1 - probability)).max(axis=1)
    wrong = np.flatnonzero((judged.tagged != (split.targets > 0)).any(axis=1))
    chosen = wrong[np.argsort(-loss[wrong], kind="stable")][:MISTAKES_SHOWN]
    return [
        {
            "text": split.texts[n],
            "kind": split.kinds[n],
            "true": [labels[m] for m in np.flatnonzero(split.targets[n])],
            "tagged": [{"label": labels[m], "score": float(judged.score[n, m])} for m in np.flatnonzero(judged.tagged[n])],
        }
        for n in chosen
    ]
