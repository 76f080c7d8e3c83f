"""How this project treats web servers: what it sends, when it retries, when it gives up.

Everything over HTTP goes through `Manners.ask`: builds that read ``https://`` files, and ``c4
fetch``. The rules are those that Common Crawl asks of downloaders (status.commoncrawl.org;
cc-downloader, src/download.rs):

=====================  =========================================================================
answer                 what follows
=====================  =========================================================================
500 to 599, 429, 408   retried for hours, at least one second later, with growing jittered waits
                       and never before ``Retry-After``
403                    a CDN's rate limit: all requests to the host wait 2 s, then twice as long
                       each time; after eight refusals in a row the run stops
404 and others         never retried
no connection          a host that has never answered is given up within a minute; one that has
                       answered is retried for hours
a redirect             followed to http(s), at most five times, never from https to http
a broken transfer,     retried six times in a row without progress, a thousand times in all
a wrong range, no HTTP
=====================  =========================================================================
"""

import contextlib
import dataclasses
import email.utils
import errno
import html
import http.client
import os
import random
import re
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.printing import print_note, printable
from pipelines.storage.errors import of_status
from pipelines.version import VERSION

if TYPE_CHECKING:
    import requests

#: The environment variable with the address by which a server's owner can reach the user.
CONTACT_VARIABLE = "C4_CONTACT"
_CONTACT = "https://pypi.org/project/colossal-c4/"
_TIMEOUT_S = (10, 20)  # to connect, and between two reads
_LEAST_WAIT_S, _MOST_WAIT_S = 1.0, 60.0
_MOST_RETRY_AFTER_S = 3600.0
_PATIENCE_S = 6 * 3600.0  # without any progress of a file
_UNANSWERED_S = 30.0  # of a host that has never answered; the last try may take as long again
_REFUSED_S, _MOST_REFUSED_S = 2.0, 600.0
_MOST_REFUSALS = 8
_MOST_FAULTS = 6
_MOST_RETRIES = 1000  # of a file
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_WORDS_READ, _WORDS_SHOWN = 16 << 10, 300  # of an error page: bytes, characters


class RefusedError(PermissionError):
    """The host refuses all requests of this process: it should send no more."""


class UnreachableError(ConnectionError):
    """The host has never answered this process, and was given up."""


class FaultError(OSError):
    """A server answers, but its answers are wrong, again and again."""


class StoppedError(OSError):
    """The run was stopped while a request waited."""


def user_agent() -> str:
    """Return what requests name as their sender: tool, version and how to reach somebody.

    Raises:
        ValueError: ``C4_CONTACT`` cannot be sent in a header.
    """
    contact = os.environ.get(CONTACT_VARIABLE, "").strip() or _CONTACT
    if not (contact.isascii() and contact.isprintable()):
        raise ValueError(f"{CONTACT_VARIABLE} must be one line of ASCII, got {contact!r}")
    return f"colossal-c4/{VERSION} (+{contact})"


_clock = time.monotonic


def _sleep_until_stopped(stop: threading.Event, seconds: float) -> bool:
    return stop.wait(seconds)


@dataclasses.dataclass
class _Host:
    """What is known of a host."""

    first_asked: float
    answered: bool = False
    refusals: int = 0  # in a row
    paused_at: float = 0.0
    paused_until: float = 0.0
    refused: RefusedError | None = None  # what requests raise
    refused_until: float = 0.0


class Manners:
    """The connections of a process or run. Threads may share it.

    Attributes:
        note: Takes lines for the user.
    """

    def __init__(self, note: Callable[[str], None] | None = None) -> None:
        """Make the state of a run. ``note`` takes lines about waits (default: print them)."""
        self._stop = threading.Event()
        self.note = note or print_note
        self._noted: set[str] = set()
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._session = _new_session()

    def stop(self) -> None:
        """Make all waits of this run raise StoppedError from now on."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    def patience(self, path: str) -> "Patience":
        """Return the count of retries for one file."""
        return Patience(self, path)

    def ask(
        self, method: str, url: str, headers: dict[str, str], patience: "Patience"
    ) -> "requests.Response":
        """Send a request until the server gives an answer that no retry would change.

        Args:
            method: ``GET`` or ``HEAD``.
            url: The address.
            headers: More headers.
            patience: Counts retries; of the file that is asked for.

        Returns:
            The answer, streamed, whatever its status. A 403 to ``HEAD`` is returned too: some
            servers allow only ``GET``.

        Raises:
            RefusedError: The host has refused eight requests in a row.
            OSError: The host cannot be reached, has refused this file eight times, redirects to
                where no redirect may lead, or patience has ended.
        """
        name = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]  # without a password
        with self._lock:
            host = self._hosts.setdefault(name, _Host(_clock()))
        while True:
            self._await_permission(host)
            asked = _clock()
            try:
                answer = self._follow(method, url, headers, host)
            except _NoAnswerError as error:
                self._await_answer(host, name, error, url, patience)
                continue
            status = answer.status_code
            if status == 403 and method != "HEAD":
                words = body_words(answer)
                answer.close()
                self._refuse(host, name, asked, words, patience)
            elif status in (408, 429) or status >= 500:
                after = _retry_after(answer)
                answer.close()
                when = f" in {after:,.0f} s, as it asks" if after > _MOST_WAIT_S else ""
                self._note_once(
                    f"c4: note: {name} answers with status {status}: trying again{when}"
                )
                patience.busy(f"the server answers with status {status}", after)
            else:
                with self._lock:
                    if status < 300 and asked >= host.paused_until:
                        host.refusals = 0
                return answer

    def _await_answer(
        self,
        host: _Host,
        name: str,
        error: "_NoAnswerError",
        url: str,
        patience: "Patience",
    ) -> None:
        """Wait before a retry, or raise the error of a host that is given up."""
        if host.answered:
            if error.final:
                raise OSError(errno.EIO, str(error), url) from None
            if error.faulty:
                patience.fault(str(error))
            else:
                self._note_once(f"c4: note: {name} does not answer ({error}): trying again")
                patience.busy(str(error))
            return
        left = _UNANSWERED_S - (_clock() - host.first_asked)
        if error.final or left < 0:
            raise UnreachableError(errno.EIO, str(error), url) from None
        patience.busy(str(error), most_s=left)

    def wait(self, seconds: float) -> None:
        """Wait. Raises StoppedError as soon as the run is stopped."""
        if _sleep_until_stopped(self._stop, seconds):
            raise StoppedError("stopped")

    def _follow(
        self, method: str, url: str, headers: dict[str, str], host: _Host
    ) -> "requests.Response":
        import requests

        at = url
        for _ in range(_MOST_REDIRECTS + 1):
            try:
                answer = self._session.request(
                    method, at, headers=headers, stream=True, timeout=_TIMEOUT_S,
                    allow_redirects=False,
                )  # fmt: skip
            except (requests.RequestException, ValueError) as error:
                final = isinstance(error, ValueError) or "CERTIFICATE_VERIFY" in str(error)
                faulty = at != url or _is_no_answer(_innermost(error))
                raise _NoAnswerError(reason(error), final, faulty) from error
            host.answered = True
            to = answer.headers.get("Location", "")
            if answer.status_code not in _REDIRECTS or not to:
                return answer
            answer.close()
            at = _redirected(at, to, url)
        raise OSError(errno.ELOOP, f"the server redirects more than {_MOST_REDIRECTS} times", url)

    def _await_permission(self, host: _Host) -> None:
        while True:
            with self._lock:
                if host.refused is not None:
                    if _clock() < host.refused_until:
                        raise host.refused
                    host.refused, host.refusals = None, 0
                left = host.paused_until - _clock()
            if left <= 0:
                if self._stop.is_set():
                    raise StoppedError("stopped")
                return
            self.wait(left)

    def _refuse(
        self, host: _Host, name: str, asked: float, words: str, patience: "Patience"
    ) -> None:
        """Make all requests to a host wait, or raise the error of one that refuses for good."""
        said = f": {words}" if words else ""
        patience.refusals += 1
        with self._lock:
            is_new = asked >= host.paused_at  # else it was sent before another refusal came
            host.refusals += is_new
            if host.refusals >= _MOST_REFUSALS:
                what = f"the server refuses requests (status 403){said}; try again in some hours"
                host.refused = RefusedError(errno.EACCES, what, patience.path)
                host.refused_until = _clock() + _MOST_REFUSED_S
                raise host.refused
            if patience.refusals >= _MOST_REFUSALS:  # while it serves others
                what = f"the server refuses this file (status 403){said}"
                raise PermissionError(errno.EACCES, what, patience.path)
            if is_new:
                times = max(host.refusals, patience.refusals)
                pause = min(_MOST_REFUSED_S, _REFUSED_S * 2 ** (times - 1))
                host.paused_at = _clock()
                host.paused_until = host.paused_at + pause
                self.note(
                    f"c4: note: {name} refuses requests (status 403){said}: waiting {pause:.0f} s"
                )

    def _note_once(self, line: str) -> None:
        with self._lock:
            is_new = line not in self._noted
            self._noted.add(line)
        if is_new:
            self.note(line)


class Patience:
    """How often requests for one file have failed, and how long to wait before the next."""

    def __init__(self, manners: Manners, path: str) -> None:
        self.path = path
        self.refusals = 0
        self._manners = manners
        self._retries = self._in_a_row = self._faults = 0
        self._since: float | None = None

    def progressed(self) -> None:
        """Note that bytes of the file have arrived."""
        self.refusals = self._in_a_row = self._faults = 0
        self._since = None

    def busy(self, why: str, after_s: float = 0.0, most_s: float | None = None) -> None:
        """Wait before a retry, since the server is busy or cannot be reached.

        Args:
            why: What the server did.
            after_s: Wait at least so long.
            most_s: Wait no longer.

        Raises:
            OSError: Nothing has arrived for hours.
        """
        now = _clock()
        self._since = self._since if self._since is not None else now
        if now - self._since > _PATIENCE_S:
            hours = _PATIENCE_S / 3600
            raise OSError(errno.EIO, f"{why}, for {hours:.0f} hours: try again later", self.path)
        self._wait(why, after_s, most_s)

    def fault(self, why: str) -> None:
        """Wait before a retry, since an answer was wrong.

        Raises:
            FaultError: So were the last ones.
        """
        self._faults += 1
        if self._faults >= _MOST_FAULTS:
            raise FaultError(errno.EIO, f"{why}, {self._faults} times in a row", self.path)
        self._wait(why, 0.0, None)

    def _wait(self, why: str, after_s: float, most_s: float | None) -> None:
        self._retries += 1
        if self._retries > _MOST_RETRIES:
            raise OSError(errno.EIO, f"{why}, after {_MOST_RETRIES:,} retries", self.path)
        wait = min(_MOST_WAIT_S, _LEAST_WAIT_S * 2**self._in_a_row) * random.uniform(1.0, 1.5)
        self._in_a_row = min(self._in_a_row + 1, 30)
        wait = wait if most_s is None else max(_LEAST_WAIT_S, min(wait, most_s))
        self._manners.wait(max(wait, after_s))


class _NoAnswerError(Exception):
    def __init__(self, why: str, final: bool, faulty: bool) -> None:
        super().__init__(why)
        self.final = final  # another try would fail too
        self.faulty = faulty  # a server has answered: with no HTTP, or with a redirect to nowhere


def _new_session() -> "requests.Session":
    import requests
    from requests.adapters import HTTPAdapter

    class Session(requests.Session):
        def get_redirect_target(self, resp: "requests.Response") -> None:
            """Return None: requests would read the whole body of a redirect."""

    session = Session()
    for prefix in ("http://", "https://"):
        session.mount(prefix, HTTPAdapter(max_retries=0, pool_maxsize=32))
    # As stored: a server might compress files again.
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": user_agent()})
    return session


def _redirected(at: str, to: str, url: str) -> str:
    """Return where a redirect leads. Raises OSError if it may not lead there."""
    try:
        target = urllib.parse.urljoin(at, to)
        scheme = urllib.parse.urlsplit(target).scheme
    except ValueError:
        target, scheme = to, ""
    shown = printable(target[:200])
    if scheme not in ("http", "https"):
        what = f"the server redirects to {shown}, which is not a web address: refused"
        raise OSError(errno.EPERM, what, url)
    if scheme == "http" and at.lower().startswith("https:"):
        what = f"the server redirects from https to http ({shown}): refused"
        raise OSError(errno.EPERM, what, url)
    return target


def _retry_after(answer: "requests.Response") -> float:
    """Return how many seconds the server asks to wait; 0 if it does not say."""
    text = answer.headers.get("Retry-After", "").strip()
    seconds = 0.0
    if text.isascii() and text.isdecimal():
        seconds = float(text[:9])
    elif text:
        with contextlib.suppress(ValueError, OverflowError):
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(0.0, seconds), _MOST_RETRY_AFTER_S)


def body_words(answer: "requests.Response") -> str:
    """Return the words of an error page, without markup, in one short line."""
    try:
        body: bytes = answer.raw.read(_WORDS_READ, decode_content=False)
        if body.startswith(b"\x1f\x8b"):
            body = zlib.decompressobj(31).decompress(body, _WORDS_READ)
    except Exception:  # the connection breaks, or the gzip is damaged
        return ""
    text = body.decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style|head)\b.*?</\1\s*>", " ", text)
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())
    return printable(words[:_WORDS_SHOWN])


def reason(error: Exception) -> str:
    """Return the innermost reason of a failed connection, without the layers around it."""
    inner = _innermost(error)
    what = "the server cannot be reached"
    if _is_no_answer(inner):
        what = f"the server's answer is no HTTP ({type(inner).__name__})"
    text = str(getattr(inner, "reason", None) or inner)
    return printable(f"{what}: {' '.join(text.split())[:_WORDS_SHOWN]}")


def _innermost(error: Exception) -> Exception:
    """Return the error that clients have wrapped, in ``reason`` or their arguments."""
    while True:
        wrapped = (getattr(error, "reason", None), *error.args)
        inner = next((found for found in wrapped if isinstance(found, Exception)), None)
        if inner is None:
            return error
        error = inner


def _is_no_answer(error: Exception) -> bool:
    """Return whether a server answered with what is no HTTP; one that hangs up may be busy."""
    wrong = isinstance(error, http.client.HTTPException)
    return wrong and not isinstance(error, ConnectionError)


def refusal(answer: "requests.Response", path: str) -> OSError:
    """Return the error for an answer that is not a file, with the words of its page; close it."""
    words = body_words(answer)
    answer.close()
    return of_status(answer.status_code, path, words)
