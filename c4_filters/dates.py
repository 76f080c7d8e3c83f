"""WARC dates: compare captures by time, and write all dates in one form.

Common Crawl writes ``2019-04-18T10:00:00Z``. WARC 1.1 (section 4.7 of its specification, after
W3CDTF) also allows fractions of a second of one to nine digits and dates that are cut off from the
right: ``2016-09``, ``2016-09-19T17:20Z``. Other writers use the 14 digits of the CDX format, or an
offset instead of the ``Z``.
"""

import datetime
import re

# Matches the dates of nearly all pages. RE2 can read it too. 29 February needs the calendar.
COMMON_FORM = (
    r"[1-9][0-9]{3}-(?:"
    r"(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31"
    r")T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
)
_common = re.compile(COMMON_FORM).fullmatch

_FRACTION = r"(?:[.,](?P<fraction>[0-9]+))?"
_OFFSET = r" ?(?:[Zz]|(?P<sign>[+-])(?P<off_hours>[0-9]{2})(?::?(?P<off_minutes>[0-9]{2}))?)?"
_FORMS = (
    re.compile(
        r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
        r"(?:[Tt ](?P<hour>[0-9]{2})(?::(?P<minute>[0-9]{2})"
        rf"(?::(?P<second>[0-9]{{2}}){_FRACTION})?)?{_OFFSET})?)?)?"
    ),
    re.compile(  # without separators; what follows 14 digits is a fraction of the second
        r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?:(?P<day>[0-9]{2})"
        r"(?:[Tt]?(?P<hour>[0-9]{2})(?:(?P<minute>[0-9]{2})"
        rf"(?:(?P<second>[0-9]{{2}})(?:[.,]?(?P<fraction>[0-9]+))?)?)?{_OFFSET})?)?"
    ),
)


def is_date(text: str) -> bool:
    """Return whether ``text`` is a date in one of the forms above.

    >>> is_date("2016-09"), is_date("2019-02-30T10:00:00Z"), is_date("yesterday")
    (True, False, False)
    """
    return _common(text) is not None or _parse(text) is not None


def whole_seconds(text: str) -> str:
    """Return a date as ``YYYY-MM-DDThh:mm:ssZ``, and any other text unchanged.

    A date that is cut off becomes its first moment; a fraction is dropped.

    >>> whole_seconds("2016-09"), whole_seconds("20190418100000")
    ('2016-09-01T00:00:00Z', '2019-04-18T10:00:00Z')
    >>> whole_seconds("2019-04-18T10:00:00.9+01:00")
    '2019-04-18T09:00:00Z'
    """
    if _common(text):
        return text
    parsed = _parse(text)
    return text if parsed is None else parsed[0]


def date_key(text: str) -> str:
    """Return a text that sorts by time, byte by byte: later dates after earlier ones.

    A date in Common Crawl's form is its own key. A text that is not a date sorts before all dates,
    by its bytes.

    >>> dates = ["2024-05-01T10:00:00.55Z", "2024-05-01T10:00:00.5Z", "2024-05-01T10:00:00Z", "?"]
    >>> sorted(dates, key=date_key) == dates[::-1]
    True
    """
    if _common(text):
        return text
    parsed = _parse(text)
    if parsed is None:
        return f" {text}"
    seconds, fraction = parsed
    return f"{seconds}.{fraction}" if fraction else seconds


def _parse(text: str) -> tuple[str, str] | None:
    """Return (whole seconds, fraction without the zeros at its end), or None for no date."""
    for form in _FORMS:
        if found := form.fullmatch(text):
            break
    else:
        return None
    fields = found.groupdict()
    hour, minute, second = (int(fields[name] or 0) for name in ("hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second and counts as the next second
        return None
    offset = datetime.timedelta(
        hours=int(fields["off_hours"] or 0), minutes=int(fields["off_minutes"] or 0)
    )
    try:
        day = datetime.datetime(
            int(fields["year"]), int(fields["month"] or 1), int(fields["day"] or 1)
        )
        moment = day + datetime.timedelta(hours=hour, minutes=minute, seconds=second)
        moment += offset if fields["sign"] == "-" else -offset
    except (ValueError, OverflowError):  # 30 February, or a year outside the calendar
        return None
    return f"{moment.isoformat(timespec='seconds')}Z", (fields["fraction"] or "").rstrip("0")
