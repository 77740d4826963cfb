"""Fixtures: a BERT of a few words, trained by nobody, and a bundle around it; no test needs a network or the packaged weights."""

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("penchant", deadline=None)  # how long an example takes says more of the machine than of the code
settings.load_profile("penchant")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PENCHANT_CACHE"] = tempfile.mkdtemp(prefix="penchant-tests-")
atexit.register(shutil.rmtree, os.environ["PENCHANT_CACHE"], ignore_errors=True)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]
WORDS = [
    "run",
    "shoe",
    "trail",
    "marathon",
    "cat",
    "litter",
    "whisker",
    "purr",
    "bread",
    "dough",
    "oven",
    "flour",
    "parcel",
    "late",
    "rain",
    "the",
    "a",
    "my",
    "in",
    "and",
    "of",
    "it",
]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


CHARACTERS = "跑步鞋华为手机猫咪粮小米耐克在北京上海的了我买很好用一双只下雨快递"
"""Vocabulary of the Chinese tiny model: simplified characters alone."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a randomly initialised one-layer BERT, 16 wide, over `WORDS`."""
    return write_model(tmp_path_factory.mktemp("tiny") / "model", WORDS)


@pytest.fixture(scope="session")
def character_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT like `bert-base-chinese`, whose vocabulary is characters, but tiny and untrained."""
    return write_model(tmp_path_factory.mktemp("characters") / "model", list(CHARACTERS))


def write_model(folder: Path, pieces: list[str]) -> Path:
    """A BERT of one layer over these word pieces."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **shape)).save_pretrained(folder)
    return folder


TINY_TAXONOMY = """
name: tiny
nodes:
  - {id: sports, name: Sports, iab: "607"}
  - {id: sports.running, parent: sports, name: Running, description: run shoe trail marathon, iab: "410"}
  - {id: pets, name: Pets}
  - {id: pets.cats, parent: pets, name: Cats, description: cat litter whisker purr}
  - {id: food, name: Food}
  - {id: food.baking, parent: food, name: Baking, description: bread dough oven flour}
  - {id: faith, name: Faith, sensitive: true}
"""


@pytest.fixture(scope="session")
def tiny_taxonomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A taxonomy file of three interests with parents, and a sensitive top node."""
    path = tmp_path_factory.mktemp("taxonomy") / "taxonomy.yaml"
    path.write_text(TINY_TAXONOMY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_model: Path, tiny_taxonomy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model whose classifier reads its three interests off the words themselves.

    Every token's embedding points along the axis of its interest, the attention averages over the text, and everything
    behind it is the identity, so which tags a text gets can be told by eye: an interest is tagged exactly when one of
    its words stands in the text.
    """
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from penchant import taxonomy as taxonomies
    from penchant.files import file_digest
    from penchant.tagging.bundle import TaggerSpec, save_spec

    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    labels = ("sports.running", "pets.cats", "food.baking")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = BertConfig.from_pretrained(tiny_model, num_labels=3, problem_type="multi_label_classification")
    config.id2label, config.label2id = dict(enumerate(labels)), {label: n for n, label in enumerate(labels)}
    torch.manual_seed(1)
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        embeddings = model.bert.embeddings
        for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
            table.weight.zero_()
        for n in range(12):
            embeddings.word_embeddings.weight[5 + n, n // 4] = 20.0
        layer = model.bert.encoder.layer[0]
        for linear in (layer.attention.self.query, layer.attention.self.key):
            linear.weight.zero_()
            linear.bias.zero_()
        layer.attention.self.value.weight.copy_(torch.eye(16))
        layer.attention.output.dense.weight.copy_(torch.eye(16))
        for linear in (layer.intermediate.dense, layer.output.dense):
            linear.weight.zero_()
            linear.bias.zero_()
        for linear in (layer.attention.self.value, layer.attention.output.dense):
            linear.bias.zero_()
        model.bert.pooler.dense.weight.copy_(torch.eye(16))
        model.bert.pooler.dense.bias.zero_()
        model.classifier.weight.zero_()
        for n in range(3):
            model.classifier.weight[n, n] = 12.0
        model.classifier.bias.fill_(-6.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    spec = TaggerSpec(
        labels=labels,
        thresholds=(0.5, 0.5, 0.5),
        temperature=1.0,
        max_length=32,
        taxonomy=taxonomies.load(tiny_taxonomy),
        weights_sha256=file_digest(folder / "model.safetensors"),
    )
    save_spec(folder, spec)
    return folder


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Take the command line's log handler away again: it writes to the stderr of one test."""
    before, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = before
    logging.root.setLevel(level)
