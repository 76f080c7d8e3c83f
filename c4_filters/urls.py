"""Rules that read a page's address: normal form, identity, split, domain and url lists."""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import mmh3

Split = Literal["train", "validation"]

# TF c4_utils.normalize_url; note that the prefix is removed anywhere in the url.
_SCHEME = re.compile(r"https?://(www\.)?")
_TRACKING = re.compile(r"\?(utm_|ref|feed).*")
_VALIDATION_ONE_IN = 1000  # TF c4.py: train_predicate_fn and validation_predicate_fn


def normalize_url(url: str) -> str:
    """Return the form in which two addresses of one page are equal (TF).

    >>> normalize_url("https://www.example.org/a/?utm_source=x")
    'example.org/a'
    """
    return without_tracking(_SCHEME.sub("", url)).rstrip("/")


def without_tracking(url: str) -> str:
    """Return an address without a query that only tells where its reader came from (TF).

    >>> without_tracking("example.org/a?utm_source=x")
    'example.org/a'
    """
    return _TRACKING.sub("", url) if "?" in url else url


def url_identity(normalized_url: str) -> bytes:
    """Return 16 bytes that are equal exactly for equal normalised urls (mmh3, 128 bits)."""
    return mmh3.mmh3_x64_128_digest(normalized_url.encode())


def page_key(normalized_url: str) -> int:
    """Return 64 bits that order pages by content, not by domain, file or worker.

    The high half of :func:`url_identity` read as a number: it decides which copy of a span stays,
    in which shard a page goes, and where in the shard.
    """
    return identity_key(url_identity(normalized_url))


def identity_key(identity: bytes) -> int:
    """Return the page key of a :func:`url_identity`."""
    return int.from_bytes(identity[:8], "little")


def md5_key(url: str) -> int:
    """Return the first 64 bits of md5(url), which order pages as TF's line dedup does."""
    return int.from_bytes(hashlib.md5(url.encode(), usedforsecurity=False).digest()[:8], "big")


def hash_fraction(normalized_url: str, denominator: int) -> int:
    """Return md5(normalised url) mod ``denominator``, TF's source of randomness."""
    digest = hashlib.md5(normalized_url.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest, "big") % denominator


def split_of(normalized_url: str) -> Split:
    """Return the split of a page: one in a thousand goes to validation (TF).

    >>> split_of("example.org/a")
    'train'
    """
    return "validation" if hash_fraction(normalized_url, _VALIDATION_ONE_IN) == 0 else "train"


@functools.cache
def _extract() -> Callable[[str], Any]:
    """Return a function that splits a host into subdomain, domain and suffix."""
    import tldextract  # takes 0.1 s, and only two recipes need it

    # The suffix list that the package carries: nothing is downloaded, every worker agrees.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domain(host: str) -> str:
    """Return the domain that somebody registered, by the packaged public suffix list.

    >>> registered_domain("news.example.co.uk:80"), registered_domain("192.0.2.7")
    ('example.co.uk', '192.0.2.7')
    """
    parts = _extract()(host)
    return f"{parts.domain}.{parts.suffix}" if parts.domain and parts.suffix else parts.domain


class DomainList:
    """Registered domains, each allowed wholly or for some subdomains (RealNews-like, P 3.4).

    >>> news = DomainList({"example.org": True, "example.com": ["news"]})
    >>> news.allows("news.example.com/a"), news.allows("shop.example.com/a")
    (True, False)
    """

    def __init__(self, domains: Mapping[str, bool | list[str]]) -> None:
        for domain, allowed in domains.items():
            fits = allowed is True or (
                isinstance(allowed, list) and all(isinstance(item, str) for item in allowed)
            )
            if not fits:
                raise ValueError(
                    f"domain list: {domain!r} must map to true or to a list of subdomains, "
                    f"got {allowed!r}"
                )
        self._domains = {
            domain: None if allowed is True else frozenset(allowed)  # type: ignore[arg-type]
            for domain, allowed in domains.items()
        }

    def allows(self, normalized_url: str) -> bool:
        """Whether the registered domain, and the subdomain where some are named, is listed."""
        parts = _extract()(normalized_url)
        domain = f"{parts.domain}.{parts.suffix}"
        if domain not in self._domains:
            return False
        subdomains = self._domains[domain]
        return subdomains is None or parts.subdomain in subdomains


def parse_domain_list(text: str) -> DomainList:
    """Read the published RealNews form: a JSON object from domain to ``true`` or subdomains."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"domain list: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError("domain list: must be a JSON object from domain to true or subdomains")
    return DomainList(values)


def parse_url_list(lines: Iterable[str]) -> frozenset[bytes]:
    """Return the identities of an OpenWebText-like list: one url per line, blank lines skipped."""
    return frozenset(url_identity(normalize_url(line.strip())) for line in lines if line.strip())
