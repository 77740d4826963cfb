"""The short form of rules: what it means, and mistakes pointed at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.errors import ConfigError
from penchant.segments.rule import Range, Rule
from penchant.segments.text import parse_text


def test_the_example_of_the_documentation_means_what_it_says() -> None:
    assert parse_text("interest:sports.running weight>=0.2 and seen<30d and not interest:finance") == Rule(
        all=(
            Rule(interest="sports.running", weight=Range(min=0.2), seen_days=Range(below=30)),
            Rule.model_validate({"not": {"interest": "finance"}}),
        )
    )


def test_and_binds_more_than_or_and_not_more_than_and() -> None:
    a, b, c = (Rule(interest=each) for each in "abc")
    assert parse_text("interest:a or interest:b and not interest:c") == Rule(
        any=(a, Rule(all=(b, Rule.model_validate({"not": c.model_dump(exclude_none=True)}))))
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("interest:a seen<2w", "interest:a seen<14d"),
        ("interest:a seen<12h", "interest:a seen<0.5d"),
        ("  interest:a\n\tand interest:b ", "interest:a and interest:b"),
        ("interest:a and weight>=0.1 and rising", "interest:a weight>=0.1 rising"),
        ("interest:a and interest:b seen<3d and from shop", "interest:a and interest:b seen<3d from shop"),
        ("((interest:a))", "interest:a"),
        ("interest:order and interest:android", "interest:order and interest:android"),
    ],
)
def test_ways_to_write_the_same(text: str, same: str) -> None:
    assert parse_text(text).text() == same


@pytest.mark.parametrize(
    ("text", "character", "message"),
    [
        ("interest:a weight 0.2", 19, "'0.2' can't stand here; expected >=, >, <= or <"),
        ("interest:a weight>=1.5", 12, "impossible range: weight is 0 to 1, so never >=1.5"),
        ("interest:a weight>=0.5 weight<0.2", 1, "impossible range: nothing is >=0.5 <0.2"),
        ("interest:a weight>=0.1 weight>=0.2", 24, "weight is limited twice"),
        (
            "interest:a and",
            15,
            "the end can't stand here; expected an attribute such as interest:sports.running, count(…), spend(CURRENCY), frequency(ACTION), last(ACTION), ( or not",
        ),
        ("interest:a )", 12, "')' can't stand here; expected the end"),
        ("seen<30d", 1, "a limit needs an attribute before it"),
        ("interest:a or seen<30d", 15, "a limit needs an attribute before it"),
        ("(interest:a) and seen<30d", 18, "a limit needs an attribute before it"),
        ("interest:a seen<30", 17, "'30' can't stand here; expected a time such as 30d, 12h or 2w"),
        ("count(any)>=1 >=2", 15, "limited twice"),
        ("spend(EUR)<30d", 12, "'30d' can't stand here; expected a number"),
        ("last(purchase)<30", 16, "'30' can't stand here; expected a time such as 30d"),
        ("runners", 1, "'runners' can't stand here"),
        ("", 1, "the end can't stand here"),
        ("interest:猫 weight>= §", 21, "'§' can't stand here; expected a number"),
        ("count(any)>=1 and count(any last)>2", 33, "')' can't stand here; expected a time"),
        ('brand:"x\\y"', 7, "not a text in quotes"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, character: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_text(text)
    heading, line, mark = str(caught.value).splitlines()
    assert heading.startswith(f"rule, character {character}: ")
    assert message in heading
    assert line.strip() == text.strip()
    assert mark.endswith("^")


def test_the_mark_stands_under_the_character_in_the_line_that_has_it_whatever_its_width() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_text("interest:a and\nbrand:猫 weight ?", "runners.yaml: rule")
    heading, line, mark = str(caught.value).splitlines()
    assert heading.startswith("runners.yaml: rule, character 31: '?'")
    assert line == "  brand:猫 weight ?"
    assert mark == "  " + " " * len("brand:xx weight ") + "^"  # 猫 takes two cells


@given(st.text(max_size=40) | st.from_regex(r"(interest:a|and|or|not|\(|\)|weight|>=|<|0\.2|30d|seen|count|any| ){1,12}", fullmatch=True))
def test_any_text_is_a_rule_or_a_mistake_that_is_told(text: str) -> None:
    try:
        rule: Rule | str = parse_text(text)
    except ConfigError as error:
        rule = str(error)
    assert parse_text(rule.text()) == rule if isinstance(rule, Rule) else rule.startswith("rule, character ")
