"""The audit log: what is written once can't be changed unseen, and a killed writer neither breaks the chain nor hides anything."""

import hashlib
import json
import multiprocessing
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import DataError
from penchant.segments import audit
from penchant.segments.audit import AuditLog, Verified, verify

ZEROS = "0" * 64


def log_of(folder: Path, count: int = 3) -> Path:
    """A log of some short entries."""
    path = folder / "audit.jsonl"
    for n in range(count):
        AuditLog(path).append("export", "ann", n=n, why="Läufer 🏃\n")
    return path


def chained(contents: list[dict[str, Any]]) -> bytes:
    """A log as the format's description says, written without the code under test."""
    lines, previous = [], ZEROS
    for number, content in enumerate(contents, 1):
        entry = {**content, "number": number, "previous": previous}
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(text.encode()).hexdigest()
        lines.append(json.dumps({**entry, "hash": previous}, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode()


CONTENTS = [{"what": "export", "by": by, "at": "2026-03-01T12:00:00+00:00"} for by in ("ann", "bob", "猫")]


def test_an_entry_says_what_by_whom_when_and_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    before = datetime.now(UTC)
    first = AuditLog(path).append(
        "export", "ann", segment="runners", people=56, why="Einladung 🏃\nzweite Zeile", rule={"b": [1, 2.5, None]}
    )
    second = AuditLog(path).append("erase", "bob")
    assert {key: first[key] for key in ("number", "what", "by", "segment", "people", "why", "rule", "previous")} == {
        "number": 1,
        "what": "export",
        "by": "ann",
        "segment": "runners",
        "people": 56,
        "why": "Einladung 🏃\nzweite Zeile",
        "rule": {"b": [1, 2.5, None]},
        "previous": ZEROS,
    }
    assert before <= datetime.fromisoformat(first["at"]) <= datetime.now(UTC)
    assert (second["number"], second["previous"]) == (2, first["hash"])
    assert list(AuditLog(path).entries()) == [first, second]
    assert verify(path) == Verified(2, second["hash"], ())
    assert path.read_bytes().count(b"\n") == 2


def test_the_hash_is_that_of_the_entry_without_it(tmp_path: Path) -> None:
    path = log_of(tmp_path)
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    contents = [{key: entry[key] for key in ("at", "by", "n", "what", "why")} for entry in read]
    assert path.read_bytes() == chained(contents)
    path.write_bytes(chained(CONTENTS))
    assert verify(path).problems == ()
    assert AuditLog(path).append("export", "ann")["number"] == 4
    assert verify(path).problems == ()


def test_a_log_that_was_never_written_has_no_entries_and_nothing_to_verify(tmp_path: Path) -> None:
    assert list(AuditLog(tmp_path / "none.jsonl").entries()) == []
    with pytest.raises(DataError, match="none.jsonl: can't be read or written: No such file"):
        verify(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    assert verify(tmp_path / "empty.jsonl") == Verified(0, ZEROS, ())
    assert AuditLog(tmp_path / "empty.jsonl").append("export", "ann")["number"] == 1


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    for attempt in (
        lambda: AuditLog(tmp_path).append("export", "ann"),
        lambda: verify(tmp_path),
        lambda: list(AuditLog(tmp_path).entries()),
    ):
        with pytest.raises(DataError, match="can't be read or written: Is a directory"):
            attempt()


FACTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name not in (*audit.OWN, "torn", "self")),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@given(st.lists(FACTS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_facts_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    written = [AuditLog(path).append("export", "ann", **facts) for facts in entries]
    assert [{key: entry[key] for key in facts} for entry, facts in zip(written, entries, strict=True)] == entries
    assert list(AuditLog(path).entries()) == written
    assert verify(path) == Verified(len(entries), written[-1]["hash"], ())


def test_keys_that_are_numbers_become_text_before_they_are_hashed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert AuditLog(path).append("export", "ann", counts={10: "a", 9: "b"}, pair=(1, 2))["counts"] == {"10": "a", "9": "b"}
    assert verify(path).problems == ()
    assert next(AuditLog(path).entries())["pair"] == [1, 2]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), datetime(2026, 1, 1, tzinfo=UTC), b"x", {1, 2}, "\ud800", {"a": {"b": object()}}]
)
def test_what_json_can_not_hold_is_refused_and_nothing_is_written(value: Any, tmp_path: Path) -> None:
    path = log_of(tmp_path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="audit.jsonl: facts that JSON can't hold"):
        AuditLog(path).append("export", "ann", fact=value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["number", "at", "previous", "hash", "torn"])
def test_a_fact_can_not_pass_for_what_the_log_writes(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"a fact can't be called {name}"):
        AuditLog(tmp_path / "audit.jsonl").append("export", "ann", **{name: 1})
    assert list(tmp_path.iterdir()) == []


# Edits


def test_every_edit_of_a_single_byte_is_found(tmp_path: Path) -> None:
    whole = chained(CONTENTS)
    path = tmp_path / "audit.jsonl"
    unseen = []
    for place in range(len(whole)):
        for value in {whole[place] ^ 1, whole[place] ^ 0x80, 10, 34} - {whole[place]}:
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            if not verify(path).problems:
                unseen.append((place, value))
    assert unseen == []


def test_no_byte_of_a_line_can_become_any_other() -> None:
    for line in chained(CONTENTS).splitlines(keepends=True):
        assert audit.read(line)["what"] == "export"
        for place in range(len(line)):
            for value in set(range(256)) - {line[place]}:
                with pytest.raises(ValueError, match="the line was changed|no entry of an audit log"):
                    audit.read(line[:place] + bytes([value]) + line[place + 1 :])


def test_every_byte_taken_away_or_put_in_is_found(tmp_path: Path) -> None:
    whole = chained(CONTENTS)
    path = tmp_path / "audit.jsonl"
    for place in range(len(whole)):
        for edited in (
            whole[:place] + whole[place + 1 :],
            *(whole[:place] + each + whole[place:] for each in (b" ", b"\n", b"0", b"\x00")),
        ):
            path.write_bytes(edited)
            assert verify(path).problems, (place, edited)


def lines_of(count: int) -> list[bytes]:
    return chained([{"what": "export", "by": f"user {n}", "at": "2026-03-01T12:00:00+00:00"} for n in range(count)]).splitlines(
        keepends=True
    )


LINES = lines_of(5)
OTHER = chained([{"what": "other", "by": "eve", "at": "2026-03-01T12:00:00+00:00"}] * 5).splitlines(keepends=True)


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        (LINES[1:], ["line 1: doesn't follow the line before"]),
        (LINES[:2] + LINES[3:], ["line 3: doesn't follow the line before"]),
        ([*LINES[:2], LINES[1], *LINES[2:]], ["line 3: doesn't follow the line before"]),
        ([*LINES, LINES[4]], ["line 6: doesn't follow the line before"]),
        ([LINES[0], LINES[2], LINES[1], *LINES[3:]], ["line 2: doesn't follow", "line 3: doesn't follow", "line 4: doesn't follow"]),
        ([*LINES[:2], OTHER[2], *LINES[3:]], ["line 3: doesn't follow", "line 4: doesn't follow"]),
        ([*LINES[:2], OTHER[0], *LINES[2:]], ["line 3: doesn't follow", "line 4: doesn't follow"]),
        ([*LINES[:2], b"\n", *LINES[2:]], ["line 3: no JSON in UTF-8", "line 4: is entry 3 where 4 was to come"]),
        ([*LINES[:2], b"[]\n", *LINES[3:]], ["line 3: no entry of an audit log"]),
        ([LINES[0], LINES[1].replace(b":", b": ", 1), *LINES[2:]], ["line 2: written otherwise than the log writes"]),
        ([LINES[0], LINES[1].replace(b"\n", b"\r\n"), *LINES[2:]], ["line 2: written otherwise than the log writes"]),
        ([LINES[0], LINES[1].replace(b"user", b"us\\u0065r"), *LINES[2:]], ["line 2: written otherwise than the log writes"]),
        ([LINES[0], LINES[1].replace(b"user", b"User"), *LINES[2:]], ["line 2: its hash isn't that of its content"]),
        ([*LINES[:4], LINES[4][:-1]], ["line 5: lacks its line break"]),
        ([*LINES[:4], LINES[4][:30]], ["line 5: half a line, 30 bytes"]),
        ([b"\xef\xbb\xbf", *LINES], ["line 1: no JSON in UTF-8"]),
        ([b"[" * 100_000 + b"\n"], ["line 1: no JSON in UTF-8"]),
    ],
)
def test_lines_changed_removed_added_or_moved_are_found(lines: list[bytes], problems: list[str], tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines))
    found = verify(path).problems
    assert [text[: len(start)] for text, start in zip(found, problems, strict=True)] == problems


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1"])
def test_another_encoding_is_found(encoding: str, tmp_path: Path) -> None:
    path = log_of(tmp_path)
    text = path.read_text(encoding="utf-8").replace("🏃", "")
    path.write_bytes(text.encode(encoding))
    assert verify(path).problems[0].startswith("line 1: no JSON in UTF-8")


def test_a_changed_entry_with_a_hash_made_anew_breaks_the_chain_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    contents = [{"what": "export", "by": f"user {n}", "at": "2026-03-01T12:00:00+00:00"} for n in range(5)]
    contents[1]["by"] = "nobody"
    forged = chained(contents).splitlines(keepends=True)
    path.write_bytes(b"".join([*LINES[:1], forged[1], *LINES[2:]]))
    assert [each[:8] for each in verify(path).problems] == ["line 3: "]


def test_a_chain_made_anew_or_cut_off_is_found_by_a_hash_noted_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    hashes = [json.loads(line)["hash"] for line in LINES]
    contents = [{"what": "export", "by": f"user {n}", "at": "2026-03-01T12:00:00+00:00"} for n in range(5)]
    contents[2]["by"] = "nobody"
    path.write_bytes(chained(contents))
    assert verify(path, hashes[:2]).problems == ()  # what was noted lies before the forgery
    assert verify(path, [hashes[1], hashes[3]]).problems == (
        f"no line has the hash {hashes[3]}, which is noted elsewhere: its entry was changed, or cut off",
    )
    path.write_bytes(b"".join(LINES[:3]))
    assert verify(path).problems == ()  # no file knows its own end
    assert len(verify(path, hashes[3:]).problems) == 2
    path.write_bytes(b"".join(LINES))
    assert verify(path, hashes) == Verified(5, hashes[4], ())


def test_entries_stop_at_a_line_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join([LINES[0], LINES[1].replace(b"user", b"User"), *LINES[2:]]))
    found = AuditLog(path).entries()
    assert next(found)["by"] == "user 0"
    with pytest.raises(DataError, match="audit.jsonl:2: its hash isn't that of its content"):
        next(found)


@pytest.mark.parametrize(
    "content", [b"hello", b"hello\n", b"".join(LINES).replace(b"user 4", b"user 5"), b"".join([*LINES, b"\n"]), b"\x00" * 100]
)
def test_nothing_is_added_behind_what_is_no_sound_entry(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="its last line is no sound entry of an audit log, so nothing was added"):
        AuditLog(path).append("export", "ann")
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


# Interrupted writers


@pytest.mark.parametrize("before", [0, 2])
def test_a_last_line_cut_at_any_byte_is_kept_and_said(before: int, tmp_path: Path) -> None:
    lines = lines_of(before + 1)
    good, last = b"".join(lines[:before]), lines[before]
    for cut in range(1, len(last) - 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(good + last[:cut])
        (problem,) = verify(path).problems
        assert problem == f"line {before + 1}: half a line, {cut} bytes: its writer was stopped"
        assert len(list(AuditLog(path).entries())) == before
        entry = AuditLog(path).append("export", "ann")
        assert entry["number"] == before + 1
        assert entry["torn"] == {"bytes": cut, "sha256": hashlib.sha256(last[:cut]).hexdigest()}
        assert path.with_name(f"{cut}.jsonl.torn").read_bytes() == last[:cut] + b"\n"
        assert path.read_bytes().startswith(good)
        assert verify(path) == Verified(before + 1, entry["hash"], ())


def test_a_last_line_that_lacks_only_its_line_break_stays_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(LINES)[:-1])
    entry = AuditLog(path).append("export", "ann")
    assert entry["number"] == 6
    assert "torn" not in entry
    assert path.read_bytes().startswith(b"".join(LINES))
    assert verify(path, [json.loads(line)["hash"] for line in LINES]) == Verified(6, entry["hash"], ())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torn", [b'{"at":"20', b'{"at":"2026","by":"' + b"x" * 500])
def test_a_writer_stopped_while_it_mends_leaves_a_log_that_can_be_mended(torn: bytes, tmp_path: Path) -> None:
    """At every byte of the new line written over the torn one, and before what is behind it was cut off."""
    good, line, _ = chained(CONTENTS).splitlines(keepends=True)
    for written in range(len(line) + 1):
        path = tmp_path / f"{written}.jsonl"
        path.write_bytes(good + line[:written] + torn[written:])
        whole = written == len(line) or (written == len(line) - 1 and len(torn) < written)
        entry = AuditLog(path).append("export", "ann")
        assert entry["number"] == 2 + whole
        assert path.read_bytes().startswith(good + line * whole)
        assert verify(path) == Verified(2 + whole, entry["hash"], ())


def test_two_torn_lines_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for torn in (b'{"at":"one', b'{"at":"\xf0\x9f'):
        with path.open("ab") as stream:
            stream.write(torn)
        AuditLog(path).append("export", "ann")
    assert (tmp_path / "audit.jsonl.torn").read_bytes() == b'{"at":"one\n{"at":"\xf0\x9f\n'
    assert verify(path).problems == ()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log_of(tmp_path)
    before, real = path.read_bytes(), os.pwrite
    monkeypatch.setattr("os.pwrite", lambda descriptor, line, place: real(descriptor, line[:20], place))
    with pytest.raises(DataError, match="audit.jsonl: can't be written: no space left"):
        AuditLog(path).append("export", "ann")
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert AuditLog(path).append("export", "ann")["number"] == 4


@pytest.mark.parametrize("name", ["fsync", "ftruncate"])
def test_an_entry_that_may_not_be_on_the_disk_is_no_entry(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log_of(tmp_path)
    before, real, calls = path.read_bytes(), getattr(os, name), []

    def failing(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")
        return real(*given)

    monkeypatch.setattr(f"os.{name}", failing)
    with pytest.raises(DataError, match="audit.jsonl: can't be read or written: Input/output error"):
        AuditLog(path).append("export", "ann")
    assert path.read_bytes() == before


# Several at once


def write_some(path: Path, name: str) -> None:
    for n in range(40):
        AuditLog(path).append("export", name, n=n, text="x" * 5000)


def test_several_processes_append_to_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_some, args=(path, f"p{n}")) for n in range(4)]
    for each in processes:
        each.start()
    while any(each.is_alive() for each in processes):
        if path.exists():
            assert verify(path).problems == ()
    assert [each.exitcode for each in processes] == [0] * 4
    entries = list(AuditLog(path).entries())
    assert verify(path) == Verified(160, entries[-1]["hash"], ())
    assert [entry["number"] for entry in entries] == list(range(1, 161))
    for n in range(4):
        assert [entry["n"] for entry in entries if entry["by"] == f"p{n}"] == list(range(40))


def test_several_threads_append_to_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    threads = [threading.Thread(target=write_some, args=(path, f"t{n}")) for n in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert verify(path).problems == ()
    assert verify(path).entries == 160
