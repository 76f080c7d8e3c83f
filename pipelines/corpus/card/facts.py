"""The facts that every form of the card states, from a manifest."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelines.corpus.card.owner import Owner, licence_url
from pipelines.corpus.dataset_info import Splits, splits_of
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats.pages import LANGUAGE_FEATURES, TEXT_FEATURES
from pipelines.corpus.formats.provenance import PROVENANCE_FEATURES
from pipelines.corpus.layout import MANIFEST
from pipelines.corpus.manifest import OPT_OUT, WET, Manifest, SplitSums

#: They bind whoever uses Common Crawl's data, whatever the licence of a corpus made from it.
COMMON_CRAWL_TERMS = "https://commoncrawl.org/terms-of-use"
# The id of a crawl in the path of one of its files; news crawls are dated by month.
_CRAWL = re.compile(r"CC-MAIN-\d{4}(?:-\d{4})*-\d{2,3}(?!\d)|CC-NEWS-\d{4}-\d{2}(?!\d)")
_NOBODY = Owner()
_LISTED_INPUTS = 100_000  # looked at for crawl ids


class Origin(NamedTuple):
    """What a kind of input is, and what holds for its text."""

    what: str
    name: str  # of the body of text that it is part of
    url: str
    license: str  # its name at Hugging Face
    terms: str  # that apply too
    terms_name: str


_ORIGINS = {
    WET: Origin(
        "WET files of Common Crawl", "Common Crawl", "https://commoncrawl.org/",
        "odc-by", COMMON_CRAWL_TERMS, "Common Crawl's terms of use",
    ),
    "wikipedia": Origin(
        "a dump of Wikipedia", "Wikipedia", "https://dumps.wikimedia.org/",
        "cc-by-sa-4.0", "https://dumps.wikimedia.org/legal.html", "Wikimedia's terms for dumps",
    ),
}  # fmt: skip
#: Of texts whose owner alone knows where they come from.
_ELSEWHERE = Origin("files of the owner's", "other texts", "", "unknown", "", "")


class Licence(NamedTuple):
    """A licence's name at Hugging Face, or another name, and where it can be read."""

    name: str
    url: str
    is_known: bool  # the name is one of Hugging Face's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card says of a corpus.

    Attributes:
        formats: Keys of `pipelines.corpus.formats.FORMATS` that the folder holds.
        splits: The shards, in any one of the formats.
        description: What the corpus is, for people.
        config_name: The recipe, as in ``c4/en``.
        owner: What the owner says.
        sums: Pages and bytes of text of each split.
        languages: Pages by language, where the recipe detects it.
        oldest: The oldest WARC-Date of a page; empty if there is none.
        newest: The newest.
        crawls: Ids of Common Crawl's crawls, as far as the inputs' paths show them.
        version: Of c4.
        source: What the inputs are: "wet" files, or a source of ``c4 import``.
        opt_out: SHA-256 of the opt-out list; empty if there was none.
        provenance: Whether Parquet shards have columns that say where each record is.
    """

    formats: Sequence[str]
    splits: Splits
    description: str
    config_name: str
    owner: Owner = _NOBODY
    sums: Mapping[str, SplitSums] = dataclasses.field(default_factory=dict)
    languages: Mapping[str, int] = dataclasses.field(default_factory=dict)
    oldest: str = ""
    newest: str = ""
    crawls: Sequence[str] = ()
    pages_read: int = 0
    version: str = ""
    source: str = WET
    opt_out: str = ""
    provenance: bool = False

    @classmethod
    def of(cls, made: Manifest) -> "Facts":
        """Return the facts of a corpus. Raises CorpusError if its manifest is damaged."""
        name = made.recipe["name"]
        try:
            owner = Owner.from_mapping(made.card)
        except ValueError as error:
            raise CorpusError(f"{MANIFEST} is damaged: card: {error}") from None
        return cls(
            formats=made.formats,
            splits=splits_of(made),
            description=f"C4-style corpus, recipe {name}: {made.recipe['description']}",
            config_name=name,
            owner=owner,
            sums=made.splits,
            languages=made.languages,
            oldest=made.dates[0] if made.dates else "",
            newest=made.dates[-1] if made.dates else "",
            crawls=crawls_of([file.path for file in made.inputs[:_LISTED_INPUTS]]),
            pages_read=made.counts.pages_read,
            version=made.versions.get("colossal-c4", ""),
            source=made.settings.source,
            opt_out=made.settings.lists.get(OPT_OUT, ""),
            provenance=made.settings.provenance,
        )

    @property
    def name(self) -> str:
        """The name of the corpus."""
        return self.owner.name or f"c4/{self.config_name}"

    @property
    def text(self) -> str:
        """The description, the owner's own if there is one."""
        return (self.owner.description or self.description).strip()

    @property
    def url(self) -> str:
        """The owner's address, or else that of the newest crawl or of the inputs' kind."""
        if self.owner.url:
            return self.owner.url
        if self.crawls:
            return f"https://data.commoncrawl.org/crawl-data/{self.crawls[-1]}/index.html"
        return self.origin.url

    @property
    def read_by_others(self) -> str | None:
        """The format of the shards that Hugging Face's and Croissant's libraries open."""
        return next((name for name in ("parquet", "json") if name in self.formats), None)

    @property
    def columns(self) -> list[str]:
        """The features of a page in the shards of that format."""
        names = [*TEXT_FEATURES]
        if self.read_by_others == "parquet":
            names += LANGUAGE_FEATURES
            names += [field.name for field in PROVENANCE_FEATURES if self.provenance]
        return names

    @property
    def origin(self) -> Origin:
        """What the inputs are."""
        return _ORIGINS.get(self.source, _ELSEWHERE)

    @property
    def has_dates(self) -> bool:
        """Whether the inputs are of a kind that dates every page in one form."""
        return self.source in _ORIGINS

    @property
    def where(self) -> str:
        """What the inputs are, with the crawls, in words."""
        return f"{self.origin.what} ({', '.join(self.crawls)})" if self.crawls else self.origin.what

    @property
    def licence(self) -> Licence:
        """The owner's licence, or else that of the inputs: of Common Crawl's, the one C4 has."""
        name = self.owner.license or self.origin.license
        url = self.owner.license_url or licence_url(name)
        return Licence(name, "" if name == "unknown" else url, not self.owner.license_url)

    @property
    def pages(self) -> int:
        """Pages of all splits."""
        return sum(sums.pages for sums in self.sums.values())

    @property
    def text_bytes(self) -> int:
        """Bytes of text of all splits."""
        return sum(sums.text_bytes for sums in self.sums.values())


def crawls_of(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the ids of the crawls that paths name, in order.

    >>> crawls_of(["crawl-data/CC-MAIN-2019-18/segments/1/wet/CC-MAIN-20190418101243-20190418.gz"])
    ('CC-MAIN-2019-18',)
    """
    return tuple(sorted({found for path in paths for found in _CRAWL.findall(path)}))
