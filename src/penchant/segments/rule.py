"""Segment rules: a tree of conditions on people, as YAML; see configs/segments for complete examples and `text` for the short form."""

import json
import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from penchant.config import Settings
from penchant.errors import ConfigError

SIGNS = {"min": ">=", "above": ">", "max": "<=", "below": "<"}
"""Each limit of a `Range` in the short form."""
UNBOUNDED = (-math.inf, math.inf)
SCALES = {"weight": (0.0, 1.0), "confidence": (0.0, 1.0), "trend": UNBOUNDED, "spend": UNBOUNDED}
"""What a figure can be at all, where it isn't 0 or more."""
TURN = 0.25
"""A trend (log2 of lately over lastingly) over this is rising, under its negative fading."""
PLAIN_NAME = re.compile(r'[^\s(),:"<>=]+')
PLAIN_VALUE = re.compile(r'[^\s(),"]+')
FIGURES = ("weight", "index", "confidence", "trend", "events")
KINDS: dict[str, tuple[str, ...]] = {
    "all": (),
    "any": (),
    "not": (),
    "interest": (*FIGURES, "seen_days", "direction", "sources"),
    "attribute": (*FIGURES, "seen_days", "direction", "sources"),
    "count": ("times", "within_days", "actions", "sources"),
    "spend": ("amount",),
    "frequency": ("times",),
    "last": ("days",),
    "segment": (),
    "users": (),
}
"""What each kind of node may have beside it."""
DEEPEST, MOST_CONDITIONS = 50, 60
"""Levels and conditions of a rule that every engine compiles, and quickly."""
REQUIRED = {"count": "times", "spend": "amount", "frequency": "times", "last": "days"}


Limit = Annotated[float, Field(ge=-1e15, le=1e15)]
"""A limit of a figure; none is larger in size, and a number can still be drawn."""


class Range(Settings):
    """Limits of a figure; at least one, none of which rules the other out."""

    min: Limit | None = None
    """At least this."""
    above: Limit | None = None
    """More than this."""
    max: Limit | None = None
    """At most this."""
    below: Limit | None = None
    """Less than this."""

    @model_validator(mode="after")
    def possible(self) -> "Range":
        """Some figure lies within."""
        given = [name for name in SIGNS if getattr(self, name) is not None]
        if not given:
            raise ValueError("expected one of min, above, max, below")
        if {"min", "above"} <= set(given) or {"max", "below"} <= set(given):
            raise ValueError("expected one lower and one upper limit at most")
        lower = self.min if self.min is not None else self.above
        upper = self.max if self.max is not None else self.below
        closed = self.above is None and self.below is None
        if lower is not None and upper is not None and (lower > upper or (lower == upper and not closed)):
            raise ValueError(f"impossible range: nothing is {self.text('')}".replace("nothing is  ", "nothing is "))
        return self

    def within(self, low: float, high: float) -> bool:
        """Whether a figure of this scale can lie in the range."""
        reaches = (self.max is None or self.max >= low) and (self.below is None or self.below > low)
        begins = (self.min is None or self.min <= high) and (self.above is None or self.above < high)
        return reaches and begins

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are given, by name."""
        return {name: value for name in SIGNS if (value := getattr(self, name)) is not None}

    @property
    def positive(self) -> bool:
        """Whether 0 lies below it."""
        return (self.min is not None and self.min > 0) or (self.above is not None and self.above >= 0)

    def text(self, name: str, unit: str = "") -> str:
        """In the short form: `weight>=0.2 weight<0.5`."""
        return " ".join(f"{name}{SIGNS[key]}{number(value)}{unit}" for key, value in self.limits.items())


def number(value: float) -> str:
    """A number as briefly as it can be written without becoming another."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


class Rule(Settings):
    """A node of the rule tree: a combination (`all`, `any`, `not`), or a condition with its limits."""

    all: tuple["Rule", ...] | None = Field(None, min_length=1)
    """Every one of these holds."""
    any: tuple["Rule", ...] | None = Field(None, min_length=1)
    """At least one of these holds."""
    not_: "Rule | None" = Field(None, alias="not")
    """This doesn't hold."""
    interest: str | None = None
    """An interest that the person has; what lies below it counts for it."""
    attribute: str | None = None
    """An attribute of another dimension, such as `brand:nike` or `place:oslo`."""
    weight: Range | None = None
    """Its weight, 0 to 1, summed over the interest and what lies below it."""
    index: Range | None = None
    """Its affinity index: 100 · weight / the population's share."""
    confidence: Range | None = None
    """Confidence in the person's weights of that dimension, 0 to 1."""
    trend: Range | None = None
    """log2 of its weight lately over that lastingly: 1 is twice as strong lately."""
    direction: Literal["rising", "fading"] | None = None
    """A trend over 0.25, or under −0.25."""
    events: Range | None = None
    """How many events stand behind it."""
    seen_days: Range | None = None
    """Days from the last event in favour of it to the profiles' instant."""
    sources: tuple[str, ...] | None = Field(None, min_length=1)
    """Sources of which at least one contributed; of a `count`, those whose events are counted."""
    count: str | None = None
    """Events counted one by one: an attribute such as `interest:sports.running`, or `any`."""
    times: Range | None = None
    """How many there are; of a `frequency`, how many in 30 days at the rate of lately."""
    within_days: float | None = Field(None, gt=0)
    """Only events of the last so many days."""
    actions: tuple[str, ...] | None = Field(None, min_length=1)
    """Only events with one of these actions."""
    spend: str | None = None
    """A currency: what the person spends in 30 days, at the rate of lately (needs profiles with habits)."""
    amount: Range | None = None
    """How much that is."""
    frequency: str | None = None
    """An action: how often the person does it (needs profiles with habits)."""
    last: str | None = None
    """An action: when the person did it last (needs profiles with habits)."""
    days: Range | None = None
    """Days since then."""
    segment: str | None = None
    """The name of another segment, whose rule lies beside this one: its people."""
    users: Path | None = None
    """A file of user ids, one a line, beside this rule."""

    @model_validator(mode="before")
    @classmethod
    def interests_are_interests(cls, value: Any) -> Any:
        """`attribute: interest:x` is the long way to write `interest: x`."""
        if isinstance(value, dict) and isinstance(named := value.get("attribute"), str) and named.startswith("interest:"):
            return {
                "interest" if key == "attribute" else key: named.partition(":")[2] if key == "attribute" else each
                for key, each in value.items()
            }
        return value

    @model_validator(mode="after")
    def one_kind(self) -> "Rule":
        """A node is of one kind, and has nothing beside it but what belongs to that."""
        given = [field.alias or name for name, field in type(self).model_fields.items() if getattr(self, name) is not None]
        kinds = [each for each in given if each in KINDS]
        if len(kinds) != 1:
            raise ValueError(f"expected exactly one of {', '.join(KINDS)}; found {', '.join(kinds) or 'none'}")
        strange = [each for each in given if each not in KINDS and each not in KINDS[kinds[0]]]
        if strange:
            allowed = ", ".join(KINDS[kinds[0]]) or "nothing"
            raise ValueError(f"{', '.join(strange)}: can't stand beside {kinds[0]}; what can: {allowed}")
        needed = REQUIRED.get(kinds[0])
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"{kinds[0]} needs {needed}, such as {needed}: {{min: 1}}")
        if self.trend is not None and self.direction is not None:
            raise ValueError("expected trend or direction, not both")
        for name in (self.attribute, self.count if self.count != "any" else None):
            if name is not None and not all(name.partition(":")[::2]):
                raise ValueError(f"{name!r}: expected a dimension and a value, such as brand:nike")
        self.check_scales()
        return self

    def check_scales(self) -> None:
        """Raise `ValueError` for a range in which the figure can't lie."""
        for name in (*FIGURES, "seen_days", "times", "days", "amount"):
            low, high = SCALES.get("spend" if name == "amount" else name, (0.0, math.inf))
            found = getattr(self, name)
            if found is not None and not found.within(low, high):
                scale = f"0 to {number(high)}" if high < math.inf else "0 or more"
                raise ValueError(f"impossible range: {name} is {scale}, so never {found.text('').replace(' ', ' and ')}")

    @property
    def kind(self) -> str:
        """Which of `KINDS` it is."""
        return next(each for each in KINDS if getattr(self, "not_" if each == "not" else each) is not None)

    @property
    def parts(self) -> tuple["Rule", ...]:
        """The nodes right below."""
        return (*(self.all or ()), *(self.any or ()), *([self.not_] if self.not_ is not None else []))

    @property
    def key(self) -> tuple[str, str] | None:
        """(dimension, value) that a condition is about; None where it is about none."""
        if self.interest is not None:
            return "interest", self.interest
        named = self.attribute or (self.count if self.count != "any" else None)
        return (named.partition(":")[0], named.partition(":")[2]) if named is not None else None

    @property
    def on_profile(self) -> tuple[str, str] | None:
        """(dimension, value) of the profile rows that a condition reads; None for what isn't in profiles."""
        if self.kind in ("spend", "frequency", "last"):
            return ("spend", str(self.spend)) if self.spend is not None else ("action", str(self.frequency or self.last))
        return self.key

    def conditions(self) -> Iterator["Rule"]:
        """The leaves of the tree, from left to right."""
        if self.parts:
            for inner in self.parts:
                yield from inner.conditions()
        else:
            yield self

    def wanted(self) -> Iterator["Rule"]:
        """The leaves that aren't negated."""
        if self.all is not None or self.any is not None:
            for inner in self.parts:
                yield from inner.wanted()
        elif self.not_ is None:
            yield self

    def positive(self) -> bool:
        """Whether everybody who meets the rule meets some condition that isn't negated, so that it can't mean the whole world."""
        if self.all is not None:
            return any(each.positive() for each in self.all)
        if self.any is not None:
            return all(each.positive() for each in self.any)
        counted = self.times if self.kind in ("count", "frequency") else self.amount
        return self.not_ is None and (counted is None or counted.positive)

    def text(self) -> str:
        """The short form, which `penchant.segments.text.parse_text` reads back to an equal rule."""
        if self.all is not None or self.any is not None:
            word = " and " if self.all is not None else " or "
            return word.join(f"({each.text()})" if each.all or each.any else each.text() for each in self.parts)
        if self.not_ is not None:
            return f"not ({self.not_.text()})" if self.not_.all or self.not_.any else f"not {self.not_.text()}"
        return self.condition_text()

    def condition_text(self) -> str:
        """A leaf in the short form."""
        if self.count is not None:
            last = f"last {number(self.within_days)}d" if self.within_days is not None else ""
            inner = [subject(self.count) if self.count != "any" else "any", last, names("by", self.actions), names("from", self.sources)]
            return ranged(f"count({' '.join(each for each in inner if each)})", self.times)
        for kind, limits, unit in (("spend", self.amount, ""), ("frequency", self.times, ""), ("last", self.days, "d")):
            if (value := getattr(self, kind)) is not None:
                return ranged(f"{kind}({quoted(value, PLAIN_NAME)})", limits, unit)
        if self.segment is not None or self.users is not None:
            return f"segment:{quoted(self.segment, PLAIN_VALUE)}" if self.segment else f"users:{quoted(str(self.users), PLAIN_VALUE)}"
        shown = [found.text(name) for name in FIGURES if (found := getattr(self, name)) is not None]
        shown += [self.seen_days.text("seen", "d")] if self.seen_days is not None else []
        shown += [self.direction or "", names("from", self.sources)]
        assert self.key is not None
        return " ".join(each for each in (subject(":".join(self.key)), *shown) if each)


def require_moderate(rule: Any, origin: str) -> None:
    """Raise `ConfigError` for a rule, as keys and values, that is nested deeper or has more conditions than engines can compile."""
    level, conditions = [rule], 0
    for _ in range(DEEPEST):
        parts = [(key, each) for node in level if isinstance(node, dict) for key, each in node.items() if key in ("all", "any", "not")]
        conditions += len(level) - len(parts)
        level = [each for _, own in parts for each in (own if isinstance(own, list | tuple) else [own])]
        if not level:
            break
    else:
        raise ConfigError(f"{origin}: too deeply nested: at most {DEEPEST} levels of all, any and not")
    if conditions > MOST_CONDITIONS:
        raise ConfigError(
            f"{origin}: too long: {conditions:,} conditions, at most {MOST_CONDITIONS}; put people into a list (users:), or segments of their own"
        )


def quoted(text: str, plain: re.Pattern[str]) -> str:
    """A text as it stands where it is plain, else in quotes."""
    return text if plain.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def subject(key: str) -> str:
    """`dimension:value` in the short form."""
    dimension, _, value = key.partition(":")
    return f"{dimension}:{quoted(value, PLAIN_VALUE)}"


def names(word: str, found: tuple[str, ...] | None) -> str:
    """A list of names behind a word."""
    return f"{word} {','.join(quoted(each, PLAIN_NAME) for each in found)}" if found else ""


def ranged(figure: str, limits: Range | None, unit: str = "") -> str:
    """A figure with its limits behind it: `count(any)>=1 <=5`."""
    assert limits is not None
    return figure + limits.text("", unit)


class Top(Settings):
    """A part of those who meet a rule."""

    people: int = Field(gt=0)
    """So many, and no more."""
    by: Literal["weight", "last_at"] = "weight"
    """Those with the most of it: the weights of the rule's conditions together, or the last event of theirs."""


class Segment(Settings):
    """A named rule with what an export needs to know."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    """Lower-case letters, digits and dashes."""
    description: str = ""
    """Who these people are and what is planned, in words."""
    owner: str = ""
    """Who answers for it."""
    purpose: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """What the audience is for, as people's choices name it, such as `advertising`."""
    legal_basis: Literal["consent", "legitimate-interest"] = "legitimate-interest"
    """With `consent` only people who granted the purpose are exported; with the other, all but those who denied it or opted out."""
    expires: date | None = None
    """The last day on which it is exported."""
    refresh: Literal["daily", "weekly", "monthly", "manual"] = "manual"
    """How often `penchant segment refresh` finds its people anew."""
    min_size: int = Field(50, ge=50)
    """Fewer people than this are not exported; never below 50."""
    largest_jump: float = Field(0.5, gt=0)
    """A refresh that changes the size by more than this share of it stops exports until somebody accepts it."""
    rule: Rule
    """Who belongs to it."""
    top: Top | None = None
    """Only the first so many of them."""
    include: Path | None = None
    """A file of user ids, one a line, who belong to it whatever the rule says."""
    exclude: Path | None = None
    """A file of user ids who don't, whatever else is said."""
