"""What the shards of a corpus hold: lengths, languages, domains, years, a sample of pages."""

import dataclasses
import functools
from collections import Counter

from c4_filters.opt_out import host_of
from c4_filters.urls import normalize_url, page_key, registered_domain
from pipelines.bars import bar
from pipelines.corpus.formats.pages import Page
from pipelines.corpus.reading import Corpus
from pipelines.report.counting import Smallest, SumsByName, mixed
from pipelines.report.text import excerpt

_NO_DOMAIN = "(no domain)"
_CHARS = 1_500  # of a sampled page, before the report cuts it further


@dataclasses.dataclass
class Written:
    """The pages of a corpus.

    Attributes:
        lengths: Pages by the power of two that their characters reach: ``{10: n}`` for 1,024 to
            2,047.
        languages: Pages and bytes by code.
        domains: Pages and bytes by registered domain.
        years: Pages by year of the WARC-Date.
        words: Words, as blanks separate them.
        samples: Some pages, with the beginning of their texts.
    """

    lengths: Counter[int]
    languages: dict[str, list[int]]
    domains: SumsByName
    years: Counter[str]
    months: Counter[str]
    words: int
    pages: int
    bytes: int
    samples: list[Page]


def gather_written(corpus: Corpus, samples: int) -> Written:
    """Read all pages of a corpus.

    Args:
        corpus: The corpus.
        samples: Pages to sample.

    Raises:
        CorpusError: A shard is missing or damaged.
    """
    found = Written(Counter(), {}, SumsByName(), Counter(), Counter(), 0, 0, 0, [])
    chosen: Smallest[Page] = Smallest(samples)
    domain_of = functools.lru_cache(1 << 16)(registered_domain)
    with bar("pages", sum(corpus.splits.values()), leave=False) as progress:
        for split in corpus.splits:
            for page in corpus.pages(split):
                size = len(page.text.encode("utf-8", "surrogatepass"))
                found.pages += 1
                found.bytes += size
                found.words += len(page.text.split())
                found.lengths[len(page.text).bit_length() - 1] += 1
                sums = found.languages.setdefault(page.language or "", [0, 0])
                sums[0] += 1
                sums[1] += size
                found.domains.add(domain_of(host_of(page.url)) or _NO_DOMAIN, size)
                date = page.timestamp[:7]
                is_date = len(date) == 7 and date[:4].isdigit() and date[4] == "-"
                found.years[date[:4] if is_date else ""] += 1
                found.months[date if is_date else ""] += 1
                rank = int(mixed(page_key(normalize_url(page.url))))
                if chosen.wants(rank):
                    chosen.add(rank, page._replace(text=excerpt(page.text, _CHARS)))
                progress.update()
    found.samples = chosen.values()
    return found
