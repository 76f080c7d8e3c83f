"""What commands print fits a terminal of 80 columns, and is whole and in one line elsewhere."""

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import printing
from testing.helpers import run_c4, write_wet
from testing.screens import COLUMNS, lines_on_a_screen, wide

_LONG = "http://a.example/a-path-of-an-address-that-is-long/and-leaves/no-room"
_TEXT = "This line is the first of a page, and longer than a screen, which cuts it. " * 2 + "\n"
_TEXT += "\n".join(
    f"This is the sentence number {n} about the towns of the north." for n in range(6)
)
_MORE = "We have seen them all, and we would like to go there again. They were kind to us."
_WIDE = "這是一個很長的句子，" * 12
_PAGES = [
    (
        f"{_LONG}/1",
        "2019-04-18T10:00:00Z",
        f"{_TEXT}\n{_WIDE}\n{_MORE} {_MORE}\nMore " + "words " * 40,
    ),
    (f"{_LONG}/2", "2019-04-19T10:00:00Z", f"{_TEXT}\n{_MORE}"),
    (f"{_LONG}/{'long/' * 20}", "2019-04-19T10:00:00Z", "Too short to stay."),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A WET file, its corpus, and that of a part of it."""
    place = tmp_path_factory.mktemp("a-folder-whose-name-takes-half-of-a-line")
    for name, pages in (("whole", _PAGES), ("part", _PAGES[1:])):
        wet, _ = write_wet(place / f"{name}.warc.wet.gz", pages)
        made = run_c4("build", "--input", wet, "--output", place / name)
        assert made.status == 0, made.err
    assert run_c4("split", place / "whole").status == 0
    return place


@pytest.mark.parametrize(
    "command",
    [
        ["build", "--input", "@/whole.warc.wet.gz", "--output", "@/whole"],
        ["explain", "@/whole.warc.wet.gz"],
        ["explain", "--corpus", "@/whole", "--url", f"{_LONG}/1"],
        ["why", "--corpus", "@/whole", f"{_LONG}/2"],
        ["diff", "@/whole", "@/part"],
        ["status", "@/whole"],
        ["verify", "@/whole"],
        ["split", "@/whole"],
        ["plan", "--like", "@/whole", "--crawl", "CC-MAIN-2019-18"],
        ["plan", "--like", "@/whole", "--input", "@/whole.warc.wet.gz"],
        ["tasks", "list"],
        ["tasks", "show", "all"],
        ["tasks", "show", "super_glue_wsc"],
        ["study", "list", "all"],
        ["study", "table", "all"],
    ],
    ids=" ".join,
)
def test_a_command_fits_a_screen(command: list[str], place: pathlib.Path) -> None:
    words = [word.replace("@", str(place)) for word in command]
    fitted = lines_on_a_screen(*words)
    # A command stays whole, to be copied.
    assert [line for line in wide(fitted) if "c4 explain --corpus" not in line] == []
    elsewhere = run_c4(*words).out
    if command[0] in ("build", "explain", "why"):  # which cut lines of pages
        assert any(printing.cells(line) == COLUMNS and line.endswith("…") for line in fitted)
    else:
        assert sorted(" ".join(fitted).split()) == sorted(elsewhere.split())


_WORDS = st.text("abz頁é", min_size=1, max_size=12)


@given(st.lists(_WORDS, min_size=1, max_size=12), st.integers(0, 4), st.integers(10, 30))
def test_a_fitted_line_keeps_its_words_and_breaks_only_where_it_must(
    words: list[str], leading: int, columns: int
) -> None:
    line = " " * leading + " ".join(words)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(printing, "columns_of", lambda stream: columns)
        rows = printing.fitted(line).split("\n")
    assert " ".join(rows).split() == words
    if printing.cells(line) <= columns:
        assert rows == [line]
    indents = [len(row) - len(row.lstrip()) for row in rows]
    assert indents == [leading] + [leading + 2] * (len(rows) - 1)
    for row, after in zip(rows, [*rows[1:], ""], strict=True):
        assert printing.cells(row) <= columns or len(row.split()) == 1
        first = after.split()[:1]
        assert not first or printing.cells(f"{row} {first[0]}") > columns


def test_a_number_stays_with_what_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "columns_of", lambda stream: 24)
    assert printing.fitted("records rejected: 1,234 not_warc, 5") == (
        "records rejected:\n  1,234 not_warc, 5"
    )


def test_what_follows_a_break_is_aligned_behind_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "columns_of", lambda stream: 24)
    assert printing.fitted("state        one two three four") == (
        "state        one two\n             three four"
    )
    assert printing.fitted("a row  of a table  and its end", 10) == "a row  of a table  and\n" + (
        " " * 10 + "its end"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [("short", "short"), ("x" * 20, "x" * 9 + "…"), ("頁" * 20, "頁頁頁頁…"), ("頁" * 5, "頁" * 5)],
)
def test_a_line_of_a_page_is_cut_at_the_edge(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "columns_of", lambda stream: 14)
    assert printing.shortened(text, 100, before=4) == shown
    monkeypatch.setattr(printing, "columns_of", lambda stream: None)
    assert printing.shortened(text, 100, before=4) == text
    for character in "y頁":
        assert printing.shortened(character * 100, 100) == character * 100
        assert printing.shortened(character * 101, 100) == character * 99 + "…"
