"""One text, cleaned: what the tagger reads, in training and in use alike."""

import hashlib
import re
import unicodedata

import ftfy
import phonenumbers
from selectolax.lexbor import LexborHTMLParser
from stdnum import luhn

CLEANING_VERSION = "2"
"""Stored in every bundle; a change here that alters a cleaned text must change it."""

MAX_CHARACTERS = 20_000
"""What is beyond is cut: no tagger reads that far, and one poisoned row must not hold up a run."""

MARKUP = re.compile(r"""</?[a-zA-Z][a-zA-Z0-9]*(?:\s+[\w:@.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))*\s*/?>|<!--""")
"""A tag with nothing but attributes in it, or a comment; `a<b and c>d` is neither."""
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@(?:[\w-]+\.)+[^\W\d_][\w-]*")
CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
FULL_WIDTH = {n: n - 0xFEE0 for first, last in ("０９", "ＡＺ", "ａｚ") for n in range(ord(first), ord(last) + 1)}
HALF_WIDTH_KANA = re.compile("[\uff66-\uff9f]+")
DIGITS = re.compile(r"\d(?:\D{0,3}\d){6}")


def clean(text: str) -> str:
    """Repair mojibake and Unicode, drop markup and control characters, fold white space.

    Full-width letters and digits become plain ones; full-width punctuation stays, as Chinese and Japanese are written with it.
    """
    text = text[: 4 * MAX_CHARACTERS].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = ftfy.fix_text(text, unescape_html=True, fix_character_width=False)
    text = HALF_WIDTH_KANA.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text.translate(FULL_WIDTH))
    if MARKUP.search(text):
        page = LexborHTMLParser(text)
        page.strip_tags(["script", "style"])
        body = page.body
        text = body.text(separator=" ") if body is not None else ""
    text = UNPRINTABLE.sub(" ", text)
    return " ".join(text.split())[:MAX_CHARACTERS].rstrip()


def mask(text: str, phone_region: str | None = "US") -> str:
    """Replace e-mail addresses, payment card numbers and phone numbers by `[email]`, `[card]`, `[phone]`.

    A card is 13 to 19 digits with a valid Luhn sum (ISO/IEC 7812-1). `phone_region` (ISO 3166 alpha-2) is where numbers
    without a country code are dialled; with None only numbers that start with + are found.
    """
    text = EMAIL.sub("[email]", text)
    text = CARD.sub(lambda found: without_card(found[0]), text)
    if DIGITS.search(text):
        for match in reversed(list(phonenumbers.PhoneNumberMatcher(text, phone_region))):
            text = f"{text[: match.start]}[phone]{text[match.end :]}"
    return text


def without_card(run: str) -> str:
    """A run of digits with `[card]` for the first of its groups that make one: its expiry or check number may stand beside it.

    Cards are printed in groups of three digits or more, so a list of small numbers is none.
    """
    groups = re.split(r"([ -])", run)
    for start in range(0, len(groups), 2):
        for end in range(len(groups), start, -2):
            digits = "".join(groups[start:end:2])
            in_groups = all(len(each) >= 3 for each in groups[start:end:2])
            if in_groups and 13 <= len(digits) <= 19 and luhn.is_valid(digits):
                return "".join([*groups[:start], "[card]", *groups[end:]])
    return run


def document(title: str | None, body: str | None) -> str:
    """The one text a tagger sees for an event, from its cleaned title and body."""
    return "\n".join(part for part in (title, body) if part)


def text_key(text: str) -> str:
    """32 hex digits that name a document: equal texts, equal keys, on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
