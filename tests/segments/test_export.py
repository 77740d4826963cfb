"""Audiences as files: large enough or not at all, without those who said no, logged before they are there."""

import csv
import io
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penchant.config import parse
from penchant.errors import ConfigError, DataError, PolicyRefusal
from penchant.profiles.policy import Policy
from penchant.profiles.snapshot import Snapshot, build, load, update
from penchant.records import EVENTS, TAGS
from penchant.segments.audit import verify
from penchant.segments.choices import Choices
from penchant.segments.destinations import Destinations
from penchant.segments.export import export
from penchant.segments.identity import read_identities
from penchant.segments.life import AUDIT, Records, require_exportable
from penchant.segments.load import checked, read_audience
from penchant.segments.people import Audience
from tests.segments.conftest import AS_OF, TAXONOMY, VALUES, event, seventy_people
from tests.snapshots import permits

RUNNERS = "interest:sports.running seen<=55d"
"""u00 to u55 of `seventy_people`: 56 people."""
SMALL = {name: {"min_size": 50} for name in ("google", "meta", "tiktok", "linkedin")}


class Desk:
    """A marketer's desk: profiles, records and segments in one folder."""

    def __init__(self, folder: Path, events: list[dict[str, Any]] | None = None, **policy: Any) -> None:
        self.folder, self.profiles = folder, folder / "profiles"
        (folder / "taxonomy.yaml").write_text(TAXONOMY, encoding="utf-8")
        tags = [{"text_key": value, "dimension": "interest", "value": value, "score": 1.0} for value in VALUES]
        pq.write_table(pa.Table.from_pylist(tags, TAGS), folder / "tags.parquet")
        self.write(events or seventy_people())
        build(folder / "events.parquet", folder / "tags.parquet", Policy(**policy), self.profiles, folder / "taxonomy.yaml", AS_OF)
        self.records, self.choices = Records(folder / "records"), Choices(self.profiles)

    def write(self, events: list[dict[str, Any]]) -> None:
        pq.write_table(pa.Table.from_pylist(events, EVENTS), self.folder / "events.parquet")

    def add(self, events: list[dict[str, Any]]) -> None:
        """Fold new events in."""
        self.write(events)
        update(self.folder / "events.parquet", self.folder / "tags.parquet", self.profiles, taxonomy=self.folder / "taxonomy.yaml")

    @property
    def snapshot(self) -> Snapshot:
        return load(self.profiles)

    def audience(self, rule: str = RUNNERS, **more: Any) -> Audience:
        path = self.folder / "runners.yaml"
        path.write_text(
            json.dumps({"name": "runners", "description": "Läufer 🏃", "purpose": "advertising", "rule": rule, **more}), encoding="utf-8"
        )
        return checked(read_audience(path), self.snapshot)

    def export(
        self, name: str = "out.csv", destination: str = "csv", audience: Audience | None = None, **more: Any
    ) -> dict[str, Any] | None:
        settings = parse(Destinations, {**SMALL, "openrtb": {"provider": "shop.example"}}, "here")
        more = {"settings": settings, "by": "ann", **more}
        return export(
            audience or self.audience(),
            self.snapshot,
            self.folder / "out" / name,
            destination,
            records=self.records,
            choices=self.choices,
            **more,
        )

    def identities(self, text: str) -> Any:
        (self.folder / "identities.csv").write_text(text, encoding="utf-8")
        return read_identities(self.folder / "identities.csv")

    def rows(self, name: str = "out.csv") -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((self.folder / "out" / name).read_bytes().decode("utf-8"), newline="")))

    def users(self, name: str = "out.csv") -> set[str]:
        return {row["user_id"] for row in self.rows(name)}

    @property
    def files(self) -> list[str]:
        return sorted(each.name for each in (self.folder / "out").iterdir()) if (self.folder / "out").exists() else []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def numbered(numbers: Any) -> set[str]:
    return {f"u{n:02}" for n in numbers}


def emails(numbers: Any) -> str:
    return "user_id,email,country\n" + "".join(f"u{n:02},user{n}@example.com,US\n" for n in numbers)


def test_the_file_holds_each_member_once_by_falling_weight(desk: Desk) -> None:
    desk.export()
    rows = desk.rows()
    assert list(rows[0]) == ["user_id", "weight", "last_at"]
    assert sorted(row["user_id"] for row in rows) == sorted(numbered(range(56)))
    weights = [float(row["weight"]) for row in rows]
    assert weights == sorted(weights, reverse=True)
    assert all(0 < weight < 1 for weight in weights)
    assert datetime.fromisoformat({row["user_id"]: row["last_at"] for row in rows}["u10"]) == AS_OF - timedelta(days=10)


def test_the_label_beside_it_says_what_the_audience_is(desk: Desk) -> None:
    label = desk.export(audience=desk.audience(owner="ann@example.com", refresh="weekly"))
    assert label is not None
    assert json.loads((desk.folder / "out" / "out.csv.label.json").read_text(encoding="utf-8")) == label
    assert desk.files == ["out.csv", "out.csv.label.json"]
    assert label["audience"] == {
        "name": "runners",
        "standard_name": [],  # these interests have no ids in the IAB's table
        "description": "Läufer 🏃",
        "geography": "",
        "count": 56,
        "precision_level": "individual",
        "match_key": "user id",
        "expansion": "none",
        "last_refresh": AS_OF.isoformat(),
        "look_back_window": "55 days; weights: all events, decayed by half every 90 days",
    }
    assert label["data"]["origin"] == "texts of interaction events: reviews, shop, social"
    assert label["data"]["source_refresh_frequency"] == "weekly"
    assert label["penchant"]["rule"] == RUNNERS
    assert label["penchant"]["owner"] == "ann@example.com"


def test_an_export_is_logged_with_who_what_when_why_and_of_what(desk: Desk) -> None:
    label = desk.export(reason="spring campaign")
    assert label is not None
    (entry,) = desk.records.audit.entries()
    snapshot = desk.snapshot
    assert {
        name: entry[name] for name in ("what", "by", "segment", "destination", "purpose", "reason", "people", "file", "rule", "refresh")
    } == {
        "what": "export",
        "by": "ann",
        "segment": "runners",
        "destination": "csv",
        "purpose": "advertising",
        "reason": "spring campaign",
        "people": 56,
        "file": "out.csv",
        "rule": RUNNERS,
        "refresh": 1,
    }
    assert (entry["policy"], entry["bundle"], entry["profiles_version"]) == (snapshot.policy.fingerprint, "unknown", 0)
    assert label["penchant"]["audit_hash"] == entry["hash"]
    found = verify(desk.records.folder / AUDIT, [label["penchant"]["audit_hash"]])
    assert (found.entries, found.problems) == (1, ())


@pytest.mark.parametrize(
    ("rule", "more", "message"),
    [
        ("interest:pets", {}, "'runners' has fewer than 50 people, under the minimum of 50 for csv: not exported"),
        ("interest:chess", {}, "'runners' has fewer than 50 people"),
        (RUNNERS, {"min_size": 57}, "'runners' has 56 people, under the minimum of 57"),
        (RUNNERS, {"expires": "2020-01-01"}, "'runners' expired on 2020-01-01: not exported"),
        (RUNNERS, {"legal_basis": "consent"}, "'runners' has fewer than 50 people"),  # nobody consented
    ],
)
def test_what_may_not_be_exported_is_refused_and_nothing_written(rule: str, more: dict[str, Any], message: str, desk: Desk) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        desk.export(audience=desk.audience(rule, **more))
    assert message in str(caught.value)
    assert desk.files == []
    assert list(desk.records.audit.entries()) == []


def test_a_destination_has_a_minimum_of_its_own(desk: Desk) -> None:
    with pytest.raises(PolicyRefusal, match=r"56 people, under the minimum of 1,000 for tiktok"):
        desk.export("a.csv", "tiktok", settings=Destinations(), identities=desk.identities(emails(range(56))))
    assert desk.files == []


def test_a_refusal_leaves_the_last_export_alone(desk: Desk) -> None:
    desk.export()
    before = {each.name: each.read_bytes() for each in (desk.folder / "out").iterdir()}
    with pytest.raises(PolicyRefusal):
        desk.export(audience=desk.audience(min_size=1000))
    assert {each.name: each.read_bytes() for each in (desk.folder / "out").iterdir()} == before


def test_who_opted_out_or_withdrew_consent_is_in_no_export_from_that_moment(desk: Desk) -> None:
    desk.export()
    desk.choices.opt_out("u03")
    desk.choices.consent("u04", "advertising", "denied")
    desk.choices.consent("u05", "newsletter", "denied")  # something else
    desk.export()
    assert desk.users() == numbered(range(56)) - {"u03", "u04"}
    desk.choices.lift_opt_out("u03")
    desk.choices.consent("u04", "advertising", "granted")
    desk.export()
    assert desk.users() == numbered(range(56))


def test_under_the_basis_of_consent_those_alone_are_exported_who_gave_it(desk: Desk) -> None:
    desk.choices.record([{"user_id": f"u{n:02}", "purpose": "advertising", "status": "granted"} for n in range(52)])
    desk.choices.opt_out("u00")
    desk.export(audience=desk.audience(legal_basis="consent"))
    assert desk.users() == numbered(range(1, 52))


def test_who_has_to_be_removed_from_a_destination_is_listed_once(desk: Desk) -> None:
    """u00 to u55 are exported; then u02 opts out, u56 and u57 run today, and with them the days go on: u55 ran 55 days before the new instant."""
    desk.export("first.csv", "jsonl")
    assert desk.records.naming(["u02"]) == [("runners", "jsonl")]
    desk.choices.opt_out("u02")
    assert desk.export("remove.csv", "jsonl", only="remove", settings=Destinations()) is not None
    assert [json.loads(line)["user_id"] for line in (desk.folder / "out" / "remove.csv").read_text().splitlines()] == ["u02"]
    assert desk.export("remove.csv", "jsonl", only="remove") is None  # it was told
    assert desk.records.naming(["u02"]) == []
    assert desk.export("add.csv", "jsonl", only="add") is None
    desk.add([event(1000 + n, f"u{n}", "sports.running", 0) for n in (56, 57)])
    assert desk.export("add.csv", "jsonl", only="add") is not None
    assert {json.loads(line)["user_id"] for line in (desk.folder / "out" / "add.csv").read_text().splitlines()} == {"u56", "u57"}
    assert desk.records.naming(["u57"]) == [("runners", "jsonl")]
    assert [each["what"] for each in desk.records.audit.entries()] == ["export", "export of removals", "export of additions"]


def test_removing_is_refused_neither_for_size_nor_expiry(desk: Desk) -> None:
    desk.export("first.csv")
    assert desk.export("remove.csv", only="remove", audience=desk.audience("interest:pets", expires="2020-01-01")) is not None
    assert desk.users("remove.csv") == numbered(range(56)) - numbered(range(0, 56, 5))
    assert "remove.csv.label.json" not in desk.files


def test_a_list_for_a_platform_comes_from_the_identity_table(desk: Desk) -> None:
    identities = desk.identities(emails(range(56)) + "u00,nonsense,US\nu99,other@example.com,US\n")
    label = desk.export("meta.csv", "meta", identities=identities)
    assert label is not None
    assert (label["audience"]["count"], label["audience"]["match_key"]) == (56, "hashed e-mail, hashed phone, device id")
    rows = desk.rows("meta.csv")
    assert len(rows) == 56
    assert list(rows[0]) == ["email", "phone", "madid", "fn", "ln", "ct", "st", "zip", "country", "dob", "gen", "uid", "value"]
    assert "38121022af9b425b5dbf9b56823cf14183bd617022a8bc39a5843c9d7035d039" in {
        row["email"] for row in rows
    }  # printf %s user7@example.com | sha256sum
    rejects = desk.rows("meta.csv.rejects.csv")
    assert [(row["row"], row["identifier"]) for row in rejects if row["identifier"] != "row"] == [("58", "email")]
    assert "nonsense" not in (desk.folder / "out" / "meta.csv.rejects.csv").read_text()
    assert label["penchant"]["dropped"]["email: expected an e-mail address such as ann@example.com"] == 1


def test_google_takes_europeans_by_their_consent_alone(desk: Desk) -> None:
    text = emails(range(56)).replace("user3@example.com,US", "user3@example.com,DE").replace("user4@example.com,US", "user4@example.com,FR")
    for purpose in ("ad_user_data", "ad_personalization"):
        desk.choices.consent("u03", purpose, "granted")
    desk.choices.consent("u04", "ad_user_data", "granted")
    desk.export("google.csv", "google", identities=desk.identities(text))
    assert len(desk.rows("google.csv")) == 55
    assert desk.records.naming(["u03"]) == [("runners", "google")]
    assert desk.records.naming(["u04"]) == []


def test_a_list_for_a_platform_needs_an_identity_table(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="name the table that has them: --identities FILE"):
        desk.export("meta.csv", "meta")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (emails(range(30)), "fewer than 50 people after dropping what can't be used"),
        ("user_id,email\n" + "".join(f"u{n:02},nonsense\n" for n in range(56)), "expected an e-mail address such as ann@example.com"),
        ("user_id,email\n" + "".join(f"u{n:02},same@example.com\n" for n in range(56)), "shared by several people"),
    ],
)
def test_an_identity_table_of_nonsense_writes_no_file(text: str, message: str, desk: Desk) -> None:
    with pytest.raises((DataError, PolicyRefusal)) as caught:
        desk.export("meta.csv", "meta", identities=desk.identities(text))
    assert message in str(caught.value)
    assert desk.files == []
    assert desk.records.naming(["u00"]) == []


def test_bid_requests_name_the_interests_of_the_rule_by_their_outside_ids(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ConfigError, match="none of its interests has an id in an outside table"):
        desk.export("users.jsonl", "openrtb")
    folder = tmp_path_factory.mktemp("iab")
    other = Desk(folder)
    text = TAXONOMY.replace("name: Running}", 'name: Running, iab: "410"}')
    (folder / "taxonomy.yaml").write_text(text, encoding="utf-8")
    build(folder / "events.parquet", folder / "tags.parquet", Policy(), other.profiles, folder / "taxonomy.yaml", AS_OF)
    other.export("users.jsonl", "openrtb")
    lines = [json.loads(line)["user"] for line in (folder / "out" / "users.jsonl").read_text().splitlines()]
    assert len(lines) == 56
    (data,) = lines[0]["data"]
    assert data["ext"] == {"segtax": 4}
    (segment,) = data["segment"]
    assert (segment["id"], segment["name"]) == ("410", "Running")  # trail running, which has none of its own, counts for it
    assert 0 < float(segment["value"]) < 1


def test_removals_from_bid_requests_say_nothing_of_interests(tmp_path: Path) -> None:
    (tmp_path / "iab").mkdir()
    desk = Desk(tmp_path / "iab")
    text = TAXONOMY.replace("name: Running}", 'name: Running, iab: "410"}')
    (desk.folder / "taxonomy.yaml").write_text(text, encoding="utf-8")
    build(desk.folder / "events.parquet", desk.folder / "tags.parquet", Policy(), desk.profiles, desk.folder / "taxonomy.yaml", AS_OF)
    desk.export("users.jsonl", "openrtb")
    desk.choices.opt_out("u02")
    desk.export("remove.jsonl", "openrtb", only="remove")
    (line,) = (desk.folder / "out" / "remove.jsonl").read_text(encoding="utf-8").splitlines()
    user = json.loads(line)["user"]
    assert user["eids"] == [{"source": "shop.example", "uids": [{"id": "u02", "atype": 3}]}]
    assert [each["segment"] for each in user["data"]] == [[]]
    assert desk.records.naming(["u02"]) == []


def test_a_segment_too_small_for_want_of_consent_is_told_from_one_whose_rule_is_narrow(desk: Desk) -> None:
    with pytest.raises(PolicyRefusal, match="its legal basis is consent, and too few gave it for 'nobody-asked'"):
        desk.export(audience=desk.audience(purpose="nobody-asked", legal_basis="consent"))
    for n in range(60):
        desk.choices.opt_out(f"u{n:02}")
    with pytest.raises(PolicyRefusal, match="too many said no"):
        desk.export()
    assert desk.files == []


def test_people_found_by_a_sensitive_interest_go_to_no_platform_even_where_that_is_permitted(tmp_path: Path) -> None:
    events = [event(n, f"u{n:02}", "life.health", 1) for n in range(60)]
    desk = Desk(tmp_path, events, allowed_sensitive=permits("life.health"))
    audience = desk.audience("interest:life.health")
    assert desk.export(audience=audience) is not None
    (entry,) = desk.records.audit.entries()
    assert entry["sensitive"] == [{"interest": "life.health", "purpose": "advertising", "ground": "explicit consent, form 7 of 2026"}]
    for destination in ("meta", "openrtb"):
        with pytest.raises(PolicyRefusal, match=r"life\.health: sensitive\. A permit in the policy covers your own use"):
            desk.export("meta.csv", destination, audience=audience, identities=desk.identities(emails(range(60))))


def test_a_jump_in_size_stops_exports_until_somebody_accepts_it(desk: Desk) -> None:
    audience = desk.audience(largest_jump=0.05)
    desk.export(audience=audience)
    desk.add([event(1000 + n, f"u{n}", "sports.running", 0) for n in range(56, 60)])
    with pytest.raises(PolicyRefusal, match="jumped from 56 to 60 people at refresh 2, by more than 5%, under the same rule"):
        desk.export(audience=audience)
    with pytest.raises(PolicyRefusal, match="jumped from 56 to 60"):
        desk.export(audience=audience, only="add")
    desk.records.of("runners").accept("ann", "a race was held")
    assert desk.export(audience=audience) is not None
    assert len(desk.users()) == 60


def test_names_that_csv_finds_hard_come_back_as_they_were(tmp_path: Path) -> None:
    names = [
        "o'brien",
        'say "hi"',
        "a,b",
        "a;b",
        "a\tb",
        "line\nbreak",
        "line\r\nbreak",
        " padded ",
        "猫 🐈",
        "=1+1",
        "NULL",
        "007",
        "x" * 10_000,
    ]
    names += [f"filler {n}" for n in range(50 - len(names))]
    desk = Desk(tmp_path, [event(n, name, "pets.cats", 1) for n, name in enumerate(names)])
    desk.export(audience=desk.audience("interest:pets"))
    assert sorted(row["user_id"] for row in desk.rows()) == sorted(names)


def test_a_folder_in_the_place_of_the_file_is_left_alone(desk: Desk) -> None:
    (desk.folder / "out" / "out.csv").mkdir(parents=True)
    (desk.folder / "out" / "out.csv" / "kept").write_bytes(b"kept")
    with pytest.raises(DataError, match=r"out\.csv: a folder"):
        desk.export()
    assert desk.files == ["out.csv"]
    assert list(desk.records.audit.entries()) == []


@pytest.mark.parametrize("where", ["penchant.segments.export.write", "penchant.segments.export.write_json"])
def test_an_export_that_fails_half_way_leaves_neither_list_nor_label(where: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, fail)
    with pytest.raises(KeyboardInterrupt):
        desk.export()
    assert desk.files == []


def test_every_form_of_our_own_holds_the_same_people(desk: Desk) -> None:
    for name, destination in (("a.csv", "csv"), ("a.parquet", "parquet"), ("a.jsonl", "jsonl")):
        desk.export(name, destination)
    people = [row["user_id"] for row in desk.rows("a.csv")]
    assert pq.read_table(desk.folder / "out" / "a.parquet")["user_id"].to_pylist() == people
    assert [json.loads(line)["user_id"] for line in (desk.folder / "out" / "a.jsonl").read_text().splitlines()] == people


def test_a_segment_is_exported_up_to_its_last_day(desk: Desk) -> None:
    refresh = desk.records.of("runners").refresh(desk.audience(), desk.snapshot, "ann")
    last = date(2026, 3, 31)
    audience = desk.audience(expires=last.isoformat())
    require_exportable(audience, refresh, last)
    with pytest.raises(PolicyRefusal, match="expired on 2026-03-31"):
        require_exportable(audience, refresh, last + timedelta(days=1))


@pytest.mark.parametrize("only", [None, "add", "remove"])
def test_whoever_may_be_at_a_destination_is_known_to_be_there_when_an_export_is_killed(
    only: Any, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the list is put in place: who was added counts as there, and who was removed is listed again."""
    if only is not None:
        desk.export()
    if only == "add":
        desk.add([event(1000 + n, f"u{n}", "sports.running", 0) for n in (56, 57)])
    desk.choices.opt_out("u02")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("penchant.segments.export.write_json", killed)
        patch.setattr("penchant.files.sync", killed if only == "remove" else lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            desk.export("out2.csv", only=only)
    there = set(desk.records.of("runners").delivered("csv")["user_id"].to_pylist())
    assert there >= {None: numbered(range(56)) - {"u02"}, "add": numbered(range(58)), "remove": numbered(range(56))}[only]
    assert "out2.csv" not in desk.files
    assert desk.export("out2.csv", only=only) is not None or only == "add"


def test_a_segment_that_another_names_goes_by_the_purpose_of_the_one_that_is_exported(tmp_path: Path) -> None:
    desk = Desk(tmp_path, allowed_sensitive=permits("life.health", purpose="study"))
    (tmp_path / "ill.yaml").write_text("name: ill\npurpose: study\nrule: interest:life.health\n")
    with pytest.raises(PolicyRefusal, match=r"ill\.yaml: life\.health: sensitive.*the purpose \(advertising\)"):
        desk.audience("interest:sports and not segment:ill")
    assert desk.audience("interest:sports and not segment:ill", purpose="study")
