"""Dates of captures: forms, order, and the one form that is written."""

import datetime
import re

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters.dates import COMMON_FORM, date_key, is_date, whole_seconds
from c4_filters.spans import timestamp_column

FORMS = [  # as written, whole seconds
    ("2019-04-18T10:00:00Z", "2019-04-18T10:00:00Z"),
    ("2024-02-29T10:00:00Z", "2024-02-29T10:00:00Z"),
    # WARC 1.1: cut off from the right, or with one to nine digits of a fraction.
    ("2016", "2016-01-01T00:00:00Z"),
    ("2016-09", "2016-09-01T00:00:00Z"),
    ("2016-09-19", "2016-09-19T00:00:00Z"),
    ("2016-09-19T17:20Z", "2016-09-19T17:20:00Z"),
    ("2016-09-19T17:20:24.5Z", "2016-09-19T17:20:24Z"),
    ("2016-09-19T17:20:24.999999999Z", "2016-09-19T17:20:24Z"),
    # CDX.
    ("20190418100000", "2019-04-18T10:00:00Z"),
    ("20190418100000123", "2019-04-18T10:00:00Z"),
    ("20190418", "2019-04-18T00:00:00Z"),
    ("201904", "2019-04-01T00:00:00Z"),
    # Other writers.
    ("2019-04-18T23:00:00+00:00", "2019-04-18T23:00:00Z"),
    ("2019-04-18T00:30:00+01:00", "2019-04-17T23:30:00Z"),
    ("2019-04-18T22:30:00.5-0530", "2019-04-19T04:00:00Z"),
    ("2019-04-18T10:00:00", "2019-04-18T10:00:00Z"),
    ("2019-04-18 10:00:00", "2019-04-18T10:00:00Z"),
    ("2019-04-18t10:00:00z", "2019-04-18T10:00:00Z"),
    ("20190418T100000Z", "2019-04-18T10:00:00Z"),
    ("2019-04-18T10:00:00,25Z", "2019-04-18T10:00:00Z"),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),  # a leap second
]
NO_DATES = [
    *("", "Z", "yesterday", "2019-04-18T", "20190", "2019-0418", "2019-4-18", "19-04-18"),
    *("2019-13-01", "2019-00-01", "2019-02-30T10:00:00Z", "2019-02-29", "2019-04-31T10:00:00Z"),
    *("2019-04-18T24:00:00Z", "2019-04-18T10:60:00Z", "2019-04-18T10:00:61Z", "0000-01-01"),
    *("2019-04-18T10:00:00Z\n", " 2019-04-18T10:00:00Z", "2019-04-18T10:00:00.Z", "٢٠١٩-٠٤-١٨"),
    *("9999-12-31T23:59:60Z", "0001-01-01T00:00:00+01:00", "2019-04-18T10:00:00Zulu"),
]


@pytest.mark.parametrize(("written", "whole"), FORMS)
def test_every_form_becomes_whole_seconds(written: str, whole: str) -> None:
    assert is_date(written)
    assert whole_seconds(written) == whole
    assert whole_seconds(whole) == whole == date_key(whole)
    fraction = date_key(written).removeprefix(whole)
    assert re.fullmatch(r"(\.\d*[1-9])?", fraction)


@pytest.mark.parametrize("text", NO_DATES)
def test_what_is_no_date_is_told_and_left_alone(text: str) -> None:
    assert not is_date(text)
    assert whole_seconds(text) == text


moments = st.datetimes(datetime.datetime(1000, 1, 2), datetime.datetime(9999, 12, 30))


@given(moments, moments, st.integers(0, 9), st.integers(0, 9), st.integers(-720, 720))
def test_keys_sort_as_the_moments_do(
    first: datetime.datetime, second: datetime.datetime, digits: int, others: int, minutes: int
) -> None:
    def written(moment: datetime.datetime, digits: int, minutes: int) -> str:
        shown = (moment + datetime.timedelta(minutes=minutes)).isoformat(timespec="microseconds")
        shown = f"{shown}000"[: 19 + (digits and digits + 1)]
        sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
        return f"{shown}{sign}{hours:02}:{rest:02}" if minutes else f"{shown}Z"

    def cut(moment: datetime.datetime, digits: int) -> datetime.datetime:
        unit = 10 ** max(0, 6 - digits)
        return moment.replace(microsecond=moment.microsecond // unit * unit)

    texts = [written(first, digits, minutes), written(second, others, 0)]
    rows = [bytes(row) for row in timestamp_column([date_key(text) for text in texts])]
    expected = [cut(first, digits), cut(second, others)]
    assert (rows[0] < rows[1]) == (expected[0] < expected[1])
    assert (rows[0] == rows[1]) == (expected[0] == expected[1])


@given(st.text(max_size=40) | st.sampled_from(NO_DATES), st.sampled_from(FORMS))
def test_what_is_no_date_is_older_than_every_date(text: str, form: tuple[str, str]) -> None:
    if not is_date(text):
        column = timestamp_column([date_key(text), date_key(form[0]), date_key("0001")])
        assert bytes(column[0]) < bytes(column[2]) <= bytes(column[1])


def test_the_common_form_is_dates_and_every_day_of_a_year_but_one() -> None:
    day = datetime.date(2024, 1, 1)
    while day.year == 2024:
        text = f"{day}T23:59:59Z"
        common = re.fullmatch(COMMON_FORM, text) is not None
        assert common == ((day.month, day.day) != (2, 29)), text
        assert is_date(text)
        day += datetime.timedelta(days=1)
    for month in range(14):
        for number in range(33):
            text = f"2023-{month:02}-{number:02}T00:00:00Z"
            try:
                datetime.date(2023, month, number)
            except ValueError:
                assert not is_date(text)
            else:
                assert is_date(text)
    texts = pa.array([*(text for form in FORMS for text in form), *NO_DATES])
    found = pc.match_substring_regex(texts, rf"\A(?:{COMMON_FORM})\z").to_pylist()
    assert found == [re.fullmatch(COMMON_FORM, text) is not None for text in texts.to_pylist()]
