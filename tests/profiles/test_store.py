"""The store: its history and the way back, what may be thrown away, what is put together, and what is said when it is damaged."""

import json
import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from penchant.errors import ConfigError, DataError
from penchant.profiles import store as stores
from penchant.profiles.duck import connect
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import Snapshot, build, check, load, migrate, update, user_profile
from penchant.profiles.store import PARTS, Store
from penchant.records import KEPT, KEPT_TAGS
from tests.objects import Kept, object_store
from tests.processes import forking
from tests.snapshots import (
    NOON,
    WORDS,
    assert_profiles,
    clean,
    event,
    kept_ids,
    permits,
    snapshot_of,
    tag,
    updated,
    version,
    write_inputs,
)
from tests.tables import everything_in

Row = dict[str, Any]
RUN, CATS = "sports.running", "pets.cats"
EVENTS = [event(1, "run", "ann", 3), event(2, "cat", "ann", 1), event(3, "run", "bob", 2), event(4, "stage", "bob", 0)]
MORE = [event(5, "run", "ann", 0.5), event(6, "cat", "cleo", 4)]
TAGS = [tag(text, value) for text, value in WORDS.items()]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two versions: four events, and two more."""
    folder = tmp_path_factory.mktemp("base")
    snapshot_of(folder, EVENTS)
    updated(folder / "profiles", folder / "more", MORE)
    return folder / "profiles"


@pytest.fixture
def profiles(base: Path, tmp_path: Path) -> Path:
    """A copy of `base`."""
    return Path(shutil.copytree(base, tmp_path / "profiles"))


def state_of(snapshot: Snapshot) -> list[Row]:
    """All state, in order."""
    rows: list[Row] = snapshot.state.order_by("user_id", "dimension", "value").to_pyarrow().to_pylist()
    return rows


def layers_of(profiles: Path) -> Counter[tuple[str, str]]:
    """How many files each part and bucket has."""
    head = Store(profiles).open()
    return Counter((part, each["bucket"]) for part in PARTS for each in head.files(part))


def test_history_says_what_was_done_and_what_with(profiles: Path) -> None:
    newest, oldest = Store(profiles).history()
    assert (oldest["version"], oldest["what"], oldest["events"], oldest["as_of"]) == (0, "build", 4, NOON.isoformat())
    assert (newest["version"], newest["what"], newest["events"], newest["as_of"]) == (1, "update", 2, NOON.isoformat())
    assert newest["policy_fingerprint"] == Policy().fingerprint
    assert newest["bundle_fingerprint"] == "by hand"
    assert newest["at"] >= oldest["at"]


def test_an_old_version_can_be_read_and_an_open_one_stays(profiles: Path, tmp_path: Path) -> None:
    old, opened = load(profiles, version=0), load(profiles)
    before = state_of(opened)
    updated(profiles, tmp_path / "new", [event(7, "goal", "ann", occurred_at=NOON + timedelta(days=1))])
    assert_profiles(old, EVENTS, TAGS)
    assert (old.as_of, old.about["what"]) == (NOON, "build")
    assert opened.as_of == NOON
    assert state_of(opened) == before
    assert [row["value"] for row in opened.of_user("ann")] == [RUN, CATS]
    assert_profiles(opened, EVENTS + MORE, TAGS)
    assert load(profiles).as_of == NOON + timedelta(days=1)
    assert state_of(load(profiles, version=1)) == before


def test_restore_brings_an_earlier_version_back_and_updates_go_on_from_it(profiles: Path, tmp_path: Path) -> None:
    assert Store(profiles).restore(0)
    assert_profiles(load(profiles), EVENTS, TAGS)
    assert [each["what"] for each in Store(profiles).history()] == ["restore", "update", "build"]
    assert updated(profiles, tmp_path / "again", MORE[1:])["new"] == 1  # what was undone is new again
    assert_profiles(load(profiles), EVENTS + MORE[1:], TAGS)
    assert Store(profiles).restore(1)
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert clean(load(profiles))


def test_restoring_the_current_version_changes_nothing_and_says_so(profiles: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = everything_in(profiles)
    assert not Store(profiles).restore(1)
    assert "profiles: version 1 is the current one already" in caplog.text
    assert everything_in(profiles) == before


@pytest.mark.parametrize("wrong", [2, 99, -1])
def test_a_version_that_does_not_exist_is_refused_with_those_that_do(wrong: int, profiles: Path) -> None:
    for attempt in (lambda: Store(profiles).restore(wrong), lambda: load(profiles, wrong)):
        with pytest.raises(DataError, match=f"profiles: has no version {wrong}; known: 1, 0$"):
            attempt()


@pytest.mark.parametrize(
    "attempt",
    [
        Store.history,
        Store.open,
        lambda store: store.restore(0),
        lambda store: store.vacuum(0),
        lambda store: load(store.uri),
        lambda store: migrate(store.uri),
    ],
)
def test_where_there_are_no_profiles_the_command_that_makes_them_is_named(attempt: Callable[[Store], Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "empty", "file"):
        with pytest.raises(DataError, match=f"{name}: no profiles \\(no Delta table\\); make them with: penchant profile build"):
            attempt(Store(tmp_path / name))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_migrating_to_a_policy_comes_to_a_build_under_it_and_back(profiles: Path, tmp_path: Path) -> None:
    policy = Policy(half_life_days={"soon": 1.0, "late": 10.0}, habits=True, action_weights={"click": 3.0}, daily_ceiling=2.0)
    about = migrate(profiles, policy)
    assert (about["events"], about["users"], about["what"]) == (6, 3, "migrate")
    assert load(profiles).policy == policy
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert updated(profiles, tmp_path / "new", [event(7, "run", "ann", 0.25)])["new"] == 1
    assert_profiles(load(profiles), [*EVENTS, *MORE, event(7, "run", "ann", 0.25)], TAGS)
    Store(profiles).restore(1)  # whose masses have other names
    assert load(profiles).policy == Policy()
    assert updated(profiles, tmp_path / "new", [event(8, "run", "ann", 0.25)])["new"] == 1
    assert_profiles(load(profiles), [*EVENTS, *MORE, event(8, "run", "ann", 0.25)], TAGS)


def test_migrating_to_tags_of_a_new_model_comes_to_a_build_with_them(profiles: Path, tmp_path: Path) -> None:
    tags = [tag("run", CATS, 0.5), tag("cat", RUN, 0.25), tag("stage", "society.faith")]
    _, path = write_inputs(tmp_path / "new", [], tags)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"penchant.bundle": b"better"}), path)
    migrate(profiles, tags=path)
    assert load(profiles).about["bundle_fingerprint"] == "better"
    assert_profiles(load(profiles), EVENTS + MORE, tags)
    assert kept_ids(profiles) == [f"e{n}" for n in range(1, 7)]
    events, _ = write_inputs(tmp_path / "later", [event(7, "run", "ann")])
    assert update(events, path, profiles)["new"] == 1  # and goes on with them
    with pytest.raises(DataError, match="of bundle better, "):
        updated(profiles, tmp_path / "old", [event(8, "run", "ann")])


def test_a_policy_that_can_not_be_leaves_the_store_as_it_was(profiles: Path) -> None:
    before = everything_in(profiles)
    with pytest.raises(ConfigError, match="unknown interest 'fayth'"):
        migrate(profiles, Policy(allowed_sensitive=permits("fayth")))
    assert everything_in(profiles) == before


def test_putting_together_changes_no_number_and_leaves_one_file_each(profiles: Path, tmp_path: Path) -> None:
    assert max(layers_of(profiles).values()) == 2
    before, forms = state_of(load(profiles)), load(profiles).forms
    assert Store(profiles).compact(connect(), everything=True) > 0
    assert set(layers_of(profiles).values()) == {1}
    assert state_of(load(profiles)) == [
        row | {f"mass_{name}": pytest.approx(row[f"mass_{name}"], rel=1e-12) for name in Policy().horizons} for row in before
    ]
    assert load(profiles).forms == forms
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert clean(load(profiles))
    after = everything_in(profiles)
    assert Store(profiles).compact(connect(), everything=True) == 0  # there is nothing left to do
    assert everything_in(profiles) == after
    assert updated(profiles, tmp_path / "again", MORE)["new"] == 0


def files(*rows: int) -> list[Row]:
    """Files of one bucket, each a layer."""
    return [{"layer": str(number), "rows": each} for number, each in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([1], False),
        ([1, 1], False),
        ([1] * 9, False),
        ([1] * 10, True),  # more than eight layers beside the first
        ([1_000_000, 300_000], False),
        ([1_000_000, 200_000, 200_000], True),  # more than a quarter, and 65,536 rows
        ([200_000, 1_000_000, 200_000], True),
        ([60_000, 60_000], False),
    ],
)
def test_buckets_are_put_together_by_their_layers_or_by_the_rows_in_them(rows: list[int], expected: bool) -> None:
    assert stores.is_loose(files(*rows), False) == expected


def test_vacuum_deletes_what_no_version_of_the_days_needs(profiles: Path) -> None:
    store = Store(profiles)
    store.compact(connect(), everything=True)
    before = everything_in(profiles)
    assert store.vacuum(30) == []  # all of it is of today
    assert everything_in(profiles) == before
    named = store.vacuum(0, dry_run=True)
    assert everything_in(profiles) == before
    assert store.vacuum(0) == named
    assert {name for name in before if name.endswith(".parquet")} - set(named) == {
        str(path.relative_to(profiles)) for path in profiles.rglob("*.parquet")
    }
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert clean(load(profiles))
    after = everything_in(profiles)
    assert store.vacuum(0) == []  # what is gone isn't named again
    assert everything_in(profiles) == after
    for attempt in (lambda: load(profiles, 0), lambda: store.restore(0)):
        with pytest.raises(
            DataError, match="parquet: missing or damaged, and version 0 needs it; if vacuum deleted it, that version is gone"
        ):
            attempt()
    assert everything_in(profiles) == after


def test_vacuum_deletes_what_a_killed_run_left_when_it_is_a_day_old(profiles: Path) -> None:
    [some] = {each["name"] for each in Store(profiles).open().files("population")[:1]}
    left = [profiles / Path(some).with_name(name) for name in ("part-old.parquet", "part-new.parquet")]
    for path in left:
        path.write_bytes(b"half a file")
    os.utime(left[0], (time.time() - 25 * 3600,) * 2)
    for keep_days in (0, 30):
        deleted = Store(profiles).vacuum(keep_days)
        assert deleted == ([str(left[0].relative_to(profiles))] if keep_days == 0 else [])
    assert [path.exists() for path in left] == [False, True]  # the other may be what a run is about to commit
    assert clean(load(profiles))


def test_a_checkpoint_changes_nothing(profiles: Path, tmp_path: Path) -> None:
    DeltaTable(profiles).create_checkpoint()
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert updated(profiles, tmp_path / "again", MORE)["new"] == 0
    assert updated(profiles, tmp_path / "new", [event(7, "run", "ann")])["new"] == 1
    assert clean(load(profiles))
    assert [each["version"] for each in Store(profiles).history()] == [2, 1, 0]


def test_any_reader_of_delta_lake_sees_the_parts(profiles: Path) -> None:
    table = DeltaTable(profiles).to_pyarrow_table(filters=[("part", "=", "event")], columns=KEPT.names)
    assert sorted(table["event_id"].to_pylist()) == [f"e{n}" for n in range(1, 7)]
    tags = DeltaTable(profiles).to_pyarrow_table(filters=[("part", "=", "tag")], columns=KEPT_TAGS.names)
    assert set(table.select(["text_key", "tagging"]).to_pandas().itertuples(index=False, name=None)) == set(
        tags.select(["text_key", "tagging"]).to_pandas().itertuples(index=False, name=None)
    )


# What is no store


def test_another_delta_table_is_left_alone(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "theirs", pa.table({"x": [1]}))
    before = everything_in(tmp_path / "theirs")
    events, tags = write_inputs(tmp_path / "new", EVENTS)
    for attempt in (
        lambda: load(tmp_path / "theirs"),
        lambda: update(events, tags, tmp_path / "theirs"),
        lambda: Store(tmp_path / "theirs").vacuum(0),
    ):
        with pytest.raises(DataError, match="theirs: a Delta table, but not one of profiles; give a folder of its own"):
            attempt()
    with pytest.raises(DataError, match="theirs: holds part-.* which replacing the folder would delete; give a folder of its own"):
        build(events, tags, Policy(), tmp_path / "theirs")
    write_deltalake(tmp_path / "parts", pa.table({"x": [1], "part": ["y"]}), partition_by=["part"])
    with pytest.raises(DataError, match="parts: a Delta table, but not one of profiles; give a folder of its own"):
        build(events, tags, Policy(), tmp_path / "parts")
    assert everything_in(tmp_path / "theirs") == before


def test_a_commit_of_another_engine_does_not_hide_what_the_profiles_were_made_with(profiles: Path, tmp_path: Path) -> None:
    DeltaTable(profiles).alter.set_table_properties({"delta.logRetentionDuration": "interval 90 days"})
    assert Store(profiles).history()[0]["what"] == "set tblproperties"
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert updated(profiles, tmp_path / "new", [event(7, "run", "ann")])["new"] == 1


@pytest.mark.parametrize("name", ["[profiles]", "a|b", "a^b", "a%20b", "back\\slash"])
def test_a_folder_that_delta_lake_can_not_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="profiles can't lie in a folder whose path holds '.*'; name another"):
        build(*write_inputs(tmp_path / "new", EVENTS), Policy(), tmp_path / name / "profiles")
    assert not (tmp_path / name).exists()


def test_a_folder_with_a_strange_name_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "part=state, a b*{c}? 跑步 100%'#\"ü"
    assert_profiles(snapshot_of(folder, EVENTS), EVENTS, TAGS)
    updated(folder / "profiles", tmp_path / "more", MORE)
    assert_profiles(load(folder / "profiles"), EVENTS + MORE, TAGS)
    assert user_profile(load((folder / "profiles").as_uri()), "cleo")[0]["events"] == 1


# Damage


def cut(path: Path) -> None:
    """Lose the end of a file."""
    path.write_bytes(path.read_bytes()[:-50])


def overwrite(path: Path) -> None:
    """Other bytes, as many."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xab" * (len(whole) - 8) + whole[-4:])


def empty(path: Path) -> None:
    """What a crash leaves of a file whose name was written and whose bytes were not."""
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("part", "damage"),
    [("event", overwrite), ("event", Path.unlink), ("event", cut), ("tag", overwrite), ("state", overwrite), ("state", empty)],
)
def test_a_damaged_file_is_named_by_all_who_need_it(part: str, damage: Callable[[Path], None], profiles: Path, tmp_path: Path) -> None:
    path = next(Path(each["path"]) for each in Store(profiles).open().files(part) if each["bucket"] == stores.bucket_name("ann", 1))
    damage(path)
    attempts: dict[str, Callable[[], Any]] = {
        "look-up": lambda: load(profiles).of_user("ann"),
        "check": lambda: check(load(profiles)),
        "compact": lambda: Store(profiles).compact(connect(), everything=True),
    }
    if part == "event":
        attempts["update"] = lambda: updated(profiles, tmp_path / "new", [event(7, "run", "ann")])
    if part in ("event", "tag"):
        attempts["migrate"] = lambda: migrate(profiles, Policy(shrinkage=3.0))
    for name, attempt in attempts.items():
        with pytest.raises(DataError) as error:
            attempt()
        assert str(error.value).startswith(f"{path}: missing or damaged"), name
        assert "penchant profile restore" in str(error.value)
    if part == "state":  # which follows from the events
        migrate(profiles)
        assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    else:
        build(*write_inputs(tmp_path / "all", EVENTS + MORE), Policy(), profiles)
        assert clean(load(profiles))


@pytest.mark.parametrize("damage", [cut, overwrite, empty])
def test_a_damaged_log_is_named_and_nothing_is_written_upon_it(damage: Callable[[Path], None], profiles: Path, tmp_path: Path) -> None:
    damage(profiles / "_delta_log" / f"{0:020}.json")
    before = everything_in(profiles)
    events, tags = write_inputs(tmp_path / "new", [event(7, "run", "ann")])
    attempts = [lambda: load(profiles), lambda: update(events, tags, profiles), lambda: build(events, tags, Policy(), profiles)]
    for attempt in (*attempts, lambda: Store(profiles).restore(0), lambda: Store(profiles).history()):
        with pytest.raises(DataError) as error:
            attempt()
        assert str(error.value).startswith(f"{profiles}: its log")
        assert "_delta_log" in str(error.value)
        assert "\n" not in str(error.value)
    assert everything_in(profiles) == before


def test_a_log_with_a_gap_is_refused(profiles: Path) -> None:
    (profiles / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(DataError, match="profiles: its log .* is damaged"):
        load(profiles)


def said(profiles: Path, **changes: Any) -> None:
    """Change what the last commit says of the profiles; None removes a key."""
    path = max((profiles / "_delta_log").glob("*.json"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            about = json.loads(line["commitInfo"]["penchant"]) | changes
            line["commitInfo"]["penchant"] = json.dumps({key: value for key, value in about.items() if value is not None})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": None},
        {"policy": Policy(shrinkage=1.0).model_dump(mode="json")},
        {"policy_fingerprint": None},
        {"taxonomy": None},
        {"as_of": None},
        {"as_of": "yesterday"},
        {"as_of": "2026-03-01T12:00:00"},
        {"bucket_digits": "x"},
        {"bucket_digits": 7},
    ],
)
def test_profiles_that_do_not_say_what_they_were_made_with_are_built_again(changes: Row, profiles: Path, tmp_path: Path) -> None:
    said(profiles, **changes)
    with pytest.raises(DataError, match="profiles: .*; build the profiles again"):
        load(profiles)
    if "policy" in changes:
        build(*write_inputs(tmp_path / "all", EVENTS), Policy(), profiles)
        assert_profiles(load(profiles), EVENTS, TAGS)


def limited(profiles: Path, events: Path, tags: Path, size: int, report: Any) -> None:
    """Update a store where no file may grow beyond `size`: what a full disk does to one that is to be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        update(events, tags, profiles)
    except DataError as error:
        report.send(str(error))
    else:
        report.send("written")


def test_a_full_disk_leaves_the_store_as_it_was(profiles: Path, tmp_path: Path) -> None:
    events, tags = write_inputs(tmp_path / "new", [event(7, "run", "ann")])
    context = forking()
    reports, report = context.Pipe(duplex=False)
    process = context.Process(target=limited, args=(profiles, events, tags, 1_000, report))
    process.start()
    report.close()
    assert "can't be written" in reports.recv()
    process.join()
    reports.close()
    assert version(profiles) == 1
    assert_profiles(load(profiles), EVENTS + MORE, TAGS)
    assert update(events, tags, profiles)["new"] == 1


def building(profiles: Path, events: Path, tags: Path, report: Any) -> None:
    """Build a store."""
    report.send(build(events, tags, Policy(), profiles)["events"])


def test_two_builds_of_one_store_at_once_are_two_versions(tmp_path: Path) -> None:
    events, tags = write_inputs(tmp_path / "new", EVENTS)
    context = forking()
    pipes = [context.Pipe(duplex=False) for _ in range(3)]
    processes = [context.Process(target=building, args=(tmp_path / "profiles", events, tags, report)) for _, report in pipes]
    for (_, report), each in zip(pipes, processes, strict=True):
        each.start()
        report.close()
    for (reports, _), each in zip(pipes, processes, strict=True):
        assert reports.recv() == 4
        each.join()
        reports.close()
    assert [each["what"] for each in Store(tmp_path / "profiles").history()] == ["build"] * 3
    assert_profiles(load(tmp_path / "profiles"), EVENTS, TAGS)


# An object store


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """What an object store on this machine keeps."""
    with object_store() as (environment, kept):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield kept


def test_a_store_by_its_url_is_a_store(objects: Kept, tmp_path: Path) -> None:
    url = "s3://bucket/some where/profiles"
    with pytest.raises(DataError, match="s3://bucket/some where/profiles: no profiles"):
        load(url)
    assert build(*write_inputs(tmp_path / "old", EVENTS), Policy(), url)["events"] == 4
    tries = []

    def another() -> None:
        tries.append(1)
        if len(tries) == 1:
            updated(url, tmp_path / "first", MORE[:1])

    assert updated(url, tmp_path / "more", MORE, before_commit=another) == {"new": 1, "known": 1, "users": 1, "as_of": NOON.isoformat()}
    assert updated(url, tmp_path / "again", MORE)["new"] == 0
    assert_profiles(load(url), EVENTS + MORE, TAGS)
    assert [row["event_id"] for row in user_profile(load(url), "ann")[0]["evidence"]] == ["e5", "e1"]
    store = Store(url)
    assert store.compact(connect(), everything=True) > 0
    assert store.restore(0)
    gone = store.vacuum(0)
    assert gone
    assert not {f"bucket/some where/profiles/{name}" for name in gone} & set(objects)
    assert [each["what"] for each in store.history()][-3:] == ["update", "update", "build"]
    assert_profiles(load(url), EVENTS, TAGS)
    damaged = next(each["path"] for each in store.open().files("event") if each["bucket"] == stores.bucket_name("ann", 1))
    objects[damaged.removeprefix("s3://")] = b"nonsense"
    with pytest.raises(DataError, match="s3://bucket/some where/profiles/part=event/.*: missing or damaged"):
        load(url).of_user("ann")
    assert list(tmp_path.glob("*.csv")) == []


def test_an_object_store_that_can_not_be_reached_is_a_clear_error(objects: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    options = {"max_retries": "0", "retry_timeout": "1s"}
    with pytest.raises(DataError, match="s3://bucket/profiles: can't be reached: "):
        Store("s3://bucket/profiles", options).open()
