import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters.ascii_case import ascii_lowered

WORDS = st.text(st.sampled_from("kKiI\u0130\u212aßẞÅ\u212bσΣς éÉ{.a Z\n"))


@pytest.mark.slow
@given(WORDS | st.text(), st.sampled_from(["k", "i", "kk", "ik", "{", "a z", "é"]))
def test_finds_caseless_bytes_where_the_lower_case_of_unicode_does(text: str, needle: str) -> None:
    lowered = ascii_lowered(text)
    if lowered is None:
        return  # the caller takes str.lower
    if needle.isascii():
        assert (needle.encode() in lowered) == (needle in text.lower())


def test_knows_every_character_that_becomes_ascii() -> None:
    becoming = [
        char
        for char in map(chr, range(0x80, sys.maxunicode + 1))
        if not "\ud800" <= char <= "\udfff" and any(c.isascii() for c in char.lower())
    ]
    assert becoming
    assert all(ascii_lowered(f"a{char}b") is None for char in becoming)
