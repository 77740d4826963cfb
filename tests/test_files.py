"""Files appear whole or not at all, and what replaces them loses nothing."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import DataError
from penchant.files import exchange, file_digest, fingerprint, holds_only, read_json, sync, write_json, write_text, written_aside


def write_half(target: Path, error: type[BaseException], *, folder: bool = False) -> None:
    """Be interrupted while writing."""
    with written_aside(target) as aside:
        if folder:
            aside.mkdir()
        (aside / "state" if folder else aside).write_bytes(b"half")
        raise error


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones too, by its path in it."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folders" / "a.txt"
    with written_aside(target) as aside:
        aside.write_text("half")
        assert not target.exists()
        aside.write_text("whole")
    assert contents(tmp_path) == {"new/folders/a.txt": b"whole"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [None, b"old"])
def test_an_interrupted_file_leaves_what_was_there(tmp_path: Path, error: type[BaseException], before: bytes | None) -> None:
    target = tmp_path / "a.txt"
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(error):
        write_half(target, error)
    assert contents(tmp_path) == ({} if before is None else {"a.txt": before})
    assert list(tmp_path.iterdir()) == ([] if before is None else [target])


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "snapshot"
    target.mkdir()
    (target / "state").write_bytes(b"old")
    with pytest.raises(error):
        write_half(target, error, folder=True)
    assert contents(tmp_path) == {"snapshot/state": b"old"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "snapshot"
    target.mkdir()
    (target / "state").write_bytes(b"old")
    (target / "only before").write_bytes(b"old")
    with written_aside(target) as aside:
        (aside / "deep").mkdir(parents=True)
        (aside / "deep" / "state").write_bytes(b"new")
    assert contents(tmp_path) == {"snapshot/deep/state": b"new"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "a").write_bytes(b"kept")
    with pytest.raises(DataError, match="precious: a folder; name the file to write in it"):
        write_text(target, "x")
    assert contents(tmp_path) == {"precious/a": b"kept"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_writes_nothing_deletes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    with pytest.raises(OSError, match="a.txt"), written_aside(target):
        pass
    assert contents(tmp_path) == {"a.txt": b"old"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["file/a.txt", "file/deep/a.txt", f"{'x' * 300}/a.txt", "x" * 300])
def test_a_place_that_can_hold_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    with pytest.raises(DataError) as caught:
        write_text(tmp_path / name, "x")
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert contents(tmp_path) == {"file": b"no folder"}


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with written_aside(target) as one:
        with written_aside(target) as other:
            assert one != other
            one.write_text("one")
            other.write_text("other")
        assert target.read_text() == "other"
    assert contents(tmp_path) == {"a.txt": b"one"}


@pytest.mark.parametrize("text", ["", "\ufeffmark", "a\r\nb\n", "caf\u00e9 \U0001f3c3\x00", "x" * 1_000_000])
def test_text_is_written_as_it_is_in_utf_8(tmp_path: Path, text: str) -> None:
    write_text(tmp_path / "a.txt", text)
    assert contents(tmp_path) == {"a.txt": text.encode("utf-8")}


def test_text_that_no_file_can_hold_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "half a character: \ud83c")
    assert list(tmp_path.iterdir()) == []


def test_json_that_can_not_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_json_is_indented_readable_and_ends_its_last_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "猫", "a": [1]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": "猫",\n  "a": [\n    1\n  ]\n}\n'


def test_holds_only_lets_a_folder_of_ones_own_pass(tmp_path: Path) -> None:
    holds_only(tmp_path / "absent", ["a"])
    holds_only(tmp_path, [])
    (tmp_path / "a").touch()
    holds_only(tmp_path, ["a", "b"])


def test_holds_only_names_what_would_be_lost(tmp_path: Path) -> None:
    for name in ("a", "thesis.doc", ".hidden", "b", "c", "d", "e"):
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        holds_only(tmp_path, ["a"])
    assert str(caught.value).startswith(f"{tmp_path}: holds .hidden, b, c, d, e, which")  # the first five


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": 1}\x00', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"caf\xe9", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
    ],
)
def test_a_damaged_json_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_json_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(DataError, match="can't be read") as caught:
            read_json(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_syncing_a_folder_passes_over_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"a")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    sync(tmp_path)
    assert (tmp_path / "deep" / "a").read_bytes() == b"a"


small = st.sampled_from(["", "a", "b", "é"])
json_like = st.recursive(
    st.none() | st.integers(0, 2) | small,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(small, inner, max_size=2),
    max_leaves=4,
)


@given(one=json_like, other=json_like)
@settings(max_examples=200, deadline=None)
def test_fingerprints_are_equal_exactly_when_values_are(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)
    assert fingerprint(json.loads(json.dumps(one))) == fingerprint(one)


def test_fingerprint_forgets_the_order_of_keys_and_nothing_else() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    values = [{"a": 1}, {"a": "1"}, {"a": None}, {"a": [1]}, {"a": True}, {}, [], [1, 2], [2, 1], [[1], 2], "", None, 0, False]
    assert len({fingerprint(each) for each in values}) == len(values)


def test_fingerprint_is_the_head_of_the_digest_of_the_canonical_text() -> None:
    assert fingerprint({"b": "é", "a": [1, 2]}) == hashlib.sha256('{"a":[1,2],"b":"é"}'.encode()).hexdigest()[:16]


@pytest.mark.parametrize("content", [b"", b"abc", b"\x00\xff" * 3_000_000])
def test_file_digest_is_sha_256_of_the_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["replaced", "with space [1]*", "猫"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    for text in (b"old", b"new"):
        with written_aside(tmp_path / name) as aside:
            aside.mkdir()
            (aside / "a").write_bytes(text)
    assert contents(tmp_path) == {f"{name}/a": b"new"}
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_folder_comes_back_when_what_replaces_it_can_not(tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "state").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "aside" / "never written", tmp_path / "snapshot")
    assert contents(tmp_path) == {"snapshot/state": b"old"}
