"""One value at a time: what is understood, and what rejects its row."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.ingest.convert import Unusable, lookup, parse_instant, raw_value, to_amount, to_instant, to_number, to_rating, to_text
from penchant.ingest.mapping import Column

EARLIEST, LATEST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)


def instant(value: Any, zone: str = "UTC", **column: Any) -> datetime:
    """A value as an instant between `EARLIEST` and `LATEST`."""
    return to_instant(value, Column(column="t", **column), zone, EARLIEST, LATEST)


def test_a_path_looks_inside_objects_and_a_dotted_name_comes_first() -> None:
    row = {"a": {"b": {"c": 1}}, "a.x": 2, "list": [{"c": 3}], "none": None}
    assert lookup(row, "a.b.c") == 1
    assert lookup(row, "a.x") == 2
    assert [lookup(row, name) for name in ("a.b.d", "a.b.c.d", "list.c", "none", "none.x", "z", "")] == [None] * 7


@pytest.mark.parametrize("value", [None, "", " \t\u00a0", math.nan])
def test_empty_values_count_as_nothing(value: Any) -> None:
    assert raw_value({"a": value}, Column(column="a", values={"": "x", "nan": "y"})) is None


def test_a_value_is_stripped_looked_up_or_constant() -> None:
    assert raw_value({"a": "  x "}, Column(column="a")) == "x"
    assert raw_value({"a": 0}, Column(column="a")) == 0
    assert raw_value({"a": "x"}, Column(constant="view")) == "view"
    assert raw_value({"a": "x"}, None) is None
    assert raw_value({"a": 1}, Column(column="a", values={"1": "like", "0": "view"})) == "like"
    with pytest.raises(Unusable, match="not one of 1, 0"):
        raw_value({"a": "2"}, Column(column="a", values={"1": "like", "0": "view"}))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, None), ("x", "x"), (7, "7"), (7.0, "7"), (0.5, "0.5"), (2**63, "9223372036854775808"), (Decimal("1.10"), "1.10")],
)
def test_scalars_become_text(value: Any, text: str | None) -> None:
    assert to_text(value) == text


@pytest.mark.parametrize("value", [[], {}, ["x"], {"a": 1}, b"x"])
def test_what_is_no_scalar_becomes_no_text(value: Any) -> None:
    with pytest.raises(Unusable, match="expected"):
        to_text(value)


@pytest.mark.parametrize(
    ("value", "number"), [(None, None), ("1.5", 1.5), ("-2", -2.0), ("1e3", 1000.0), (7, 7.0), (Decimal("0.25"), 0.25)]
)
def test_numbers_are_read(value: Any, number: float | None) -> None:
    assert to_number(value) == number


@pytest.mark.parametrize("value", ["1,299.99", "$5", "five", "", [1], {}, 10**400, "inf", "-inf", "nan", math.inf])
def test_what_is_no_finite_number_is_refused(value: Any) -> None:
    with pytest.raises(Unusable, match="not a (finite )?number"):
        to_number(value)


def test_an_amount_may_be_nothing_but_not_negative() -> None:
    assert [to_amount(value) for value in (None, "0", "12.50")] == [None, 0.0, 12.5]
    with pytest.raises(Unusable, match="refund"):
        to_amount("-0.01")


@pytest.mark.parametrize(
    ("value", "given_range", "rating"),
    [
        (None, None, None),
        ("1", None, 1.0),
        (5, None, 5.0),
        (0, (0, 10), 1.0),
        ("7.5", (0, 10), 4.0),  # three quarters of the way: 1 + 4 · 0.75
        (100, (0, 100), 5.0),
        (0, (-1, 1), 3.0),
    ],
)
def test_a_rating_is_put_on_one_to_five(value: Any, given_range: tuple[float, float] | None, rating: float | None) -> None:
    assert to_rating(value, Column(column="r", range=given_range)) == rating


@pytest.mark.parametrize(("value", "given_range"), [(0, None), (5.01, None), ("-1", (0, 10)), (10.5, (0, 10))])
def test_a_rating_outside_its_range_is_refused(value: Any, given_range: tuple[float, float] | None) -> None:
    low, high = given_range or (1, 5)
    with pytest.raises(Unusable, match=f"outside {low} to {high}"):
        to_rating(value, Column(column="r", range=given_range))


@given(low=st.integers(-100, 100), width=st.integers(1, 100), share=st.floats(0, 1))
def test_every_rating_in_range_lands_in_one_to_five(low: int, width: int, share: float) -> None:
    rating = to_rating(min(low + share * width, low + width), Column(column="r", range=(low, low + width)))
    assert rating is not None
    assert 1 <= rating <= 5
    assert rating == pytest.approx(1 + 4 * share, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "column", "expected"),
    [
        ("2026-03-01T12:00:00Z", {}, datetime(2026, 3, 1, 12, tzinfo=UTC)),
        ("2026-03-01 12:00:00.25+02:00", {}, datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01", {}, datetime(2026, 3, 1, tzinfo=UTC)),
        (date(2026, 3, 1), {}, datetime(2026, 3, 1, tzinfo=UTC)),
        (datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=-5))), {}, datetime(2026, 3, 1, 17, tzinfo=UTC)),
        (86_400 * 10_000, {"format": "epoch_s"}, datetime(1997, 5, 19, tzinfo=UTC)),  # the 10,000th day after 1970-01-01
        ("864000000000.5", {"format": "epoch_ms"}, datetime(1997, 5, 19, 0, 0, 0, 500, tzinfo=UTC)),
        ("01/03/2026 12:30", {"format": "%d/%m/%Y %H:%M"}, datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("01 Mar 2026 12:30 +0530", {"format": "%d %b %Y %H:%M %z"}, datetime(2026, 3, 1, 7, tzinfo=UTC)),
    ],
)
def test_a_time_becomes_an_instant_in_utc(value: Any, column: dict[str, Any], expected: datetime) -> None:
    found = instant(value, **column)
    assert found == expected
    assert found.utcoffset() == timedelta(0)


# Berlin: 2026-03-29 02:00 +1 jumps to 03:00 +2; 2026-10-25 03:00 +2 falls back to 02:00 +1.
@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2026-03-29T01:59:59", "2026-03-29T00:59:59"),
        ("2026-03-29T02:30:00", "2026-03-29T01:30:00"),  # never shown by a clock: read by the offset before
        ("2026-03-29T03:00:00", "2026-03-29T01:00:00"),
        ("2026-10-25T01:59:59", "2026-10-24T23:59:59"),
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00"),  # shown twice: the first
        ("2026-10-25T03:00:00", "2026-10-25T02:00:00"),
        ("2026-10-25T02:30:00+01:00", "2026-10-25T01:30:00"),  # an offset of its own wins
    ],
)
def test_local_times_around_a_clock_change(local: str, utc: str) -> None:
    expected = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert instant(local, "Europe/Berlin") == expected
    assert instant(local, "Asia/Tokyo", timezone="Europe/Berlin") == expected  # the column's zone wins
    if "+" not in local:
        assert instant(datetime.fromisoformat(local), "Europe/Berlin") == expected


@pytest.mark.parametrize("value", ["1989-12-31T23:59:59Z", "2030-01-01T00:00:01Z", "1990-01-01T00:00:00+00:01", 0])
def test_an_instant_outside_the_bounds_is_refused(value: Any) -> None:
    with pytest.raises(Unusable, match="outside 1990-01-01 to 2030-01-01"):
        instant(value, format="epoch_s" if value == 0 else None)


def test_the_bounds_themselves_are_inside() -> None:
    assert instant("1990-01-01T00:00:00Z") == EARLIEST
    assert instant("2030-01-01T00:00:00Z") == LATEST


@pytest.mark.parametrize(("value", "zone"), [("0001-01-01T00:00:00", "Asia/Shanghai"), ("9999-12-31T23:59:59", "America/New_York")])
def test_the_first_and_last_year_of_the_calendar_reject_one_row_only(value: str, zone: str) -> None:
    with pytest.raises(Unusable, match="outside"):
        instant(value, zone)


@pytest.mark.parametrize(
    ("value", "time_format"),
    [
        ("yesterday", None),
        ("2026-02-30", None),
        ("2026-03-01T25:00:00", None),
        (["2026-03-01"], None),
        ("03/01/26", "%d/%m/%Y"),
        ("noon", "epoch_s"),
        ([1], "epoch_s"),
        (10**400, "epoch_s"),
        ("inf", "epoch_ms"),
        ("nan", "epoch_s"),
        (1e18, "epoch_s"),
    ],
)
def test_what_is_no_time_is_refused_with_the_format_that_was_tried(value: Any, time_format: str | None) -> None:
    with pytest.raises(Unusable, match="not a time in") as caught:
        parse_instant(value, Column(column="t", format=time_format))
    assert str(caught.value).endswith(time_format or "ISO 8601")


def test_a_missing_time_is_refused() -> None:
    with pytest.raises(Unusable, match="missing"):
        instant(None)


@given(
    st.integers(86_400, 40 * 365 * 86_400),
    st.sampled_from(["UTC", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu"]),
)
def test_an_instant_comes_back_through_any_zone(seconds: int, zone: str) -> None:
    aware = EARLIEST + timedelta(seconds=seconds)
    assert instant(aware.astimezone(ZoneInfo(zone)).isoformat(), "Asia/Tokyo") == aware
