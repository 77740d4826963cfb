"""What a rule means before it is used, worked out from `seventy_people` by hand."""

from pathlib import Path

import pytest

from penchant.errors import ConfigError, DataError
from penchant.profiles.snapshot import Snapshot
from penchant.reports.segments_text import why_text
from penchant.segments.insight import Curve, curves, funnel, overlaps, size, special
from penchant.segments.load import checked, of_text, read_audience
from penchant.segments.people import Audience
from penchant.segments.why import why


def audience(text: str, snapshot: Snapshot) -> Audience:
    return checked(of_text(text), snapshot)


def from_file(text: str, folder: Path, snapshot: Snapshot) -> Audience:
    (folder / "a.yaml").write_text(f"name: a\npurpose: tests\n{text}\n", encoding="utf-8")
    return checked(read_audience(folder / "a.yaml"), snapshot)


@pytest.mark.parametrize(("text", "expected"), [("interest:sports.running seen<=55d", 56), ("interest:pets", 12), ("interest:chess", 0)])
def test_size_counts_the_members(text: str, expected: int, snapshot: Snapshot) -> None:
    assert size(audience(text, snapshot), snapshot) == expected


def test_a_funnel_says_what_each_condition_leaves(snapshot: Snapshot) -> None:
    """Of 65 people who have a profile (not u60 to u63, who have nothing but what is sensitive, nor u67) 60 run, 40 of them don't like
    football (every third does), and u0 to u29 ran within 30 days: of these 30, 20."""
    found = funnel(
        audience("interest:sports.running and not interest:sports.football and count(interest:sports.running last 30d)>=1", snapshot),
        snapshot,
    )
    assert found == [
        ("everybody with a profile", 65),
        ("interest:sports.running", 60),
        ("and not interest:sports.football", 40),
        ("and count(interest:sports.running last 30d)>=1", 20),
    ]


def test_a_funnel_goes_on_with_lists_and_the_top(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "no.txt").write_text("u01\nu02\nu69\n")
    (tmp_path / "yes.txt").write_text("u68\nstranger\nu03\n")
    found = funnel(
        from_file("rule: interest:sports.running\nexclude: no.txt\ninclude: yes.txt\ntop: {people: 20, by: last_at}", tmp_path, snapshot),
        snapshot,
    )
    assert found[1:] == [
        ("interest:sports.running", 60),
        ("not in no.txt", 58),
        ("top 20 by last_at", 20),
        ("and everybody in yes.txt", 22),
    ]


def test_a_funnel_s_alternatives_stand_in_brackets(snapshot: Snapshot) -> None:
    steps = funnel(audience("interest:sports.running and (interest:pets or interest:life)", snapshot), snapshot)
    assert [step for step, _ in steps][1:] == ["interest:sports.running", "and (interest:pets or interest:life)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interest:pets and " + "not " * 51 + "interest:life", "rule: too deeply nested: at most 50 levels"),
        ("interest:pets and " + "not " * 300 + "interest:life", "rule: too deeply nested"),
        ("interest:pets and " + "not " * 5_000 + "interest:life", "rule: too deeply nested"),
        (" or ".join(["interest:pets"] * 61), "rule: too long: 61 conditions, at most 60"),
        (" and ".join(["interest:pets"] * 3_000), "rule: too long: 3,000 conditions, at most 60"),
    ],
)
def test_a_rule_that_no_engine_takes_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of_text(text)


def test_the_largest_rules_are_answered(tmp_path: Path, snapshot: Snapshot) -> None:
    assert size(audience(" or ".join(f"interest:pets weight>={n / 1e6}" for n in range(60)), snapshot), snapshot) == 12
    deep = "not " * 48 + "interest:pets"  # an even number of times
    assert size(audience(f"interest:pets and {deep}", snapshot), snapshot) == 12
    (tmp_path / "a.yaml").write_text("name: a\npurpose: tests\nrule: " + "{all: [" * 60 + "{interest: pets}" + "]}" * 60, encoding="utf-8")
    with pytest.raises(ConfigError, match="too deeply nested: at most 50 levels"):
        read_audience(tmp_path / "a.yaml")


def test_who_is_left_out_by_the_top_alone_is_told_so(tmp_path: Path, snapshot: Snapshot) -> None:
    asked = from_file("rule: interest:sports.running\ntop: {people: 20, by: last_at}", tmp_path, snapshot)
    found = {user: why(asked, snapshot, user) for user in ("u00", "u59")}
    assert sorted(each["member"] for each in found.values()) == [False, True]
    assert {each["member"]: each["beyond_top"] for each in found.values()} == {True: None, False: "the first 20 by last_at"}
    (out,) = (each for each in found.values() if not each["member"])
    assert "  meets the rule, but is not among the first 20 by last_at" in why_text(out, snapshot).splitlines()


def test_a_funnel_of_alternatives_is_one_step(snapshot: Snapshot) -> None:
    assert funnel(audience("interest:pets or interest:life", snapshot), snapshot)[1:] == [("interest:pets or interest:life", 15)]


def test_a_curve_follows_each_threshold(snapshot: Snapshot) -> None:
    """u0 to u59 ran n days ago; a count of events is one for all."""
    recency, number = curves(audience("interest:sports.running seen<30d and count(interest:sports.running)>=1", snapshot), snapshot)
    assert recency == Curve(
        "interest:sports.running seen<30d", "seen<30", 30, [3.0 * n for n in range(21)], [0, *(3 * n for n in range(1, 20)), 60]
    )
    assert (number.limit, number.current) == ("times>=1", 1)
    assert dict(zip(number.thresholds, number.sizes, strict=True)) == {1: 30, 2: 0}  # 0 or more would be everybody, whatever they did


def test_a_curve_within_a_range_leaves_out_what_would_be_none(snapshot: Snapshot) -> None:
    lower, upper = curves(audience("interest:sports.running weight>=0.1 weight<0.3", snapshot), snapshot)
    assert max(lower.thresholds) <= 0.2  # twice the limit, where the upper one still leaves room
    assert min(upper.thresholds) > 0.1
    assert lower.sizes == sorted(lower.sizes, reverse=True)
    assert upper.sizes == sorted(upper.sizes)


def test_a_rule_without_thresholds_has_no_curve(snapshot: Snapshot) -> None:
    assert curves(audience("interest:pets", snapshot), snapshot) == []


def test_overlaps_count_who_is_in_both(snapshot: Snapshot) -> None:
    """60 run; 12 of them (every fifth) have cats; 20 (every third) like football; 4 both."""
    found = overlaps(
        [audience(each, snapshot) for each in ("interest:sports.running", "interest:pets", "interest:sports.football")], snapshot
    )
    assert found == [[60, 12, 20], [12, 12, 4], [20, 4, 20]]


def test_what_is_special_is_held_against_all_others(snapshot: Snapshot) -> None:
    """Of the 20 who like football 4 have cats, of the 45 others 8; the index is that of the mean weights."""
    found = {row["value"]: row for row in special(audience("interest:sports.football", snapshot), snapshot, least=4)}
    weights = {"sports.football": [], "pets.cats": []}
    others: list[float] = []
    for row in snapshot.profiles.to_pyarrow().to_pylist():
        if row["dimension"] == "interest" and row["value"] == "pets.cats":
            (weights["pets.cats"] if int(row["user_id"][1:]) % 3 == 0 else others).append(row["weight"])
    cats = found["pets.cats"]
    assert (cats["people"], cats["others"]) == (4, 8)
    assert (cats["size"], cats["rest"]) == (20, 45)
    assert cats["index"] == pytest.approx(100 * (sum(weights["pets.cats"]) / 20) / (sum(others) / 45))
    assert "sports.football" not in found  # none of the others has it
    assert [row["index"] for row in found.values()] == sorted((row["index"] for row in found.values()), reverse=True)
    assert not cats["asked"]


def test_attributes_of_few_people_are_not_told(snapshot: Snapshot) -> None:
    assert special(audience("interest:sports.football", snapshot), snapshot) == []


def test_why_tells_each_condition_with_the_persons_own_values(snapshot: Snapshot) -> None:
    """u10 ran ten days ago (event 10 of hers) and has cats; football is every third's."""
    found = why(
        audience("interest:sports.running weight>=0.1 seen<30d and not interest:sports.football and count(any last 15d)>=1", snapshot),
        snapshot,
        "u10",
    )
    assert found["member"]
    running, football, count = found["conditions"]
    assert (running["holds"], running["negated"], football["holds"], football["negated"], count["holds"]) == (
        True,
        False,
        False,
        True,
        True,
    )
    profile = {row["value"]: row for row in snapshot.of_user("u10")}
    assert running["figure"]["weight"] == pytest.approx(profile["sports.running"]["weight"])
    assert [row["value"] for row in running["attributes"]] == ["sports.running"]
    assert [each["snippet"] for each in running["attributes"][0]["evidence"]] == ["about sports.running"]
    assert count["figure"] == {"times": 1}
    assert [each["snippet"] for each in count["events"]] == ["about sports.running"]


def test_why_somebody_is_not_in_it(snapshot: Snapshot) -> None:
    found = why(audience("interest:sports.running and not interest:sports.football", snapshot), snapshot, "u03")
    assert not found["member"]
    assert [each["holds"] for each in found["conditions"]] == [True, True]
    assert found["conditions"][1]["attributes"][0]["value"] == "sports.football"


def test_why_of_lists_and_other_segments(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "runners.yaml").write_text("name: runners\npurpose: p\nrule: interest:sports.running\ntop: {people: 1, by: last_at}\n")
    (tmp_path / "yes.txt").write_text("u69\n")
    segment = from_file("rule: segment:runners\ninclude: yes.txt", tmp_path, snapshot)
    assert why(segment, snapshot, "u00")["conditions"][0]["holds"]
    assert not why(segment, snapshot, "u01")["conditions"][0]["holds"]  # runs, but another is on top
    found = why(segment, snapshot, "u69")
    assert (found["member"], found["included"], found["excluded"]) == (True, True, False)


def test_why_shows_nothing_sensitive(open_snapshot: Snapshot) -> None:
    found = why(audience("interest:life", open_snapshot), open_snapshot, "u64")  # likes work, and has an illness
    assert [row["value"] for row in found["conditions"][0]["attributes"]] == ["life.work"]


def test_why_of_a_stranger_is_refused(snapshot: Snapshot) -> None:
    with pytest.raises(DataError, match="nothing is known of user 'nobody'"):
        why(audience("interest:pets", snapshot), snapshot, "nobody")
