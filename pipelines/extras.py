"""The extras of this package: what to install for what is not in every installation."""


def missing(what: str, extra: str) -> str:
    """Return the message about something that needs an extra which is not installed.

    >>> missing("gs://", "gcp")
    "gs:// needs the extra gcp, which is not installed (in a clone: pip install -e '.[gcp]')"
    """
    return (
        f"{what} needs the extra {extra}, which is not installed "
        f"(in a clone: pip install -e '.[{extra}]')"
    )
