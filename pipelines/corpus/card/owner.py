"""What only the owner of a corpus knows of it: name, creator, address, licence (``--card``).

::

    name = "North Sea web corpus"
    creator = "Harbour Institute"
    url = "https://harbour.example/corpus"
    license = "cc-by-4.0"

A manifest keeps these values, so that the card can be written again without the file.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from pipelines import storage
from pipelines.text_files import decode_text

_OPTION = "--card"
_SPELLINGS = {"licence": "license", "licence_url": "license_url"}
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # of huggingface.co/docs/hub/repositories-licenses
_VERSION = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
_URL = re.compile(r"https?://[^\s/?#\"'<>\\]+[^\s\"'<>\\]*")
# With those that reorder text.
_CONTROL = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_MOST_CHARS = 10_000
#: Where licences that corpora commonly have can be read, by their names at Hugging Face.
_LICENCES = {
    "odc-by": "https://opendatacommons.org/licenses/by/1-0/",
    "odbl": "https://opendatacommons.org/licenses/odbl/1-0/",
    "pddl": "https://opendatacommons.org/licenses/pddl/1-0/",
    "cc0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "cc-by-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "cc-by-sa-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "cc-by-sa-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "cc-by-nc-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "cc-by-nc-sa-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """The values of a card file; empty ones were not given.

    Attributes:
        name: Of the corpus, for people.
        description: What it is, in a sentence or more.
        creator: The person or organisation that publishes it.
        creator_url: Where to read about them.
        url: Where the corpus is described.
        license: Its name at Hugging Face, such as ``odc-by``, or any name with ``license_url``.
        license_url: Where the licence can be read.
        version: Three numbers, as in ``1.0.0``.
        contact: An address for questions and takedowns.
        citation: How to cite it, such as a BibTeX entry.
        keywords: Words for search engines.
    """

    name: str = ""
    description: str = ""
    creator: str = ""
    creator_url: str = ""
    url: str = ""
    license: str = ""
    license_url: str = ""
    version: str = ""
    contact: str = ""
    citation: str = ""
    keywords: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in self.as_dict().items():
            for text in value if isinstance(value, list) else [value]:
                if not text.strip() or len(text) > _MOST_CHARS or _CONTROL.search(text):
                    raise ValueError(
                        f"{name} must be text of 1 to {_MOST_CHARS:,} characters without control "
                        f"characters, got {text[:40]!r}"
                    )
                if "\n" in text and name not in ("description", "citation"):
                    raise ValueError(f"{name} must be one line, got {text[:40]!r}")
        for name in ("url", "creator_url", "license_url"):
            value = getattr(self, name)
            if value and not _URL.fullmatch(value):
                raise ValueError(f"{name} must be an http:// or https:// address, got {value!r}")
        if self.version and not _VERSION.fullmatch(self.version):
            raise ValueError(f"version must be three numbers such as '1.0.0', got {self.version!r}")
        if self.license and not _ID.fullmatch(self.license) and not self.license_url:
            raise ValueError(
                f"license must be a name such as 'odc-by', got {self.license!r}: for one of your "
                "own, give license_url too"
            )
        if self.license_url and not self.license:
            raise ValueError("license_url needs license, the licence's name")

    def as_dict(self) -> dict[str, Any]:
        """Return the values that were given."""
        values = {**vars(self), "keywords": list(self.keywords)}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Owner":
        """Return the owner that has these values.

        Raises:
            ValueError: A key is unknown, or a value is of another type or form; the message names
                the key.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        given: dict[str, Any] = {}
        for written, value in values.items():
            name = _SPELLINGS.get(written, written)
            if name not in known:
                near = difflib.get_close_matches(written, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise ValueError(f"unknown key {written!r}; {hint}")
            if name in given:
                raise ValueError(f"{name} is given twice")
            if name == "keywords":
                if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                    raise ValueError(f"keywords must be a list of texts, got {value!r:.60}")
                value = tuple(value)
            elif not isinstance(value, str):
                raise ValueError(f"{written} must be a text, got {value!r:.60}")
            elif not value.strip():
                raise ValueError(f"{written} is empty: give a text or leave it out")
            given[name] = value.strip() if isinstance(value, str) else value
        return cls(**given)


def parse_owner(text: str) -> Owner:
    """Read a card file in TOML. Raises ValueError, see `Owner.from_mapping`."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"not valid TOML: {error}") from None
    return Owner.from_mapping(values)


def read_owner(path: str) -> Owner:
    """Read a card file. Raises ValueError or OSError, in one line that names it."""
    try:
        return parse_owner(decode_text(storage.read_bytes(path)))
    except OSError as error:
        raise OSError(
            f"cannot read the card {path}: {error.strerror or error} ({_OPTION})"
        ) from None
    except ValueError as error:
        raise ValueError(f"the card {path}: {error} ({_OPTION})") from None


def licence_url(name: str) -> str:
    """Return where a licence can be read, by its name at Hugging Face."""
    return _LICENCES.get(name, f"https://spdx.org/licenses/{name}.html")
