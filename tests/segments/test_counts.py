"""Counts that may be shown: neither they nor what they give away is a count of few, and noise is as large as it was promised."""

import math
import sys
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import ConfigError, MissingExtraError
from penchant.segments.counts import SMALLEST_SHOWN, private_counts, shown_overlap, shown_size, shown_steps

SIZES = st.lists(st.integers(0, 400), max_size=12)
NESTED = SIZES.map(lambda sizes: sorted(sizes, reverse=True))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "fewer than 50"), (1, "fewer than 50"), (49, "fewer than 50"), (50, "50"), (51, "51"), (1234567, "1,234,567")],
)
def test_no_count_under_fifty_is_shown(count: int, expected: str) -> None:
    assert shown_size(count) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], []),
        ([49], [None]),
        ([50], [50]),
        ([1000, 300, 120], [1000, 300, 120]),
        ([1000, 160, 150], [1000, None, 150]),  # 10 removed by the last step
        ([1000, 150, 150], [1000, None, 150]),  # nobody removed
        ([200, 170, 150], [200, None, 150]),  # 50 between those that are shown
        ([199, 170, 150], [None, None, 150]),
        ([300, 120, 30], [300, 120, None]),  # the last is too small, and what it leaves of 120 stays unknown
        ([99, 49], [99, None]),
        ([0, 0], [None, None]),
    ],
)
def test_steps_near_another_are_hidden_but_not_the_last(counts: list[int], expected: list[int | None]) -> None:
    assert shown_steps(counts) == expected


def test_a_curve_keeps_the_step_that_is_asked_for() -> None:
    assert shown_steps([400, 240, 220, 200, 100], kept=2) == [400, None, 220, None, 100]


@given(SIZES, st.data())
def test_no_shown_size_or_difference_is_under_fifty(counts: list[int], data: st.DataObject) -> None:
    kept = data.draw(st.integers(-len(counts), len(counts) - 1)) if counts else -1
    steps = shown_steps(counts, kept)
    shown = [each for each in steps if each is not None]
    assert all(each >= 50 for each in shown)
    assert all(abs(one - other) >= 50 for one, other in combinations(shown, 2))
    assert all(step in (None, count) for step, count in zip(steps, counts, strict=True))
    if counts and counts[kept] >= 50:
        assert steps[kept] == counts[kept]


@given(NESTED.map(lambda sizes: sizes[-7:]))
@settings(max_examples=50)
def test_no_choice_with_the_last_step_would_show_more_of_nested_ones(counts: list[int]) -> None:
    def allowed(chosen: tuple[int, ...]) -> bool:
        needed = [each for each in counts[-1:] if each >= 50]
        return min(chosen, default=50) >= 50 and set(needed) <= set(chosen) and all(abs(a - b) >= 50 for a, b in combinations(chosen, 2))

    best = max((len(chosen) for n in range(len(counts) + 1) for chosen in combinations(counts, n) if allowed(chosen)), default=0)
    assert sum(step is not None for step in shown_steps(counts)) == best


@given(NESTED)
def test_what_is_hidden_could_have_been_any_of_fifty_sizes(counts: list[int]) -> None:
    steps = shown_steps(counts)
    for place, step in enumerate(steps):
        if step is None:
            below = next((each for each in steps[place:] if each is not None), 0)
            others = [[*counts[:place], size, *counts[place + 1 :]] for size in range(below, below + 50)]
            assert all(shown_steps(other) == steps for other in others)


@pytest.mark.parametrize(
    ("a", "b", "both", "expected"),
    [
        (200, 300, 100, (100, 100, 200)),
        (100, 100, 50, (50, 50, 50)),
        (200, 300, 49, (None, None, None)),  # few in both
        (149, 300, 100, (None, None, None)),  # few in the first alone
        (300, 149, 100, (None, None, None)),
        (200, 300, 0, (None, None, None)),
        (100, 300, 100, (None, None, None)),  # all of the first are in the second, which says it of each
    ],
)
def test_an_overlap_is_shown_whole_or_not_at_all(a: int, b: int, both: int, expected: tuple[int | None, ...]) -> None:
    assert shown_overlap(a, b, both) == expected


@pytest.mark.parametrize("epsilon", [0, -0.0, -1, 1e-7, 20.001, math.inf, -math.inf, math.nan])
def test_an_epsilon_that_promises_nothing_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="give a number of 0.000001 to 20") as caught:
        private_counts({"all": 100}, epsilon)
    assert str(epsilon) in str(caught.value)


@pytest.mark.parametrize("epsilon", [1e-6, 1, 20, 20.0])
def test_any_useful_epsilon_will_do(epsilon: float) -> None:
    pytest.importorskip("opendp")
    found = private_counts({"多": 100, "🏃": 0}, epsilon)
    assert list(found) == ["多", "🏃"]
    assert all(each.value >= 0 for each in found.values())


def test_no_counts_are_no_counts() -> None:
    pytest.importorskip("opendp")
    assert private_counts({}, 1.0) == {}


@pytest.mark.parametrize(("names", "epsilon", "calls"), [(1, 0.5, 200), (40, 20.0, 100), (60, 6.0, 80)])
def test_noise_has_the_distribution_of_each_count_s_share_of_epsilon(names: int, epsilon: float, calls: int) -> None:
    """The largest distance to the exact distribution function is under its bound of Dvoretzky, Kiefer and Wolfowitz at 10⁻⁹."""
    pytest.importorskip("opendp")
    true = 1000
    counts = {f"n{n}": true for n in range(names)}
    noise = [each.value - true for _ in range(calls) for each in private_counts(counts, epsilon).values()]
    bound = math.sqrt(math.log(2 / 1e-9) / (2 * len(noise)))
    ratio = math.exp(-epsilon / names)
    counted = Counter(noise)
    below = 0
    for value in range(min(noise), max(noise) + 1):
        below += counted[value]
        exact = 1 - ratio ** (value + 1) / (1 + ratio) if value >= 0 else ratio**-value / (1 + ratio)
        assert abs(below / len(noise) - exact) < bound
    assert -true < min(noise)  # nothing was clamped


def test_the_stated_accuracy_covers_the_true_count_and_no_smaller_one_would() -> None:
    """P(|noise| > a) of discrete Laplace noise with r = exp(-epsilon) is 2 r^(a + 1) / (1 + r), summed by hand."""
    pytest.importorskip("opendp")
    for epsilon in (0.05, 0.5, 1.0, 3.0):
        accuracy = private_counts({"all": 1000}, epsilon)["all"].accuracy
        ratio = math.exp(-epsilon)
        beyond = [2 * ratio ** (each + 1) / (1 + ratio) for each in (accuracy, accuracy - 1)]
        assert beyond[0] <= 0.05 < beyond[1]


def test_each_of_several_counts_gets_its_share_of_epsilon() -> None:
    pytest.importorskip("opendp")
    alone = private_counts({"all": 1000}, 0.25)["all"].accuracy
    assert {each.accuracy for each in private_counts(dict.fromkeys("abcd", 1000), 1.0).values()} == {alone}


def test_no_private_count_is_negative() -> None:
    pytest.importorskip("opendp")
    values = [each.value for each in private_counts({str(n): 0 for n in range(200)}, 1.0).values()]
    assert min(values) == 0
    assert max(values) > 0  # a small count is shown as it came out


def test_without_opendp_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(MissingExtraError, match=r"counting with differential privacy needs .* pip install 'penchant\[private\]'"):
        private_counts({"all": 100}, 1.0)


def test_the_smallest_shown_count_is_that_of_the_formats_page() -> None:
    assert SMALLEST_SHOWN == 50
