"""Segments from files: what they name is found, what nobody has is told with the nearest, what is sensitive is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from penchant.errors import ConfigError, DataError, PenchantError, PolicyRefusal
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import Snapshot
from penchant.segments.load import checked, of_text, profiles_for, read_audience, read_users, uses_sensitive
from penchant.segments.people import Audience, members
from tests.segments.conftest import event, seventy_people
from tests.snapshots import permits

HEAD = "name: test\npurpose: tests\n"


@pytest.fixture
def read(tmp_path: Path, snapshot: Snapshot) -> Callable[[str], Audience]:
    """Load a segment written as YAML, without its name and purpose."""

    def load(text: str) -> Audience:
        path = tmp_path / "test.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        return checked(read_audience(path), snapshot)

    return load


def users(audience: Audience, snapshot: Snapshot) -> set[str]:
    return set(members(audience, profiles_for(audience, snapshot)).to_pyarrow()["user_id"].to_pylist())


def numbered(numbers: range | list[int]) -> set[str]:
    return {f"u{n:02}" for n in numbers}


# Expected people are read off `seventy_people`: u0 to u59 run, n days ago.
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("interest:sports.running", numbered(range(60))),  # odd ones by trail running, which lies below; u67 has only an un-save
        ("interest:sports.running.trail", numbered(range(1, 60, 2))),
        ("interest:sports", numbered([*range(60), 69])),
        ("interest:pets", numbered(range(0, 60, 5))),  # not u68, whose pets.cats is a brand
        ("interest:chess", set()),
        ("interest:life", numbered(range(64, 67))),  # by life.work; what is sensitive below life counts for nothing
        ("interest:sports.running seen<=10d", numbered(range(11))),  # the tenth day to the microsecond still counts
        ("interest:sports.running seen<10d", numbered(range(10))),  # and is no less than ten
        ("interest:sports.running from shop", numbered(range(0, 60, 3))),
        ("interest:sports.running from shop,social", numbered([n for n in range(60) if n % 3 < 2])),
        ("interest:sports.running and interest:pets.cats", numbered(range(0, 60, 5))),
        ("interest:pets.cats or interest:life.work", numbered([*range(0, 60, 5), 64, 65, 66])),
        ("interest:sports and not interest:sports.football", numbered([*(n for n in range(60) if n % 3), 69])),
        ("interest:sports and not not interest:pets", numbered(range(0, 60, 5))),
        ("interest:sports.running weight>=1", set()),  # shrinkage leaves nobody all of it
        ("interest:sports.running seen<1e15d", numbered(range(60))),
        ("count(interest:sports.football by purchase)>=1", numbered(range(0, 60, 3))),
        ("brand:pets.cats", {"u68"}),
    ],
)
def test_people_read_off_the_events_are_the_members(rule: str, expected: set[str], snapshot: Snapshot) -> None:
    assert users(checked(of_text(rule), snapshot), snapshot) == expected


def test_least_weight_is_held_against_the_sum_below_the_interest(make_snapshot: Callable[..., Snapshot]) -> None:
    """Two people, κ = 5, clicks at the instant itself, so that a mass is a number of clicks.

    a: running 1, trail 1, cats 2. b: cats 4. π: running 1/8, trail 1/8, cats 6/8.
    Weights of a: running = trail = (1 + 5/8)/(4 + 5) = 0.18056, together 0.36111; the index of sports is 100 · 0.36111/0.25 = 144.4.
    """
    values = ["sports.running", "sports.running.trail", "pets.cats", "pets.cats"]
    events = [event(n, "a", value, 0) for n, value in enumerate(values)] + [event(n, "b", "pets.cats", 0) for n in range(4, 8)]
    snapshot = make_snapshot(events)
    for rule, expected in {
        "interest:sports.running.trail weight>=0.18": {"a"},
        "interest:sports.running.trail weight>=0.19": set(),
        "interest:sports weight>=0.361": {"a"},
        "interest:sports weight>=0.362": set(),
        "interest:sports index>=144.4": {"a"},
        "interest:sports index>=144.5": set(),
        "interest:sports confidence>=0.44 confidence<0.45": {"a"},  # 4/(4 + 5)
        "interest:sports events>=2": {"a"},
    }.items():
        assert users(of_text(rule), snapshot) == expected, rule
    rows = members(of_text("interest:sports"), profiles_for(of_text("interest:sports"), snapshot)).to_pyarrow()
    assert rows["weight"].to_pylist() == pytest.approx([13 / 36])


def test_a_negated_interest_adds_neither_weight_nor_time(make_snapshot: Callable[..., Snapshot]) -> None:
    snapshot = make_snapshot([event(0, "a", "sports.running", 10), event(1, "a", "pets.cats", 5)])
    running = {row["value"]: row for row in snapshot.profiles.to_pyarrow().to_pylist()}["sports.running"]
    audience = of_text("interest:sports and not interest:pets seen<1d")
    assert members(audience, profiles_for(audience, snapshot)).to_pyarrow().to_pylist() == [
        {"user_id": "a", "weight": pytest.approx(running["weight"]), "last_at": running["last_at"]}
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("rule: interest:sports.runing", "character 10: unknown interest 'sports.runing'; did you mean 'sports.running'"),
        ("rule: {interest: sports.runing}", "unknown interest 'sports.runing'; did you mean 'sports.running'"),
        ("rule: interest:sports from shopp", "unknown source 'shopp'; did you mean 'shop'?"),
        ("rule: count(any by purchas)>=1", "unknown action 'purchas'; did you mean 'purchase'?"),
        ("rule: brand:pets", "no brand 'pets' in these profiles; did you mean 'pets.cats'?"),
        ("rule: brnd:nike", "unknown dimension 'brnd'; did you mean 'brand'?"),
        ("rule: spend(EUR)>=1", "spend needs habits, which these profiles are without"),
        ("rule: segment:other", "unknown segment 'other'"),
        ("rule: segment:test", "a circle: test → test"),
        ("rule: not interest:sports", "people nothing is known of"),
        ("rule: {not: {interest: sports}}", "people nothing is known of"),
        ("rule: users:none.txt", "none.txt: can't be read: No such file or directory; expected a file of user ids"),
        ("rule: interest:sports\nexclude: none.txt", "none.txt: can't be read"),
        ("", "rule: missing"),
        ("rule: 7", "rule: "),
        ("rule: interest:sports weight>2", "rule, character 17: impossible range"),
    ],
)
def test_a_rule_that_asks_for_what_is_not_there_is_refused(rule: str, message: str, read: Callable[[str], Audience]) -> None:
    with pytest.raises(PenchantError) as caught:
        read(rule)
    assert message in str(caught.value)
    assert "test.yaml" in str(caught.value) or "none.txt" in str(caught.value)


def test_every_mistake_in_a_rule_of_yaml_is_told_at_once(read: Callable[[str], Audience]) -> None:
    with pytest.raises(ConfigError) as caught:
        read("rule: {not: {any: [{interest: sport, sources: [shopp, shop]}, {interest: zzz}]}}")
    heading, *mistakes = str(caught.value).splitlines()
    assert heading.endswith("test.yaml: 4 mistakes")
    assert mistakes[0].startswith("  - unknown interest 'sport'; did you mean 'sports'")
    assert mistakes[1].startswith("  - unknown interest 'zzz'; known: chess, life, ")
    assert mistakes[2] == "  - unknown source 'shopp'; did you mean 'shop'?"
    assert "people nothing is known of" in mistakes[3]


@pytest.mark.parametrize(("text", "known"), [("- a\n- b", "expected a segment"), ("\t", "not valid YAML"), ("", "expected a segment")])
def test_a_file_that_is_no_segment_is_refused(text: str, known: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=known):
        read_audience(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml: can't be read"):
        read_audience(tmp_path / "none.yaml")


def test_a_segment_stands_on_others_and_on_lists_beside_it(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "runners.yaml").write_text("name: runners\npurpose: p\nrule: interest:sports.running\nexclude: no.txt\n")
    (tmp_path / "no.txt").write_text("user_id\nu00\n\n u05 \nu05\n", encoding="utf-8-sig")
    (tmp_path / "yes.txt").write_text("stranger\n猫\n", encoding="utf-8")
    (tmp_path / "both.yaml").write_text(
        "name: both\npurpose: p\nrule: segment:runners and interest:pets\ninclude: yes.txt\n", encoding="utf-8"
    )
    audience = checked(read_audience(tmp_path / "both.yaml"), snapshot)
    assert users(audience, snapshot) == numbered(range(10, 60, 5)) | {"stranger", "猫"}


def test_a_circle_through_others_is_told(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\npurpose: p\nrule: segment:{other}\n")
    with pytest.raises(ConfigError, match="a circle: a → b → c → b"):
        read_audience(tmp_path / "a.yaml")


@pytest.mark.parametrize(("content", "message"), [(b"", "no user ids"), (b"user_id\n\n", "no user ids"), (b"\xff\xfe\x00", "not UTF-8")])
def test_a_list_without_users_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"list.txt: {message}"):
        read_users(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ("interest:life.health", "life.health"),
        ("interest:life.health.sleep", "life.health.sleep"),  # marked by its parent alone
        ("interest:pets and not interest:life.health", "life.health"),  # to leave ill people out is to profile them
        ("count(interest:life.health)>=2", "life.health"),
        ("interest:life.health.sleep or interest:life.health", "life.health, life.health.sleep"),
    ],
)
def test_a_sensitive_interest_is_refused_wherever_it_stands(rule: str, named: str, read: Callable[[str], Audience]) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        read(f"rule: {rule}")
    assert f"{named}: sensitive" in str(caught.value)
    assert "DSA art. 26(3)" in str(caught.value)
    assert "the purpose (tests) and the legal ground in the policy" in str(caught.value)


def test_a_sensitive_interest_in_another_segment_is_refused_too(tmp_path: Path, snapshot: Snapshot) -> None:
    (tmp_path / "ill.yaml").write_text("name: ill\npurpose: p\nrule: interest:life.health\n")
    (tmp_path / "a.yaml").write_text("name: a\npurpose: p\nrule: interest:pets and not segment:ill\n")
    with pytest.raises(PolicyRefusal, match=r"ill\.yaml: life\.health: sensitive"):
        checked(read_audience(tmp_path / "a.yaml"), snapshot)


def test_a_permit_counts_for_its_purpose_and_its_node_alone(make_snapshot: Callable[..., Snapshot]) -> None:
    snapshot = make_snapshot(seventy_people(), allowed_sensitive=permits("life.health", purpose="newsletter"))
    allowed = checked(of_text("interest:life.health", "newsletter"), snapshot)
    assert users(allowed, snapshot) == numbered([*range(0, 60, 7), 64, 65, 66])  # not 60 to 63: sleep, below it, isn't permitted
    assert uses_sensitive(allowed, snapshot) == ["life.health"]
    assert uses_sensitive(checked(of_text("interest:life", "newsletter"), snapshot), snapshot) == ["life.health"]
    assert uses_sensitive(checked(of_text("interest:life", "other"), snapshot), snapshot) == []
    for rule, purpose in (("interest:life.health", "advertising"), ("interest:life.health.sleep", "newsletter")):
        with pytest.raises(PolicyRefusal):
            checked(of_text(rule, purpose), snapshot)


def test_a_permit_names_purpose_and_ground() -> None:
    for permit in ("life.health", {"interest": "life.health"}, {"interest": "life.health", "purpose": "newsletter", "ground": "ok"}):
        with pytest.raises(ValueError, match="allowed_sensitive"):
            Policy.model_validate({"allowed_sensitive": [permit]})


def test_what_is_sensitive_selects_nobody_even_where_profiles_hold_it(open_snapshot: Snapshot) -> None:
    assert users(of_text("interest:life.health"), open_snapshot) == set()
    assert users(of_text("interest:life"), open_snapshot) == numbered(range(64, 67))
    assert users(of_text("interest:life.health.sleep or interest:pets"), open_snapshot) == numbered(range(0, 60, 5))
    assert users(of_text("count(interest:life.health)>=1 or interest:pets"), open_snapshot) == numbered(range(0, 60, 5))
