"""Audiences in each destination's own form: golden files, what is left out and why, and what never goes out."""

import csv
import io
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.config import load, parse
from penchant.errors import ConfigError, DataError
from penchant.files import written_aside
from penchant.segments import normal
from penchant.segments.customer_list import Listing
from penchant.segments.destinations import NAMES, NEEDS_IDENTITIES, Destinations, listing, write
from penchant.segments.identity import Identities, read_identities

GOLDEN = Path(__file__).parent / "golden"
CUSTOMER_LISTS = ("google", "meta", "tiktok", "linkedin")
AT = datetime(2026, 3, 29, 12, tzinfo=UTC)


def settings(**keys: Any) -> Destinations:
    return parse(Destinations, keys, "here")


def audience(*users: str, consent: bool | None = None) -> pa.Table:
    """People with weights, of whom all, none or nobody knows who consented to advertising."""
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "weight": pa.array([0.5] * len(users), pa.float64()),
            "last_at": pa.array([AT] * len(users), pa.timestamp("us", tz="UTC")),
            "ad_consent": pa.array([consent] * len(users), pa.bool_()),
        }
    )


@pytest.fixture
def identities(tmp_path: Path) -> Any:
    """Make an identity table from CSV."""

    def make(text: str) -> Identities:
        path = tmp_path / "people.csv"
        path.write_text(text, encoding="utf-8")
        return read_identities(path)

    return make


def text_of(name: str, listed: Listing, folder: Path) -> str:
    """The file as it would be sent."""
    with written_aside(folder / "out") as aside:
        write(name, Destinations(), listed, aside)
    return (folder / "out").read_bytes().decode("utf-8")


@pytest.mark.parametrize("name", CUSTOMER_LISTS)
def test_customer_lists_are_the_golden_files_byte_for_byte(name: str, tmp_path: Path) -> None:
    """The cells' normal forms were written by hand from the platforms' rules, and hashed by `printf %s … | sha256sum`."""
    people = audience("u1", "u2", "u3", consent=True)
    listed = listing(name, settings(default_region="US"), people, read_identities(GOLDEN / "identities.csv"))
    assert text_of(name, listed, tmp_path) == (GOLDEN / f"{name}.csv").read_text(encoding="utf-8")
    assert listed.people.to_pylist() == ["u1", "u2", "u3"]
    expected = {("phone", normal.NOT_A_PHONE): 1} if name != "linkedin" else {}
    assert listed.dropped == expected


@pytest.mark.parametrize("name", CUSTOMER_LISTS)
def test_no_raw_identifier_is_in_a_customer_list(name: str, tmp_path: Path) -> None:
    listed = listing(
        name, settings(default_region="US"), audience("u1", "u2", "u3", consent=True), read_identities(GOLDEN / "identities.csv")
    )
    text = text_of(name, listed, tmp_path).lower() + str(listed.rejects.to_pylist()) + str(listed.dropped)
    for raw in ("@", "5551212", "555-1212", "4960123", "not a number", "u1", "u2"):
        assert raw not in text


def test_openrtb_lines_are_the_golden_file(tmp_path: Path) -> None:
    """Written by hand after OpenRTB 2.6 (3.2.20 to 3.2.22, 3.2.27)."""
    interests = [
        [{"id": "207", "name": "Läufer 🏃", "value": 0.83}, {"id": "410", "name": None, "value": 0.0001}],
        [],
        None,
    ]
    kind = pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("value", pa.float64())]))
    people = audience("u1", "u2", "u3").append_column("interests", pa.array(interests, kind))
    listed = listing("openrtb", settings(openrtb={"provider": "provider.example"}), people)
    assert text_of("openrtb", listed, tmp_path) == (GOLDEN / "openrtb.jsonl").read_text(encoding="utf-8")
    assert listed.people.to_pylist() == ["u1"]
    assert listed.dropped == {("person", "no interest of the outside taxonomy"): 2}


def test_openrtb_has_the_shape_of_the_specification(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("value", pa.float64())]))
    people = audience('u"1\n').append_column("interests", pa.array([[{"id": "1", "name": "a\n", "value": 1.0}]], kind))
    choice = settings(openrtb={"provider": "a.example", "data_id": "d", "segtax": 500, "eid_source": "b.example", "atype": 1})
    (line,) = text_of("openrtb", listing("openrtb", choice, people), tmp_path).splitlines()
    assert json.loads(line) == {
        "user": {
            "data": [{"id": "d", "name": "a.example", "ext": {"segtax": 500}, "segment": [{"id": "1", "name": "a\n", "value": "1"}]}],
            "eids": [{"source": "b.example", "uids": [{"id": 'u"1\n', "atype": 1}]}],
        }
    }


def test_openrtb_needs_a_provider() -> None:
    with pytest.raises(ConfigError, match="set openrtb.provider to your domain"):
        listing("openrtb", settings(), audience("u1"))


def test_plain_files_hold_user_weight_and_last_time(tmp_path: Path) -> None:
    people = audience("u1", 'ü🏃,"\x00').set_column(1, "weight", pa.array([0.25, None], pa.float64()))
    people = people.set_column(2, "last_at", pa.array([AT, None], pa.timestamp("us", tz="UTC")))
    assert text_of("csv", listing("csv", settings(), people), tmp_path) == (
        'user_id,weight,last_at\nu1,0.25,2026-03-29T12:00:00+00:00\n"ü🏃,""\x00",,\n'
    )
    lines = [json.loads(line) for line in text_of("jsonl", listing("jsonl", settings(), people), tmp_path).splitlines()]
    assert lines == [
        {"user_id": "u1", "weight": 0.25, "last_at": "2026-03-29T12:00:00+00:00"},
        {"user_id": 'ü🏃,"\x00', "weight": None, "last_at": None},
    ]
    write("parquet", settings(), listing("parquet", settings(), people), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(people.select(["user_id", "weight", "last_at"]))


def test_a_weight_that_is_no_number_is_blank(tmp_path: Path) -> None:
    people = audience("u1").set_column(1, "weight", pa.array([float("nan")]))
    assert json.loads(text_of("jsonl", listing("jsonl", settings(), people), tmp_path))["weight"] is None


@pytest.mark.parametrize("name", [*CUSTOMER_LISTS, "csv", "parquet", "jsonl"])
def test_an_empty_audience_gives_a_header_alone(name: str, tmp_path: Path, identities: Any) -> None:
    listed = listing(name, settings(), audience(), identities("user_id,email\nu1,ann@example.com\n"))
    assert len(listed.table) == len(listed.people) == len(listed.rejects) == 0
    if name in CUSTOMER_LISTS:
        assert text_of(name, listed, tmp_path) == (GOLDEN / f"{name}.csv").read_text(encoding="utf-8").splitlines(keepends=True)[0]


def test_one_bad_identifier_costs_its_cell_and_not_its_row(identities: Any) -> None:
    found = identities(
        "user_id,email,phone,zip,country\n"
        "u1,ann,+441174960123,BS1 4ST,GB\n"  # no address
        "u2,bob@example.com,12,9,GB\n"  # no phone, no postal code
        "u3,cat@example.com,+14155550123,94035,US\n"
    )
    listed = listing("google", settings(), audience("u3", "u2", "u1", consent=True), found)
    assert listed.table.select(["Email", "Phone", "Zip", "Country"]).to_pylist() == [
        {"Email": normal.sha256("cat@example.com"), "Phone": normal.sha256("+14155550123"), "Zip": "94035", "Country": "us"},
        {"Email": normal.sha256("bob@example.com"), "Phone": "", "Zip": "", "Country": "gb"},
        {"Email": "", "Phone": normal.sha256("+441174960123"), "Zip": "BS1 4ST", "Country": "gb"},
    ]
    assert listed.rejects.to_pylist() == [
        {"row": 3, "identifier": "phone", "reason": "expected a telephone number such as +44 117 496 0123"},
        {"row": 3, "identifier": "zip", "reason": "expected a postal code such as 94035 or WC2H 8LG"},
        {"row": 2, "identifier": "email", "reason": "expected an e-mail address such as ann@example.com"},
    ]
    assert listed.dropped == Counter((each["identifier"], each["reason"]) for each in listed.rejects.to_pylist())


def test_rows_without_anything_to_match_by_are_dropped_and_counted(identities: Any) -> None:
    found = identities("user_id,email,device_id,first_name\nu1,,,Ann\nu2,,38400000-8cf0-11bd-b23e-10b96e40000d,Bob\nu3,c@example.com,,\n")
    listed = listing("google", settings(google={"consent_region": []}), audience("u1", "u2", "u3", "u4"), found)
    assert listed.people.to_pylist() == ["u3"]  # Google's list takes no device id
    assert listed.dropped == {("row", "nothing left to match by"): 2, ("person", "not in the identity table"): 1}


def test_equal_rows_are_written_once(identities: Any) -> None:
    found = identities("user_id,email\nu1,a.nn@gmail.com\nu1,Ann@gmail.com\nu1,ann@example.com\n")
    listed = listing("google", settings(google={"consent_region": []}), audience("u1", "u1"), found)
    assert listed.table["Email"].to_pylist() == [normal.sha256("ann@gmail.com"), normal.sha256("ann@example.com")]
    assert listed.dropped == {("row", "same as a row before"): 1}


@pytest.mark.parametrize(
    "other",
    ["ANN@example.com ", normal.sha256("ann@example.com"), normal.sha256("ann@example.com").upper()],
    ids=["plain", "hashed", "hashed in capitals"],
)
@pytest.mark.parametrize("name", CUSTOMER_LISTS)
def test_what_several_people_share_reaches_none_of_them(name: str, other: str, identities: Any) -> None:
    """u9 isn't in the audience: it may have opted out."""
    found = identities(f"user_id,email,phone,country\nu1,ann@example.com,+14155550123,US\nu2,bob@example.com,,US\nu9,{other},,US\n")
    listed = listing(name, settings(), audience("u1", "u2"), found)
    assert normal.sha256("ann@example.com") not in str(listed.table.to_pylist())
    assert listed.dropped["email", "shared by several people"] == 1
    assert listed.people.to_pylist() == (["u2"] if name == "linkedin" else ["u1", "u2"])  # whose list takes no phone


def test_what_is_shared_is_told_by_the_destinations_own_form(identities: Any) -> None:
    found = identities("user_id,email\nu1,a.nn@gmail.com\nu9,ann+x@gmail.com\n")
    assert len(listing("google", settings(google={"consent_region": []}), audience("u1"), found).table) == 0
    assert len(listing("meta", settings(), audience("u1"), found).table) == 1  # two addresses there


def test_shared_identifiers_are_not_malformed(identities: Any) -> None:
    found = identities("user_id,email,phone\n" + "".join(f"u{n},house@example.com,+1415555{n:04}\n" for n in range(100, 200)))
    listed = listing("meta", settings(rejected_share=0), audience(*(f"u{n}" for n in range(100, 200))), found)
    assert len(listed.table) == 100
    assert listed.dropped == {("email", "shared by several people"): 100}


def test_external_ids_are_one_persons_too(identities: Any) -> None:
    found = identities("user_id,email,external_id\nu1,a@example.com,7\nu2,b@example.com,7\nu3,c@example.com,8\n")
    listed = listing("meta", settings(), audience("u1", "u2", "u3"), found)
    assert listed.table["uid"].to_pylist() == ["", "", "8"]


@pytest.mark.parametrize(
    ("country", "needed"),
    [
        ("DE", True),
        ("germany", True),
        ("GB", True),
        ("CH", True),
        ("NO", True),
        ("RE", True),
        ("", True),
        ("Atlantis", True),
        ("US", False),
    ],
)
def test_google_takes_nobody_from_the_consent_region_without_consent(country: str, needed: bool, identities: Any) -> None:
    found = identities(f"user_id,email,country\nu1,ann@example.com,{country}\n")
    for consent in (None, False):
        listed = listing("google", settings(), audience("u1", consent=consent), found)
        assert listed.people.to_pylist() == ([] if needed else ["u1"])
        assert listed.dropped["person", "no consent to ad_user_data and ad_personalization"] == needed
    assert listing("google", settings(), audience("u1", consent=True), found).people.to_pylist() == ["u1"]
    assert listing("google", settings(), audience("u1").drop_columns("ad_consent"), found).people.to_pylist() == ([] if needed else ["u1"])
    assert listing("meta", settings(), audience("u1"), found).people.to_pylist() == ["u1"]


def test_one_row_in_the_consent_region_is_enough(identities: Any) -> None:
    found = identities("user_id,email,country\nu1,a@example.com,US\nu1,b@example.com,FR\nu2,c@example.com,US\nu2,d@example.com,\n")
    assert listing("google", settings(), audience("u1", "u2"), found).people.to_pylist() == ["u2"]


def test_the_persons_own_country_beats_the_default_region(identities: Any) -> None:
    found = identities("user_id,phone,country\nu1,030 901820,DE\nu2,(415) 555-0123,\nu3,030 901820,Atlantis\nu4,030 901820,\n")
    listed = listing("meta", settings(default_region="US"), audience("u1", "u2", "u3", "u4"), found)
    assert listed.table["phone"].to_pylist() == [normal.sha256("4930901820"), normal.sha256("14155550123")]
    assert listed.dropped["phone", "no country code"] == 1  # no guess for Atlantis
    assert listed.dropped["phone", normal.NOT_A_PHONE] == 1  # none in the US


def test_a_table_that_looks_wrong_is_refused_with_reasons_and_rows(identities: Any) -> None:
    rows = "".join(f"u{n},Ann Secret{n},+1415555{n:04}\n" for n in range(100, 160))
    found = identities("user_id,phone,email\n" + rows)  # two columns swapped
    with pytest.raises(DataError) as refusal:
        listing("meta", settings(), audience(*(f"u{n}" for n in range(100, 160))), found)
    message = str(refusal.value)
    assert "people.csv: 120 of 120 identifiers" in message
    assert "rejected_share (0.5)" in message
    assert "nothing is written for meta" in message
    assert "email: expected an e-mail address such as ann@example.com: 60" in message
    assert "row 2: email: expected an e-mail address such as ann@example.com" in message
    assert "Secret" not in message
    assert "5550100" not in message


def test_exactly_the_rejected_share_is_let_through(identities: Any) -> None:
    found = identities("user_id,email\nu1,ann@example.com\nu2,bob\nu9,cat\nu9,dog\n")  # u9 isn't in the audience
    assert len(listing("meta", settings(), audience("u1", "u2"), found).table) == 1
    with pytest.raises(DataError, match="1 of 2 identifiers"):
        listing("meta", settings(rejected_share=0.49), audience("u1", "u2"), found)


@pytest.mark.parametrize("name", CUSTOMER_LISTS)
def test_a_column_nobody_has_stays_in_the_header(name: str, identities: Any) -> None:
    listed = listing(name, settings(), audience("u1", consent=True), identities("user_id,email\nu1,ann@example.com\n"))
    assert listed.table.column_names == list(getattr(Destinations(), name).header)
    assert len(listed.table) == 1


def test_headers_and_tiktoks_forms_are_settings(identities: Any, tmp_path: Path) -> None:
    found = identities("user_id,email,phone\nu1,ann+x@example.com,+14155550123\n")
    choice = settings(tiktok={"header": {"PHONE": "phone", "Email": "email"}, "phone_plus": True, "drop_tag": False})
    text = text_of("tiktok", listing("tiktok", choice, audience("u1"), found), tmp_path)
    assert text == f"PHONE,Email\n{normal.sha256('+14155550123')},{normal.sha256('ann+x@example.com')}\n"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"google": {"header": {"Email": "emial"}}}, "not an identifier of this destination: 'emial'; did you mean 'email'?"),
        ({"google": {"header": {"City": "city"}}}, "not an identifier of this destination: 'city'"),
        ({"meta": {"header": {"a": "email", "b": "email"}}}, "an identifier stands in two columns"),
        ({"linkedin": {"header": {"firstname": "first_name"}}}, "nothing to match by; it takes email, device_id"),
        ({"google": {"consent_region": ["UK"]}}, "no ISO 3166 alpha-2 code such as DE: UK"),
        ({"google": {"consent_region": ["de"]}}, "no ISO 3166 alpha-2 code such as DE: de"),
        ({"tiktok": {"min_size": 49}}, "greater than or equal to 50"),
        ({"default_region": "UK"}, "no ISO 3166 alpha-2 region with telephone numbers, such as US or GB"),
        ({"columns": {"mail": "m"}}, "no column of an identity table: 'mail'; did you mean 'email'"),
        ({"rejected_share": 1.5}, "less than or equal to 1"),
        ({"tictoc": {}}, "unknown key 'tictoc'; did you mean 'tiktok'?"),
    ],
)
def test_settings_that_cannot_be_are_refused(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings(**keys)
    assert expected in str(refusal.value)


def test_the_example_is_the_defaults_and_explains_each_key(root: Path) -> None:
    path = root / "configs" / "destinations.yaml"
    assert load(Destinations, path) == Destinations()
    lines = path.read_text(encoding="utf-8").splitlines()
    assert all("#" in line for line in lines)
    assert load(Destinations, path).model_dump(exclude_unset=True) == Destinations().model_dump()


def test_smallest_lists_are_the_platforms() -> None:
    assert {name: getattr(Destinations(), name).min_size for name in NAMES} == {
        "csv": 50,
        "parquet": 50,
        "jsonl": 50,
        "openrtb": 50,
        "google": 100,
        "meta": 100,
        "tiktok": 1000,
        "linkedin": 300,
    }
    assert set(CUSTOMER_LISTS) == NEEDS_IDENTITIES


def test_unknown_destinations_and_missing_identities_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown destination 'goggle'; did you mean 'google'?"):
        listing("goggle", settings(), audience("u1"))
    with pytest.raises(ConfigError, match="google: needs an identity table"):
        listing("google", settings(), audience("u1"))


def test_an_interrupted_write_leaves_the_file_before_it(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before", encoding="utf-8")
    unwritable = Listing(pa.table({"user_id": [b"\xff"]}), pa.array(["u1"]))
    with pytest.raises(TypeError), written_aside(target) as aside:
        write("jsonl", settings(), unwritable, aside)  # bytes are no JSON
    assert [(each.name, each.read_text(encoding="utf-8")) for each in tmp_path.iterdir()] == [("out.csv", "before")]


CELLS = st.sampled_from(
    ["", "ann@example.com", "ANN@example.com", "bob@example.com", "no", normal.sha256("bob@example.com"), "cat@example.com"]
)


@given(
    rows=st.lists(st.tuples(st.sampled_from("abcd"), CELLS), min_size=1, max_size=12),
    users=st.lists(st.sampled_from("abcdx"), max_size=5),
)
def test_every_row_goes_out_or_is_accounted_for_and_no_one_elses_does(rows: list[tuple[str, str]], users: list[str]) -> None:
    table = pa.table({"row": range(2, len(rows) + 2), "user_id": [user for user, _ in rows], "email": [cell or None for _, cell in rows]})
    for name in read_identities(GOLDEN / "identities.csv").table.column_names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(rows), pa.string()))
    listed = listing("tiktok", settings(rejected_share=1), audience(*users), Identities(Path("people"), table, Counter()))

    def sent(cell: str) -> str:
        return cell.lower() if len(cell) == 64 else normal.sha256(cell.lower())

    owners: dict[str, set[str]] = {}
    for user, cell in rows:
        owners.setdefault(sent(cell), set()).add(user)
    expected = [
        sent(cell)
        for each in dict.fromkeys(users)
        for user, cell in rows
        if user == each and "@" in cell + ("@" if len(cell) == 64 else "") and owners[sent(cell)] == {each}
    ]
    assert listed.table["Email_SHA256"].to_pylist() == list(dict.fromkeys(expected))
    of_the_audience = [user for user, _ in rows if user in users]
    whole = sum(count for (identifier, _), count in listed.dropped.items() if identifier == "row")
    assert len(listed.table) + whole == len(of_the_audience)
    absent = set(users) - {user for user, _ in rows}
    assert listed.dropped["person", "not in the identity table"] == len(absent)
    again = listing("tiktok", settings(rejected_share=1), audience(*users), Identities(Path("people"), table, Counter()))
    assert again.table.equals(listed.table)
    assert again.rejects.equals(listed.rejects)


def test_a_quoted_line_break_in_a_name_stays_inside_its_cell(identities: Any, tmp_path: Path) -> None:
    found = identities('user_id,email,first_name,company\nu1,ann@example.com,"An\nn","a, ""b"""\n')
    text = text_of("linkedin", listing("linkedin", settings(), audience("u1"), found), tmp_path)
    assert list(csv.reader(io.StringIO(text, newline="")))[1][1:5] == ["An n", "", "", 'a, "b"']
