"""All that a report says of one corpus, as JSON values."""

from collections.abc import Iterable, Mapping
from typing import Any

from c4_filters.verdicts import LineVerdict, PageVerdict, RejectReason
from pipelines.corpus.card.facts import Facts
from pipelines.corpus.manifest import Manifest
from pipelines.corpus.reading import Corpus
from pipelines.report.dropped import gather_dropped, gather_rejects, sample
from pipelines.report.summary import largest
from pipelines.report.text import excerpt, visible
from pipelines.report.written import gather_written

#: Names of samples that are not verdicts of dropped pages.
KEPT, REJECTED = "kept", "rejected record"
_SHOWN_DOMAINS = 30
_SHOWN_LANGUAGES = 30
_URL_CHARS = 300
_REJECTS = 50


def gather(corpus: Corpus, made: Manifest, samples: int) -> dict[str, Any]:
    """Read a corpus and its kept files.

    Args:
        corpus: The corpus.
        made: Its manifest.
        samples: Pages to sample for each rule.

    Returns:
        JSON values whose texts show every character.

    Raises:
        CorpusError: A shard is missing or damaged.
        OSError: A file cannot be read.
        ValueError: A kept file is damaged; the message names it.
    """
    written = gather_written(corpus, samples)
    dropped = gather_dropped(corpus.folder, made, samples)
    facts, counts = Facts.of(made), made.counts
    kept = [
        sample(
            page.url,
            ", ".join(filter(None, (page.language, page.timestamp))),
            [["", line] for line in page.text.split("\n")[:12]],
        )
        for page in written.samples
    ]
    rejects = [
        sample("", f"{each['file']} at {each['offset']}", [[each["reason"], each["detail"]]])
        for each in gather_rejects(corpus.folder, made.inputs, min(samples, _REJECTS))
    ]
    of_rules = {
        name: dropped.samples.get(name, []) for name in _ordered(counts.pages_dropped, PageVerdict)
    }
    number = sum(1 for _ in written.domains)
    domains = largest(written.domains, min(number, _SHOWN_DOMAINS))
    written.domains.close()
    languages = sorted(written.languages.items(), key=lambda item: (-item[1][0], item[0]))
    result = {
        "folder": corpus.folder,
        "recipe": facts.config_name,
        "name": facts.name,
        "description": facts.text,
        "dates": [facts.oldest, facts.newest],
        "version": facts.version,
        "files": [counts.files_read, counts.files_unreadable],
        "pages": _flow(counts.pages_read, counts.pages_dropped, counts.pages_written, PageVerdict),
        "lines": _flow(counts.lines_read, counts.lines_dropped, counts.lines_written, LineVerdict),
        "rejected": [
            [str(name), counts.records_rejected_by_reason[name]]
            for name in RejectReason
            if counts.records_rejected_by_reason.get(name)
        ],
        "bytes": written.bytes,
        "words": written.words,
        "lengths": [[1 << power, n] for power, n in sorted(written.lengths.items()) if power >= 0],
        "languages": [[code or "(none)", *sums] for code, sums in languages[:_SHOWN_LANGUAGES]],
        "domains": [list(item) for item in domains],
        "domain_count": number,
        "years": [[year or "(no date)", n] for year, n in sorted(written.years.items())],
        "url_groups": _sizes(dropped.url_groups),
        "span_groups": _sizes(dropped.span_groups),
        "estimated": [dropped.urls_one_in, dropped.spans_one_in],
        "repeated": dropped.repeated,
        "repeated_missing": dropped.repeated_missing,
        "notes": dropped.notes,
        "samples": {KEPT: kept, **of_rules, **({REJECTED: rejects} if rejects else {})},
    }
    shown: dict[str, Any] = _visible(result)
    return shown


def _flow(
    read: int, dropped: Mapping[str, int], written: int, order: Iterable[str]
) -> list[list[Any]]:
    """Return name, dropped and left of each step, in the order of the rules."""
    rows: list[list[Any]] = [["read", 0, read]]
    left = read
    for name in _ordered(dropped, order):
        left -= dropped[name]
        rows.append([name, dropped[name], left])
    return [*rows, ["written", 0, written]]


def _ordered(names: Iterable[str], order: Iterable[str]) -> list[str]:
    """Return verdicts in the order in which a page meets them; others, of own rules, last."""
    places = {str(name): place for place, name in enumerate(order)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def _sizes(groups: Mapping[int, int]) -> list[list[Any]]:
    """Return groups by ranges of sizes: 2, 3 to 4, 5 to 8 and so on."""
    ranges: dict[int, int] = {}
    for size, count in groups.items():
        power = (size - 1).bit_length()
        ranges[power] = ranges.get(power, 0) + count
    return [
        [f"{(1 << power - 1) + 1:,} to {1 << power:,}" if power > 1 else "2", count]
        for power, count in sorted(ranges.items())
    ]


def _visible(value: Any) -> Any:
    """Return values whose texts, also those of keys, hide nothing."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {
            visible(str(name)): visible(excerpt(each, _URL_CHARS))
            if name == "url"
            else _visible(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_visible(each) for each in value]
    return value
