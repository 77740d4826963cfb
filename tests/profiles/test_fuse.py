"""Learned weights: sums and losses by hand, the gradient against finite differences, and planted sources and actions found again."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.optimize import approx_fprime
from scipy.sparse import csr_matrix

from penchant.cli import cli
from penchant.config import load
from penchant.errors import DataError
from penchant.profiles import fuse as room
from penchant.profiles.fold import best_tags, contributions, fold, joined, once_each
from penchant.profiles.fuse import (
    Cases,
    anchors,
    cases_of,
    cuts_of,
    fused,
    fusion_text,
    interactions_after,
    interest_rows,
    interval,
    losses,
    masses_before,
    objective,
    place,
    positive_masses,
    recalls,
    verdict,
)
from penchant.profiles.policy import Policy
from penchant.records import EVENTS, TAGS
from penchant.taxonomy import Node, Taxonomy

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALUES = [f"v{n:02d}" for n in range(12)]
TAXONOMY = Taxonomy(
    nodes=(*(Node(id=each, name=each.upper()) for each in VALUES), Node(id="faith", name="Faith", sensitive=True)),
)
NOISE = "no\nise\x01"
"""A source whose name a comment in YAML could break on."""
HALVING = Policy(half_life_days={"recent": 1.0, "lasting": 10.0})


def event(number: int, value: str = "v00", user: str = "u", days: float = 0.0, **more: Any) -> dict[str, Any]:
    """One event `days` after NOON with every column of the contract: a click in the shop on a text of this value alone."""
    base = {field.name: None for field in EVENTS} | {"title": value, "text_key": value, "source": "shop", "action": "click"}
    return base | {"event_id": f"e{number}", "user_id": user, "occurred_at": NOON + timedelta(days=days)} | more


def tag(value: str, score: float = 1.0, dimension: str = "interest", text_key: str | None = None) -> dict[str, Any]:
    """One tag, of the text that is called like the value unless another is named."""
    return {"text_key": text_key or value, "dimension": dimension, "value": value, "score": score, "start": None, "end": None}


TAGGED = [*(tag(each) for each in VALUES), tag("faith")]


def tables(events: list[dict[str, Any]], tags: list[dict[str, Any]] | None = None) -> tuple[Any, Any]:
    """Events and tags as tables."""
    return tuple(ibis.memtable(pa.Table.from_pylist(rows, schema)) for rows, schema in ((events, EVENTS), (tags or TAGGED, TAGS)))  # type: ignore[return-value]


def planted(truth: Callable[[str, str], float], kinds: list[tuple[str, str]], users: int = 240, seed: int = 1) -> list[dict[str, Any]]:
    """40 events of each user over 100 days, of `kinds` (source, action) drawn evenly: one shows an interest of the user's three with
    the chance that `truth` gives its kind, and any other value otherwise."""
    draw = np.random.default_rng(seed)
    events = []
    for user in range(users):
        own = draw.choice(VALUES, 3, replace=False)
        for _ in range(40):
            source, action = kinds[draw.integers(len(kinds))]
            value = draw.choice(own) if draw.random() < truth(source, action) else draw.choice(VALUES)
            more = {"source": source, "action": action, "days": 100 * draw.random()}
            events.append(event(len(events), str(value), f"user {user}", **more))
    return events


def learned(events: list[dict[str, Any]], policy: Policy | None = None) -> tuple[Policy, dict[str, Any]]:
    """What is fitted to events."""
    return fused(*tables(events), policy or Policy(), TAXONOMY)


@pytest.fixture(scope="module")
def mixed() -> Cases:
    """Cases of two sources and several actions, most of them refunds."""
    kinds = [("shop", "refund"), ("shop", "refund"), ("shop", "view"), ("social", "view"), ("social", "click")]
    rows = interest_rows(*tables(planted(lambda *_: 0.5, kinds, users=120)), Policy(), TAXONOMY)
    return cases_of(rows, Policy(), *cuts_of(rows, 14))


def by_source(source: str, _: str) -> float:
    """Signal shows true interests, noise none."""
    return {"signal": 0.9, NOISE: 0.0}[source]


@pytest.fixture(scope="module")
def noisy() -> list[dict[str, Any]]:
    return planted(by_source, [("signal", "click"), (NOISE, "click"), (NOISE, "click")])


@pytest.fixture(scope="module")
def noisy_figures(noisy: list[dict[str, Any]]) -> tuple[Policy, dict[str, Any]]:
    return learned(noisy)


def test_masses_before_a_cut_by_hand() -> None:
    events = [
        event(1, days=-10),
        event(2, days=-20),
        event(2, days=-20),  # delivered twice
        event(3, days=-10, action="refund", rating=1.0),
        event(4, days=-10, source="reviews", action="review", rating=2.0),
        event(5, days=0),  # at the cut: not before it
        event(6, "faith", days=-10),
        event(7, "v01", days=-10),
        event(8, "v02", days=-10, action="wave"),
    ]
    tags = [tag("v00", 0.8), tag("v01", dimension="brand"), tag("v02", 0.5), tag("faith")]
    found = masses_before(interest_rows(*tables(events, tags), HALVING, TAXONOMY), HALVING, NOON).to_pyarrow().to_pylist()
    # 10 days are one half-life. Clicks: 0.8 · (1/2 + 1/4); a refund counts against by the size of its rating's factor, |−1|;
    # a review of 2 stars: 0.8 · −0.5 / 2; an action that the policy doesn't know counts in favour
    assert {
        (row["value"], row["source"], row["action"]): (pytest.approx(row["mass"]), row["events"], row["rated_against"]) for row in found
    } == {
        ("v00", "shop", "click"): (0.6, 2, False),
        ("v00", "shop", "refund"): (-0.4, 1, True),
        ("v00", "reviews", "review"): (-0.2, 1, True),
        ("v02", "shop", "wave"): (0.25, 1, False),
    }


def test_masses_times_weights_are_the_masses_of_the_fold() -> None:
    draw = np.random.default_rng(3)
    policy = Policy(source_weights={"shop": 0.5}, dimension_half_life_days={"interest": {"lasting": 30.0}})
    events = [
        event(
            n,
            str(draw.choice(VALUES)),
            f"u{draw.integers(3)}",
            -60 * draw.random(),
            source=str(draw.choice(["shop", "social"])),
            action=str(draw.choice(["view", "refund", "review"])),
            rating=draw.choice([None, 1.0, 3.5]),
        )
        for n in range(200)
    ]
    rows, tags = tables(events)
    once = once_each(rows)
    state = fold(contributions(joined(once, best_tags(tags, once), policy), once, policy, TAXONOMY), policy, NOON).to_pyarrow().to_pylist()
    expected = {(row["user_id"], row["value"]): row["mass_lasting"] for row in state}
    found = dict.fromkeys(expected, 0.0)
    for row in masses_before(interest_rows(rows, tags, policy, TAXONOMY), policy, NOON).to_pyarrow().to_pylist():
        weight = policy.source_weights.get(row["source"], 1.0) * abs(policy.action_weights[row["action"]])
        found[row["user_id"], row["value"]] += weight * row["mass"]
    assert found == pytest.approx(expected)


def test_interactions_after_a_cut_are_those_in_favour() -> None:
    events = [
        event(1, days=0),
        event(2, days=1.5),
        event(3, "v01", days=1),
        event(4, "v02", days=1, action="refund"),
        event(5, "v03", days=1, action="review", rating=1.0),
        event(6, "v04", days=-1),
        event(7, "v05", days=2),
        event(8, "faith", days=1),
    ]
    rows = interest_rows(*tables(events), HALVING, TAXONOMY)
    found = interactions_after(rows, HALVING, NOON, timedelta(days=2)).to_pyarrow().to_pylist()
    assert {row["value"]: row["events"] for row in found} == {"v00": 2, "v01": 1}


@pytest.mark.parametrize(("wished", "window"), [(14, 14), (30, 20)])
def test_cuts_stand_in_the_last_half_and_windows_do_not_overlap(wished: float, window: float) -> None:
    rows = interest_rows(*tables([event(1, days=0), event(2, days=120)]), HALVING, TAXONOMY)
    assert cuts_of(rows, wished) == ([NOON + timedelta(days=each) for each in (60, 80, 100)], timedelta(days=window))


def by_hand() -> Cases:
    """Two cases of one user: masses 3 and −1 on the first two of four values, then 1 on the third; π even."""
    return Cases(
        users=["u"],
        held_out=np.array([True]),
        sources=["shop"],
        actions=["click"],
        pair_source=np.array([0]),
        pair_action=np.array([0]),
        pair_events=np.array([3]),
        action_rated=np.array([False]),
        case_user=np.array([0, 0]),
        case_cut=np.array([0, 1]),
        masses=csr_matrix([[3.0], [-1.0], [1.0]]),
        cell_case=np.array([0, 0, 1]),
        cell_value=np.array([0, 1, 2]),
        target_case=np.array([0, 0, 1]),
        target_value=np.array([0, 3, 0]),
        target_cell=np.array([0, -1, -1]),
        target_share=np.array([0.75, 0.25, 1.0]),
        prior=np.full((2, 4), 0.25),
    )


def test_losses_and_recalls_by_hand() -> None:
    cases = by_hand()
    positive = positive_masses(cases, np.array([2.0]))
    assert positive.tolist() == [6.0, 0.0, 2.0]
    # κ = 2, κπ = 0.5: p = 6.5/8 and 0.5/8 in the first case, 0.5/4 in the second
    assert losses(cases, positive, 2.0) == pytest.approx([-(0.75 * np.log(6.5 / 8) + 0.25 * np.log(0.5 / 8)), -np.log(0.5 / 4)])
    # the likeliest three are the first three values, then the third and the first two
    assert recalls(cases, positive, 2.0).tolist() == [0.75, 1.0]
    assert cases.per_user(np.array([1.0, 3.0])).tolist() == [2.0]
    assert cases.weights(np.array([True])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_gradient_is_that_of_finite_differences(ridge: float, mixed: Cases) -> None:
    given = (mixed, mixed.weights(~mixed.held_out), ridge, 0.05)
    draw = np.random.default_rng(0)
    for _ in range(3):
        at = np.concatenate([draw.normal(0, 0.5, 2), draw.normal(0.5, 1, 3), [draw.normal(1, 1)]])
        numeric = approx_fprime(at, lambda each: objective(each, *given)[0], 1e-6)
        assert objective(at, *given)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_a_source_of_noise_is_found(noisy_figures: tuple[Policy, dict[str, Any]]) -> None:
    policy, figures = noisy_figures
    assert policy.source_weights[NOISE] == 1  # the most frequent one
    assert policy.source_weights["signal"] > 5
    assert figures["gain_over_equal"]["interval"][0] > 0
    assert figures["held_out"]["fitted"]["recall_at_3"] > figures["held_out"]["equal"]["recall_at_3"]
    assert 0.2 < figures["users"]["held_out"] / 240 < 0.4
    assert sum(figures["users"].values()) == 240


def test_an_action_of_noise_is_found() -> None:
    events = planted(lambda _, action: 0.0 if action == "view" else 0.9, [("shop", "view"), ("shop", "click"), ("shop", "click")])
    policy, figures = learned(events, Policy(action_weights={"click": 2.0, "view": 2.0}))
    assert policy.action_weights["click"] == 2  # the most frequent one keeps the policy's
    assert abs(policy.action_weights["view"]) < 0.5
    assert figures["gain_over_equal"]["interval"][0] > 0
    assert figures["gain_over_policy"]["nats"] == pytest.approx(figures["gain_over_equal"]["nats"])  # the policy's are equal ones


def test_equally_good_sources_gain_nothing() -> None:
    _, figures = learned(planted(lambda *_: 0.7, [("shop", "click"), ("social", "click"), ("social", "view")]))
    low, high = figures["gain_over_equal"]["interval"]
    assert low <= 0 <= high
    assert abs(figures["gain_over_equal"]["nats"]) < 0.002


def test_the_same_events_in_another_order_give_the_same_policy(
    noisy: list[dict[str, Any]], noisy_figures: tuple[Policy, dict[str, Any]]
) -> None:
    assert learned(noisy[::-1])[0] == noisy_figures[0]


def test_what_does_not_occur_keeps_its_weight() -> None:
    before = Policy(source_weights={"radio": 0.3}, action_weights={"click": 1.5, "wave": 7.0}, shrinkage=3.0)
    policy, _ = learned(planted(lambda *_: 0.7, [("shop", "click"), ("social", "click")], users=120), before)
    assert policy.source_weights["radio"] == 0.3
    assert policy.action_weights == before.action_weights  # of one action alone, none is relative to another
    assert policy.model_copy(update={"source_weights": before.source_weights}) == before


def test_only_an_action_whose_sign_means_nothing_more_changes_it() -> None:
    # all three show true interests, so that against them the policy errs; an unsave has no other meaning than that
    kinds = [("shop", "view"), ("shop", "refund"), ("shop", "unsave"), ("shop", "dislike")]
    events = planted(lambda *_: 0.9, kinds)
    for each in events:
        each["rating"] = 1.0 if each["action"] == "dislike" and each["user_id"] == "user 7" else None
    policy, figures = learned(events, Policy(action_weights={"dislike": -1.0}))
    assert figures["turned"] == ["unsave"]
    assert policy.action_weights["unsave"] > 0
    assert -0.01 < policy.action_weights["refund"] < 0  # money that is given back stays so
    assert -0.01 < policy.action_weights["dislike"] < 0  # its ratings are read by their size


def test_the_most_frequent_are_the_measure(mixed: Cases) -> None:
    source, action = anchors(mixed, Policy())
    assert (mixed.sources[source], mixed.actions[action]) == ("shop", "view")  # refunds are more, but against


def write_inputs(folder: Path, events: list[dict[str, Any]], tags: list[dict[str, Any]] | None = None) -> tuple[Path, Path]:
    """Events and tags as ingest and tag write them."""
    metadata = {"penchant.taxonomy": json.dumps(TAXONOMY.model_dump(mode="json")), "penchant.bundle": "by hand"}
    pq.write_table(pa.Table.from_pylist(events, EVENTS), folder / "events.parquet")
    pq.write_table(pa.Table.from_pylist(tags or TAGGED, TAGS).replace_schema_metadata(metadata), folder / "tags.parquet")
    return folder / "events.parquet", folder / "tags.parquet"


def test_the_command_writes_a_policy_with_its_figures(
    noisy: list[dict[str, Any]], noisy_figures: tuple[Policy, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, figures = noisy_figures
    target = tmp_path / "out" / "policy.yaml"
    (tmp_path / "given.yaml").write_text("evidence_kept: 2\n", encoding="utf-8")
    line = ["profile", "fuse", *map(str, write_inputs(tmp_path, noisy)), "--policy", str(tmp_path / "given.yaml"), "-o", str(target)]
    assert json.loads(CliRunner().invoke(cli, [*line, "--json"], catch_exceptions=False).output) == figures
    assert load(Policy, target) == policy.model_copy(update={"evidence_kept": 2})
    head = [each for each in target.read_text(encoding="utf-8").splitlines() if each.startswith("#")]
    assert any(f"gain over equal weights: {figures['gain_over_equal']['nats']:+.4f} nats" in each for each in head)
    assert head[-1] == "# the fitted weights predict better than equal ones"

    monkeypatch.setattr(room, "fuse", lambda *_: figures)
    shown = CliRunner().invoke(cli, line, catch_exceptions=False).output
    assert shown == f"{fusion_text(figures)}\npolicy: {target}\n"


def test_the_table_shows_each_weighting_and_what_turned(noisy_figures: tuple[Policy, dict[str, Any]]) -> None:
    row = {"log_loss": 2.0, "recall_at_3": 0.5, "shrinkage": 4.0, "log_loss_at_policy_shrinkage": 2.25}
    made_up = {"held_out": dict.fromkeys(("equal", "policy", "fitted"), row), "gain_over_policy": {"nats": 0.5, "interval": [0.25, 1.0]}}
    lines = fusion_text(noisy_figures[1] | made_up | {"turned": ["unsave"]}).splitlines()
    assert [each.split() for each in lines if each.startswith(("equal", "policy", "fitted"))] == [
        [name, "2.0000", "0.500", "4", "2.2500"] for name in ("equal", "policy", "fitted")
    ]
    assert "gain over the given policy: +0.5000 nats (95% +0.2500 to +1.0000)" in lines
    assert lines[-2] == "of the other sign than in the policy: unsave"


def test_too_few_users_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"99 users have interests both before one of 2026-04-\d\d, .* at least 100 are needed: give events"
    ):
        learned(planted(lambda *_: 0.5, [("shop", "click"), ("shop", "view")], users=99))


def test_a_single_source_and_action_leaves_nothing_to_learn() -> None:
    with pytest.raises(DataError, match="from the source 'shop' by the action 'click': there are no weights to learn"):
        learned(planted(lambda *_: 0.5, [("shop", "click")], users=120))


def test_events_without_a_tag_are_refused() -> None:
    with pytest.raises(DataError, match="no event has a tag of an interest that may enter profiles"):
        learned([event(1, "faith"), event(2, "untagged")])


def test_a_past_that_is_all_against_is_refused() -> None:
    events = planted(lambda *_: 0.5, [("shop", "refund"), ("shop", "unsave")], users=120)
    later = [event(10_000 + n, "v00", f"user {n}", 105, action="click") for n in range(120)]
    later += [event(20_000 + n, "v00", f"user {n}", 120, action="unsave") for n in range(120)]
    with pytest.raises(DataError, match=r"no action before the cuts \(refund, unsave\) has a weight above 0"):
        learned([*events, *later], Policy())


def test_users_are_held_out_by_a_hash_of_their_own() -> None:
    assert place("u0042") == pytest.approx(0x1B029F1758F11D7B / 2**64)  # what `printf u0042 | sha256sum` begins with
    assert np.mean([place(f"u{n}") < room.HELD_OUT for n in range(2000)]) == pytest.approx(0.3, abs=0.04)


def test_the_interval_holds_the_mean() -> None:
    assert interval(np.full(50, 0.25)) == [0.25, 0.25]
    low, high = interval(np.random.default_rng(1).normal(1.0, 1.0, 400))
    # a mean of 400 has the standard error 1/20; ± 1.96 of it
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert low < 1.0 < high


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ((0.1, 0.2), "better than equal ones"),
        ((-0.2, 0.1), "not better than equal ones beyond chance"),
        ((-0.2, -0.1), "worse than equal ones"),
    ],
)
def test_the_verdict_reads_the_interval(gain: tuple[float, float], said: str) -> None:
    assert said in verdict(gain)
