"""What is wrong with a corpus, in one line."""

REBUILD = "run the same build again with --verify to rebuild it"


class CorpusError(ValueError):
    """A folder that is not a corpus, or a damaged corpus."""


def one_line(error: BaseException, path: str | None = None) -> str:
    r"""Return what an error says as one line, or its type if it says nothing.

    Args:
        error: The error.
        path: A file that the line is printed behind, so that the error need not name it.

    >>> one_line(ValueError("a\nb")), one_line(KeyError())
    ('a b', 'KeyError')
    >>> one_line(FileNotFoundError(2, "is gone", "a.gz"), "a.gz")
    'is gone'
    """
    said = str(error)
    if path is not None and isinstance(error, OSError) and error.filename in (None, path):
        said = error.strerror or said
    return " ".join(said.split()) or type(error).__name__
