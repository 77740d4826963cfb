"""Normal forms and their hashes, by the platforms' own published examples in golden/vectors.csv.

Hashes there were made by `printf %s NORMAL | sha256sum`; where a platform prints one, the two were compared.
"""

import csv
import unicodedata
from pathlib import Path

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penchant.segments import normal
from penchant.segments.normal import Form, Malformed, cell
from penchant.segments.platforms import Google, LinkedIn, Meta, TikTok

GOLDEN = Path(__file__).parent / "golden"
FORMS = {
    "google": Google().forms(None),
    "meta": Meta().forms("%m/%d/%Y"),
    "tiktok": TikTok().forms(None),
    "tiktok+": TikTok(phone_plus=True, drop_tag=False).forms(None),
    "linkedin": LinkedIn().forms(None),
}
ALL = [(destination, identifier) for destination, forms in FORMS.items() for identifier in forms]
SHA256 = "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"
NEVER = {normal.sha256("")}


def vectors() -> list[dict[str, str]]:
    return list(csv.DictReader((GOLDEN / "vectors.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: f"{vector['destination']}-{vector['identifier']}-{vector['text']}")
def test_the_published_examples(vector: dict[str, str]) -> None:
    form = FORMS[vector["destination"]][vector["identifier"]]
    region = vector["region"] or None
    assert form.normalise(vector["text"], region) == vector["normal"], vector["source"]
    if form.hashed:
        assert cell(form, vector["text"], region) == vector["sha256"], vector["source"]


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("google", "annlee@gmail.com"),
        ("meta", "ann.lee+shop@gmail.com"),
        ("tiktok", "ann.lee@gmail.com"),
        ("tiktok+", "ann.lee+shop@gmail.com"),
        ("linkedin", "ann.lee+shop@gmail.com"),
    ],
)
def test_one_address_has_a_form_of_its_own_per_destination(destination: str, expected: str) -> None:
    assert FORMS[destination]["email"].normalise(" Ann.Lee+Shop@GMail.com\u00a0", None) == expected


def test_one_phone_never_has_the_same_hash_at_google_and_meta() -> None:
    google, meta = (cell(FORMS[each]["phone"], "(650)555-1212", "US") for each in ("google", "meta"))
    assert google == "1e231c66011e7a2d867a9cfae267a6aff103cf4913640b6e71a99850fc0ffbc8"
    assert meta == "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176"


@pytest.mark.parametrize(
    "text",
    [
        "ann",
        "ann@",
        "@example.com",
        "ann@example",
        "ann@example..com",
        "ann@-example.com",
        "ann lee@example.com",
        "a@b@example.com",
        "Ann <ann@example.com>",
        "ann@example.com, bob@example.com",
        "mailto:ann@example.com",
        "ann\x00@example.com",
        "+44 117 496 0123",
        "🏃",
        "a" * 65 + "@example.com",
        "ann@" + "a." * 200 + "com",
        "a" * 100_000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="expected an e-mail address such as ann@example.com"):
        normal.email(text)


@pytest.mark.parametrize("text", ["o'neil_1-2@sub.example.co.uk", "jörg@müller.example", "测试@例子.中国", "a@xn--fsq.xn--0zwm56d"])
def test_addresses_in_any_script_are_taken(text: str) -> None:
    assert normal.email(text) == text


@pytest.mark.parametrize("text", ["+tag@gmail.com", "...@gmail.com"])
def test_an_address_whose_name_is_nothing_but_a_tag_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        normal.email_google(text)
    with pytest.raises(Malformed):
        normal.email_untagged("+tag@example.com")


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("0117 496 0123", "GB", "+441174960123"),
        ("0044 117 496 0123", "DE", "+441174960123"),  # as dialled from Germany
        ("+44 (0)117 496 0123", None, "+441174960123"),
        ("tel:+44-117-496-0123", "US", "+441174960123"),
        ("06 698 12345", "IT", "+390669812345"),  # Italy keeps its zero
        ("٠١١٧ ٤٩٦ ٠١٢٣", "GB", "+441174960123"),
    ],
)
def test_a_phone_is_read_as_dialled_in_its_region(text: str, region: str | None, expected: str) -> None:
    assert normal.phone(text, region) == expected
    assert normal.phone_digits(text, region) == expected[1:]


@pytest.mark.parametrize("text", ["(650)555-1212", "16505551212", "0044 117 496 0123"])
def test_a_phone_without_country_code_and_region_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="^no country code$"):
        normal.phone(text, None)


@pytest.mark.parametrize(
    "text", ["", "none", "12", "+1 111 111 1111", "+999 123 456 789", "+44 117 496 0123 ext. 5", "ann@example.com", "9" * 300, "+"]
)
def test_what_is_no_phone_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="expected a telephone number"):
        normal.phone(text, "US")


def test_a_hash_passes_in_lower_case_and_is_not_hashed_again() -> None:
    for identifier in ("email", "phone", "first_name", "zip", "country", "date_of_birth"):
        assert cell(FORMS["meta"][identifier], f" {SHA256.upper()} ", None) == SHA256


@pytest.mark.parametrize("digits", [32, 40])
def test_other_hashes_are_refused(digits: int) -> None:
    for identifier in ("email", "phone", "device_id"):
        with pytest.raises(Malformed, match="hashed by another function"):
            cell(FORMS["meta"][identifier], SHA256[:digits].upper(), None)


def test_a_hash_where_the_plain_value_is_taken_is_refused() -> None:
    with pytest.raises(Malformed, match="hashed where this destination takes the plain value"):
        cell(FORMS["meta"]["device_id"], SHA256, None)
    for identifier in ("country", "zip"):
        with pytest.raises(Malformed, match="expected a"):
            cell(FORMS["google"][identifier], SHA256, None)


def test_advertising_ids_that_are_switched_off_or_none_are_refused() -> None:
    with pytest.raises(Malformed, match="switched off"):
        normal.device("00000000-0000-0000-0000-000000000000")
    with pytest.raises(Malformed, match="expected an advertising id"):
        normal.device("38400000-8cf0-11bd-b23e")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mrs. Ann", "ann"),
        ("Prof. Dr. Ann", "ann"),
        ("Dr", "dr"),
        ("O'Hara, Jr.", "o'hara"),
        ("  Mary \t Jane ", "mary jane"),
        ("King III", "king"),
    ],
)
def test_google_names_lose_titles_and_suffixes(text: str, expected: str) -> None:
    assert normal.name_google(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Jean-Luc", "jeanluc"), ("D’Arc ", "darc"), ("山田 太郎", "山田太郎"), ("नीतू", "नीतू"), ("Val\u0065\u0301ry", "valéry")],
)
def test_meta_names_lose_punctuation_and_keep_every_script(text: str, expected: str) -> None:
    assert normal.bare(text) == expected


@pytest.mark.parametrize("text", ["!!!", "\x00", "🏃", " "])
def test_the_hash_of_nothing_is_never_sent(text: str) -> None:
    with pytest.raises(Malformed):
        normal.bare(text)


def test_us_states_and_postal_codes_are_stricter_than_others() -> None:
    assert normal.zip_meta("94035-1234", "US") == "94035"
    assert normal.zip_google("94035-1234", "US") == "94035-1234"
    assert normal.zip_meta("SW1A 1AA", "GB") == "sw1a1aa"
    assert normal.state_meta("Île-de-France", "FR") == "îledefrance"
    for wrong in ("9403", "A1B 2C3", "940356"):
        with pytest.raises(Malformed, match="expected a postal code"):
            normal.zip_google(wrong, "US")
    with pytest.raises(Malformed, match="a US state's two letters, such as CA"):
        normal.state_meta("California", "US")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("de", "de"), ("Germany", "de"), ("UK", "gb"), ("GB", "gb"), ("USA", "us"), (" united  kingdom ", "gb"), ("NO", "no")],
)
def test_countries_are_read_by_code_and_english_name(text: str, expected: str) -> None:
    assert normal.country(text) == expected
    assert normal.country_capitals(text) == expected.upper()


@pytest.mark.parametrize("text", ["XX", "Atlantis", "1", "🇩🇪"])
def test_no_country_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="expected a country such as US or Germany"):
        normal.country(text)


@pytest.mark.parametrize("text", ["1997-02-16", "19970216", "1997-02-16 00:00:00", " 1997-02-16T00:00:00+00:00"])
def test_dates_of_birth_in_iso_8601(text: str) -> None:
    assert normal.birth_date()(text, None) == "19970216"


@pytest.mark.parametrize("text", ["2/16/1997", "1899-12-31", "9999-01-01", "1997-02-30", "16", "", "yesterday"])
def test_other_dates_of_birth_are_refused_and_not_guessed(text: str) -> None:
    with pytest.raises(Malformed, match="expected a date of birth such as 1997-02-16"):
        normal.birth_date()(text, None)


def test_a_date_format_is_named_in_the_reason() -> None:
    with pytest.raises(Malformed, match="such as 16.02.1997"):
        normal.birth_date("%d.%m.%Y")("2/16/1997", None)


@pytest.mark.parametrize("text", ["-1", "1,5", "nan", "inf", "1e9", "£5", "٣", "9" * 16])
def test_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="expected a number such as 12.50"):
        normal.amount(text)


def test_linkedin_texts_have_a_longest_length() -> None:
    form = FORMS["linkedin"]["first_name"]
    assert cell(form, " Ann\x00  Maria ", None) == "Ann Maria"
    with pytest.raises(Malformed, match="longer than 35 characters"):
        cell(form, "a" * 36, None)


ADDRESSES = st.from_regex(r"\A\s?[A-Za-z0-9.+_-]{1,12}@(?:gmail\.com|googlemail\.com|[A-Za-z0-9]{1,8}\.Com)\s?\Z")
TEXTS = (
    st.text(max_size=40)
    | ADDRESSES
    | st.sampled_from(["Mrs. Dr. Ann, Jr.", "İstanbul", "ΟΔΟΣ", "e\u0301'\u0301", "94035-1234", "US", "f", "1997-02-16"])
)


@pytest.mark.parametrize(("destination", "identifier"), [each for each in ALL if each[1] != "phone"], ids="-".join)
@given(text=TEXTS, region=st.sampled_from([None, "US", "GB"]))
@example(text="Dr. , Ann", region=None)
def test_normalising_twice_is_normalising_once(destination: str, identifier: str, text: str, region: str | None) -> None:
    form = FORMS[destination][identifier]
    try:
        once = form.normalise(text, region)
    except Malformed:
        return
    assert form.normalise(once, region) == once != ""


def digits_or_reason(text: str, region: str) -> str:
    try:
        return normal.phone_digits(text, region)
    except Malformed as error:
        return str(error)


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_phones_of_every_region_are_normalised_once_and_for_all(region: str) -> None:
    for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
        number = phonenumbers.example_number_for_type(region, kind)
        if number is None:
            continue
        national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        once = normal.phone(national, region)
        assert once == phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        assert normal.phone(once, region) == normal.phone(once, None) == once
        assert normal.phone_digits(once, None) == once[1:]
        assert digits_or_reason(once[1:], region) in (once[1:], normal.AMBIGUOUS_PHONE)


@pytest.mark.parametrize(("destination", "identifier"), ALL, ids="-".join)
@given(text=TEXTS | st.just("+44 117 496 0123") | st.just(SHA256))
def test_hashing_twice_is_hashing_once(destination: str, identifier: str, text: str) -> None:
    form = FORMS[destination][identifier]
    try:
        once = cell(form, text, None)
    except Malformed:
        return
    assert once not in NEVER
    if form.hashed:
        assert len(once) == 64
        assert cell(form, once, None) == cell(form, once.upper(), None) == once


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=5))
def test_no_text_breaks_a_normaliser_otherwise_than_by_a_reason_without_it(text: str) -> None:
    for destination, identifier in ALL:
        try:
            value = cell(FORMS[destination][identifier], text, "US")
        except Malformed as error:
            value = ""
            reason = str(error)
        else:
            reason = ""
        assert unicodedata.is_normalized("NFC", value)
        assert text.isdigit() or text not in reason  # reasons have digits in their examples


def test_a_form_says_what_a_table_may_hold() -> None:
    taken_plain = {(destination, identifier) for destination, identifier in ALL if not FORMS[destination][identifier].hashed}
    assert taken_plain == {
        ("google", "country"),
        ("google", "zip"),
        ("meta", "device_id"),
        ("meta", "external_id"),
        ("meta", "value"),
        *(("linkedin", each) for each in ("first_name", "last_name", "job_title", "company", "country", "device_id")),
    }
    assert Form(normal.email).hashed
