"""Distillation: a student with some of its teacher's layers learns what the teacher answers, on labelled and on other texts."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertModel,
)

from penchant import taxonomy as taxonomies
from penchant.cli import main
from penchant.config import load
from penchant.errors import ConfigError, DataError
from penchant.files import file_digest
from penchant.tagging.bundle import SPAN_HEAD, SpanSpec, TaggerSpec, load_spec, save_spec
from penchant.tagging.encoder import TaggerModel, load_model
from penchant.training import checkpoint, distil, loop
from penchant.training.distil import ANSWERS, taught
from penchant.training.evaluation import finish
from penchant.training.loop import run_name, train
from penchant.training.model import build_model, keep_layers
from penchant.training.settings import TrainSettings
from penchant.training.splits import load_corpus
from penchant.training.validate import validate
from tests.tables import write_rows as write_table
from tests.training.conftest import TOPICS, labelled, write_rows

SettingsFile = Callable[..., Path]
LAYERS = 4


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Accelerate keeps one state per process; each run here is a program of its own."""
    yield
    forget()


def forget() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run(settings: TrainSettings) -> dict[str, Any]:
    """Train to the end; the figures."""
    forget()
    figures = finish(train(settings), settings)
    assert figures is not None
    return figures


def lessons(settings: TrainSettings) -> Any:
    """What a run would learn from."""
    forget()
    return taught(Accelerator(cpu=True), load_corpus(settings), settings)


def write_teacher(folder: Path, tiny_model: Path, taxonomy: Path, task: str, labels: tuple[str, ...] = tuple(TOPICS)) -> Path:
    """A bundle of four layers over the tiny vocabulary that answers at random, but always the same."""
    torch.manual_seed(7)
    config = AutoConfig.from_pretrained(
        tiny_model, num_hidden_layers=LAYERS, initializer_range=0.4, num_labels=5 if task == "spans" else len(labels)
    )
    kind = AutoModelForTokenClassification if task == "spans" else AutoModelForSequenceClassification
    stock = kind.from_config(config)
    TaggerModel(stock, task, nn.Linear(16, 5) if task == "both" else None).save(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    parts: dict[str, Any] = {"max_length": 32, "weights_sha256": file_digest(folder / "model.safetensors")}
    if task != "spans":
        parts |= {"labels": labels, "thresholds": (0.5,) * len(labels), "taxonomy": taxonomies.load(taxonomy)}
    if task != "interests":
        head = {"head_sha256": file_digest(folder / SPAN_HEAD)} if task == "both" else {}
        parts["spans"] = SpanSpec(dimensions=("place", "product"), thresholds=(0.2, 0.2), temperature=1.0, stride=8, **head)
    save_spec(folder, TaggerSpec(**parts))
    return folder


@pytest.fixture
def teacher(tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path) -> Path:
    """A teacher of interests."""
    return write_teacher(tmp_path / "teacher", tiny_model, tiny_taxonomy, "interests")


def logits_one_by_one(folder: Path, texts: list[str]) -> torch.Tensor:
    """A stock checkpoint's outputs, each text by itself."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        found = [model(**tokenizer(text, truncation=True, max_length=32, return_tensors="pt")).logits[0] for text in texts]
    return torch.stack(found)


NEW = ["an old parcel of bread came late in the rain", "whisker and purr: my cat in the litter"]


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Two texts to learn from, and others that must not be learned from."""
    rows = {name: labelled(count, n) for n, (name, count) in enumerate({"train": 96, "validation": 40, "test": 40}.items())}
    longest = {name: max(each, key=lambda row: len(row["text"]))["text"] for name, each in rows.items()}
    texts = [
        NEW[0],
        longest["validation"],
        f"{longest['test'].upper()} 😀!",
        "",
        NEW[1],
        longest["train"],
        "<p>  </p>",
        NEW[0].replace(" ", "  "),
    ]
    path = tmp_path / "unlabelled.jsonl"
    path.write_text("".join(json.dumps({"text": each, "other": 1}) + "\n" for each in texts) + "{broken\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("loss", ["bce", "softmax"])
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_learned_are_the_teacher_s_probabilities(
    settings_file: SettingsFile, tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path, unlabelled: Path, loss: str, turned: bool
) -> None:
    order = list(reversed(TOPICS)) if turned else list(TOPICS)
    folder = write_teacher(tmp_path / "teacher", tiny_model, tiny_taxonomy, "interests", tuple(order))
    settings = load(TrainSettings, settings_file(teacher=str(folder), unlabelled=str(unlabelled), loss=loss, near_duplicate=0.95))
    found = lessons(settings)
    assert found.texts == [*load_corpus(settings).train.texts, *NEW]
    logits = logits_one_by_one(folder, found.texts)[:, [order.index(each) for each in TOPICS]]
    expected = torch.sigmoid(logits) if loss == "bce" else torch.softmax(logits, dim=1)
    np.testing.assert_allclose(found.targets, expected.numpy(), atol=1e-5)
    assert found.targets.std(axis=0).min() > 0.02  # it does answer one thing to one text and another to another
    corpus = load_corpus(settings)
    assert set(np.unique([corpus.train.targets.max(), *corpus.validation.targets.flat, *corpus.test.targets.flat])) == {0, 1}


def test_no_text_is_learned_from_that_is_measured_on(
    settings_file: SettingsFile, teacher: Path, unlabelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    more = write_table(tmp_path / "more.csv", [{"text": NEW[1]}, {"text": "the marathon trail was late"}])
    path = settings_file(teacher=str(teacher), unlabelled=[str(unlabelled), str(more)], leaks="allow", near_duplicate=0.95)
    corpus = load_corpus(load(TrainSettings, path))
    assert corpus.unlabelled is not None
    assert corpus.unlabelled.texts == [*NEW, "the marathon trail was late"]
    assert corpus.unlabelled.places == [f"{unlabelled}:1", f"{unlabelled}:5", f"{more}:3"]
    assert f"{unlabelled}: 3 rows are left out that have no usable text" in caplog.text
    said = "3 unlabelled texts to learn from; 2 stand there more than once, 3 nearly the same among the labelled texts, the first: "
    assert f"{said}{unlabelled}:2 and {tmp_path / 'validation.jsonl'}:" in caplog.text


def test_a_student_learns_its_teacher_s_answers_and_not_the_labels(settings_file: SettingsFile, tmp_path: Path, tiny_bundle: Path) -> None:
    encoder = tmp_path / "encoder"  # the hand-made bundle without its classifier
    BertModel.from_pretrained(tiny_bundle).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(tiny_bundle).save_pretrained(encoder)
    options = {"epochs": 2, "probe_epochs": 100, "learning_rate": 1e-4, "head_learning_rate": 0.03}
    path = settings_file(model=str(encoder), teacher=str(tiny_bundle), **options)
    rows, turned = labelled(96, 0), dict(zip(TOPICS, [*list(TOPICS)[1:], next(iter(TOPICS))], strict=True))
    write_rows(tmp_path / "train.jsonl", [row | {"interests": [turned[each] for each in row["interests"]]} for row in rows])
    figures = run(load(TrainSettings, path))
    assert figures["results"]["bert"]["all"]["macro"]["f1"] > 0.85  # by the labels it would be near 0
    assert figures["student"] == {"teacher": load_spec(tiny_bundle).fingerprint, "layers": 1, "texts": 96, "unlabelled": 0}


def test_spans_are_those_the_teacher_finds(settings_file: SettingsFile, tmp_path: Path) -> None:
    options = {"task": "spans", "epochs": 12, "patience": 12}
    run(load(TrainSettings, settings_file("teacher", **options)))
    more = write_rows(tmp_path / "more.jsonl", [{"text": "rain in my oven and on the trail of a marathon"}])
    bundle = tmp_path / "teacher" / "bundle"
    path = settings_file("student", model=str(bundle), teacher=str(bundle), unlabelled=str(more), **options | {"epochs": 1})
    settings = load(TrainSettings, path)
    found, corpus = lessons(settings), load_corpus(settings)
    assert [span[:3] for span in found.spans[-1]] == [(11, 15, "product"), (27, 32, "place")]
    same = sum({s[:3] for s in own} == {s[:3] for s in true} for own, true in zip(found.spans, [*corpus.train.spans, ()], strict=True))
    assert same > 0.95 * len(corpus.train)
    again = lessons(settings)
    assert again.spans == found.spans
    figures = run(settings)
    assert figures["spans"]["decoded"]["micro"]["f1"] > 0.9
    assert figures["student"]["texts"] == 97


@pytest.mark.parametrize(("count", "kept"), [(1, [0]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3])])
@pytest.mark.parametrize("task", ["interests", "spans", "both"])
def test_a_student_begins_with_layers_of_its_teacher(
    settings_file: SettingsFile, tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path, task: str, count: int, kept: list[int]
) -> None:
    folder = write_teacher(tmp_path / "teacher", tiny_model, tiny_taxonomy, task)
    settings = load(TrainSettings, settings_file(task=task, model=str(folder), layers=count))
    student = build_model(settings, load_corpus(settings))
    own, theirs = student.stock.state_dict(), load_file(folder / "model.safetensors")
    prefix = "bert.encoder.layer."
    expected = {name: each for name, each in theirs.items() if not name.startswith(prefix)}
    for place, layer in enumerate(kept):
        start = f"{prefix}{layer}."
        expected |= {f"{prefix}{place}.{name[len(start) :]}": each for name, each in theirs.items() if name.startswith(start)}
    assert own.keys() - {"bert.embeddings.position_ids"} == expected.keys()
    assert all(torch.equal(own[name], each) for name, each in expected.items())
    if task == "both":
        assert student.span_head is not None
        assert all(torch.equal(each, load_file(folder / SPAN_HEAD)[name]) for name, each in student.span_head.state_dict().items())
    student.save(tmp_path / "student")
    loaded, ids = load_model(tmp_path / "student", task).eval(), torch.tensor([[2, 5, 9, 13, 3]])
    assert loaded.stock.config.num_hidden_layers == count
    with torch.inference_mode():
        for one, other in zip(loaded(input_ids=ids), student.eval()(input_ids=ids), strict=True):
            assert (one is None and other is None) or torch.allclose(one, other, atol=1e-6)


def test_other_families_keep_layers_or_are_refused(tmp_path: Path) -> None:
    shape = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_labels": 3,
    }
    for architecture in ("distilbert", "roberta", "electra", "mpnet", "deberta-v2"):
        renamed = {"dim": 16, "hidden_dim": 32} if architecture == "distilbert" else {}
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(architecture, **shape | renamed)).eval()
        before = {name: each.clone() for name, each in model.state_dict().items()}
        keep_layers(model, 3)
        model.save_pretrained(tmp_path / architecture)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / architecture).eval()
        assert loaded.config.num_hidden_layers == 3
        ids = torch.tensor([[0, 7, 8, 9, 2]])
        with torch.inference_mode():
            assert torch.allclose(loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-6)
        second = next(name for name in before if ".layer.2." in name)
        assert torch.equal(loaded.state_dict()[second.replace(".layer.2.", ".layer.1.")], before[second])  # 0, 2 and 4 are kept
    albert = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("albert", embedding_size=8, **shape))
    with pytest.raises(ConfigError, match="layers: a AlbertForSequenceClassification has no list of layers"):
        keep_layers(albert, 3)


class Killed(Exception):  # noqa: N818
    """Stands for a kill inside this process."""


def test_a_broken_off_student_ends_with_the_weights_of_an_unbroken_one_and_asks_once(
    settings_file: SettingsFile, tmp_path: Path, teacher: Path, unlabelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"model": str(teacher), "teacher": str(teacher), "unlabelled": str(unlabelled), "layers": 2, "checkpoint_steps": 4}
    unbroken, broken = (load(TrainSettings, settings_file(name, learning_rate=1e-3, **options)) for name in ("unbroken", "broken"))
    run(unbroken)
    asked: list[int] = []
    real_asked, real_save, real_epoch = distil.asked, checkpoint.save, loop.train_epoch

    def counted(*arguments: Any) -> Any:
        asked.append(len(arguments[2]))
        return real_asked(*arguments)

    def save_then_die(*arguments: Any) -> None:
        real_save(*arguments)
        raise Killed

    def die(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(distil, "asked", counted)
    for owner, name, deadly, real in ((loop, "train_epoch", die, real_epoch), (checkpoint, "save", save_then_die, real_save)):
        monkeypatch.setattr(owner, name, deadly)
        with pytest.raises(Killed):
            run(broken)
        monkeypatch.setattr(owner, name, real)
    run(broken)
    assert asked == [98]
    left, right = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("unbroken", "broken"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_damaged_answers_are_asked_for_again(
    settings_file: SettingsFile, tmp_path: Path, teacher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(TrainSettings, settings_file(teacher=str(teacher)))
    before, file = lessons(settings), tmp_path / "run" / ANSWERS
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:200] + bytes(each ^ 255 for each in whole[200:220]) + whole[220:]):
        file.write_bytes(damaged)
        assert np.array_equal(lessons(settings).targets, before.targets)
        assert f"{file}: damaged, so the teacher is asked again" in caplog.text
        assert file.read_bytes() == whole
        caplog.clear()


def test_another_teacher_or_other_texts_are_other_answers_and_another_run(
    settings_file: SettingsFile, tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path, teacher: Path, unlabelled: Path
) -> None:
    settings = load(TrainSettings, settings_file(teacher=str(teacher), unlabelled=str(unlabelled)))
    names, found = [run_name(settings)], lessons(settings)
    with unlabelled.open("a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({"text": "my shoe and a late marathon"}) + "\n")
    names.append(run_name(settings))
    longer = lessons(settings)
    assert len(longer) == len(found) + 1
    assert np.allclose(longer.targets[:-1], found.targets, atol=1e-6)
    model = load_model(teacher, "interests")
    model.stock.classifier.bias.data += 1.0
    model.save(teacher)
    save_spec(teacher, load_spec_anew(teacher))
    names.append(run_name(settings))
    logits = [np.log(each.targets / (1 - each.targets)) for each in (longer, lessons(settings))]
    assert np.allclose(logits[1], logits[0] + 1.0, atol=1e-3)
    names.append(run_name(settings.model_copy(update={"layers": 1})))
    assert len(set(names)) == 4


def load_spec_anew(folder: Path) -> TaggerSpec:
    """The spec of a bundle whose weights were exchanged."""
    content = json.loads((folder / "tagger.json").read_text(encoding="utf-8"))
    del content["fingerprint"]
    return TaggerSpec.model_validate(content | {"weights_sha256": file_digest(folder / "model.safetensors")})


def test_settings_that_contradict_one_another_are_refused(settings_file: SettingsFile, teacher: Path, unlabelled: Path) -> None:
    with pytest.raises(ConfigError, match="unlabelled texts need a teacher"):
        load(TrainSettings, settings_file(unlabelled=str(unlabelled)))
    with pytest.raises(ConfigError, match="layers: input should be greater than or equal to 1, got 0"):
        load(TrainSettings, settings_file(layers=0))
    (teacher.parent / "run").mkdir()
    teacher.rename(teacher.parent / "run" / "bundle")
    with pytest.raises(ConfigError, match="its bundle is the teacher, which the student's would replace"):
        load(TrainSettings, settings_file(teacher=str(teacher.parent / "run" / ".." / "run" / "bundle")))


def test_more_layers_than_there_are_are_refused_before_anything_is_read(
    settings_file: SettingsFile, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(TrainSettings, settings_file(model=str(teacher), layers=LAYERS + 1))
    monkeypatch.setattr(loop, "load_corpus", lambda _: pytest.fail("the data were read"))
    with pytest.raises(ConfigError, match="layers 5: the model has 4; give at most as many"):
        train(settings)


def test_a_teacher_of_something_else_is_refused(
    settings_file: SettingsFile, tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path, teacher: Path
) -> None:
    for changed, message in (
        ({"teacher": str(tiny_model)}, "no bundle .it has no tagger.json."),
        ({"task": "spans"}, f"teacher {teacher}: finds interests only, which doesn't teach task spans"),
        ({"labels": list(TOPICS)[:2]}, "its interests aren't those of the run, they differ in food.baking"),
    ):
        with pytest.raises(DataError, match=message):
            load_corpus(load(TrainSettings, settings_file(**{"teacher": str(teacher)} | changed)))
    both = write_teacher(tmp_path / "both", tiny_model, tiny_taxonomy, "both")
    with pytest.raises(DataError, match="its dimensions aren't those of the run, they differ in product, thing"):
        load_corpus(load(TrainSettings, settings_file(task="spans", teacher=str(both), dimensions={"place": "place", "product": "thing"})))
    (teacher / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError) as caught:
        load_corpus(load(TrainSettings, settings_file(model=str(teacher), teacher=str(teacher))))
    assert str(caught.value).count("model.safetensors: missing or damaged") == 1


def test_unlabelled_files_need_the_text_column(settings_file: SettingsFile, tmp_path: Path, teacher: Path) -> None:
    files = [write_rows(tmp_path / "a.jsonl", [{"body": "late rain"}]), write_rows(tmp_path / "b.jsonl", [{"text": ""}])]
    with pytest.raises(DataError) as caught:
        load_corpus(load(TrainSettings, settings_file(teacher=str(teacher), unlabelled=[str(each) for each in files])))
    assert f"{files[0]}:1: no column 'text'; it has 'body'" in str(caught.value)
    assert f"{files[1]}: no rows with a text" in str(caught.value)


def test_folds_are_not_tested_on_what_a_teacher_learned_from(
    settings_file: SettingsFile, teacher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load(TrainSettings, settings_file(teacher=str(teacher), validation=None, test=None, batch_size=8))
    with pytest.raises(ConfigError, match="may have learned from the rows that each fold is tested on"):
        validate(settings, 3)
    load_corpus(settings)
    assert "a teacher trained with others has learned from some of them" in caplog.text


def test_compress_writes_a_smaller_bundle_and_says_whose_student_it_is(
    settings_file: SettingsFile, tmp_path: Path, teacher: Path, unlabelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings_file("student", unlabelled=str(unlabelled), epochs=1)
    main(["compress", str(teacher), "--config", str(path), "--set", "layers=2"])
    bundle = tmp_path / "student" / "bundle"
    assert f"bundle: {bundle}" in capsys.readouterr().out
    assert load_spec(bundle).labels == tuple(TOPICS)
    assert load_model(bundle, "interests").stock.config.num_hidden_layers == 2
    card = (bundle / "README.md").read_text(encoding="utf-8")
    begun = f"A student with 2 layers of the bundle `{load_spec(teacher).fingerprint}`, begun with its teacher's weights and taught"
    assert begun in card
    assert "answers to 98 texts: 96 labelled ones (train.jsonl) and 2 others (unlabelled.jsonl), thresholds" in card
    report = json.loads((tmp_path / "student" / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["rows"]["train"] == 96
    assert report["student"]["unlabelled"] == 2


def test_a_student_of_both_tasks(settings_file: SettingsFile, tmp_path: Path, tiny_model: Path, tiny_taxonomy: Path) -> None:
    folder = write_teacher(tmp_path / "teacher", tiny_model, tiny_taxonomy, "both")
    main(["compress", str(folder), "--config", str(settings_file(task="both", epochs=1, layers=1))])
    spec = load_spec(tmp_path / "run" / "bundle")
    assert (spec.task, spec.spans.dimensions if spec.spans else ()) == ("both", ("place", "product"))
    assert load_model(tmp_path / "run" / "bundle", "both").stock.config.num_hidden_layers == 1


def test_only_a_bundle_can_be_compressed(settings_file: SettingsFile, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compress", str(tiny_model), "--config", str(settings_file())])
    assert ended.value.code == 1
    assert "no bundle (it has no tagger.json)" in capsys.readouterr().err
