"""Settings are read strictly: every mistake is named with its place, and unknown keys with the nearest known one."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from penchant.config import Settings, load, parse, read_yaml, set_path, settings_at, suggestion
from penchant.errors import ConfigError


class Column(Settings):
    """A nested class, reached through a dictionary with free names and through a tuple."""

    kind: str = "text"
    width: int = 1


class Shop(Settings):
    """A settings class with one of everything."""

    name: str
    epochs: int = 3
    columns: dict[str, Column] = {}
    extras: tuple[Column, ...] = ()
    main: Column | None = None
    excluded: bool = Field(False, alias="not")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.yaml"


def test_values_are_read_and_the_rest_are_defaults(path: Path) -> None:
    path.write_text("name: Café 🛒\ncolumns: {title: {kind: html}}\n", encoding="utf-8")
    assert load(Shop, path) == Shop(name="Café 🛒", epochs=3, columns={"title": Column(kind="html", width=1)})


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfname: a\r\nepochs: 5\r\n", b"{name: a, epochs: 5}", b"# only this\n---\nname: a\nepochs: 5"]
)
def test_byte_order_mark_windows_lines_and_flow_style_read_alike(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert load(Shop, path) == Shop(name="a", epochs=5)


def test_every_mistake_is_listed_with_place_value_and_nearest_key(path: Path) -> None:
    path.write_text("epoch: 4\nepochs: many\ncolumns: {title: {widht: 2}}\nextras: [{}, {kind: 7}]\n")
    with pytest.raises(ConfigError) as caught:
        load(Shop, path)
    heading, *mistakes = str(caught.value).splitlines()
    assert heading == f"{path}: 5 mistakes"
    assert "  - name: missing, and has no default" in mistakes
    assert "  - unknown key 'epoch'; did you mean 'epochs'?" in mistakes
    assert "  - unknown key 'columns.title.widht'; did you mean 'width'?" in mistakes
    assert any(each.startswith("  - epochs: ") and each.endswith("got 'many'") for each in mistakes)
    assert any(each.startswith("  - extras.1.kind: ") and each.endswith("got 7") for each in mistakes)


def test_a_key_near_nothing_brings_the_whole_list() -> None:
    with pytest.raises(ConfigError, match="unknown key 'zzzzzz'; known: kind, width"):
        parse(Column, {"zzzzzz": 1}, "here")


def test_keys_are_offered_as_people_write_them() -> None:
    with pytest.raises(ConfigError, match="unknown key 'nott'; did you mean 'not'"):
        parse(Shop, {"name": "a", "nott": True}, "here")


def test_a_free_name_that_is_called_like_a_field_is_no_field() -> None:
    with pytest.raises(ConfigError, match="unknown key 'columns.main.knd'; did you mean 'kind'"):
        parse(Shop, {"name": "a", "columns": {"main": {"knd": 1}}}, "here")


@pytest.mark.parametrize(
    ("place", "owner"),
    [
        ((), Shop),
        (("columns", "any"), Column),
        (("extras", 0), Column),
        (("main",), Column),
        (("epochs",), None),
        (("columns", "a", "kind"), None),
    ],
)
def test_the_owner_of_a_key_is_found_through_dictionaries_tuples_and_options(place: tuple[Any, ...], owner: type[Settings] | None) -> None:
    assert settings_at(Shop, place) is owner


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "expected keys and values at the top, found a list"),
        (b"just words", "expected keys and values at the top, found a str"),
        (b"42", "expected keys and values at the top, found a int"),
        (b"", "name: missing"),
        (b"# nothing\n", "name: missing"),
        (b"1: 2\nname: a\n", "1"),
        (b"name: [a\n", "not valid YAML"),
        (b'name: "a\n', "not valid YAML"),
        (b"name: a\x00b", "not valid YAML"),
        (b"name: 2026-13-01", "not valid YAML: month must be in 1..12"),
        (b"name: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"name: a\n---\nname: b\n", "not valid YAML"),
        (b"[" * 100_000, "not valid YAML"),
        ("name: a\n".encode("utf-16"), "not UTF-8 text"),
        (b"name: caf\xe9", "not UTF-8 text"),
        (rb'name: "\ud800"', "half of a surrogate pair"),
        (rb'{"name": "a", "\ude00": 1}', "half of a surrogate pair"),
        (b"name: &again [*again]", "name: "),
    ],
)
def test_a_file_that_is_no_settings_is_refused_by_name(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(Shop, path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value).removeprefix(str(path))


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.mkdir()])
def test_a_path_that_holds_no_file_is_refused(path: Path, make: Any) -> None:
    make(path)
    with pytest.raises(ConfigError, match="can't be read"):
        read_yaml(path)


def test_a_key_that_stands_twice_is_refused(path: Path) -> None:
    path.write_text("a: {b: 1, c: 2}\nd: 3\na: 4\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the key 'a' stands twice"):
        read_yaml(path)
    path.write_text("base: &base {b: 1}\nuse: {<<: *base, c: 2}\n", encoding="utf-8")
    assert read_yaml(path)["use"] == {"b": 1, "c": 2}


def test_an_emoji_escaped_the_way_json_does_is_one_character(path: Path) -> None:
    path.write_text(r'{"name": "\ud83d\ude00"}')
    assert load(Shop, path).name == "😀"


def test_a_megabyte_in_one_value_is_read_whole(path: Path) -> None:
    path.write_text(f"name: '{'x' * 1_000_000}'")
    assert load(Shop, path).name == "x" * 1_000_000


def test_overrides_win_reach_inside_and_are_yaml(path: Path) -> None:
    path.write_text("name: a\nepochs: 9\ncolumns: {title: {kind: html}}\n")
    found = load(Shop, path, ["epochs=1", "columns.title.width=4", "columns.body.kind=plain", "name=x=y"])
    assert found == Shop(name="x=y", epochs=1, columns={"title": Column(kind="html", width=4), "body": Column(kind="plain")})


def test_overrides_fill_an_empty_file(path: Path) -> None:
    path.touch()
    assert load(Shop, path, ["name=a"]) == Shop(name="a")


@pytest.mark.parametrize("override", ["epochs", "=3", "", "epochs.deep=3", "name=[", "name=2026-13-01", f"name={'[' * 100_000}"])
def test_an_override_that_sets_nothing_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        set_path({"epochs": 3}, override)
    assert repr(override) in str(caught.value)


def test_an_override_with_an_unknown_key_names_the_nearest(path: Path) -> None:
    path.write_text("name: a")
    with pytest.raises(ConfigError, match="unknown key 'epoch'; did you mean 'epochs'"):
        load(Shop, path, ["epoch=1"])


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Column().width = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [("widht", ["kind", "width"], "; did you mean 'width'?"), ("qqq", ["b", "a"], "; known: b, a"), ("qqq", [], "")],
)
def test_suggestion_is_the_nearest_or_all_or_nothing(name: str, known: list[str], expected: str) -> None:
    assert suggestion(name, known) == expected
