"""Distillation: a teacher's answers as what a run learns (Hinton et al. 2015, Distilling the Knowledge in a Neural Network)."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import AutoTokenizer

from penchant.errors import DataError
from penchant.files import fingerprint, written_aside
from penchant.progress import progress
from penchant.tagging.bundle import TaggerSpec, load_spec, scores, softmax
from penchant.tagging.encoder import Reader, load_model, load_pretrained
from penchant.tagging.spans import Span
from penchant.training.batches import evaluation, predict
from penchant.training.data import Corpus, Labelled
from penchant.training.settings import TrainSettings
from penchant.training.spans import found_spans

log = logging.getLogger(__name__)
ANSWERS = "teacher.parquet"
"""Name of the file in a run's output with the teacher's answers, text by text."""
SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("dimension", pa.string())])
SCHEMA = pa.schema([("targets", pa.list_(pa.float32())), ("spans", pa.list_(SPAN))])


def taught(accelerator: Accelerator, corpus: Corpus, settings: TrainSettings) -> Labelled:
    """What a run learns from: its training rows, and where it has a teacher these and the unlabelled texts with the teacher's answers.

    Every process calls it. The answers are kept in the output for a run that goes on, and used again for as long as the
    teacher, the texts and the question are the same.
    """
    if settings.teacher is None:
        return corpus.train
    lessons = joined(corpus.train, corpus.unlabelled) if corpus.unlabelled is not None else corpus.train
    spec = load_spec(settings.teacher)
    question = [corpus.labels, corpus.dimensions, settings.loss, accelerator.mixed_precision]
    file, key = settings.output / ANSWERS, fingerprint([spec.fingerprint, *question, fingerprint(lessons.texts)])
    known = read_answers(file, key, lessons)
    everywhere = all(gather_object([known is not None]))  # also waits, so that none reads what the first process writes below
    if known is not None and everywhere:
        return known
    answered = asked(accelerator, spec, lessons, corpus, settings)
    if accelerator.is_main_process:
        write_answers(file, key, answered)
    return answered


def joined(one: Labelled, other: Labelled) -> Labelled:
    """The rows of both."""
    names = sorted({*one.about, *other.about})
    about = {name: [value for split in (one, other) for value in split.about.get(name, ["unknown"] * len(split))] for name in names}
    return Labelled(
        one.texts + other.texts, np.concatenate([one.targets, other.targets]), one.spans + other.spans, one.places + other.places, about
    )


def asked(accelerator: Accelerator, spec: TaggerSpec, lessons: Labelled, corpus: Corpus, settings: TrainSettings) -> Labelled:
    """The rows with the teacher's answers for labels and spans, shared out over the processes.

    Probabilities are those of the loss: each interest's own, or of interests that compete. Spans are those the teacher's
    thresholds let through.
    """
    folder = settings.teacher
    assert folder is not None
    reader = Reader(
        load_pretrained(AutoTokenizer, str(folder.resolve())),
        spec.max_length,
        spec.spans.stride if spec.spans is not None else None,
        spec.mark_capitals,
        spec.simplify_chinese,
    )
    try:
        model = load_model(folder, spec.task).to(accelerator.device)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"teacher {folder}: can't be loaded: {str(error).splitlines()[0]}") from error
    own = spec.spans.dimensions if spec.spans is not None else ()
    bare = replace(lessons, spans=[()] * len(lessons))  # a teacher of both tasks may not know the run's dimensions
    split = evaluation(accelerator, reader, bare, own)
    with progress("asking the teacher", len(split.prepared.windows), "windows") as advance:
        logits, pieces = predict(accelerator, model, split, reader, len(spec.labels), advance)
    accelerator.free_memory()
    if corpus.labels:
        chosen = logits[:, [spec.labels.index(label) for label in corpus.labels]]
        targets = softmax(chosen, 1.0) if settings.loss == "softmax" else scores(chosen, 1.0)
        lessons = replace(lessons, targets=targets.astype(np.float32))
    if corpus.dimensions and spec.spans is not None:
        probabilities = [softmax(each, spec.spans.temperature) for each in pieces]
        found = found_spans(lessons, probabilities, split.prepared.units, own, spec.spans.thresholds)
        lessons = replace(lessons, spans=[tuple(Span(*span[:3]) for span in spans) for spans in found])
    return lessons


def write_answers(file: Path, key: str, answered: Labelled) -> None:
    """Write them aside, with their key, and rename."""
    spans = [[{"start": each.start, "end": each.end, "dimension": each.dimension} for each in spans] for spans in answered.spans]
    table = pa.table({"targets": answered.targets.tolist(), "spans": spans}, schema=SCHEMA.with_metadata({"key": key}))
    with written_aside(file) as aside:
        pq.write_table(table, aside, write_page_checksum=True)


def read_answers(file: Path, key: str, lessons: Labelled) -> Labelled | None:
    """The rows with the answers that `write_answers` wrote under this key; None where there are none, or damaged ones."""
    try:
        if not file.exists() or (pq.read_schema(file).metadata or {}).get(b"key") != key.encode():
            return None
        table = pq.read_table(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        log.warning("%s: damaged, so the teacher is asked again: %s", file, error)
        return None
    spans = [tuple(Span(**each) for each in own) for own in table["spans"].to_pylist()]
    targets = np.array(table["targets"].to_pylist(), np.float32).reshape(lessons.targets.shape)
    return replace(lessons, targets=targets, spans=spans)
