"""Lower case for what is written in ASCII: a quarter of the cost of str.lower on a web page."""

# The characters that str.lower turns into an ASCII letter although they are none: capital I with
# dot above becomes i and a combining dot, the Kelvin sign becomes k.
_BECOME_ASCII = ("\u0130", "\u212a")


def ascii_lowered(text: str) -> bytes | None:
    r"""Return ``text`` in UTF-8 with A to Z lowered, or None if that might hide an ASCII word.

    Caseless bytes occur in the result exactly if they occur in
    ``text.lower().encode()``. Few pages need the None: the caller then takes the long way.

    >>> ascii_lowered("Über JavaScript")
    b'\xc3\x9cber javascript'
    >>> ascii_lowered("\u212aelvin") is None
    True
    """
    for character in _BECOME_ASCII:
        if character in text:
            return None
    return text.encode("utf-8", "surrogatepass").lower()
