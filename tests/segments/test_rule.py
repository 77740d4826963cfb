"""Rules as YAML: what stands where, what can't be, and the short form they are written in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.config import parse
from penchant.errors import ConfigError
from penchant.segments.rule import Range, Rule, Segment
from penchant.segments.text import parse_text


def segment(rule: dict[str, Any], **more: Any) -> Segment:
    return parse(Segment, {"name": "test", "purpose": "tests", "rule": rule, **more}, "here")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"interest": "pets", "all": [{"interest": "sports"}]}, "expected exactly one of all, any, not, interest, "),
        ({}, "found none"),
        ({"all": []}, "rule.all: "),
        ({"any": [{"interest": "pets"}], "weight": {"min": 0.1}}, "weight: can't stand beside any; what can: nothing"),
        ({"not": {"interest": "pets"}, "sources": ["shop"]}, "sources: can't stand beside not"),
        ({"count": "any", "times": {"min": 1}, "weight": {"min": 0.1}}, "what can: times, within_days, actions, sources"),
        ({"count": "any"}, "count needs times, such as times: {min: 1}"),
        ({"spend": "EUR"}, "spend needs amount"),
        ({"last": "purchase"}, "last needs days"),
        ({"count": "pets", "times": {"min": 1}}, "'pets': expected a dimension and a value, such as brand:nike"),
        ({"attribute": "nike"}, "'nike': expected a dimension and a value"),
        ({"attribute": "brand:"}, "'brand:': expected a dimension and a value"),
        ({"interest": "pets", "weight": {"min": 1.01}}, "impossible range: weight is 0 to 1, so never >=1.01"),
        ({"interest": "pets", "weight": {"below": 0}}, "impossible range: weight is 0 to 1, so never <0"),
        ({"interest": "pets", "confidence": {"above": 1}}, "impossible range: confidence is 0 to 1, so never >1"),
        ({"interest": "pets", "index": {"max": -1}}, "impossible range: index is 0 or more, so never <=-1"),
        ({"interest": "pets", "seen_days": {"below": 0}}, "impossible range: seen_days is 0 or more"),
        ({"interest": "pets", "weight": {"min": 0.5, "max": 0.4}}, "impossible range: nothing is >=0.5 <=0.4"),
        ({"interest": "pets", "weight": {"min": 0.5, "below": 0.5}}, "impossible range: nothing is >=0.5 <0.5"),
        ({"interest": "pets", "weight": {"min": 0.5, "above": 0.4}}, "one lower and one upper limit at most"),
        ({"interest": "pets", "weight": {}}, "expected one of min, above, max, below"),
        ({"interest": "pets", "weight": {"min": float("nan")}}, "got nan"),
        ({"interest": "pets", "weight": 0.5}, "rule.weight: "),
        ({"interest": "pets", "trend": {"min": 1}, "direction": "rising"}, "trend or direction, not both"),
        ({"interest": "pets", "direction": "up"}, "rule.direction: "),
        ({"interest": "pets", "sources": []}, "rule.sources: "),
        ({"interest": "pets", "wieght": {"min": 0.1}}, "unknown key 'rule.wieght'; did you mean 'weight'"),
        ({"interest": "pets", "weight": {"mni": 0.1}}, "unknown key 'rule.weight.mni'; did you mean 'min'"),
        ({"all": [{"interest": "pets"}, {"nott": {"interest": "sports"}}]}, "unknown key 'rule.all.1.nott'; did you mean 'not'"),
    ],
)
def test_a_malformed_rule_is_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        segment(rule)
    assert message in str(caught.value)


def test_a_range_of_one_value_is_possible() -> None:
    assert Range(min=0.5, max=0.5).text("weight") == "weight>=0.5 weight<=0.5"


@pytest.mark.parametrize("name", ["Upper", "", "-a", "a b", "../up", "a\n", "é", "a" * 61])
def test_a_segment_name_fits_a_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match="name: "):
        parse(Segment, {"name": name, "purpose": "p", "rule": {"interest": "pets"}}, "here")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"min_size": 49}, "got 49"),
        ({"minsize": 60}, "unknown key 'minsize'; did you mean 'min_size'"),
        ({"purpose": "Spring campaign!"}, "purpose: "),
        ({"legal_basis": "hope"}, "legal_basis: "),
        ({"expires": "2026-02-30"}, "expires: "),
        ({"refresh": "hourly"}, "refresh: "),
        ({"largest_jump": 0}, "largest_jump: "),
        ({"top": {"people": 0}}, "top.people: "),
        ({"top": {"people": 5, "by": "luck"}}, "top.by: "),
    ],
)
def test_what_a_segment_says_of_itself_is_checked(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        segment({"interest": "pets"}, **more)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "positive"),
    [
        ("interest:pets", True),
        ("not interest:pets", False),
        ("not interest:pets and interest:sports", True),
        ("not interest:pets or interest:sports", False),  # who has no pets and is else unknown would belong
        ("interest:pets and not interest:sports or interest:sports", True),
        ("count(any)>=1", True),
        ("count(any)<5", False),  # nobody's events are fewer than five, too
        ("count(any)>0", True),
        ("spend(EUR)>-1", False),
        ("frequency(click)>=0.1", True),
        ("last(purchase)>30d", True),
        ("segment:runners", True),
        ("users:vips.txt", True),
    ],
)
def test_a_rule_that_could_mean_the_whole_world_is_known_as_one(text: str, positive: bool) -> None:
    assert parse_text(text).positive() is positive


def test_an_interest_may_be_written_as_an_attribute() -> None:
    assert Rule.model_validate({"attribute": "interest:pets", "weight": {"min": 0.1}}) == Rule(interest="pets", weight=Range(min=0.1))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            {"interest": "sports.running", "weight": {"min": 0.2}, "seen_days": {"below": 30}},
            "interest:sports.running weight>=0.2 seen<30d",
        ),
        ({"attribute": "brand:the north face", "direction": "rising"}, 'brand:"the north face" rising'),
        ({"attribute": 'brand:say "hi", (猫)'}, 'brand:"say \\"hi\\", (猫)"'),
        (
            {"interest": "a", "index": {"above": 120, "max": 400}, "sources": ["shop", "my shop"]},
            'interest:a index>120 index<=400 from shop,"my shop"',
        ),
        (
            {"count": "any", "within_days": 0.5, "actions": ["purchase", "click"], "times": {"min": 3}},
            "count(any last 0.5d by purchase,click)>=3",
        ),
        ({"count": "interest:a", "sources": ["shop"], "times": {"min": 1, "max": 2}}, "count(interest:a from shop)>=1 <=2"),
        ({"spend": "EUR", "amount": {"above": 1e-7}}, "spend(EUR)>1e-07"),
        ({"last": "purchase", "days": {"below": 14}}, "last(purchase)<14d"),
        ({"segment": "runners"}, "segment:runners"),
        ({"users": "lists/very important.txt"}, 'users:"lists/very important.txt"'),
        (
            {"all": [{"any": [{"interest": "a"}, {"interest": "b"}]}, {"not": {"interest": "c"}}]},
            "(interest:a or interest:b) and not interest:c",
        ),
        ({"not": {"all": [{"interest": "a"}, {"interest": "b"}]}}, "not (interest:a and interest:b)"),
    ],
)
def test_the_short_form_of_a_rule(rule: dict[str, Any], text: str) -> None:
    assert Rule.model_validate(rule).text() == text


NUMBERS = st.floats(0, 1, allow_nan=False)
NAMES = st.text(min_size=1, max_size=8).filter(lambda each: each.strip() and each.isprintable())
LIMITS = {name: st.builds(lambda value: {"min": value}, NUMBERS) for name in ("weight", "confidence", "index", "events", "seen_days")}
LIMITS |= {"sources": st.lists(NAMES, min_size=1, max_size=2), "direction": st.sampled_from(["rising", "fading"])}
LEAVES = st.one_of(
    st.fixed_dictionaries({"interest": NAMES}, optional=LIMITS),
    st.fixed_dictionaries({"attribute": NAMES.map(lambda each: f"brand:{each}")}, optional=LIMITS),
    st.fixed_dictionaries(
        {"count": st.just("any"), "times": st.builds(lambda value: {"above": value}, NUMBERS)},
        optional={"actions": st.lists(NAMES, min_size=1, max_size=2), "within_days": st.floats(0.01, 1e4)},
    ),
    st.fixed_dictionaries({"frequency": NAMES, "times": st.builds(lambda value: {"below": value + 0.1}, NUMBERS)}),
    st.fixed_dictionaries({"last": NAMES, "days": st.builds(lambda value: {"max": value}, NUMBERS)}),
    st.fixed_dictionaries({"segment": NAMES}),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=2, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=2, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)


@given(tree=TREES)
def test_the_short_form_is_read_back_to_the_same_rule(tree: dict[str, Any]) -> None:
    rule = Rule.model_validate(tree)
    assert parse_text(rule.text()) == rule
