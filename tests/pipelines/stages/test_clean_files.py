import contextlib
import dataclasses
import errno
import gzip
import json
import pathlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES, Recipe
from c4_filters.urls import DomainList, normalize_url, page_key
from pipelines import storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CLEANED_SCHEMA, CleanedFile, write_cleaned
from pipelines.corpus.fingerprints import read_fingerprints
from pipelines.stages import clean_files
from pipelines.stages.clean_files import FileSummary, clean_file, clean_identity, finished_summary
from pipelines.wet.results import MAX_RECORD_BYTES, WetRecord
from testing.helpers import Page, wet_bytes, wet_record, write_wet

EN = RECIPES["en"]
DATE = "2019-04-18T10:00:00Z"
GOOD = (
    "The old harbour was rebuilt by the people of the village.\n"
    "They worked through two long winters without any machines.\n"
    "Menu\n"
    "Every stone was carried down from the quarry by hand."
)
SHORT = "The old harbour was rebuilt by the people of the village."
PAGES: list[Page] = [
    ("http://a.example/", DATE, GOOD),
    ("http://b.example/", DATE, SHORT),
    ("http://c.example/", DATE, GOOD.replace("harbour", "bridge")),
    ("http://d.example/", DATE, ""),
]


@pytest.fixture(scope="module")
def rules() -> PageRules:
    return PageRules(EN)


@dataclasses.dataclass
class Job:
    """A WET file, an output folder, and the call that cleans the one into the other."""

    path: str
    size: int
    out: str
    rules: PageRules

    def run(self, identity: str = "id", **changes: Any) -> FileSummary:
        job = dataclasses.replace(self, **changes)
        return clean_file(job.path, job.size, job.out, job.rules, identity, MAX_RECORD_BYTES)

    def files(self) -> dict[str, bytes]:
        paths = [path for path in pathlib.Path(self.out).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.out)): path.read_bytes() for path in paths}

    def output(self, stage: Callable[[str, str], str]) -> pathlib.Path:
        return pathlib.Path(stage(self.out, layout.file_name(self.path)))


@pytest.fixture
def job(tmp_path: pathlib.Path, rules: PageRules) -> Job:
    path, size = write_wet(tmp_path / "a.warc.wet.gz", PAGES)
    return Job(path, size, str(tmp_path / "out"), rules)


# ---------------------------------------------------------------------------------- what is kept


def test_a_file_becomes_pages_fingerprints_and_a_summary(job: Job) -> None:
    summary = job.run()
    assert summary.pages_read == 4
    assert summary.pages_kept == summary.fingerprint_pages == 2
    assert summary.pages_dropped == {"few_sentences": 1, "no_text": 1}
    assert (summary.lines_read, summary.lines_kept) == (9, 6)
    assert summary.lines_dropped == {"no_end_mark": 2, "on_dropped_page": 1}
    assert summary.units == 6
    assert not summary.resumed
    assert not summary.unreadable
    with CleanedFile(str(job.output(layout.cleaned))) as file:
        rows = [row for pages, _, _ in file.slices(0, 0, 2**64) for row in pages.to_pylist()]
        assert FileSummary(**file.summary["file"]) == dataclasses.replace(
            summary, cpu_s=file.summary["file"]["cpu_s"]
        )
    assert [row["page_key"] for row in rows] == sorted(
        page_key(normalize_url(PAGES[number][0])) for number in (0, 2)
    )
    [row] = [row for row in rows if row["url"] == "http://a.example/"]
    text = GOOD.replace("Menu\n", "")
    assert row["text"] == text
    assert (row["timestamp"], row["content_type"]) == (DATE, "text/plain")
    assert row["content_length"] == str(len(GOOD))
    assert (row["language"], row["lines"]) == ("en", 3)
    assert row["language_probability"] > 0.99
    assert [text[start : start + 3] for start in row["unit_starts"]] == ["The", "The", "Eve"]
    prints = read_fingerprints(str(job.output(layout.fingerprints)))
    assert (prints.cleaned_pages, prints.units_per_page.tolist()) == (2, [3, 3])
    assert prints.ranks.tolist() == [row["page_key"] for row in rows]
    assert summary.text_bytes == sum(len(row["text"].encode()) for row in rows)


BODIES = st.lists(
    st.sampled_from(
        [
            *GOOD.split("\n"),
            "",
            "  Is this the way to the market square?  ",
            "lorem ipsum is what this line is all about.",
            "A line with a { in the middle of it.",
            "You need javascript to read the rest of this.",
            "WARC/1.0",
            "Content-Type: text/html",
            "WARC-Target-URI: http://body.example/",
            "WARC-Date: 2001-01-01T00:00:00Z",
            "Déjà vu est le mot qui manque ici.",
        ]
    ),
    max_size=8,
).map("\n".join)


@given(bodies=st.lists(BODIES, max_size=6), name=st.sampled_from(["en", "tfds", "multilingual"]))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out_or_is_counted(bodies: list[str], name: str) -> None:
    cleaner = clean_files._Cleaner(PageRules(RECIPES[name]))
    records = [
        WetRecord(number, 0, f"http://{number}.example/", DATE, "text/plain", "1", "", text)
        for number, text in enumerate(bodies)
    ]
    pages: Any = map(clean_files._placed, records)
    if RECIPES[name].drop_parser_accidents:
        pages = clean_files._tf_parts(pages, cleaner.counts)
    for page in pages:
        if isinstance(page, clean_files.Reject):
            cleaner.reject(page)
        else:
            cleaner.add(*page)
    cleaned, prints = cleaner.tables()
    dropped = cleaner.dropped()
    assert Counter(dropped.verdicts) == cleaner.pages_dropped
    assert dropped.offsets.tolist() == sorted(dropped.offsets.tolist())
    keys = {number: page_key(f"{number}.example") for number in range(len(bodies))}
    if name != "tfds":  # a body line may give a page another address there
        assert dropped.keys.tolist() == [keys[offset] for offset in dropped.offsets.tolist()]
        assert cleaned["page_key"].to_pylist() == [
            keys[offset] for offset in cleaned["offset"].to_pylist()
        ]
    assert cleaner.pages_read == len(cleaned) + cleaner.pages_dropped.total()
    # A body line "WARC/1.0" splits a page in two for TF; a part without address is a reject.
    accidents = sum(body.split("\n").count("WARC/1.0") for body in bodies)
    splits = accidents if name == "tfds" else 0
    assert cleaner.pages_read + cleaner.records_rejected.total() == len(bodies) + splits
    kept = sum(cleaned["lines"].to_pylist())
    lines = cleaner.counts.pop("lines_read", 0)
    assert lines == kept + cleaner.counts.total()
    assert kept == sum(text.count("\n") + 1 for text in cleaned["text"].to_pylist())
    assert len(prints) >= len(cleaned)


def test_urls_of_dropped_pages_take_part_only_where_urls_come_first(
    tmp_path: pathlib.Path, job: Job
) -> None:
    assert job.run().fingerprint_pages == 2
    late = job.run(out=str(tmp_path / "late"), rules=PageRules(RECIPES["tfds"]))
    assert late.fingerprint_pages == 3  # the short page, but not the one without text
    name = layout.file_name(job.path)
    prints = read_fingerprints(layout.fingerprints(str(tmp_path / "late"), name))
    assert prints.cleaned_pages == late.pages_kept == 2
    assert prints.units_per_page.tolist() == [3, 3, 0]
    with CleanedFile(layout.cleaned(str(tmp_path / "late"), name)) as file:
        [(pages, _, _)] = file.slices(0, 0, 2**64)
    assert pages.column("language").null_count == 2  # judged after deduplication


@pytest.mark.parametrize(
    ("change", "prints"),
    [
        ({}, 3),
        ({"max_page_chars": 100}, 1),  # the two long pages are gone before urls are compared
        ({"domain_list": True}, 2),  # and so are those of other domains: here one of each kind
    ],
)
def test_rules_that_come_before_urls_leave_no_fingerprint(
    tmp_path: pathlib.Path, job: Job, change: dict[str, Any], prints: int
) -> None:
    recipe = dataclasses.replace(RECIPES["tfds"], **change)
    listed = DomainList({"example.": ["a", "b"]}) if recipe.domain_list else None
    found = job.run(out=str(tmp_path / "late"), rules=PageRules(recipe, domains=listed))
    assert found.fingerprint_pages == prints


def test_samples_of_drops_are_few_and_short(tmp_path: pathlib.Path, rules: PageRules) -> None:
    pages = [(f"http://{i}.example/", DATE, "x" * 5000) for i in range(9)]
    path, size = write_wet(tmp_path / "a.warc.wet.gz", pages)
    summary = Job(path, size, str(tmp_path / "out"), rules).run()
    assert summary.pages_dropped == {"few_sentences": 9}
    [samples] = summary.samples.values()
    assert [sample["url"] for sample in samples] == [url for url, _, _ in pages[:3]]
    assert {len(sample["text"]) for sample in samples} == {300}


def test_progress_is_told_bytes_and_pages(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean_files, "_PROGRESS_EVERY_S", -1.0)
    told: list[tuple[int, int]] = []
    clean_file(
        job.path, job.size, job.out, job.rules, "id", 1 << 20, lambda *seen: told.append(seen)
    )
    assert [pages for _, pages in told] == [1, 2, 3, 4]
    assert all(0 < n_bytes <= job.size for n_bytes, _ in told)


# --------------------------------------------------------------------------------------- resume


def test_a_finished_file_is_not_cleaned_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first, before = job.run(), job.files()

    def never(*_: object, **__: object) -> Iterator[None]:
        raise AssertionError("read or written again")

    monkeypatch.setattr(clean_files, "read_wet", never)
    monkeypatch.setattr(storage, "write_atomically", never)
    second = job.run()
    assert second.resumed
    assert dataclasses.replace(second, resumed=False, cpu_s=0) == dataclasses.replace(
        first, cpu_s=0
    )
    assert job.files() == before
    assert finished_summary(job.path, job.size, job.out, "id") == second
    assert finished_summary(job.path, job.size, job.out, "other") is None


def damage_cleaned(job: Job) -> None:
    path = job.output(layout.cleaned)
    path.write_bytes(path.read_bytes()[:-20])


def remove_cleaned(job: Job) -> None:
    job.output(layout.cleaned).unlink()


def remove_fingerprints(job: Job) -> None:
    job.output(layout.fingerprints).unlink()


def damage_fingerprints(job: Job) -> None:
    path = job.output(layout.fingerprints)
    path.write_bytes(path.read_bytes()[:-20])


def other_version(job: Job) -> None:
    """As Colossal 0.1 left it: an Arrow file."""
    write_arrow_file(job.output(layout.cleaned))


def other_version_of_fingerprints(job: Job) -> None:
    write_arrow_file(job.output(layout.fingerprints))


def write_arrow_file(path: pathlib.Path) -> None:
    with pa.ipc.new_file(str(path), CLEANED_SCHEMA) as writer:
        writer.write_table(CLEANED_SCHEMA.empty_table())


def older_names(job: Job) -> None:
    """Colossal 0.1 also named them otherwise."""
    for stage in (layout.cleaned, layout.fingerprints, layout.removals):
        path = job.output(stage)
        older = pathlib.Path(stage(job.out, layout.file_name_of_0_1(job.path)))
        if path.exists():
            path.rename(older)
        else:
            older.parent.mkdir(exist_ok=True)
            older.write_bytes(b"")


def flipped_bit(job: Job) -> None:
    path = job.output(layout.cleaned)
    content = bytearray(path.read_bytes())
    content[100] ^= 1  # of the first page's batch, which finding the file's summary does not read
    path.write_bytes(content)


def fingerprints_of_other_settings(job: Job) -> None:
    cleaned = job.output(layout.cleaned).read_bytes()
    job.run(identity="other")
    job.output(layout.cleaned).write_bytes(cleaned)


def summary_of(change: Callable[[dict[str, Any]], object]) -> Callable[[Job], None]:
    def rewrite(job: Job) -> None:
        path = str(job.output(layout.cleaned))
        with CleanedFile(path) as file:
            summary = file.summary
            batches = [rows for split in (0, 1) for rows, _, _ in file.slices(split, 0, 2**64)]
        change(summary)
        write_cleaned(path, pa.Table.from_batches(batches, CLEANED_SCHEMA), summary)

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage_cleaned, "damaged"),
        (flipped_bit, "damaged"),
        (remove_cleaned, ""),
        (remove_fingerprints, "incomplete"),
        (damage_fingerprints, "damaged"),
        (fingerprints_of_other_settings, "incomplete"),
        (other_version, "older format"),
        (other_version_of_fingerprints, "older format"),
        (older_names, "older format"),
        (summary_of(lambda summary: summary.pop("file")), "damaged"),
        (summary_of(lambda summary: summary.pop("identity")), "damaged"),
        (summary_of(lambda summary: summary["file"].update(field_of_tomorrow=1)), "older format"),
        (summary_of(lambda summary: summary["file"].pop("name")), "older format"),
        (summary_of(lambda summary: summary["file"].update(path="/elsewhere")), "changed input"),
        (summary_of(lambda summary: summary["file"].update(bytes=1)), "changed input"),
        (summary_of(lambda summary: summary.update(identity="other")), "other settings"),
    ],
)
def test_what_is_not_whole_is_cleaned_again(
    job: Job, spoil: Callable[[Job], None], reason: str
) -> None:
    assert job.run().recleaned == ""
    before = job.files()
    spoil(job)
    assert job.files() != before
    again = job.run()
    assert (again.resumed, again.recleaned) == (False, reason)
    after = job.run()
    assert (after.resumed, after.recleaned) == (True, "")
    assert job.files().keys() == before.keys()


def test_another_recipe_or_another_size_is_cleaned_again(job: Job) -> None:
    job.run()
    assert not job.run(identity="other").resumed
    assert job.run(identity="other").resumed
    assert not job.run().resumed
    content = wet_bytes(PAGES[:1])
    pathlib.Path(job.path).write_bytes(content)
    again = job.run(size=len(content))
    assert (again.resumed, again.pages_read) == (False, 1)


def test_same_input_same_bytes(tmp_path: pathlib.Path, job: Job) -> None:
    job.run()
    other = dataclasses.replace(job, out=str(tmp_path / "other"))
    other.run()
    prints = [j.output(layout.fingerprints).read_bytes() for j in (job, other)]
    assert prints[0] == prints[1]
    tables = []
    for each in (job, other):
        with CleanedFile(str(each.output(layout.cleaned))) as file:
            tables.append([rows for rows, _, _ in file.slices(0, 0, 2**64)])
    assert tables[0] == tables[1]


def test_identity_is_all_that_changes_pages_and_nothing_else() -> None:
    base = BuildConfig(inputs=("a",), output="b", recipe=EN)
    same = [
        dataclasses.replace(base, formats=("json",)),
        dataclasses.replace(base, shards=7),
        dataclasses.replace(base, output="elsewhere", inputs=("c",)),
        dataclasses.replace(base, allow_unreadable_files=3),
    ]
    assert {clean_identity(config) for config in same} == {clean_identity(base)}
    assert clean_identity(dataclasses.replace(base, recipe=RECIPES["de"])) != clean_identity(base)
    assert clean_identity(dataclasses.replace(base, max_record_bytes=9)) != clean_identity(base)


# --------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("content", [b"", b"not a WET file\n" * 9])
def test_a_file_of_no_records_is_unreadable_and_leaves_nothing(job: Job, content: bytes) -> None:
    pathlib.Path(job.path).write_bytes(content)
    summary = job.run(size=len(content))
    assert summary == FileSummary(
        job.path, layout.file_name(job.path), len(content), unreadable=summary.unreadable
    )
    assert summary.unreadable
    assert "\n" not in summary.unreadable
    assert job.files() == {}


def test_a_missing_file_is_unreadable(job: Job) -> None:
    pathlib.Path(job.path).unlink()
    assert "No such file" in job.run().unreadable
    assert job.files() == {}


def test_a_read_error_midway_is_unreadable(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(stream: BinaryIO, stats: object, **_: object) -> Iterator[WetRecord]:
        yield WetRecord(0, 0, "http://a.example/", DATE, "text/plain", "1", "", GOOD)
        raise OSError(errno.EIO, "the disk\nis gone")

    monkeypatch.setattr(clean_files, "read_wet", fails)
    assert job.run().unreadable == "the disk is gone"
    assert job.files() == {}


def reject_lines(job: Job) -> list[dict[str, Any]]:
    text = job.output(layout.rejects).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def broken_file(job: Job) -> tuple[int, list[int]]:
    """A good page between one without url and one that is not UTF-8; size and their offsets."""
    start = wet_bytes([])
    members = [
        wet_bytes([("http://x.example/", DATE, GOOD)])[len(start) :],
        *(
            member_of(record)
            for record in (
                wet_record("http://x.example/", DATE, GOOD).replace(b"WARC-Target-URI", b"X-Gone"),
                wet_record("http://y.example/", DATE, GOOD).replace(b"old", b"\xff\xfe\xff"),
            )
        ),
    ]
    content = start + b"".join([members[1], members[0], members[2]])
    pathlib.Path(job.path).write_bytes(content)
    return len(content), [len(start), len(start) + len(members[1]) + len(members[0])]


def member_of(record: bytes) -> bytes:
    return gzip.compress(record, mtime=0)


def test_rejects_name_file_offset_and_reason(job: Job) -> None:
    size, offsets = broken_file(job)
    summary = job.run(size=size)
    assert summary.pages_read == summary.pages_kept == 1
    assert summary.records_rejected == {"no_url": 1, "not_utf8": 1}
    lines = reject_lines(job)
    assert [(line["file"], line["offset"], line["reason"]) for line in lines] == [
        (job.path, offsets[0], "no_url"),
        (job.path, offsets[1], "not_utf8"),
    ]
    assert all(line["detail"] for line in lines)


def test_the_list_of_rejects_is_bounded_but_all_are_counted(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_files, "_REJECTS_LISTED", 1)
    size, offsets = broken_file(job)
    assert sum(job.run(size=size).records_rejected.values()) == 2
    assert [line["offset"] for line in reject_lines(job)] == offsets[:1]


def test_rejects_of_an_earlier_file_of_this_name_go(job: Job) -> None:
    size, _ = broken_file(job)
    job.run(size=size)
    assert job.output(layout.rejects).exists()
    pathlib.Path(job.path).write_bytes(wet_bytes(PAGES))
    job.run()
    assert not job.output(layout.rejects).exists()


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failed_write_stops_and_leaves_no_cleaned_file(
    job: Job, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    size, _ = broken_file(job)  # so that rejects are written, too
    write, count = storage.write_atomically, 0

    @contextlib.contextmanager
    def full_disk(path: str) -> Iterator[BinaryIO]:
        nonlocal count
        count += 1
        with write(path) as file:
            if count == failing:
                file.write(b"some")
                raise OSError(errno.ENOSPC, "No space left on device", path)
            yield file

    monkeypatch.setattr(storage, "write_atomically", full_disk)
    with pytest.raises(OSError, match="No space left"):
        job.run(size=size)
    assert len(job.files()) == failing - 1
    assert not job.output(layout.cleaned).exists()
    monkeypatch.undo()
    assert not job.run(size=size).resumed
    assert job.run(size=size).resumed


def test_recipes_fit_any_page(tmp_path: pathlib.Path) -> None:
    recipe = Recipe(name="all", line_rules=False, min_sentences=0, languages=(), bad_words=False,
                    min_language_probability=0.0, dedup_urls=False)  # fmt: skip
    nasty = ["\0 zero.", "\ufeffbom here.", "\U0010ffff", "a\x85b\u2028c\x1cd", "\r\r\n\n."]
    pages = [(f"http://{i}.example/\u00e9\u202e", DATE, text) for i, text in enumerate(nasty)]
    path, size = write_wet(tmp_path / "a.warc.wet.gz", pages)
    summary = Job(path, size, str(tmp_path / "out"), PageRules(recipe)).run()
    assert not summary.unreadable
    assert summary.pages_read == 5
    assert summary.pages_read == summary.pages_kept + sum(summary.pages_dropped.values())
    assert summary.lines_read == summary.lines_kept + sum(summary.lines_dropped.values())


@pytest.mark.slow
def test_importing_the_stage_alone_is_enough_to_clean(job: Job) -> None:
    # A worker imports what it needs and no more: nothing may rely on another import's side effect.
    code = (
        "import sys; from pipelines.stages.clean_files import clean_file, PageRules\n"
        "from c4_filters.recipes import RECIPES\n"
        "path, size, out = sys.argv[1:]\n"
        "file = clean_file(path, int(size), out, PageRules(RECIPES['en']), 'id', 1 << 20)\n"
        "print(file.pages_kept)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, job.path, str(job.size), job.out],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("2\n", "")
