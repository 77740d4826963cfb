"""Faster forms of a bundle, each accepted only if it tags validation texts as the checkpoint does."""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from penchant.errors import ConfigError
from penchant.files import file_digest, written_aside
from penchant.tagging.backends import Batch, OnnxBackend
from penchant.tagging.bundle import Floats, decide, scores, softmax
from penchant.tagging.encoder import load_model
from penchant.tagging.exports import FOLDER, ONNX_FILES, Export, Exports, Gate, save_exports
from penchant.tagging.spans import Unit, units
from penchant.tagging.tagger import Tagger
from penchant.training.data import Corpus, Labelled
from penchant.training.evaluation import thresholds_for
from penchant.training.graph import fused
from penchant.training.metrics import averaged_f1, decision_counts
from penchant.training.quantize import quantized
from penchant.training.settings import TrainSettings
from penchant.training.spans import counts, fit_span_thresholds, found_spans
from penchant.training.splits import load_corpus

log = logging.getLogger(__name__)
RANGE_TEXTS = 500
"""Training texts that the ranges of int8 are fitted on."""
FOLDS = 5


class Limits(NamedTuple):
    """What an export may differ by; see `Gate`."""

    points_lost: float
    agreement: float
    difference: float


LIMITS = {"onnx": Limits(0.1, 0.995, 0.01), "onnx-int8": Limits(0.3, 0.9, 0.35)}
"""By backend. The plain graph does the same arithmetic in another order; int8 rounds."""


class Answers(NamedTuple):
    """What a network says of the validation texts, and the thresholds of its bundle."""

    interests: Floats
    """Calibrated scores. *Shape:* (texts, labels)."""
    pieces: list[Floats]
    """Probabilities of the classes, per text; none where no spans are found. *Shape:* each (units, classes)."""
    units: list[list[Unit]]
    thresholds: Floats
    span_thresholds: Floats


def export(bundle: Path, settings: TrainSettings) -> Exports:
    """Write `onnx/` into a bundle: a fused fp32 graph and an int8 one, both gated on the validation rows of `settings`.

    `settings` are those it was trained with. Ranges of int8 are fitted on training texts. What doesn't pass stays out of
    use, with the reason on record. Raises `ConfigError` where the settings are of other labels.
    """
    reference = Tagger(bundle, "no", "torch")
    spec = reference.spec
    corpus = load_corpus(settings)
    if spec.labels != corpus.labels or (spec.spans.dimensions if spec.spans else ()) != corpus.dimensions:
        raise ConfigError(f"{bundle}: has other labels than the settings; give those it was trained with: --config")
    expected = answers(reference, corpus.validation)
    found: list[Export] = []
    with written_aside(bundle / FOLDER) as aside:
        aside.mkdir()
        log.info("writing the graph, and fitting the ranges of int8 on %d training texts", min(RANGE_TEXTS, len(corpus.train)))
        graph = fused(load_model(bundle, spec.task))
        for name in ONNX_FILES:
            onnx.save(quantized(graph, range_batches(reference, corpus)) if name == "onnx-int8" else graph, aside / ONNX_FILES[name])
            made = Export(name=name, file=ONNX_FILES[name], sha256=file_digest(aside / ONNX_FILES[name]), gate=None)
            reference.backend = OnnxBackend(aside.parent, made)
            gate = judged(expected, answers(reference, corpus.validation), corpus, settings)
            found.append(made.model_copy(update={"gate": gate.model_copy(update={"refused": refusal(gate, LIMITS[name])})}))
            log.info("%s: %s", name, gate_text(found[-1]))
        exports = Exports(bundle=spec.fingerprint, exports=tuple(found))
        save_exports(aside, exports)
    return exports


def range_batches(tagger: Tagger, corpus: Corpus) -> list[Batch]:
    """A sample of the training texts, as the network reads them."""
    texts = random.Random(0).sample(corpus.train.texts, min(RANGE_TEXTS, len(corpus.train)))
    prepared = tagger.prepare(texts)
    return [tagger.padded([prepared.windows[n] for n in chosen]) for chosen in prepared.batches]


def answers(tagger: Tagger, split: Labelled) -> Answers:
    """What a network says of a split."""
    prepared = tagger.prepare(split.texts)
    interests, pieces = tagger.logits(prepared, tagger.run(prepared))
    parts = [units(*each) for each in zip(split.texts, prepared.offsets, strict=True)]
    spans = tagger.spec.spans
    return Answers(
        scores(interests, tagger.spec.temperature, tagger.spec.curves),
        [softmax(each[[unit.piece for unit in own]], spans.temperature) for each, own in zip(pieces, parts, strict=True)] if spans else [],
        parts,
        np.asarray(tagger.spec.thresholds),
        np.asarray(spans.thresholds if spans else ()),
    )


def judged(before: Answers, after: Answers, corpus: Corpus, settings: TrainSettings) -> Gate:
    """The checkpoint and an export side by side on the validation rows.

    Tags are compared at the bundle's own thresholds. These were fitted on the same rows, so that any change of a score
    would look like a loss; for F1 each fifth of the rows is judged at thresholds fitted on the others.
    """
    split = corpus.validation
    tags = [tagged(each, split, corpus, settings) for each in (before, after)]
    both, either = len(tags[0] & tags[1]), len(tags[0] | tags[1])
    pairs = [(before.interests, after.interests), *zip(before.pieces, after.pieces, strict=True)]
    differences = np.concatenate([np.abs(one - other).ravel() for one, other in pairs])
    f1_before, f1_after = held_out_f1((before, after), split, corpus, settings)
    return Gate(
        texts=len(split),
        agreement=both / either if either else 1.0,
        largest_difference=float(differences.max(initial=0.0)),
        mean_difference=float(differences.mean()) if len(differences) else 0.0,
        f1_before=f1_before,
        f1_after=f1_after,
    )


def tagged(found: Answers, split: Labelled, corpus: Corpus, settings: TrainSettings) -> set[tuple[Any, ...]]:
    """The tags of a split: place of the text, and label or span."""
    chosen = decide(found.interests, found.thresholds, settings.min_tags, settings.max_tags)
    tags: set[tuple[Any, ...]] = {(n, corpus.labels[label]) for n, label in np.argwhere(chosen).tolist()}
    if corpus.dimensions:
        spans = found_spans(split, found.pieces, found.units, corpus.dimensions, found.span_thresholds.tolist())
        tags |= {(n, *span[:3]) for n, own in enumerate(spans) for span in own}
    return tags


def held_out_f1(both: Sequence[Answers], split: Labelled, corpus: Corpus, settings: TrainSettings) -> list[float]:
    """F1 of each, every fold at thresholds fitted to the first one's scores on the other folds; see `Gate.f1_before`."""
    interests: list[list[dict[str, Any]]] = [[] for _ in both]
    spans: list[list[dict[str, Any]]] = [[] for _ in both]
    for fold in range(min(FOLDS, len(split))):
        inside = [n for n in range(len(split)) if n % FOLDS == fold]
        outside = [n for n in range(len(split)) if n % FOLDS != fold]
        there, here = split.take(outside), split.take(inside)
        if corpus.labels:
            thresholds = thresholds_for(both[0].interests[outside], there, settings)
            for each, found in zip(interests, both, strict=True):
                chosen = decide(found.interests[inside], thresholds, settings.min_tags, settings.max_tags)
                each.append(decision_counts(here.targets > 0, chosen))
        if corpus.dimensions:
            fitted = fit_span_thresholds(there, *pieces_of(both[0], outside), corpus.dimensions, settings.threshold_precision).tolist()
            for each, found in zip(spans, both, strict=True):
                each.append(counts(here, found_spans(here, *pieces_of(found, inside), corpus.dimensions, fitted), corpus.dimensions))
    figures = [[averaged_f1(total(each))["macro"] for each in interests]] if corpus.labels else []
    figures += [[averaged_f1(total(each))["micro"] for each in spans]] if corpus.dimensions else []
    return [float(np.mean(each)) for each in zip(*figures, strict=True)]


def pieces_of(found: Answers, places: Sequence[int]) -> tuple[list[Floats], list[list[Unit]]]:
    """What is said of the units of some texts, and these units."""
    return [found.pieces[n] for n in places], [found.units[n] for n in places]


def total(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all texts. *Shape:* each (classes,)."""
    return {name: np.concatenate([each[name] for each in parts]).sum(axis=0) for name in parts[0]}


def refusal(gate: Gate, limits: Limits) -> str | None:
    """Why an export isn't good enough, if it isn't."""
    wrong = []
    if gate.points_lost > limits.points_lost:
        wrong.append(f"it loses {gate.points_lost:.2f} points of F1, at most {limits.points_lost} are allowed")
    if gate.agreement < limits.agreement:
        wrong.append(f"{gate.agreement:.1%} of the tags agree, at least {limits.agreement:.1%} have to")
    if gate.largest_difference > limits.difference:
        wrong.append(f"a score differs by {gate.largest_difference:.3f}, at most {limits.difference} is allowed")
    return "; ".join(wrong) or None


def gate_text(export: Export) -> str:
    """An export's gate in one line."""
    gate = export.gate
    if gate is None:
        return "not compared"
    return (
        f"{'accepted' if gate.refused is None else 'REFUSED'}: {gate.agreement:.1%} of the tags agree, scores differ by "
        f"{gate.largest_difference:.4f} at most and {gate.mean_difference:.5f} on average, F1 {gate.f1_before:.4f} → {gate.f1_after:.4f} on {gate.texts:,} texts"
        + (f"; {gate.refused}" if gate.refused else "")
    )
