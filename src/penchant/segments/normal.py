"""Identifiers in the form that each destination hashes, and their SHA-256: lower-case hex, no salt.

A value in any other form still has a hash, but one that matches nobody, and no platform says so. The forms are those of Google's
"Format user data" (developers.google.com/data-manager/api/devguides/concepts/formatting) and its Customer Match sample file, Meta's
"Customer information parameters" (developers.facebook.com/docs/marketing-api/conversions-api/parameters) and parameter builder, TikTok's
"List of supported IDs and formats for a customer file" (ads.tiktok.com/help) and LinkedIn's contact list template.

Every normaliser takes a text and the person's region (ISO 3166-1 alpha-2 in capitals, None where unknown), and raises `Malformed`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache

import phonenumbers

Normaliser = Callable[[str, str | None], str]

HEX = re.compile(r"[0-9a-f]+")
EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[^\W_](?:[\w-]*[^\W_])?\.)+(?:xn--[a-z0-9-]+|[^\W\d_]{2,})")
"""A light check of an address in lower case: the characters of RFC 5322's dot-atom in any script, and a domain with a dot."""
LONGEST_EMAIL = 254
GMAIL = ("gmail.com", "googlemail.com")
DEVICE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NO_DEVICE = "00000000-0000-0000-0000-000000000000"
"""What a device gives whose owner has switched advertising ids off."""
AMOUNT = re.compile(r"\d{1,15}(?:\.\d{1,6})?", re.ASCII)
TITLES = frozenset({"mr", "mrs", "ms", "miss", "dr", "prof"})
SUFFIXES = frozenset({"jr", "sr", "ii", "iii", "iv"})
ALIASES = {"uk": "gb", "usa": "us"}

NOT_AN_EMAIL = "expected an e-mail address such as ann@example.com"
NOT_A_PHONE = "expected a telephone number such as +44 117 496 0123"
NO_COUNTRY_CODE = "no country code"
AMBIGUOUS_PHONE = "a number with and without its first digits as country code; write it with +"
OTHER_HASH = "hashed by another function"
HASHED = "hashed where this destination takes the plain value"


class Malformed(ValueError):  # noqa: N818 - caught per cell, never seen outside
    """A value that isn't what its column says; the text is the reason, without the value."""


@dataclass(frozen=True)
class Form:
    """How a destination takes one identifier."""

    normalise: Normaliser
    hashed: bool = True
    """Whether it takes the SHA-256; else the normal form itself."""
    hashable: bool = True
    """Whether a table may hold it hashed already, so that what looks like a hash is one."""


def cell(form: Form, text: str, region: str | None) -> str:
    """What goes into the destination's column. A SHA-256 already stays one. Raises `Malformed`."""
    digits = text.strip().lower()
    if form.hashable and len(digits) in (32, 40, 64) and HEX.fullmatch(digits):  # MD5, SHA-1, SHA-256
        if len(digits) < 64:
            raise Malformed(OTHER_HASH)
        if not form.hashed:
            raise Malformed(HASHED)
        return digits
    normal = form.normalise(text, region)
    return sha256(normal) if form.hashed else normal


def sha256(text: str) -> str:
    """64 lower-case hex digits of a text's UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def squeezed(text: str, _region: str | None = None) -> str:
    """Composed Unicode (NFC), no control characters, one blank between words. Raises `Malformed` when nothing is left."""
    visible = "".join(each for each in text if each.isspace() or unicodedata.category(each) != "Cc")
    return something(unicodedata.normalize("NFC", " ".join(visible.split())))


def bare(text: str, _region: str | None = None) -> str:
    """Lower case without blanks, punctuation and symbols; letters, marks and digits of any script stay (Meta's names and cities)."""
    lower = unicodedata.normalize("NFC", text).lower()
    return something(unicodedata.normalize("NFC", "".join(each for each in lower if unicodedata.category(each)[0] in "LMN")))


def something(text: str) -> str:
    """The text, unless it is empty: the hash of nothing would look like a value."""
    if not text:
        raise Malformed("no letters or digits")
    return text


def email(text: str, _region: str | None = None) -> str:
    """Trimmed and in lower case (Meta, LinkedIn)."""
    address = unicodedata.normalize("NFC", text.strip().lower())
    if len(address) > LONGEST_EMAIL or not EMAIL.fullmatch(address):
        raise Malformed(NOT_AN_EMAIL)
    return address


def email_joined(text: str, _region: str | None = None) -> str:
    """Without any blanks, in lower case."""
    return email("".join(text.split()))


def email_google(text: str, _region: str | None = None) -> str:
    """Without any blanks, in lower case; in Gmail's domains the name before `+`, without dots."""
    address = email_joined(text)
    name, _, domain = address.rpartition("@")
    return email(f"{name.partition('+')[0].replace('.', '')}@{domain}") if domain in GMAIL else address


def email_untagged(text: str, _region: str | None = None) -> str:
    """Without any blanks, in lower case, the name before `+` (TikTok)."""
    name, _, domain = email_joined(text).rpartition("@")
    return email(f"{name.partition('+')[0]}@{domain}")


def phone(text: str, region: str | None = None) -> str:
    """E.164 with `+`; a number without a country code is read as dialled in `region`."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException as error:
        unknown_country = error.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE and "+" not in text
        raise Malformed(NO_COUNTRY_CODE if unknown_country else NOT_A_PHONE) from None
    if number.extension or not phonenumbers.is_valid_number(number):  # behind an extension is a switchboard, not a person
        raise Malformed(NOT_A_PHONE)
    found = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    international = f"+{phonenumbers.normalize_digits_only(text)}"
    if "+" not in text and international != found and international.startswith(f"+{number.country_code}") and is_phone(international):
        raise Malformed(AMBIGUOUS_PHONE)
    return found


def is_phone(international: str) -> bool:
    """Whether there is such a number."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(international))
    except phonenumbers.NumberParseException:
        return False


def phone_digits(text: str, region: str | None = None) -> str:
    """E.164 without `+` (Meta: digits only, no leading zeros)."""
    return phone(text, region).removeprefix("+")


def device(text: str, _region: str | None = None) -> str:
    """A mobile advertising id (Android's or Apple's), in lower case."""
    identifier = text.strip().lower()
    if not DEVICE.fullmatch(identifier):
        raise Malformed("expected an advertising id such as 38400000-8cf0-11bd-b23e-10b96e40000d")
    if identifier == NO_DEVICE:
        raise Malformed("advertising id switched off (all zeros)")
    return identifier


def name_google(text: str, _region: str | None = None) -> str:
    """Lower case, without titles (Mrs.) and suffixes (Jr.)."""
    words = squeezed(text).lower().replace(",", " ").split()
    while len(words) > 1 and words[0].strip(".") in TITLES:
        words.pop(0)
    while len(words) > 1 and words[-1].strip(".") in SUFFIXES:
        words.pop()
    return something(unicodedata.normalize("NFC", " ".join(words)))


def state_meta(text: str, region: str | None = None) -> str:
    """Lower case without blanks and punctuation; in the US the state's two letters."""
    state = bare(text)
    if region == "US" and not re.fullmatch("[a-z]{2}", state):
        raise Malformed("expected a US state's two letters, such as CA")
    return state


def zip_meta(text: str, region: str | None = None) -> str:
    """Lower case without blanks and dashes; in the US the first five digits."""
    code = bare(text)
    return code[:5] if is_zip(code, region) else code


def zip_google(text: str, region: str | None = None) -> str:
    """As it is written, extension included."""
    code = squeezed(text)
    is_zip(bare(code), region)
    return code


def is_zip(code: str, region: str | None) -> bool:
    """Whether it is a US one. Raises `Malformed` for what is no postal code of its region."""
    pattern = r"\d{5}(?:\d{4})?" if region == "US" else "[a-z0-9]{2,10}"
    if not re.fullmatch(pattern, code, re.ASCII):
        raise Malformed("expected a postal code such as 94035 or WC2H 8LG")
    return region == "US"


@cache
def countries() -> dict[str, str]:
    """Code and English name, in lower case, → ISO 3166-1 alpha-2 code in lower case."""
    from phonenumbers.geodata.locale import LOCALE_DATA  # names of all regions in all languages

    found = dict(ALIASES)
    for region, names in LOCALE_DATA.items():
        english = names["en"]
        english = names[english[1:]] if english.startswith("*") else english  # "*aa": as in that language
        found |= {region.lower(): region.lower(), english.lower(): region.lower()}
    return found


def country(text: str, _region: str | None = None) -> str:
    """ISO 3166-1 alpha-2 in lower case, from a code or an English name."""
    code = countries().get(squeezed(text).lower())
    if code is None:
        raise Malformed("expected a country such as US or Germany")
    return code


def country_capitals(text: str, _region: str | None = None) -> str:
    """ISO 3166-1 alpha-2 in capitals."""
    return country(text).upper()


def birth_date(date_format: str | None = None) -> Normaliser:
    """A normaliser to YYYYMMDD, 1900 to today, of dates in ISO 8601 or else a strptime format."""

    def normalise(text: str, _region: str | None = None) -> str:
        try:
            born = to_date(text.strip(), date_format)
        except ValueError:
            born = date.min
        if not date(1900, 1, 1) <= born <= datetime.now(UTC).date():
            raise Malformed(f"expected a date of birth such as {date(1997, 2, 16).strftime(date_format or '%Y-%m-%d')}")
        return f"{born:%Y%m%d}"

    return normalise


def to_date(text: str, date_format: str | None) -> date:
    """A date in ISO 8601 or in a strptime format."""
    try:
        return datetime.fromisoformat(text).date()
    except ValueError:
        if date_format is None:
            raise
        return datetime.strptime(text, date_format).date()  # noqa: DTZ007 - a date


def gender(text: str, _region: str | None = None) -> str:
    """`f` or `m`."""
    initial = {"f": "f", "female": "f", "m": "m", "male": "m"}.get(text.strip().lower())
    if initial is None:
        raise Malformed("expected f or m")
    return initial


def amount(text: str, _region: str | None = None) -> str:
    """A number that isn't negative, as it is written."""
    if not AMOUNT.fullmatch(text.strip()):
        raise Malformed("expected a number such as 12.50")
    return text.strip()


def at_most(longest: int) -> Normaliser:
    """A normaliser of plain text that refuses more than `longest` characters."""

    def normalise(text: str, _region: str | None = None) -> str:
        value = squeezed(text)
        if len(value) > longest:
            raise Malformed(f"longer than {longest} characters")
        return value

    return normalise
