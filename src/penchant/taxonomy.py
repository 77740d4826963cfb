"""Taxonomies: interests, their parents, their sensitivity and their ids elsewhere."""

import csv
import io
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator

from penchant.config import Settings, parse, read_yaml, suggestion
from penchant.errors import ConfigError, problems
from penchant.files import fingerprint

NODE_ID = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)*")
LANGUAGE = re.compile(r"[a-z]{2}")
IAB_ID = re.compile(r"[A-Za-z0-9]{1,6}")
AUDIENCE_1_1, CONTENT_2_2, CONTENT_3 = 4, 6, 7
"""Numbers of outside tables as OpenRTB 2.6 counts them (`segtax`): IAB Audience Taxonomy 1.1, IAB Content Taxonomy 2.2 and 3.x."""

AUDIENCE_RANGES = (
    "1-197 206-348 350 352-356 359-383 385-395 397-401 404 406-551 581-594 606-1449 1451-1456 1458-1462 1465-1467 "
    "1469-1508 1538-1544 1546-1555 1585-1679"
)
"""The 1,558 unique ids of the IAB Audience Taxonomy 1.1 (IAB Tech Lab, CC BY 3.0)."""

AUDIENCE_SENSITIVE = frozenset(
    [
        "381",
        "407",
        "411",
        "413",
        "414",
        "416",
        "419",
        "420",
        "421",
        "466",
        "503",
        "529",
        "550",
        "765",
        "1344",
        "1393",
        "1426",
        "1448",
        "1555",
    ]
)
"""Nodes of that table whose meaning is special-category data: medicine, conditions, politics, religion, ethnicity. The table marks none itself."""


class Node(Settings):
    """One interest."""

    id: str
    """Stable name, lower case, dots between levels by custom: `sports.running`."""
    name: str
    """What people read."""
    names: dict[str, str] = {}
    """Names in other languages by ISO 639-1 code, such as zh."""
    parent: str | None = None
    """Id of the node above; absent for a top node."""
    description: str = ""
    """One line; the untrained baseline reads it."""
    iab: str | None = None
    """Unique id in the taxonomy's outside table."""
    sensitive: bool = False
    """Special-category data: this node and all below it stay out of views, rules and exports."""

    @field_validator("names", mode="before")
    @classmethod
    def norwegian(cls, value: Any) -> Any:
        """YAML 1.1 reads the code `no` as false."""
        return {"no" if key is False else key: name for key, name in value.items()} if isinstance(value, dict) else value


class Taxonomy(Settings):
    """A checked forest of interests. Make one with `load` or `import_iab`, which report every mistake at once."""

    name: str = "taxonomy"
    version: str = "1"
    segtax: int = AUDIENCE_1_1
    """Which outside table the nodes' `iab` ids belong to, by OpenRTB's number: 4 is the IAB Audience Taxonomy 1.1."""
    nodes: tuple[Node, ...] = Field(min_length=1)

    @cached_property
    def by_id(self) -> dict[str, Node]:
        """Nodes by id."""
        return {node.id: node for node in self.nodes}

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """Ids directly below each id that has any."""
        below: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.parent is not None:
                below.setdefault(node.parent, []).append(node.id)
        return below

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Ids without children, in file order: what a tagger predicts by default."""
        return tuple(node.id for node in self.nodes if node.id not in self.children)

    @cached_property
    def sensitive(self) -> frozenset[str]:
        """Ids marked sensitive, and everything below them."""
        return frozenset(below for node in self.nodes if node.sensitive for below in (node.id, *self.descendants(node.id)))

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages in which any node has a name beside its own."""
        return tuple(sorted({language for node in self.nodes for language in node.names}))

    @cached_property
    def fingerprint(self) -> str:
        """Changes when any node changes."""
        return fingerprint(self.model_dump(mode="json"))

    def descendants(self, node_id: str) -> list[str]:
        """Ids below `node_id`, depth first."""
        return [each for child in self.children.get(node_id, []) for each in (child, *self.descendants(child))]

    def get(self, node_id: str, origin: str) -> Node:
        """The node, or a `ConfigError` that offers the nearest ids and names `origin`."""
        if node_id not in self.by_id:
            raise ConfigError(f"{origin}: unknown interest {node_id!r}{suggestion(node_id, sorted(self.by_id))}")
        return self.by_id[node_id]

    def label(self, node_id: str, language: str | None = None) -> str:
        """The display name, in `language` where the node has one in it; the id itself for a value that isn't a node."""
        node = self.by_id.get(node_id)
        return node.names.get(language or "", node.name) if node is not None else node_id

    def require_language(self, language: str | None, origin: str) -> None:
        """Raise a `ConfigError` that names `origin` for a language in which no node has a name; None is the names themselves."""
        if language is not None and language not in self.languages:
            raise ConfigError(f"{origin}: no interest has a name in {language!r}{suggestion(language, self.languages)}")


def load(path: Path) -> Taxonomy:
    """Read a taxonomy file (YAML: `name`, `version`, `nodes`). Raises `ConfigError` with every mistake."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected the keys name, version and nodes")
    taxonomy = parse(Taxonomy, content, str(path))
    check(taxonomy, str(path))
    return taxonomy


def from_labels(labels: Iterable[str], name: str) -> Taxonomy:
    """A flat taxonomy over labels that are all there is to know: each is its own name."""
    return Taxonomy(name=name, nodes=tuple(Node(id=label, name=label.replace("-", " ").replace("_", " ")) for label in labels))


def check(taxonomy: Taxonomy, origin: str) -> None:
    """Raise one `ConfigError` that lists duplicate ids, malformed ids, unknown parents, cycles, bad outside ids and bad names in languages."""
    mistakes: list[str] = []
    ids = [node.id for node in taxonomy.nodes]
    outside = audience_ids() if taxonomy.segtax == AUDIENCE_1_1 else None
    mistakes += [f"duplicate id {each!r}" for each in sorted({each for each in ids if ids.count(each) > 1})]
    for node in taxonomy.nodes:
        if not NODE_ID.fullmatch(node.id):
            mistakes.append(f"id {node.id!r}: use lower-case letters, digits, - and _, with dots between levels")
        if node.parent is not None and node.parent not in taxonomy.by_id:
            mistakes.append(f"{node.id}: unknown parent {node.parent!r}{suggestion(node.parent, sorted(taxonomy.by_id))}")
        if node.iab is not None and outside is not None and node.iab not in outside:
            mistakes.append(f"{node.id}: iab {node.iab!r} is no id of the IAB Audience Taxonomy 1.1 (segtax 4), such as 410")
        elif node.iab is not None and not IAB_ID.fullmatch(node.iab):
            mistakes.append(f"{node.id}: iab {node.iab!r} is no IAB id (1 to 6 letters or digits, such as 150)")
        mistakes += [
            f"{node.id}: names: {language!r} is no ISO 639-1 code, such as zh"
            for language in node.names
            if not LANGUAGE.fullmatch(language)
        ]
        mistakes += [f"{node.id}: names: {language}: empty" for language, name in node.names.items() if not name.strip()]
    mistakes += [f"cycle: {' → '.join(cycle)}" for cycle in cycles(taxonomy)]
    if mistakes:
        raise ConfigError(problems(origin, mistakes))


def audience_ids() -> frozenset[str]:
    """Every unique id of the IAB Audience Taxonomy 1.1."""
    ends = [part.split("-") for part in AUDIENCE_RANGES.split()]
    return frozenset(str(n) for end in ends for n in range(int(end[0]), int(end[-1]) + 1))


def cycles(taxonomy: Taxonomy) -> list[list[str]]:
    """Each chain of parents that comes back to its start, once."""
    found: dict[frozenset[str], list[str]] = {}
    for start in taxonomy.by_id:
        chain, current = [start], taxonomy.by_id[start].parent
        while current is not None and current in taxonomy.by_id and current not in chain:
            chain.append(current)
            current = taxonomy.by_id[current].parent
        if current == start:
            found.setdefault(frozenset(chain), [*chain, start])
    return list(found.values())


def import_iab(path: Path, tier_1: str | None = None) -> Taxonomy:
    """Read IAB Tech Lab's TSV of the Audience Taxonomy 1.x or the Content Taxonomy 2.x/3.x.

    `tier_1` keeps one top branch of the Audience table (`Interest`). Sensitive become Content nodes with `SCD` in their
    Extension column, and the Audience nodes of `AUDIENCE_SENSITIVE`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read as UTF-8 text: {error}") from error
    reader = csv.reader(io.StringIO(text), delimiter="\t", strict=True)  # an unclosed quote would swallow the rows after it
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}: not a table of tab-separated values: {error}") from error
    header = next((n for n, row in enumerate(rows[:3]) if "Unique ID" in row), None)
    if header is None:
        raise ConfigError(f"{path}: no 'Unique ID' column in its first three rows; is it an IAB taxonomy TSV?")
    columns = {name.strip(): n for n, name in reversed(list(enumerate(rows[header]))) if name.strip()}
    audience = "Parent ID" in columns
    parent_column = "Parent ID" if audience else "Parent"
    tiers = [columns[f"Tier {n}"] for n in range(1, 7) if f"Tier {n}" in columns]
    if parent_column not in columns or not tiers:
        raise ConfigError(f"{path}: expected the columns {parent_column} and Tier 1 beside Unique ID, found {', '.join(columns)}")
    nodes: list[Node] = []
    for row in rows[header + 1 :]:
        cells = [cell.strip() for cell in row] + [""] * (max(columns.values()) + 1)
        names = [cells[n] for n in tiers if cells[n]]
        identifier, parent = cells[columns["Unique ID"]], cells[columns[parent_column]]
        if identifier and names and (tier_1 is None or names[0].rstrip("*") == tier_1.rstrip("*")):
            sensitive = identifier in AUDIENCE_SENSITIVE if audience else "SCD" in row
            nodes.append(
                Node(
                    id=identifier.lower(),
                    name=names[-1],
                    parent=parent.lower() or None,
                    iab=identifier,
                    sensitive=sensitive,
                    description=" > ".join(names),
                )
            )
    if not nodes:
        tops = sorted({row[tiers[0]].strip() for row in rows[header + 1 :] if len(row) > tiers[0] and row[tiers[0]].strip()})
        raise ConfigError(f"{path}: no rows{f' under {tier_1!r}; its top branches: {tops}' if tier_1 else ''}")
    outside = AUDIENCE_1_1 if audience else CONTENT_3 if "v3" in "".join(rows[0]) else CONTENT_2_2
    taxonomy = Taxonomy(name=path.stem, segtax=outside, nodes=tuple(nodes))
    check(taxonomy, str(path))
    return taxonomy


def to_yaml(taxonomy: Taxonomy) -> str:
    """The file that `load` reads back to an equal taxonomy."""
    content = taxonomy.model_dump(mode="json", exclude_defaults=True) | {"name": taxonomy.name, "version": taxonomy.version}
    plain = not set(taxonomy.model_dump_json()) & set("\x85\u2028\u2029")  # PyYAML writes these unescaped and reads them as line ends
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=plain, width=140)
