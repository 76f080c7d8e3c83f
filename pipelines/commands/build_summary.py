"""What ``c4 build`` prints at its end: one table of pages and lines, then the result."""

import collections
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping

from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.manifest import OPT_OUT, Counts, Manifest
from pipelines.imports.sources import WET
from pipelines.printing import cells, counted, fitted, painter, printable, shortened
from pipelines.stages.clean_files import CHANGED_INPUT

#: FileSummary.recleaned -> the words for it.
_RECLEANED = {
    "damaged": "damaged and cleaned again",
    "older format": "cleaned again because an earlier version of c4 wrote it",
    "incomplete": "cleaned again because a build was stopped while writing it",
    CHANGED_INPUT: "cleaned again because the input has changed",
}
_GREEN, _DIM = "32", "2"
_PAGE_CHARS = 96


def print_summary(config: BuildConfig, made: Manifest, wall_s: float | None) -> None:
    """Print one kept page, a table of what was dropped, and last where the corpus is.

    On a terminal all of it fits one screen: the rarest rules share a row.

    Args:
        config: The build.
        made: Its manifest.
        wall_s: How long the build took; None for a corpus that was complete already.
    """
    size = shutil.get_terminal_size()
    above = ["", *map(fitted, _kept_page(made))]
    below = [*_notes(config, made), *_result(config, made, wall_s)]
    rows = "\n".join((*above, *below)).split("\n")
    taken = sum(-(-cells(row) // size.columns) or 1 for row in rows)
    room = size.lines - taken - 1 if sys.stdout.isatty() else None  # one line for the prompt
    print(*above, *_table(made.counts, room), *below, sep="\n")


def _kept_page(made: Manifest) -> Iterator[str]:
    page = made.kept_page
    if page is not None:
        yield f"the beginning of one kept page: {printable(page.url)}"
        for line in page.text.split("\n")[:2]:
            yield shortened(line, _PAGE_CHARS)
        yield ""


def _table(counts: Counts, room: int | None) -> Iterator[str]:
    """Yield the rows: pages on the left and lines on the right; read, dropped, written."""
    columns = (
        _column("pages", counts.pages_read, counts.pages_dropped, counts.pages_written, room),
        _column("lines", counts.lines_read, counts.lines_dropped, counts.lines_written, room),
    )
    longest = max(map(len, columns))
    for column in columns:  # "written" is the last row of both
        column[-1:-1] = [("", "", "")] * (longest - len(column))
    widths = [[max(map(len, cells)) for cells in zip(*column, strict=True)] for column in columns]
    bold, dim = painter("1"), painter(_DIM)
    for number, row in enumerate(zip(*columns, strict=True)):
        text = "  ".join(
            f"{name:<{name_width}} {count:>{count_width}} {share:>{share_width}}"
            for (name, count, share), (name_width, count_width, share_width) in zip(
                row, widths, strict=True
            )
        )
        yield (bold if number in (0, longest - 1) else dim)(text.rstrip())


def _column(
    what: str, read: int, dropped: Mapping[str, int], written: int, room: int | None
) -> list[tuple[str, str, str]]:
    """Return the rows of one column as name, count and share; the commonest rule first."""

    def row(name: str, count: int) -> tuple[str, str, str]:
        return name, f"{count:,}", f"{count / max(read, 1):.1%}"

    rules = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    rest: list[tuple[str, int]] = []
    if room is not None and len(rules) > (most := max(2, room - 2)):
        rules, rest = rules[: most - 1], rules[most - 1 :]
    if rest:
        rules.append((f"{len(rest)} more rules", sum(count for _, count in rest)))
    shown = [row(f" {name}", count) for name, count in rules]
    return [(f"{what} read", f"{read:,}", ""), *shown, row(f"{what} written", written)]


def _notes(config: BuildConfig, made: Manifest) -> Iterator[str]:
    """Yield what else happened, and where to read more.

    Commands are not fitted to the terminal, so that they can be copied.
    """
    yield ""
    counts = made.counts
    if counts.records_rejected:
        reasons = ", ".join(
            f"{count:,} {reason}" for reason, count in counts.records_rejected_by_reason.items()
        )
        rejects = storage.join(config.output, "rejects")
        yield fitted(f"records rejected: {reasons} (listed in {rejects})")
    if config.source != WET and counts.records_of_other_types:  # warcinfo records are no news
        kinds = [f"{count:,} {kind}" for kind, count in counts.records_of_other_types.items()]
        yield fitted(f"pages of other kinds, left out: {', '.join(kinds)}")
    for reason, count in collections.Counter(file.reason for file in made.recleaned).items():
        what = _RECLEANED.get(reason, "cleaned again ({})").format(reason)
        yield fitted(f"{counted(count, 'cleaned file')} {'was' if count == 1 else 'were'} {what}")
    yield f"why a page was dropped: {_explain_command(config, made)}"
    yield "what the names of the rules mean: docs/rules.md"
    for older in made.against:
        yield fitted(printable(f"left out: what {older.path} has"))
    yield f"root digest: {made.root_digest}"


def _result(config: BuildConfig, made: Manifest, wall_s: float | None) -> Iterator[str]:
    """Yield where the corpus is, and how much."""
    files, resumed = counted(made.counts.files_read, "file"), made.timing.files_resumed
    before = f" ({resumed:,} cleaned before)" if resumed else ""
    took, seconds = ("built earlier", "") if wall_s is None else ("built", f" in {wall_s:.1f} s")
    built = f"{took} from {files}{before}{seconds} with recipe {config.recipe.name}"
    yield fitted(f"{built}, in {config.output}:")
    rows = []
    for split, sums in made.splits.items():
        shards = [shard.name for shard in made.shards if shard.split == split]
        patterns = dict.fromkeys(layout.shards_in_split(name)[0] for name in shards)  # per format
        size = f"{sums.text_bytes:,}"
        rows.append((split, counted(sums.pages, "page"), size, " ".join(patterns)))
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for split, pages, size, names in rows:
        text = f" {split:<{widths[0]}} {pages:>{widths[1]}} {size:>{widths[2]}} bytes of text"
        yield painter(_GREEN)(fitted(f"{text}  {names}"))


def _explain_command(config: BuildConfig, made: Manifest) -> str:
    """Return the command that explains a page of this corpus, for people to complete."""
    words = ["c4", "explain", "--corpus", config.output]
    if made.keep != "all":  # without cleaned files, c4 explain needs the WET file
        words.insert(2, "FILE")
    words += ["--url", "URL"]
    for name, path in config.lists().items():
        if name == OPT_OUT:  # its pages are in the corpus's own files
            continue
        option_name, _, language = name.partition(" ")
        words += [option_name, f"{language}={path}" if language else path]
    return printable(shlex.join(words))
