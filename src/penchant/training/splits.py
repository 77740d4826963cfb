"""How rows are set aside, and whether what is set aside is really unseen."""

import logging
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from datasketch import MinHash, MinHashLSH
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, KFold, TimeSeriesSplit

from penchant.errors import ConfigError, DataError, problems
from penchant.training.data import Corpus, Labelled, read_splits
from penchant.training.settings import TrainSettings, shown

log = logging.getLogger(__name__)
SHINGLE_CHARACTERS = 5
PERMUTATIONS = 128


def load_corpus(settings: TrainSettings) -> Corpus:
    """Read and check all splits, set rows aside where a file is missing, and see to it that no text stands on two sides.

    Raises `DataError` with all mistakes of the rows, and then with all leaks.
    """
    taxonomy, labels, dimensions, splits = read_splits(settings)
    train = sampled(splits["train"], settings)
    share = settings.validation_share
    for name in ("test", "validation"):  # in time the test rows are the last ones
        if name not in splits:
            kept, held_out = set_aside(train, settings, share)
            train, splits[name], share = train.take(kept), train.take(held_out), min(0.5, share / (1 - share))
    if settings.teacher is not None and (settings.validation is None or settings.test is None):
        log.warning(
            "rows are set aside by `split` and `seed`: a teacher trained with others has learned from some of them, and figures flatter"
        )
    corpus = without_leaks(Corpus(taxonomy, labels, dimensions, train, splits["validation"], splits["test"]), settings)
    if "unlabelled" in splits:
        corpus = replace(corpus, unlabelled=unseen(splits["unlabelled"], corpus, settings.near_duplicate))
    require_classes(corpus, settings)
    return corpus


def sampled(train: Labelled, settings: TrainSettings) -> Labelled:
    """As many of the training rows as the settings want."""
    if settings.max_train_rows is None or settings.max_train_rows >= len(train):
        return train
    return train.take(random.Random(settings.seed).sample(range(len(train)), settings.max_train_rows))


def set_aside(split: Labelled, settings: TrainSettings, share: float) -> tuple[list[int], list[int]]:
    """Places of the rows that stay and of those set aside: at random, by whole groups, or the latest ones."""
    if settings.split == "group":
        chooser = GroupShuffleSplit(n_splits=1, test_size=share, random_state=settings.seed)
        try:
            kept, held_out = next(chooser.split(split.texts, groups=column(split, "group")))
        except ValueError as error:
            raise DataError(f"{shown(settings.train)}: too few groups in columns.group to set any aside: {error}") from error
        return kept.tolist(), held_out.tolist()
    count = min(max(1, round(share * len(split))), len(split) - 1)
    if settings.split == "time":
        order = by_time(split)
        return order[:-count], order[-count:]
    order = random.Random(settings.seed).sample(range(len(split)), len(split))
    return order[count:], order[:count]


def folds(split: Labelled, settings: TrainSettings, count: int) -> list[tuple[list[int], list[int]]]:
    """Places of the training and the test rows of each fold.

    At random every row is tested once; by group so is every group, as a whole; in time each fold is tested on the
    stretch that follows all it was trained on. Raises `DataError` where there are too few rows or groups, `ConfigError` for
    a run with a teacher.
    """
    if settings.teacher is not None:
        raise ConfigError(
            f"teacher {settings.teacher}: may have learned from the rows that each fold is tested on; cross-validate without it"
        )
    order = by_time(split) if settings.split == "time" else list(range(len(split)))
    chooser = {
        "random": KFold(count, shuffle=True, random_state=settings.seed),
        "group": GroupKFold(count, shuffle=True, random_state=settings.seed),
        "time": TimeSeriesSplit(count),
    }[settings.split]
    try:
        found = list(chooser.split(order, groups=column(split, "group") if settings.split == "group" else None))
    except ValueError as error:
        raise DataError(f"{shown(settings.train)}: can't be split in {count} folds: {error}") from error
    return [([order[n] for n in kept], [order[n] for n in held_out]) for kept, held_out in found]


def column(split: Labelled, name: str) -> list[str]:
    """A column of every row, or `DataError` that names the first row without it."""
    values = split.about.get(name, ["unknown"] * len(split))
    missing = [place for place, value in zip(split.places, values, strict=True) if value == "unknown"]
    if missing:
        raise DataError(f"{missing[0]}: has no {name}, which the split goes by ({len(missing)} rows like it); see columns.{name}")
    return values


def by_time(split: Labelled) -> list[int]:
    """Places in order of time."""
    moments = []
    for place, value in zip(split.places, column(split, "time"), strict=True):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise DataError(f"{place}: {value!r} is no time; write it like 2026-03-31T18:00+02:00") from error
        moments.append(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    return sorted(range(len(split)), key=lambda n: moments[n])


def without_leaks(corpus: Corpus, settings: TrainSettings) -> Corpus:
    """The corpus, without the texts that stand on two sides where `leaks` says to drop them. Raises `DataError` where it says to refuse them.

    What is dropped is never a test text: a training text for a text of the others, a validation text for one of the test rows.
    """
    if settings.leaks == "allow":
        return corpus
    into_train = near_duplicates(corpus.train, [corpus.validation, corpus.test], settings.near_duplicate)
    into_validation = near_duplicates(corpus.validation, [corpus.test], settings.near_duplicate)
    found = [f"{own} and {other} ({similarity:.2f})" for _, own, other, similarity in [*into_train, *into_validation]]
    if not found:
        return corpus
    if settings.leaks == "refuse":
        shown = problems("nearly the same text on two sides of a split (Jaccard similarity of character 5-grams)", found)
        raise DataError(f"{shown}\nset leaks: drop to train without them, or leaks: allow to keep them")
    log.warning("%d texts nearly the same on two sides of a split are left out, the first: %s", len(found), found[0])
    kept = [
        sorted(set(range(len(split))) - {n for n, *_ in leaks})
        for split, leaks in ((corpus.train, into_train), (corpus.validation, into_validation))
    ]
    return replace(corpus, train=corpus.train.take(kept[0]), validation=corpus.validation.take(kept[1]))


def unseen(unlabelled: Labelled, corpus: Corpus, similarity: float) -> Labelled:
    """Each text once, without those that stand, nearly the same, among the labelled ones: nothing is measured on a text that was learned from."""
    first = {text: n for n, text in reversed(list(enumerate(unlabelled.texts)))}
    once = unlabelled.take(sorted(first.values()))
    known = near_duplicates(once, [corpus.validation, corpus.test, corpus.train], similarity)
    kept = once.take(sorted(set(range(len(once))) - {n for n, *_ in known}))
    log.info(
        "%d unlabelled texts to learn from; %d stand there more than once, %d nearly the same among the labelled texts%s",
        len(kept),
        len(unlabelled) - len(once),
        len(known),
        f", the first: {known[0][1]} and {known[0][2]} ({known[0][3]:.2f})" if known else "",
    )
    return kept


def near_duplicates(split: Labelled, others: Sequence[Labelled], similarity: float) -> list[tuple[int, str, str, float]]:
    """Texts of `split` that stand nearly the same in `others`: place, origin, the other's origin, similarity.

    Found by MinHash (Broder 1997), confirmed by the exact Jaccard similarity of their sets of character 5-grams.
    """
    index = MinHashLSH(threshold=max(0.1, similarity - 0.25), num_perm=PERMUTATIONS)
    known = [(text, place) for other in others for text, place in zip(other.texts, other.places, strict=True)]
    grams = [shingles(text) for text, _ in known]
    for n, own in enumerate(grams):
        index.insert(n, sketch(own))
    found = []
    for n, text in enumerate(split.texts) if known else ():
        own = shingles(text)
        near = ((len(own & grams[other]) / len(own | grams[other]), -other) for other in index.query(sketch(own)))
        best = max(near, default=(0.0, 0))
        if best[0] >= similarity:
            found.append((n, split.places[n], known[-best[1]][1], best[0]))
    return found


def shingles(text: str) -> set[str]:
    """Character 5-grams of a text's letters and digits in lower case; a shorter text is one."""
    letters = re.sub(r"\W+", " ", text.casefold()).strip() or text.casefold()
    return {letters[n : n + SHINGLE_CHARACTERS] for n in range(max(1, len(letters) - SHINGLE_CHARACTERS + 1))}


def sketch(grams: set[str]) -> MinHash:
    """The MinHash of a set."""
    found = MinHash(num_perm=PERMUTATIONS)
    found.update_batch([each.encode() for each in grams])
    return found


def require_classes(corpus: Corpus, settings: TrainSettings) -> None:
    """Raise `DataError` for a split that nothing can be learned from or measured on."""
    mistakes: list[str] = []
    taught = len(corpus.train) + len(corpus.unlabelled or ())
    if taught < settings.batch_size:
        mistakes.append(f"{shown(settings.train)}: {taught} training rows are fewer than batch_size {settings.batch_size}")
    used = np.asarray(corpus.train.targets.sum(axis=0))
    mistakes += [f"no training row is left that is labelled {label!r}" for n, label in enumerate(corpus.labels) if not used[n]]
    kinds = {span.dimension for spans in corpus.train.spans for span in spans}
    mistakes += [f"no training row is left with a span of {name!r}" for name in corpus.dimensions if name not in kinds]
    for name, split in (("validation", corpus.validation), ("test", corpus.test)):
        origin = shown(getattr(settings, name) or ()) or f"the {name} rows of {shown(settings.train)}"
        if settings.task != "spans" and len(np.unique(split.targets, axis=0)) < 2:
            mistakes.append(f"{origin}: all {len(split)} rows have the same labels, so nothing can be measured on them")
        if settings.task != "interests" and not any(split.spans):
            mistakes.append(f"{origin}: none of the {len(split)} rows has a span, so nothing can be measured on them")
    if mistakes:
        raise DataError(problems("training data", mistakes))
