"""The policy refuses what makes no sense, and its fingerprint follows its values."""

from pathlib import Path

import pytest

from penchant.config import load
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
    ],
)
def test_nonsense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(Policy, path)


def test_the_committed_policy_is_the_defaults_written_out(root: Path) -> None:
    assert load(Policy, root / "configs" / "policy.yaml") == Policy()


def test_actions_that_are_not_named_keep_their_weights() -> None:
    policy = Policy(action_weights={"view": 0.2, "hug": 3.0})
    assert policy.action_weights == Policy().action_weights | {"view": 0.2, "hug": 3.0}


def test_fingerprint_changes_with_a_value_and_only_then() -> None:
    assert Policy().fingerprint == Policy(shrinkage=5.0).fingerprint
    assert Policy().fingerprint != Policy(shrinkage=5.1).fingerprint
