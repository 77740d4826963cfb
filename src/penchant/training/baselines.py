"""What a fine-tuned model has to beat, measured on the same rows with the same thresholds."""

from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from transformers import AutoModel, AutoTokenizer

from penchant.tagging.bundle import Floats
from penchant.tagging.encoder import load_pretrained
from penchant.training.data import Corpus

REGULARISATIONS = (1.0, 10.0, 100.0)


def tfidf_scores(corpus: Corpus) -> tuple[Floats, Floats]:
    """TF-IDF over words and word pairs with one logistic regression per interest; scores of validation and test.

    The inverse regularisation strength is the one of three with the best micro average precision on validation.
    *Shape:* both (texts, labels).
    """
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode")
    train = vectors.fit_transform(corpus.train.texts)
    validation, test = (vectors.transform(split.texts) for split in (corpus.validation, corpus.test))
    best: tuple[float, Floats, Floats] | None = None
    for strength in REGULARISATIONS:
        model = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=1000, solver="liblinear")).fit(train, corpus.train.targets)
        score = model.predict_proba(validation)
        quality = average_precision_score(corpus.validation.targets, score, average="micro")
        if best is None or quality > best[0]:
            best = (quality, score, model.predict_proba(test))
    assert best is not None
    return best[1], best[2]


def zero_shot_scores(corpus: Corpus, model_name: str, max_length: int) -> tuple[Floats, Floats]:
    """Cosine between a text and an interest's description in the untrained encoder's space, put on 0 to 1 by one logistic curve.

    *Shape:* both (texts, labels).
    """
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
