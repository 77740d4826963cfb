"""Advertising platforms: what each takes in which form, and the settings for what they change."""

from typing import ClassVar

from pydantic import Field, field_validator

from penchant.config import Settings, suggestion
from penchant.segments import normal
from penchant.segments.identity import COLUMNS, KEYS
from penchant.segments.normal import Form

EEA = tuple("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IS IT LI LT LU LV MT NL NO PL PT RO SE SI SK".split())  # noqa: SIM905 - a list of codes
EU_ELSEWHERE = ("AX", "GF", "GP", "MF", "MQ", "RE", "YT")
"""Territories of the EU with a code of their own."""


class Destination(Settings):
    """Where an audience goes."""

    min_size: int = Field(50, ge=50)
    """Fewest people for whom a file is written."""


class CustomerList(Destination):
    """An advertising platform's customer list."""

    takes: ClassVar[tuple[str, ...]]
    """Identifiers that the platform knows."""
    header: dict[str, str]
    """The file's header: its columns in order, each with the identifier that stands in it."""

    @field_validator("header")
    @classmethod
    def usable_header(cls, header: dict[str, str]) -> dict[str, str]:
        """Refuse what the platform doesn't know, an identifier twice, and a header without anything to match by."""
        unknown = [f"{each!r}{suggestion(each, cls.takes)}" for each in header.values() if each not in cls.takes]
        if unknown:
            raise ValueError(f"not an identifier of this destination: {', '.join(unknown)}")
        if len(set(header.values())) < len(header):
            raise ValueError("an identifier stands in two columns")
        if not set(header.values()) & set(KEYS):
            raise ValueError(f"nothing to match by; it takes {', '.join(each for each in KEYS if each in cls.takes)}")
        return header


class Google(CustomerList):
    """Google Ads Customer Match."""

    takes = ("email", "phone", "first_name", "last_name", "country", "zip")
    min_size: int = Field(100, ge=50)
    """Fewest people for whom a file is written."""
    header: dict[str, str] = {
        "Email": "email",
        "Phone": "phone",
        "First Name": "first_name",
        "Last Name": "last_name",
        "Country": "country",
        "Zip": "zip",
    }
    """The file's header: its columns in order, each with the identifier that stands in it."""
    consent_region: tuple[str, ...] = (*EEA, *EU_ELSEWHERE, "GB", "CH")
    """ISO 3166 alpha-2: where a person has to have granted ad_user_data and ad_personalization, as where the country is unknown."""

    @field_validator("consent_region")
    @classmethod
    def known_countries(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse what is no country code: its people would go out without consent."""
        unknown = [code for code in codes if not (len(code) == 2 and code.isupper() and code.lower() in set(normal.countries().values()))]
        if unknown:
            raise ValueError(f"no ISO 3166 alpha-2 code such as DE: {', '.join(unknown)}")
        return codes

    def forms(self, _date_format: str | None) -> dict[str, Form]:
        """Country and postal code stay plain."""
        return {
            "email": Form(normal.email_google),
            "phone": Form(normal.phone),
            "first_name": Form(normal.name_google),
            "last_name": Form(normal.name_google),
            "country": Form(normal.country, hashed=False, hashable=False),
            "zip": Form(normal.zip_google, hashed=False, hashable=False),
        }


class Meta(CustomerList):
    """Meta customer list custom audience."""

    takes = tuple(each for each in COLUMNS if each not in ("user_id", "job_title", "company"))
    min_size: int = Field(100, ge=50)
    """Fewest people for whom a file is written."""
    header: dict[str, str] = {
        "email": "email",
        "phone": "phone",
        "madid": "device_id",
        "fn": "first_name",
        "ln": "last_name",
        "ct": "city",
        "st": "state",
        "zip": "zip",
        "country": "country",
        "dob": "date_of_birth",
        "gen": "gender",
        "uid": "external_id",
        "value": "value",
    }
    """The file's header: its columns in order, each with the identifier that stands in it."""

    def forms(self, date_format: str | None) -> dict[str, Form]:
        """Advertising id, external id and value stay plain."""
        return {
            "email": Form(normal.email),
            "phone": Form(normal.phone_digits),
            "device_id": Form(normal.device, hashed=False),
            "first_name": Form(normal.bare),
            "last_name": Form(normal.bare),
            "city": Form(normal.bare),
            "state": Form(normal.state_meta),
            "zip": Form(normal.zip_meta),
            "country": Form(normal.country),
            "date_of_birth": Form(normal.birth_date(date_format)),
            "gender": Form(normal.gender),
            "external_id": Form(normal.squeezed, hashed=False, hashable=False),
            "value": Form(normal.amount, hashed=False, hashable=False),
        }


class TikTok(CustomerList):
    """TikTok customer file."""

    takes = KEYS
    min_size: int = Field(1000, ge=50)
    """Fewest people for whom a file is written."""
    header: dict[str, str] = {"Email_SHA256": "email", "Phone_SHA256": "phone", "MAID_SHA256": "device_id"}
    """The file's header: its columns in order, each with the identifier that stands in it."""
    phone_plus: bool = False
    """Hash telephone numbers with their `+`. TikTok's pages disagree; all since August 2025 take them without, as is the one hash they print."""
    drop_tag: bool = True
    """Hash e-mail addresses without what follows `+` in their name."""

    def forms(self, _date_format: str | None) -> dict[str, Form]:
        """All are hashed."""
        return {
            "email": Form(normal.email_untagged if self.drop_tag else normal.email_joined),
            "phone": Form(normal.phone if self.phone_plus else normal.phone_digits),
            "device_id": Form(normal.device),
        }


class LinkedIn(CustomerList):
    """LinkedIn contact list."""

    takes = ("email", "first_name", "last_name", "job_title", "company", "country", "device_id")
    min_size: int = Field(300, ge=50)
    """Fewest people for whom a file is written."""
    header: dict[str, str] = {
        "email": "email",
        "firstname": "first_name",
        "lastname": "last_name",
        "jobtitle": "job_title",
        "employeecompany": "company",
        "country": "country",
        "googleaid": "device_id",
    }
    """The file's header: its columns in order, each with the identifier that stands in it."""

    def forms(self, _date_format: str | None) -> dict[str, Form]:
        """Only the address is hashed; the longest texts are those of LinkedIn's API (DMP segment users)."""
        texts = {"first_name": 35, "last_name": 35, "job_title": 50, "company": 50}
        return {
            "email": Form(normal.email),
            **{identifier: Form(normal.at_most(longest), hashed=False, hashable=False) for identifier, longest in texts.items()},
            "country": Form(normal.country_capitals, hashed=False, hashable=False),
            "device_id": Form(normal.device, hashed=False),
        }
