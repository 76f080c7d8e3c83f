"""Text files that a user wrote: word lists, url lists, recipes, tables. All are read this way."""

import codecs
import re

_OTHER_MARKS = (  # UTF-32 first: its little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

_MARKS = re.compile("^\ufeff+", re.MULTILINE)


def decode_text(content: bytes) -> str:
    r"""Return the text of a file in UTF-8, with or without a byte order mark, lines ending in LF.

    Lines may end in CR LF, LF or CR. A mark at the beginning of a later line is removed too:
    joined files have them.

    Raises:
        ValueError: It is not UTF-8. The message completes "the file is …" or "NAME: …".

    >>> decode_text(b"\xef\xbb\xbfone\r\ntwo\r")
    'one\ntwo\n'
    """
    for mark, encoding in _OTHER_MARKS:
        if content.startswith(mark):
            raise ValueError(f"{encoding} text, not UTF-8: save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise ValueError(
            f"not UTF-8: byte 0x{byte:02x} at position {error.start:,}; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError("not text: it has zero bytes, as UTF-16 has; save it as UTF-8")
    return _MARKS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
