"""The report page at the end of the real way through: it asks nothing of any server, shows texts as texts and nobody's sensitive interests."""

import json
import logging
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penchant.cli import main
from tests.chain import BOLD, SCRIPT, go_through
from tests.figures import addresses, elements, figures, words
from tests.tables import write_rows


@pytest.fixture(scope="module")
def chain(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with everything `penchant report` reads; not to be written into."""
    from penchant.tagging import precision

    before, level = list(logging.root.handlers), logging.root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "matmul_gflops", partial(precision.matmul_gflops, seconds=0.01, size=64))
        folder = go_through(tmp_path_factory.mktemp("chain"), tiny_bundle)
    (folder / "report.json").write_text(json.dumps(figures()), encoding="utf-8")
    write_rows(
        folder / "corpus.jsonl",
        [{"text": "run", "interests": ["sports.running"], "kind": "post"}, {"text": "the", "interests": [], "kind": "title"}],
    )
    yield folder
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


def report(chain: Path, folder: Path, **changes: Any) -> str:
    """The page of a configuration in `folder`, made by the command line."""
    settings: dict[str, Any] = {name: str(chain / name) for name in ("events", "profiles")}
    settings |= {"corpus": [str(chain / "corpus.jsonl")], "training": str(chain / "report.json")}
    settings |= {"truth": str(chain / "truth.jsonl"), "users": [BOLD, "c0", "r00"]}
    settings |= {"segments": [str(chain / "sporty.yaml"), str(chain / "cats.yaml")]} | changes
    (folder / "report.yaml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    main(["report", "--config", str(folder / "report.yaml"), "-o", str(folder / "report.html")])
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the whole chain."""
    return report(chain, tmp_path_factory.mktemp("page"))


def profiles_part(page: str) -> str:
    """What a reader reads under Profiles, without the sentence that says which interests are never in one."""
    found = words(page[page.index("<h2>Profiles</h2>") : page.index("<h2>Segments</h2>")])
    return re.sub(r"Never in a profile, by default: [^.]*\.", "", found)


def test_the_page_asks_nothing_of_any_server(page: str) -> None:
    found = elements(page)
    assert {"svg", "table", "details"} <= {name for name, _ in found}
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "a"} & {name for name, _ in found}
    for _, attributes in found:
        for name in ("href", "xlink:href", "src", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith("#")  # a place in the page itself
    assert re.findall(r"@import|url\((?!\s*[\"']?#)", page) == []
    # all that is left are the words of a post, which nothing follows
    assert set(addresses(re.sub(r"<metadata>.*?</metadata>", "", page, flags=re.DOTALL))) == {"https://shop.example/run"}


def test_texts_ids_and_settings_stand_in_the_page_as_they_are(page: str) -> None:
    read = words(page)
    for text in (
        BOLD,
        SCRIPT,
        "forum<i>",
        "hover <3 & stay",
        "Who <em>likes</em> it",
        "A test & no more",
        "trail 😀 https://shop.example/run",
    ):
        assert text in read
    assert not {"em", "u"} & {name for name, _ in elements(page)}
    assert "alert(1)" not in re.sub(r"&lt;script alert\(1\)&gt;", "", page)


def test_nobody_is_shown_with_a_sensitive_interest(chain: Path, tiny_taxonomy: Path, tmp_path: Path, page: str) -> None:
    assert "Cats" in profiles_part(page)  # so this test would see it
    marked = tmp_path / "taxonomy.yaml"
    marked.write_text(tiny_taxonomy.read_text().replace("{id: pets, name: Pets}", "{id: pets, name: Pets, sensitive: true}"))
    inputs = [str(chain / "events"), str(chain / "tags.parquet"), "--taxonomy", str(marked)]
    main(["profile", "build", *inputs, "-o", str(tmp_path / "profiles")])
    truth = [
        {"user_id": "c0", "interests": ["pets.cats", "food.baking"]},
        {"user_id": "r00", "interests": ["sports.running"], "changed_at": "2026-03-02", "dropped": "pets.cats", "gained": "sports.running"},
    ]
    write_rows(tmp_path / "truth.jsonl", truth)
    changes = {"profiles": str(tmp_path / "profiles"), "truth": str(tmp_path / "truth.jsonl"), "segments": [str(chain / "sporty.yaml")]}
    found = report(chain, tmp_path, users=["c0", "r00"], **changes)
    assert "Cats" not in profiles_part(found)
    assert "Baking" in profiles_part(found)
    assert "Never in a profile, by default: Cats, Faith, Pets." in words(found)


def test_the_same_inputs_make_the_same_page(chain: Path, tmp_path: Path, page: str) -> None:
    assert report(chain, tmp_path) == page
