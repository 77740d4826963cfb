"""Two bundles on the same labelled texts: which is better, and whether that could be chance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from penchant.errors import ConfigError, DataError, problems
from penchant.tagging.backends import own_device
from penchant.tagging.bundle import decide
from penchant.tagging.precision import measured_precision
from penchant.tagging.tagger import Tagger
from penchant.training.data import Labelled, encode, read_labelled, wrong_labels
from penchant.training.metrics import decision_counts, paired_test
from penchant.training.settings import Columns, TrainSettings
from penchant.training.spans import counts


def compare(
    one: Path, other: Path, data: Path, columns: Columns, conll_joiner: str = " ", renamed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`paired_test` of the interests and of the spans that both bundles find, on the texts of `data`.

    `renamed` gives the dimension of each type of span in `data`, where the two differ in name.

    Raises `ConfigError` where the bundles have nothing in common to be compared by, `DataError` for labels they don't know.
    """
    precision, _ = measured_precision(own_device())
    taggers = [Tagger(each, precision, "torch") for each in (one, other)]
    tasks = {each.spec.task for each in taggers}
    if tasks == {"interests", "spans"}:
        raise ConfigError(f"{one} finds {taggers[0].spec.task}, {other} {taggers[1].spec.task}: nothing to compare")
    task = "both" if tasks == {"both"} else next(iter(tasks - {"both"}))
    labels, dimensions = (same(taggers, kind, task) for kind in ("interests", "spans"))
    settings = TrainSettings(task=task, train=(data,), output=data.parent, columns=columns, conll_joiner=conll_joiner)
    raw, mistakes = read_labelled(data, settings)
    names = {type_of: name for type_of, name in (renamed or {name: name for name in dimensions}).items() if name in dimensions}
    mistakes += wrong_labels(raw, labels or None, names or None)
    if mistakes or not raw:
        raise DataError(problems(str(data), mistakes or ["no rows with a text"]))
    return tested(taggers, encode(raw, labels, names), labels, dimensions)


def same(taggers: list[Tagger], kind: str, task: str) -> tuple[str, ...]:
    """The labels or dimensions both bundles have, or none where they aren't compared. Raises `ConfigError` where they differ."""
    if task not in (kind, "both"):
        return ()
    found = [each.spec.labels if kind == "interests" else each.spec.spans.dimensions if each.spec.spans else () for each in taggers]
    if set(found[0]) != set(found[1]):
        raise ConfigError(
            f"the bundles' {kind} differ in {', '.join(sorted(set(found[0]) ^ set(found[1]))[:5])}: their figures can't be compared"
        )
    return found[0]


def tested(taggers: list[Tagger], split: Labelled, labels: tuple[str, ...], dimensions: tuple[str, ...]) -> dict[str, Any]:
    """The paired tests, and how many texts they are on."""
    result: dict[str, Any] = {"texts": len(split)}
    answers = [each.score(split.texts) for each in taggers]
    if labels:
        tagged = []
        for tagger, (score, _) in zip(taggers, answers, strict=True):
            spec = tagger.spec
            chosen = decide(score, np.asarray(spec.thresholds), spec.min_tags, spec.max_tags)
            tagged.append(chosen[:, [spec.labels.index(label) for label in labels]])
        result["interests"] = paired_test(*(decision_counts(split.targets > 0, each) for each in tagged))
    if dimensions:
        result["spans"] = paired_test(*(counts(split, spans, dimensions) for _, spans in answers))
    return result


def comparison_text(result: dict[str, Any], one: Path, other: Path) -> str:
    """The tests for a terminal."""
    lines = [f"A {one}", f"B {other}", f"{result['texts']:,} texts"]
    for kind in ("interests", "spans"):
        for average, row in result.get(kind, {}).items():
            low, high = row["interval"]
            verdict = (
                "no difference to be sure of"
                if low <= 0 <= high or row["p"] > 0.05
                else f"{'A' if row['difference'] > 0 else 'B'} is better"
            )
            lines.append(
                f"{average} F1 of {kind}: A {row['one']:.4f}, B {row['other']:.4f}; A − B {row['difference']:+.4f} (95% {low:+.4f} to {high:+.4f}), p = {row['p']:.4f}: {verdict}"
            )
    return "\n".join(lines)
