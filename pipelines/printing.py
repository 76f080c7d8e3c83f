"""What web pages say, shown on a terminal."""

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""The text with a dot for every character that moves a terminal instead of showing.

    >>> printable("red \x1b[31m alert")
    'red ·[31m alert'
    """
    return "".join(character if character.isprintable() else "·" for character in text)
