"""One arithmetic, whatever runs it and however events are dealt out: batch = batches = shards = Spark = the reference."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest

from penchant.profiles.fold import (
    KEY,
    best_tags,
    contributions,
    dated,
    evidence,
    fold,
    frequent_surfaces,
    joined,
    merge,
    microseconds,
    once_each,
    population,
    surfaces,
    tagged,
)
from penchant.profiles.habits import habits
from penchant.profiles.policy import Policy
from penchant.profiles.store import bucket_of
from penchant.profiles.view import view
from penchant.records import EVENTS, KEPT, KEPT_TAGS, TAGS, state_schema
from tests.profiles import reference
from tests.profiles.engines import Duck, Spark
from tests.snapshots import NOON, SENSITIVE, TAXONOMY, event, span, tag

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"  # nothing here runs long enough to be worth optimising
SETTINGS = {
    "spark.driver.extraJavaOptions": JAVA,
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "512m",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "OFF",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",  # compiling would take longer than these few rows
}
POLICY = Policy(
    source_weights={"social": 0.7},
    dimension_half_life_days={"brand": {"lasting": 180.0}, "hour": {"recent": 3.0, "lasting": 33.3}},
    minimum_score=0.1,
    habits=True,
    habit_utc_offset_hours=5.5,
)
CEILING = POLICY.model_copy(update={"daily_ceiling": 4.0})
Row = dict[str, Any]
Engine = Duck | Spark
duck = Duck()


@pytest.fixture(scope="module")
def spark() -> Iterator[Spark]:
    """Spark in this process, on two threads; one that runs already is used as it is."""
    pyspark = pytest.importorskip("pyspark", reason="pyspark is missing: pip install 'penchant[spark]'")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Java is missing")
    from pyspark.sql import SparkSession

    running = SparkSession.getActiveSession()
    if running is not None:
        yield Spark(running)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.master("local[2]").appName("tests")
        for name, value in SETTINGS.items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        yield Spark(session)
        session.stop()
    gateway, pyspark.SparkContext._gateway, pyspark.SparkContext._jvm = pyspark.SparkContext._gateway, None, None
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(30)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine of a name."""
    found: Engine = duck if request.param == "duck" else request.getfixturevalue("spark")
    return found


def on(name: str, *more: Any) -> Any:
    """A test's parameters, on one engine; those on Spark run in one process, where pytest runs with --dist loadgroup."""
    return pytest.param(name, *more, marks=[pytest.mark.xdist_group("spark")] if name == "spark" else [])


both = pytest.mark.parametrize("engine", [on("duck"), on("spark")], indirect=True)


def arrow(rows: list[Row], schema: pa.Schema = EVENTS) -> pa.Table:
    """Rows as Arrow."""
    return pa.Table.from_pylist(rows, schema)


def case(seed: int) -> tuple[list[Row], list[Row]]:
    """Events as they are delivered, some of them twice, some after `NOON`, and the tags of their texts."""
    random = Random(seed)
    texts = [f"{form} 跑步 {n}" for n, form in enumerate(("Nike", "NIKE", "👟 nike", "none", "Nike, NIKE", "none"))]
    tags = []
    for text in texts[:-1]:
        tags += [tag(text, value, random.random()) for value in random.sample(("sports", "pets.cats", "society.faith"), 2)]
        tags += [span(text, form, "nike", score=random.random()) for form in ("Nike", "NIKE", "nike") if form in text]
    users = ["u", "v", "👩‍👩‍👧‍👦", "ü", "007"]
    events = [
        event(
            number,
            random.choice(texts),
            random.choice(users),
            source=random.choice(("shop", "social", "web")),
            action=random.choice(("view", "click", "purchase", "refund", "unsave", "unheard")),
            rating=random.choice((None, 1.0, 2.5, random.uniform(1, 5))),
            amount=random.choice((None, round(random.uniform(0, 100), 2))),
            currency=random.choice((None, "EUR", "JPY")),
            occurred_at=NOON - timedelta(microseconds=random.randrange(-86_400_000_000, random.choice((4, 400)) * 86_400_000_000)),
        )
        for number in range(80)
    ]
    delivered = events + random.sample(events, 20)
    random.shuffle(delivered)
    return delivered, tags


def rows_of(events: ir.Table, tags: ir.Table, policy: Policy) -> ir.Table:
    """Contributions of events."""
    once = once_each(events)
    return contributions(joined(once, best_tags(tags, once), policy), once, policy, TAXONOMY)


def kept_of(events: ir.Table, tags: ir.Table) -> ir.Table:
    """Events with their tags."""
    once = once_each(events)
    return tagged(once, best_tags(tags, once))


def kept_with_tags(events: list[Row], tags: list[Row]) -> tuple[pa.Table, pa.Table]:
    """Events and the tags of their texts as profiles keep them."""
    version = ibis.literal(3, "int64")
    tables = {"events": arrow(events), "tags": arrow(tags, TAGS)}
    kept = duck(lambda events, tags: once_each(events).mutate(tagging=version), **tables)
    best = duck(lambda events, tags: best_tags(tags, once_each(events)).mutate(tagging=version).select(*KEPT_TAGS.names), **tables)
    return kept.cast(KEPT), best.cast(KEPT_TAGS)


def assert_close(found: pa.Table, expected: dict[Any, Row], policy: Policy, key: tuple[str, ...] = KEY) -> None:
    """Equal but for rounding: masses of opposite signs can cancel, so closeness is relative to what was summed."""
    rows = {tuple(row[name] for name in key): row for row in found.to_pylist()}
    assert len(rows) == len(found)
    assert set(rows) == set(expected)
    for place, row in rows.items():
        for name in policy.horizons:
            size = expected[place][f"size_{name}"]
            assert row[f"mass_{name}"] == pytest.approx(expected[place][f"mass_{name}"], rel=0, abs=1e-9 * size + 1e-300), (place, name)
        same = {name: each for name, each in expected[place].items() if not name.startswith(("mass", "size"))}
        assert {name: row[name] for name in same} == same, place


def in_pieces(rows: list[Row], random: Random, count: int = 4) -> list[list[Row]]:
    """Cut at random places; a piece may be empty."""
    cuts = [0, *sorted(random.randrange(len(rows)) for _ in range(count - 1)), len(rows)]
    return [rows[start:end] for start, end in pairwise(cuts)]


def by(rows: list[Row], place: Callable[[Row], Any]) -> list[list[Row]]:
    """Rows of one place together."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(place(row), []).append(row)
    return list(found.values())


INSTANTS = [NOON - timedelta(days=days, microseconds=days) for days in (0, 0.04, 1, 3, 20, 90, 300)]
"""When parts are folded: not at any instant, so that DuckDB's statements can be used again."""


def instant_after(moment: datetime, random: Random) -> datetime:
    """One of `INSTANTS`, `moment` or later."""
    return random.choice([each for each in INSTANTS if each >= moment])


Deal = Callable[[list[Row], Random], list[list[Row]]]
WAYS: dict[str, Deal] = {
    "at once": lambda rows, _: [rows],
    "in time": lambda rows, random: in_pieces(sorted(rows, key=lambda row: row["occurred_at"]), random),
    "in any order": lambda rows, random: in_pieces(random.sample(rows, len(rows)), random),
    "by user": lambda rows, random: by(rows, lambda row: hash_of(row["user_id"]) % 3),
    "in two": lambda rows, random: in_pieces(random.sample(rows, len(rows)), random, 2),
    "at random": lambda rows, random: by(rows, lambda _: random.randrange(4)),
    "by halves of the days": lambda rows, random: by(rows, lambda row: row["occurred_at"].toordinal() % 2),
}


def hash_of(user: str) -> int:
    """A number that is the same in every process."""
    return int(hashlib.md5(user.encode()).hexdigest(), 16)


@pytest.mark.parametrize(
    ("engine", "way", "policy", "seed"),
    [
        *(on("duck", way, POLICY, seed) for way in WAYS for seed in (1, 2)),
        *(on("duck", way, CEILING, 3) for way in ("at once", "by user", "by halves of the days")),
        on("spark", "at once", CEILING, 1),
        on("spark", "in two", POLICY, 2),
    ],
    indirect=["engine"],
)
def test_however_events_are_dealt_out_the_state_is_that_of_the_reference(engine: Engine, way: str, policy: Policy, seed: int) -> None:
    (delivered, tags), random = case(seed), Random(seed)
    expected = reference.state(reference.terms(delivered, tags, policy, set(SENSITIVE)), policy, NOON)

    def folded(events: list[Row], as_of: datetime, engine: Engine) -> pa.Table:
        """State of a part; some of its events are delivered twice."""
        again = events + random.sample(events, len(events) // 4)
        once = engine(once_each, "once", events=arrow(again))
        best = engine(best_tags, "best", tags=arrow(tags, TAGS), events=once)

        def make(once: ir.Table, best: ir.Table) -> ir.Table:
            return fold(contributions(joined(once, best, policy), once, policy, TAXONOMY), policy, as_of)

        return engine(make, ("fold", policy.fingerprint, as_of), once=once, best=best)

    def together(parts: list[tuple[pa.Table, datetime]], as_of: datetime) -> pa.Table:
        """Parts merged."""
        states = pa.concat_tables([state for state, _ in parts], promote_options="default")
        return engine(lambda state: merge(state, policy, as_of), ("merge", policy.fingerprint, as_of), state=states)

    if way == "at once":
        found = folded(delivered, NOON, engine)
    else:
        parts = []
        for events in WAYS[way](reference.once(delivered), random):
            last = max((each["occurred_at"] for each in events if each["occurred_at"] <= NOON), default=NOON)
            as_of = instant_after(last, random)
            parts.append((folded(events, as_of, duck if parts else engine), as_of))  # whoever made the others
        while len(parts) > 2:
            pair = [parts.pop(random.randrange(len(parts))) for _ in range(2)]
            as_of = instant_after(max(as_of for _, as_of in pair), random)
            parts.append((together(pair, as_of), as_of))
        found = together(parts, NOON)
    assert found.schema.names == state_schema(policy.horizons).names
    assert set(found["as_of"].to_pylist()) == {NOON}
    assert_close(found, expected, policy)


@both
def test_kept_events_come_to_the_same_state(engine: Engine) -> None:
    delivered, tags = case(4)
    events, best = kept_with_tags(delivered, tags)
    found = engine(
        lambda events, best: fold(
            contributions(joined(events, best, CEILING), events, CEILING, TAXONOMY), CEILING, NOON, ("shop", "social", "web")
        ),
        events=events,
        best=best,
    )
    assert_close(found, reference.state(reference.terms(delivered, tags, CEILING, set(SENSITIVE)), CEILING, NOON), CEILING)


@both
def test_events_are_kept_with_the_same_tags(engine: Engine) -> None:
    delivered, tags = case(5)
    found = engine(kept_of, events=arrow(delivered), tags=arrow(tags, TAGS)).to_pylist()
    best: dict[tuple[str, str, str], float] = {}
    for each in tags:
        place = (each["text_key"], each["dimension"], each["value"])
        best[place] = max(best.get(place, 0), each["score"])
    forms = {"Nike", "NIKE", "nike"}
    for row, expected in zip(
        sorted(found, key=lambda row: row["event_id"]), sorted(reference.once(delivered), key=lambda row: row["event_id"]), strict=True
    ):
        own = {(row["text_key"], each["dimension"], each["value"]): each["score"] for each in row["tags"] or []}
        assert own == {place: score for place, score in best.items() if place[0] == row["text_key"]}
        for each in row["tags"] or []:
            assert set(each["surfaces"] or []) == ({form for form in forms if form in row["title"]} if each["value"] == "nike" else set())
        assert {name: each for name, each in row.items() if name != "tags"} == expected


@both
def test_the_population_and_the_view_are_those_of_the_reference(engine: Engine) -> None:
    delivered, tags = case(6)
    later = NOON + timedelta(days=3, microseconds=1)
    terms = reference.terms(delivered, tags, POLICY, set(SENSITIVE))
    early = {n: [each for each in terms if int(each.event["event_id"][1:]) % 2 == n] for n in (0, 1)}
    parts = [
        duck(lambda e, t: fold(rows_of(e, t, POLICY), POLICY, NOON), events=arrow(part), tags=arrow(tags, TAGS))
        for part in ([each for each in delivered if int(each["event_id"][1:]) % 2 == n] for n in early)
    ]
    states = reference.state([each for each in terms if each.event["occurred_at"] <= NOON], POLICY, later)
    totals = reference.population(states, POLICY)
    everything = pa.concat_tables(parts)  # several rows per key
    assert_close(engine(lambda state: population(state, POLICY, later), state=everything), totals, POLICY, ("dimension", "value"))
    found = engine(lambda state: view(merge(state, POLICY, later), population(state, POLICY, later), POLICY), state=everything)
    expected = reference.view(states, totals, POLICY)
    rows = {tuple(row[name] for name in KEY): row for row in found.to_pylist()}
    assert set(rows) == set(expected)
    assert any(row["index"] is None for row in expected.values())
    assert any(row["trend"] is not None and row["trend"] < 0 for row in expected.values())
    for key, row in expected.items():
        for name, value in row.items():
            assert rows[key][name] == (None if value is None else pytest.approx(value, rel=1e-7, abs=1e-9)), (key, name)


@both
def test_of_conflicting_events_each_engine_takes_the_same(engine: Engine) -> None:
    random = Random(7)
    choices: dict[str, tuple[Any, ...]] = {
        "occurred_at": (NOON, NOON + timedelta(microseconds=1), NOON - timedelta(days=9000)),
        "user_id": ("u", "ü", "U", "🐈", "\uffee"),  # an emoji comes after it by code point, before it by UTF-16
        "text_key": ("a", "b"),
        "source": ("shop", "Shop"),
        "action": ("view", "click"),
        "title": (None, "", "title", "👟"),
        "body": (None, "", "body"),
        "rating": (None, 1.0, 4.5),
        "amount": (None, 0.0, 9.99),
        "currency": (None, "EUR"),
        "item_id": (None, "1"),
        "language": (None, "en", "zh"),
    }
    events = []
    for number in range(150):
        base = event(number, "run", "u") | {name: random.choice(values) for name, values in choices.items()}
        several = [base]
        for _ in range(random.randrange(4)):
            changed = random.sample(list(choices), random.choice((0, 1, 1, 2)))
            several.append(base | {name: random.choice(choices[name]) for name in changed})
        events += several
    random.shuffle(events)
    found = engine(once_each, events=arrow(events)).to_pylist()
    assert sorted(found, key=lambda row: row["event_id"]) == sorted(reference.once(events), key=lambda row: row["event_id"])


@both
def test_evidence_comes_in_the_same_order(engine: Engine) -> None:
    delivered, tags = case(8)
    delivered += [event(n, "Nike 跑步 0", "tied", action="like", title="👟" * 200) for n in (200, 100, 101, 1000)]
    policy = CEILING.model_copy(update={"evidence_kept": 3})
    rows = duck(lambda e, t: rows_of(e, t, policy), events=arrow(delivered), tags=arrow(tags, TAGS))
    found = engine(lambda rows: evidence(rows, policy), rows=rows)
    own = {tuple(row[name] for name in KEY): row["evidence"] for row in found.to_pylist()}
    expected: dict[reference.Key, list[tuple[float, str]]] = {}
    for each in reference.terms(delivered, tags, policy, set(SENSITIVE)):
        age = (NOON - each.event["occurred_at"]) / timedelta(days=1)
        strength = abs(each.worth) * 2 ** (-age / reference.half_life(policy, "lasting", each.key[1]))
        expected.setdefault(each.key, []).append((-strength, each.event["event_id"]))
    assert set(own) == set(expected)
    for key, events in own.items():
        in_order = [event_id for strength, event_id in sorted(expected[key])[:3] if strength]
        assert [each["event_id"] for each in events if each["contribution"]] == in_order
        assert len(events) == min(3, len(expected[key]))
    assert [each["event_id"] for each in own["tied", "hour", "17"]] == ["e100", "e1000", "e101"]
    assert own["tied", "hour", "17"][0]["snippet"] == "👟" * 160


@both
def test_surfaces_are_counted_alike(engine: Engine) -> None:
    texts = ["👟 Nike", "NIKE", "NIKE 2", "two\nlines"]
    events = [event(n, text, "u") for n, text in enumerate([*texts, texts[1], "untagged"])]
    events.append(event(8, "NIKE", "u") | {"occurred_at": NOON + timedelta(seconds=1)})
    tags = [span(text, text[start : start + 4], "nike") for text, start in zip(texts[:3], (2, 0, 0), strict=True)]
    tags += [span(texts[3], "two\nlines", "two lines", "place"), tag(texts[0], "sports")]
    kept, best = kept_with_tags(events, tags)

    def count(events: ir.Table, best: ir.Table) -> ir.Table:
        return surfaces(joined(events, best, POLICY), POLICY, TAXONOMY, NOON)

    counted = engine(count, events=kept, best=best).to_pylist()
    assert sorted(tuple(row.values()) for row in counted) == [
        ("brand", "nike", "NIKE", 3),
        ("brand", "nike", "Nike", 1),
        ("place", "two lines", "two lines", 1),
    ]
    assert sorted(
        tuple(row.values())
        for row in engine(lambda events, best: frequent_surfaces(count(events, best)), events=kept, best=best).to_pylist()
    ) == [
        ("brand", "nike", "NIKE"),
        ("place", "two lines", "two lines"),
    ]


@both
def test_clocks_agree(engine: Engine) -> None:
    expected = {
        datetime(2026, 3, 1, 18, 30, tzinfo=UTC): ("00", "mon"),
        datetime(2026, 3, 1, 18, 29, 59, 999_999, tzinfo=UTC): ("23", "sun"),
        datetime(1970, 1, 1, tzinfo=UTC): ("05", "thu"),
        datetime(1969, 12, 31, 18, 29, 59, 999_999, tzinfo=UTC): ("23", "wed"),
        datetime(1969, 12, 28, 18, 30, tzinfo=UTC): ("00", "mon"),
        datetime(1900, 1, 1, tzinfo=UTC): ("05", "mon"),
    }
    times = {f"e{n}": moment for n, moment in enumerate(expected)}
    events = arrow([event(0, "run", "u") | {"event_id": name, "occurred_at": moment} for name, moment in times.items()])
    counts = engine(lambda events: events.select("event_id", count=microseconds(events.occurred_at)), events=events).to_pylist()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert {row["event_id"]: row["count"] for row in counts} == {
        name: (moment - epoch) // timedelta(microseconds=1) for name, moment in times.items()
    }
    rows = engine(lambda events: habits(dated(events), POLICY).select("event_id", "dimension", "value"), events=events).to_pylist()
    found = {(row["event_id"], row["dimension"]): row["value"] for row in rows}
    assert {moment: (found[name, "hour"], found[name, "weekday"]) for name, moment in times.items()} == expected


@both
def test_a_user_has_the_same_bucket_everywhere(engine: Engine) -> None:
    users = ["u", "U", "ü", "u\u0308", "👩‍👩‍👧‍👦", "跑步", "007", "' OR 1=1 --", " "]
    for digits in (1, 2):
        found = engine(
            lambda users, digits=digits: users.select("user_id", bucket=bucket_of(users.user_id, digits)),
            users=pa.table({"user_id": users}),
        )
        expected = {user: hashlib.md5(user.encode()).hexdigest()[:digits] for user in users}
        assert {row["user_id"]: row["bucket"] for row in found.to_pylist()} == expected
