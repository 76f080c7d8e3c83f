"""What the card says of columns of pages: their languages and their dates."""

import pyarrow as pa
import pyarrow.compute as pc

from c4_filters.dates import COMMON_FORM, whole_seconds

__all__ = ["in_whole_seconds", "languages_of", "oldest_and_newest"]

_WHOLE_DATE = rf"\A(?:{COMMON_FORM})\z"


def in_whole_seconds(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return dates as ``YYYY-MM-DDThh:mm:ssZ``, so that readers that guess types find one."""
    odd = pc.invert(pc.match_substring_regex(dates, _WHOLE_DATE))
    if not pc.any(odd).as_py():
        return dates
    changed = [whole_seconds(date) for date in dates.filter(odd).to_pylist()]
    return pc.replace_with_mask(dates, odd.combine_chunks(), pa.array(changed, dates.type))


def languages_of(codes: pa.ChunkedArray) -> dict[str, int]:
    """Return the pages of each language; pages without one are left out."""
    counted = pc.value_counts(codes).to_pylist()
    return {each["values"]: each["counts"] for each in counted if each["values"] is not None}


def oldest_and_newest(dates: pa.ChunkedArray) -> tuple[str, ...]:
    """Return the first and the last date, or nothing if no text is a date."""
    dates = in_whole_seconds(dates)
    found = pc.min_max(dates.filter(pc.match_substring_regex(dates, _WHOLE_DATE))).as_py()
    return () if found["min"] is None else (found["min"], found["max"])
