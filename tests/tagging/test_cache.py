"""A tag cache gives back what was put in, shares its file, keeps its limit, and stops no run whatever happens to the file."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penchant.errors import DataError
from penchant.tagging import cache as module
from penchant.tagging.cache import LAYOUT, Tag, TagCache, default_path, filled

RUNNING = Tag("interest", "sports.running", 0.75, None, None)
SALOMON = Tag("brand", "Salomon", 0.5, 10, 17)


def key(number: int) -> bytes:
    """The digest of a text, as it were."""
    return number.to_bytes(16, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a cache may be."""
    return tmp_path / "new" / "tags.sqlite"


@pytest.fixture
def cache(path: Path) -> Iterator[TagCache]:
    """An empty cache."""
    with TagCache(path) as opened:
        yield opened


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code` after these lines, its `path` and `arguments` from the command line; it logs to stderr."""
    head = (
        "import logging, sys\nfrom pathlib import Path\nfrom penchant.tagging.cache import Tag, TagCache\n"
        "logging.basicConfig()\npath, *arguments = sys.argv[1:]\n"
        "key = lambda number: number.to_bytes(16, 'big')\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_at_once(code: str, path: Path, count: int) -> list[str]:
    """Run `code` in `count` processes that start together and are told their number; what each has logged."""
    processes = [start(code, path, n) for n in range(count)]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    logged = [each.communicate()[1] for each in processes]
    assert [each.returncode for each in processes] == [0] * count, logged
    return logged


def test_tags_come_back_as_they_were(cache: TagCache) -> None:
    put = {
        key(1): [RUNNING, SALOMON],
        key(2): [],
        key(3): [Tag("品牌", "华为 🏃‍♀️ “x” \\ \x00 \n", 1.0, 0, 2)],
        key(4): [Tag("brand", "\ud83d\ude00 \udc80", 0.0, None, None)],  # halves of a pair, as broken input has them
    }
    cache.put("m", put)
    assert cache.get("m", [key(n) for n in (1, 2, 3, 4, 5)]) == put
    assert isinstance(cache.get("m", [key(1)])[key(1)][0], Tag)


@pytest.mark.parametrize("score", [0.1 + 0.2, 1 / 3, 5e-324, 0.9999999999999999, 1.0, -0.0])
def test_scores_are_the_same_to_the_last_bit(cache: TagCache, score: float) -> None:
    cache.put("m", {key(1): [Tag("interest", "a", score, None, None)]})
    assert cache.get("m", [key(1)])[key(1)][0].score.hex() == score.hex()


def test_another_model_has_its_own_tags(cache: TagCache) -> None:
    cache.put("m", {key(1): [RUNNING]})
    assert cache.get("n", [key(1)]) == {}
    cache.put("n", {key(1): [SALOMON]})
    assert cache.get("m", [key(1)]) == {key(1): [RUNNING]}
    assert cache.get("n", [key(1)]) == {key(1): [SALOMON]}


def test_a_text_put_again_has_its_new_tags(cache: TagCache) -> None:
    cache.put("m", {key(1): [RUNNING]})
    cache.put("m", {key(1): [SALOMON]})
    assert cache.get("m", [key(1), key(1)]) == {key(1): [SALOMON]}
    assert cache.forget([key(1)]) == 1


def test_many_keys_at_a_time(cache: TagCache) -> None:
    cache.put("m", {key(n): [Tag("interest", str(n), n / 8, None, None)] for n in range(5000)})
    found = cache.get("m", [key(n) for n in range(9999, 0, -2)])
    assert found == {key(n): [Tag("interest", str(n), n / 8, None, None)] for n in range(1, 5000, 2)}


def test_nothing_asked_and_nothing_put(cache: TagCache) -> None:
    cache.put("m", {})
    assert cache.get("m", []) == {}
    assert cache.forget([]) == 0


def test_tags_are_there_after_reopening(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(3):
        with TagCache(path) as cache:
            assert cache.get("m", [key(1), key(2)]) == ({key(1): [SALOMON], key(2): []} if n else {})
            cache.put("m", {key(1): [SALOMON], key(2): []})
    assert sorted(each.name for each in path.parent.iterdir()) == ["tags.sqlite", "tags.sqlite.lock"]
    assert caplog.messages == []


def test_another_thread_may_use_it(cache: TagCache) -> None:
    thread = threading.Thread(target=cache.put, args=("m", {key(1): [RUNNING]}))
    thread.start()
    thread.join()
    assert cache.get("m", [key(1)]) == {key(1): [RUNNING]}


def test_a_closed_cache_is_empty(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TagCache(path)
    cache.put("m", {key(1): [RUNNING]})
    cache.close()
    cache.close()
    cache.put("m", {key(2): [RUNNING]})
    assert cache.get("m", [key(1), key(2)]) == {}
    assert caplog.messages == []


def test_tags_that_can_not_be_written_are_the_callers_error(cache: TagCache) -> None:
    with pytest.raises(TypeError):
        cache.put("m", {key(1): [Tag("interest", b"bytes", 0.5, None, None)]})  # type: ignore[arg-type]
    cache.put("m", {key(1): [RUNNING]})
    assert cache.get("m", [key(1)]) == {key(1): [RUNNING]}


def test_the_least_recently_used_go_first(cache: TagCache, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [Tag("brand", "x" * 1000, 0.5, 0, 1000)]  # three to a page
    monkeypatch.setattr(module, "today", lambda: 1)
    cache.put("m", {key(n): long for n in range(500)})
    cache.get("m", [key(n) for n in range(500)])  # on the same day: moves nothing
    cache.put("m", {key(n): long for n in range(500, 1000)})
    monkeypatch.setattr(module, "today", lambda: 2)
    assert len(cache.get("m", [key(n) for n in range(200)])) == 200  # from the first places to the last
    assert cache.connection is not None
    cache.limit_bytes = filled(cache.connection)
    cache.put("m", {key(n): long for n in range(1000, 1010)})
    assert 0.7 * cache.limit_bytes < filled(cache.connection) < 0.8 * cache.limit_bytes

    rest = set(cache.get("m", [key(n) for n in range(1010)]))
    gone = [n for n in range(1010) if key(n) not in rest]
    assert gone == list(range(200, 500))  # a fifth is 202 of 1,010 texts, in steps of 100; not used since day 1, and put first of those


def test_using_a_text_for_the_first_time_in_a_day_keeps_its_tags(cache: TagCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (1, 2, 2, 3, 1):
        monkeypatch.setattr(module, "today", lambda day=day: day)
        cache.put("m", {key(day): [RUNNING]})
        assert cache.get("m", [key(day), key(1)]) == {key(day): [RUNNING], key(1): [RUNNING]}
    assert cache.connection is not None
    assert cache.connection.execute("SELECT hex(key), day FROM texts JOIN places USING (place) ORDER BY place").fetchall() == [
        (key(2).hex().upper(), 2),
        (key(3).hex().upper(), 3),
        (key(1).hex().upper(), 1),
    ]


def test_what_an_interrupted_eviction_leaves_leads_nowhere(cache: TagCache) -> None:
    cache.put("m", {key(1): [RUNNING], key(2): [RUNNING]})
    assert cache.connection is not None
    cache.connection.execute("DELETE FROM texts")  # and nothing from the places
    cache.put("m", {key(2): [SALOMON], key(3): [SALOMON]})
    assert cache.get("m", [key(1), key(2), key(3)]) == {key(2): [SALOMON], key(3): [SALOMON]}
    assert cache.forget([key(1), key(2)]) == 1


@pytest.mark.parametrize("words", [0, 40])
def test_the_file_keeps_its_limit(path: Path, words: int) -> None:
    limit = 400_000
    tags = [Tag("brand", "name " * words, 0.5, 0, 5)] if words else []
    with TagCache(path, limit) as cache:
        for first in range(0, 40_000, 1000):
            cache.put("m", {os.urandom(16): tags for _ in range(400)} | {key(first): tags})
            assert cache.get("m", [key(first)]) == {key(first): tags}
            assert cache.connection is not None
            assert filled(cache.connection) <= limit
        assert cache.get("m", [key(0)]) == {}
    assert 0.8 * limit < path.stat().st_size < 1.5 * limit  # one put writes 150,000 bytes


def test_a_limit_under_one_put_keeps_nothing(path: Path) -> None:
    with TagCache(path, 1000) as cache:
        cache.put("m", {key(1): [RUNNING]})
        assert cache.get("m", [key(1)]) == {}


def test_forgotten_texts_are_gone_for_every_model_and_from_the_disk(path: Path) -> None:
    secret = [Tag("person", "Grace Brewster Hopper", 0.5, 0, 21)]
    with TagCache(path) as cache:
        cache.put("m", {key(1): secret, key(2): [RUNNING]})
        cache.put("n", {key(1): secret, key(3): secret})
        assert cache.forget([key(1), key(3), key(4)]) == 3
        assert cache.forget([key(1)]) == 0
        assert cache.get("n", [key(1), key(3)]) == {}
        assert cache.get("m", [key(1), key(2)]) == {key(2): [RUNNING]}
        assert path.with_name("tags.sqlite-wal").stat().st_size == 0
    assert b"Grace" not in path.read_bytes()
    assert b"sports.running" in path.read_bytes()


def test_forgetting_fails_loudly(tmp_path: Path) -> None:
    (tmp_path / "tags.sqlite").mkdir()
    with TagCache(tmp_path / "tags.sqlite") as cache, pytest.raises(DataError, match=r"tags\.sqlite: the tag cache can't be used"):
        cache.forget([key(1)])
    (tmp_path / "file").touch()
    with TagCache(tmp_path / "file" / "tags.sqlite") as cache:
        assert cache.forget([key(1)]) == 0  # there is nothing


WRITES_AND_READS = """
number = int(arguments[0])
with TagCache(Path(path), limit) as cache:
    for n in range(40):
        cache.put("m", {key(1000 * n + 100 * number + each): [Tag("interest", f"{number}", n / 8, None, None)] for each in range(50)})
        mine = cache.get("m", [key(1000 * n + 100 * number + each) for each in range(50)])
        assert len(mine) == 50 or limit < 10**9, len(mine)
        for found, tags in cache.get("m", [key(1000 * n + 100 * other) for other in range(4)]).items():
            other = int.from_bytes(found, "big") % 1000 // 100
            assert tags == [Tag("interest", f"{other}", n / 8, None, None)]
    assert cache.connection
"""


def test_processes_share_a_cache(path: Path) -> None:
    assert run_at_once(f"limit = {1 << 31}{WRITES_AND_READS}", path, 4) == [""] * 4
    with TagCache(path) as cache:
        found = cache.get("m", [key(n) for n in range(40_000)])
    assert len(found) == 40 * 4 * 50
    assert found[key(39_349)] == [Tag("interest", "3", 39 / 8, None, None)]


def test_processes_share_a_limit(path: Path) -> None:
    assert run_at_once(f"limit = 200_000{WRITES_AND_READS}", path, 3) == [""] * 3
    with TagCache(path) as cache:
        assert cache.connection is not None
        assert cache.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert 100_000 < filled(cache.connection) <= 200_000


def test_processes_that_find_a_damaged_file_at_once_share_the_new_one(path: Path) -> None:
    path.parent.mkdir()
    for _ in range(2):
        path.write_bytes(b"no database " * 1000)
        code = 'cache = TagCache(Path(path))\ncache.put("m", {key(int(arguments[0])): []})\nassert cache.connection\ncache.close()'
        logged = run_at_once(code, path, 4)
        assert "".join(logged).count("set aside as tags.sqlite.damaged") == 1
        with TagCache(path) as cache:
            assert cache.get("m", [key(n) for n in range(4)]) == {key(n): [] for n in range(4)}
        assert (path.parent / "tags.sqlite.damaged").read_bytes() == b"no database " * 1000


def test_a_killed_writer_leaves_all_it_had_put(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = """
cache = TagCache(Path(path))
for n in range(10**6):
    cache.put("m", {key(1000 * n + each): [Tag("interest", str(n), 0.5, None, None)] for each in range(1000)})
    print(n, flush=True)
"""
    for _ in range(2):
        writer = start(code, path)
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
        while writer.stdout.readline() != "5\n":
            pass
        writer.kill()
        done = int((["5", *writer.communicate()[0].split()])[-1])
        with TagCache(path) as cache:
            found = cache.get("m", [key(n) for n in range(1000 * (done + 2))])
            assert len(found) in {1000 * (done + 1), 1000 * (done + 2)}  # whether the put it was killed in had ended
            assert all(tags == [Tag("interest", str(int.from_bytes(each, "big") // 1000), 0.5, None, None)] for each, tags in found.items())
            assert cache.forget(list(found)) == len(found)
    assert caplog.messages == []


def foreign(path: Path, version: int, statement: str) -> bytes:
    """Make `path` a SQLite file with another layout; its bytes."""
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA user_version = {version}; {statement}")
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("version", [0, 1, LAYOUT - 1, LAYOUT + 1, LAYOUT])
def test_a_file_of_another_layout_is_set_aside(path: Path, version: int, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    before = foreign(path, version, "CREATE TABLE secrets (name TEXT)")
    with TagCache(path) as cache:
        cache.put("m", {key(1): [RUNNING]})
        assert cache.get("m", [key(1)]) == {key(1): [RUNNING]}
    assert (path.parent / "tags.sqlite.damaged").read_bytes() == before
    assert len(caplog.messages) == 1
    assert str(path.resolve()) in caplog.messages[0]
    assert "secrets" not in caplog.messages[0]


def test_a_damaged_file_is_set_aside_over_an_older_one_and_without_its_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    for suffix in ("-wal", "-shm", ".damaged", ".damaged-wal", ".damaged-journal"):
        path.with_name(f"tags.sqlite{suffix}").write_bytes(b"old")
    path.write_bytes(b"new" * 4000)
    with TagCache(path) as cache:
        cache.put("m", {key(1): [RUNNING]})
    with TagCache(path) as cache:
        assert cache.get("m", [key(1)]) == {key(1): [RUNNING]}
    assert {each.name: each.read_bytes() for each in path.parent.iterdir() if each != path} == {
        "tags.sqlite.damaged": b"new" * 4000,
        "tags.sqlite.lock": b"",
    }
    assert len(caplog.messages) == 1


def test_an_empty_file_becomes_a_cache(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.touch()
    with TagCache(path) as cache:
        cache.put("m", {key(1): []})
        assert cache.get("m", [key(1)]) == {key(1): []}
    assert caplog.messages == []


def test_a_cut_file_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TagCache(path) as cache:
        cache.put("m", {key(n): [RUNNING] for n in range(1000)})
    os.truncate(path, 20_000)
    with TagCache(path) as cache:
        assert cache.get("m", [key(n) for n in range(1000)]) == {}
    assert [each.split("(")[1].split(")")[0] for each in caplog.messages] == ["SQLITE_CORRUPT"]


def test_damage_found_in_use_begins_a_new_file_that_others_find(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = [key(n) for n in range(2000)]
    with TagCache(path) as cache:
        cache.put("m", {each: [RUNNING] for each in keys})
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    with TagCache(path) as one, TagCache(path) as two:
        assert caplog.messages == []
        assert one.get("m", keys) == {}
        one.put("m", {key(1): [SALOMON]})
        assert two.get("m", keys) == {}
        assert two.get("m", keys) == {key(1): [SALOMON]}
        two.put("m", {key(2): []})
        assert one.get("m", keys) == {key(1): [SALOMON], key(2): []}
        assert len(caplog.messages) == 1  # the second to notice finds the new file
    assert (path.parent / "tags.sqlite.damaged").stat().st_size == size


@pytest.mark.parametrize("value", [b"\xff", b"{", b"5", b"[5]", b'[["interest","a",0.5]]', b"],[", b""])
def test_a_row_without_tags_is_damage(cache: TagCache, value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(2):
        cache.put("m", {key(1): [RUNNING], key(2): []})
        assert cache.connection is not None
        cache.connection.execute("UPDATE texts SET tags = ? WHERE place = (SELECT place FROM places WHERE key = ?)", (value, key(1)))
        assert cache.get("m", [key(1), key(2)]) == {}
        assert (cache.connection is None) == (n == 1)  # a second time in one run, it isn't tried again
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("name", ["file/tags.sqlite", "file/deeper/tags.sqlite", "folder"])
def test_where_nothing_can_be_written_there_is_one_warning(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with TagCache(tmp_path / name) as cache:
        for _ in range(2):
            cache.put("m", {key(1): [RUNNING]})
            assert cache.get("m", [key(1)]) == {}
    assert [str(tmp_path.resolve() / name) in each for each in caplog.messages] == [True]


def test_a_full_disk_ends_it_with_one_warning(cache: TagCache, caplog: pytest.LogCaptureFixture) -> None:
    cache.put("m", {key(1): [RUNNING]})
    assert cache.connection is not None
    cache.connection.execute("PRAGMA max_page_count = 10")
    for _ in range(2):
        cache.put("m", {key(n): [RUNNING] for n in range(1000)})
        assert cache.get("m", [key(1)]) == {}
    assert len(caplog.messages) == 1
    assert "SQLITE_FULL" in caplog.messages[0]
    with TagCache(cache.path) as again:
        assert again.get("m", [key(1), key(2)]) == {key(1): [RUNNING]}  # the put that failed left nothing


def test_a_file_that_others_keep_locked_ends_it(path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.01)
    with TagCache(path) as cache, TagCache(path) as other:
        assert other.connection is not None
        other.connection.execute("BEGIN IMMEDIATE")
        cache.put("m", {key(1): [RUNNING]})
        with pytest.raises(DataError, match="can't be used"):
            cache.forget([key(1)])
        other.connection.execute("ROLLBACK")
    assert [each.count("SQLITE_BUSY") for each in caplog.messages] == [1]


def test_an_erasure_that_waits_in_vain_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.01)
    with TagCache(path) as cache, TagCache(path) as other:
        assert other.connection is not None
        other.connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(DataError, match=r"tags\.sqlite: can't be erased from \(SQLITE_BUSY\)"):
            cache.forget([key(1)])
        other.connection.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PENCHANT_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own/tags.sqlite"),
        ({"PENCHANT_CACHE": "~/own"}, "/home/me/own/tags.sqlite"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/penchant/tags.sqlite"),
        ({"PENCHANT_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/penchant/tags.sqlite"),
        ({}, "/home/me/.cache/penchant/tags.sqlite"),
    ],
)
def test_the_default_path(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PENCHANT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/me"} | environment).items():
        monkeypatch.setenv(name, value)
    assert default_path() == Path(expected)
