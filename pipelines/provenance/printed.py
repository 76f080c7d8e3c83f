"""Accounts of pages, printed for people."""

from itertools import groupby

from c4_filters.urls import normalize_url
from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines.printing import fitted, print_lines, printable, shortened
from pipelines.provenance.explainer import Account, Rejected

_LINE_CHARS = 100
_BEFORE_LINE = 20  # characters: the verdict and the separator


def print_rejected(rejected: Rejected, names_file: bool) -> None:
    """Print a record that did not become a page; ``names_file``: with the path of its file."""
    where = _where(rejected, names_file)
    print_lines(printable(f"rejected at {where}: {rejected.reason}: {rejected.detail}"), "")


def print_account(
    account: Account,
    names_file: bool,
    unit: str,
    not_considered: str = "",
    sentence: str | None = None,
) -> None:
    """Print what became of a page.

    Args:
        account: The page's.
        names_file: Whether to print the path of its WET file.
        unit: What the recipe deduplicates, such as "sentences".
        not_considered: What to print behind the verdict of a page that deduplication might still
            have changed, if there is no corpus to tell.
        sentence: Print only the lines and units that hold this sentence; None: all.
    """
    date = f"{account.timestamp}, " if account.timestamp else ""
    where = _where(account, names_file)
    print_lines(printable(f"{account.url}  ({date}offset {where})"))
    if account.explained is None:
        print_lines(printable(f"  {account.path} {account.missing}: its lines cannot be shown"))
    else:
        for line in account.explained.lines:
            if not _holds(line.kept_as, sentence):
                continue
            verdict = "not judged" if line.verdict is None else str(line.verdict)
            print(f"  {verdict:>15} | {_shortened(line.text)}")
            if line.verdict is LineVerdict.KEPT and line.kept_as != line.text:
                print(f"  {'kept as':>15} | {_shortened(line.kept_as)}")
    kept, (result, note) = account.kept, account.judgement
    if kept is not None and kept.lost is PageVerdict.KEPT and kept.starts:
        _print_removed(account, unit, sentence)
    became = printable(f"  page {result.verdict}{f': {note}' if note else ''}")
    explained = account.explained
    if kept is None and explained and explained.before.verdict is PageVerdict.KEPT:
        became += not_considered
    print_lines(became, "")


def _where(record: Account | Rejected, names_file: bool) -> str:
    return f"{record.offset} in {record.path}" if names_file else str(record.offset)


def _holds(text: str, sentence: str | None) -> bool:
    return sentence is None or sentence.lower().strip() in text.lower()


def _print_removed(account: Account, unit: str, sentence: str | None) -> None:
    """Print the units that deduplication removed, and the pages that have their copies."""
    assert account.kept is not None
    units = account.kept.units()
    shown = [
        (
            text,
            gone and _holds(text, sentence),
            account.keepers.get(-1 if keeper is None else keeper),
        )
        for (text, gone), keeper in zip(units, account.kept.unit_keepers, strict=True)
    ]
    for removed, run in groupby(shown, key=lambda unit: unit[1]):
        last = None
        for text, _, holder in run if removed else ():
            print(f"  {'duplicate':>15} | {_shortened(text)}")
            where = "a page that was not found, or not searched for in so many files"
            if holder is not None:
                same = holder.url and normalize_url(holder.url) == normalize_url(account.url)
                where = "this page" if same and not holder.older else str(holder)
            if where != last:
                who = f"  {'of' if last is None else 'and of':>15} | {printable(where)}"
                print(fitted(who, _BEFORE_LINE))
            last = where
    count = sum(gone for _, gone in units)
    print(f"  deduplication removed {count} of {len(units)} {unit}")


def _shortened(line: str) -> str:
    return shortened(line, _LINE_CHARS, _BEFORE_LINE)
