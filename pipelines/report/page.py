"""The report's HTML page: one file, no network, nothing in it that a text of the web could run.

The data is JSON in a script element that no browser executes, with the characters escaped that
could end it; a content security policy allows this page's own script and style by their hashes,
images that are part of the page, and nothing else; the script only ever sets text.
"""

import base64
import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

from pipelines.report.charts import bars

_MOST_BYTES = 4 << 20  # of the samples and the rest of the data
_SHORTEST = 40
_ESCAPES = {code: f"\\u{code:04x}" for code in map(ord, "<>&\u2028\u2029")}


def render(builds: Sequence[dict[str, Any]], most: int) -> bytes:
    """Return the page.

    Args:
        builds: One or two values of `pipelines.report.gathered.gather`. Their samples are shortened
            where the page would become too large; if that is not enough, rules get fewer.
        most: Pages that were sampled for each rule, at most.
    """
    names = [build["recipe"] for build in builds]
    if len(set(names)) < len(names):
        names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=False)]
    data = {"names": names, "builds": builds, "most": most, "charts": _charts(names, builds)}
    bare = {**data, "builds": [{**build, "samples": {}} for build in builds]}
    room = _MOST_BYTES - _size(bare)
    _shorten(builds, room)
    data["most"] = _thin_out(builds, room, most)
    script, style, page = (_part(f"page.{kind}") for kind in ("js", "css", "html"))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    before, rest = page.replace("@POLICY@", policy).replace("@STYLE@", style).split("@DATA@")
    return (before + embedded(data) + rest.replace("@SCRIPT@", script)).encode("utf-8")


def embedded(value: Any) -> str:
    r"""Return a value as JSON that can stand in a script element.

    >>> embedded({"a": "</script>\u2028&"})
    '{"a":"\\u003c/script\\u003e\\u2028\\u0026"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_ESCAPES)


def _part(name: str) -> str:
    text = importlib.resources.files("pipelines.report").joinpath(name).read_text("utf-8")
    return text.strip() + "\n"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shorten(builds: Sequence[dict[str, Any]], room: int) -> None:
    """Cut the lines of samples, the longest first, until all take at most ``room`` bytes."""
    most = 1_000
    while most > _SHORTEST and _size_of_samples(builds) > room:
        most = most * 3 // 4
        for page in _samples(builds):
            page["lines"] = [
                [verdict, text if len(text) <= most else f"{text[: most - 1]}…"]
                for verdict, text in page["lines"][: max(3, most // 40)]
            ]


def _samples(builds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [page for build in builds for pages in build["samples"].values() for page in pages]


def _thin_out(builds: Sequence[dict[str, Any]], room: int, most: int) -> int:
    """Leave fewer pages of each rule until all take at most ``room`` bytes; return how many."""
    while most and (size := _size_of_samples(builds)) > room:
        most = min(most - 1, most * max(0, room) // size)
        for build in builds:
            build["samples"] = {name: pages[:most] for name, pages in build["samples"].items()}
    return most


def _size_of_samples(builds: Sequence[dict[str, Any]]) -> int:
    return _size([build["samples"] for build in builds])


def _size(value: Any) -> int:
    return len(embedded(value).encode("utf-8"))


def _charts(names: Sequence[str], builds: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the charts by section, as addresses of images."""
    columns = {
        "pages": ([build["pages"][1:-1] for build in builds], 1, True),
        "lines": ([build["lines"][1:-1] for build in builds], 1, True),
        "lengths": ([_lengths(build["lengths"]) for build in builds], 1, False),
        "languages": ([build["languages"] for build in builds], 1, True),
        "domains": ([build["domains"] for build in builds], 2, False),
        "years": ([build["years"] for build in builds], 1, False),
        "url_groups": ([build["url_groups"] for build in builds], 1, True),
        "span_groups": ([build["span_groups"] for build in builds], 1, True),
    }
    charts = {}
    for name, (parts, column, log) in columns.items():
        labels = list(dict.fromkeys(row[0] for part in parts for row in part))
        if labels:
            sums = [{row[0]: row[column] for row in part} for part in parts]
            series = [
                (title, [of.get(label, 0) for label in labels])
                for title, of in zip(names, sums, strict=True)
            ]
            charts[name] = bars(labels, series, log)
    return charts


def _lengths(rows: Sequence[Sequence[int]]) -> list[list[Any]]:
    return [[f"{first:,} to {2 * first - 1:,}", pages] for first, pages in rows]
