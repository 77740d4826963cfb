"""The page that shows everything, made by the command line from files: complete, self-contained, and silent about what nobody may see."""

import json
import logging
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

from penchant.cli import main
from penchant.ingest.clean import text_key
from penchant.profiles.evaluate import Planted
from penchant.reports.overview_page import choose
from penchant.tagging import precision
from penchant.taxonomy import Taxonomy
from tests.chain import BOLD, SCRIPT, go_through
from tests.figures import NASTY, addresses, elements, figures, words
from tests.snapshots import NOON, TAXONOMY, event, snapshot_of, span, tag, write_inputs
from tests.tables import everything_in

CORPUS = [
    {"text": NASTY, "kind": "post", "interests": ["sports.running"]},
    {"text": "a cat on bread", "kind": "post", "interests": ["pets.cats", "food.baking"]},
    {"text": "my parcel", "kind": "review", "interests": []},
    {"text": "purr", "interests": ["pets.cats"]},
]
FAITH = text_key("A cat and bread")
"""The text that is tagged with something sensitive beside what is in it."""


@pytest.fixture(scope="module")
def site(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that a report reads; not to be written into. One text bears a sensitive tag."""
    before, folder = list(logging.root.handlers), tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:  # the tagger measures this machine on small products, which is enough here
        patch.setattr(precision, "matmul_gflops", partial(precision.matmul_gflops, seconds=0.01, size=64))
        go_through(folder, tiny_bundle)
    tags = pq.read_table(folder / "tags.parquet")
    faith = tag("", "faith") | {"text_key": FAITH}
    pq.write_table(pa.concat_tables([tags, pa.Table.from_pylist([faith], tags.schema)]), folder / "tags.parquet")
    main(["profile", "build", str(folder / "events"), str(folder / "tags.parquet"), "-o", str(folder / "profiles")])
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CORPUS), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(figures()), encoding="utf-8")
    logging.root.handlers[:] = before
    return folder


def make_page(site: Path, folder: Path, **changed: Any) -> None:
    """Run `penchant report` into `folder / "page.html"`, with changed settings."""
    paths = {"training": "report.json", "events": "events", "profiles": "profiles", "truth": "truth.jsonl"}
    settings: dict[str, Any] = {name: str(site / path) for name, path in paths.items()}
    settings |= {"corpus": [str(site / "corpus.jsonl")], "segments": [str(site / "sporty.yaml"), str(site / "cats.yaml")]}
    settings |= {"users": [BOLD, "c0", "r00"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | changed, allow_unicode=True), encoding="utf-8")
    main(["report", "--config", str(folder / "config.yaml"), "-o", str(folder / "page.html")])


@pytest.fixture(scope="module")
def page(site: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the whole."""
    before, folder = list(logging.root.handlers), tmp_path_factory.mktemp("page")
    make_page(site, folder)
    logging.root.handlers[:] = before
    assert sorted(each.name for each in folder.iterdir()) == ["config.yaml", "page.html"]
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def report(site: Path, tmp_path: Path) -> Callable[..., str]:
    """A function that makes another page with changed settings."""

    def make(**changed: Any) -> str:
        make_page(site, tmp_path, **changed)
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    return make


def test_the_page_asks_for_nothing_and_runs_nothing(page: str) -> None:
    assert addresses(page) == ["https://shop.example/run"]  # in a post, as text
    found = elements(page)
    assert not {name for name, _ in found} & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"}
    assert not [name for name, attributes in found if any(each in {"src", "action"} or each.startswith("on") for each in attributes)]
    assert not [name for name, attributes in found if "http" in str(attributes.get("style"))]


def test_texts_ids_and_names_are_shown_as_they_are(page: str) -> None:
    shown = words(page)
    assert SCRIPT in shown
    assert "trail 😀 https://shop.example/run" in shown
    assert BOLD in shown
    assert "Who <em>likes</em> it" in shown
    assert "A test & no more" in shown
    assert "forum<i>" in shown
    names = [name for name, _ in elements(page)]
    assert "em" not in names
    assert names.count("i") == names.count("details")  # the bars, and nothing that the data brought
    assert "<script" not in page


def test_the_figures_are_those_of_the_files(page: str) -> None:
    shown = words(page)
    for each in ("4 labelled texts", "0.800 macro F1 of the tagger", "58 events", "56 profiles", "0.444 precision@3 of planted interests"):
        assert each in shown
    assert "2 posts, 1 reviews, 1 texts; 25% with two or more interests, 25% with none." in shown
    assert "Measured against the interests planted in 3 users: precision@3 0.444, recall@3 0.833" in shown  # 4 of 9; (1 + 1 + 1/2) / 3
    assert "3 rejected rows" in shown
    assert "shop duplicate event 1 shop.csv:54" in shown


def test_every_chosen_user_has_attributes_with_their_evidence(page: str) -> None:
    shown = words(page)
    assert shown.index(BOLD) < shown.index("c0 ") < shown.index("r00")
    assert "2026-03-02 · reviews/review · A cat and bread" in shown
    assert re.search(r"\+4\.(7\d|80) · 2026-03-02 · reviews/review", shown)  # 4 for a review, 1.2 for its five stars, times a score near 1
    assert "Planted: Baking Cats" in shown


def test_a_segment_under_fifty_is_never_counted(page: str) -> None:
    shown = words(page)
    assert "sporty: 53 people" in shown
    assert "cats: fewer than 50 people" in shown
    assert "cats: 3" not in shown


def test_sensitive_interests_appear_as_left_out_and_nowhere_else(page: str) -> None:
    assert words(page).count("Faith") == 1
    assert "Never in a profile, by default: Faith." in words(page)
    assert "faith" not in page


def test_without_a_truth_the_busiest_users_are_shown_and_nothing_is_measured(report: Callable[..., str]) -> None:
    shown = words(report(truth=None, users=[]))
    assert "Measured against" not in shown
    assert "Planted" not in shown
    # every event counts once per tag: r00 has two, the cat people two each of one review, the poster two
    assert [user for user in (BOLD, "c0", "c1", "c2", "r00", "r01") if f"{user} " in shown.split("Never in a profile")[1]] == [
        BOLD,
        "c0",
        "c1",
    ]


def test_who_changed_an_interest_is_chosen_first(tmp_path: Path) -> None:
    events = [event(10 * user + n, "run", f"u{user}") for user in range(5) for n in range(9 - user)]
    snapshot = snapshot_of(tmp_path, events)
    moved = {
        f"u{n}": Planted(f"u{n}", frozenset(["pets.cats"]), NOON - timedelta(days=n), "sports.running", "pets.cats") for n in (2, 3, 4)
    }
    stayed = {"u1": Planted("u1", frozenset(["pets.cats"]), None, None, None)}
    assert choose(snapshot, moved | stayed) == ["u2", "u3", "u0"]
    assert choose(snapshot, {}) == ["u0", "u1", "u2"]


def test_who_is_chosen_has_many_events_behind_interests(tmp_path: Path) -> None:
    events = [event(user, "run", f"u{user}") for user in range(3)] + [event(10 + n, "Nike of Paris", "shopper") for n in range(9)]
    tags = [tag("run", "sports.running"), span("Nike of Paris", "Nike", "nike"), span("Nike of Paris", "Paris", "paris", "place")]
    assert choose(snapshot_of(tmp_path, events, tags=tags), {}) == ["u0", "u1", "u2"]
    assert choose(snapshot_of(tmp_path, events[1:], tags=tags), {}) == ["u1", "u2", "shopper"]


@pytest.fixture
def other_site(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A function that makes events, tags and profiles of other rows; the settings that name them."""

    def make(events: list[dict[str, Any]], tags: list[dict[str, Any]] | None = None, taxonomy: Taxonomy = TAXONOMY) -> dict[str, Any]:
        folder = tmp_path / "other"
        write_inputs(folder, events, tags, taxonomy)
        (folder / "summary.json").write_text('{"shop": {"rows": 2, "rejected: x": 2}, "social": {}}')
        (folder / "rejects.csv").write_text("source,file,row,column,value,reason\n")
        main(["profile", "build", str(folder), str(folder / "tags.parquet"), "-o", str(folder / "profiles")])
        paths = {"events": str(folder), "profiles": str(folder / "profiles")}
        return paths | {"users": [], "truth": None}

    return make


def test_a_source_without_events_counts_none(report: Callable[..., str], other_site: Callable[..., dict[str, Any]]) -> None:
    shown = words(report(**other_site([event(1, "run", "u")])))
    assert "shop 2 0 2" in shown
    assert "social 0 0 0" in shown


def test_a_user_without_interests_has_no_picture_of_them(
    page: str, report: Callable[..., str], other_site: Callable[..., dict[str, Any]]
) -> None:
    other = report(**other_site([event(1, "run", "u")], [tag("run", "acme", dimension="brand")]))
    assert "acme" in words(other)
    assert "Interests over time" in page
    assert "Interests over time" not in other


def test_other_dimensions_follow_with_their_strongest_surfaces(
    report: Callable[..., str], other_site: Callable[..., dict[str, Any]]
) -> None:
    text = "run in Nike, ASICS, Hoka, Brooks, Saucony, Puma or 李宁, Paris"
    named = [span(text, name, name.casefold(), score=1 - n / 10) for n, name in enumerate(re.findall("[A-Z][A-Za-z]+|李宁", text)[:7])]
    page = report(**other_site([event(1, text, "u")], [tag(text, "sports.running"), *named, span(text, "Paris", "paris", "place")]))
    part = page[page.index("<h3>u</h3>") : page.index("<h2>Segments</h2>")]
    # one click on one text: 1, 0.9 … 0.4 of 4.9 in brands, which are all the brands there are; confidence 4.9 / 9.9
    assert re.findall("<b>(.*?)</b>", part) == ["Running", "Nike", "ASICS", "Hoka", "Brooks", "Saucony", "Paris"]
    shown = words(part)
    assert "Brands, confidence 0.49 Nike weight 0.204, index 100, 1 events, last 2026-03-01" in shown
    assert "Places, confidence 0.17 Paris weight 1.000" in shown
    assert shown.count(f"· shop/click · {text}") == 7
    opened = [attributes for name, attributes in elements(part) if name == "details"]
    assert ["open" in each for each in opened] == [True, *[False] * 6]


def over_time(page: str) -> str:
    """The picture of a user's interests."""
    [found] = [each for each in re.findall("<svg.*?</svg>", page, flags=re.DOTALL) if "Interests over time" in each]
    return found


def test_spans_change_neither_picture_nor_rows_of_the_interests(
    report: Callable[..., str], other_site: Callable[..., dict[str, Any]]
) -> None:
    events = [event(1, "run", "u", 9), event(2, "cat", "u", 3), event(3, "run", "v"), event(4, "brand", "u", 40), event(5, "brand", "u", 1)]
    tags = [tag("run", "sports.running"), tag("cat", "pets.cats")]
    spans = [span("brand", "and", "pets.cats"), span("run", "ru", "sports.football"), span("cat", "cat", "sports.running", "place")]
    pages = [report(**other_site(events, each) | {"users": ["u"]}) for each in (tags, tags + spans)]
    assert over_time(pages[0]) == over_time(pages[1])
    rows = [page[page.index("<h3>u</h3>") : page.index("<h2>Segments</h2>")] for page in pages]
    assert re.findall("<details.*?</summary>", rows[0], re.DOTALL) == re.findall("<details.*?</summary>", rows[1], re.DOTALL)[:2]


def test_the_page_calls_interests_by_their_names_in_a_language(
    report: Callable[..., str], other_site: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    names = {"sports.running": "跑步", "sports.football": "足球", "pets.cats": "猫咪", "society.faith": "宗教信仰"}
    nodes = tuple(node.model_copy(update={"names": {"zh": names[node.id]} if node.id in names else {}}) for node in TAXONOMY.nodes)
    events = [event(1, "run", "u", 9), event(2, "goal", "u", 3), event(3, "stage", "u", 3)]
    truth = {"user_id": "u", "interests": ["pets.cats"], "changed_at": "2026-02-26", "dropped": "sports.football", "gained": "pets.cats"}
    (tmp_path / "truth.jsonl").write_text(json.dumps(truth))
    settings = other_site(events, taxonomy=Taxonomy(nodes=nodes)) | {"truth": str(tmp_path / "truth.jsonl")}
    page = report(**settings, language="zh")
    shown = words(page)
    assert "Planted: 猫咪 given up: 足球" in shown
    assert "Never in a profile, by default: Church choir, 宗教信仰." in shown
    for each in ("跑步 weight 0.", "足球 weight 0.", "Theatre weight 0.", "跑步 sports.running"):  # the last in the tagger's table
        assert each in shown
    assert [name for name in ("跑步", "足球", "Theatre") if name in words(over_time(page))] == ["跑步", "足球", "Theatre"]
    corpus = words(page[page.index("<h2>The corpus</h2>") : page.index("<h2>The tagger</h2>")])
    assert "猫咪" in corpus
    assert "food.baking" in corpus  # no node of this taxonomy
    assert "Running" not in shown
    assert "Running" in words(report(**settings))


def test_a_tagger_of_both_tasks_is_shown_with_its_spans(page: str, report: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "both.json").write_text(json.dumps(figures("both")), encoding="utf-8")
    both = report(training=str(tmp_path / "both.json"))
    assert "Spans missed and wrongly found" not in words(page)
    assert "Spans missed and wrongly found" in words(both)
    assert re.findall(r'<span class="mark (\w+)">([^<]*)</span>', both) == [("good", "&lt;b&gt;Nike"), ("bad", "rain"), ("missed", "北京")]
    profiles = [each[each.index("<h2>Profiles</h2>") :] for each in (page, both)]
    assert profiles[0] == profiles[1]


def test_profiles_of_nobody_make_a_page_of_nobody(report: Callable[..., str], other_site: Callable[..., dict[str, Any]]) -> None:
    assert "0 profiles" in words(report(**other_site([event(1, "untagged", "u")])))


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"users": ["r00", "r99"]}, "no profile for user 'r99'"),
        ({"corpus": ["{bad}"]}, "{bad}:1: expected a labelled text with a list of interests"),
        ({"corpus": ["{empty}"]}, "{empty}: no texts"),
        ({"corpus": []}, "corpus: "),
        ({"training": "{bad}"}, "{bad}: no training report"),
        ({"training": "{empty}"}, "{empty}: not JSON"),
        ({"training": "{spans}"}, "{spans}: no training report"),  # the page is about interests
        ({"segments": []}, "segments: "),
        ({"segments": ["{bad}"]}, "{bad}"),
        ({"segments": ["{faith}"]}, "{faith}: faith: sensitive"),
        ({"truth": "{bad}"}, "{bad}:1: expected user_id, a list of interests"),
        ({"events": "{empty}"}, "{empty}"),
        ({"profiles": "{empty}"}, "{empty}: no profiles"),
        ({"language": "zh"}, "language: no interest has a name in 'zh'"),
        ({"user": ["r00"]}, "unknown key 'user'; did you mean 'users'"),
    ],
)
def test_what_can_not_be_shown_is_named_and_the_earlier_page_stays(
    changed: dict[str, Any], shown: str, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"bad": '{"text": "run"}\n', "empty": "", "faith": "name: f\npurpose: p\nrule: {interest: faith}\n"}
    files["spans"] = json.dumps(figures("spans"))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "page.html").write_text("the earlier page")
    (tmp_path / "config.yaml").touch()
    before, paths = everything_in(tmp_path), {name: str(tmp_path / name) for name in files}
    placed = {
        key: [each.format(**paths) for each in value] if isinstance(value, list) else value.format(**paths)
        for key, value in changed.items()
    }
    with pytest.raises(SystemExit, match="1"):
        make_page(site, tmp_path, **placed)
    err = capsys.readouterr().err
    assert shown.format(**paths) in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert everything_in(tmp_path) | {"config.yaml": b""} == before
