"""Segments read from files, with the lists and the other segments they name, and held against what profiles hold and what is allowed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import ibis.expr.types as ir

from penchant.config import parse, read_yaml, suggestion
from penchant.errors import ConfigError, DataError, PolicyRefusal, problems
from penchant.profiles.duck import put_aside
from penchant.profiles.habits import HABITS
from penchant.profiles.snapshot import Snapshot
from penchant.segments.people import Audience, Profiles, below, reached
from penchant.segments.rule import Rule, Segment, require_moderate
from penchant.segments.text import parse_text, pointing

FOLDER = Path("configs/segments")
"""Where the segments lie that a rule names which stands in no file."""
SCRATCH = "rule"
"""Name of a segment that is a rule alone."""


def read_audience(source: str | Path, purpose: str = "exploration", naming: tuple[str, ...] = ()) -> Audience:
    """A segment from its file (YAML), or from a rule in the short form, with all it names. Raises `ConfigError` with every mistake.

    `naming` are the segments on the way to it, by which a circle is told.
    """
    path = Path(source)
    if isinstance(source, str) and is_text(source):
        return of_text(source, purpose)
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a segment: keys such as name, purpose and rule; see configs/segments")
    text = ""
    if isinstance(content.get("rule"), str):
        text = content["rule"]
        content |= {"rule": parse_text(text, f"{path}: rule").model_dump(mode="json", by_alias=True, exclude_none=True)}
    require_moderate(content.get("rule"), f"{path}: rule")
    segment = parse(Segment, content, str(path))
    if segment.name in naming:
        raise ConfigError(f"{path}: a circle: {' → '.join([*naming, segment.name])}; a segment can't be defined by itself")
    return completed(segment, path.parent, text, str(path), (*naming, segment.name))


def is_text(source: str) -> bool:
    """Whether it is a rule in the short form, and not the name of a file."""
    return (":" in source or "(" in source) and not source.endswith((".yaml", ".yml"))


def of_text(text: str, purpose: str = "exploration") -> Audience:
    """A segment that is a rule in the short form and nothing more."""
    return completed(Segment(name=SCRATCH, purpose=purpose, rule=parse_text(text)), FOLDER, text, "rule", ())


def completed(segment: Segment, folder: Path, text: str, origin: str, naming: tuple[str, ...]) -> Audience:
    """A segment with its lists and the segments that it names, which lie in `folder`."""
    lists: dict[str, Sequence[str]] = {}
    others: dict[str, Audience] = {}
    named = [each.users for each in segment.rule.conditions()]
    for file in [each for each in (*named, segment.include, segment.exclude) if each is not None]:
        lists[str(file)] = read_users(folder / file)
    for name in [each.segment for each in segment.rule.conditions() if each.segment is not None]:
        path = folder / f"{name}.yaml"
        if not path.is_file():
            known = sorted(each.stem for each in folder.glob("*.yaml"))
            raise ConfigError(f"{origin}: unknown segment {name!r}{suggestion(name, known)}, in {folder}")
        others[name] = read_audience(path, naming=naming)
    return Audience(segment, lists, others, text=text, origin=origin)


def read_users(path: Path) -> list[str]:
    """User ids from a text file, one a line; a first line `user_id` is its heading. Each id once, in the file's order."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: can't be read: {why}; expected a file of user ids, one a line") from error
    found = list(dict.fromkeys(each for line in lines if (each := line.strip())))
    found = found[1:] if found[:1] == ["user_id"] else found
    if not found:
        raise DataError(f"{path}: no user ids; expected one a line")
    return found


def checked(audience: Audience, snapshot: Snapshot, purpose: str = "") -> Audience:
    """A segment that these profiles can answer and that may be asked for; the sensitive interests it may use are `permitted`.

    What it may use, and the segments it names, goes by its own purpose, or the one that is given.

    Raises `ConfigError` for values, sources and actions that nobody has, with the nearest, and `PolicyRefusal` for sensitive interests.
    """
    mistakes: list[tuple[str, str]] = []
    conditions = list(audience.rule.conditions())
    for condition in conditions:
        mistakes += unknown(condition, snapshot)
    for name in ("source", "action"):
        asked = sorted({each for condition in conditions for each in getattr(condition, f"{name}s") or ()})
        have = column(snapshot, name) if asked else []
        mistakes += [(f"unknown {name} {each!r}{suggestion(each, have)}", each) for each in asked if each not in have]
    if not audience.rule.positive():
        mistakes.append(("the rule holds for people nothing is known of; add a condition that is not negated, such as an interest", "not"))
    if mistakes:
        raise mistaken(mistakes, audience)
    purpose = purpose or audience.segment.purpose
    refuse_sensitive(audience, snapshot, purpose)
    permitted = frozenset(each.interest for each in snapshot.policy.permits(purpose))
    others = {name: checked(other, snapshot, purpose) for name, other in audience.others.items()}
    return replace(audience, others=others, permitted=permitted)


def mistaken(mistakes: list[tuple[str, str]], audience: Audience) -> ConfigError:
    """The mistakes of a rule: in the short form with a mark under the first, else as a list."""
    message, name = mistakes[0]
    if audience.text and name in audience.text:
        return pointing(audience.text, message, audience.text.index(name), audience.origin)
    return ConfigError(problems(audience.origin, [each for each, _ in mistakes]))


def unknown(condition: Rule, snapshot: Snapshot) -> list[tuple[str, str]]:
    """What a condition asks for that nobody can have, with the text it is told by."""
    if condition.kind in ("spend", "frequency", "last") and not snapshot.policy.habits:
        return [
            (
                f"{condition.kind} needs habits, which these profiles are without; build them under a policy with habits: true",
                condition.kind,
            )
        ]
    if condition.on_profile is None:
        return []
    dimension, value = condition.on_profile
    if dimension == "interest":
        known = sorted(snapshot.taxonomy.by_id)
        return [] if value in snapshot.taxonomy.by_id else [(f"unknown interest {value!r}{suggestion(value, known)}", value)]
    values = sorted(each for of, each in snapshot.shares if of == dimension)
    if not values:
        dimensions = sorted({of for of, _ in snapshot.shares} | {"interest"})
        word = "dimension" if dimension not in HABITS else "habit"
        return [(f"unknown {word} {dimension!r}{suggestion(dimension, dimensions)}", dimension)]
    return [] if value in values else [(f"no {dimension} {value!r} in these profiles{nearest(value, values)}", value)]


def nearest(value: str, values: list[str]) -> str:
    """The nearest values, or some of them: there may be very many."""
    near = suggestion(value, values)
    return near if near.startswith("; did") or len(values) <= 10 else f"; for example {', '.join(map(repr, values[:5]))}"


def column(snapshot: Snapshot, name: str) -> list[str]:
    """Every source or action of the kept events."""
    return sorted(snapshot.head.rows(snapshot.connection, "event").select(name).distinct().to_pyarrow()[name].to_pylist())


def refuse_sensitive(audience: Audience, snapshot: Snapshot, purpose: str) -> None:
    """Raise `PolicyRefusal` for sensitive interests in a rule that the profiles' policy doesn't permit for its purpose."""
    asked = {value for each in audience.rule.conditions() if each.key is not None and each.key[0] == "interest" for value in [each.key[1]]}
    sensitive = sorted(asked & snapshot.taxonomy.sensitive)
    refused = [each for each in sensitive if each not in {permit.interest for permit in snapshot.policy.permits(purpose)}]
    if refused:
        raise PolicyRefusal(
            f"{audience.origin}: {', '.join(refused)}: sensitive. Inferred health, religion, politics, sexuality or ethnicity is special-category data, "
            "and advertising profiled on it is banned in the EU (DSA art. 26(3)); use an interest that isn't sensitive, or name the interest, "
            f"the purpose ({purpose}) and the legal ground in the policy of the profiles (allowed_sensitive)"
        )


def uses_sensitive(audience: Audience, snapshot: Snapshot) -> list[str]:
    """The sensitive interests that decide who is in it, below those it names too."""
    found: set[str] = set()
    for each in audience.everything():
        for condition in each.rule.conditions():
            if condition.key is not None:
                found |= set(below(condition.key, snapshot.taxonomy)) & snapshot.taxonomy.sensitive & each.permitted
    return sorted(found)


def known_people(snapshot: Snapshot, permitted: frozenset[str] = frozenset()) -> ir.Table:
    """`user_id` of everybody who has a profile, once each: told from the state, without a weight being computed."""
    state, barred = snapshot.state, sorted(snapshot.taxonomy.sensitive - permitted)
    rows = state.filter(state[f"mass_{snapshot.policy.horizons[1]}"] > 0)
    rows = rows.filter((rows.dimension != "interest") | rows.value.notin(barred)) if barred else rows
    return rows.select("user_id").distinct()


def profiles_for(audience: Audience, snapshot: Snapshot) -> Profiles:
    """What a segment is asked of: the profiles of those alone who can be in it at all, found by a look at the state.

    With them come those who can be in a segment that it names and that has a `top`: whose place there depends on all of them.
    """
    whole = everybody(snapshot)
    state = snapshot.head.rows(snapshot.connection, "state").select("user_id", "dimension", "value")
    ranked = [each for each in audience.everything()[1:] if each.segment.top is not None]
    found = [reached(each, whole, state) for each in (audience, *ranked)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return whole
    users = put_aside(snapshot.connection, reduce(lambda a, b: a.union(b), known).distinct())
    return Profiles(
        snapshot.profiles_of(users),
        snapshot.interactions.semi_join(users, "user_id"),
        snapshot.taxonomy,
        snapshot.policy,
        snapshot.as_of,
        snapshot.shares,
    )


def everybody(snapshot: Snapshot) -> Profiles:
    """All profiles as rules are asked of them."""
    return Profiles(snapshot.profiles, snapshot.interactions, snapshot.taxonomy, snapshot.policy, snapshot.as_of, snapshot.shares)
