"""What a training run can be told; see configs/train-interests.yaml for a complete example."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from penchant.config import Settings


def as_files(value: Any) -> Any:
    """One file, written without a list, as a list of one."""
    return (value,) if isinstance(value, str | Path) else value


Files = Annotated[tuple[Path, ...], BeforeValidator(as_files)]


def shown(files: Sequence[Path]) -> str:
    """Files as a message names them."""
    return ", ".join(map(str, files))


class Columns(Settings):
    """Which columns of the training files hold what."""

    text: tuple[str, ...] = ("text",)
    """Columns joined into the text, in order; empty ones are left out. The second and later ones may be absent."""
    labels: str = "interests"
    """Column with the list of interest ids (in CSV: separated by `;` or spaces)."""
    spans: str = "spans"
    """Column with the list of spans: `start` and `end` as character offsets into the text, `dimension`, and if you like `text`, to be checked against it (in CSV: as JSON)."""
    kind: str | None = "kind"
    """Column with the kind of text, for the report by kind."""
    language: str | None = "language"
    """Column with the language; where it is absent the report tells texts apart by their script."""
    group: str | None = None
    """Column with the user or item a text belongs to: kept on one side of every split that `split: group` makes."""
    user_group: str | None = None
    """Column with the kind of user a text is by, for the report by user group."""
    time: str | None = None
    """Column with the time of a text (ISO 8601), for `split: time`."""


class TrainSettings(Settings):
    """One run: sequence classification over a taxonomy, token classification, or both by one model."""

    task: Literal["interests", "spans", "both"] = "interests"
    """`interests`: which interests a text shows. `spans`: which words name a brand, a product, a work, a place. `both`: one encoder with two heads."""

    model: str = "minilm"
    """`minilm` (packaged), a folder, or a hub name."""
    layers: int | None = Field(None, ge=1)
    """Encoder layers kept of those `model` has, evenly spaced, with the first and the last among them (of one: the first); absent: all."""
    teacher: Path | None = None
    """A bundle with the same labels and dimensions, whose answers take the place of the training rows' own: its probabilities of the interests
    (sigmoid or softmax, as `loss` says, at temperature 1) and the spans it finds. Validation and test rows keep their labels."""
    unlabelled: Files | None = None
    """More texts to learn from the `teacher`: tables with the `columns.text` columns, one file or a list. Rows without a usable text are left out, and
    always those nearly the same as a training, validation or test text."""
    train: Annotated[Files, Field(min_length=1)]
    """Labelled texts: CSV, TSV, JSON Lines, Parquet, or CoNLL for spans (`.conll`: a token and its BIO tag per line, an empty line after each text); one file or a list."""
    validation: Files | None = None
    """Labelled texts for thresholds, calibration and early stopping; absent: `validation_share` of the training rows."""
    test: Files | None = None
    """Labelled texts the report is made on; absent: as many of the training rows again."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Share of the training rows set aside for each of validation and test that has no file."""
    split: Literal["random", "group", "time"] = "random"
    """How rows are set aside: at random, whole groups (users, items), or the latest ones."""
    near_duplicate: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of two texts' character 5-grams from which they count as the same text."""
    leaks: Literal["refuse", "drop", "allow"] = "refuse"
    """What happens to a training text that also stands, nearly the same, in the validation or test rows (and to a validation text in the test rows)."""
    max_train_rows: int | None = Field(None, ge=1)
    """Use a random sample of this many training rows."""
    columns: Columns = Columns()
    """Column names of the files."""
    taxonomy: Path | None = None
    """Taxonomy file; absent: a flat one over the labels found in the training rows."""
    labels: tuple[str, ...] | None = None
    """Interests to train; absent: the taxonomy's leaves."""
    dimensions: dict[str, str] | None = None
    """Types of spans to learn, each with the dimension its tags get; absent: those found in the training rows, as they are called there."""
    conll_joiner: str = " "
    """What stands between the tokens of a CoNLL file; an empty text for Chinese."""
    output: Path
    """Folder for the bundle, the checkpoints and the report."""

    epochs: int = Field(8, ge=1)
    """Passes over the training rows."""
    batch_size: int = Field(32, ge=1)
    """Texts per optimiser step, over all processes and accumulation steps together."""
    accumulation_steps: int = Field(1, ge=1)
    """Forward passes one optimiser step is split into."""
    learning_rate: float = Field(1e-4, gt=0)
    """Peak rate of the encoder."""
    head_learning_rate: float = Field(1e-3, gt=0)
    """Peak rate of the pooler and the classifier, which start untrained."""
    probe_epochs: int = Field(20, ge=0)
    """Passes of the head alone over the untrained encoder's vectors, which cost next to nothing, before the encoder learns too."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, on weight matrices only."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    """Share of the steps over which the rates rise; then they fall linearly to 0."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this length."""
    loss: Literal["bce", "softmax"] = "bce"
    """`bce`: each interest on its own. `softmax`: interests compete (for data with about one interest per text)."""
    span_weight: float | None = Field(None, gt=0)
    """Factor of the spans' loss beside that of the interests (task both); absent: the words of a training text, so that both are sums over what is decided."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Targets are pulled from 0 and 1 by this much (bce only)."""
    max_length: int = Field(128, ge=8)
    """Word pieces read per text; for spans, per window of a text."""
    stride: int = Field(32, ge=0)
    """Word pieces that two windows of a long text share (spans only; interests are read off the first window)."""
    mark_capitals: bool = False
    """Tell the model by token type 1 which words begin with a capital: for uncased checkpoints, whose vocabulary can't show it."""
    simplify_chinese: bool = False
    """Read traditional Chinese characters as simplified ones."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """`auto` measures for a second what this hardware multiplies fastest."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation score before the run stops."""
    checkpoint_steps: int = Field(50, ge=1)
    """Optimiser steps between checkpoints; a killed run resumes from the last one."""
    seed: int = 13
    """Of every random choice."""
    tracker: Literal["tensorboard", "aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "trackio", "wandb"] | None = None
    """Where the curves go beside the report, by `accelerate`'s name for it: tensorboard writes to `output/logs`, several of the others to their
    makers' servers."""

    dropout: float | None = Field(None, ge=0, lt=1)
    """Share of the encoder's activations left out in training; absent: what the checkpoint says."""
    weight_average: float = Field(0.0, ge=0, lt=1)
    """Share of the old in a running average of the weights, which is then what is judged and kept; 0: the weights as they are."""
    calibration: Literal["auto", "temperature", "isotonic"] = "auto"
    """How scores are made honest: one temperature, or also an isotonic curve per interest; `auto` takes what cross-validates better on the validation rows."""
    threshold_precision: float | None = Field(None, gt=0, le=1)
    """Thresholds are the lowest that reach this precision on validation; absent: those with the best F1."""
    min_tags: int = Field(0, ge=0)
    """Tags every text gets at least."""
    max_tags: int = Field(5, ge=1)
    """Tags a text gets at most."""
    baselines: tuple[Literal["logistic_regression", "random_forest", "zero_shot"], ...] = ("logistic_regression", "zero_shot")
    """Also measured on the same rows: TF-IDF with logistic regression or with a random forest, and the untrained encoder (interests only)."""

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def spelled(cls, value: Any) -> Any:
        """A bare `no`, which YAML reads as false."""
        return "no" if value is False else value

    @model_validator(mode="after")
    def sound(self) -> "TrainSettings":
        """A batch has to fall into equal accumulation steps, a split needs its column, windows have to move on, unlabelled texts need a teacher."""
        if self.task != "interests" and self.stride * 2 >= self.max_length:
            raise ValueError(f"stride {self.stride} has to be less than half of max_length {self.max_length}")
        for kind in ("group", "time"):
            if self.split == kind and getattr(self.columns, kind) is None:
                raise ValueError(f"split: {kind} needs columns.{kind}, the name of its column")
        if self.batch_size % self.accumulation_steps:
            raise ValueError(f"batch_size {self.batch_size} can't be split into accumulation_steps {self.accumulation_steps}")
        if self.unlabelled is not None and self.teacher is None:
            raise ValueError(
                "unlabelled texts need a teacher, a bundle such as runs/interests/bundle, to say what is to be learned from them"
            )
        if self.teacher is not None and self.teacher.resolve() == (self.output / "bundle").resolve():
            raise ValueError(f"output {self.output}: its bundle is the teacher, which the student's would replace; give another folder")
        return self
