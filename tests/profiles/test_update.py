"""Updates: exact whatever order events come in, each event once, whole or not at all, one writer after the other."""

import json
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter, defaultdict
from datetime import timedelta
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.transaction import AddAction

from penchant.errors import DataError
from penchant.profiles import snapshot as snapshots
from penchant.profiles import store as stores
from penchant.profiles.duck import connect
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import TOLERANCE, build, check, load, update, user_profile
from penchant.profiles.store import PARTS, Store
from penchant.records import SURFACES
from penchant.taxonomy import Node, Taxonomy
from tests.processes import forking
from tests.profiles import reference
from tests.snapshots import (
    NOON,
    SENSITIVE,
    TAXONOMY,
    USERS,
    WORDS,
    assert_profiles,
    clean,
    event,
    kept_ids,
    random_events,
    random_tags,
    snapshot_of,
    tag,
    updated,
    write_inputs,
)
from tests.tables import everything_in, write_rows

Row = dict[str, Any]
RUN, CATS = "sports.running", "pets.cats"
POLICIES = {
    "half-lives of their own": Policy(
        half_life_days={"recent": 1.0, "lasting": 10.0},
        dimension_half_life_days={"brand": {"lasting": 40.0}, "interest": {"recent": 3.0}},
        source_weights={"social": 0.5},
        minimum_score=0.2,
    ),
    "habits": Policy(habits=True, habit_utc_offset_hours=5.5, dimension_half_life_days={"hour": {"lasting": 30.0}}),
    "a ceiling and habits": Policy(
        daily_ceiling=2.0, habits=True, half_life_days={"soon": 2.0, "late": 20.0}, dimension_half_life_days={"brand": {"late": 60.0}}
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four events of two users; each test takes a copy."""
    folder = tmp_path_factory.mktemp("base")
    events = [event(1, "run", "ann", 3), event(2, "cat", "ann", 1), event(3, "run", "bob", 2), event(4, "stage", "bob", 0)]
    return snapshot_of(folder, events).head.store.uri and folder / "profiles"


@pytest.fixture
def profiles(base: Path, tmp_path: Path) -> Path:
    """A copy of `base`."""
    return Path(shutil.copytree(base, tmp_path / "profiles"))


def masses(profiles: Path, user: str) -> dict[str, float]:
    """One user's lasting masses by value."""
    state = load(profiles).state
    rows = state.filter(state.user_id == user).to_pyarrow().to_pylist()
    return {row["value"]: row["mass_lasting"] for row in rows}


def in_batches(draw: random.Random, events: list[Row], batches: int) -> list[list[Row]]:
    """Events dealt out at random and shuffled; each batch repeats some of its own and some of those before, by source in another order."""
    order = draw.sample(events, len(events))
    cuts = [0, *sorted(draw.sample(range(1, len(events)), batches - 1)), len(events)]
    found: list[list[Row]] = []
    for begin, end in pairwise(cuts):
        batch = order[begin:end]
        batch = batch + draw.sample(batch, len(batch) // 3) + draw.sample(order[:begin], min(begin, 5))
        draw.shuffle(batch)
        found.append(sorted(batch, key=lambda row: row["source"], reverse=len(found) % 2 == 0))
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_random_batches_come_to_what_a_build_from_all_events_comes_to(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LAYERS", 2)  # so that some are put together on the way
    draw, policy = random.Random(name), POLICIES[name]
    events, tags = random_events(draw, 120), random_tags(draw)
    first, *others = in_batches(draw, events, 3)
    profiles = tmp_path / "profiles"
    build(*write_inputs(tmp_path / "first", first, tags), policy, profiles)
    for number, batch in enumerate(others):
        counts = updated(profiles, tmp_path / str(number), batch, tags=tags)
        assert counts["new"] + counts["known"] == len({row["event_id"] for row in batch})
    found = load(profiles)
    assert found.as_of == max(row["occurred_at"] for row in events)
    assert kept_ids(profiles) == sorted(row["event_id"] for row in events)
    assert_profiles(found, events, tags)
    assert clean(found)
    build(*write_inputs(tmp_path / "all", draw.sample(events, len(events)), tags), policy, tmp_path / "whole")
    whole = load(tmp_path / "whole")
    assert found.forms == whole.forms
    for user in draw.sample(USERS, 2):  # the events behind each weight, too
        pairs = zip(user_profile(found, user), user_profile(whole, user), strict=True)
        for mine, theirs in pairs:
            assert (mine["dimension"], mine["value"], mine["label"]) == (theirs["dimension"], theirs["value"], theirs["label"])
            assert [row | {"contribution": pytest.approx(row["contribution"], rel=1e-9)} for row in mine["evidence"]] == theirs["evidence"]


def test_late_events_are_exact_under_a_daily_ceiling(tmp_path: Path) -> None:
    policy = Policy(half_life_days={"recent": 1.0, "lasting": 10.0}, daily_ceiling=1.5)
    day = [event(n, "run", "ann", occurred_at=NOON.replace(hour=n) - timedelta(days=10)) for n in (1, 2, 3)]
    other = event(9, "run", "ann", 0)
    profiles = snapshot_of(tmp_path, [*day[:2], other], policy).head.store.uri
    at = [(NOON - row["occurred_at"]) / timedelta(days=10) for row in day]
    # two clicks of 1 are scaled to 0.75 each; with the third, ten days late, all three to 0.5
    assert masses(Path(profiles), "ann")[RUN] == pytest.approx(sum(0.75 * 2**-age for age in at[:2]) + 1, rel=1e-12)
    assert updated(profiles, tmp_path / "late", [day[2]])["new"] == 1
    assert masses(Path(profiles), "ann")[RUN] == pytest.approx(sum(0.5 * 2**-age for age in at) + 1, rel=1e-12)
    [row] = user_profile(load(profiles), "ann")
    assert (row["events"], [each["contribution"] for each in row["evidence"]]) == (4, pytest.approx([1.0, 0.5, 0.5, 0.5]))
    assert clean(load(profiles))


def test_late_events_change_nothing_but_their_own_mass(profiles: Path, tmp_path: Path) -> None:
    before = masses(profiles, "ann")
    counts = updated(profiles, tmp_path / "late", [event(5, "cat", "ann", 91, occurred_at=NOON - timedelta(days=90))])
    assert counts == {"new": 1, "known": 0, "users": 1, "as_of": NOON.isoformat()}
    assert masses(profiles, "ann") == pytest.approx({RUN: before[RUN], CATS: before[CATS] + 0.5}, rel=1e-12)
    assert load(profiles).as_of == NOON


def test_later_events_move_the_instant_and_decay_what_was_there(profiles: Path, tmp_path: Path) -> None:
    before = masses(profiles, "ann")
    later = event(5, "run", "bob", occurred_at=NOON + timedelta(days=90))
    assert updated(profiles, tmp_path / "later", [later])["as_of"] == later["occurred_at"].isoformat()
    assert load(profiles).as_of == later["occurred_at"]
    assert masses(profiles, "ann") == pytest.approx({name: mass / 2 for name, mass in before.items()}, rel=1e-12)


def test_check_tells_a_store_that_was_tampered_with(profiles: Path) -> None:
    assert check(load(profiles)) == {"attributes": 4, "unequal": 0, "difference": pytest.approx(0, abs=1e-12)}
    store, connection = Store(profiles), connect()
    head = store.open()
    rows = head.rows(connection, "state").to_pyarrow().to_pylist()
    tables = [[rows[0] | {"mass_lasting": rows[0]["mass_lasting"] * (1 + 1e-7)}, *rows[1:]]]
    tables.append(
        [rows[0] | {"events": 7}, rows[1] | {"last_at": NOON - timedelta(days=80)}, rows[2] | {"sources": ["shop", "web"]}, rows[3]]
    )
    tables.append([rows[0] | {"mass_recent": float("nan")}, rows[1] | {"user_id": "eve"}, *rows[2:]])
    found = []
    for each in tables:
        state = ibis.memtable(pa.Table.from_pylist(each, stores.columns_of("state", head.policy)))
        head = store.open()
        files = store.written(connection, {"state": state}, head.policy, head.digits, stores.layer_after(head))
        store.commit_files(head, files, head.about, head.policy, "overwrite", [("part", "=", "state")])
        found.append(check(load(profiles)))
    assert [each["unequal"] for each in found] == [0, 3, 2]  # the last: one attribute too many, one too few
    assert found[0]["difference"] == pytest.approx(1e-7, rel=1e-3)
    assert found[1]["difference"] <= TOLERANCE
    assert found[2]["difference"] == float("inf")


def test_check_tells_masses_of_the_population_and_forms_that_nobody_wrote(profiles: Path) -> None:
    store, connection = Store(profiles), connect()
    head = store.open()
    form = pa.Table.from_pylist([{"dimension": "brand", "value": "nike", "surface": "Nike", "events": 1}], SURFACES)
    mass = head.rows(connection, "population").limit(1)
    store.commit(connection, head, {"surface": ibis.memtable(form), "population": mass}, head.about, head.policy)
    found = check(load(profiles))
    assert (found["unequal"], found["difference"]) == (1, pytest.approx(1.0))  # as much again


def test_replays_commit_nothing(profiles: Path, tmp_path: Path) -> None:
    new = [event(n, "run", "cleo", n / 10, source=source) for n, source in enumerate(("shop", "social", "shop"), 5)]
    assert updated(profiles, tmp_path / "new", new)["new"] == 3
    before = everything_in(profiles)
    for name, rows in {
        "same": new,
        "backwards": new[::-1],
        "part": new[1:2],
        "often": new * 3,
        "build": [event(1, "run", "ann", 3)],
    }.items():
        found = updated(profiles, tmp_path / name, rows)
        assert (found["new"], found["known"], found["users"]) == (0, len({row["event_id"] for row in rows}), 0)
    write_rows(tmp_path / "new.jsonl", new)
    assert update(tmp_path / "new.jsonl", tmp_path / "new" / "tags.parquet", profiles)["new"] == 0
    assert everything_in(profiles) == before


def test_no_events_change_nothing(profiles: Path, tmp_path: Path) -> None:
    before = everything_in(profiles)
    assert updated(profiles, tmp_path / "none", []) == {"new": 0, "known": 0, "users": 0, "as_of": NOON.isoformat()}
    assert everything_in(profiles) == before


def test_events_without_a_tag_are_kept_and_known_again(profiles: Path, tmp_path: Path) -> None:
    assert updated(profiles, tmp_path / "a", [event(5, "rain", "ann")])["new"] == 1
    assert updated(profiles, tmp_path / "b", [event(5, "rain", "ann")])["new"] == 0
    assert "e5" in kept_ids(profiles)
    assert set(masses(profiles, "ann")) == {RUN, CATS}


def test_an_id_that_comes_back_counts_anew_outside_the_window_alone(tmp_path: Path) -> None:
    first, window, second = NOON - timedelta(days=20), timedelta(days=5), timedelta(seconds=1)
    profiles = snapshot_of(
        tmp_path, [event(n, "run", "ann", occurred_at=first) for n in range(4)], Policy(deduplication_days=5.0)
    ).head.store.uri
    moments = [first + window, first - window, first + window + second, first - window - second]  # five days sharp is within
    again = [event(n, "run", "ann", occurred_at=each) for n, each in enumerate(moments)]
    counts = updated(profiles, tmp_path / "again", again)
    assert (counts["new"], counts["known"]) == (2, 2)
    assert kept_ids(Path(profiles)) == ["e0", "e1", "e2", "e2", "e3", "e3"]
    assert clean(load(profiles))


def test_a_window_longer_than_the_calendar_is_for_ever(tmp_path: Path) -> None:
    profiles = snapshot_of(tmp_path, [event(1, "run", "ann", 20)], Policy(deduplication_days=1e9)).head.store.uri
    assert updated(profiles, tmp_path / "again", [event(1, "run", "ann", 9_000)])["known"] == 1


def test_of_one_id_with_two_contents_the_kept_one_stays(profiles: Path, tmp_path: Path) -> None:
    before = masses(profiles, "ann")
    other = event(2, "stage", "ann", 40, action="purchase")
    assert updated(profiles, tmp_path / "other", [other])["known"] == 1
    assert updated(profiles, tmp_path / "stranger", [event(2, "run", "zoe", 1)])["new"] == 0
    assert masses(profiles, "ann") == before
    assert masses(profiles, "zoe") == {}


def test_another_policy_is_refused_with_what_to_do(profiles: Path, tmp_path: Path) -> None:
    before = everything_in(profiles)
    assert updated(profiles, tmp_path / "same", [event(1, "run", "ann", 3)], policy=Policy())["known"] == 1
    with pytest.raises(
        DataError, match=r"was made under another policy .* rebuild it under the new one with: penchant profile migrate --policy"
    ):
        updated(profiles, tmp_path / "new", [event(5, "run", "ann")], policy=Policy(shrinkage=1.0))
    assert everything_in(profiles) == before


def test_tags_of_another_bundle_are_refused_with_what_to_do(profiles: Path, tmp_path: Path) -> None:
    events, tags = write_inputs(tmp_path / "new", [event(5, "run", "ann")])
    table = pq.read_table(tags)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"penchant.bundle": b"another"}), tags)
    before = everything_in(profiles)
    with pytest.raises(DataError, match=r"of bundle by hand, .*tags.parquet of another; .* rebuild: penchant profile migrate --tags"):
        update(events, tags, profiles)
    write_rows(tmp_path / "tags.jsonl", [tag("run", RUN)])  # a file that can't say whose it is
    with pytest.raises(DataError, match=r"of bundle by hand, .*tags.jsonl of unknown; "):
        update(events, tmp_path / "tags.jsonl", profiles)
    assert everything_in(profiles) == before


def test_another_taxonomy_is_refused_with_what_to_do(profiles: Path, tmp_path: Path) -> None:
    grown = Taxonomy(name="grown", nodes=(*TAXONOMY.nodes, Node(id="food", name="Food")))
    before = everything_in(profiles)
    events, tags = write_inputs(tmp_path / "new", [event(5, "run", "ann")], taxonomy=grown)
    with pytest.raises(
        DataError, match=r"was made with another taxonomy than .*tags.parquet; rebuild it with: penchant profile migrate --tags"
    ):
        update(events, tags, profiles)
    events, tags = write_inputs(tmp_path / "named", [event(5, "run", "ann")])
    path = tmp_path / "grown.yaml"
    path.write_text(json.dumps(grown.model_dump(mode="json")))  # JSON is YAML
    with pytest.raises(DataError, match=r"was made with another taxonomy"):
        update(events, tags, profiles, taxonomy=path)
    assert everything_in(profiles) == before


def test_tags_that_do_not_say_their_taxonomy_are_of_the_stores(tmp_path: Path, tiny_taxonomy: Path) -> None:
    write_rows(tmp_path / "tags.jsonl", [tag("run", RUN)])
    events, _ = write_inputs(tmp_path / "old", [event(1, "run", "ann")])
    build(events, tmp_path / "tags.jsonl", Policy(), tmp_path / "profiles", tiny_taxonomy)
    events, _ = write_inputs(tmp_path / "new", [event(2, "run", "ann")])
    assert update(events, tmp_path / "tags.jsonl", tmp_path / "profiles")["new"] == 1


def test_no_profiles_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no profiles \(no Delta table\); make them with: penchant profile build"):
        updated(tmp_path / "nowhere", tmp_path / "new", [event(5, "run", "ann")])
    assert not (tmp_path / "nowhere").exists()


def files_of(profiles: Path) -> dict[tuple[str, str], int]:
    """How many files each part and bucket has."""
    head = Store(profiles).open()
    found: dict[tuple[str, str], int] = {}
    for part in PARTS:
        for each in head.files(part):
            found[part, each["bucket"]] = found.get((part, each["bucket"]), 0) + 1
    return found


def test_many_updates_are_put_together_by_themselves(profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LAYERS", 2)
    events = [event(1, "run", "ann", 3), event(2, "cat", "ann", 1), event(3, "run", "bob", 2), event(4, "stage", "bob", 0)]
    most = 0
    for number in range(5, 9):
        events.append(event(number, "run", "ann", number))
        updated(profiles, tmp_path / str(number), events[-1:])
        most = max(most, *files_of(profiles).values())
    assert most == 3  # the first and two layers
    assert [each["what"] for each in Store(profiles).history()].count("compact") > 0
    assert_profiles(load(profiles), events, [tag(text, value) for text, value in WORDS.items()])


def test_a_lost_race_in_putting_together_does_not_fail_an_update(profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LAYERS", 0)
    commit = Store.commit

    def raced(self: Store, connection: Any, head: Any, parts: Any, about: Row, *rest: Any, **more: Any) -> None:
        if about["what"] == "compact":
            commit(self, connection, self.open(), {"surface": ibis.memtable(SURFACES.empty_table())}, about, head.policy)
        commit(self, connection, head, parts, about, *rest, **more)

    monkeypatch.setattr(Store, "commit", raced)
    assert updated(profiles, tmp_path / "new", [event(5, "run", "ann")])["new"] == 1
    assert clean(load(profiles))


def test_an_update_that_another_came_before_is_made_again_and_exact(profiles: Path, tmp_path: Path) -> None:
    tries = []

    def another() -> None:
        tries.append(1)
        if len(tries) == 1:  # which brings one of ours, too
            assert updated(profiles, tmp_path / "other", [event(5, "run", "ann"), event(6, "cat", "zoe", 1)])["new"] == 2

    counts = updated(profiles, tmp_path / "mine", [event(5, "run", "ann"), event(7, "run", "zoe", 2)], before_commit=another)
    assert len(tries) == 2
    assert (counts["new"], counts["known"], counts["users"]) == (1, 1, 1)
    assert kept_ids(profiles) == [f"e{n}" for n in range(1, 8)]
    assert masses(profiles, "zoe") == pytest.approx({CATS: 2 ** (-1 / 90), RUN: 2 ** (-2 / 90)}, rel=1e-12)
    assert clean(load(profiles))


def test_a_writer_whom_others_are_always_before_says_so(profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "TRIES", 2)
    store, connection = Store(profiles), connect()

    def another() -> None:
        head = store.open()
        store.commit(connection, head, {"surface": ibis.memtable(SURFACES.empty_table())}, head.about, head.policy)

    with pytest.raises(DataError, match="other writers were first 2 times; nothing was written, run the same command again"):
        updated(profiles, tmp_path / "mine", [event(5, "run", "ann")], before_commit=another)
    assert kept_ids(profiles) == ["e1", "e2", "e3", "e4"]
    assert clean(load(profiles))


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that begin with everything imported."""
    return forking()


MOMENTS = ("reading", "computing", "writing", "committed", "putting together")


def updating(profiles: Path, batches: list[tuple[Path, Path]], moment: str | None, report: Connection) -> None:
    """Update a store batch by batch and report each that is done; at a moment of `MOMENTS` it kills itself."""
    stores.LAYERS = 2
    hook: Any = None
    if moment == "reading":
        snapshots.usable = die
    elif moment == "computing":
        hook = die
    elif moment == "writing":
        stores.copied = dying_copy
    elif moment == "committed":
        Store.compact = die  # type: ignore[method-assign]
    elif moment == "putting together":
        put_together = Store.compact

        def dying(self: Store, connection: Any) -> int:
            stores.copied = dying_copy
            done = put_together(self, connection)
            stores.copied = whole_copy
            return done

        Store.compact = dying  # type: ignore[method-assign]
    report.send(-1)
    for number, batch in enumerate(batches):
        update(*batch, profiles, before_commit=hook)
        report.send(number)


def die(*_: object, **__: object) -> Any:
    """No cleanup, no goodbye."""
    os.kill(os.getpid(), signal.SIGKILL)


whole_copy = stores.copied


def dying_copy(connection: Any, rows: ir.Table, target: Path, options: str, *place: Any) -> list[AddAction]:
    """Write the new events, and then half of a file; of files that are put together half of the first."""
    files = whole_copy(connection, rows, target, options, *place)
    if not files or (files[0].partition_values["part"] == "event" and not place):
        return files
    path = target if place else target / files[0].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return die()  # type: ignore[no-any-return]


class Lane:
    """A store that is updated batch by batch, in a process that may be killed."""

    def __init__(self, processes: Any, prepared: "Prepared", profiles: Path) -> None:
        self.processes, self.prepared, self.profiles = processes, prepared, profiles
        self.begin_anew()

    def begin_anew(self) -> None:
        """The first version, to which nothing was added yet."""
        shutil.rmtree(self.profiles, ignore_errors=True)
        shutil.copytree(self.prepared.profiles, self.profiles)
        self.done, self.seen = 0, -1

    def start(self, moment: str | None = None, delay: float = 60) -> None:
        """Go on from the first batch that wasn't reported as done; after `delay` seconds the process is killed."""
        self.reports, report = self.processes.Pipe(duplex=False)
        remaining = self.prepared.batches[self.done :]
        self.process = self.processes.Process(target=updating, args=(self.profiles, remaining, moment, report))
        self.process.start()
        report.close()
        assert self.reports.recv() == -1
        self.timer = threading.Timer(delay, self.process.kill)
        self.timer.start()

    def wait(self) -> bool:
        """Wait for the end of the process; whether it was killed."""
        done = 0
        try:
            while True:
                done = self.reports.recv() + 1
        except EOFError:
            self.process.join()
        self.timer.cancel()
        self.timer.join()
        self.reports.close()
        self.done += done
        assert self.process.exitcode in (0, -signal.SIGKILL)
        return bool(self.process.exitcode != 0)

    def examine(self) -> None:
        """What stands in the files of the current version belongs together; read without the code under test, which would take longer."""
        head = Store(self.profiles).open()
        if head.table.version() == self.seen:  # a version never changes
            return
        self.seen = head.table.version()
        rows = {
            part: [
                row
                for file in head.files(part)
                for row in pq.ParquetFile(file["path"]).read(stores.columns_of(part, head.policy).names).to_pylist()
            ]
            for part in PARTS
        }
        ids = {row["event_id"] for row in rows["event"]}
        assert len(ids) == len(rows["event"])
        kept = [row for row in self.prepared.events if row["event_id"] in ids]
        assert head.as_of == max(row["occurred_at"] for row in kept)
        expected = reference.state(reference.terms(kept, self.prepared.tags, head.policy, set(SENSITIVE)), head.policy, head.as_of)
        totals = reference.population(expected, head.policy)
        for part, wanted, key in (("state", expected, ("user_id", "dimension", "value")), ("population", totals, ("dimension", "value"))):
            found: dict[Any, float] = {}
            for row in rows[part]:
                name = tuple(row[each] for each in key)
                decay = 2 ** (-((head.as_of - row["as_of"]) / timedelta(days=1)) / head.policy.half_life_days["lasting"])
                found[name] = found.get(name, 0.0) + row["mass_lasting"] * decay
            assert set(found) == set(wanted)
            assert all(abs(found[name] - row["mass_lasting"]) <= TOLERANCE * row["size_lasting"] for name, row in wanted.items())
        tags = {tuple(row[name] for name in ("text_key", "tagging", "dimension", "value")): row["surfaces"] for row in rows["tag"]}
        of_text: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for (text_key, tagging, *_), surfaces in tags.items():
            of_text[text_key, tagging] += surfaces or ()
        forms = Counter(form for row in rows["event"] for form in of_text[row["text_key"], row["tagging"]])
        counted: Counter[str] = Counter()
        for row in rows["surface"]:
            counted[row["surface"]] += row["events"]
        assert counted == forms


class Prepared(NamedTuple):
    """A store, batches for it that overlap, all their events, and the tags."""

    profiles: Path
    batches: list[tuple[Path, Path]]
    events: list[Row]
    tags: list[Row]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Sixty events, those of the store and those of four batches."""
    folder, draw = tmp_path_factory.mktemp("batches"), random.Random(5)
    events, tags = random_events(draw, 60), random_tags(draw)
    first, *others = in_batches(draw, events, 5)
    build(*write_inputs(folder / "first", first, tags), Policy(), folder / "profiles")
    return Prepared(folder / "profiles", [write_inputs(folder / str(n), each, tags) for n, each in enumerate(others)], events, tags)


def building(profiles: Path, events: Path, tags: Path) -> None:
    """Build a store, and die half-way."""
    stores.copied = dying_copy
    build(events, tags, Policy(), profiles)


def test_a_first_build_that_was_killed_is_made_by_the_same_command(processes: Any, tmp_path: Path) -> None:
    profiles, inputs = tmp_path / "profiles", write_inputs(tmp_path / "new", [event(1, "run", "ann")])
    process = processes.Process(target=building, args=(profiles, *inputs))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(DataError, match="profiles: no profiles"):
        load(profiles)
    assert build(*inputs, Policy(), profiles)["events"] == 1
    assert clean(load(profiles))


KILLS = 50


def test_a_writer_killed_at_any_moment_leaves_a_whole_store_and_can_go_on(processes: Any, prepared: Prepared, tmp_path: Path) -> None:
    unbroken = Lane(processes, prepared, tmp_path / "unbroken")
    begun = time.monotonic()
    unbroken.start()
    while unbroken.process.is_alive():  # a reader beside a writer sees whole versions, too
        unbroken.examine()
    assert not unbroken.wait()
    one_update = (time.monotonic() - begun) / len(prepared.batches)
    assert clean(load(unbroken.profiles))
    assert_profiles(load(unbroken.profiles), prepared.events, prepared.tags)

    draw = random.Random()
    lanes = [Lane(processes, prepared, tmp_path / name) for name in ("one", "other")]
    moments = [*MOMENTS]
    kills = 0
    while kills < KILLS:
        for lane in lanes:
            if moments:
                lane.start(moment=moments.pop())
            else:
                lane.start(delay=draw.random() * one_update * 1.2)
        for lane in lanes:
            kills += lane.wait()
            lane.examine()
            if lane.done == len(prepared.batches):
                assert clean(load(lane.profiles))
                lane.begin_anew()
    for lane in lanes:
        lane.start()  # the same commands again
    for lane in lanes:
        assert not lane.wait()
        assert kept_ids(lane.profiles) == kept_ids(unbroken.profiles)
        assert_profiles(load(lane.profiles), prepared.events, prepared.tags)


def adding(profiles: Path, batches: list[tuple[Path, Path]]) -> None:
    """Update a store batch by batch."""
    for batch in batches:
        update(*batch, profiles)


def test_two_writers_at_once_lose_nothing_and_count_nothing_twice(processes: Any, prepared: Prepared, tmp_path: Path) -> None:
    profiles = Path(shutil.copytree(prepared.profiles, tmp_path / "profiles"))
    halves = (prepared.batches[:2], prepared.batches[:0:-1])  # the second is both writers'
    writers = [processes.Process(target=adding, args=(profiles, each)) for each in halves]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
        assert each.exitcode == 0
    assert kept_ids(profiles) == sorted(row["event_id"] for row in prepared.events)
    assert_profiles(load(profiles), prepared.events, prepared.tags)
    assert clean(load(profiles))
