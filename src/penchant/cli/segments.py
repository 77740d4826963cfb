"""Commands on segments, on people's choices, and on the log of exports."""

import getpass
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from penchant.cli.options import Existing, File, Instant, example, profiles_option
from penchant.errors import ConfigError, DataError

DESTINATIONS = ("csv", "parquet", "jsonl", "openrtb", "google", "meta", "tiktok", "linkedin")


class RuleOrFile(click.ParamType[str]):
    """A rule in the short form, a segment's name in configs/segments, or a file that has to be there."""

    name = "rule"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is; a missing file is refused."""
        from penchant.segments.load import FOLDER, is_text

        if is_text(value):
            return str(value)
        named = FOLDER / f"{value}.yaml"
        return str(named if named.is_file() else Existing.convert(value, param, ctx))


def records_option(command: Any) -> Any:
    """Where the life of segments is recorded."""
    return click.option(
        "--records", type=File, default="out/segments", show_default=True, help="Folder of refreshes, deliveries and the log of exports."
    )(command)


def by_option(command: Any) -> Any:
    """Who does it."""
    return click.option("--by", default=getpass.getuser, show_default="your login", help="Who does this, for the log.")(command)


def svg_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """A picture's file, whose name has to say what it is."""
    if value is not None and value.suffix.lower() != ".svg":
        raise click.BadParameter(f"{str(value)!r}: pictures are SVG; name it like {value.with_suffix('.svg')}", ctx, param)
    return value


def some_words(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A reason for the log, without what identifies people: nothing is ever deleted there."""
    from penchant.ingest.clean import clean, mask

    if param.required and not value.strip():
        raise click.BadParameter("say it in some words", ctx, param)
    return mask(clean(value))


def picture_option(command: Any) -> Any:
    """A picture beside the text."""
    return click.option("--picture", type=File, callback=svg_file, help="Draw it, too: an SVG file.")(command)


def json_option(command: Any) -> Any:
    """Figures for programs."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a text.")(command)


def rule_argument(command: Any) -> Any:
    """One segment, asked of profiles: `audience` and `snapshot`."""

    @click.argument("rule", type=RuleOrFile())
    @profiles_option
    @wraps(command)
    def wrapped(rule: str, profiles: str, **others: Any) -> Any:
        from penchant.profiles.snapshot import load
        from penchant.segments.load import checked, read_audience

        snapshot = load(profiles)
        return command(audience=checked(read_audience(rule), snapshot), snapshot=snapshot, **others)

    return wrapped


def rules_argument(command: Any) -> Any:
    """Several segments, asked of profiles: `audiences` and `snapshot`."""

    @click.argument("rules", type=RuleOrFile(), nargs=-1, required=True)
    @profiles_option
    @wraps(command)
    def wrapped(rules: tuple[str, ...], profiles: str, **others: Any) -> Any:
        from penchant.profiles.snapshot import load
        from penchant.segments.load import checked, read_audience

        snapshot = load(profiles)
        audiences = [checked(read_audience(each), snapshot) for each in rules]
        return command(audiences=audiences, snapshot=snapshot, **others)

    return wrapped


def draw(path: Path | None, picture: Callable[[Any], str]) -> None:
    """Write a picture where one is asked for; only then is what draws it imported."""
    if path is not None:
        from penchant.files import write_text
        from penchant.reports import segment_pictures

        write_text(path, picture(segment_pictures))
        click.echo(f"picture: {path}")


def require_file(audience: Any) -> None:
    """Raise `ConfigError` for a rule without a name of its own, of which no record can be kept."""
    from penchant.segments.load import SCRATCH

    if audience.segment.name == SCRATCH:
        raise ConfigError(
            "a rule alone has no name, owner or purpose to be recorded under; put it in a file, such as configs/segments/runners.yaml"
        )
    if Path(audience.origin).stem != audience.segment.name:
        raise ConfigError(
            f"{audience.origin}: is called otherwise than its segment, {audience.segment.name!r}, whose records it would share; "
            f"name the file {audience.segment.name}.yaml, or the segment {Path(audience.origin).stem}"
        )


@click.group()
def segment() -> None:
    """Find who meets a rule, see who they are and why, and hand them on.

    RULE is a segment's file (YAML), or a rule in the short form, such as 'interest:sports.running weight>=0.2 and seen<30d'.
    """


@segment.command("size")
@rule_argument
@click.option(
    "--private",
    "epsilon",
    type=float,
    metavar="EPSILON",
    help="A differentially private count instead, for reports that leave the company.",
)
@example("penchant segment size 'interest:sports.running weight>=0.1 and seen<30d'")
def segment_size(audience: Any, snapshot: Any, epsilon: float | None) -> None:
    """Say how many people meet RULE; a size under 50 is not shown."""
    from penchant.segments.counts import private_counts, shown_size
    from penchant.segments.insight import size

    name, count = audience.segment.name, size(audience, snapshot)
    if epsilon is None:
        click.echo(f"{name}: {shown_size(count)} people as of {snapshot.as_of:%Y-%m-%d %H:%M} UTC")
        return
    found = private_counts({name: count}, epsilon)[name]
    click.echo(
        f"{name}: {found.value:,} ± {found.accuracy:,.0f} people (epsilon {epsilon:g}, 95%) as of {snapshot.as_of:%Y-%m-%d %H:%M} UTC"
    )


@segment.command("try")
@profiles_option
@example("penchant segment try --profiles out/profiles")
def segment_try(profiles: str) -> None:
    """Type rules and see their size while typing; with a file as input, one size per line."""
    from penchant.profiles.snapshot import load
    from penchant.reports.prompt import run

    run(load(profiles), click.echo)


@segment.command("funnel")
@rule_argument
@picture_option
@json_option
@example("penchant segment funnel configs/segments/runners.yaml --picture out/funnel.svg")
def segment_funnel(audience: Any, snapshot: Any, picture: Path | None, as_json: bool) -> None:
    """Say how many people each condition of RULE leaves."""
    from penchant.reports.segments_text import funnel_text, shown_funnel
    from penchant.segments.insight import funnel

    steps = funnel(audience, snapshot)
    click.echo(
        json.dumps([{"step": step, "people": people} for step, people in shown_funnel(steps)], ensure_ascii=False)
        if as_json
        else funnel_text(steps)
    )
    draw(picture, lambda drawn: drawn.funnel(shown_funnel(steps)))


@segment.command("curve")
@rule_argument
@picture_option
@example("penchant segment curve configs/segments/runners.yaml --picture out/curve.svg")
def segment_curve(audience: Any, snapshot: Any, picture: Path | None) -> None:
    """Show how the size follows each threshold of RULE; of several, the pictures are numbered."""
    from penchant.reports.segments_text import curve_text, shown_curve
    from penchant.segments.insight import curves

    found = curves(audience, snapshot)
    if not found:
        click.echo("the rule has no threshold")
    aside = [name for name in ("top", "include", "exclude") if getattr(audience.segment, name) is not None]
    if aside:
        click.echo(f"sizes of the rule alone, without the segment's {' and '.join(aside)}")
    for n, each in enumerate(found):
        click.echo(curve_text(each))
        path = picture.with_name(f"{picture.stem}-{n + 1}{picture.suffix}") if picture is not None and len(found) > 1 else picture
        drawn = (f"{each.condition}: {each.limit}", each.thresholds, shown_curve(each), each.current)
        draw(path, partial(lambda shown, pictures: pictures.curve(*shown), drawn))


@segment.command("overlap")
@rules_argument
@picture_option
@example("penchant segment overlap configs/segments/runners.yaml configs/segments/film-fans.yaml --picture out/overlap.svg")
def segment_overlap(audiences: list[Any], snapshot: Any, picture: Path | None) -> None:
    """Say how many people each two of several RULES have in common."""
    from penchant.reports.segments_text import called, overlap_text, shown_matrix
    from penchant.segments.insight import overlaps

    names, found = called(audiences), overlaps(audiences, snapshot)
    click.echo(overlap_text(names, found))
    shown = shown_matrix(found)
    draw(picture, lambda drawn: drawn.overlap(names, [row[n] for n, row in enumerate(shown)], shown))


@segment.command("special")
@rule_argument
@click.option("--top", type=click.IntRange(1), default=15, show_default=True, help="Attributes shown.")
@picture_option
@example("penchant segment special configs/segments/runners.yaml --top 10")
def segment_special(audience: Any, snapshot: Any, top: int, picture: Path | None) -> None:
    """Show what the people who meet RULE have more of than all others, as an index (100: as much)."""
    from penchant.reports.segments_text import shown_special, special_text
    from penchant.segments.insight import special

    found = special(audience, snapshot)
    click.echo(special_text(found, top))
    draw(picture, lambda drawn: drawn.special(shown_special(found, top)))


@segment.command("why")
@rule_argument
@click.argument("user")
@json_option
@example("penchant segment why configs/segments/runners.yaml u0001")
def segment_why(audience: Any, snapshot: Any, user: str, as_json: bool) -> None:
    """Show each condition of RULE with USER's own values and the texts behind them."""
    from penchant.reports.segments_text import why_text
    from penchant.segments.why import why

    found = why(audience, snapshot, user)
    click.echo(json.dumps(found, default=str, ensure_ascii=False) if as_json else why_text(found, snapshot))


@segment.command("fairness")
@rule_argument
@click.option("--groups", type=Existing, required=True, help="A table with user_id and the column of groups.")
@click.option("--column", required=True, help="The column of groups, such as age_band.")
@picture_option
@example("penchant segment fairness configs/segments/runners.yaml --groups people.csv --column age_band")
def segment_fairness(audience: Any, snapshot: Any, groups: Path, column: str, picture: Path | None) -> None:
    """Hold each group's share of RULE against its share of everybody; a ratio under four fifths is flagged."""
    import ibis

    from penchant.segments.fairness import fairness, fairness_text, read_groups
    from penchant.segments.insight import find
    from penchant.segments.load import known_people

    found = fairness(find(audience, snapshot), known_people(snapshot), ibis.memtable(read_groups(groups, column)))
    click.echo(fairness_text(found))
    draw(picture, lambda drawn: drawn.shares(found))


@segment.command("refresh")
@rules_argument
@records_option
@by_option
@click.option("--all", "every", is_flag=True, help="Also those whose schedule says that they aren't due.")
@example("penchant segment refresh configs/segments/*.yaml")
def segment_refresh(audiences: list[Any], snapshot: Any, records: Path, by: str, every: bool) -> None:
    """Find the people of RULES anew where their schedule says so, and record who entered and who left; a cron job's command."""
    from penchant.reports.segments_text import changes_text
    from penchant.segments.counts import shown_size
    from penchant.segments.life import Records

    for audience in audiences:
        require_file(audience)
    for audience in audiences:
        name, life = audience.segment.name, Records(records).of(audience.segment.name)
        if not every and not life.due(audience.segment.refresh, datetime.now(UTC)):
            click.echo(f"{name}: not due ({audience.segment.refresh}); --all to refresh it nevertheless")
            continue
        with Records(records).locked():
            found = life.refresh(audience, snapshot, by)
        jump = "; a JUMP: exports are stopped until somebody accepts it" if found["jump"] and not found["accepted"] else ""
        click.echo(
            f"{name}: {shown_size(found['size'])} people, {changes_text(found)} (refresh {found['number']}, version {found['version']}){jump}"
        )


@segment.command("history")
@click.argument("name")
@records_option
@picture_option
@example("penchant segment history runners --picture out/history.svg")
def segment_history(name: str, records: Path, picture: Path | None) -> None:
    """List the refreshes of the segment NAME: its size over time, who came and went."""
    from penchant.reports.segments_text import history_text, shown_history
    from penchant.segments.life import known

    found = known(records, name).refreshes
    click.echo(history_text(name, found, datetime.now(UTC)))
    draw(picture, lambda drawn: drawn.sizes_over_time(*shown_history(found)))


@segment.command("diff")
@click.argument("name")
@records_option
@click.option("--since", type=click.IntRange(0), help="Compare with this refresh; absent: with the one before the last.")
@click.option("-o", "--output", type=File, required=True, help="Folder for entered.csv and left.csv: user ids.")
@example("penchant segment diff runners -o out/runners-diff")
def segment_diff(name: str, records: Path, since: int | None, output: Path) -> None:
    """Write who entered the segment NAME by its last refresh, and who left."""
    from penchant.segments.life import known, write_changes

    first, last = write_changes(known(records, name), output, since)
    click.echo(f"{name}: who entered and who left between refreshes {first} and {last}: {output}")


@segment.command("accept")
@click.argument("name")
@records_option
@by_option
@click.option("--reason", required=True, callback=some_words, help="Why the new size is right, for the log.")
@example("penchant segment accept runners --reason 'the spring catalogue went out'")
def segment_accept(name: str, records: Path, by: str, reason: str) -> None:
    """Let the segment NAME be exported again after a jump of its size."""
    from penchant.segments.life import known

    found = known(records, name).accept(by, reason)
    click.echo(f"{name}: refresh {found['number']} accepted")


@segment.command("export")
@rule_argument
@records_option
@by_option
@click.option("--destination", type=click.Choice(DESTINATIONS), default="csv", show_default=True, help="Whose form the file has.")
@click.option("--identities", type=Existing, help="Table of e-mails, phones, device ids … by user_id, for the ad platforms.")
@click.option("--config", type=Existing, help="Settings of the destinations, such as configs/destinations.yaml; absent: the defaults.")
@click.option("--only", type=click.Choice(["add", "remove"]), help="Only whom the destination lacks, or whom it has to remove.")
@click.option("--reason", default="", callback=some_words, help="What for, for the log.")
@click.option("-o", "--output", type=File, required=True, help="File to write; a label goes beside it.")
@example("penchant segment export configs/segments/runners.yaml --destination meta --identities identities.csv -o out/runners-meta.csv")
def segment_export(
    audience: Any,
    snapshot: Any,
    records: Path,
    by: str,
    destination: str,
    identities: Path | None,
    config: Path | None,
    only: Any,
    reason: str,
    output: Path,
) -> None:
    """Write the people who meet RULE as a destination takes them, without those who said no, and log it."""
    from penchant.config import load
    from penchant.segments.choices import Choices
    from penchant.segments.destinations import Destinations
    from penchant.segments.export import export
    from penchant.segments.identity import read_identities
    from penchant.segments.life import Records

    require_file(audience)
    read = {each.resolve() for each in (identities, config, Path(audience.origin)) if each is not None}
    if output.resolve() in read or records.resolve() in output.resolve().parents:
        raise ConfigError(f"{output}: is read or kept by this export; name another file to write")
    settings = load(Destinations, config) if config is not None else Destinations()
    people = read_identities(identities, settings.columns) if identities is not None else None
    choices = Choices(snapshot.head.store.uri)
    label = export(audience, snapshot, output, destination, settings, Records(records), choices, by, people, only, reason)
    if label is None:
        click.echo(f"{audience.segment.name}: nobody to {only}: no file")
        return
    for reason_text, count in label["penchant"]["dropped"].items():
        click.echo(f"dropped {count:,} × {reason_text}" if isinstance(count, int) else f"dropped {count} × {reason_text}", err=True)
    click.echo(f"{label['penchant']['listed']} people: {output}")


@click.group()
def user() -> None:
    """Record what people said to being profiled: opt-outs, and consent by purpose. Every export heeds it from that moment."""


def choice_options(command: Any) -> Any:
    """When and why a choice was made."""
    command = click.option("--reason", default="", help="Where it can be looked up.")(command)
    return click.option("--at", type=Instant(), help="When the person said so; absent: now.")(command)


@user.command("opt-out")
@click.argument("user_id")
@click.option("--lift", is_flag=True, help="Take an earlier opt-out back.")
@choice_options
@profiles_option
@records_option
@example("penchant user opt-out u0042 --reason 'e-mail of 3 March'")
def user_opt_out(user_id: str, lift: bool, at: datetime | None, reason: str, profiles: str, records: Path) -> None:
    """Leave USER_ID out of every export from now on, and say which destinations have to remove them."""
    from penchant.segments.choices import Choices

    choices = Choices(profiles)
    (choices.lift_opt_out if lift else choices.opt_out)(user_id, at, reason)
    click.echo(f"{user_id}: {'opt-out lifted' if lift else 'opted out of everything'}")
    say_unknown(user_id, profiles)
    if not lift:
        say_removals(user_id, records)


def say_unknown(user_id: str, profiles: str) -> None:
    """Say where the profiles know nobody of a name, which may be mistyped."""
    from penchant.profiles.snapshot import load
    from penchant.profiles.store import Store

    say_no_profiles(profiles)
    if Store(profiles).exists():
        state = load(profiles).state
        if not state.filter(state.user_id == user_id).count().to_pyarrow().as_py():
            click.echo(f"the profiles know no {user_id} yet; is the id right?", err=True)


def say_removals(user_id: str, records: Path) -> None:
    """Name the lists that somebody is on."""
    from penchant.segments.life import Records

    for name, destination in Records(records).naming([user_id]):
        say_removal("is", name, destination)


def say_removal(who: str, name: str, destination: str) -> None:
    """Name a list, and the command that takes people off it."""
    click.echo(
        f"{who} on the list {name} at {destination}; the file that removes them: penchant segment export … --destination {destination} --only remove"
    )


def say_no_profiles(profiles: str) -> None:
    """Say where there are no profiles that choices could lie beside: exports of others don't heed them."""
    from penchant.profiles.store import Store

    if not Store(profiles).exists():
        click.echo(
            f"{profiles}: no profiles there; exports heed the choices beside the profiles they read (--profiles), is the path right?",
            err=True,
        )


@user.command("consent")
@click.argument("user_id")
@click.argument("purpose")
@click.argument("status")
@choice_options
@profiles_option
@records_option
@example("penchant user consent u0042 advertising denied")
def user_consent(user_id: str, purpose: str, status: str, at: datetime | None, reason: str, profiles: str, records: Path) -> None:
    """Record that USER_ID granted or denied PURPOSE, such as advertising."""
    from penchant.segments.choices import Choices

    choices = Choices(profiles)
    choices.consent(user_id, purpose, status, at, reason)
    latest = next(each for each in choices.of_user(user_id) if each["purpose"] == purpose)
    click.echo(f"{user_id}: {purpose} {latest['status']} since {latest['at']:%Y-%m-%d %H:%M} UTC")
    say_unknown(user_id, profiles)
    if latest["status"] == "denied":
        say_removals(user_id, records)


@user.command("load")
@click.argument("path", type=Existing)
@profiles_option
@records_option
@example("penchant user load choices.csv")
def user_load(path: Path, profiles: str, records: Path) -> None:
    """Load past choices from a table: user_id, purpose (* for everything), status, at, reason.

    Rows that can't be taken are listed in PATH.rejects.csv, and the exit code is 1 then: nobody heeds them.
    """
    from penchant.segments.choices import Choices
    from penchant.segments.life import Records

    choices = Choices(profiles)
    counts = choices.load(path)
    click.echo(f"{counts['added']:,} new choices, {counts['known']:,} known already, {counts['rejected']:,} rejected")
    say_no_profiles(profiles)
    for name, destination in Records(records).naming(choices.said_no()):
        say_removal("somebody who said no is", name, destination)
    if counts["rejected"]:
        raise DataError(
            f"{path}: {counts['rejected']:,} rows are no choices, and nobody heeds them: {path.name}.rejects.csv beside it has each with its reason; mend and load them"
        )


@user.command("choices")
@click.argument("user_id")
@profiles_option
@json_option
@example("penchant user choices u0042")
def user_choices(user_id: str, profiles: str, as_json: bool) -> None:
    """List what USER_ID chose, the newest first."""
    from penchant.segments.choices import Choices

    found = Choices(profiles).of_user(user_id)
    if as_json:
        click.echo(json.dumps(found, default=str, ensure_ascii=False))
        return
    for each in found:
        click.echo(f"{each['at']:%Y-%m-%d %H:%M}  {each['purpose']}  {each['status']}  {each['reason'] or ''}".rstrip())
    if not found:
        click.echo(f"{user_id}: chose nothing yet")


@click.group()
def audit() -> None:
    """The log of exports: who, what, when, why."""


@audit.command("show")
@records_option
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, help="Entries shown.")
@json_option
@example("penchant audit show --last 5")
def audit_show(records: Path, last: int, as_json: bool) -> None:
    """List the last entries."""
    from penchant.segments.counts import shown_size
    from penchant.segments.life import Records

    for each in list(Records(records).audit.entries())[-last:]:
        if as_json:
            click.echo(json.dumps(each, ensure_ascii=False))
        else:
            people = f"{shown_size(each['people'])} people" if "people" in each else ""
            where = " ".join(f"{name}={each[name]}" for name in ("segment", "destination", "purpose", "file", "reason") if each.get(name))
            click.echo(f"{each['number']:>5}  {each['at'][:19]}  {each['by']}  {each['what']}  {where}  {people}".rstrip())


@audit.command("verify")
@records_option
@click.option("--known", multiple=True, metavar="HASH", help="A hash noted elsewhere, such as audit_hash in a label; can be repeated.")
@example("penchant audit verify --known $(jq -r .penchant.audit_hash out/runners.csv.label.json)")
def audit_verify(records: Path, known: tuple[str, ...]) -> None:
    """Find any edit of the log; exit code 1 where there is one."""
    from penchant.segments.audit import verify
    from penchant.segments.life import AUDIT

    found = verify(records / AUDIT, known)
    for problem in found.problems:
        click.echo(problem, err=True)
    click.echo(f"{found.entries:,} entries, {'intact' if not found.problems else 'NOT intact'}; last hash {found.head}")
    if found.problems:
        sys.exit(1)
