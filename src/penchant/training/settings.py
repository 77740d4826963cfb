"""What a training run can be told; see configs/train-interests.yaml for a complete example."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from penchant.config import Settings


class Columns(Settings):
    """Which columns of the training files hold what."""

    text: tuple[str, ...] = ("text",)
    """Columns joined into the text, in order; empty ones are left out. The second and later ones may be absent."""
    labels: str = "interests"
    """Column with the list of interest ids (in CSV: separated by `;` or spaces)."""
    kind: str | None = "kind"
    """Column with the kind of text, for the report by kind."""


class TrainSettings(Settings):
    """One run of sequence classification over a taxonomy."""

    model: str = "minilm"
    """`minilm` (packaged), a folder, or a hub name."""
    train: Path
    """Labelled texts: CSV, TSV, JSON Lines or Parquet."""
    validation: Path | None = None
    """Labelled texts for thresholds, temperature and early stopping; absent: `validation_share` of the training rows."""
    test: Path | None = None
    """Labelled texts the report is made on; absent: the validation rows."""
    validation_share: float = Field(0.1, gt=0, lt=1)
    """Share of the training rows set aside when no validation file is given."""
    max_train_rows: int | None = Field(None, ge=1)
    """Use a random sample of this many training rows."""
    columns: Columns = Columns()
    """Column names of the files."""
    taxonomy: Path | None = None
    """Taxonomy file; absent: a flat one over the labels found in the training rows."""
    labels: tuple[str, ...] | None = None
    """Interests to train; absent: the taxonomy's leaves."""
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
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Targets are pulled from 0 and 1 by this much (bce only)."""
    max_length: int = Field(128, ge=8)
    """Word pieces read per text."""
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

    threshold_precision: float | None = Field(None, gt=0, le=1)
    """Thresholds are the lowest that reach this precision on validation; absent: those with the best F1."""
    min_tags: int = Field(0, ge=0)
    """Tags every text gets at least."""
    max_tags: int = Field(5, ge=1)
    """Tags a text gets at most."""
    baselines: bool = True
    """Also measure TF-IDF with logistic regression, and the untrained encoder, on the same rows."""

    @model_validator(mode="after")
    def divisible(self) -> "TrainSettings":
        """A batch has to fall into equal accumulation steps."""
        if self.batch_size % self.accumulation_steps:
            raise ValueError(f"batch_size {self.batch_size} can't be split into accumulation_steps {self.accumulation_steps}")
        return self
