"""Multi-label metrics as `evaluate.Metric` modules that need no hub, computed by scikit-learn."""

from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

DESCRIPTION = "Precision, recall, F1 and average precision of multi-label predictions, per label and averaged; and of predicting no label."


class MultiLabel(evaluate.Metric):
    """Predictions and references are 0/1 rows, `scores` 0 to 1 rows; all *Shape:* (texts, labels).

    `compute(..., scores=, labels=)` gives `micro`, `macro`, `samples` (each precision, recall, f1), `none` (a text
    without labels as a class of its own), `macro_average_precision`, and `per_label` by name with `support`. The macro
    average runs over the labels that occur in the references.
    """

    def _info(self) -> evaluate.MetricInfo:
        vectors = datasets.Sequence(datasets.Value("int8"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            features=datasets.Features({"predictions": vectors, "references": vectors}),
            inputs_description="predictions, references: 0/1 rows",
        )

    def _compute(self, predictions: Any, references: Any, scores: Any = None, labels: Any = None) -> dict[str, Any]:
        predicted, true = np.asarray(predictions, dtype=int), np.asarray(references, dtype=int)
        names = list(labels) if labels is not None else [str(n) for n in range(true.shape[1])]
        per_label = dict(
            zip(
                ("precision", "recall", "f1", "support"),
                precision_recall_fscore_support(true, predicted, average=None, zero_division=0),
                strict=True,
            )
        )
        present = np.flatnonzero(true.sum(axis=0))
        average_precision = np.full(len(names), np.nan)
        if scores is not None:
            for n in present:
                average_precision[n] = average_precision_score(true[:, n], np.asarray(scores)[:, n])
        result: dict[str, Any] = {
            "macro": {key: float(per_label[key][present].mean()) if len(present) else 0.0 for key in ("precision", "recall", "f1")}
        }
        for average in ("micro", "samples"):
            result[average] = triple(true, predicted, average)
        result["none"] = triple(~true.any(axis=1), ~predicted.any(axis=1), "binary") | {"support": int((~true.any(axis=1)).sum())}
        result["macro_average_precision"] = float(np.nanmean(average_precision[present])) if scores is not None and len(present) else None
        result["per_label"] = {
            name: {
                "precision": float(per_label["precision"][n]),
                "recall": float(per_label["recall"][n]),
                "f1": float(per_label["f1"][n]),
                "support": int(per_label["support"][n]),
                "average_precision": None if np.isnan(average_precision[n]) else float(average_precision[n]),
            }
            for n, name in enumerate(names)
        }
        return result


def triple(true: Any, predicted: Any, average: Any) -> dict[str, float]:
    """Precision, recall and F1 under one way of averaging."""
    values = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
    return dict(zip(("precision", "recall", "f1"), map(float, values[:3]), strict=True))


def f1_intervals(true: Any, predicted: Any, draws: int = 1000, seed: int = 13) -> dict[str, tuple[float, float]]:
    """95% intervals of `macro`, `micro` and `none` F1 by the percentile bootstrap over texts (Efron 1979).

    The macro average of a draw runs over the labels that occur in it. Equal `draws` and `seed` draw the same texts, so
    that two models on one split are drawn alike. *Shape:* true and predicted (texts, labels), 0 or 1.
    """
    true, predicted = np.asarray(true) > 0, np.asarray(predicted) > 0
    texts = len(true)
    weights = np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), size=draws).astype(float)
    nothing = [(~each.any(axis=1))[:, None] for each in (true, predicted)]
    hits, wrong = (weights @ (each.astype(float)) for each in (true & predicted, true ^ predicted))
    none_hits, none_wrong = (weights @ (each.astype(float)) for each in (nothing[0] & nothing[1], nothing[0] ^ nothing[1]))
    support = weights @ true.astype(float)
    per_label = np.where(support > 0, f1(hits, wrong), np.nan)
    found = {
        "macro": np.nanmean(per_label, axis=1),
        "micro": f1(hits.sum(axis=1), wrong.sum(axis=1)),
        "none": f1(none_hits[:, 0], none_wrong[:, 0]),
    }
    return {name: (float(np.percentile(each, 2.5)), float(np.percentile(each, 97.5))) for name, each in found.items()}


def f1(hits: Any, wrong: Any) -> Any:
    """F1 from true positives and from false alarms and misses together; 0 where there is neither."""
    return 2 * hits / np.maximum(2 * hits + wrong, 1e-12)
