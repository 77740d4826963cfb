"""Finding models: the packaged one, folders, and clear words for what isn't there."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from penchant.errors import ConfigError
from penchant.tagging.encoder import load_pretrained, resolve


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
