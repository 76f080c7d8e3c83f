"""The end of a build on a screen: one table, aligned, whole; the result last."""

import pathlib
import re
import sys

import pytest

from c4_filters.verdicts import LineVerdict, PageVerdict
from pipelines import printing
from pipelines.commands import build_summary
from pipelines.corpus.manifest import Counts
from samples.make_samples import WET_DIR
from testing.helpers import run_c4
from testing.screens import COLUMNS, ROWS, on_a_screen


def counts_of(pages: int, lines: int) -> Counts:
    """Counts in which every rule drops something."""
    of_pages = {str(verdict): 10 + number for number, verdict in enumerate(PageVerdict)}
    of_lines = {str(verdict): 1 + 7**number for number, verdict in enumerate(LineVerdict)}
    del of_pages["kept"], of_lines["kept"]
    return Counts(
        files_read=1, files_unreadable=0, pages_read=pages, pages_dropped=of_pages,
        pages_written=pages - sum(of_pages.values()), lines_read=lines, lines_dropped=of_lines,
        lines_written=lines - sum(of_lines.values()), records_rejected=0,
        records_rejected_by_reason={}, records_of_other_types={}, records_of_wrong_length=0,
    )  # fmt: skip


def test_the_table_is_aligned_and_fits_a_line() -> None:
    rows = list(build_summary._table(counts_of(9_999_999, 999_999_999), None))
    assert len(rows) == 1 + len(PageVerdict) - 1 + 1
    assert max(map(len, rows)) <= COLUMNS
    assert rows[0].startswith("pages read ")
    assert rows[-1].startswith("pages written ")
    ends = [[match.end() for match in re.finditer(r" [\d,]+(?= |$)", row)] for row in rows]
    assert {tuple(found) for found in ends if len(found) == 2} == {tuple(ends[0])}
    assert {found[0] for found in ends} == {ends[0][0]}


def test_a_short_screen_sums_up_the_rarest_rules() -> None:
    counts = counts_of(100_000, 400_000_000)
    rows = list(build_summary._table(counts, 8))
    assert len(rows) == 8
    [rest] = [re.findall(r"(\d+) more rules +([\d,]+)", row) for row in rows if "more" in row]
    in_full = sorted(counts.pages_dropped.values(), reverse=True)
    assert rest[0] == (str(len(in_full) - 5), str(sum(in_full[5:])))


@pytest.mark.parametrize(
    ("terminal", "environment", "shows"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": ""}, False),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    terminal: bool, environment: dict[str, str], shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert printing.painter("1")("text") == ("\x1b[1mtext\x1b[0m" if shows else "text")


@pytest.mark.slow
def test_a_build_fits_the_screen(tmp_path: pathlib.Path) -> None:
    lines = on_a_screen(
        "build", "--input", str(WET_DIR / "*.wet*"), "--output", str(tmp_path / "out")
    )
    assert " ".join(lines[:2]).split()[:6] == f"c4: building a corpus in {tmp_path}/out".split()
    bars = [line for line in lines if line.startswith((" clean:", " dedup:", " write:"))]
    assert bars
    assert all(": 100%" in bar for bar in bars), bars
    summary = lines[lines.index("") :]
    assert sum(-(-len(line) // COLUMNS) or 1 for line in summary) < ROWS
    assert summary[-2].startswith(" validation ")  # an empty line is the prompt's
    assert any(line.startswith("built from 6 files in ") for line in summary[-5:-3])


@pytest.mark.slow
def test_a_build_of_one_broken_file_says_only_what_is_wrong_with_it(tmp_path: pathlib.Path) -> None:
    wet = tmp_path / "a.warc.wet.gz"
    wet.write_bytes(b"garbage")
    for _ in range(2):
        made = run_c4("build", "--input", wet, "--output", tmp_path / "out")
        assert (made.status, made.out) == (1, "")
        [said] = [line for line in made.err.splitlines() if line.startswith("c4: ")]
        assert said.startswith("c4: error: no input file could be read, so the corpus in ")
        assert f"{wet}: no WARC record in its 7 bytes" in said
