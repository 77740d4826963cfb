"""Profiles against a tiny planted truth: every figure worked out by hand."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from penchant.errors import DataError
from penchant.profiles.evaluate import evaluate, load_truth
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import build
from penchant.records import EVENTS, TAGS
from tests.tables import SUFFIXES, write_rows

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY = Policy(half_life_days={"recent": 1.0, "lasting": 10.0}, action_weights={}, shrinkage=2.0)
RUN, CATS, BAKING, FOOD, PETS = "sports.running", "pets.cats", "food.baking", "food", "pets"
KEYS = {"r": RUN, "c": CATS, "b": BAKING, "f": FOOD, "p": PETS}


def events(user: str, *seen: tuple[str, float]) -> list[dict[str, Any]]:
    """Events of a user as (text key, days after NOON), each worth 1."""
    base: dict[str, Any] = {field.name: None for field in EVENTS} | {"source": "shop", "action": "click", "title": "title"}
    return [
        base | {"event_id": f"{user}{n}", "user_id": user, "text_key": key, "occurred_at": NOON + timedelta(days=days)}
        for n, (key, days) in enumerate(seen)
    ]


@pytest.fixture
def measure(tmp_path: Path, tiny_taxonomy: Path) -> Any:
    """A function that gives the figures of events and a truth."""

    def run(rows: list[dict[str, Any]], truth: list[dict[str, Any]], policy: Policy = POLICY) -> dict[str, Any]:
        marks = [{"text_key": key, "dimension": "interest", "value": value, "score": 1.0} for key, value in KEYS.items()]
        seen = write_rows(tmp_path / "events.parquet", rows, EVENTS)
        tags = write_rows(tmp_path / "tags.parquet", marks, TAGS)
        build(seen, tags, policy, tmp_path / "profiles", tiny_taxonomy)
        known = write_rows(tmp_path / "truth.jsonl", truth)
        return evaluate(tmp_path / "profiles", known)

    return run


def planted(user: str, *interests: str, **change: Any) -> dict[str, Any]:
    """One line of a truth."""
    return {"user_id": user, "interests": list(interests), "changed_at": None, "dropped": None, "gained": None} | change


def test_precision_and_recall_of_the_three_strongest_interests(measure: Any) -> None:
    rows = (
        events("u", ("r", 0), ("r", 0), ("r", 0), ("c", 0), ("c", 0), ("b", 0), ("b", 0), ("f", 0))  # top 3: running, cats, baking
        + events("v", ("c", 0))  # top 3: cats alone
        + events("stranger", ("r", 0))  # nobody knows the truth of this one
    )
    truth = [planted("u", RUN, BAKING, FOOD), planted("v", CATS), planted("nobody", RUN, PETS)]
    found = measure(rows, truth)
    assert found["users"] == 3
    assert found["precision_at_3"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found["recall_at_3"] == pytest.approx((2 / 3 + 1 / 1 + 0 / 2) / 3)
    assert found["after_a_change"] == {"changed_users": 0}


def test_other_dimensions_are_no_interests(measure: Any, tmp_path: Path, tiny_taxonomy: Path) -> None:
    measure(events("u", ("r", 0)), [planted("u", RUN)])
    marks = [{"text_key": "r", "dimension": "brand", "value": RUN, "score": 1.0}]
    tags = write_rows(tmp_path / "tags.parquet", marks, TAGS)
    build(tmp_path / "events.parquet", tags, POLICY, tmp_path / "profiles", tiny_taxonomy)
    found = evaluate(tmp_path / "profiles", tmp_path / "truth.jsonl")
    assert (found["precision_at_3"], found["recall_at_3"]) == (0.0, 0.0)


def test_spans_change_no_figure(measure: Any, tmp_path: Path, tiny_taxonomy: Path) -> None:
    # The last interest shows on the day of the change, so the change is never followed; a brand five days later is no reason to look on.
    rows = events("u", ("r", 0), ("c", 0.5), ("c", 0.5), ("x", 5)) + events("v", ("x", -3), ("b", 0))
    truth = [changed("u"), planted("v", BAKING)]
    expected = measure(rows, truth)
    assert expected["after_a_change"]["recent"] == {"median_days": None, "share_followed": 0.0}
    spans = [
        {"text_key": key, "dimension": "brand", "value": value, "start": 0, "end": 5}
        for key, value in [("x", CATS), ("r", CATS), ("b", RUN)]
    ]
    marks = [{"text_key": key, "dimension": "interest", "value": value} for key, value in KEYS.items()]
    tags = write_rows(tmp_path / "tags.parquet", [each | {"score": 1.0} for each in marks + spans], TAGS)
    build(tmp_path / "events.parquet", tags, POLICY, tmp_path / "profiles", tiny_taxonomy)
    assert evaluate(tmp_path / "profiles", tmp_path / "truth.jsonl") == expected


def changed(user: str, days: float = 0.0, **more: Any) -> dict[str, Any]:
    """A user who gave up running for cats `days` after NOON."""
    return planted(user, CATS, changed_at=(NOON + timedelta(days=days)).isoformat(), dropped=RUN, gained=CATS) | more


def test_days_to_follow_are_counted_daily_on_each_horizon(measure: Any) -> None:
    # Four events of running on the day of the change, one of cats 0.5, 1.5, 2.5 and 3.5 days after it.
    # recent, half-life a day: on day n running has 4·2^−n, cats Σ 2^−(n − 0.5 − k) over k < n, which is 2^(0.5 − n)·(2^n − 1):
    #   day 1 2 against 0.71, day 2 1 against 1.06: followed on day 2.
    # lasting, half-life ten days: with q = 2^−0.1, day 3: 4·q^3 = 3.25 against q^0.5 + q^1.5 + q^2.5 = 2.71;
    #   day 4: 4·q^4 = 3.03 against 2.71·q + q^0.5 = 3.49: followed on day 4.
    rows = events("u", *[("r", 0)] * 4, *[("c", n + 0.5) for n in range(4)], ("b", 20))
    found = measure(rows, [changed("u")])["after_a_change"]
    assert found == {
        "changed_users": 1,
        "recent": {"median_days": pytest.approx(2.0), "share_followed": 1.0},
        "lasting": {"median_days": pytest.approx(4.0), "share_followed": 1.0},
    }


def test_days_are_counted_from_the_first_change_of_anyone_on(measure: Any) -> None:
    # The days looked at are those of u's change; v changed a quarter of a day later and is first looked at 0.75 days after that.
    rows = events("u", ("r", -1), ("c", 0.5)) + events("v", ("r", -1), ("c", 0.3), ("b", 5))
    found = measure(rows, [changed("u"), changed("v", 0.25)])["after_a_change"]
    assert found["recent"] == {"median_days": pytest.approx((1 + 0.75) / 2), "share_followed": 1.0}


def test_the_median_counts_who_never_follows_as_infinitely_late(measure: Any) -> None:
    swift = [row for user in ("a", "b") for row in events(user, ("r", -1), ("c", 0.5))]
    never = [row for user in ("c", "d", "e") for row in events(user, ("r", -1), ("r", 1), ("b", 3))]
    found = measure(swift + never[:3], [changed("a"), changed("b"), changed("c")])["after_a_change"]
    assert found["recent"] == {"median_days": pytest.approx(1.0), "share_followed": pytest.approx(2 / 3)}
    found = measure(swift + never, [changed(user) for user in "abcde"])["after_a_change"]
    assert found["recent"] == {"median_days": None, "share_followed": pytest.approx(2 / 5)}


def test_who_follows_after_sixty_days_is_too_late(measure: Any) -> None:
    rows = events("u", ("r", 0), ("c", 60.5), ("b", 70)) + events("v", ("r", 0), ("c", 59.5))
    found = measure(rows, [changed("u"), changed("v")])["after_a_change"]
    assert found["recent"]["share_followed"] == 0.5


def test_interests_that_speak_against_the_dropped_one_let_it_be_followed(measure: Any) -> None:
    policy = Policy(half_life_days={"recent": 1.0, "lasting": 10.0}, action_weights={"unsave": -3.0}, shrinkage=2.0)
    rows = events("u", ("r", 0), ("r", 0.5), ("b", 3))
    rows[1]["action"] = "unsave"  # running is below 0 from the first day on, and the cats' nothing is more than that
    assert measure(rows, [changed("u")], policy)["after_a_change"]["lasting"]["median_days"] == pytest.approx(1.0)


def test_a_change_after_the_last_event_is_never_followed(measure: Any) -> None:
    found = measure(events("u", ("r", 0)), [changed("u", 30)])["after_a_change"]
    assert found["recent"] == {"median_days": None, "share_followed": 0.0}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truth_is_read_from_every_format(suffix: str, tmp_path: Path) -> None:
    rows = [changed("u"), planted("v", RUN, BAKING)]
    if suffix in (".csv", ".tsv"):
        rows = [row | {"interests": json.dumps(row["interests"])} for row in rows]
    found = load_truth(write_rows(tmp_path / f"truth{suffix}", rows))
    assert (found["u"].changed_at, found["u"].dropped, found["u"].gained) == (NOON, RUN, CATS)
    assert (found["v"].interests, found["v"].changed_at) == (frozenset({RUN, BAKING}), None)


def test_a_change_without_an_offset_is_utc(tmp_path: Path) -> None:
    rows = [changed("u", changed_at="2026-03-01 12:00:00"), changed("v", changed_at="2026-03-01T14:00:00+02:00")]
    assert {each.changed_at for each in load_truth(write_rows(tmp_path / "truth.jsonl", rows)).values()} == {NOON}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"user_id": "w"}', "'interests'"),
        ('{"interests": ["food"]}', "'user_id'"),
        ('{"user_id": "w", "interests": []}', "[]"),
        ('{"user_id": "w", "interests": "food"}', ""),
        ('{"user_id": "w", "interests": {"food": 1}}', ""),
        ('{"user_id": "w", "interests": 3}', ""),
        ('{"user_id": "w", "interests": ["food"], "changed_at": "soon"}', "'soon'"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_row_7_of_the_truth_is_named(line: str, shown: str, tmp_path: Path) -> None:
    good = [json.dumps(planted(f"u{n}", RUN)) for n in range(6)]
    (tmp_path / "truth.jsonl").write_text("\n".join([*good, line]))
    with pytest.raises(DataError) as error:
        load_truth(tmp_path / "truth.jsonl")
    assert f"{tmp_path / 'truth.jsonl'}:7: " in str(error.value)
    assert shown in str(error.value)


@pytest.mark.parametrize("content", ["", "user_id,interests\n"])
def test_a_truth_of_nobody_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(content)
    with pytest.raises(DataError, match="truth.csv: no users"):
        load_truth(tmp_path / "truth.csv")
