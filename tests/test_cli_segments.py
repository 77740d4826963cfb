"""The commands on segments, people's choices and the log of exports: what they say, and how they refuse without leaving a file."""

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest

from penchant.cli import main
from tests.segments.conftest import event
from tests.segments.test_export import Desk

RUNNING, FOOTBALL = "interest:sports.running", "interest:sports.football"
RUNNERS = "configs/segments/runners.yaml"
Run = Callable[..., tuple[int, str, str]]


def name(n: int) -> str:
    return {0: "跑者 🏃", 1: 'o\'brien, "u1"'}.get(n, f"u{n:03}")


def crowd() -> list[dict[str, Any]]:
    """240 people: the first 180 run, three on each of the last 60 days; the last 120 like football, the last 60 cats, too."""
    found = [event(n, name(n), "sports.running", n % 60) for n in range(180)]
    found += [event(1000 + n, name(n), "sports.football", 3, source="social", action="like") for n in range(120, 240)]
    found += [event(2000 + n, name(n), "pets.cats", 5, source="reviews") for n in range(180, 240)]
    return [*found, *(event(3000 + n, name(n), "life.health", 1) for n in range(70))]  # what is sensitive never enters


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Their profiles; not to be written to."""
    return Desk(tmp_path_factory.mktemp("crowd"), crowd())


@pytest.fixture
def desk(built: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with profiles, segments and an identity table where commands look for them."""
    shutil.copytree(built.profiles, tmp_path / "out" / "profiles")
    (tmp_path / "configs" / "segments").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write_segment(rule=RUNNING)
    write_segment("footballers", rule=FOOTBALL)
    write_segment("nobody", rule="interest:chess")
    write_segment("few", rule=f"{RUNNING} seen<10d")
    rows = [(name(n), f"person{n}@mail.example", f"+1415555{2000 + n}", "US") for n in range(240)]
    write_table("identities.csv", ("user_id", "email", "phone", "country"), rows)
    return tmp_path


def write_segment(segment: str = "runners", **more: Any) -> None:
    settings = {"name": segment, "purpose": "advertising", "owner": "campaigns", "refresh": "weekly", **more}
    Path("configs/segments", f"{segment}.yaml").write_text(json.dumps(settings), encoding="utf-8")


def write_table(path: str, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs one command and gives exit code, stdout and stderr, of which neither may hold an e-mail address or a phone number."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            main([str(each) for each in arguments])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        assert not re.search(r"mail\.example|555 ?-?2\d{3}", out + err)
        return code, out, err

    return call


def done(run: Run, *arguments: object) -> str:
    """What a command that goes well says."""
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    return out


def refused(run: Run, *arguments: object, code: int = 1) -> str:
    """The one message of a command that goes wrong, which leaves every file as it was."""
    before = everything()
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    assert err.count("rror: ") == 1
    assert everything() == before
    return err


def everything() -> dict[str, bytes]:
    """Every file below the folder but a segment's own records, which a refused export may add a refresh to."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file() and Path("out/segments") not in path.parents}


def is_svg(path: str) -> bool:
    return ET.fromstring(Path(path).read_text(encoding="utf-8")).tag == "{http://www.w3.org/2000/svg}svg"


def rows_of(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def later(desk: Path, events: list[dict[str, Any]], built: Desk) -> None:
    """Fold events in."""
    found = object.__new__(Desk)
    found.folder, found.profiles = desk / "new", desk / "out" / "profiles"
    found.folder.mkdir(exist_ok=True)
    for each in ("tags.parquet", "taxonomy.yaml"):
        shutil.copy(built.folder / each, found.folder / each)
    found.add(events)


# ---- before it is made


@pytest.mark.parametrize(
    ("rule", "size"),
    [
        (RUNNING, "rule: 180 people"),
        (f"{RUNNING} and not {FOOTBALL}", "rule: 120 people"),
        (f"{RUNNING} seen<10d", "rule: fewer than 50 people"),
        ("interest:chess", "rule: fewer than 50 people"),
        (RUNNERS, "runners: 180 people"),
        (f"segment:footballers and {RUNNING}", "rule: 60 people"),
        ('users:"名单 🏃.txt"', "rule: 50 people"),
    ],
)
def test_size(rule: str, size: str, desk: Path, run: Run) -> None:
    Path("configs/segments/名单 🏃.txt").write_text("".join(f"{name(n)}\n" for n in range(50)), encoding="utf-8")
    assert done(run, "segment", "size", rule) == f"{size} as of 2026-03-29 12:00 UTC\n"


def test_a_private_size_says_how_private_and_how_exact(desk: Path, run: Run) -> None:
    """At epsilon 20 the noise is 0 but for one in 10⁸ draws."""
    out = done(run, "segment", "size", RUNNERS, "--private", "20")
    assert out == "runners: 180 ± 0 people (epsilon 20, 95%) as of 2026-03-29 12:00 UTC\n"


def test_try_answers_line_by_line(desk: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{RUNNING}\n猫 🐈\n"))
    lines = done(run, "segment", "try").splitlines()
    assert lines[0] == f"{RUNNING}: 180 people"
    assert lines[1].startswith("猫 🐈: rule, character 1")
    assert len(lines) == 2


def test_funnel(desk: Path, run: Run) -> None:
    """30 cells for 240: 180 are 22.5 of them, which is 22 to the even, and 120 are 15."""
    rule = f"{RUNNING} and not {FOOTBALL} and interest:chess"
    out = done(run, "segment", "funnel", rule, "--picture", "out/funnel.svg")
    assert out.splitlines() == [
        f"{'everybody with a profile':<32}          240  {'█' * 30}",
        f"{'interest:sports.running':<32}          180  {'█' * 22}",
        f"{'and not interest:sports.football':<32}          120  {'█' * 15}",
        f"{'and interest:chess':<32}            –",
        "–: a size under 50, or one that would give away how few a condition removes",
        "picture: out/funnel.svg",
    ]
    assert is_svg("out/funnel.svg")


def test_funnel_as_json(desk: Path, run: Run) -> None:
    """The same condition twice is two steps, the first of which gives the second away, were both shown."""
    assert json.loads(done(run, "segment", "funnel", f"{RUNNING} and {RUNNING} and not {FOOTBALL}", "--json")) == [
        {"step": "everybody with a profile", "people": 240},
        {"step": RUNNING, "people": None},
        {"step": f"and {RUNNING}", "people": 180},
        {"step": f"and not {FOOTBALL}", "people": 120},
    ]


def test_curve(desk: Path, run: Run) -> None:
    """Within n days of the last 60 three people a day ran; from 90 outwards every size that is 50 or more away: 144, and nothing below."""
    lines = done(run, "segment", "curve", f"{RUNNING} seen<30d", "--picture", "out/curve.svg").splitlines()
    assert lines[0] == f"{RUNNING} seen<30d: how seen<30 decides"
    assert [line for line in lines if re.search(r"\d  +\d", line)] == [
        "→         30           90  ███████████████████",
        "          48          144  ██████████████████████████████",
    ]
    assert len(lines) == 23
    assert lines[-1] == "picture: out/curve.svg"
    assert is_svg("out/curve.svg")


@pytest.mark.parametrize("condition", ["count(any)>=1e308", f"{RUNNING} index>=1e308", f"{RUNNING} events>1e308", f"{RUNNING} seen<1e300d"])
def test_a_curve_of_huge_thresholds(condition: str, desk: Path, run: Run) -> None:
    """It is drawn, or refused in one message."""
    code, out, err = run("segment", "curve", condition, "--picture", "out/curve.svg")
    if code:
        assert (code, out, err.count("rror: "), Path("out/curve.svg").exists()) == (1, "", 1, False)
    else:
        assert " decides\n" in out
        assert is_svg("out/curve.svg")


def test_curves_of_several_thresholds_are_numbered(desk: Path, run: Run) -> None:
    done(run, "segment", "curve", f"{RUNNING} seen<30d weight>=0.01", "--picture", "out/curve.svg")
    assert is_svg("out/curve-1.svg")
    assert is_svg("out/curve-2.svg")
    assert not Path("out/curve.svg").exists()


def test_a_rule_without_a_threshold_has_no_curve(desk: Path, run: Run) -> None:
    assert done(run, "segment", "curve", RUNNING, "--picture", "out/curve.svg") == "the rule has no threshold\n"


def test_overlap(desk: Path, run: Run) -> None:
    lines = done(run, "segment", "overlap", RUNNERS, "configs/segments/footballers.yaml", "--picture", "out/overlap.svg").splitlines()
    assert [line.split() for line in lines] == [
        ["runners", "footballers"],
        ["runners", "180", "(100%)", "60", "(33%)"],
        ["footballers", "60", "(50%)", "120", "(100%)"],
        ["picture:", "out/overlap.svg"],
    ]
    assert is_svg("out/overlap.svg")


def test_special(desk: Path, run: Run) -> None:
    """Of those who like football half run, of the others all; nobody of these likes football, and none of them has a cat."""
    lines = done(run, "segment", "special", FOOTBALL, "--top", "1", "--picture", "out/special.svg").splitlines()
    assert re.fullmatch(r" +\d\d     50%       –  interest: Running", lines[1])
    assert lines[3:] == ["–: fewer than 50 are without it", "picture: out/special.svg"]
    assert is_svg("out/special.svg")


def test_special_heeds_those_alone_who_have_a_profile(desk: Path, run: Run) -> None:
    """600 strangers are included by hand. Of the 120 others whom the profiles know half run."""
    Path("configs/segments/strangers.txt").write_text("".join(f"stranger {n}\n" for n in range(600)), encoding="utf-8")
    write_segment(rule=RUNNING + " and not " + FOOTBALL, include="strangers.txt")
    out = done(run, "segment", "special", RUNNERS)
    (row,) = [line.split() for line in out.splitlines() if line.endswith("interest: Running  (in the rule)")]
    assert float(row[0]) > 0
    assert row[2] == "50%"


def test_why(desk: Path, run: Run) -> None:
    lines = done(run, "segment", "why", f"{RUNNING} seen<30d and not {FOOTBALL}", name(0)).splitlines()
    assert lines[:2] == ["跑者 🏃 is in rule as of 2026-03-29 12:00 UTC", f"✓ {RUNNING} seen<30d"]
    assert "      +1.00  2026-03-29 shop/click: about sports.running" in lines
    assert lines[-1] == f"✓ not {FOOTBALL}"
    found = json.loads(done(run, "segment", "why", RUNNERS, name(0), "--json"))
    assert (found["user_id"], found["segment"], found["member"]) == ("跑者 🏃", "runners", True)
    assert [each["text"] for each in found["conditions"]] == [RUNNING]


def test_fairness(desk: Path, run: Run) -> None:
    """Of either group's 120 people 70 and 50 like football: 58.3% and 41.7%, which is 0.71 of it."""
    group = ["青年 🏃" if n < 50 or 120 <= n < 190 else "old" for n in range(240)]
    write_table("groups.csv", ("user_id", "age"), [(name(n), group[n]) for n in range(240)])
    out = done(run, "segment", "fairness", FOOTBALL, "--groups", "groups.csv", "--column", "age", "--picture", "out/shares.svg")
    cells = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert ["old", "120", "50.0%", "50", "41.7%", "41.7%", "0.71", "under"] in cells
    assert ["青年 🏃", "120", "50.0%", "70", "58.3%", "58.3%", "1.00", "met"] in cells
    assert is_svg("out/shares.svg")


# ---- its life


def test_refresh_history_and_diff(desk: Path, built: Desk, run: Run) -> None:
    """Three a day ran on the last 60 days. Twenty days later 60 of them ran longer ago, and 70 others have come."""
    write_segment(rule=f"{RUNNING} seen<60d")
    assert done(run, "segment", "refresh", RUNNERS, "configs/segments/footballers.yaml") == (
        "runners: 180 people, the first time (refresh 1, version 1)\nfootballers: 120 people, the first time (refresh 1, version 1)\n"
    )
    assert done(run, "segment", "refresh", RUNNERS) == "runners: not due (weekly); --all to refresh it nevertheless\n"
    later(desk, [event(5000 + n, f"new {n}", "sports.running", -20) for n in range(70)], built)
    out = done(run, "segment", "refresh", "--all", RUNNERS)
    assert out == "runners: 190 people, 70 entered, 60 left (refresh 2, version 1)\n"  # 20 days of 3
    lines = done(run, "segment", "history", "runners", "--picture", "out/history.svg").splitlines()
    assert lines[0] == "runners: refreshed 0.0 days ago, profiles as of 2026-04-18 12:00"
    assert re.fullmatch(r"   1  [\d-]+ [\d:]+  version 1  as of 2026-03-29  +180 people  the first time", lines[1])
    assert re.fullmatch(r"   2  [\d-]+ [\d:]+  version 1  as of 2026-04-18  +190 people  70 entered, 60 left", lines[2])
    assert is_svg("out/history.svg")
    assert (
        done(run, "segment", "diff", "runners", "-o", "out/diff")
        == "runners: who entered and who left between refreshes 1 and 2: out/diff\n"
    )
    assert {row["user_id"] for row in rows_of("out/diff/entered.csv")} == {f"new {n}" for n in range(70)}
    assert {row["user_id"] for row in rows_of("out/diff/left.csv")} == {name(n) for n in range(180) if n % 60 >= 40}


def test_a_jump_stops_exports_until_it_is_accepted(desk: Path, built: Desk, run: Run) -> None:
    done(run, "segment", "refresh", RUNNERS)
    later(desk, [event(6000 + n, f"new {n}", "sports.running", 0) for n in range(120)], built)
    assert done(run, "segment", "refresh", "--all", RUNNERS).endswith("; a JUMP: exports are stopped until somebody accepts it\n")
    message = refused(run, "segment", "export", RUNNERS, "-o", "out/runners.csv")
    assert "jumped from 180 to 300 people at refresh 2, by more than 50%" in message
    assert "penchant segment accept runners --reason" in message
    assert done(run, "segment", "accept", "runners", "--by", "ann", "--reason", "le printemps 🌱") == "runners: refresh 2 accepted\n"
    assert "JUMP, accepted" in done(run, "segment", "history", "runners")
    assert done(run, "segment", "export", RUNNERS, "-o", "out/runners.csv") == "300 people: out/runners.csv\n"
    assert "reason=le printemps 🌱" in done(run, "audit", "show", "--last", "2")
    assert "made no jump that waits" in refused(run, "segment", "accept", "runners", "--reason", "again")


# ---- exports


@pytest.mark.parametrize("destination", ["csv", "parquet", "jsonl"])
def test_an_export_of_our_own(destination: str, desk: Path, run: Run) -> None:
    output = f"out/runners.{destination}"
    assert done(run, "segment", "export", RUNNERS, "--destination", destination, "-o", output) == f"180 people: {output}\n"
    read = {
        "csv": lambda: [row["user_id"] for row in rows_of(output)],
        "parquet": lambda: [row["user_id"] for row in pq.read_table(output).to_pylist()],
        "jsonl": lambda: [json.loads(line)["user_id"] for line in Path(output).read_text(encoding="utf-8").splitlines()],
    }[destination]
    assert set(read()) == {name(n) for n in range(180)}
    assert json.loads(Path(f"{output}.label.json").read_text(encoding="utf-8"))["audience"]["count"] == 180


def test_an_export_to_a_platform_drops_what_is_no_good_and_says_so(desk: Path, run: Run) -> None:
    """A second row of u002 that is the same, a row of nonsense, one without a user, one of a stranger; and two people with one address."""
    with Path("identities.csv").open("a", encoding="utf-8") as stream:
        stream.write("u002,person2@mail.example,+14155552002,US\nu003,nonsense,12,US\n,x@mail.example,,US\nstranger,s@mail.example,,US\n")
        stream.write("u004,both@mail.example,,US\nu005,both@mail.example,,US\n")
    arguments = ("segment", "export", RUNNERS, "--destination", "meta", "--identities", "identities.csv", "-o", "out/meta.csv")
    code, out, err = run(*arguments)
    assert (code, out) == (0, "180 people: out/meta.csv\n")
    assert "× row: same as a row before" in err
    assert "× email: shared by several people" in err
    assert "× email: expected an e-mail address such as ann@example.com" in err
    assert "user_id: missing" in err
    assert len(rows_of("out/meta.csv")) == 180
    text = "".join(path.read_text(encoding="utf-8") for path in Path("out").glob("meta.csv*"))
    assert "mail.example" not in text
    assert re.fullmatch(r"[0-9a-f]{64}", rows_of("out/meta.csv")[0]["email"])


def test_columns_of_an_identity_table_may_be_called_otherwise(desk: Path, run: Run) -> None:
    write_table("people.tsv", ("client", "邮箱"), [])
    rows = "".join(f"{name(n)}\tperson{n}@mail.example\n" for n in range(2, 180))
    Path("people.tsv").write_text(f"client\t邮箱\n{rows}", encoding="utf-8")
    arguments = ("segment", "export", RUNNERS, "--destination", "meta", "--identities", "people.tsv", "-o", "out/meta.csv")
    assert "no column 'user_id'" in refused(run, *arguments)
    Path("destinations.yaml").write_text("columns: {user_id: client, email: 邮箱}\n", encoding="utf-8")
    code, out, err = run(*arguments, "--config", "destinations.yaml")
    assert (code, out) == (0, "178 people: out/meta.csv\n")
    assert "not in the identity table" in err


def test_only_changes_are_exported_where_that_is_asked(desk: Path, run: Run) -> None:
    done(run, "segment", "export", RUNNERS, "-o", "out/all.csv")
    assert done(run, "segment", "export", RUNNERS, "--only", "add", "-o", "out/add.csv") == "runners: nobody to add: no file\n"
    assert not Path("out/add.csv").exists()
    assert done(run, "user", "opt-out", name(0)) == (
        "跑者 🏃: opted out of everything\n"
        "is on the list runners at csv; the file that removes them: penchant segment export … --destination csv --only remove\n"
    )
    assert done(run, "segment", "export", RUNNERS, "--only", "remove", "-o", "out/remove.csv") == "fewer than 50 people: out/remove.csv\n"
    assert [row["user_id"] for row in rows_of("out/remove.csv")] == [name(0)]
    shown = done(run, "audit", "show")
    assert shown.splitlines()[-1].endswith("file=remove.csv  fewer than 50 people")


# ---- refusals

UNUSABLE = {
    "unknown interest": (f"{RUNNING} and interest:sports.footbal", 1, "did you mean 'sports.football'"),
    "of another script": ("interest:跑步🏃", 1, "unknown interest '跑步🏃'"),
    "impossible range": (f"{RUNNING} weight>=0.5 weight<0.2", 1, "impossible range"),
    "out of scale": (f"{RUNNING} weight>1", 1, "impossible range: weight is 0 to 1, so never >1"),
    "infinite": (f"{RUNNING} seen<1e999d", 1, "finite"),
    "sensitive": ("interest:life.health", 1, "life.health: sensitive."),
    "below what is sensitive": ("interest:life.health.sleep", 1, "life.health.sleep: sensitive."),
    "everybody else": (f"not {RUNNING}", 1, "the rule holds for people nothing is known of"),
    "half a rule": (f"{RUNNING} and", 1, "the end can't stand here"),
    "nothing": ("()", 1, "')' can't stand here"),
    "unknown dimension": ("brand:nike", 1, "unknown dimension 'brand'; known: interest"),
    "unknown source": (f"{RUNNING} from shopp", 1, "unknown source 'shopp'; did you mean 'shop'"),
    "unknown action": ("count(any by clik)>=1", 1, "unknown action 'clik'; did you mean 'click'"),
    "no habits": ("spend(EUR)>=5", 1, "spend needs habits"),
    "unknown segment": ("segment:runner", 1, "unknown segment 'runner'; did you mean 'runners'"),
    "no such list": ("users:nowhere.txt", 1, "nowhere.txt: can't be read"),
    "a folder as list": ("users:..", 1, "can't be read"),
    "nul": ('users:"a\\u0000b"', 1, "can't be read: embedded null byte"),
    "half a character": ('interest:"\\ud800"', 1, "unknown interest"),
    "nested": (f"{'(' * 3000}{RUNNING}{')' * 3000}", 1, "too deeply nested"),
    "no file": ("nowhere.yaml", 2, "'nowhere.yaml' does not exist"),
    "a bare limit": ("weight>=0.2", 2, "weight>=0.2"),
    "a folder": ("configs/segments", 1, "configs/segments: can't be read: Is a directory"),
}


@pytest.mark.parametrize(("rule", "code", "message"), UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("command", ["size", "export"])
def test_a_rule_that_cannot_be_used(command: str, rule: str, code: int, message: str, desk: Path, run: Run) -> None:
    more = ("-o", "out/runners.csv") if command == "export" else ()
    assert message in refused(run, "segment", command, rule, *more, code=code)


@pytest.mark.parametrize("command", ["funnel", "curve", "special", "overlap"])
def test_no_picture_of_a_rule_that_cannot_be_used(command: str, desk: Path, run: Run) -> None:
    assert "unknown interest 'sport'; did you mean 'sports'" in refused(
        run, "segment", command, "interest:sport", "--picture", "out/picture.svg"
    )


FILES = {
    "empty": ("", "expected a segment"),
    "a list": ("[1, 2]", "expected a segment"),
    "unknown key": ("{name: bad, purpose: b, ownr: c, rule: 'interest:pets'}", "unknown key 'ownr'; did you mean 'owner'"),
    "no purpose": ("{name: bad, rule: 'interest:pets'}", "purpose: missing"),
    "a name for a folder": ("{name: ../../a, purpose: b, rule: 'interest:pets'}", "name: "),
    "in the rule": ("{name: bad, purpose: b, rule: 'interest:petz'}", "unknown interest 'petz'; did you mean 'pets'"),
    "min_size": ("{name: bad, purpose: b, min_size: 5, rule: 'interest:pets'}", "min_size: "),
    "a day": ("{name: bad, purpose: b, expires: 2026-02-30, rule: 'interest:pets'}", "not valid YAML"),
    "nul": ("name: bad\x00", "not valid YAML"),
    "a circle": ("{name: bad, purpose: b, rule: 'segment:bad'}", "a circle: bad → bad"),
    "UTF-16": ("{name: bad, purpose: b, rule: 'interest:pets'}".encode("utf-16"), "not UTF-8 text"),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_segment_file_that_cannot_be_used(text: str | bytes, message: str, desk: Path, run: Run) -> None:
    path = Path("configs/segments/bad.yaml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    for command in (("size", path), ("refresh", path), ("export", path, "-o", "out/bad.csv")):
        err = refused(run, "segment", *command)
        assert message in err
        assert "bad.yaml" in err
    assert not Path("out/segments").exists()


@pytest.mark.parametrize(
    ("epsilon", "code"), [("0", 1), ("-1", 1), ("nan", 1), ("inf", 1), ("1e9", 1), ("1e-300", 1), ("lots", 2), ("", 2)]
)
def test_an_epsilon_that_protects_nobody(epsilon: str, code: int, desk: Path, run: Run) -> None:
    message = refused(run, "segment", "size", RUNNERS, "--private", epsilon, code=code)
    assert "epsilon" in message or "--private" in message


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("segment", "size", RUNNERS, "--profiles", "nowhere"), 1, "nowhere"),
        (("segment", "size", RUNNERS, "--profiles", RUNNERS), 1, "runners.yaml"),
        (("segment", "size"), 2, "Missing argument"),
        (("segment", "special", RUNNING, "--top", "0"), 2, "--top"),
        (("segment", "why", RUNNERS, "u999"), 1, "nothing is known of user 'u999'"),
        (("segment", "why", RUNNERS, "跑者🏃"), 1, "nothing is known of user '跑者🏃'"),
        (("segment", "refresh", RUNNING), 1, "a rule alone has no name, owner or purpose"),
        (("segment", "refresh", RUNNERS, RUNNING), 1, "a rule alone has no name, owner or purpose"),
        (("segment", "export", RUNNING, "-o", "out/a.csv"), 1, "put it in a file"),
        (("segment", "export", RUNNERS), 2, "Missing option '-o'"),
        (("segment", "history", "runner"), 1, "segment 'runner' was never refreshed"),
        (("segment", "diff", "runners", "-o", "out/diff"), 1, "never refreshed"),
        (("segment", "accept", "runners"), 2, "Missing option '--reason'"),
        (("segment", "accept", "runners", "--reason", "x"), 1, "never refreshed"),
        (("segment", "export", RUNNERS, "--destination", "facebook", "-o", "out/a.csv"), 2, "'facebook' is not one of"),
        (("segment", "export", RUNNERS, "--only", "both", "-o", "out/a.csv"), 2, "--only"),
        (("segment", "export", RUNNERS, "--destination", "meta", "-o", "out/a.csv"), 1, "--identities FILE"),
        (("segment", "export", RUNNERS, "--destination", "meta", "--identities", "nowhere.csv", "-o", "out/a.csv"), 2, "does not exist"),
        (("segment", "export", RUNNERS, "--config", RUNNERS, "-o", "out/a.csv"), 1, "unknown key"),
        (
            ("segment", "export", RUNNERS, "--destination", "openrtb", "-o", "out/a.csv"),
            1,
            "none of its interests has an id in an outside table",
        ),
        (("segment", "export", "configs/segments/nobody.yaml", "-o", "out/a.csv"), 1, "fewer than 50 people, under the minimum of 50"),
        (("segment", "export", "configs/segments/few.yaml", "-o", "out/a.csv"), 1, "fewer than 50 people, under the minimum of 50"),
        (("segment", "export", RUNNERS, "-o", "out"), 1, "out: a folder; name the file to write in it"),
        (("segment", "export", RUNNERS, "-o", f"{RUNNERS}/a.csv"), 1, "can't be written there"),
        (("segment", "fairness", RUNNERS, "--groups", "identities.csv", "--column", "countri"), 1, "did you mean 'country'"),
        (("segment", "fairness", RUNNERS, "--groups", "nowhere.csv", "--column", "age"), 2, "does not exist"),
        (("segment", "fairness", RUNNERS, "--groups", "out", "--column", "age"), 1, "out"),
        (("user", "opt-out", ""), 1, "user_id: missing"),
        (("user", "opt-out", "u003", "--at", "yesterday"), 2, "'yesterday' is no time; write it like"),
        (("user", "opt-out", "u003", "--at", "2999-01-01"), 1, "later than now"),
        (("user", "consent", "u003", "advertising", "perhaps"), 1, "no status"),
        (("user", "consent", "u003", "Advertising!", "denied"), 1, "no purpose"),
        (("user", "consent", "u003", "*", "denied"), 1, "consent is for one purpose"),
        (("user", "load", "nowhere.csv"), 2, "does not exist"),
        (("user", "load", "out"), 1, "out"),
        (("user", "load", "identities.csv"), 1, "status"),
        (("audit", "show", "--last", "0"), 2, "--last"),
        (("audit", "verify"), 1, "audit.jsonl"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_cannot_be_done_is_told_in_one_message(arguments: tuple[str, ...], code: int, message: str, desk: Path, run: Run) -> None:
    assert message in refused(run, *arguments, code=code)


IDENTITIES = {
    "empty": (b"", "identities"),
    "a header alone": (b"user_id,email\n", "has no rows"),
    "no user_id": (b"user,email\nu002,a@mail.example\n", "no column 'user_id'; did you mean 'user'"),
    "nothing to match by": (b"user_id,e_mail\nu002,a@mail.example\n", "did you mean 'e_mail'"),
    "nonsense": (b"user_id,email\n" + b"".join(b"u%03d,nonsense\n" % n for n in range(2, 180)), "the table looks wrong"),
    "one address": (b"user_id,email\n" + b"".join(b"u%03d,same@mail.example\n" % n for n in range(2, 180)), "shared by several people"),
    "too few": (b"user_id,email\n" + b"".join(b"u%03d,p%d@mail.example\n" % (n, n) for n in range(2, 60)), "under the minimum of 100"),
    "strangers": (b"user_id,email\n" + b"".join(b"x%03d,p%d@mail.example\n" % (n, n) for n in range(200)), "not in the identity table"),
    "NUL": (b"user_id,email\nu002,a\x00@mail.example\n" * 200, ""),
    "UTF-16": ("user_id,email\nu002,a@mail.example\n".encode("utf-16"), "identities"),
    "binary": (bytes(range(256)) * 40, "identities"),
}


@pytest.mark.parametrize(("content", "message"), IDENTITIES.values(), ids=IDENTITIES)
def test_an_identity_table_that_cannot_be_used(content: bytes, message: str, desk: Path, run: Run) -> None:
    Path("identities.csv").write_bytes(content)
    arguments = ("segment", "export", RUNNERS, "--destination", "meta", "--identities", "identities.csv", "-o", "out/meta.csv")
    assert message in refused(run, *arguments)
    assert list(Path("out").glob("*meta*")) == []
    if Path("out/segments/runners").exists():
        assert list(Path("out/segments/runners").glob("delivered/*")) == []


@pytest.mark.parametrize("output", ["identities.csv", RUNNERS, "out/segments/audit.jsonl", "destinations.yaml"])
def test_what_a_list_is_made_from_is_not_overwritten_by_it(output: str, desk: Path, run: Run) -> None:
    Path("destinations.yaml").write_text("meta: {min_size: 60}", encoding="utf-8")
    done(run, "segment", "export", RUNNERS, "-o", "out/runners.csv")
    before = Path(output).read_bytes()
    arguments = ("segment", "export", RUNNERS, "--destination", "meta", "--identities", "identities.csv", "--config", "destinations.yaml")
    message = refused(run, *arguments, "-o", output)
    assert output in message
    assert Path(output).read_bytes() == before


# ---- people's choices


def test_consent_and_opt_out(desk: Path, run: Run) -> None:
    assert done(run, "user", "choices", name(0)) == "跑者 🏃: chose nothing yet\n"
    out = done(run, "user", "consent", name(0), "advertising", "grant", "--at", "2026-03-01", "--reason", "表格 7 📋")
    assert out == "跑者 🏃: advertising granted since 2026-03-01 00:00 UTC\n"
    out = done(run, "user", "consent", name(0), "advertising", "REVOKED", "--at", "2026-03-02T00:00+02:00")
    assert out == "跑者 🏃: advertising denied since 2026-03-01 22:00 UTC\n"
    assert done(run, "user", "opt-out", name(0), "--at", "2026-03-03") == "跑者 🏃: opted out of everything\n"
    assert done(run, "user", "opt-out", name(0), "--lift", "--at", "2026-03-04") == "跑者 🏃: opt-out lifted\n"
    assert done(run, "user", "choices", name(0)).splitlines() == [
        "2026-03-04 00:00  *  granted",
        "2026-03-03 00:00  *  denied",
        "2026-03-01 22:00  advertising  denied",
        "2026-03-01 00:00  advertising  granted  表格 7 📋",
    ]
    found = json.loads(done(run, "user", "choices", name(0), "--json"))
    assert [(each["purpose"], each["status"]) for each in found] == [
        ("*", "granted"),
        ("*", "denied"),
        ("advertising", "denied"),
        ("advertising", "granted"),
    ]
    assert done(run, "segment", "export", RUNNERS, "-o", "out/a.csv") == "179 people: out/a.csv\n"


def test_a_grant_that_came_before_a_denial_changes_nothing(desk: Path, run: Run) -> None:
    done(run, "user", "consent", "u003", "advertising", "denied", "--at", "2026-03-02")
    out = done(run, "user", "consent", "u003", "advertising", "granted", "--at", "2026-03-01")
    assert out == "u003: advertising denied since 2026-03-02 00:00 UTC\n"


def test_choices_are_loaded_from_a_file_once(desk: Path, run: Run) -> None:
    text = (
        "user_id,purpose,status,at\nu003,advertising,denied,2026-03-01\n跑者 🏃,,opt-out,2026-03-01\nu004,advertising,perhaps,2026-03-01\n"
    )
    text += "u005,advertising,denied,2999-01-01\n"
    Path("choices.csv").write_text(text, encoding="utf-8")
    code, out, err = run("user", "load", "choices.csv")
    assert (code, out) == (1, "2 new choices, 0 known already, 2 rejected\n")
    assert "choices.csv: 2 rows are no choices, and nobody heeds them: choices.csv.rejects.csv beside it has each with its reason" in err
    assert [row["row"] for row in rows_of("choices.csv.rejects.csv")] == ["4", "5"]
    Path("choices.csv").write_text("".join(text.splitlines(keepends=True)[:3]), encoding="utf-8")
    assert done(run, "user", "load", "choices.csv") == "0 new choices, 2 known already, 0 rejected\n"
    assert done(run, "segment", "export", RUNNERS, "-o", "out/a.csv") == "178 people: out/a.csv\n"


def test_loaded_choices_name_the_lists_of_those_who_said_no(desk: Path, run: Run) -> None:
    done(run, "segment", "export", RUNNERS, "-o", "out/a.csv")
    Path("choices.csv").write_text("user_id,purpose,status,at\nstranger,*,opt-out,2026-03-01\n", encoding="utf-8")
    assert done(run, "user", "load", "choices.csv") == "1 new choices, 0 known already, 0 rejected\n"
    Path("choices.csv").write_text("user_id,purpose,status,at\nu003,*,opt-out,2026-03-01\n", encoding="utf-8")
    out = done(run, "user", "load", "choices.csv")
    (told,) = out.splitlines()[1:]
    assert told.startswith("somebody who said no is on the list runners at csv; the file that removes them: penchant segment export")


def test_choices_beside_no_profiles_are_pointed_out(desk: Path, run: Run) -> None:
    code, out, err = run("user", "opt-out", "u003", "--profiles", "out/profile")
    assert (code, out) == (0, "u003: opted out of everything\n")
    assert "out/profile: no profiles there" in err


def test_additions_are_told_by_their_own_number(desk: Path, run: Run) -> None:
    done(run, "user", "opt-out", "u003")
    done(run, "segment", "export", RUNNERS, "-o", "out/a.csv")
    done(run, "user", "opt-out", "u003", "--lift")
    assert done(run, "segment", "export", RUNNERS, "--only", "add", "-o", "out/add.csv") == "fewer than 50 people: out/add.csv\n"
    assert [row["user_id"] for row in rows_of("out/add.csv")] == ["u003"]


# ---- the log


@pytest.fixture
def log(desk: Path, run: Run) -> Path:
    """A log of two exports."""
    done(run, "segment", "export", RUNNERS, "--by", "ann", "--reason", "春天 🌱", "-o", "out/a.csv")
    done(run, "segment", "export", "configs/segments/footballers.yaml", "--by", "bob", "-o", "out/b.csv")
    return Path("out/segments/audit.jsonl")


def test_the_log_says_who_exported_what_when_and_why(log: Path, run: Run) -> None:
    lines = done(run, "audit", "show").splitlines()
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
    assert re.fullmatch(
        rf"    1  {when}  ann  export  segment=runners destination=csv purpose=advertising file=a\.csv reason=春天 🌱  180 people", lines[0]
    )
    assert re.fullmatch(
        rf"    2  {when}  bob  export  segment=footballers destination=csv purpose=advertising file=b\.csv  120 people", lines[1]
    )
    assert len(lines) == 2
    (last,) = map(json.loads, done(run, "audit", "show", "--last", "1", "--json").splitlines())
    assert (last["number"], last["by"], last["rule"]) == (2, "bob", FOOTBALL)


def test_no_log_yet_shows_nothing(desk: Path, run: Run) -> None:
    assert done(run, "audit", "show") == ""


def test_a_log_that_nobody_touched_is_intact(log: Path, run: Run) -> None:
    label = json.loads(Path("out/a.csv.label.json").read_text(encoding="utf-8"))["penchant"]
    head = json.loads(log.read_text(encoding="utf-8").splitlines()[1])["hash"]
    assert done(run, "audit", "verify", "--known", label["audit_hash"], "--known", head) == f"2 entries, intact; last hash {head}\n"


def test_an_edit_is_found_and_its_line_named(log: Path, run: Run) -> None:
    log.write_text(log.read_text(encoding="utf-8").replace('"by":"ann"', '"by":"eve"'), encoding="utf-8")
    code, out, err = run("audit", "verify")
    assert code == 1
    assert err == "line 1: its hash isn't that of its content: the line was changed\n"
    assert re.fullmatch(r"1 entries, NOT intact; last hash [0-9a-f]{64}\n", out)
    assert "audit.jsonl:1: its hash isn't that of its content" in run("audit", "show")[2]


def test_a_line_that_is_gone_is_found(log: Path, run: Run) -> None:
    first, second = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text(second, encoding="utf-8")
    code, _, err = run("audit", "verify")
    assert (code, err) == (1, "line 1: doesn't follow the line before: a line was changed, removed, added or moved here\n")
    log.write_text(first, encoding="utf-8")  # the end is cut off: only a hash noted elsewhere tells
    assert run("audit", "verify")[0] == 0
    known = json.loads(second)["hash"]
    code, _, err = run("audit", "verify", "--known", known)
    assert (code, err) == (1, f"no line has the hash {known}, which is noted elsewhere: its entry was changed, or cut off\n")


@pytest.mark.parametrize("content", [b"\x00\xff\xfe", b"[]\n", b"{}\n", '{"by": "跑者"}\n'.encode("utf-16")])
def test_a_file_that_is_no_log_is_not_added_to(content: bytes, log: Path, run: Run) -> None:
    log.write_bytes(content)
    assert run("audit", "verify")[0] == 1
    message = refused(run, "segment", "export", RUNNERS, "-o", "out/c.csv")
    assert "audit.jsonl" in message
    assert log.read_bytes() == content


def test_damaged_records_stop_what_needs_them(log: Path, run: Run) -> None:
    Path("out/segments/runners/refreshes.jsonl").write_text("nonsense\n", encoding="utf-8")
    for command in (
        ("history", "runners"),
        ("diff", "runners", "-o", "out/d"),
        ("refresh", RUNNERS),
        ("export", RUNNERS, "-o", "out/c.csv"),
    ):
        message = refused(run, "segment", *command)
        assert "refreshes.jsonl: damaged" in message


def test_profiles_that_are_built_anew_are_asked_anew(built: Desk, desk: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of the same instant, but without those who ran longer than a month ago: no old people under a new date."""
    done(run, "segment", "export", RUNNERS, "-o", "out/a.csv")
    other = Desk(tmp_path_factory.mktemp("anew"), [event(n, f"new {n}", "sports.running", n % 30) for n in range(150)])
    shutil.rmtree("out/profiles")
    shutil.copytree(other.profiles, "out/profiles")
    assert done(run, "segment", "export", RUNNERS, "-o", "out/a.csv") == "150 people: out/a.csv\n"
    assert {row["user_id"] for row in rows_of("out/a.csv")} == {f"new {n}" for n in range(150)}


def test_an_export_follows_the_choices_of_the_moment(desk: Path, built: Desk, run: Run) -> None:
    done(run, "segment", "export", RUNNERS, "-o", "out/a.csv")
    done(run, "user", "consent", "u010", "advertising", "denied")
    assert done(run, "segment", "export", RUNNERS, "-o", "out/a.csv") == "179 people: out/a.csv\n"
    assert "u010" not in {row["user_id"] for row in rows_of("out/a.csv")}
