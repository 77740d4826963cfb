"""The command line: one tree of commands, no logic of its own."""

import importlib.util
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from penchant import __version__
from penchant.cli.options import Existing, File, Instant, example, profiles_option
from penchant.cli.segments import audit, segment, user
from penchant.errors import MissingExtraError, PenchantError


def prepare_output() -> None:
    """Plain lines on stderr, the libraries underneath only when something is wrong; a character the terminal lacks is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
    for name in ("accelerate", "datasets", "transformers", "fontTools", "matplotlib", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if int(os.environ.get("RANK", "0")) > 0:
        logging.getLogger("penchant").setLevel(logging.WARNING)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Turn what people read, write and buy into interest profiles that explain themselves.

    \b
    The way through:
      penchant train    labelled texts → a bundle (a fine-tuned BERT)
      penchant ingest   sources → events, and rejects with reasons
      penchant tag      events → tags, each distinct text once
      penchant profile  events + tags → profiles; update, show, restore …
      penchant segment  profiles + a rule → who, why, how many; an audience file
      penchant user     opt-outs and consent, heeded by every export
      penchant audit    the log of exports
      penchant report   all of it on one page
    """  # noqa: D301 - click wants the backspace itself


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error a user can act on becomes one message and exit code 1."""
    prepare_output()
    try:
        cli.main(args=arguments, prog_name="penchant", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PenchantError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except engine_error() as error:
        click.echo(f"error: the data can't be read: {str(error).splitlines()[0]}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            raise
        click.echo(f"error: {': '.join(str(part) for part in (error.filename, error.strerror) if part)}", err=True)
        sys.exit(1)


def engine_error() -> type[Exception] | tuple[()]:
    """What DuckDB raises while it reads a file that is damaged inside; nothing where it was never loaded."""
    engine: Any = sys.modules.get("duckdb")
    return engine.Error if engine is not None else ()


def settings_options(default: str) -> Callable[[Any], Any]:
    """The options `--config` and `--set`."""

    def add(command: Any) -> Any:
        @click.option("--config", type=Existing, default=default, show_default=True, help="Settings file (YAML).")
        @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one setting; can be repeated.")
        @wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return command(*args, **kwargs)

        return wrapped

    return add


@cli.command()
@settings_options("configs/train-interests.yaml")
@click.option("--restart", is_flag=True, help="Throw away earlier checkpoints instead of going on from them.")
@example("accelerate launch train --config configs/train-interests.yaml --set epochs=3")
def train(config: Path, overrides: tuple[str, ...], restart: bool) -> None:
    """Fine-tune a BERT on labelled texts, and report how good it is beside its baselines."""
    from penchant.config import load
    from penchant.training.settings import TrainSettings

    train_and_report(load(TrainSettings, config, overrides), restart)


def train_and_report(settings: Any, restart: bool) -> None:
    """Train as the settings say and print the figures."""
    from penchant.reports.training_page import training_text
    from penchant.training.evaluation import finish
    from penchant.training.loop import part
    from penchant.training.loop import train as run

    figures = finish(run(settings, restart), settings)
    part()
    if figures is not None:
        click.echo(training_text(figures))
        click.echo(f"bundle: {settings.output / 'bundle'}\nreport: {settings.output / 'report' / 'report.html'}")


@cli.command()
@settings_options("configs/train-interests.yaml")
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="How many times to train and test.")
@click.option("--restart", is_flag=True, help="Throw away earlier checkpoints instead of going on from them.")
@example("penchant validate --config configs/train-interests.yaml --folds 5 --set split=random")
def validate(config: Path, overrides: tuple[str, ...], folds: int, restart: bool) -> None:
    """Cross-validate settings on their training rows: at random, by group or in time, as their `split` says."""
    from penchant.config import load
    from penchant.training.settings import TrainSettings

    settings = load(TrainSettings, config, overrides)
    from penchant.training.loop import part
    from penchant.training.validate import validate as run
    from penchant.training.validate import validation_text

    summary = run(settings, folds, restart)
    part()
    if summary is not None:
        click.echo(validation_text(summary))
        click.echo(f"folds: {settings.output / 'folds'}")


@cli.command()
@click.argument("bundle", type=Existing)
@settings_options("configs/train-student.yaml")
@click.option("--restart", is_flag=True, help="Throw away earlier checkpoints instead of going on from them.")
@example("penchant compress runs/interests/bundle --config configs/train-student.yaml --set layers=3")
def compress(bundle: Path, config: Path, overrides: tuple[str, ...], restart: bool) -> None:
    """Teach a model with fewer of BUNDLE's layers to answer as BUNDLE does: `train` with BUNDLE as `model` and `teacher`."""
    from penchant.config import load
    from penchant.tagging.bundle import load_spec
    from penchant.training.settings import TrainSettings

    load_spec(bundle)
    itself = json.dumps(str(bundle))  # JSON is YAML, whatever the name holds
    train_and_report(load(TrainSettings, config, (f"model={itself}", *overrides, f"teacher={itself}")), restart)


@cli.command()
@click.argument("a", type=Existing)
@click.argument("b", type=Existing)
@click.option("--data", type=Existing, required=True, help="Labelled texts that neither was trained on.")
@click.option(
    "--config", type=Existing, help="Settings file that says how the texts are laid out: its columns, conll_joiner and dimensions."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of sentences.")
@example("penchant compare runs/interests/bundle runs/both/bundle --data data/corpus/test.jsonl")
def compare(a: Path, b: Path, data: Path, config: Path | None, as_json: bool) -> None:
    """Say which of two bundles is better on the same texts, and whether that could be chance."""
    from penchant.config import load
    from penchant.training.compare import compare as run
    from penchant.training.compare import comparison_text
    from penchant.training.settings import Columns, TrainSettings

    settings = load(TrainSettings, config) if config is not None else None
    result = run(a, b, data, *((settings.columns, settings.conll_joiner, settings.dimensions) if settings is not None else (Columns(),)))
    click.echo(json.dumps(result) if as_json else comparison_text(result, a, b))


@cli.command()
@click.argument("mapping", type=Existing)
@click.option("-o", "--output", type=File, required=True, help="Folder for events.parquet, rejects.csv and summary.json.")
@example("penchant ingest data/events.yaml -o out/events")
def ingest(mapping: Path, output: Path) -> None:
    """Map, clean, mask and deduplicate the sources that MAPPING names."""
    from penchant.ingest.events import ingest as run
    from penchant.ingest.mapping import load_mapping

    summary = run(load_mapping(mapping), mapping.parent, output)
    for source, counts in summary.items():
        rejected = counts.get("rows", 0) - counts.get("events", 0)
        click.echo(f"{source}: {counts.get('rows', 0):,} rows, {counts.get('events', 0):,} events, {rejected:,} rejected")
    click.echo(f"events: {output / 'events.parquet'}\nrejects: {output / 'rejects.csv'}")


@cli.command()
@click.argument("events", type=Existing)
@click.option(
    "--bundle",
    "bundles",
    type=Existing,
    multiple=True,
    default=["runs/interests/bundle"],
    show_default=True,
    help="A fine-tuned model; give one for interests and one for spans to write both kinds of tags.",
)
@click.option("-o", "--output", type=File, required=True, help="Tags: .parquet, .csv or .jsonl.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "torch", "onnx", "onnx-int8"]),
    default="auto",
    show_default=True,
    help="What multiplies; auto takes the fastest here of those that penchant export found good enough.",
)
@click.option(
    "--cache", type=File, help="Tags of texts seen before (SQLite); by default tags.sqlite in $PENCHANT_CACHE or ~/.cache/penchant."
)
@click.option("--no-cache", is_flag=True, help="Tag every text anew, and remember none.")
@example("penchant tag out/events --bundle runs/interests/bundle --bundle runs/spans/bundle -o out/tags.parquet")
def tag(events: Path, bundles: tuple[Path, ...], output: Path, backend: str, cache: Path | None, no_cache: bool) -> None:
    """Tag each distinct text of EVENTS once (an ingested folder, or any table with title, body or text).

    A killed run goes on where it was. Several processes share the work:
    python -m torch.distributed.run --nproc_per_node=2 infer tag …
    """
    from penchant.runners.local import tag_file
    from penchant.tagging.cache import TagCache, default_path

    with nullcontext() if no_cache else TagCache(cache or default_path()) as known:
        counts = tag_file(bundles, events, output, backend, known)
    if counts is None:  # not the first of several processes
        return
    click.echo(
        f"{counts['rows']:,} rows, {counts['texts']:,} distinct texts, {counts['tags']:,} tags; {counts['untagged_texts']:,} texts without a tag, {counts['rows_without_text'] + counts['broken_rows']:,} rows without a usable text"
    )
    if known is not None:
        lookups = counts["texts"] * len(bundles)
        click.echo(f"cache: {counts['cached']:,} of {lookups:,} lookups answered")
    click.echo(f"tags: {output}")


@cli.command()
@click.argument("bundle", type=Existing)
@settings_options("configs/train-interests.yaml")
@example("penchant export runs/interests/bundle --config configs/train-interests.yaml")
def export(bundle: Path, config: Path, overrides: tuple[str, ...]) -> None:
    """Add faster forms to BUNDLE (ONNX, and ONNX in int8), each gated on the validation texts of the settings that trained it."""
    from penchant.config import load
    from penchant.training.settings import TrainSettings

    settings = load(TrainSettings, config, overrides)
    if any(importlib.util.find_spec(each) is None for each in ("onnx", "onnxruntime")):
        raise MissingExtraError("penchant export", "onnx")
    from penchant.training.export import export as run
    from penchant.training.export import gate_text

    for each in run(bundle, settings).exports:
        click.echo(f"{each.name}: {gate_text(each)}")
    click.echo(f"exports: {bundle / 'onnx'}")


@cli.group()
def profile() -> None:
    """Build and update profiles, look at one, go back to an earlier version, measure them."""


def inputs_options(command: Any) -> Any:
    """The inputs of a fold."""
    command = click.option("--taxonomy", type=Existing, help="Taxonomy of the tags; by default the one written in them.")(command)
    command = click.option(
        "--policy", type=Existing, help="Policy file (YAML), such as configs/policy.yaml; absent: the defaults, or the snapshot's own."
    )(command)
    command = click.argument("tags", type=Existing)(command)
    return click.argument("events", type=Existing)(command)


def read_policy(path: Path | None) -> Any:
    """The policy of a file, None where none is given."""
    from penchant.config import load
    from penchant.profiles.policy import Policy

    return load(Policy, path) if path is not None else None


@profile.command("build")
@inputs_options
@click.option("-o", "--output", required=True, help="Folder or URL of the store; a store that is there gets a new version.")
@click.option("--as-of", type=Instant(), help="The instant the profiles are valid at, later events left out; absent: the last event's.")
@example("penchant profile build out/events out/tags.parquet --policy configs/policy.yaml -o out/profiles")
def profile_build(events: Path, tags: Path, policy: Path | None, taxonomy: Path | None, output: str, as_of: datetime | None) -> None:
    """Fold EVENTS with their TAGS into one profile per user."""
    from penchant.profiles.policy import Policy
    from penchant.profiles.snapshot import build

    about = build(events, tags, read_policy(policy) or Policy(), output, taxonomy, as_of)
    click.echo(
        f"{about['events']:,} events, {about['users']:,} users, {about['attributes']:,} attributes as of {about['as_of']}\nprofiles: {output}"
    )


@profile.command("update")
@inputs_options
@profiles_option
@example("penchant profile update out/new-events out/new-tags.parquet --profiles out/profiles")
def profile_update(events: Path, tags: Path, policy: Path | None, taxonomy: Path | None, profiles: str) -> None:
    """Fold new EVENTS with their TAGS into profiles; what they know already changes nothing."""
    from penchant.profiles.snapshot import update

    found = update(events, tags, profiles, read_policy(policy), taxonomy)
    click.echo(
        f"{found['new']:,} new events of {found['users']:,} users, {found['known']:,} known already; as of {found['as_of']}\nprofiles: {profiles}"
    )


@profile.command("migrate")
@profiles_option
@click.option("--policy", type=Existing, help="The new policy (YAML); absent: the store's.")
@click.option("--tags", type=Existing, help="Tags of the kept events by a new model; absent: those they were folded by.")
@click.option("--taxonomy", type=Existing, help="Taxonomy of those tags; by default the one written in them.")
@example("penchant profile migrate --profiles out/profiles --policy configs/policy.yaml")
def profile_migrate(profiles: str, policy: Path | None, tags: Path | None, taxonomy: Path | None) -> None:
    """Rebuild profiles from the events they keep, under a new policy or by a new model; the old ones stay until that is done."""
    from penchant.profiles.snapshot import migrate

    about = migrate(profiles, read_policy(policy), tags, taxonomy)
    click.echo(f"{about['events']:,} events, {about['users']:,} users, {about['attributes']:,} attributes as of {about['as_of']}")


@profile.command("history")
@profiles_option
@example("penchant profile history --profiles out/profiles")
def profile_history(profiles: str) -> None:
    """List the versions of profiles, the newest first."""
    from penchant.profiles.store import Store

    for each in Store(profiles).history():
        events = f"{each['events']:,} events" if each.get("events") else ""
        click.echo(
            f"{each['version']:>6}  {each['at']:%Y-%m-%d %H:%M:%S}  {each['what']:<8}  as of {each.get('as_of', '?')[:16]}  {events}".rstrip()
        )


@profile.command("restore")
@click.argument("version", type=click.IntRange(0))
@profiles_option
@example("penchant profile restore 3 --profiles out/profiles")
def profile_restore(version: int, profiles: str) -> None:
    """Make VERSION the current one again, as a new version: those between stay in the history."""
    from penchant.profiles.store import Store

    restored = Store(profiles).restore(version)
    click.echo(f"{'restored version' if restored else 'nothing to do, the current one is version'} {version}: {profiles}")


@profile.command("vacuum")
@profiles_option
@click.option(
    "--keep-days", type=click.FloatRange(0), default=30, show_default=True, help="Versions of this many days can still be restored."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@example("penchant profile vacuum --keep-days 30 --profiles out/profiles")
def profile_vacuum(profiles: str, keep_days: float, dry_run: bool) -> None:
    """Delete the files of older versions, and what killed runs left; put together what updates have appended."""
    from penchant.profiles.duck import connect
    from penchant.profiles.store import Store

    store = Store(profiles)
    together = 0 if dry_run else store.compact(connect(), everything=True)
    gone = store.vacuum(keep_days, dry_run)
    click.echo(f"{together:,} files put together, {len(gone):,} files {'would be ' if dry_run else ''}deleted: {profiles}")


@profile.command("check")
@profiles_option
@example("penchant profile check --profiles out/profiles")
def profile_check(profiles: str) -> None:
    """Rebuild profiles from the events they keep and compare, mass by mass; exit code 1 where they differ."""
    from penchant.profiles.snapshot import TOLERANCE, check, load

    found = check(load(profiles))
    click.echo(f"{found['attributes']:,} attributes, {found['unequal']:,} unequal, largest difference of a mass {found['difference']:.1e}")
    if found["unequal"] or found["difference"] > TOLERANCE:
        sys.exit(1)


@profile.command("table")
@profiles_option
@click.option(
    "--what",
    type=click.Choice(["view", "state", "events"]),
    default="view",
    show_default=True,
    help="What people see, masses, or the kept events.",
)
@click.option("--evidence", is_flag=True, help="With the view: the events behind each weight, too.")
@click.option("-o", "--output", type=File, required=True, help="Parquet file to write.")
@example("penchant profile table --what view --evidence -o out/view.parquet")
def profile_table(profiles: str, what: str, evidence: bool, output: Path) -> None:
    """Write all profiles as one table that any engine reads."""
    from penchant.profiles.snapshot import load, write_table

    click.echo(f"{write_table(load(profiles), what, output, evidence):,} rows: {output}")


@profile.command("show")
@click.argument("user")
@profiles_option
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Attributes shown of each dimension.")
@click.option("--language", metavar="CODE", help="Call interests by their names in this language (ISO 639-1), such as zh.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a picture.")
@example("penchant profile show u0042")
def profile_show(user: str, profiles: str, top: int, language: str | None, as_json: bool) -> None:
    """Draw the profile of USER, dimension by dimension, with the events behind each weight."""
    from penchant.profiles.habits import summary
    from penchant.profiles.snapshot import load, user_profile
    from penchant.reports.terminal import draw_profile

    snapshot = load(profiles)
    snapshot.taxonomy.require_language(language, "--language")
    rows = user_profile(snapshot, user, language)
    if as_json:
        found = {
            "user_id": user,
            "as_of": snapshot.about["as_of"],
            "attributes": rows,
            "habits": summary(rows, snapshot.policy, snapshot.as_of),
        }
        click.echo(json.dumps(found, default=str, ensure_ascii=False))
    else:
        draw_profile(user, rows, snapshot.policy, snapshot.as_of, top)


@profile.command("evaluate")
@profiles_option
@click.option("--truth", type=Existing, required=True, help="user_id, interests, changed_at, dropped, gained per user.")
@example("penchant profile evaluate --profiles out/profiles --truth data/events/truth.jsonl")
def profile_evaluate(profiles: str, truth: Path) -> None:
    """Measure profiles against planted interests: precision@3, recall@3, days until a change shows."""
    from penchant.profiles.evaluate import evaluate

    click.echo(json.dumps(evaluate(profiles, truth), indent=2))


@profile.command("fuse")
@inputs_options
@click.option("-o", "--output", type=File, required=True, help="Policy file to write (YAML).")
@click.option(
    "--window-days",
    type=click.FloatRange(0, min_open=True),
    default=14.0,
    show_default=True,
    help="How long after a cut interactions are predicted; shorter where the events' time asks for it.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@example("penchant profile fuse out/events out/tags.parquet --policy configs/policy.yaml -o out/policy.yaml")
def profile_fuse(
    events: Path, tags: Path, policy: Path | None, taxonomy: Path | None, output: Path, window_days: float, as_json: bool
) -> None:
    """Learn source and action weights: those under which profiles best predict what each user does next."""
    from penchant.profiles.fuse import fuse, fusion_text
    from penchant.profiles.policy import Policy

    figures = fuse(events, tags, read_policy(policy) or Policy(), output, taxonomy, window_days)
    click.echo(json.dumps(figures) if as_json else f"{fusion_text(figures)}\npolicy: {output}")


@cli.group()
def taxonomy() -> None:
    """Check a taxonomy, or import the IAB's."""


@taxonomy.command("check")
@click.argument("path", type=Existing)
@example("penchant taxonomy check data/taxonomy.yaml")
def taxonomy_check(path: Path) -> None:
    """Load a taxonomy and list every mistake in it."""
    from penchant.taxonomy import load

    found = load(path)
    click.echo(f"{path}: {len(found.nodes)} nodes, {len(found.leaves)} leaves, {len(found.sensitive)} sensitive")


@taxonomy.command("import")
@click.argument("path", type=Existing)
@click.option("-o", "--output", type=File, required=True, help="Taxonomy file to write (YAML).")
@click.option("--tier-1", help="Keep only this top branch, such as Interest.")
@example("penchant taxonomy import iab-audience-1.1.tsv --tier-1 Interest -o taxonomy.yaml")
def taxonomy_import(path: Path, output: Path, tier_1: str | None) -> None:
    """Turn an IAB Tech Lab TSV (Audience 1.x, Content 2.x or 3.x) into a taxonomy file."""
    from penchant.files import write_text
    from penchant.taxonomy import import_iab, to_yaml

    found = import_iab(path, tier_1)
    write_text(output, to_yaml(found))
    click.echo(f"{output}: {len(found.nodes)} nodes, {len(found.sensitive)} sensitive")


@cli.command()
@click.option("--config", type=Existing, default="configs/report.yaml", show_default=True, help="What the page shows (YAML).")
@click.option("-o", "--output", type=File, required=True, help="HTML file.")
@example("penchant report --config configs/report.yaml -o out/report.html")
def report(config: Path, output: Path) -> None:
    """Put the corpus, the model, profiles, a segment and the rejects on one page."""
    from penchant.config import load
    from penchant.files import write_text
    from penchant.reports.overview_page import ReportSettings, overview_page

    write_text(output, overview_page(load(ReportSettings, config)))
    click.echo(f"report: {output}")


for each in (segment, user, audit):
    cli.add_command(each)
