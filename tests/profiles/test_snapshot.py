"""Snapshots: the same profiles from every file format, as they were at an instant, and refusals that leave no trace."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant import taxonomy as taxonomies
from penchant.errors import ConfigError, DataError
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build, check, load, migrate, user_profile, write_table
from penchant.profiles.store import Store
from penchant.records import EVENTS, KEPT, TAGS, state_schema
from penchant.segments.choices import Choices
from penchant.taxonomy import Taxonomy
from tests import snapshots
from tests.snapshots import permits, snapshot_of, span
from tests.tables import SUFFIXES, everything_in, write_rows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(half_life_days={"recent": 1.0, "lasting": 10.0}, action_weights={"click": 1.0, "like": 2.0}, shrinkage=2.0)
RUN, CATS, FAITH = "sports.running", "pets.cats", "faith"


def event(number: int, user: str, key: str, days_ago: float = 0.0, **more: Any) -> dict[str, Any]:
    """One event with every column of the contract."""
    base: dict[str, Any] = {field.name: None for field in EVENTS}
    base |= {"event_id": f"e{number}", "user_id": user, "occurred_at": NOON - timedelta(days=days_ago), "source": "shop"}
    return base | {"action": "click", "title": f"title, {key}", "text_key": key} | more


def tag(key: str, value: str, score: float = 1.0) -> dict[str, Any]:
    """One tag of the interest dimension."""
    return {"text_key": key, "dimension": "interest", "value": value, "score": score, "start": None, "end": None}


ROWS = [
    event(1, "u", "a", 10, action="like", rating=5.0),
    event(2, "u", "b", 0.25, body="it's “good”\n\tand; cheap, 😀", amount=12.5, currency="EUR"),
    event(3, "v", "b", 3, occurred_at=datetime(2026, 2, 26, 20, 15, 1, 250_000, tzinfo=UTC)),
    event(4, "007", "c"),
]
MARKS = [tag("a", RUN, 0.75), tag("b", CATS, 0.5), tag("b", RUN, 0.1), tag("c", FAITH), tag("c", CATS, 0.3)]


def tables(
    folder: Path, suffix: str = ".parquet", rows: list[dict[str, Any]] = ROWS, marks: list[dict[str, Any]] = MARKS
) -> tuple[Path, Path]:
    """The events and tags as files of a format."""
    return write_rows(folder / f"events{suffix}", rows, EVENTS), write_rows(folder / f"tags{suffix}", marks, TAGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_taxonomy: Path) -> Path:
    """A store of the events above, with the files it was made from; each test takes a copy."""
    folder = tmp_path_factory.mktemp("base")
    build(*tables(folder), POLICY, folder / "profiles", tiny_taxonomy)
    return folder


@pytest.fixture
def profiles(base: Path, tmp_path: Path) -> Path:
    """A copy of `base`'s, beside `events.parquet` and `tags.parquet`."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    return tmp_path / "profiles"


def test_masses_and_counts_are_those_of_the_definition(profiles: Path) -> None:
    snapshot = load(profiles)
    state = {(row["user_id"], row["value"]): row for row in snapshot.state.to_pyarrow().to_pylist()}
    assert snapshot.as_of == NOON  # the last event's
    assert snapshot.state.columns == tuple(state_schema(POLICY.horizons).names)
    assert set(state) == {("u", RUN), ("u", CATS), ("v", RUN), ("v", CATS), ("007", CATS)}
    # 0.75 · like 2 · five stars 1.2 = 1.8, halved once in 10 days, ten times on the horizon of one day; and 0.1 a quarter day ago
    assert state["u", RUN]["mass_lasting"] == pytest.approx(0.9 + 0.1 * 2 ** (-0.025), rel=1e-12)
    assert state["u", RUN]["mass_recent"] == pytest.approx(1.8 / 1024 + 0.1 * 2 ** (-0.25), rel=1e-12)
    assert state["007", CATS]["mass_lasting"] == pytest.approx(0.3, rel=1e-12)
    assert (snapshot.about["users"], snapshot.about["attributes"], snapshot.users) == (3, 5, 3)
    assert snapshot.about["policy_fingerprint"] == POLICY.fingerprint


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_profiles_of_every_format_equal_those_of_parquet(suffix: str, profiles: Path, tmp_path: Path, tiny_taxonomy: Path) -> None:
    (tmp_path / "other").mkdir()
    events, _ = tables(tmp_path / "other", suffix)
    _, tags = tables(tmp_path / "other", ".jsonl" if suffix == ".csv" else suffix)
    build(events, tags, POLICY, tmp_path / "other" / "profiles", tiny_taxonomy)
    expected, found = (load(folder) for folder in (profiles, tmp_path / "other" / "profiles"))
    one, other = (each.state.order_by("user_id", "value").to_pyarrow().to_pylist() for each in (found, expected))
    assert one == [
        {name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for name, value in row.items()} for row in other
    ]
    assert found.about == expected.about


def test_a_folder_that_is_called_like_a_bucket_is_a_folder_like_any(profiles: Path, tmp_path: Path, tiny_taxonomy: Path) -> None:
    other = tmp_path / "bucket=eu" / "new" / "profiles"  # neither is there yet
    build(tmp_path / "events.parquet", tmp_path / "tags.parquet", POLICY, other, tiny_taxonomy)
    expected, found = (user_profile(load(each), "u") for each in (profiles, other))
    assert [len(row["evidence"]) for row in found] == [len(row["evidence"]) for row in expected] != [0] * len(found)


def test_choices_and_rejects_lie_beside_a_store_however_it_is_named(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_taxonomy: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(profiles)
    names = {Store(each).place for each in (profiles, f"{profiles}/", profiles / "..", tmp_path / "elsewhere" / "link")}
    assert names == {profiles, tmp_path}
    monkeypatch.chdir(profiles)
    assert Store(".").place == profiles
    build(tmp_path / "events.parquet", tmp_path / "tags.parquet", POLICY, ".", tiny_taxonomy)
    assert Choices(".").store.uri == Choices(profiles).store.uri == f"{profiles}.choices"


def test_times_with_another_offset_and_none_are_the_same_instant(tmp_path: Path, tiny_taxonomy: Path) -> None:
    moments = ["2026-03-29T01:30:00+01:00", "2026-03-29T00:30:00", "2026-03-28T20:30:00-04:00", "2026-03-29T00:30:00Z"]
    write_rows(tmp_path / "tags.csv", [tag("a", RUN)])
    masses = []
    for moment in moments:
        write_rows(tmp_path / "events.csv", [event(1, "u", "a", occurred_at=moment)])
        as_of = datetime(2026, 4, 8, 0, 30, tzinfo=UTC)
        build(tmp_path / "events.csv", tmp_path / "tags.csv", POLICY, tmp_path / "profiles", tiny_taxonomy, as_of)
        masses += load(tmp_path / "profiles").state.to_pyarrow()["mass_lasting"].to_pylist()
    assert masses == pytest.approx([0.5] * 4, rel=1e-12)  # ten days are one half-life


def test_as_of_leaves_later_events_out_and_decays_to_its_instant(tmp_path: Path, tiny_taxonomy: Path) -> None:
    about = build(*tables(tmp_path), POLICY, tmp_path / "profiles", tiny_taxonomy, NOON - timedelta(days=5))
    assert (about["users"], about["attributes"]) == (1, 1)
    [row] = load(tmp_path / "profiles").state.to_pyarrow().to_pylist()
    assert (row["user_id"], row["value"], row["events"]) == ("u", RUN, 1)
    assert row["mass_lasting"] == pytest.approx(1.8 * 2 ** (-0.5), rel=1e-12)


def kept_values(profiles: Path) -> set[str]:
    """Values of the tags that stand beside kept events."""
    return {each["value"] for row in load(profiles).kept.to_pyarrow().to_pylist() for each in row["tags"] or ()}


def test_sensitive_interests_stand_in_no_profile_unless_allowed(profiles: Path, tmp_path: Path, tiny_taxonomy: Path) -> None:
    snapshot = load(profiles)
    assert FAITH not in snapshot.state.value.to_pyarrow().to_pylist()
    assert FAITH not in snapshot.totals.value.to_pyarrow().to_pylist()
    assert FAITH not in {row["value"] for row in user_profile(snapshot, "007")}
    assert kept_values(profiles) == {RUN, CATS}
    allowing = POLICY.model_copy(update={"allowed_sensitive": permits(FAITH)})
    build(*tables(tmp_path), allowing, profiles, tiny_taxonomy)
    assert FAITH in {row["value"] for row in user_profile(load(profiles), "007")}
    assert kept_values(profiles) == {RUN, CATS, FAITH}
    migrate(profiles, POLICY)
    assert kept_values(profiles) == {RUN, CATS}
    with pytest.raises(DataError, match="faith: the new policy allows what the old one didn't.*--tags"):
        migrate(profiles, allowing)
    migrate(profiles, allowing, tmp_path / "tags.parquet", tiny_taxonomy)
    assert kept_values(profiles) == {RUN, CATS, FAITH}
    assert check(load(profiles))["unequal"] == 0


def test_a_rebuild_replaces_everything_and_the_earlier_version_can_be_read(profiles: Path, tmp_path: Path, tiny_taxonomy: Path) -> None:
    earlier = load(profiles)
    build(*tables(tmp_path, rows=ROWS[:1]), POLICY, profiles, tiny_taxonomy)
    assert load(profiles).state.to_pyarrow()["user_id"].to_pylist() == ["u"]
    for snapshot in (earlier, load(profiles, version=0)):
        assert set(snapshot.state.to_pyarrow()["user_id"].to_pylist()) == {"u", "v", "007"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet", "profiles", "tags.parquet"]


def test_an_interrupted_build_leaves_the_earlier_version_as_it_was(
    profiles: Path, tmp_path: Path, tiny_taxonomy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_in(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("penchant.profiles.store.copied", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "events.parquet", tmp_path / "tags.parquet", Policy(), profiles, tiny_taxonomy)
    assert everything_in(tmp_path) == before


def test_a_folder_with_other_things_in_it_is_not_replaced(profiles: Path, tmp_path: Path, tiny_taxonomy: Path) -> None:
    (profiles / "holiday.jpg").write_text("dear")
    before = everything_in(tmp_path)
    with pytest.raises(DataError, match="profiles: holds holiday.jpg"):
        build(tmp_path / "events.parquet", tmp_path / "tags.parquet", POLICY, profiles, tiny_taxonomy)
    assert everything_in(tmp_path) == before


def test_events_are_counted_once_each(tmp_path: Path, tiny_taxonomy: Path) -> None:
    about = build(*tables(tmp_path, rows=[*ROWS, *ROWS[:2], ROWS[0]]), POLICY, tmp_path / "profiles", tiny_taxonomy)
    assert about["events"] == len(ROWS)
    assert load(tmp_path / "profiles").kept.count().to_pyarrow().as_py() == len(ROWS)


def test_no_events_at_all_are_refused(tmp_path: Path, tiny_taxonomy: Path) -> None:
    write_rows(tmp_path / "events.parquet", [], EVENTS)
    write_rows(tmp_path / "tags.parquet", MARKS, TAGS)
    with pytest.raises(DataError, match="events.parquet: no events"):
        build(tmp_path / "events.parquet", tmp_path / "tags.parquet", POLICY, tmp_path / "profiles", tiny_taxonomy)


def test_events_without_any_tag_give_a_snapshot_of_nobody_and_a_warning(
    tmp_path: Path, tiny_taxonomy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about = build(*tables(tmp_path, marks=[tag("z", RUN)]), POLICY, tmp_path / "profiles", tiny_taxonomy)
    assert (about["users"], about["attributes"]) == (0, 0)
    assert "not one of its tags is of a text in" in caplog.text
    with pytest.raises(DataError, match="no profile for user 'u'"):
        user_profile(load(tmp_path / "profiles"), "u")


def without(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """The rows without a column."""
    return [{name: value for name, value in row.items() if name != column} for row in rows]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("which", "column", "maker"), [("events", "user_id", "penchant ingest"), ("tags", "score", "penchant tag")])
def test_a_missing_column_is_named_with_the_command_that_makes_it(
    suffix: str, which: str, column: str, maker: str, tmp_path: Path, tiny_taxonomy: Path
) -> None:
    events, tags = tables(tmp_path, suffix)
    path, rows, schema = (events, ROWS, EVENTS) if which == "events" else (tags, MARKS, TAGS)
    write_rows(path, without(rows, column), pa.schema([field for field in schema if field.name != column]))
    before = everything_in(tmp_path)
    with pytest.raises(DataError) as error:
        build(events, tags, POLICY, tmp_path / "profiles", tiny_taxonomy)
    assert str(error.value) == f"{path}: has no column {column}; make it with: {maker}"
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_wrong_type_in_row_7_is_named_with_its_place(suffix: str, tmp_path: Path, tiny_taxonomy: Path) -> None:
    rows: list[dict[str, Any]] = [event(n, "u", "a") for n in range(1, 9)]
    rows[6] |= {"rating": "five", "occurred_at": "yesterday"}
    events, tags = write_rows(tmp_path / f"events{suffix}", rows), write_rows(tmp_path / f"tags{suffix}", MARKS)
    place = f"{events}:{7 if suffix == '.jsonl' else 8}"  # a header is line 1
    with pytest.raises(DataError) as error:
        build(events, tags, POLICY, tmp_path / "profiles", tiny_taxonomy)
    message = str(error.value)
    assert message.startswith(f"{events}: 2 mistakes")
    assert f"{place}: occurred_at: 'yesterday' is no timestamp" in message
    assert f"{place}: rating: 'five' is no double" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == [events.name, tags.name]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_would_be_everybodys_weight_and_is_refused(
    score: float, suffix: str, tmp_path: Path, tiny_taxonomy: Path
) -> None:
    events, _ = tables(tmp_path)
    tags = write_rows(tmp_path / f"marks{suffix}", [MARKS[0], MARKS[1] | {"score": score}])
    with pytest.raises(DataError, match=f"score: '?{score}'? is no double"):
        build(events, tags, POLICY, tmp_path / "profiles", tiny_taxonomy)


def test_a_parquet_column_of_the_wrong_type_is_named(tmp_path: Path, tiny_taxonomy: Path) -> None:
    events, tags = tables(tmp_path)
    table = pq.read_table(tags)
    pq.write_table(table.set_column(3, "score", table["score"].cast(pa.string())), tags)
    with pytest.raises(DataError, match="tags.parquet: score is string, expected double; make it with: penchant tag"):
        build(events, tags, POLICY, tmp_path / "profiles", tiny_taxonomy)


def test_tags_that_do_not_say_their_taxonomy_need_one(tmp_path: Path) -> None:
    events, tags = tables(tmp_path)
    with pytest.raises(DataError, match=r"tags.parquet: doesn't say which taxonomy .* give --taxonomy"):
        build(events, tags, POLICY, tmp_path / "profiles")


def test_an_unknown_allowed_interest_is_refused_with_the_nearest(tmp_path: Path, tiny_taxonomy: Path) -> None:
    with pytest.raises(ConfigError, match="unknown interest 'fayth'; did you mean 'faith'"):
        build(*tables(tmp_path), Policy(allowed_sensitive=permits("fayth")), tmp_path / "profiles", tiny_taxonomy)


def test_names_that_look_like_patterns_or_folders_of_a_table_are_plain_paths(tmp_path: Path, tiny_taxonomy: Path) -> None:
    folder = tmp_path / "source=elsewhere" / "[a-z]*"
    folder.mkdir(parents=True)
    (tmp_path / "source=elsewhere" / "other").mkdir()  # which the pattern would match
    tables(tmp_path / "source=elsewhere" / "other", rows=[event(9, "stranger", "a")])
    profiles = tmp_path / "source=elsewhere" / "profiles?"
    about = build(*tables(folder), POLICY, profiles, tiny_taxonomy)
    assert about["users"] == 3
    assert {source for row in load(profiles).state.to_pyarrow().to_pylist() for source in row["sources"]} == {"shop"}


def test_profile_of_a_user_comes_by_falling_weight_with_its_evidence(profiles: Path) -> None:
    rows = user_profile(load(profiles), "u")
    assert [row["value"] for row in rows] == [RUN, CATS]
    assert [(type(row["events"]), row["events"]) for row in rows] == [(int, 2), (int, 1)]
    assert [each["event_id"] for each in rows[0]["evidence"]] == ["e1", "e2"]  # 0.9 of the like against 0.1 of the click
    assert rows[1]["evidence"][0]["snippet"] == "title, b · it's “good”\n\tand; cheap, 😀"
    assert user_profile(load(profiles), "007")[0]["user_id"] == "007"


def test_an_unknown_user_is_refused_with_some_known_ones(profiles: Path) -> None:
    snapshot = load(profiles)
    for user in ("w", "U", "7", "", "u' OR '1'='1", "ü\x00", "%"):
        with pytest.raises(DataError) as error:
            user_profile(snapshot, user)
        assert f"no profile for user {user!r}; " in str(error.value)
        assert "'007', 'u', 'v'" in str(error.value)


@pytest.mark.parametrize(
    ("what", "names"), [("state", state_schema(POLICY.horizons).names), ("events", [*KEPT.names, "tags"]), ("view", None)]
)
def test_profiles_are_written_as_a_table(what: str, names: list[str] | None, profiles: Path, tmp_path: Path) -> None:
    snapshot, path = load(profiles), tmp_path / "table.parquet"
    rows = {"state": snapshot.state, "events": snapshot.kept, "view": snapshot.profiles}[what]
    assert write_table(snapshot, what, path) == len(pq.read_table(path)) == (4 if what == "events" else 5)
    assert pq.read_schema(path).names == (names or list(snapshot.profiles.columns))
    order = [("user_id", "ascending"), ("event_id" if what == "events" else "value", "ascending")]
    assert pq.read_table(path).sort_by(order).to_pylist() == rows.to_pyarrow().sort_by(order).to_pylist()


def test_the_view_is_written_with_the_events_behind_it(profiles: Path, tmp_path: Path) -> None:
    snapshot = load(profiles)
    write_table(snapshot, "view", tmp_path / "view.parquet", with_evidence=True)
    found = {(row["user_id"], row["value"]): row["evidence"] for row in pq.read_table(tmp_path / "view.parquet").to_pylist()}
    assert found == {(user, row["value"]): row["evidence"] for user in ("u", "v", "007") for row in user_profile(snapshot, user)}
    with pytest.raises(DataError, match="profiles: a folder; name the file to write in it"):
        write_table(snapshot, "view", profiles)


def test_profiles_that_a_program_shows_one_after_the_other_are_those_of_each_alone(profiles: Path) -> None:
    snapshot = load(profiles)
    together = [user_profile(snapshot, user) for user in ("u", "007", "v", "u")]
    assert together == [user_profile(load(profiles), user) for user in ("u", "007", "v", "u")]


def edited(folder: Path, **changes: Any) -> None:
    """Change what the first commit says of itself; None removes a key."""
    log = folder / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    info = next(each["commitInfo"] for each in actions if "commitInfo" in each)
    about = json.loads(info["penchant"]) | changes
    info["penchant"] = json.dumps({key: value for key, value in about.items() if value is not None})
    log.write_text("".join(json.dumps(each) + "\n" for each in actions), encoding="utf-8")


def test_edited_or_damaged_profiles_are_refused_with_what_is_wrong(profiles: Path, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises((DataError, ConfigError)) as error:
            user_profile(load(profiles), "u")
        assert str(error.value).startswith(str(profiles))
        assert message in str(error.value)
        shutil.rmtree(profiles)
        shutil.copytree(tmp_path / "kept", profiles)

    shutil.copytree(profiles, tmp_path / "kept")
    edited(profiles, policy=POLICY.model_copy(update={"shrinkage": 1.0}).model_dump(mode="json"))
    refused("build the profiles again")
    for key in ("policy", "taxonomy", "as_of", "policy_fingerprint"):
        edited(profiles, **{key: None})
        refused("build the profiles again")
    edited(profiles, as_of="yesterday")
    refused("build the profiles again")
    (profiles / "_delta_log" / "00000000000000000000.json").write_text("{")
    refused("its log (_delta_log) is damaged")
    shutil.rmtree(profiles / "_delta_log")
    refused("no profiles (no Delta table); make them with: penchant profile build")
    for state in (profiles / "part=state").rglob("*.parquet"):
        state.unlink()
    refused("part=state")
    for state in (profiles / "part=state").rglob("*.parquet"):
        state.write_bytes(state.read_bytes()[:-20])
    refused("part=state")
    user_profile(load(profiles), "u")


def test_a_snapshot_carries_its_taxonomy_and_the_bundle_of_its_tags(tmp_path: Path, tiny_taxonomy: Path) -> None:
    nodes = taxonomies.load(tiny_taxonomy)
    metadata = {"penchant.bundle": "0123456789abcdef", "penchant.taxonomy": nodes.model_dump_json()}
    events, _ = tables(tmp_path)
    tags = write_rows(tmp_path / "tags.parquet", MARKS, TAGS.with_metadata(metadata))
    build(events, tags, POLICY, tmp_path / "profiles")
    snapshot = load(tmp_path / "profiles")
    assert snapshot.taxonomy == nodes
    assert snapshot.policy == POLICY
    assert snapshot.about["bundle_fingerprint"] == "0123456789abcdef"


def test_sources_are_named_once_each_in_their_order(tmp_path: Path, tiny_taxonomy: Path) -> None:
    rows = [event(n, "u", "a", source=source) for n, source in enumerate(["social", "forum", "shop", "forum", "reviews", "social"])]
    build(*tables(tmp_path, rows=rows), POLICY, tmp_path / "profiles", tiny_taxonomy)
    [row] = load(tmp_path / "profiles").state.to_pyarrow().to_pylist()
    assert row["sources"] == ["forum", "reviews", "shop", "social"]


BRANDED = {
    "run in Nike": [span("run in Nike", "Nike", "nike")],
    "跑步 👟 NIKE": [span("跑步 👟 NIKE", "NIKE", "nike")],
    "Zara of Paris": [span("Zara of Paris", "Zara", "zara"), span("Zara of Paris", "Paris", "paris", "place")],
    "zara": [span("zara", "zara", "zara")],
}
"""Texts with their spans; each is tagged as running too."""


def branded(folder: Path, *texts: str, taxonomy: Taxonomy = snapshots.TAXONOMY) -> Path:
    """A snapshot of one user's clicks on the texts."""
    events = [snapshots.event(n, text, "u") for n, text in enumerate(texts)]
    tags = [each for text, spans in BRANDED.items() for each in (*spans, snapshots.tag(text, RUN))]
    build(*snapshots.write_inputs(folder, events, tags, taxonomy), Policy(), folder / "profiles", as_of=snapshots.NOON)
    return folder / "profiles"


def test_values_of_spans_are_shown_in_the_form_most_events_write_them(tmp_path: Path) -> None:
    snapshot = load(branded(tmp_path, *BRANDED, "跑步 👟 NIKE"))
    counted = snapshot.head.rows(snapshot.connection, "surface").order_by("dimension", "value", "surface")
    assert counted.to_pyarrow().to_pylist() == [
        {"dimension": "brand", "value": "nike", "surface": "NIKE", "events": 2},
        {"dimension": "brand", "value": "nike", "surface": "Nike", "events": 1},
        {"dimension": "brand", "value": "zara", "surface": "Zara", "events": 1},
        {"dimension": "brand", "value": "zara", "surface": "zara", "events": 1},
        {"dimension": "place", "value": "paris", "surface": "Paris", "events": 1},
    ]
    found = {(row["dimension"], row["value"]): row["label"] for row in user_profile(snapshot, "u")}
    assert found == {
        ("brand", "nike"): "NIKE",
        ("brand", "zara"): "Zara",  # as often as zara, and before it
        ("place", "paris"): "Paris",
        ("interest", RUN): "Running",
    }
    assert snapshot.label("place", "nike") == "nike"  # nobody wrote it as a place
    assert snapshot.label("interest", "nike") == "nike"


def test_interests_are_called_by_their_names_in_a_language(tmp_path: Path) -> None:
    nodes = [node.model_copy(update={"names": {"zh": "跑步"}}) if node.id == RUN else node for node in snapshots.TAXONOMY.nodes]
    snapshot = load(branded(tmp_path, *BRANDED, taxonomy=Taxonomy(nodes=tuple(nodes))))
    assert [snapshot.label("interest", each, "zh") for each in (RUN, CATS)] == ["跑步", "Cats"]
    assert snapshot.label("interest", RUN) == "Running"
    assert snapshot.label("brand", "zara", "zh") == "Zara"
    assert {row["label"] for row in user_profile(snapshot, "u", "zh")} == {"跑步", "NIKE", "Zara", "Paris"}


def test_spans_change_no_weight_of_an_interest(tmp_path: Path) -> None:
    events = [snapshots.event(n, text, user) for n, (text, user) in enumerate([("run", "u"), ("cat", "u"), ("cat", "v"), ("run", "v")])]
    tags = [snapshots.tag("run", RUN, 0.5), snapshots.tag("cat", CATS)]
    leaks = [span("run", "run", CATS), span("cat", "ca", RUN), span("cat", "at", RUN, "place")]  # called like interests
    alone, together = (snapshot_of(tmp_path / str(len(each)), events, tags=each) for each in (tags, tags + leaks))
    for user in ("u", "v"):
        found = [row for row in user_profile(together, user) if row["dimension"] == "interest"]
        assert found == user_profile(alone, user)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize(("start", "end"), [(5, 5), (5, 3), (-1, 3), (0, None), (None, 3)])
def test_offsets_that_can_not_be_are_refused(start: int | None, end: int | None, suffix: str, tmp_path: Path, tiny_taxonomy: Path) -> None:
    marks = [*MARKS, tag("a", "nike") | {"dimension": "brand", "start": start, "end": end}]
    with pytest.raises(DataError, match=f"tags{suffix}: start {start}, end {end} of 'nike' are no offsets; expected 0 ≤ start < end"):
        build(*tables(tmp_path, suffix, marks=marks), POLICY, tmp_path / "profiles", tiny_taxonomy)
