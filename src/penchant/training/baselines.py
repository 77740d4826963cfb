"""What a fine-tuned model has to beat, measured on the same rows with the same thresholds."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from transformers import AutoModel, AutoTokenizer

from penchant.tagging.bundle import Floats
from penchant.tagging.encoder import load_pretrained
from penchant.tagging.spans import UNSPACED
from penchant.training.data import Corpus

REGULARISATIONS = (1.0, 10.0, 100.0)
TREES = 300


def baseline_scores(name: str, corpus: Corpus, model_name: str, max_length: int) -> tuple[Floats, Floats]:
    """Scores of validation and test by `logistic_regression`, `random_forest` or `zero_shot`.

    `model_name` and `max_length` are what `zero_shot` reads with. *Shape:* both (texts, labels), 0 to 1.
    """
    if name == "zero_shot":
        return zero_shot_scores(corpus, model_name, max_length)
    return {"logistic_regression": logistic_regression_scores, "random_forest": random_forest_scores}[name](corpus)


def logistic_regression_scores(corpus: Corpus) -> tuple[Floats, Floats]:
    """TF-IDF with one logistic regression per interest; scores of validation and test.

    The inverse regularisation strength is the one of three with the best micro average precision on validation.
    *Shape:* both (texts, labels).
    """
    train, validation, test = tfidf(corpus)
    best: tuple[float, Floats, Floats] | None = None
    for strength in REGULARISATIONS:
        model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=1000, solver="liblinear")).fit(train, corpus.train.targets)
        score, on_test = (model.predict_proba(each)[:, -len(corpus.labels) :] for each in (validation, test))  # one label has two columns
        quality = average_precision_score(corpus.validation.targets, score, average="micro")
        if best is None or quality > best[0]:
            best = (quality, score, on_test)
    assert best is not None
    return best[1], best[2]


def random_forest_scores(corpus: Corpus) -> tuple[Floats, Floats]:
    """TF-IDF with one random forest for all interests (Breiman 2001); scores of validation and test.

    Classes aren't weighted: scikit-learn multiplies the weights of a text's labels, so that few texts with several rare
    interests outweigh all others. On the sample's validation split `balanced_subsample` has a micro average precision of
    0.18 against 0.24, and a weighted forest per interest 0.21; leaves of two texts are a little better than of one, in a
    third of the time. *Shape:* both (texts, labels).
    """
    train, validation, test = tfidf(corpus)
    targets = corpus.train.targets.astype(int)
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, n_jobs=-1, random_state=13)
    forest.fit(train, targets if targets.shape[1] > 1 else targets[:, 0])
    return positive_scores(forest, validation), positive_scores(forest, test)


def positive_scores(forest: RandomForestClassifier, vectors: Any) -> Floats:
    """The forest's probability of each label, also of one that every or no training text has. *Shape:* (texts, features) to (texts, labels)."""
    found = forest.predict_proba(vectors)
    pairs = zip(found, forest.classes_, strict=True) if isinstance(found, list) else [(found, forest.classes_)]
    return np.stack([probability @ (classes == 1) for probability, classes in pairs], axis=1)


def tfidf(corpus: Corpus) -> tuple[Any, Any, Any]:
    """Train, validation and test as TF-IDF over words and word pairs, or over one to three characters where texts are `unspaced`.

    *Shape:* each (texts, features), sparse.
    """
    if unspaced(corpus.train.texts):
        # accents stay: stripping them would make か of が, and three letters of 한
        vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    else:
        vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    train = vectors.fit_transform(corpus.train.texts)
    return train, vectors.transform(corpus.validation.texts), vectors.transform(corpus.test.texts)


def unspaced(texts: Sequence[str]) -> bool:
    """Whether most letters are of scripts that don't put spaces between words, or (Hangul) glue particles to them."""
    letters = Counter(each for text in texts for each in text if each.isalpha())
    return 2 * sum(count for letter, count in letters.items() if UNSPACED.match(letter)) > letters.total()


def zero_shot_scores(corpus: Corpus, model_name: str, max_length: int) -> tuple[Floats, Floats]:
    """Cosine between a text and an interest's description in the untrained encoder's space, put on 0 to 1 by one logistic curve.

    *Shape:* both (texts, labels).
    """
    assert corpus.taxonomy is not None  # labels come with one
    tokenizer, encoder = load_pretrained(AutoTokenizer, model_name), load_pretrained(AutoModel, model_name, dtype=torch.float32)
    nodes = [corpus.taxonomy.by_id[label] for label in corpus.labels]
    described = embed([f"{node.name}. {node.description}".strip() for node in nodes], tokenizer, encoder, max_length)
    cosines = [embed(split.texts, tokenizer, encoder, max_length) @ described.T for split in (corpus.validation, corpus.test)]
    curve = LogisticRegression(C=1e4).fit(cosines[0].reshape(-1, 1), corpus.validation.targets.reshape(-1))
    validation, test = (curve.predict_proba(each.reshape(-1, 1))[:, 1].reshape(each.shape) for each in cosines)
    return validation, test


def embed(texts: list[str], tokenizer: Any, encoder: Any, max_length: int) -> Floats:
    """Mean of the attended token vectors, at length 1.

    *Shape:* result (texts, hidden).
    """
    encoder.eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    vectors: dict[int, Any] = {}
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            batch = tokenizer([texts[n] for n in chosen], padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            hidden = encoder(**batch).last_hidden_state
            attended = batch["attention_mask"].unsqueeze(-1)
            mean = (hidden * attended).sum(1) / attended.sum(1)
            vectors.update(zip(chosen.tolist(), torch.nn.functional.normalize(mean, dim=1).numpy(), strict=True))
    return np.stack([vectors[n] for n in range(len(texts))]).astype(np.float64)
