"""After the last epoch: thresholds, the bundle, and the report."""

import logging
from typing import Any

import numpy as np

from penchant import __version__
from penchant.files import file_digest, write_json, written_aside
from penchant.reports.training_page import training_page, training_text
from penchant.tagging.bundle import SPAN_HEAD, Floats, SpanSpec, TaggerSpec, decide, load_spec, save_spec, scores, softmax
from penchant.tagging.spans import classes, taught
from penchant.training import checkpoint
from penchant.training.baselines import baseline_scores
from penchant.training.batches import Evaluation, evaluation, predict
from penchant.training.calibration import Calibration, fit_calibration, fit_curve, fit_thresholds, fit_token_temperature, reliability
from penchant.training.card import model_card
from penchant.training.data import Corpus, Labelled
from penchant.training.loop import Trained
from penchant.training.measures import Judged, measure, measure_spans
from penchant.training.settings import TrainSettings
from penchant.training.spans import fit_span_thresholds, found_spans, stated_and_right

log = logging.getLogger(__name__)


def finish(trained: Trained, settings: TrainSettings) -> dict[str, Any] | None:
    """Fit thresholds, write `output/bundle` and the report beside it; the figures, or None on all but the first process."""
    accelerator, corpus, reader = trained.accelerator, trained.corpus, trained.reader
    splits = [evaluation(accelerator, reader, split, corpus.dimensions) for split in (corpus.validation, corpus.test)]
    validation, test = (predict(accelerator, trained.model, split, reader, len(corpus.labels)) for split in splits)
    if not accelerator.is_main_process:
        return None
    figures: dict[str, Any] = {
        "task": settings.task,
        "model": settings.model,
        "rows": {name: len(getattr(corpus, name)) for name in ("train", "validation", "test")},
        "history": trained.history,
        "seconds": trained.seconds,
        "penchant": __version__,
    } | student_of(trained, settings)
    spec = TaggerSpec(
        max_length=settings.max_length,
        min_tags=settings.min_tags,
        max_tags=settings.max_tags,
        mark_capitals=settings.mark_capitals,
        simplify_chinese=settings.simplify_chinese,
        weights_sha256="",
    )
    if corpus.labels:
        calibration = fit_calibration(validation[0], corpus.validation.targets, settings.calibration)
        thresholds, found = judge_interests(corpus, settings, calibration, validation[0], test[0])
        figures |= found
        spec = spec.model_copy(
            update={
                "labels": corpus.labels,
                "thresholds": tuple(thresholds.tolist()),
                "temperature": calibration.temperature,
                "curves": calibration.curves,
                "taxonomy": corpus.taxonomy,
            }
        )
    if corpus.dimensions:
        spans = fit_spans(corpus, settings, validation[1], splits[0])
        spec = spec.model_copy(update={"spans": spans})
        probabilities = [softmax(each, spans.temperature) for each in test[1]]
        figures["spans"] = measure_spans(corpus.test, probabilities, splits[1].prepared.units, spans)
    save_bundle(trained, settings, spec, figures)
    with written_aside(settings.output / "report") as aside:
        aside.mkdir()
        write_json(aside / "report.json", figures)
        (aside / "report.txt").write_text(training_text(figures), encoding="utf-8")
        (aside / "report.html").write_text(training_page(figures), encoding="utf-8")
    checkpoint.finish(settings.output / "checkpoints", trained.name)
    return figures


def student_of(trained: Trained, settings: TrainSettings) -> dict[str, Any]:
    """What the report says of a student: its teacher's fingerprint, its layers, the texts it learned from and how many of them have no label of their own."""
    if settings.teacher is None:
        return {}
    unlabelled = len(trained.corpus.unlabelled or ())
    return {
        "student": {
            "teacher": load_spec(settings.teacher).fingerprint,
            "layers": getattr(trained.model.stock.config, "num_hidden_layers", None),
            "texts": len(trained.corpus.train) + unlabelled,
            "unlabelled": unlabelled,
        }
    }


def judge_interests(
    corpus: Corpus, settings: TrainSettings, calibration: Calibration, on_validation: Floats, on_test: Floats
) -> tuple[Floats, dict[str, Any]]:
    """Thresholds of the fine-tuned model, and what the report says of it and of the baselines. *Shape:* logits (texts, labels)."""
    validation, test = (scores(each, calibration.temperature, calibration.curves) for each in (on_validation, on_test))
    thresholds = thresholds_for(validation, corpus.validation, settings)
    judged = {"bert": Judged(test, decide(test, thresholds, settings.min_tags, settings.max_tags))}
    for name in settings.baselines:
        log.info("measuring %s on the same rows", name.replace("_", " "))
        judged[name] = judge(*baseline_scores(name, corpus, settings.model, settings.max_length), corpus.validation, settings)
    return thresholds, measure(corpus, judged) | {
        "temperature": calibration.temperature,
        "calibration": {
            "before": reliability(scores(on_test, 1.0), corpus.test.targets),
            "after": reliability(test, corpus.test.targets),
            "log_loss": calibration.log_loss,
            "method": "isotonic" if any(calibration.curves) else "temperature",
        },
    }


def thresholds_for(validation: Floats, split: Labelled, settings: TrainSettings) -> Floats:
    """Fitted on validation; all the same where every text gets the same number of tags, which the scores alone then rank. *Shape:* (labels,)."""
    if settings.min_tags == settings.max_tags:
        return np.full(validation.shape[1], 0.5)
    return fit_thresholds(validation, split.targets, settings.threshold_precision)


def judge(validation: Floats, test: Floats, split: Labelled, settings: TrainSettings) -> Judged:
    """A baseline's decisions on the test rows, with thresholds fitted to its own validation scores. *Shape:* scores (texts, labels)."""
    thresholds = thresholds_for(validation, split, settings)
    return Judged(test, decide(test, thresholds, settings.min_tags, settings.max_tags))


def fit_spans(corpus: Corpus, settings: TrainSettings, logits: list[Floats], split: Evaluation) -> SpanSpec:
    """Temperature and thresholds of the spans on the validation rows. *Shape:* logits per text (units, classes)."""
    own = [classes(spans, parts, corpus.dimensions) for spans, parts in zip(corpus.validation.spans, split.prepared.units, strict=True)]
    counted = np.concatenate(
        [taught(text, parts, each) for text, parts, each in zip(corpus.validation.texts, split.prepared.units, own, strict=True)]
    ).astype(bool)
    temperature = fit_token_temperature(np.concatenate(logits)[counted], np.concatenate(own).astype(int)[counted])
    probabilities = [softmax(each, temperature) for each in logits]
    thresholds = fit_span_thresholds(
        corpus.validation, probabilities, split.prepared.units, corpus.dimensions, settings.threshold_precision
    )
    found = found_spans(corpus.validation, probabilities, split.prepared.units, corpus.dimensions, thresholds.tolist())
    return SpanSpec(
        dimensions=corpus.dimensions,
        thresholds=tuple(thresholds.tolist()),
        temperature=temperature,
        curve=fit_curve(*stated_and_right(corpus.validation, found)) if settings.calibration != "temperature" else None,
        stride=settings.stride,
    )


def save_bundle(trained: Trained, settings: TrainSettings, spec: TaggerSpec, figures: dict[str, Any]) -> None:
    """Write the checkpoint, the tokenizer, `tagger.json`, `metrics.json` and a model card as `output/bundle`."""
    with written_aside(settings.output / "bundle") as aside:
        trained.model.save(aside)
        trained.reader.tokenizer.save_pretrained(aside)
        spec = spec.model_copy(update={"weights_sha256": file_digest(aside / "model.safetensors")})
        if (aside / SPAN_HEAD).exists() and spec.spans is not None:
            spec = spec.model_copy(update={"spans": spec.spans.model_copy(update={"head_sha256": file_digest(aside / SPAN_HEAD)})})
        save_spec(aside, spec)
        measured = {name: parts["all"] for name, parts in figures.get("results", {}).items()}
        write_json(aside / "metrics.json", measured | ({"spans": figures["spans"]["decoded"]} if spec.spans is not None else {}))
        (aside / "README.md").write_text(model_card(settings, figures, spec, trained.corpus), encoding="utf-8")
    log.info("bundle %s: %s", spec.fingerprint, settings.output / "bundle")
