"""The data part of the EU's public summary of training content, from a corpus.

Template: C(2025) 5235 final, 24 July 2025, for Art. 53(1)(d) of Regulation (EU) 2024/1689. It is
the model provider's paper; a corpus can fill in what is about its text. Section 2.3 asks for the
top 10 % of all domains, ranked by the size of their content (small firms: the top 5 % or 1,000
domains, whichever is less): a share of the number of domains, not of the bytes.
"""

import csv
import heapq
import io
import json
from collections.abc import Mapping
from typing import Any

from pipelines.corpus.card.facts import Facts
from pipelines.corpus.manifest import WET, Manifest
from pipelines.report.counting import Item, SumsByName
from pipelines.report.written import Written

_SMALL_FIRM = 1_000
_TOKENS_PER_WORD = 1.3  # of English in a vocabulary of 32,000 pieces: an estimate
_BINS = ((10**9, "less than 1 billion"), (10**13, "1 billion to 10 trillion"))
_ROBOTS = "CCBot obeys robots.txt when it fetches pages (commoncrawl.org/ccbot)"
_LARGEST_BIN = "more than 10 trillion"


def cuts(domains: int) -> dict[str, int]:
    """Return how many domains each cut of the template has.

    >>> cuts(25), cuts(100_000)
    ({'top_10_percent': 3, 'small_firm': 2}, {'top_10_percent': 10000, 'small_firm': 1000})
    """
    return {
        "top_10_percent": -(-domains // 10),
        "small_firm": min(-(-domains // 20), _SMALL_FIRM),
    }


def largest(domains: SumsByName, number: int) -> list[Item]:
    """Return the domains with the most bytes, largest first; only those are held in memory."""
    return heapq.nsmallest(number, domains, key=lambda item: (-item.bytes, item.name))


def domains_table(written: Written) -> tuple[bytes, dict[str, int]]:
    """Return the domains of the larger cut as CSV, and how many each cut has.

    Columns: rank, domain, pages, bytes, share of all bytes, and whether the domain is in the top
    10 %, in the top 5 %, and among the first 1,000.
    """
    total = sum(1 for _ in written.domains)
    of_cut = cuts(total)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["rank", "domain", "pages", "bytes", "share", "top_10_percent", "top_5_percent", "top_1000"]
    )
    number = min(total, max(of_cut["top_10_percent"], _SMALL_FIRM))
    for rank, item in enumerate(largest(written.domains, number), 1):
        table.writerow(
            [
                rank, _cell(item.name), item.pages, item.bytes,
                f"{item.bytes / max(1, written.bytes):.8f}",
                *("yes" if rank <= most else "no"
                  for most in (of_cut["top_10_percent"], -(-total // 20), _SMALL_FIRM)),
            ]
        )  # fmt: skip
    return text.getvalue().encode(), {"domains": total, **of_cut}


def _cell(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


def summary(written: Written, made: Manifest, domain_cuts: Mapping[str, int]) -> bytes:
    """Return what the template asks of the text, by its sections, as JSON."""
    facts = Facts.of(made)
    tokens = round(written.words * _TOKENS_PER_WORD)
    size = next((name for most, name in _BINS if tokens < most), _LARGEST_BIN)
    months = sorted(month for month in written.months if month)
    period = [f"{month[5:]}/{month[:4]}" for month in (months[:1] + months[-1:])]
    languages = sorted(written.languages.items(), key=lambda item: (-item[1][1], item[0]))
    content: dict[str, Any] = {
        "template": "C(2025) 5235 final, 24 July 2025: the sections that a corpus can fill",
        "1.3": {
            "modality": "text",
            "size": {
                "bin": f"{size} tokens",
                "words": written.words,
                "tokens_estimated": tokens,
                "pages": written.pages,
                "bytes": written.bytes,
            },
            "types_of_content": facts.origin.what,
            "latest_date_of_collection": period[-1] if period else "",
            "languages": [
                {"language": code or "not detected", "pages": sums[0], "bytes": sums[1],
                 "share": round(sums[1] / max(1, written.bytes), 6)}
                for code, sums in languages
            ],
        },
        "2.1": {
            "publicly_available_data_sets": [
                {
                    "name": f"Common Crawl {crawl}",
                    "link": f"https://data.commoncrawl.org/crawl-data/{crawl}/index.html",
                }
                for crawl in facts.crawls
            ]
            or [{"name": facts.origin.name, "link": facts.origin.url}],
            "terms": facts.origin.terms,
            "period_of_collection": period,
            "files": [
                {"path": file.path, "bytes": file.bytes, "sha256": file.sha256}
                for file in made.inputs
            ],
            "processing": f"recipe {facts.config_name}: {facts.description}",
        },
        "2.3": {
            "crawler": f"not the provider's: {facts.origin.name}, see 2.1",
            "domains": {**domain_cuts, "list": "domains.csv"},
        },
        "3.1": {
            "opt_out_list_sha256": facts.opt_out,
            "robots_txt": _ROBOTS if facts.source == WET else "",
        },
        "3.2": {
            "rules": {
                name: made.counts.pages_dropped.get(name, 0) for name in ("bad_words", "domain")
            },
        },
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
