"""The command line: one tree of commands, no logic of its own."""

import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from penchant import __version__
from penchant.errors import PenchantError

File = click.Path(path_type=Path)
Existing = click.Path(exists=True, path_type=Path)


class Instant(click.ParamType[datetime]):
    """An ISO 8601 time; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """A text as an aware `datetime`."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write it like 2026-03-31 or 2026-03-31T18:00+02:00", param, ctx)


def example(text: str) -> Callable[[Any], Any]:
    """Add an example to a command's help."""

    def add(command: Any) -> Any:
        command.__doc__ = f"{command.__doc__}\n\n    \b\n    Example:\n      {text}\n    "
        return command

    return add


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
      penchant profile  events + tags → profiles; show, evaluate
      penchant segment  profiles + a rule → an audience file
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

    settings = load(TrainSettings, config, overrides)
    from penchant.reports.training_page import training_text
    from penchant.training.evaluation import finish
    from penchant.training.loop import train as run

    figures = finish(run(settings, restart), settings)
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
    from penchant.training.validate import validate as run
    from penchant.training.validate import validation_text

    summary = run(settings, folds, restart)
    if summary is not None:
        click.echo(validation_text(summary))
        click.echo(f"folds: {settings.output / 'folds'}")


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
@example("penchant tag out/events --bundle runs/interests/bundle --bundle runs/spans/bundle -o out/tags.parquet")
def tag(events: Path, bundles: tuple[Path, ...], output: Path) -> None:
    """Tag each distinct text of EVENTS once (an ingested folder, or any table with title, body or text)."""
    from penchant.runners.local import tag_file

    counts = tag_file(bundles, events, output)
    click.echo(
        f"{counts['rows']:,} rows, {counts['texts']:,} distinct texts, {counts['tags']:,} tags; {counts['untagged_texts']:,} texts without a tag, {counts['rows_without_text'] + counts['broken_rows']:,} rows without a usable text"
    )
    click.echo(f"tags: {output}")


@cli.group()
def profile() -> None:
    """Build profiles, look at one, measure them against a known truth."""


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
@click.option("-o", "--output", type=File, required=True, help="Folder for the snapshot.")
@click.option("--as-of", type=Instant(), help="The instant the profiles are valid at; absent: the last event's.")
@example("penchant profile build out/events out/tags.parquet --policy configs/policy.yaml -o out/profiles")
def profile_build(events: Path, tags: Path, policy: Path | None, taxonomy: Path | None, output: Path, as_of: datetime | None) -> None:
    """Fold EVENTS with their TAGS into one profile per user."""
    from penchant.profiles.policy import Policy
    from penchant.profiles.snapshot import build

    about = build(events, tags, read_policy(policy) or Policy(), output, taxonomy, as_of)
    click.echo(f"{about['users']:,} users, {about['attributes']:,} attributes as of {about['as_of']}\nprofiles: {output}")


@profile.command("show")
@click.argument("user")
@click.option("--profiles", type=Existing, default="out/profiles", show_default=True, help="The snapshot.")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Attributes shown of each dimension.")
@click.option("--language", metavar="CODE", help="Call interests by their names in this language (ISO 639-1), such as zh.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a picture.")
@example("penchant profile show u0042")
def profile_show(user: str, profiles: Path, top: int, language: str | None, as_json: bool) -> None:
    """Draw the profile of USER, dimension by dimension, with the events behind each weight."""
    from penchant.profiles.snapshot import load, user_profile
    from penchant.reports.terminal import draw_profile

    snapshot = load(profiles)
    snapshot.taxonomy.require_language(language, "--language")
    rows = user_profile(snapshot, user, language)
    if as_json:
        click.echo(json.dumps({"user_id": user, "as_of": snapshot.about["as_of"], "attributes": rows}, default=str, ensure_ascii=False))
    else:
        draw_profile(user, rows, snapshot, top)


@profile.command("evaluate")
@inputs_options
@click.option("--profiles", type=Existing, default="out/profiles", show_default=True, help="The snapshot to judge.")
@click.option("--truth", type=Existing, required=True, help="user_id, interests, changed_at, dropped, gained per user.")
@example("penchant profile evaluate out/events out/tags.parquet --truth data/events/truth.jsonl")
def profile_evaluate(events: Path, tags: Path, policy: Path | None, taxonomy: Path | None, profiles: Path, truth: Path) -> None:
    """Measure profiles against planted interests: precision@3, recall@3, days until a change shows."""
    from penchant.profiles.evaluate import evaluate

    click.echo(json.dumps(evaluate(events, tags, read_policy(policy), taxonomy, profiles, truth), indent=2))


@cli.group()
def segment() -> None:
    """See and export who meets a rule."""


def segment_options(command: Any) -> Any:
    """The rule and the snapshot it is asked of."""
    command = click.option("--profiles", type=Existing, default="out/profiles", show_default=True, help="The snapshot.")(command)
    return click.argument("rule", type=Existing)(command)


@segment.command("size")
@segment_options
@example("penchant segment size configs/segments/runners.yaml")
def segment_size(rule: Path, profiles: Path) -> None:
    """Say how many people meet RULE; a size under 50 is not shown."""
    from penchant.profiles.snapshot import load
    from penchant.segments.export import shown_size, size
    from penchant.segments.rule import known_sources, load_segment

    snapshot = load(profiles)
    found = load_segment(rule, snapshot.taxonomy, known_sources(snapshot))
    click.echo(f"{found.name}: {shown_size(size(found, snapshot))} people as of {snapshot.about['as_of']}")


@segment.command("export")
@segment_options
@click.option("-o", "--output", type=File, required=True, help="CSV file: user_id, weight, last_at.")
@example("penchant segment export configs/segments/runners.yaml -o out/runners.csv")
def segment_export(rule: Path, profiles: Path, output: Path) -> None:
    """Write the people who meet RULE as CSV, with an audience label beside it."""
    from penchant.profiles.snapshot import load
    from penchant.segments.export import export_csv
    from penchant.segments.rule import known_sources, load_segment

    snapshot = load(profiles)
    label = export_csv(load_segment(rule, snapshot.taxonomy, known_sources(snapshot)), snapshot, output)
    click.echo(f"{label['audience_count']:,} people: {output}")


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
