"""The policy refuses what makes no sense, and its fingerprint follows its values."""

from pathlib import Path

import pytest

from penchant.config import load, read_yaml
from penchant.errors import ConfigError
from penchant.profiles.policy import Policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half_life_days: {recent: 0, lasting: 90}", "more than 0 days"),
        ("half_life_days: {recent: 7}", "half_life_days"),
        ("rating_factors: {1: -1, 5: 1}", r"expected the ratings 1, 2, 3, 4, 5, got \[1, 5\]"),
        ("shrinkage: 0", "shrinkage"),
        ("half_lives: {recent: 7}", "did you mean 'half_life_days'"),
        ("minimum_score: 1.5", "got 1.5"),
        ("half_life_days: {recent: .nan, lasting: 90}", "finite number"),
        ("action_weights: {view: .inf}", "finite number"),
        ("half_life_days: {now-ish: 7, lasting: 90}", "expected a plain name"),
        ("dimension_half_life_days: {brand: {forever: 180}}", r"brand.forever: 180.0: expected more than 0 days for recent or lasting"),
        ("dimension_half_life_days: {brand: {lasting: 0}}", r"brand.lasting: 0.0: expected more than 0 days"),
        ("dimension_half_life_days: {brand: 180}", "dimension_half_life_days"),
        ("daily_ceiling: 0", "daily_ceiling"),
        ("deduplication_days: 0", "deduplication_days"),
        ("evidence_kept: 0", "evidence_kept"),
        ("habit_utc_offset_hours: 14.5", "habit_utc_offset_hours"),
        ("habit: true", "did you mean 'habits'"),
    ],
)
def test_nonsense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(Policy, path)


def test_the_committed_policy_is_the_defaults_written_out_but_with_habits(root: Path) -> None:
    path = root / "configs" / "policy.yaml"
    assert load(Policy, path) == Policy(habits=True)
    assert set(read_yaml(path)) == set(Policy.model_fields)


def test_a_dimension_has_its_own_half_lives_where_it_names_them() -> None:
    policy = Policy(dimension_half_life_days={"brand": {"lasting": 180}, "hour": {"recent": 14, "lasting": 30}})
    assert policy.half_lives("recent") == (7, {"hour": 14})
    assert policy.half_lives("lasting") == (90, {"brand": 180, "hour": 30})
    assert Policy().half_lives("recent") == (7, {})


def test_the_first_horizon_is_the_short_one_whatever_it_is_called() -> None:
    policy = Policy(half_life_days={"week": 5, "season": 60}, dimension_half_life_days={"brand": {"season": 90}})
    assert policy.horizons == ("week", "season")
    assert policy.half_lives("season") == (60, {"brand": 90})


def test_actions_that_are_not_named_keep_their_weights() -> None:
    policy = Policy(action_weights={"view": 0.2, "hug": 3.0})
    assert policy.action_weights == Policy().action_weights | {"view": 0.2, "hug": 3.0}


def test_fingerprint_changes_with_a_value_and_only_then() -> None:
    assert Policy().fingerprint == Policy(shrinkage=5.0).fingerprint
    assert Policy().fingerprint != Policy(shrinkage=5.1).fingerprint
    assert Policy().fingerprint != Policy(dimension_half_life_days={"brand": {"lasting": 180}}).fingerprint
    assert Policy().fingerprint != Policy(habits=True).fingerprint
