"""The training loop."""

import importlib.util
import logging
import os
import pickle
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedType, broadcast_object_list, send_to_device, set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

from penchant.errors import ConfigError, DataError, MissingExtraError
from penchant.files import file_digest, fingerprint, read_json, written_aside
from penchant.progress import progress as shown_progress
from penchant.tagging.bundle import softmax
from penchant.tagging.encoder import Reader, TaggerModel, load_pretrained, resolve
from penchant.tagging.precision import measured_precision
from penchant.training import checkpoint
from penchant.training.batches import (
    EVALUATION_BATCH,
    Collate,
    Evaluation,
    LengthGrouped,
    evaluation,
    inputs,
    longest_first,
    predict,
    prepare,
)
from penchant.training.data import Corpus
from penchant.training.distil import taught
from penchant.training.metrics import MultiLabel
from penchant.training.model import (
    Scale,
    build_model,
    from_bundle,
    has_known_head,
    interest_loss,
    loss_of,
    optimiser,
    probe,
    require_layers,
    scale_of,
)
from penchant.training.settings import TrainSettings
from penchant.training.spans import best_entity_f1
from penchant.training.splits import load_corpus

log = logging.getLogger(__name__)
PROBE_ROWS = 20_000
WEIGHTS = (".json", ".safetensors", ".bin", ".txt")
"""Names of the files of a model that decide what it answers end so."""


@dataclass
class Trained:
    """What a finished run hands to the evaluation. `model` holds the weights of the best epoch."""

    accelerator: Accelerator
    corpus: Corpus
    model: TaggerModel
    reader: Reader
    history: list[dict[str, float]]
    seconds: float
    name: str


@dataclass
class Run:
    """Everything the loop needs, built before it starts, and its place in the data."""

    accelerator: Accelerator
    corpus: Corpus
    reader: Reader
    model: Any
    average: AveragedModel | None
    optimizer: Any
    schedule: Any
    batches: LengthGrouped
    loader: Any
    scale: Scale
    validation: Evaluation
    at: dict[str, Any]

    @property
    def judged(self) -> Any:
        """The model whose weights count: the running average once there is one."""
        return self.average.module if self.average is not None else self.model


def train(settings: TrainSettings, restart: bool = False, corpus: Corpus | None = None, name: str = "") -> Trained:
    """Fine-tune until the last epoch or until `patience` runs out; go on from the last checkpoint if there is one.

    `corpus` is what to learn, by default what the settings name; a corpus of another make has a `name` of its own.
    Every process of a launch calls it. The same settings, data and number of processes give the same weights, broken
    off and resumed or not.
    """
    run = build(settings, restart, corpus, name)
    accelerator, at = run.accelerator, run.at
    started = time.monotonic() - at["seconds"]
    while at["epoch"] < settings.epochs and not out_of_patience(at["history"], settings.patience):
        train_epoch(run, settings, started)
        score = validation_score(run, settings)
        keep_best(accelerator, run.judged, settings.output / "best", score, at["history"])
        figures = {
            "epoch": at["epoch"] + 1,
            "step": at["step"],
            "loss": float(np.mean(at["losses"])),
            "seconds": time.monotonic() - started,
        }
        at["history"].append(figures | score)
        accelerator.log(figures | score, step=at["step"])
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in score.items())
        log.info("epoch %d: loss %.3f; %s", at["epoch"] + 1, figures["loss"], shown)
        at |= {"epoch": at["epoch"] + 1, "batch": 0, "losses": [], "seconds": time.monotonic() - started}
        checkpoint.save(accelerator, settings.output / "checkpoints", at)
    for tracker in accelerator.trackers:
        tracker.finish()
    best = build_model(settings, run.corpus)  # anew: the trained one may be wrapped, compiled or in shards
    best.load_state_dict(read_best(settings.output / "best" / "weights.pt"))
    return Trained(accelerator, run.corpus, best.to(accelerator.device), run.reader, at["history"], at["seconds"], at["run"])


def part() -> None:
    """End what the processes of a launch have in common, once the last of them has nothing to say to the others.

    A process that ends without this may be aborted by its own threads, and the launcher then ends the first one in its work.
    """
    PartialState().destroy_process_group()


def read_best(path: Path) -> Any:
    """The weights of the best epoch. Raises `DataError` where they are gone or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: missing or damaged; give --restart to train again") from error


def train_epoch(run: Run, settings: TrainSettings, started: float) -> None:
    """Train on what is left of the epoch that `run.at` stands in, with a checkpoint every `checkpoint_steps`."""
    accelerator, at = run.accelerator, run.at
    run.model.train()
    run.batches.epoch = at["epoch"]
    left = accelerator.skip_first_batches(run.loader, at["batch"]) if at["batch"] else run.loader
    size, label = run.batches.batch_size, f"epoch {at['epoch'] + 1} of {settings.epochs}"
    with shown_progress(label, len(run.batches) * size, "texts", at["batch"] * size) as advance:
        for batch in left:
            with accelerator.accumulate(run.model):
                loss = loss_of(run.model(**inputs(batch)), batch, settings, run.scale)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(run.model.parameters(), settings.max_grad_norm)
                run.optimizer.step()
                run.schedule.step()
                run.optimizer.zero_grad()
            at["batch"] += 1
            at["losses"].append(accelerator.reduce(loss.detach(), "mean").item())
            if not np.isfinite(at["losses"][-1]):
                raise ConfigError(
                    f"the loss is {at['losses'][-1]} at step {at['step']}: take a smaller learning_rate, or mixed_precision: bf16 or no"
                )
            if accelerator.is_main_process:
                advance(size, f"loss {np.mean(at['losses'][-20:]):.3f}")
            if accelerator.sync_gradients:
                at["step"] += 1
                if run.average is not None:
                    run.average.update_parameters(accelerator.unwrap_model(run.model))
                if at["step"] % settings.checkpoint_steps == 0 and at["batch"] < len(run.batches):
                    checkpoint.save(accelerator, settings.output / "checkpoints", at | {"seconds": time.monotonic() - started})


def build(settings: TrainSettings, restart: bool, corpus: Corpus | None, name: str) -> Run:
    """Check the data, find the checkpoint to go on from, and prepare model, optimiser and batches for every process."""
    require_tracker(settings.tracker)
    require_layers(settings)
    corpus = corpus or load_corpus(settings)
    checkpoints = settings.output / "checkpoints"
    on_cpu = not torch.accelerator.is_available()  # said outright, else accelerate starts every process as if it were alone
    state = PartialState(cpu=on_cpu)
    if on_cpu:
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    name = f"{run_name(settings)}{name}"
    start_over = restart or checkpoint.superseded(checkpoints, name)
    state.wait_for_everyone()
    if start_over and state.is_main_process:
        shutil.rmtree(checkpoints, ignore_errors=True)
    state.wait_for_everyone()
    resumed = checkpoint.latest(checkpoints, name)
    precision = choose_precision(settings, state, resumed)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        gradient_accumulation_steps=settings.accumulation_steps,
        log_with=settings.tracker,
        project_dir=settings.output / "logs",
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    micro_batch = settings.batch_size // settings.accumulation_steps
    if micro_batch % accelerator.num_processes:
        raise ConfigError(
            f"batch_size {settings.batch_size} in {settings.accumulation_steps} accumulation steps can't be shared by {accelerator.num_processes} processes"
        )
    lessons = taught(accelerator, corpus, settings)
    set_seed(settings.seed)
    tokenizer = load_pretrained(AutoTokenizer, settings.model)
    reader = reader_for(settings, tokenizer)
    model = build_model(settings, corpus)
    require_positions(settings.max_length, model.stock, tokenizer)
    require_types(settings, model.stock)
    prepared = prepare(lessons, reader, corpus.dimensions)
    rows, scale = prepared.rows, scale_of(prepared, lessons.targets, settings)
    collate = Collate(tokenizer.pad_token_id)
    if resumed is None and settings.probe_epochs and settings.task != "spans" and not from_bundle(settings):
        probe_head(accelerator, model, rows.select(np.flatnonzero(rows["counts"])), collate, settings)
    batches = LengthGrouped([len(ids) for ids in rows["input_ids"]], micro_batch, settings.accumulation_steps, settings.seed)
    loader = DataLoader(rows, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())
    total_steps = len(batches) // settings.accumulation_steps * settings.epochs
    optimizer = optimiser(model, settings)
    schedule = get_linear_schedule_with_warmup(optimizer, round(settings.warmup_share * total_steps), total_steps)
    average = averaged(accelerator, model, settings)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    validation = evaluation(accelerator, reader, corpus.validation, corpus.dimensions)
    set_seed(settings.seed, device_specific=True)
    at = beginning(name, accelerator.num_processes, precision)
    if settings.tracker is not None:
        accelerator.init_trackers("penchant", {name: str(value) for name, value in settings.model_dump(mode="json").items()})
    if resumed is not None:
        at = checkpoint.load(accelerator, resumed)
        if at["processes"] != accelerator.num_processes:
            raise ConfigError(
                f"{resumed}: of a run of {at['processes']} processes, now there are {accelerator.num_processes}; start as many, or give --restart"
            )
        log.info("resumed from %s", resumed)
    return Run(accelerator, corpus, reader, model, average, optimizer, schedule, batches, loader, scale, validation, at)


def beginning(name: str, processes: int, precision: str) -> dict[str, Any]:
    """The place in the data of a run that hasn't begun, and what has to stay the same when it goes on."""
    place = {"step": 0, "epoch": 0, "batch": 0, "seconds": 0.0, "history": [], "losses": []}
    return {"run": name, "processes": processes, "precision": precision} | place


def averaged(accelerator: Accelerator, model: TaggerModel, settings: TrainSettings) -> AveragedModel | None:
    """The running average of the weights, where the settings ask for one, kept in the checkpoints."""
    if not settings.weight_average:
        return None
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ConfigError("weight_average: weights in shards (FSDP) can't be averaged; set it to 0")
    average = AveragedModel(model, device=accelerator.device, multi_avg_fn=get_ema_multi_avg_fn(settings.weight_average))
    accelerator.register_for_checkpointing(average)
    return average


def reader_for(settings: TrainSettings, tokenizer: Any) -> Reader:
    """How the run's texts are read. Raises `ConfigError` for spans with a tokenizer that doesn't say where its pieces stand."""
    if (settings.task != "interests" or settings.mark_capitals) and not tokenizer.is_fast:
        raise ConfigError(
            f"model {settings.model!r}: its tokenizer gives no character offsets, which spans need; take one with a tokenizer.json"
        )
    stride = settings.stride if settings.task != "interests" else None
    return Reader(tokenizer, settings.max_length, stride, settings.mark_capitals, settings.simplify_chinese)


def require_types(settings: TrainSettings, model: Any) -> None:
    """Raise `ConfigError` where capitals can't be marked because the model knows one token type only."""
    if settings.mark_capitals and getattr(model.config, "type_vocab_size", 1) < 2:
        raise ConfigError(f"mark_capitals: {settings.model!r} has no second token type to mark them by")


def share_cores(processes: int) -> None:
    """Give each process on this machine its part of the cores: launchers start every process with one thread."""
    torch.set_num_threads(max(1, joblib.cpu_count() // processes))


def require_positions(max_length: int, model: Any, tokenizer: Any) -> None:
    """Raise `ConfigError` for a length the model has no positions for."""
    limit = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", max_length))
    if max_length > limit:
        raise ConfigError(f"max_length {max_length}: the model reads at most {limit} word pieces")


def require_tracker(name: str | None) -> None:
    """Raise `MissingExtraError` or `ConfigError` before anything starts if the tracker isn't installed."""
    if name is None or importlib.util.find_spec(name) is not None:
        return
    if name == "tensorboard":
        raise MissingExtraError("tracker: tensorboard", "tracking")
    raise ConfigError(f"tracker {name!r} isn't installed: pip install {name.replace('_', '-')}, or take tensorboard")


def probe_head(accelerator: Accelerator, model: TaggerModel, rows: Any, collate: Collate, settings: TrainSettings) -> None:
    """Give the head a start on at most `PROBE_ROWS` rows, longest first; every process does the same."""
    if not has_known_head(model.stock):
        log.info("%s has a head of another kind: fine-tuning starts without a probe", type(model.stock).__name__)
        return
    model.to(accelerator.device)
    sample = rows.select(range(min(len(rows), PROBE_ROWS)))
    order = longest_first([len(ids) for ids in sample["input_ids"]])
    loader = DataLoader(sample.select(order), batch_size=EVALUATION_BATCH, collate_fn=collate)
    probe(model, (send_to_device(batch, accelerator.device) for batch in loader), settings, accelerator.autocast())


def run_name(settings: TrainSettings) -> str:
    """Fingerprint of all that decides the weights: settings, the bytes of the data files, of a model on this disk and of a teacher."""
    beside = {"output", "baselines", "min_tags", "max_tags", "checkpoint_steps", "tracker", "threshold_precision", "calibration"}
    unused = {name for name in ("layers", "teacher", "unlabelled") if getattr(settings, name) is None}  # older runs have none of them
    chosen = settings.model_dump(mode="json", exclude=beside | unused)
    files = [*settings.train, *(settings.validation or ()), *(settings.test or ()), *(settings.unlabelled or ())]
    files += [settings.taxonomy] if settings.taxonomy is not None else []
    for start in (Path(resolve(settings.model)), settings.teacher):
        files += sorted(path for path in start.glob("*") if path.suffix in WEIGHTS) if start is not None else []
    return fingerprint(chosen | {"files": [file_digest(path) for path in files]})


def choose_precision(settings: TrainSettings, state: PartialState, resumed: Path | None) -> str:
    """The number format of the run: as asked, as before the kill, or as measured by the first process for all."""
    if settings.mixed_precision != "auto":
        return settings.mixed_precision
    if resumed is not None:
        return str(read_json(resumed / "progress.json")["precision"])
    chosen = [""]
    if state.is_main_process:
        chosen[0], sentence = measured_precision(state.device)
        log.info("%s", sentence)
    return str(broadcast_object_list(chosen)[0])


def validation_score(run: Run, settings: TrainSettings) -> dict[str, float]:
    """Figures on the validation rows that need no thresholds per label; `score` is what the best epoch is chosen by."""
    corpus = run.corpus
    logits, pieces = predict(run.accelerator, run.judged, run.validation, run.reader, len(corpus.labels))
    targets = corpus.validation.targets
    found: dict[str, float] = {}
    if corpus.labels:
        result = MultiLabel().compute(
            predictions=(logits > 0).astype(int), references=targets.astype(int), scores=logits, labels=corpus.labels
        )
        found["macro_average_precision"] = result["macro_average_precision"] or 0.0
        every = torch.ones(len(targets), dtype=torch.float64)
        found["validation_loss"] = float(interest_loss(torch.from_numpy(logits), torch.from_numpy(targets).double(), every, settings))
    if corpus.dimensions:
        probabilities = [softmax(each, 1.0) for each in pieces]
        found["entity_f1"] = best_entity_f1(corpus.validation, probabilities, run.validation.prepared.units, corpus.dimensions)
    qualities = [found[name] for name in ("macro_average_precision", "entity_f1") if name in found]
    return found | {"score": float(np.mean(qualities))}


def keep_best(accelerator: Accelerator, model: Any, folder: Path, score: dict[str, float], history: list[dict[str, float]]) -> None:
    """Write the weights to `folder` if no earlier epoch was better."""
    if score["score"] > max((each["score"] for each in history), default=-1.0):
        weights = accelerator.get_state_dict(model)
        if accelerator.is_main_process:
            with written_aside(folder) as aside:
                aside.mkdir()
                torch.save(weights, aside / "weights.pt")
    accelerator.wait_for_everyone()


def out_of_patience(history: list[dict[str, float]], patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing better than those before them."""
    values = [each["score"] for each in history]
    return len(values) > patience and max(values[-patience:]) <= max(values[:-patience])
