"""One text: repaired, stripped of markup, masked, and named."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.ingest.clean import MAX_CHARACTERS, clean, document, mask, text_key


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("", ""),
        (" \t\r\n\u00a0\u3000", ""),
        ("  trail \n\n shoe\u00a0 42 ", "trail shoe 42"),
        ("cafÃ© schÃ¶n", "café schön"),  # UTF-8 read as Latin-1
        ("fish &amp; chips &lt;3", "fish & chips <3"),
        ("I <b>love</b> it<br/>again", "I love it again"),
        ("<p class='x'>one</p><p>two</p>", "one two"),
        ("<script>alert(1)</script><style>p{}</style>seen", "seen"),
        ("<p>read <script>alert(1)</script>this<style>p{}</style></p>", "read this"),
        ("<!-- hidden -->seen", "seen"),
        ("I <3 cats", "I <3 cats"),
        ("x < y > z", "x < y > z"),
        ("\x1b[31mred\x00 \x07bell\ufffe", "red bell"),
        ("ﬁne ＡＢＣ", "fine ABC"),
        ("耐克ＡＢｃ１２，好\u3000用！（真的）", "耐克ABc12，好 用！（真的）"),  # Chinese punctuation is full-width
        ("ﾊﾟﾝ", "パン"),
        ("👩‍👩‍👧 family 🏃", "👩‍👩‍👧 family 🏃"),
        ("\ud83d\ude00", "😀"),  # a surrogate pair as two characters is what it was meant to be
        ("a \ud83d b", "a \ufffd b"),  # half of one is lost
        ("caf\udce9", "caf\ufffd"),  # a byte that was no UTF-8
    ],
)
def test_a_text_is_cleaned(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters() | st.sampled_from("<>&;\ud83d\x00\u00a0Ãa ")))
def test_a_cleaned_text_can_be_stored_and_is_one_line(raw: str) -> None:
    text = clean(raw)
    assert text.encode().decode() == text
    assert text == " ".join(text.split())
    assert not any(character < " " or character in "\x7f\ufffe\uffff" for character in text)


@pytest.mark.parametrize("piece", ["x", "<b>", "<", "&amp;", "word ", "é"])
def test_a_megabyte_is_cut(piece: str) -> None:
    assert len(clean(piece * (1_000_000 // len(piece)))) <= MAX_CHARACTERS
    assert clean("x" * 1_000_000) == "x" * MAX_CHARACTERS


def test_a_cut_leaves_no_space_at_the_end() -> None:
    assert clean("x" * (MAX_CHARACTERS - 1) + " y") == "x" * (MAX_CHARACTERS - 1)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to a.b+c@mail.example.co.uk, please", "write to [email], please"),
        ("<ann@example.com>;bob_1@example.org.", "<[email]>;[email]."),
        ("猫@例え.jp", "[email]"),
        ("mailto:ann@example.com", "mailto:[email]"),
    ],
)
def test_email_addresses_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


# Test numbers that the card schemes publish: Visa 16, Mastercard, American Express 15, Diners 14.
@pytest.mark.parametrize(
    "card", ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "5555555555554444", "3782 822463 10005", "30569309025904"]
)
def test_payment_cards_are_masked(card: str) -> None:
    assert mask(f"paid with {card}.", None) == "paid with [card]."


@given(digits=st.text("0123456789", min_size=12, max_size=18), wrong=st.integers(1, 9))
def test_every_run_with_a_luhn_sum_is_a_card_and_none_with_another_check_digit(digits: str, wrong: int) -> None:
    # ISO/IEC 7812-1, annex B: from the right, double every other digit and add up the digits of the products
    total = sum(sum(map(int, str(int(digit) * (2 - n % 2)))) for n, digit in enumerate(reversed(digits)))
    check = -total % 10
    assert mask(f"no. {digits}{check}", None) == "no. [card]"
    assert mask(f"no. {digits}{(check + wrong) % 10}", None) == f"no. {digits}{(check + wrong) % 10}"


def test_a_card_is_found_beside_other_numbers() -> None:
    assert mask("4111 1111 1111 1111 12/27", None) == "[card] 12/27"
    assert mask("order 12 4111 1111 1111 1111", None) == "order 12 [card]"


@pytest.mark.parametrize(
    ("text", "region", "masked"),
    [
        ("call 650-253-0000 now", "US", "call [phone] now"),
        ("(650) 253-0000, +1 650 253 0000", "US", "[phone], [phone]"),
        ("ring 030 901820", "DE", "ring [phone]"),
        ("ring 030 901820", "US", "ring 030 901820"),
        ("call 650-253-0000 now", None, "call 650-253-0000 now"),
        ("+41 44 668 18 00 or ann@example.com", None, "[phone] or [email]"),
    ],
)
def test_phone_numbers_are_masked_as_dialled_in_the_region(text: str, region: str | None, masked: str) -> None:
    assert mask(text, region) == masked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "me@home @handle user@ @ a@b",
        "2@1.50 each, 3 @ 2.50",  # prices
        "4111111111111112",  # one digit off: no Luhn sum
        "41111111111111111111111111",  # 26 digits
        "4111 1111 1111",  # 12 digits
        "on 2026-03-01 at 12:30:00",
        "1,234,567 people and $1,299.99",
        "ISBN 978-0-306-40615-7",
        "item 12345678, 192.168.100.200",
        "[email] [card] [phone]",
    ],
)
def test_what_is_no_personal_number_stays(text: str) -> None:
    assert mask(text) == text


def test_masking_twice_changes_nothing() -> None:
    once = mask("ann@example.com 4111 1111 1111 1111 650-253-0000")
    assert once == "[email] [card] [phone]"
    assert mask(once) == once


@pytest.mark.parametrize(
    ("title", "body", "text"), [("a", "b", "a\nb"), ("a", None, "a"), (None, "b", "b"), ("", "b", "b"), (None, None, ""), ("", "", "")]
)
def test_a_document_is_title_and_body(title: str | None, body: str | None, text: str) -> None:
    assert document(title, body) == text


def test_a_text_key_is_blake2b_of_the_utf_8() -> None:
    assert text_key("run 🏃") == hashlib.blake2b("run 🏃".encode(), digest_size=16).hexdigest()
    assert len(text_key("")) == 32
    assert text_key("a\nb") != text_key("a b")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("&lt;p&gt;Nice pan&lt;/p&gt;", "Nice pan"),
        ('&lt;a href="x"&gt;pan&lt;/a&gt; &amp; lid', "pan & lid"),
        ("size a<b and c>d only", "size a<b and c>d only"),
        ("I <3 tea &lt;3", "I <3 tea <3"),
        ("<br/>one<br>two <img src=x.png alt='y z'>three", "one two three"),
    ],
)
def test_escaped_markup_goes_and_comparisons_stay(raw: str, expected: str) -> None:
    assert clean(raw) == expected
    assert clean(clean(raw)) == expected
