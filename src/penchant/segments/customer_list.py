"""People and their identities to the rows of a customer list; what can't be used is left blank and counted, never sent."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from penchant.errors import DataError
from penchant.segments import normal
from penchant.segments.identity import KEYS, Identities
from penchant.segments.normal import Form, Malformed

ONE_PERSONS = (*KEYS, "external_id")
"""Identifiers that belong to one person: one that several share reaches somebody who isn't meant."""
SHARED = "shared by several people"
NOTHING_LEFT = "nothing left to match by"
DUPLICATE = "same as a row before"
NOT_IN_TABLE = "not in the identity table"
NO_CONSENT = "no consent to ad_user_data and ad_personalization"
SHOWN_ROWS = 5
REJECTS = pa.schema([("row", pa.int64()), ("identifier", pa.string()), ("reason", pa.string())])


@dataclass
class Listing:
    """What a destination's file will hold, and what it won't."""

    table: pa.Table
    """Exactly the destination's columns."""
    people: pa.Array
    """Distinct ids of the users in it, in its order."""
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(identifier, reason) → how often; the identifier is `row` for whole rows and `person` for whole people."""
    rejects: pa.Table = field(default_factory=REJECTS.empty_table)
    """Each dropped cell and row of the identity table, of schema `REJECTS`: where and why, never what."""


def customer_list(
    name: str,
    header: Mapping[str, str],
    forms: Mapping[str, Form],
    users: Collection[str],
    identities: Identities,
    *,
    default_region: str | None,
    rejected_share: float,
    consent_region: Collection[str] = (),
    consenting: Collection[str] = (),
) -> Listing:
    """Rows for `header` (column → identifier), one per row of the identity table, in the order of `users` and then of the table.

    Who lives in `consent_region` (ISO 3166-1 alpha-2 codes), or nobody knows where, is in it only if among `consenting`; with no such
    region everybody may be. Raises `DataError` when more than `rejected_share` of the identifiers to match by are malformed.
    """
    cells = Cells(identities, forms, default_region)
    linter = Linter(cells, list(header.values()))
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for n, user in enumerate(cells.users):
        rows_of[user].append(n)
    for user in dict.fromkeys(users):
        rows = rows_of.get(user, [])
        if not rows:
            linter.dropped["person", NOT_IN_TABLE] += 1
        elif consent_region and user not in consenting and cells.may_live_in(rows, consent_region):
            linter.dropped["person", NO_CONSENT] += 1
        else:
            linter.person(user, rows)
    linter.dropped.update({("row", reason): count for reason, count in identities.broken.items()})
    if linter.malformed > rejected_share * linter.present:
        raise looks_wrong(name, identities.path, linter, rejected_share)
    return Listing(
        strings(linter.lines, list(header)),
        pa.array(linter.people, pa.string()),
        linter.dropped,
        strings([(str(row), identifier, reason) for row, identifier, reason in linter.rejects], REJECTS.names).cast(REJECTS),
    )


def strings(rows: Collection[tuple[str, ...]], names: list[str]) -> pa.Table:
    """Rows as a table of strings."""
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pa.table([pa.array(each, pa.string()) for each in columns], names)


class Linter:
    """Rows that can be sent, and account of what can't."""

    def __init__(self, cells: "Cells", identifiers: list[str]) -> None:
        self.cells, self.identifiers = cells, identifiers
        self.shared = cells.shared([each for each in identifiers if each in ONE_PERSONS])
        self.people: dict[str, None] = {}  # in order
        self.lines: dict[tuple[str, ...], None] = {}
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.rejects: list[tuple[int, str, str]] = []
        self.present = self.malformed = 0

    def person(self, user: str, rows: Collection[int]) -> None:
        """Add a user's rows."""
        for n in rows:
            line = {identifier: self.usable(identifier, n) for identifier in self.identifiers}
            values = tuple(line.values())
            if not any(line.get(key) for key in KEYS):
                self.reject(n, "row", NOTHING_LEFT)
            elif values in self.lines:
                self.reject(n, "row", DUPLICATE)
            else:
                self.lines[values] = None
                self.people[user] = None

    def usable(self, identifier: str, n: int) -> str:
        """A cell, empty where there is none that can be sent."""
        value, reason = self.cells.at(identifier, n)
        if identifier in KEYS:
            self.present += bool(value or reason)
            self.malformed += bool(reason)
        if value and (identifier, value) in self.shared:
            value, reason = None, SHARED
        if reason:
            self.reject(n, identifier, reason)
        return value or ""

    def reject(self, n: int, identifier: str, reason: str) -> None:
        """Count a cell or row that isn't sent."""
        self.dropped[identifier, reason] += 1
        self.rejects.append((self.cells.places[n], identifier, reason))


class Cells:
    """The cells of an identity table as a destination takes them; each distinct value is normalised once."""

    def __init__(self, identities: Identities, forms: Mapping[str, Form], default_region: str | None) -> None:
        table = identities.table
        self.forms = forms
        self.places: list[int] = table["row"].to_pylist()
        self.users: list[str] = table["user_id"].to_pylist()
        self.texts: dict[str, list[str | None]] = {identifier: table[identifier].to_pylist() for identifier in forms}
        codes = {text: country_code(text) for text in table["country"].unique().to_pylist()}
        self.countries: list[str | None] = [codes[text] for text in table["country"].to_pylist()]
        self.regions = [default_region if code is None else code or None for code in self.countries]
        self.known: dict[tuple[str, str, str | None], tuple[str | None, str | None]] = {}

    def at(self, identifier: str, n: int) -> tuple[str | None, str | None]:
        """The value of a row, or the reason why it has none; neither for a blank cell."""
        text = self.texts[identifier][n]
        if text is None:
            return None, None
        key = identifier, text, self.regions[n]
        if key not in self.known:
            try:
                self.known[key] = normal.cell(self.forms[identifier], text, self.regions[n]), None
            except Malformed as error:
                self.known[key] = None, str(error)
        return self.known[key]

    def shared(self, identifiers: Collection[str]) -> set[tuple[str, str]]:
        """(identifier, value) of those that several users of the whole table have."""
        owners: dict[tuple[str, str], str] = {}
        found = set()
        for identifier in identifiers:
            for n, user in enumerate(self.users):
                value, _ = self.at(identifier, n)
                if value and owners.setdefault((identifier, value), user) != user:
                    found.add((identifier, value))
        return found

    def may_live_in(self, rows: Collection[int], region: Collection[str]) -> bool:
        """Whether a person's rows name a country of the region, none that is known, or none at all."""
        stated = {self.countries[n] for n in rows} - {None}
        return not stated or any(code == "" or code in region for code in stated)


def country_code(text: str | None) -> str | None:
    """ISO 3166-1 alpha-2 in capitals; None for a blank cell, empty for what is no country."""
    try:
        return None if text is None else normal.country(text).upper()
    except Malformed:
        return ""


def looks_wrong(name: str, path: Path, linter: Linter, rejected_share: float) -> DataError:
    """An error with the counted reasons and the first rows."""
    reasons = [f"{identifier}: {reason}: {count:,}" for (identifier, reason), count in linter.dropped.most_common() if identifier in KEYS]
    first = [f"row {row}: {identifier}: {reason}" for row, identifier, reason in linter.rejects if identifier in KEYS and reason != SHARED]
    heading = (
        f"{path}: {linter.malformed:,} of {linter.present:,} identifiers of the audience's people are malformed, more than "
        f"rejected_share ({rejected_share:g}) allows: the table looks wrong, and nothing is written for {name}"
    )
    return DataError("\n  - ".join([heading, *reasons, *first[:SHOWN_ROWS]]))
