"""The training loop."""

import importlib.util
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, broadcast_object_list, send_to_device, set_seed
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, get_linear_schedule_with_warmup

from penchant.errors import ConfigError, MissingExtraError
from penchant.files import file_digest, fingerprint, read_json, written_aside
from penchant.progress import progress as shown_progress
from penchant.tagging.encoder import load_pretrained, resolve
from penchant.tagging.precision import measured_precision
from penchant.training import checkpoint
from penchant.training.data import Collate, Corpus, Labelled, LengthGrouped, load_corpus, tokenised
from penchant.training.metrics import MultiLabel
from penchant.training.model import build_model, has_known_head, loss_of, optimiser, probe
from penchant.training.settings import TrainSettings

log = logging.getLogger(__name__)
EVALUATION_BATCH = 64
PROBE_ROWS = 20_000


@dataclass
class Trained:
    """What a finished run hands to the evaluation. `model` holds the weights of the best epoch."""

    accelerator: Accelerator
    corpus: Corpus
    model: Any
    tokenizer: Any
    history: list[dict[str, float]]
    seconds: float
    name: str


@dataclass
class Run:
    """Everything the loop needs, built before it starts, and its place in the data."""

    accelerator: Accelerator
    corpus: Corpus
    tokenizer: Any
    model: Any
    optimizer: Any
    schedule: Any
    batches: LengthGrouped
    loader: Any
    validation: Any
    at: dict[str, Any]


def train(settings: TrainSettings, restart: bool = False) -> Trained:
    """Fine-tune until the last epoch or until `patience` runs out; go on from the last checkpoint if there is one.

    Every process of a launch calls it. The same settings, data and number of processes give the same weights, broken
    off and resumed or not.
    """
    run = build(settings, restart)
    accelerator, at = run.accelerator, run.at
    started = time.monotonic() - at["seconds"]
    while at["epoch"] < settings.epochs and not out_of_patience(at["history"], settings.patience):
        train_epoch(run, settings, started)
        score = validation_score(run)
        keep_best(accelerator, run.model, settings.output / "best", score, at["history"])
        figures = {
            "epoch": at["epoch"] + 1,
            "step": at["step"],
            "loss": float(np.mean(at["losses"])),
            "seconds": time.monotonic() - started,
        }
        at["history"].append(figures | score)
        accelerator.log(figures | score, step=at["step"])
        log.info(
            "epoch %d: loss %.3f, validation macro average precision %.4f",
            at["epoch"] + 1,
            figures["loss"],
            score["macro_average_precision"],
        )
        at |= {"epoch": at["epoch"] + 1, "batch": 0, "losses": [], "seconds": time.monotonic() - started}
        checkpoint.save(accelerator, settings.output / "checkpoints", at)
    for tracker in accelerator.trackers:
        tracker.finish()
    best = accelerator.unwrap_model(run.model)
    best.load_state_dict(torch.load(settings.output / "best" / "weights.pt", map_location="cpu", weights_only=True))
    return Trained(accelerator, run.corpus, run.model, run.tokenizer, at["history"], at["seconds"], at["run"])


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
                logits = run.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                loss = loss_of(logits, batch["labels"], settings)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(run.model.parameters(), settings.max_grad_norm)
                run.optimizer.step()
                run.schedule.step()
                run.optimizer.zero_grad()
            at["batch"] += 1
            at["losses"].append(accelerator.reduce(loss.detach(), "mean").item())
            if accelerator.is_main_process:
                advance(size, f"loss {np.mean(at['losses'][-20:]):.3f}")
            if accelerator.sync_gradients:
                at["step"] += 1
                if at["step"] % settings.checkpoint_steps == 0 and at["batch"] < len(run.batches):
                    checkpoint.save(accelerator, settings.output / "checkpoints", at | {"seconds": time.monotonic() - started})


def build(settings: TrainSettings, restart: bool) -> Run:
    """Check the data, find the checkpoint to go on from, and prepare model, optimiser and batches for every process."""
    require_tracker(settings.tracker)
    corpus = load_corpus(settings)
    checkpoints = settings.output / "checkpoints"
    on_cpu = not torch.accelerator.is_available()  # said outright, else accelerate starts every process as if it were alone
    state = PartialState(cpu=on_cpu)
    if on_cpu:
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    name = run_name(settings)
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
    set_seed(settings.seed)
    tokenizer = load_pretrained(AutoTokenizer, settings.model)
    model = build_model(settings, corpus.labels, corpus.train.targets)
    require_positions(settings.max_length, model, tokenizer)
    rows = tokenised(corpus.train, tokenizer, settings.max_length)
    if resumed is None and settings.probe_epochs:
        probe_head(accelerator, model, rows, Collate(tokenizer), settings)
    batches = LengthGrouped([len(ids) for ids in rows["input_ids"]], micro_batch, settings.accumulation_steps, settings.seed)
    loader = DataLoader(rows, batch_sampler=batches, collate_fn=Collate(tokenizer), generator=torch.Generator())
    total_steps = len(batches) // settings.accumulation_steps * settings.epochs
    optimizer = optimiser(model, settings)
    schedule = get_linear_schedule_with_warmup(optimizer, round(settings.warmup_share * total_steps), total_steps)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    validation = evaluation_loader(accelerator, tokenizer, corpus.validation, settings.max_length)
    set_seed(settings.seed, device_specific=True)
    at: dict[str, Any] = {
        "run": name,
        "precision": precision,
        "step": 0,
        "epoch": 0,
        "batch": 0,
        "seconds": 0.0,
        "history": [],
        "losses": [],
    }
    if settings.tracker is not None:
        accelerator.init_trackers("penchant", {name: str(value) for name, value in settings.model_dump(mode="json").items()})
    if resumed is not None:
        at = checkpoint.load(accelerator, resumed)
        log.info("resumed from %s", resumed)
    return Run(accelerator, corpus, tokenizer, model, optimizer, schedule, batches, loader, validation, at)


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


def probe_head(accelerator: Accelerator, model: Any, rows: Any, collate: Collate, settings: TrainSettings) -> None:
    """Give the head a start on at most `PROBE_ROWS` rows, longest first; every process does the same."""
    if not has_known_head(model):
        log.info("%s has a head of another kind: fine-tuning starts without a probe", type(model).__name__)
        return
    model.to(accelerator.device)
    sample = rows.select(range(min(len(rows), PROBE_ROWS)))
    longest_first = np.argsort([-len(ids) for ids in sample["input_ids"]], kind="stable")
    loader = DataLoader(sample.select(longest_first), batch_size=EVALUATION_BATCH, collate_fn=collate)
    with accelerator.autocast():
        probe(model, (send_to_device(batch, accelerator.device) for batch in loader), settings)


def run_name(settings: TrainSettings) -> str:
    """Fingerprint of all that decides the weights: settings, the bytes of the data files and of a model on this disk."""
    chosen = settings.model_dump(
        mode="json", exclude={"output", "baselines", "min_tags", "max_tags", "checkpoint_steps", "tracker", "threshold_precision"}
    )
    files = [path for path in (settings.train, settings.validation, settings.test, settings.taxonomy) if path is not None]
    start = Path(resolve(settings.model))
    files += sorted(path for path in start.glob("*") if path.suffix in (".json", ".safetensors", ".bin", ".txt"))
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


def evaluation_loader(accelerator: Accelerator, tokenizer: Any, split: Labelled, max_length: int) -> Any:
    """Batches of a split, longest texts first, shared out over the processes."""
    table = tokenised(split, tokenizer, max_length)
    longest_first = np.argsort([-len(ids) for ids in table["input_ids"]], kind="stable")
    batch_size = EVALUATION_BATCH * accelerator.num_processes
    loader = DataLoader(table.select(longest_first), batch_size=batch_size, collate_fn=Collate(tokenizer), generator=torch.Generator())
    return accelerator.prepare(loader)


def predict(accelerator: Accelerator, model: Any, loader: Any) -> np.ndarray:
    """Logits of an `evaluation_loader`'s split, in the split's order, on every process.

    Rows that fill up the last batch so that every process has one are not counted.
    *Shape:* result (texts, labels).
    """
    model.eval()
    gathered: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.inference_mode():
        for batch in loader:
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
            gathered.append(accelerator.gather_for_metrics((logits.contiguous(), batch["index"])))
    index = torch.cat([each for _, each in gathered]).cpu().numpy()
    logits = torch.cat([each for each, _ in gathered]).cpu().numpy().astype(np.float64)
    ordered: np.ndarray = np.empty_like(logits)
    ordered[index] = logits
    return ordered


def validation_score(run: Run) -> dict[str, float]:
    """Figures that need no thresholds: macro average precision and log loss on the validation rows."""
    logits = predict(run.accelerator, run.model, run.validation)
    targets = run.corpus.validation.targets
    result = MultiLabel().compute(
        predictions=(logits > 0).astype(int), references=targets.astype(int), scores=logits, labels=run.corpus.labels
    )
    log_loss = float(np.mean(np.logaddexp(0, logits) - targets * logits))
    return {"macro_average_precision": result["macro_average_precision"] or 0.0, "validation_loss": log_loss * targets.shape[1]}


def keep_best(accelerator: Accelerator, model: Any, folder: Path, score: dict[str, float], history: list[dict[str, float]]) -> None:
    """Write the weights to `folder` if no earlier epoch was better."""
    earlier = max((each["macro_average_precision"] for each in history), default=-1.0)
    if accelerator.is_main_process and score["macro_average_precision"] > earlier:
        with written_aside(folder) as aside:
            aside.mkdir()
            torch.save(accelerator.unwrap_model(model).state_dict(), aside / "weights.pt")
    accelerator.wait_for_everyone()


def out_of_patience(history: list[dict[str, float]], patience: int) -> bool:
    """Whether the last `patience` epochs brought nothing better than those before them."""
    values = [each["macro_average_precision"] for each in history]
    return len(values) > patience and max(values[-patience:]) <= max(values[:-patience])
