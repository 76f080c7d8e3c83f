"""Convert failures of remote file systems to `OSError`, one line each, with the path."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from pipelines.extras import missing

_STATUS = re.compile(r"status code: (\d{3})")
_ERRNO_OF_STATUS = {
    401: errno.EACCES,
    403: errno.EACCES,
    404: errno.ENOENT,
    410: errno.ENOENT,
}


def of_status(status: int, path: str, detail: str = "") -> OSError:
    """Return the error for an HTTP status about a path."""
    number = _ERRNO_OF_STATUS.get(status)
    if number is not None:
        return OSError(number, os.strerror(number), path)
    said = f": {detail}" if detail else ""
    return OSError(errno.EIO, f"the server answered with status {status}{said}", path)


def as_oserror(error: Exception, path: str) -> OSError:
    """Return an error that a client raised as an OSError about a path."""
    if isinstance(error, FileNotFoundError):
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if isinstance(error, OSError) and error.errno and error.strerror:
        return OSError(error.errno, error.strerror, path)
    # urllib3 adds the error that it wraps.
    said = error.args[0] if len(error.args) > 1 and isinstance(error.args[0], str) else error
    line = next(iter(str(said).splitlines()), "") or type(error).__name__
    if isinstance(error, ValueError):  # obstore: an invalid name
        return OSError(errno.EINVAL, line, path)
    found = _STATUS.search(line)
    if found and int(found[1]) in _ERRNO_OF_STATUS:
        return of_status(int(found[1]), path)
    return OSError(errno.EIO, line, path)


@contextlib.contextmanager
def raising_oserror(path: str) -> Iterator[None]:
    """Turn whatever a client raises about a path inside the block into an OSError."""
    try:
        yield
    except Exception as error:
        raise as_oserror(error, path) from error


def require(extra: str, scheme: str) -> OSError:
    """Return the error for a client that is not installed."""
    return OSError(missing(f"{scheme}://", extra))
