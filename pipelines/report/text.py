"""Text of the web as a report shows it: nothing in it can hide, reorder or control anything."""

import re

# Control characters; bidirectional controls and marks; separators, fillers and tags that show
# nothing; lone surrogates; what is no character. Joiners (U+200C, U+200D) stay: scripts need them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""Return a text with an escape in place of every character that shows nothing.

    >>> visible("safe\u202egpj.exe\x00\n")
    'safe\\u202egpj.exe\\u0000\n'
    """
    return _HIDDEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"


def excerpt(text: str, most: int, around: int = 0) -> str:
    """Return at most so many characters of a text, with ``…`` where some are left out.

    Args:
        text: The text.
        most: Characters to keep.
        around: A place that has to be among them.

    >>> excerpt("abcdefghij", 4), excerpt("abcdefghij", 4, around=9)
    ('abcd…', '…ghij')
    """
    if len(text) <= most:
        return text
    begin = min(max(0, around - most // 4), len(text) - most)
    end = begin + most
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"
