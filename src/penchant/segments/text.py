r"""The short form of rules: `interest:sports.running weight>=0.2 and seen<30d and not interest:finance`.

The grammar is `GRAMMAR`, in the notation of the Lark library; docs/segments.md explains it. A limit that stands alone behind
`and`, as `seen<30d` here, belongs to the attribute before it.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from pydantic import ValidationError
from rich.cells import cell_len

from penchant.errors import ConfigError
from penchant.segments.rule import SIGNS, Rule, require_moderate

GRAMMAR = r"""
?start: either
?either: both ("or" both)*
?both: one ("and" one)*
?one: "not" one -> negated
    | "(" either ")" -> inner
    | ATTRIBUTE limit* -> attribute
    | limit+ -> loose
    | "count" "(" subject window* ")" bound+ -> counted
    | (HABIT | LAST) "(" name ")" bound+ -> habit

?limit: FIGURE SIGN NUMBER -> figure
    | SEEN SIGN DAYS -> figure
    | DIRECTION -> direction
    | "from" names -> sources
?window: LAST DAYS -> within
    | "by" names -> actions
    | "from" names -> sources
bound: SIGN (NUMBER | DAYS)
subject: ATTRIBUTE | ANY
names: name ("," name)*
name: NAME | QUOTED

FIGURE: "weight" | "index" | "confidence" | "trend" | "events"
SEEN: "seen"
DIRECTION: "rising" | "fading"
HABIT: "spend" | "frequency"
LAST: "last"
ANY: "any"
SIGN: ">=" | "<=" | ">" | "<"
DAYS.3: /\d+(\.\d+)?(e[+-]?\d+)?[dhw](?![^\s(),:"<>=])/
NUMBER.2: /-?\d+(\.\d+)?(e[+-]?\d+)?(?![^\s(),:"<>=])/
ATTRIBUTE.4: /[^\s(),:"<>=]+:("(\\.|[^"\\])*"|[^\s(),"]+)/
QUOTED: /"(\\.|[^"\\])*"/
NAME: /[^\s(),:"<>=]+/
%ignore /\s+/
"""
MEANINGS = {
    "ATTRIBUTE": ["an attribute such as interest:sports.running"],
    "NUMBER": ["a number"],
    "DAYS": ["a time such as 30d, 12h or 2w"],
    "NAME": ["a name"],
    "FIGURE": ["weight", "index", "confidence", "trend", "events"],
    "SEEN": ["seen"],
    "DIRECTION": ["rising", "fading"],
    "COUNT": ["count(…)"],
    "HABIT": ["spend(CURRENCY)", "frequency(ACTION)"],
    "LAST": ["last"],
    "ANY": ["any"],
    "SIGN": [">=", ">", "<=", "<"],
    "COMMA": [","],
    "LPAR": ["("],
    "RPAR": [")"],
    "$END": ["the end"],
}
"""What a reader knows the grammar's words by, in the order in which they are told; those not named are called by themselves, small."""
LIMITS = {sign: name for name, sign in SIGNS.items()}
DAYS = {"d": 1.0, "h": 1 / 24, "w": 7.0}
LIMIT_KEYS = ("weight", "index", "confidence", "trend", "events", "seen_days", "direction", "sources")


class Pointed(Exception):  # noqa: N818 - becomes a ConfigError
    """A mistake at a character of the text, counted from 0."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def parse_text(text: str, origin: str = "rule") -> Rule:
    """A rule from its short form. Raises `ConfigError` that points at the character where it goes wrong."""
    try:
        made = Builder().transform(parser().parse(text))
        refuse_loose(made)
        require_moderate(made["rule"], origin)
        return Rule.model_validate(made["rule"])
    except VisitError as error:
        if not isinstance(error.orig_exc, Pointed):
            raise
        raise pointing(text, str(error.orig_exc), error.orig_exc.position, origin) from error
    except Pointed as error:
        raise pointing(text, str(error), error.position, origin) from error
    except UnexpectedInput as error:
        ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        raise pointing(text, expectation(error), len(text.rstrip()) if ended else error.pos_in_stream or 0, origin) from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: too deeply nested") from error


@cache
def parser() -> Lark:
    """The grammar, made ready once."""
    return Lark(GRAMMAR, parser="lalr", propagate_positions=True, maybe_placeholders=False)


def pointing(text: str, message: str, position: int, origin: str) -> ConfigError:
    """The message with the line of the text that it is about, and a mark under the character."""
    start = text.rfind("\n", 0, position) + 1
    line = text[start:].splitlines()[0] if text[start:].strip() else text[start:]
    mark = " " * cell_len(text[start:position].replace("\t", " "))
    return ConfigError(f"{origin}, character {position + 1}: {message}\n  {line.replace(chr(9), ' ')}\n  {mark}^")


def expectation(error: UnexpectedInput) -> str:
    """What stands there and what could."""
    allowed: set[str]
    found: str
    if isinstance(error, UnexpectedCharacters):
        allowed, found = set(error.allowed or ()), repr(error.char)
    else:
        token = getattr(error, "token", Token("$END", ""))
        allowed, found = (
            set(getattr(error, "accepts", None) or getattr(error, "expected", None) or ()),
            repr(str(token)) if token else "the end",
        )
    if "ATTRIBUTE" in allowed:  # a limit could stand there, but means nothing without an attribute
        allowed -= {"FIGURE", "SEEN", "DIRECTION", "FROM"}
    known = list(MEANINGS)
    told = sorted(
        (each for each in allowed if each != "QUOTED" and not each.startswith("__")),
        key=lambda each: (known.index(each) if each in known else len(known), each),
    )
    wanted = [text for each in told for text in MEANINGS.get(each, [each.lower()])]
    wanted = [f"{text}(ACTION)" if text == "last" and "ATTRIBUTE" in allowed else text for text in wanted]
    options = " or ".join((", ".join(wanted[:-1]), wanted[-1])) if len(wanted) > 1 else "".join(wanted)
    return f"{found} can't stand here" + (f"; expected {options}" if options else "")


def plain(token: Token) -> str:
    """A name without its quotes."""
    if not token.startswith('"'):
        return str(token)
    try:
        return str(json.loads(token))
    except ValueError as error:
        raise Pointed(f"{token}: not a text in quotes as JSON has them", token.start_pos or 0) from error


def days(token: Token) -> float:
    """A time in days: `12h` is half a day."""
    return float(token[:-1]) * DAYS[token[-1]]


def span(found: list[Any]) -> dict[str, Any]:
    """Limits put together; one that is given twice must be the other end of a range."""
    result: dict[str, Any] = {}
    for each in found:
        for name, value in each["limits"].items():
            if name not in result:
                result[name] = value
            elif isinstance(value, dict) and not set(value) & set(result[name]):
                result[name] = result[name] | value
            else:
                raise Pointed(f"{name} is limited twice", each["at"])
    return result


def bounded(bounds: Sequence[dict[str, Any]], wanted: str) -> dict[str, float]:
    """The ends of a range, each a number or each a time."""
    result: dict[str, float] = {}
    for each in bounds:
        name, value = LIMITS[str(each["sign"])], each["value"]
        if value.type != wanted:
            raise Pointed(f"{str(value)!r} can't stand here; expected {MEANINGS[wanted][0]}", value.start_pos or 0)
        if name in result:
            raise Pointed("it is limited twice", each["sign"].start_pos or 0)
        result[name] = days(value) if wanted == "DAYS" else float(value)
    return result


def checked(rule: dict[str, Any], at: int) -> dict[str, Any]:
    """A condition that holds together; `at` is where it begins."""
    try:
        Rule.model_validate(rule)
    except ValidationError as error:
        raise Pointed(error.errors()[0]["msg"].removeprefix("Value error, "), at) from error
    return {"rule": rule, "at": at, "loose": None}


def refuse_loose(node: dict[str, Any]) -> None:
    """Raise for a limit that belongs to no attribute."""
    if node["loose"] is not None:
        raise Pointed("a limit needs an attribute before it, such as interest:sports.running weight>=0.2", node["at"])


@v_args(inline=True)
class Builder(Transformer[Token, Any]):
    """The parsed text as nodes: what `Rule` reads, where it begins, and limits that still look for their attribute."""

    def figure(self, name: Token, sign: Token, value: Token) -> dict[str, Any]:
        """A limit of a figure, or of the days since the last event."""
        limits = {
            "seen_days" if name.type == "SEEN" else str(name): {LIMITS[str(sign)]: days(value) if name.type == "SEEN" else float(value)}
        }
        checked({"attribute": "any:thing", **limits}, name.start_pos or 0)  # a mistake in it is its own, not its condition's
        return {"limits": limits, "at": name.start_pos}

    def direction(self, word: Token) -> dict[str, Any]:
        """Rising or fading."""
        return {"limits": {"direction": str(word)}, "at": word.start_pos}

    def name(self, token: Token) -> Token:
        """A name without its quotes."""
        return Token(token.type, plain(token), token.start_pos)

    def names(self, *found: Token) -> list[Token]:
        """Several names."""
        return list(found)

    def sources(self, found: list[Token]) -> dict[str, Any]:
        """Sources to be heeded alone."""
        return {"limits": {"sources": list(map(str, found))}, "at": found[0].start_pos}

    def actions(self, found: list[Token]) -> dict[str, Any]:
        """Actions to be heeded alone."""
        return {"limits": {"actions": list(map(str, found))}, "at": found[0].start_pos}

    def within(self, last: Token, time: Token) -> dict[str, Any]:
        """A window of time."""
        return {"limits": {"within_days": days(time)}, "at": last.start_pos}

    def subject(self, token: Token) -> Token:
        """What is counted."""
        return token

    def attribute(self, token: Token, *limits: dict[str, Any]) -> dict[str, Any]:
        """A condition on an attribute, another segment or a list."""
        dimension, _, value = token.partition(":")
        value = plain(Token("NAME", value, (token.start_pos or 0) + len(dimension) + 1))
        kind = {"segment": "segment", "users": "users", "interest": "interest"}.get(dimension, "attribute")
        named = f"{dimension}:{value}" if kind == "attribute" else value
        return checked({kind: named, **span(list(limits))}, token.start_pos or 0)

    def loose(self, *limits: dict[str, Any]) -> dict[str, Any]:
        """Limits that stand alone behind `and`."""
        return {"rule": {}, "at": limits[0]["at"], "loose": list(limits)}

    def counted(self, subject: Token, *rest: Any) -> dict[str, Any]:
        """A condition on a number of events."""
        windows, bounds = [each for each in rest if "limits" in each], [each for each in rest if "limits" not in each]
        dimension, _, name = subject.partition(":")
        named = "any" if subject.type == "ANY" else f"{dimension}:{plain(Token('NAME', name, subject.start_pos))}"
        return checked({"count": named, **span(windows), "times": bounded(bounds, "NUMBER")}, subject.start_pos or 0)

    def bound(self, sign: Token, value: Token) -> dict[str, Any]:
        """One end of a range."""
        return {"sign": sign, "value": value}

    def habit(self, kind: Token, name: Token, *bounds: dict[str, Any]) -> dict[str, Any]:
        """A condition on a habit."""
        limits = {"spend": "amount", "frequency": "times", "last": "days"}[kind]
        return checked({str(kind): str(name), limits: bounded(bounds, "DAYS" if kind == "last" else "NUMBER")}, kind.start_pos or 0)

    def negated(self, node: dict[str, Any]) -> dict[str, Any]:
        """A node that must not hold."""
        refuse_loose(node)
        return {"rule": {"not": node["rule"]}, "at": node["at"], "loose": None, "closed": True}

    def inner(self, node: dict[str, Any]) -> dict[str, Any]:
        """A node in brackets, to which no later limit belongs."""
        refuse_loose(node)
        return node | {"closed": True}

    def both(self, *nodes: dict[str, Any]) -> dict[str, Any]:
        """Nodes that all hold; a loose limit goes to the attribute before it."""
        found: list[dict[str, Any]] = []
        for node in nodes:
            if node["loose"] is None:
                found.append(node)
                continue
            before = found[-1] if found else None
            if before is None or before.get("closed") or not set(before["rule"]) & {"interest", "attribute"}:
                refuse_loose(node)
            assert before is not None
            own = [{"limits": {key: value}, "at": node["at"]} for key, value in before["rule"].items() if key in LIMIT_KEYS]
            rest = {key: value for key, value in before["rule"].items() if key not in LIMIT_KEYS}
            found[-1] = checked(rest | span([*own, *node["loose"]]), before["at"])
        if len(found) == 1:
            return found[0]
        return {"rule": {"all": [each["rule"] for each in found]}, "at": found[0]["at"], "loose": None}

    def either(self, *nodes: dict[str, Any]) -> dict[str, Any]:
        """Nodes of which one holds."""
        for node in nodes:
            refuse_loose(node)
        return {"rule": {"any": [each["rule"] for each in nodes]}, "at": nodes[0]["at"], "loose": None}
