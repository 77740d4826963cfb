"""Finding models: the packaged one, folders, and clear words for what isn't there. Reading texts in windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer

from penchant.errors import ConfigError
from penchant.tagging.encoder import Reader, capitals, load_pretrained, resolve
from tests.conftest import WORDS


def test_the_packaged_model_is_on_disk() -> None:
    config = AutoConfig.from_pretrained(resolve("minilm"), local_files_only=True)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 6, 384)


def test_a_folder_is_itself_and_a_hub_name_stays_one(tiny_model: Path) -> None:
    assert resolve(str(tiny_model)) == str(tiny_model)
    assert resolve("bert-base-uncased") == "bert-base-uncased"


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model './nowhere': no such folder"):
        resolve("./nowhere")


def test_a_hub_name_without_network_says_how_to_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"'no-such/model': can't be loaded \(no network call is made unless HF_HUB_OFFLINE=0"):
        load_pretrained(AutoConfig, "no-such/model")


def reader(model: Path, **options: Any) -> Reader:
    """Over a tokenizer."""
    return Reader(AutoTokenizer.from_pretrained(model), **options)


def test_a_text_is_read_in_windows_that_share_pieces(tiny_model: Path) -> None:
    words = [WORDS[n % len(WORDS)] for n in range(23)]
    texts = [" ".join(words), "cat", ""]
    found = reader(tiny_model, max_length=10, stride=3)  # eight words of the text in each, five of them new
    windows, offsets = found.read(texts)
    assert [(each.text, each.first, len(each.input_ids)) for each in windows] == [
        *((0, 0, 10), (0, 5, 10), (0, 10, 10), (0, 15, 10)),
        *((1, 0, 3), (2, 0, 2)),
    ]
    assert [texts[0][start:end] for start, end in offsets[0]] == words
    assert (offsets[1], offsets[2]) == ([(0, 3)], [])


@pytest.mark.parametrize("stride", [0, 1, 3, 4])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 13, 23, 40])
def test_windows_are_merged_to_each_piece_once_and_the_deeper_reading_wins(tiny_model: Path, stride: int, count: int) -> None:
    found = reader(tiny_model, max_length=10, stride=stride)
    windows, offsets = found.read([" ".join(WORDS[n % len(WORDS)] for n in range(count)), "cat"])
    # a row says of each piece which one it is and how near it stands to the window's edge
    rows = []
    for window in windows:
        length = len(window.input_ids) - 2
        rows.append(np.array([[np.nan] * 2, *([window.first + n, min(n, length - 1 - n)] for n in range(length)), [np.nan] * 2]))
    merged = found.merge(windows, rows, 2)
    assert [len(each) for each in merged] == [count, 1] == [len(each) for each in offsets]
    assert merged[0][:, 0].tolist() == list(range(count))
    for piece, depth in merged[0]:
        others = [
            row[int(piece) - window.first + 1, 1]
            for window, row in zip(windows, rows, strict=True)
            if window.text == 0 and 0 <= piece - window.first < len(row) - 2
        ]
        assert depth >= max(others) - 1  # the middle of an odd stretch is as deep in one as in the other


def test_words_with_a_capital_first_are_marked(tiny_model: Path) -> None:
    text = "my Cat #Run 2Late @the iPhone ÉLAN"
    starts = [(0, 0), (0, 2), (3, 6), (7, 8), (8, 11), (12, 13), (13, 17), (18, 19), (19, 22), (23, 29), (30, 32), (32, 34)]
    assert capitals(text, starts) == [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1]
    marked = reader(tiny_model, max_length=10, mark_capitals=True)
    assert marked.read(["my Cat"])[0][0].token_type_ids == [0, 0, 1, 0]
    assert reader(tiny_model, max_length=10).read(["my Cat"])[0][0].token_type_ids is None


def test_traditional_characters_are_read_as_simplified_ones(character_model: Path) -> None:
    plain, simple = (reader(character_model, max_length=32, stride=4, simplify_chinese=each) for each in (False, True))
    (simplified_window,), (offsets,) = simple.read(["跑鞋華為"])
    assert simplified_window.input_ids == plain.read(["跑鞋华为"])[0][0].input_ids
    assert offsets == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert plain.read(["跑鞋華為"])[0][0].input_ids != simplified_window.input_ids
