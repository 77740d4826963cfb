"""Rules read plainly over profile rows and events in Python: what every engine has to agree with."""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from penchant.segments.rule import Range, Rule, Segment

Row = dict[str, Any]


class Plain:
    """Profiles as lists of rows, by user."""

    def __init__(
        self, attributes: list[Row], interactions: list[Row], parents: dict[str, str], half_life_days: float, as_of: datetime
    ) -> None:
        self.attributes: dict[str, list[Row]] = defaultdict(list)
        self.interactions: dict[str, list[Row]] = defaultdict(list)
        for rows, by_user in ((attributes, self.attributes), (interactions, self.interactions)):
            for row in rows:
                by_user[row["user_id"]].append(row)
        self.parents, self.half_life_days, self.as_of = parents, half_life_days, as_of
        self.shares = {(row["dimension"], row["value"]): row["weight"] * 100 / row["index"] for row in attributes}
        self.lists: dict[str, list[str]] = {}
        self.segments: dict[str, Segment] = {}

    @property
    def users(self) -> set[str]:
        return {*self.attributes, *self.interactions, *(user for users in self.lists.values() for user in users)}

    def under(self, value: str | None, key: tuple[str, str]) -> bool:
        """Whether a value is that of a key or, for interests, lies below it."""
        if value == key[1]:
            return True
        return key[0] == "interest" and value in self.parents and self.under(self.parents[value], key)

    def about(self, rows: list[Row], key: tuple[str, str]) -> list[Row]:
        return [row for row in rows if row["dimension"] == key[0] and self.under(row["value"], key)]

    def meets(self, rule: Rule, user: str) -> bool:
        if rule.all is not None:
            return all(self.meets(each, user) for each in rule.all)
        if rule.any is not None:
            return any(self.meets(each, user) for each in rule.any)
        if rule.not_ is not None:
            return not self.meets(rule.not_, user)
        return bool(getattr(self, {"interest": "attribute", "users": "listed"}.get(rule.kind, rule.kind))(rule, user))

    def users_of(self, rule: Rule) -> set[str]:
        return {user for user in self.users if self.meets(rule, user)}

    def members(self, segment: Segment) -> set[str]:
        excluded = set(self.lists[str(segment.exclude)]) if segment.exclude else set()
        included = set(self.lists[str(segment.include)]) if segment.include else set()
        found = [user for user in self.users_of(segment.rule) if user not in excluded]
        if segment.top is not None:
            by = {"weight": self.weight, "last_at": self.last_at}[segment.top.by]
            found = sorted(sorted(found), key=lambda user: by(segment.rule, user), reverse=True)[: segment.top.people]
        return set(found) | (included - excluded)

    def wanted(self, rule: Rule, user: str) -> list[Row]:
        keys = [each.key for each in rule.wanted() if each.kind in ("interest", "attribute") and each.key]
        return [row for row in self.attributes[user] if any(self.about([row], key) for key in keys)]

    def weight(self, rule: Rule, user: str) -> float:
        return sum(row["weight"] for row in self.wanted(rule, user))

    def last_at(self, rule: Rule, user: str) -> datetime:
        return max((row["last_at"] for row in self.wanted(rule, user)), default=datetime.min.replace(tzinfo=self.as_of.tzinfo))

    def ago(self, moment: datetime) -> float:
        return (self.as_of - moment) / timedelta(days=1)

    def attribute(self, rule: Rule, user: str) -> bool:
        assert rule.key is not None
        rows = self.about(self.attributes[user], rule.key)
        if not rows:
            return False
        weight = sum(row["weight"] for row in rows)
        share = sum(value for (dimension, name), value in self.shares.items() if dimension == rule.key[0] and self.under(name, rule.key))
        lately = sum(row["weight"] * (2 ** row["trend"] if row["trend"] is not None else 0) for row in rows)
        bound = {"rising": Range(above=0.25), "fading": Range(below=-0.25)}.get(rule.direction or "", rule.trend)
        return (
            inside(weight, rule.weight)
            and inside(100 * weight / share, rule.index)
            and inside(max(row["confidence"] for row in rows), rule.confidence)
            and (bound is None or inside(lately / weight, Range(**{name: 2**value for name, value in bound.limits.items()})))
            and inside(sum(row["events"] for row in rows), rule.events)
            and inside(self.ago(max(row["last_positive_at"] for row in rows)), rule.seen_days)
            and (rule.sources is None or any(set(row["sources"]) & set(rule.sources) for row in rows))
        )

    def count(self, rule: Rule, user: str) -> bool:
        rows = self.interactions[user] if rule.key is None else self.about(self.interactions[user], rule.key)
        rows = [row for row in rows if rule.within_days is None or self.ago(row["occurred_at"]) < rule.within_days]
        rows = [row for row in rows if rule.actions is None or row["action"] in rule.actions]
        rows = [row for row in rows if rule.sources is None or row["source"] in rule.sources]
        return inside(len({row["event_id"] for row in rows}), rule.times)

    def rate(self, user: str, key: tuple[str, str]) -> float:
        """mass · ln 2 / (h · (1 − 2^(−A/h))) · 30, with A the days since the first event, 30 at least; see penchant.profiles.habits."""
        mass = sum(row["mass"] for row in self.about(self.attributes[user], key))
        first = min((row["first_at"] for row in self.attributes[user] if row["dimension"] == "source"), default=self.as_of)
        known = max(self.ago(first), 30)
        return mass * 0.6931471805599453 / self.half_life_days * 30 / (1 - 2 ** (-known / self.half_life_days))

    def spend(self, rule: Rule, user: str) -> bool:
        return inside(self.rate(user, ("spend", str(rule.spend))), rule.amount)

    def frequency(self, rule: Rule, user: str) -> bool:
        return inside(self.rate(user, ("action", str(rule.frequency))), rule.times)

    def last(self, rule: Rule, user: str) -> bool:
        found = [row["last_at"] for row in self.about(self.attributes[user], ("action", str(rule.last)))]
        return bool(found) and inside(self.ago(max(found)), rule.days)

    def segment(self, rule: Rule, user: str) -> bool:
        return user in self.members(self.segments[str(rule.segment)])

    def listed(self, rule: Rule, user: str) -> bool:
        return user in self.lists[str(rule.users)]


def inside(figure: float, limits: Range | None) -> bool:
    """Whether a figure lies within limits."""
    return limits is None or (
        (limits.min is None or figure >= limits.min)
        and (limits.above is None or figure > limits.above)
        and (limits.max is None or figure <= limits.max)
        and (limits.below is None or figure < limits.below)
    )
