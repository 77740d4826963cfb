"""Windows of any lengths one after the other in a single row, without padding: each piece attends to its own window's alone.

For BERT on GPUs, where PyTorch has a kernel for it (FlashAttention-2, arXiv 2307.08691, with the windows' ends as an
argument) that a mask over a padded batch would keep out. Everything but attention treats pieces one by one anyway. A CPU
takes window by window, which gains it nothing.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, BertForSequenceClassification, BertForTokenClassification

from penchant.tagging.encoder import TaggerModel

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # an older PyTorch
    varlen_attn = None

NAME = "penchant_packed"
"""Of the attention, among those of transformers."""
Integers = npt.NDArray[np.int64]


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    scaling: float,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within windows, whose ends `cu_seq_lens_q` has: 0 first, then the number of pieces up to the end of each.

    *Shape:* query, key, value (1, heads, pieces, width); result (1, pieces, heads, width).
    """
    assert not module.training
    assert attention_mask is None
    if query.device.type == "cuda":
        rows = [each[0].transpose(0, 1) for each in (query, key, value)]
        ends = (cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q)
        return varlen_attn(*rows, *ends, scale=scaling, num_splits=1)[None], None  # one split: no dependence on the company
    lengths = cu_seq_lens_q.diff().tolist()
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    found = [scaled_dot_product_attention(q, k, v, scale=scaling) for q, k, v in parts]
    return torch.cat(found, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, attention)


def can_pack(model: TaggerModel) -> bool:
    """Whether the checkpoint is a BERT whose windows can be packed with this PyTorch."""
    stock = isinstance(model.stock, (BertForSequenceClassification, BertForTokenClassification))
    has_kernel = varlen_attn is not None and "num_splits" in inspect.signature(varlen_attn).parameters
    return stock and has_kernel and getattr(model.stock.config, "position_embedding_type", "absolute") == "absolute"


def prepare(model: TaggerModel) -> None:
    """Let a model attend as `forward` needs it; it reads no padded batches then."""
    model.stock.set_attn_implementation(NAME)


def packed(batch: Mapping[str, Integers]) -> dict[str, Integers]:
    """A padded batch as one row, with each piece's place in its window, and `ends`: 0, then the number of pieces up to the end of each window.

    *Shape:* each of the batch (windows, pieces), padded behind; results (1, pieces of all), `ends` (windows + 1,).
    """
    mask = batch["attention_mask"].astype(bool)
    row = {name: each[mask][None] for name, each in batch.items() if name != "attention_mask"}
    places = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)[mask][None]
    return row | {"position_ids": places, "ends": np.concatenate([[0], mask.sum(1).cumsum()])}


def forward(model: TaggerModel, longest: int, ends: torch.Tensor, **row: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """As `TaggerModel.forward`, of `packed` windows of at most `longest` pieces, with the pieces of all windows in one row.

    *Shape:* results (windows, labels), (pieces of all, classes).
    """
    stock = model.stock
    hidden = stock.bert(**row, cu_seq_lens_q=ends.int(), max_length_q=longest).last_hidden_state[0]
    if model.task == "spans":
        return None, stock.classifier(hidden).float()
    pooled = stock.bert.pooler(hidden[ends[:-1], None])
    pieces = model.span_head(hidden).float() if model.span_head is not None else None
    return stock.classifier(pooled).float(), pieces
