"""The model card of a bundle, in Hugging Face's form."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from penchant import __version__
from penchant.tagging.bundle import TaggerSpec
from penchant.tagging.encoder import PACKAGED, resolve
from penchant.training.data import Corpus
from penchant.training.settings import TrainSettings

PIPELINES = {"interests": "text-classification", "spans": "token-classification", "both": "text-classification"}


def model_card(settings: TrainSettings, figures: dict[str, Any], spec: TaggerSpec, corpus: Corpus) -> str:
    """The bundle's README: metadata a hub reads, what the bundle is, on what it was trained, how well it does, where it does worse."""
    pipeline = PIPELINES[spec.task]
    languages = sorted({each for each in corpus.train.about["language"] if len(each) == 2})
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=pipeline,
        language=languages or None,
        base_model=base_model(settings.model),
        tags=["penchant", "interests" if spec.labels else "named-entities"],
        metrics=["f1"],
        model_name=settings.output.name,
        eval_results=[
            EvalResult(
                task_type=PIPELINES["spans" if name.endswith("spans") else "interests"],
                dataset_type=named(settings),
                dataset_name=named(settings),
                dataset_split="test",
                metric_type="f1",
                metric_name=name,
                metric_value=round(value, 4),
            )
            for name, value in headline(figures)
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n{text(settings, figures, spec, pipeline)}"


def base_model(model: str) -> str | None:
    """The hub's name of the checkpoint a run starts from; a folder of somebody's disk has none."""
    if model == PACKAGED:
        return "sentence-transformers/all-MiniLM-L6-v2"
    return None if Path(resolve(model)).is_dir() else model


def named(settings: TrainSettings) -> str:
    """Names of the files the test rows come from."""
    return ", ".join(path.stem for path in settings.test or settings.train)


def headline(figures: dict[str, Any]) -> list[tuple[str, float]]:
    """The run's main figures by name."""
    found = []
    if "results" in figures:
        whole = figures["results"]["bert"]["all"]
        found += [("macro F1 of interests", whole["macro"]["f1"]), ("micro F1 of interests", whole["micro"]["f1"])]
    if "spans" in figures:
        found += [(f"{average} F1 of spans", figures["spans"]["decoded"][average]["f1"]) for average in ("micro", "macro")]
    return found


def text(settings: TrainSettings, figures: dict[str, Any], spec: TaggerSpec, pipeline: str) -> str:
    """What people read."""
    about = f"over {spec.taxonomy.name} ({len(spec.labels)} interests)" if spec.taxonomy is not None else ""
    finds = " and ".join(filter(None, [about, f"of {', '.join(spec.spans.dimensions)}" if spec.spans is not None else ""]))
    lines = [
        f"# Tagger {finds}",
        "",
        f"{learned(settings, figures)}, thresholds and calibration on {figures['rows']['validation']:,} more; bundle `{spec.fingerprint}`.",
        f'`transformers.pipeline("{pipeline}")` loads this folder; `penchant tag --bundle` also applies the calibration, the',
        "thresholds and the way of reading long texts in `tagger.json`"
        + (", and the second head in `span_head.safetensors`." if spec.task == "both" else "."),
        "",
        f"## Measured on {figures['rows']['test']:,} test texts",
        "",
        "| | precision | recall | F1 | 95% interval of F1 |",
        "|---|---|---|---|---|",
    ]
    if "results" in figures:
        whole, intervals = figures["results"]["bert"]["all"], figures["intervals"]["bert"]
        lines += [row(f"{name} over interests", whole[name], intervals[name]) for name in ("macro", "micro")]
        lines.append(row("no interest", whole["none"], intervals["none"]))
    if "spans" in figures:
        decoded, intervals = figures["spans"]["decoded"], figures["spans"]["intervals"]
        lines += [row(f"{name} over spans, exact", decoded[name], intervals[name]) for name in ("micro", "macro")]
        lines += [row(f"spans: {name}", each, None) for name, each in decoded["per_type"].items()]
    if "calibration" in figures:
        after = figures["calibration"]["after"]["ece"]
        lines += ["", f"Expected calibration error of the scores: {after:.4f}."]
    slices = {"interests": figures.get("slices", []), "spans": figures.get("spans", {}).get("slices", [])}
    flagged = [(kind, each) for kind, found in slices.items() for each in found if each["flagged"]]
    lines += ["", "## Where it does worse", ""]
    lines += [
        f"- {kind}, {each['column']} {each['value']}: micro F1 {each['f1']:.3f} on {each['texts']} texts, {each['rest_f1']:.3f} elsewhere"
        for kind, each in flagged
    ]
    lines += (
        [] if flagged else ["No slice of at least 30 test texts (kind, language, length, user group) is significantly worse than the rest."]
    )
    return "\n".join([*lines, ""])


def learned(settings: TrainSettings, figures: dict[str, Any]) -> str:
    """What the bundle was made from: a checkpoint and labelled texts, or for a student also a teacher."""
    start = f"`{base_model(settings.model) or Path(settings.model).name}`"
    files = ", ".join(path.name for path in settings.train)
    student = figures.get("student")
    if student is None or settings.teacher is None:
        kept = f" with {settings.layers} of its layers" if settings.layers is not None else ""
        return f"Fine-tuned from {start}{kept} by Penchant {__version__} on {figures['rows']['train']:,} texts ({files})"
    layers = f" with {student['layers']} layers" if student["layers"] is not None else ""
    begun = "with its teacher's weights" if Path(resolve(settings.model)).resolve() == settings.teacher.resolve() else f"as {start}"
    others = ", ".join(path.name for path in settings.unlabelled or ())
    texts = f"{figures['rows']['train']:,} labelled ones ({files})" + (
        f" and {student['unlabelled']:,} others ({others})" if others else ""
    )
    return f"A student{layers} of the bundle `{student['teacher']}`, begun {begun} and taught by Penchant {__version__} its teacher's answers to {student['texts']:,} texts: {texts}"


def row(name: str, figures: dict[str, float], interval: tuple[float, float] | None) -> str:
    """A line of the table."""
    shown = f"{interval[0]:.3f}–{interval[1]:.3f}" if interval is not None else ""
    return f"| {name} | {figures['precision']:.3f} | {figures['recall']:.3f} | {figures['f1']:.3f} | {shown} |"
