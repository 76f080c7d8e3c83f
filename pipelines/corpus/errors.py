"""What is wrong with a corpus, in one line."""

__all__ = ["CorpusError", "one_line"]


class CorpusError(ValueError):
    """A folder that is not a corpus, or a damaged corpus."""


def one_line(error: BaseException) -> str:
    r"""Return what an error says as one line, or its type if it says nothing.

    >>> one_line(ValueError("a\nb")), one_line(KeyError())
    ('a b', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__
