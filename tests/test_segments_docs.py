"""Every command of docs/segments.md runs, in order, on a small store with the names that the page uses."""

import contextlib
import csv
import glob
import hashlib
import io
import json
import logging
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from penchant import config, taxonomy
from penchant.cli import main
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build, update
from penchant.segments.audit import verify
from penchant.segments.rule import Rule
from penchant.segments.text import GRAMMAR, parse_text
from tests.conftest import ROOT
from tests.snapshots import NOON, event, tag, write_inputs
from tests.test_readme import shell_lines

pytestmark = pytest.mark.xdist_group("segments-docs")  # the store behind the page is made once
PAGE = (ROOT / "docs" / "segments.md").read_text(encoding="utf-8")
WEEK = NOON.replace(day=22, month=2)
TEXTS = {
    "a pan": "food.cooking",
    "a film": "entertainment.movies",
    "a novel": "entertainment.books",
    "a bargain": "money.frugal",
    "a race": "sports.running",
    "a bike": "motoring.motorcycles",
}
COOKS = [f"u{n:04}" for n in range(1, 151)]
OTHERS = [f"u{n:04}" for n in range(151, 221)]
TYPED = "interest:food\ninterest:fod\n"
TABLE_ROW = re.compile(r"^\| [^|]+ \| `([^`|]+)` \| `(\{[^`|]+\})` \|$", re.MULTILINE)


def people() -> list[dict[str, Any]]:
    """Events of 150 cooks, who all bought a pan in the last month, and of 70 others; books were read by 120 people in one week and by 60 in the next."""
    found: list[dict[str, Any]] = []

    def add(text: str, user: str, days_ago: float, source: str = "shop", **more: Any) -> None:
        found.append(event(len(found), text, user, days_ago, source=source, **more))

    for n, user in enumerate(COOKS):
        add("a pan", user, 10 + n / 100, action="purchase", amount=20.0, currency="EUR")
        add("a pan", user, 3, source="reviews", action="review")
        if n % 2:
            add("a film", user, 20, source="social", action="like")
        if n < 120:
            add("a novel", user, 8, source="reviews", action="view")
        if n < 60:
            add("a novel", user, 1, action="save")
    for user in OTHERS:
        add("a bargain", user, 2)
        add("a race", user, 12, action="save")
        add("a race", user, 0)
        add("a bike", user, 40, source="social")
        add("a film", user, 9, action="like")
    return found


def prepare(folder: Path) -> None:
    """The page's folder as the demo leaves it: profiles of a week ago and of now, two segments refreshed at both, choices loaded."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "data").mkdir()
    for name in ("identities.csv", "choices.csv", "taxonomy.yaml"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    tags = [tag(text, value) for text, value in TEXTS.items()]
    inputs = write_inputs(folder / "out", people(), tags, taxonomy.load(folder / "data" / "taxonomy.yaml"))
    demo = ["configs/segments/runners.yaml", "configs/segments/film-fans.yaml"]
    build(*inputs, config.load(Policy, folder / "configs" / "policy.yaml"), folder / "out" / "profiles", as_of=WEEK)
    assert run(["segment", "refresh", *demo]).code == 0
    update(*inputs, folder / "out" / "profiles")
    assert run(["user", "load", "data/choices.csv"]).code == 0
    assert run(["segment", "refresh", "--all", *demo]).code == 0


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str
    line: str = ""
    refused: bool = False
    wrote: bool = False


def run(arguments: list[str]) -> Outcome:
    """Run one command in this process; what it asks for at a terminal comes as lines."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "stdin", io.StringIO(TYPED))
        try:
            main(arguments)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def arguments_of(line: str) -> list[str]:
    """What a shell gives to the program: words, patterns of files and `$(jq -r .KEYS FILE)` filled in."""
    found: list[str] = []
    for word in shlex.split(re.sub(r"\$\(jq -r (\S+) (\S+)\)", lambda asked: value_in(*asked.groups()), line)):
        found += sorted(glob.glob(word)) if "*" in word and glob.glob(word) else [word]  # noqa: PTH207 - relative, as a shell has them
    assert found[0] == "penchant"
    return found[1:]


def value_in(keys: str, file: str) -> str:
    """`.a.b` of a JSON file."""
    value = json.loads(Path(file).read_text(encoding="utf-8"))
    for key in keys.strip(".").split("."):
        value = value[key]
    return str(value)


def steps() -> Iterator[tuple[str, str]]:
    """The page's files (name, content) and commands ("", line with its comment), in order."""
    for block in re.finditer(r"```(sh|yaml)\n(.*?)```", PAGE, flags=re.DOTALL):
        first, _, rest = block[2].partition("\n")
        if block[1] == "sh":
            yield from (("", line) for line in block[2].splitlines() if line.strip())
        elif first.startswith("# "):
            yield first.removeprefix("# "), rest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments-page")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> Iterator[list[Outcome]]:
    """The page, done from top to bottom."""
    before, found = list(logging.root.handlers), []
    with contextlib.chdir(folder):
        prepare(folder)
        for name, text in steps():
            if name:
                (folder / name).write_text(text, encoding="utf-8")
                continue
            line, _, comment = text.partition("  #")
            arguments = arguments_of(line)
            outcome = run(arguments)
            outcome.line, outcome.refused = line, comment.strip().startswith("refused:")
            outcome.wrote = "-o" in arguments and Path(arguments[arguments.index("-o") + 1]).exists()
            found.append(outcome)
        logging.root.handlers[:] = before
        yield found


def of(outcomes: list[Outcome], text: str) -> Outcome:
    """The first command with this in it."""
    return next(each for each in outcomes if text in each.line)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_command_ends_as_the_page_says(outcomes: list[Outcome]) -> None:
    assert len(outcomes) >= 40
    for each in outcomes:
        assert each.code == (1 if each.refused else 0), f"{each.line}\n{each.out}{each.err}"
        assert "Traceback" not in each.err


def test_what_is_refused_says_so_once_and_writes_nothing(outcomes: list[Outcome]) -> None:
    refused = [each for each in outcomes if each.refused]
    assert len(refused) >= 7
    for each in refused:
        assert each.err.startswith("error: "), each.line
        assert each.err.count("error: ") == 1
        assert not each.out
        assert not each.wrote


def test_every_command_of_the_page_is_in_a_block_that_is_run(outcomes: list[Outcome]) -> None:
    assert [each.line.strip() for each in outcomes] == shell_lines(PAGE)
    for kind in ("segment", "user", "audit"):
        from penchant.cli import cli

        for name in cli.commands[kind].commands:  # type: ignore[attr-defined]
            assert any(each.line.startswith(f"penchant {kind} {name}") for each in outcomes), f"{kind} {name} isn't on the page"


def test_each_mistake_is_marked_at_its_character(outcomes: list[Outcome]) -> None:
    for rule, at in (("interest:fod", 9), ("weight=>", len("interest:food weight")), ("weight>=2", len("interest:food ")), ("'not ", 0)):
        *_, shown, mark = of(outcomes, rule).err.splitlines()
        assert mark.index("^") == 2 + at, shown


def test_the_prompt_answers_rules(outcomes: list[Outcome]) -> None:
    good, bad = of(outcomes, "segment try").out.splitlines()
    assert good == "interest:food: 150 people"
    assert "did you mean 'food'" in bad


def test_a_list_holds_the_cooks_but_for_those_who_said_no(outcomes: list[Outcome], folder: Path) -> None:
    said_no = {
        row["user_id"]
        for row in rows(ROOT / "data" / "choices.csv")
        if row["purpose"] in ("*", "advertising") and row["status"] in ("denied", "opt-out")
    }
    assert said_no & set(COOKS)
    assert of(outcomes, "-o out/home-cooks.csv").code == 0
    assert {row["user_id"] for row in rows(folder / "out" / "home-cooks.csv")} == set(COOKS) - said_no


def test_the_ad_platforms_get_their_headers_and_hashes(outcomes: list[Outcome], folder: Path) -> None:
    assert of(outcomes, "--destination meta").code == 0
    meta, google = folder / "out" / "home-cooks-meta.csv", folder / "out" / "home-cooks-google.csv"
    assert meta.read_text().splitlines()[0] == "email,phone,madid,fn,ln,ct,st,zip,country,dob,gen,uid,value"
    assert google.read_text().splitlines()[0] == "Email,Phone,First Name,Last Name,Country,Zip"
    address = next(row["email"] for row in rows(ROOT / "data" / "identities.csv") if row["user_id"] == "u0001")
    hashed = hashlib.sha256(address.strip().lower().encode()).hexdigest()
    assert [hashed in [row[name] for row in rows(path)] for path, name in ((meta, "email"), (google, "Email"))] == [True, True]
    assert "@" not in meta.read_text() + google.read_text()
    first = json.loads((folder / "out" / "home-cooks-openrtb.jsonl").read_text().splitlines()[0])
    assert first["user"]["data"][0]["ext"] == {"segtax": 4}


def test_who_opted_out_is_listed_for_removal_alone(outcomes: list[Outcome], folder: Path) -> None:
    assert "home-cooks at meta" in of(outcomes, "user opt-out u0005").out
    address = next(row["email"] for row in rows(ROOT / "data" / "identities.csv") if row["user_id"] == "u0005")
    assert [row["email"] for row in rows(folder / "out" / "home-cooks-meta-remove.csv")] == [
        hashlib.sha256(address.strip().lower().encode()).hexdigest()
    ]


def test_a_jump_stops_an_export_until_it_is_accepted(outcomes: list[Outcome], folder: Path) -> None:
    stopped, accepted = (each for each in outcomes if "-o out/book-week.csv" in each.line)
    assert "from 120 to 60 people" in stopped.err
    assert accepted.wrote
    assert {row["user_id"] for row in rows(folder / "out" / "book-week-diff" / "left.csv")} == set(COOKS[60:120])
    assert rows(folder / "out" / "book-week-diff" / "entered.csv") == []


def test_the_log_verifies_and_holds_each_export(outcomes: list[Outcome], folder: Path) -> None:
    found = verify(folder / "out" / "segments" / "audit.jsonl")
    done = [each for each in outcomes if not each.refused and each.line.startswith(("penchant segment export", "penchant segment accept"))]
    assert (found.entries, found.problems) == (len(done), ())
    assert found.head in of(outcomes, "audit verify").out


def test_every_picture_is_drawn_by_a_command_and_lies_beside_the_page(outcomes: list[Outcome], folder: Path) -> None:
    shown = re.findall(r"!\[[^\]]+\]\((segments/[^)]+)\)", PAGE)
    assert len(shown) >= 6
    for name in shown:
        assert any(f"--picture docs/{name}" in each.line for each in outcomes)
        for place in (folder, ROOT):
            assert "<svg" in (place / "docs" / name).read_text(encoding="utf-8")[:1000]
    assert sorted(each.name for each in (ROOT / "docs" / "segments").iterdir()) == sorted(Path(name).name for name in shown)


def test_the_two_ways_to_write_each_condition_mean_the_same() -> None:
    examples = TABLE_ROW.findall(PAGE)
    assert len(examples) >= 20
    for short, long in examples:
        assert parse_text(short) == Rule.model_validate(yaml.safe_load(long)), short


def test_the_grammar_on_the_page_is_the_one_that_is_used() -> None:
    assert GRAMMAR.strip() in PAGE


def test_links_lead_somewhere() -> None:
    headings = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in re.findall(r"^#+ (.+)$", PAGE, flags=re.MULTILINE)}
    words = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    for target in re.findall(r"\]\((?!http)([^)]+)\)", words):
        file, _, heading = target.partition("#")
        assert (ROOT / "docs" / file).exists()
        assert not heading or heading in headings, target
