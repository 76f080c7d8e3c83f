import gzip
import json
import os
import pathlib
import re
import shlex
from collections import Counter
from typing import Any

import pytest

from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from c4_filters.urls import normalize_url, page_key
from pipelines import corpus_folder, finish_corpus, storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.manifest import read_manifest
from pipelines.provenance import explainer, kept
from pipelines.stages import dedup
from pipelines.stages.clean_files import clean_file
from pipelines.stages.merge_files import cleaned_sources
from pipelines.stages.write_shards import plan_shards, write_shard
from testing.helpers import Page, run_c4, wet_bytes, wet_record, write_wet

pytestmark = pytest.mark.slow

OLD, NEW = "2019-04-18T10:00:00Z", "2019-04-20T10:00:00Z"
SHARED = "The old harbour was rebuilt by hand. It took two winters. Nobody had a machine."
OWN = [
    f"The {what} was older than the church. It stood by the water. People liked it very much."
    for what in ("mill", "inn", "ferry house", "lime kiln")
]
PAGES: list[Page] = [
    ("http://www.a.example/mill/", OLD, f"Menu\n{SHARED}\n{OWN[0]}"),
    ("http://b.example/inn", OLD, f"{OWN[1]}\n{SHARED}"),
    ("http://c.example/ferry", OLD, f"{OWN[2]}\nIt is out of date."),
    ("http://c.example/ferry/", NEW, f"{OWN[2]}\nIt is quite up to date by now."),
    ("http://d.example/short", OLD, "Too short to stay for long."),
    ("http://e.example/\x9bevil", OLD, "\x1b[31mRed\x07 and \u202eevil\x00 line.\n" + "y" * 300),
]


@pytest.fixture(scope="module")
def wet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_wet(tmp_path_factory.mktemp("wet") / "a.warc.wet.gz", PAGES)[0]


@pytest.fixture(scope="module")
def corpus(wet: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_corpus(wet, str(tmp_path_factory.mktemp("corpus")))


def make_corpus(wet: str, out: str) -> str:
    """Makes a corpus of one file by the stages themselves."""
    recipe = RECIPES["en"]
    config = BuildConfig(inputs=(wet,), output=out, recipe=recipe, shards=1)
    rules = PageRules(recipe)
    corpus_folder.claim_folder(config, start_over=False)
    info = storage.stat(wet)
    file = clean_file(wet, info.size, out, rules, "id", 1 << 20, content=info.identity)
    lost, _ = dedup.url_buffers(out, file.name, 1)
    pages = [lost] if lost is not None else []
    lost, _ = dedup.span_buffers(out, file.name, pages, recipe.dedup_window, 1)
    spans = [lost] if lost is not None else []
    dedup.write_file_removals(out, file.name, pages, spans, recipe.dedup_window, "")
    shards = [
        write_shard(task, cleaned_sources(out, [file.name]), out, config.formats, rules)
        for task in plan_shards(0, 1)
    ]
    finish_corpus.finish_corpus(config.output, finish_corpus.make_manifest(config, [file], shards))
    return out


def pages_of(text: str) -> dict[str, str]:
    """Explanations by url: each begins at the margin and ends with a blank line."""
    found = {}
    for block in re.split(r"\n\n(?=\S)", text.rstrip("\n")):
        url, _, _ = block.partition("  (")
        found[url] = block
    return found


def test_every_page_is_explained_in_the_files_order(wet: str) -> None:
    outcome = run_c4("explain", wet)
    assert (outcome.status, outcome.err) == (0, "")
    found = pages_of(outcome.out)
    assert len(found) == len(PAGES)
    for (url, date, _), (shown, text) in zip(PAGES, found.items(), strict=True):
        assert shown == url.replace("\x9b", "·")
        assert re.match(rf".*  \({date}, offset \d+\)\n", text)
    assert "    no_end_mark | Menu\n" in found["http://www.a.example/mill/"]
    assert f"           kept | {SHARED}\n" in found["http://www.a.example/mill/"]
    assert found["http://www.a.example/mill/"].endswith(
        "\n  page kept: en 1.0000 (deduplication not considered: --corpus DIR)"
    )
    assert found["http://d.example/short"].endswith(
        "\n  page few_sentences: 1 sentence left, 3 wanted"
    )


def test_what_a_terminal_would_obey_is_not_printed(wet: str) -> None:
    out = run_c4("explain", wet).out
    assert [char for char in out if not (char.isprintable() or char == "\n")] == []
    assert "·[31mRed· and ·evil· line." in out


def test_long_lines_are_shortened(wet: str) -> None:
    out = run_c4("explain", wet).out
    shown = [line.partition(" | ")[2] for line in out.splitlines() if " | " in line]
    assert max(map(len, shown)) == 100
    assert "y" * 99 + "…" in shown


def test_one_page_by_its_address_in_any_form(wet: str) -> None:
    for url in ("a.example/mill", "https://a.example/mill/?utm_source=x", PAGES[0][0]):
        outcome = run_c4("explain", wet, "--url", url)
        assert outcome.status == 0
        assert list(pages_of(outcome.out)) == [PAGES[0][0]]
    outcome = run_c4("explain", wet, "--url", "c.example/ferry")
    assert len(pages_of(outcome.out)) == 2


def test_pages_of_one_verdict(wet: str) -> None:
    outcome = run_c4("explain", wet, "--verdict", "few_sentences")
    assert outcome.status == 0
    assert list(pages_of(outcome.out)) == ["http://d.example/short", "http://e.example/·evil"]
    both = run_c4("explain", wet, "--verdict", "few_sentences", "--url", "d.example/short")
    assert list(pages_of(both.out)) == ["http://d.example/short"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--url", "http://z.example/"], "has the address http://z.example/"),
        (["--verdict", "bad_words"], "has the verdict bad_words"),
        (
            ["--url", "d.example/short", "--verdict", "kept"],
            "has the address d.example/short and the verdict kept",
        ),
    ],
)
def test_nothing_that_fits_is_status_1(wet: str, words: list[str], what: str) -> None:
    outcome = run_c4("explain", wet, *words)
    assert outcome == (1, "", f"c4: no page of {wet} {what}\n")


def test_a_file_of_no_pages_is_status_1(tmp_path: pathlib.Path) -> None:
    path, _ = write_wet(tmp_path / "a.wet.gz", [])
    outcome = run_c4("explain", path)
    assert (outcome.status, outcome.out) == (1, "")
    assert f"{path}: holds 1 warcinfo record but no page: fetch it again" in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{dir}/absent.gz"], "the shell leaves it alone (FILE)"),
        (["{dir}/not_wet"], "not_wet: no WARC record in its"),
        (["{dir}/*.wet.gz"], "matches 2 files: give one"),
        (["{wet}", "--verdict", "fine"], "unknown verdict 'fine'; known: kept, no_text,"),
        (["{wet}", "--recipe", "enn"], "did you mean 'en'?"),
        (["{wet}", "--recipe", "realnewslike"], "--domain-list FILE"),
        (["{wet}", "--badwords", "eng={wet}"], "'eng' is not a language code"),
        (["{wet}", "--corpus", "{dir}"], "has no manifest.json"),
        (
            ["{wet}", "--corpus", "{corpus}", "--badwords", "en={corpus}/build.json"],
            "was built without --badwords en: leave it out",
        ),
        (
            ["{wet}", "--corpus", "{corpus}", "--max-record-mb", "3"],
            "was built with --max-record-mb 64: leave it out",
        ),
        (
            ["--url", "x.example", "--corpus", "{corpus}", "--max-file-mb", "3"],
            "was built with --max-file-mb 1024: leave it out",
        ),
        (["{wet}", "--max-record-mb", "0"], "(--max-record-mb)"),
        (["{wet}", "--max-file-mb", "0"], "(--max-file-mb)"),
        (
            ["{wet}", "--corpus", "{corpus}", "--recipe", "de"],
            "was built with recipe en, not with today's de",
        ),
        (["{dir}/1.wet.gz", "--corpus", "{corpus}"], "was not built from"),
        (["{wet}", "--url", "http://a.example/\udcff"], "the address is not UTF-8"),
        *(
            (
                ["{wet}", "--verdict", name],
                f"pages are {name}, over the whole corpus: give --corpus",
            )
            for name in ("duplicate_url", "empty_after_dedup", "few_sentences_after_dedup")
        ),
    ],
)
def test_what_cannot_be_explained_is_one_line(
    tmp_path: pathlib.Path, wet: str, corpus: str, words: list[str], message: str
) -> None:
    for name in ("1.wet.gz", "2.wet.gz"):
        write_wet(tmp_path / name, PAGES)
    (tmp_path / "not_wet").write_bytes(b"no, it is not")
    filled = [word.format(dir=tmp_path, wet=wet, corpus=corpus) for word in words]
    outcome = run_c4("explain", *filled)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("c4: error: ")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_records_that_are_no_pages_are_told_unless_a_page_is_asked_for(
    tmp_path: pathlib.Path,
) -> None:
    content = wet_bytes(PAGES[:2])
    path = tmp_path / "a.wet.gz"
    path.write_bytes(content[:-9])
    out = run_c4("explain", path).out
    assert re.search(r"^rejected at \d+: (truncated|corrupt_gzip): .", out, re.MULTILINE)
    assert "rejected" not in run_c4("explain", path, "--verdict", "kept").out


def test_body_lines_that_tf_takes_for_headers_are_explained_as_a_build_counts_them(
    tmp_path: pathlib.Path,
) -> None:
    text = f"{SHARED}\nWARC/1.0\n{OWN[0]}\nWARC-Target-URI: http://body.example/\n"
    dated = f"{text}WARC-Date: {OLD}\n"
    pages = [("http://1.example/", OLD, text), ("http://2.example/", OLD, dated)]
    path, size = write_wet(tmp_path / "a.wet.gz", pages)
    out = run_c4("explain", path, "--recipe", "tfds").out
    assert re.findall(r"^(\S+)  \(", out, re.MULTILINE) == [
        "http://1.example/",
        "http://2.example/",
        "http://body.example/",
    ]
    rejected = re.findall(r"^rejected at \d+", out, re.MULTILINE)
    rules = PageRules(RECIPES["tfds"])
    file = clean_file(path, size, str(tmp_path / "out"), rules, "id", 1 << 20)
    assert file.pages_read == 3
    assert len(rejected) == sum(file.records_rejected.values()) == 1


# ----------------------------------------------------------------------------- with a corpus


def test_a_corpus_shows_what_deduplication_took(wet: str, corpus: str) -> None:
    outcome = run_c4("explain", wet, "--corpus", corpus)
    assert (outcome.status, outcome.err) == (0, "")
    found = pages_of(outcome.out)
    outdated, current = found["http://c.example/ferry"], found["http://c.example/ferry/"]
    offset = re.search(r"offset (\d+)", current)
    assert offset is not None
    assert outdated.endswith(
        f"\n  page duplicate_url: the copy of {NEW} in {wet} at offset {offset[1]} was preferred"
    )
    assert current.endswith("\n  deduplication removed 0 of 4 sentences\n  page kept: en 1.0000")
    assert "deduplication" not in found["http://d.example/short"]
    # One of the two pages that share three sentences keeps them.
    urls = ("http://www.a.example/mill/", "http://b.example/inn")
    keeper, loser = sorted(urls, key=lambda url: page_key(normalize_url(url)))
    sentences = [s.rstrip(".") + "." for s in SHARED.split(". ")]
    first, *others = (f"        duplicate | {sentence}\n" for sentence in sentences)
    assert found[loser].endswith(
        f"\n{first}               of | {keeper}\n{''.join(others)}"
        "  deduplication removed 3 of 6 sentences\n  page kept: en 1.0000"
    )
    assert found[keeper].endswith(
        "\n  deduplication removed 0 of 6 sentences\n  page kept: en 1.0000"
    )


def test_pages_of_a_verdict_that_only_a_corpus_tells(wet: str, corpus: str) -> None:
    out = run_c4("explain", wet, "--corpus", corpus, "--verdict", "duplicate_url").out
    assert list(pages_of(out)) == ["http://c.example/ferry"]


def test_the_recipe_is_the_corpus_own(wet: str, tmp_path: pathlib.Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'name = "mine"\nbase = "en"\nmin_sentences = 1\nmin_sentences_after_dedup = 1'
    )
    out = str(tmp_path / "out")
    assert run_c4("build", "--input", wet, "--output", out, "--recipe", recipe).status == 0
    outcome = run_c4("explain", wet, "--corpus", out, "--url", "d.example/short")
    assert "  page few_sentences" not in outcome.out
    assert outcome.status == 0


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_each_copy_of_a_page_shows_its_own_losses(tmp_path: pathlib.Path, newest: int) -> None:
    # Copies stand in the order of their digests, each with other units before it.
    texts = [f"{OWN[0]}\n{SHARED}", f"{OWN[1]} {OWN[2]}\n{SHARED}", f"{SHARED}\n{OWN[3]} So there."]
    url = "http://www.a.example/mill"
    assert page_key(normalize_url(url)) > page_key("b.example/inn")  # which keeps what they share
    pages = [(url, NEW if number == newest else OLD, text) for number, text in enumerate(texts)]
    wet, _ = write_wet(tmp_path / "a.wet.gz", [("http://b.example/inn", OLD, SHARED), *pages])
    corpus = make_corpus(wet, str(tmp_path / "out"))
    out = run_c4("explain", wet, "--corpus", corpus, "--url", url).out
    units = [6, 9, 7]
    assert re.findall(r"  deduplication removed.*", out) == [
        f"  deduplication removed 3 of {units[newest]} sentences"
    ]
    expected = ["duplicate_url"] * 3
    expected[newest] = "kept"
    assert re.findall(r"^  page (\w+)", out, re.MULTILINE) == expected
    [place] = {
        match[1] for match in re.finditer(r"page duplicate_url: .* at offset (\d+) was", out)
    }
    offsets = re.findall(r"^\S+  \(.*, offset (\d+)\)", out, re.MULTILINE)
    assert place == offsets[newest]
    lost = re.findall(r"duplicate \| (.*)", out)
    assert lost == ["The old harbour was rebuilt by hand.", "It took two winters.",
                    "Nobody had a machine."]  # fmt: skip


def test_a_damaged_corpus_is_one_line(wet: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"recipe": {"name": "en"}}))
    outcome = run_c4("explain", wet, "--corpus", tmp_path)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert "damaged" in outcome.err


def test_removals_that_are_gone_are_one_line(wet: str, corpus: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "manifest.json").write_bytes((pathlib.Path(corpus) / "manifest.json").read_bytes())
    outcome = run_c4("explain", wet, "--corpus", tmp_path, "--url", PAGES[0][0])
    assert outcome.status == 1
    assert layout.file_name(wet) in outcome.err
    advice = "run the same build again with --verify to rebuild it"
    assert outcome.err.endswith(f": is missing; {advice}\n")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("unit", "window", "shared", "left"),
    [
        # Two lines left, and three sentences: over the whole text there are enough.
        ("lines", 1, "Nobody had a machine of any kind.",
         "The mill was old. It stood by the water for long.\nThe inn was older than that."),
        # Three sentences left line by line, two over the whole text: each line counts for itself.
        ("sentences", 3, SHARED,
         "He left the house of the old Dr.\nSmith came by on the next day.\nIt was late by then."),
    ],
    ids=["lines", "sentences"],
)  # fmt: skip
def test_what_deduplication_left_is_counted_as_a_build_counts_it(
    tmp_path: pathlib.Path, unit: str, window: int, shared: str, left: str
) -> None:
    url, other = "http://www.a.example/mill", "http://b.example/inn"
    assert page_key(normalize_url(url)) > page_key(normalize_url(other))  # which keeps its copy
    pages = [(url, OLD, f"{shared}\n{left}"), (other, OLD, f"{shared}\n{OWN[0]}\n{OWN[1]}")]
    path, _ = write_wet(tmp_path / "a.wet.gz", pages)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'name = "mine"\nbase = "en"\ndedup_unit = "{unit}"\ndedup_window = {window}\n'
    )
    out = str(tmp_path / "out")
    built = run_c4("build", "--input", path, "--output", out, "--recipe", recipe, "--workers", 1)
    assert built.status == 0, built.err
    made = read_manifest(out).as_dict()
    assert (made["counts"]["pages_written"], made["counts"]["pages_dropped"]) == (2, {})
    explained = run_c4("explain", path, "--corpus", out, "--url", url).out
    assert re.search(
        rf"deduplication removed [13] of \d {unit}\n  page kept: en 1.0000$", explained.rstrip()
    )


# --------------------------------------------------------- what explain and a build say is the same

NEWEST = "2019-04-25T10:00:00Z"
FILLER = [
    f"The {what} of the village was bought by the parish in the end. It is open on most days."
    for what in ("school", "bakery", "smithy", "brewery", "tannery", "granary")
]
LONG = [f"{' '.join([line] * 3)} Nobody asked for more than that at the time." for line in FILLER]
BOTH: list[list[Page]] = [
    [
        *PAGES,
        ("http://www.all.example/gone", OLD, SHARED),
        ("http://few.example/left", OLD, f"{SHARED}\n{FILLER[0]}"),
        ("http://long.example/a", OLD, "\n".join(LONG[:4])),
        ("http://long.example/b", OLD, "\n".join(LONG[2:6])),
        ("http://late.example/", OLD, f"{OWN[3]}\n{FILLER[1]}"),
        ("http://bad.example/", NEW,
         f"{OWN[3]} It was full of goldfinches.\nNobody was sorry to see them there."),
        ("http://mixed.example/", OLD, f"WARC/1.0\n{FILLER[2]}\nWARC/1.0\n"
         f"WARC-Target-URI: http://undated.example/\n{FILLER[2]}\nWARC/1.0\n"
         f"WARC-Target-URI: http://in.example/\nWARC-Date: {OLD}\n{FILLER[4]}\n{FILLER[5]}"),
        ("http://twice.example/", OLD, f"{FILLER[0]}\n{OWN[1]}"),
        ("http://twice.example/", OLD, f"{FILLER[0]}\n{OWN[1]}"),
    ],
    [
        ("http://c.example/ferry", NEWEST, f"{OWN[2]}\nIt is the newest of all by now."),
        ("http://late.example/?ref=1", NEW, "It was taken down."),  # dropped, and newer
        ("http://z.example/all", OLD, f"{SHARED}\n{FILLER[1]}\n{FILLER[2]}"),
        ("http://long.example/c", OLD, "\n".join([*LONG[:2], *LONG[4:]])),
        ("http://bad.example/", OLD, f"{FILLER[3]}\n{FILLER[4]}"),
        ("http://paged.example/{", OLD, "A line with a { in it stays nowhere at all."),
        ("http://news.listed.org/1", NEW, f"{SHARED}\n{FILLER[1]}\n{FILLER[0]}"),
        ("http://news.listed.org/2", NEW, f"{SHARED}\n{OWN[1]}"),
        ("http://news.listed.org/2/", OLD, f"{SHARED}\n{OWN[0]}"),
    ],
]  # fmt: skip
EVERY_RECIPE = [
    *("en", "tfds"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("multilingual", "realnewslike", "lines", "late", "digests")
    ),
]
OWN_RECIPES = {
    "lines": 'base = "en"\ndedup_unit = "lines"\ndedup_window = 1',
    "late": 'base = "en"\norder = "dedup_first"\nmin_sentences = 0',
    "digests": 'base = "en"\ndedup_urls = false\nmin_sentences = 1',
}
Built = tuple[str, list[str], list[str]]  # corpus, WET files, options of the lists


@pytest.fixture(scope="module", params=EVERY_RECIPE)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_both(request.param, tmp_path_factory.mktemp("built"))


def build_both(name: str, folder: pathlib.Path) -> Built:
    """Build a corpus of the samples and of pages that deduplication changes in every way."""
    samples = pathlib.Path(__file__).parents[3] / "samples" / "wet"
    paths = [str(path) for path in sorted(samples.iterdir())]
    paths += [write_wet(folder / f"{at}.wet.gz", pages)[0] for at, pages in enumerate(BOTH)]
    words: list[str] = []
    (folder / "words.txt").write_text("goldfinches\n")
    if name != "digests":
        words += ["--badwords", f"en={folder / 'words.txt'}"]
    if name == "realnewslike":
        (folder / "domains.json").write_text(
            json.dumps({"listed.org": ["news"], "example.net": True})
        )
        words += ["--domain-list", str(folder / "domains.json")]
    recipe = name
    if name in OWN_RECIPES:
        recipe = str(folder / "mine.toml")
        pathlib.Path(recipe).write_text(f'name = "mine"\n{OWN_RECIPES[name]}\n')
    out = str(folder / "out")
    outcome = run_c4("build", "--input", *paths, "--output", out, "--recipe", recipe,
                     "--workers", "1", "--quiet", *words)  # fmt: skip
    assert outcome.status == 0, outcome.err
    return out, paths, words


def test_verdicts_are_those_that_the_build_counted(built: Built) -> None:
    corpus, paths, words = built
    verdicts: Counter[str] = Counter()
    rejects: Counter[str] = Counter()
    for path in paths:
        outcome = run_c4("explain", path, "--corpus", corpus, *words)
        assert (outcome.status, outcome.err) == (0, "")
        verdicts.update(re.findall(r"^  page (\w+)", outcome.out, re.MULTILINE))
        rejects.update(re.findall(r"^rejected at \d+: (\w+)", outcome.out, re.MULTILINE))
        assert "not found" not in outcome.out
    counts = read_manifest(corpus).counts
    assert verdicts.pop("kept") == counts.pages_written
    assert verdicts == counts.pages_dropped
    assert rejects == counts.records_rejected_by_reason
    assert counts.records_rejected > 0


def test_every_page_is_found_by_its_address(built: Built) -> None:
    corpus, paths, words = built
    blocks: dict[str, list[str]] = {}
    for path in paths[-2:]:
        out = run_c4("explain", path, "--corpus", corpus, *words).out
        for block in re.split(r"\n\n(?=\S)", out.rstrip("\n")):
            if not block.startswith("rejected"):
                url = normalize_url(block.partition("  (")[0].replace("·", "\x9b"))
                blocks.setdefault(url, []).append(block)
    assert len(blocks) >= 14
    for url, expected in blocks.items():
        outcome = run_c4("explain", "--corpus", corpus, "--url", url, *words)
        assert (outcome.status, outcome.err) == (0, "")
        found = re.split(r"\n\n(?=\S)", outcome.out.rstrip("\n"))
        assert [
            re.sub(r"^(.* offset \d+) in \S+\)\n", r"\1)\n", block) for block in found
        ] == expected
        assert all(re.match(r".* offset \d+ in \S+[01].wet.gz\)\n", block) for block in found)


def test_the_pages_of_a_verdict_are_found_in_all_files(built: Built) -> None:
    corpus, _, words = built
    counts = read_manifest(corpus).counts.pages_dropped
    for verdict in ("duplicate_url", "empty_after_dedup", "few_sentences_after_dedup"):
        outcome = run_c4("explain", "--corpus", corpus, "--verdict", verdict, *words)
        assert len(re.findall(rf"^  page {verdict}", outcome.out, re.MULTILINE)) == counts.get(
            verdict, 0
        )
        assert outcome.status == (0 if verdict in counts else 1)


def test_the_builds_together_have_every_verdict_after_deduplication(
    tmp_path: pathlib.Path,
) -> None:
    """Keeps the tests above from comparing nothing."""
    corpus, _, words = build_both("late", tmp_path)
    dropped = read_manifest(corpus).counts.pages_dropped
    assert dropped.keys() >= {
        "duplicate_url", "empty_after_dedup", "few_sentences_after_dedup", "bad_words",
    }  # fmt: skip
    # A page that the rules drop may be preferred to one that they keep, as in TF.
    out = run_c4("explain", "--corpus", corpus, "--url", "late.example", *words).out
    assert re.search(
        rf"^  page duplicate_url: the copy of {NEW} in \S+/1.wet.gz at offset \d+ was preferred, "
        r"itself dropped \(\w+\)$",
        out,
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    ("option", "reason"), [("--max-record-mb", "too_large"), ("--max-file-mb", "too_large")]
)
def test_limits_are_those_of_the_build(tmp_path: pathlib.Path, option: str, reason: str) -> None:
    large = ("http://large.example/", OLD, f"{SHARED}\n" + "All of it is one line. " * 70_000)
    path, _ = write_wet(tmp_path / "a.wet.gz", [PAGES[1], large, PAGES[0]])
    out = tmp_path / "out"
    assert run_c4("build", "--input", path, "--output", out, "--workers", "1", option, "1",
                  "--quiet").status == 0  # fmt: skip
    assert read_manifest(str(out)).counts.records_rejected_by_reason == {reason: 1}
    for words in (["--corpus", out], [option, "1"], ["--corpus", out, option, "1"]):
        outcome = run_c4("explain", path, *words)
        assert re.findall(r"^rejected at \d+: (\w+)", outcome.out, re.MULTILINE) == [reason]
        assert f"{large[0]}  (" not in outcome.out
        # The reject names its page.
        by_url = run_c4("explain", path, *words, "--url", "large.example")
        rejected = re.findall(r"^rejected at .*", outcome.out, re.MULTILINE)
        assert by_url == (0, f"{rejected[0]}\n\n", "")
        in_corpus = run_c4("explain", "--corpus", out, "--url", "large.example")
        place, what = rejected[0].split(":", 1)
        assert in_corpus == (0, f"{place} in {path}:{what}\n\n", "")
    assert f"{large[0]}  (" in run_c4("explain", path, "--url", "large.example").out


def test_lists_must_be_those_of_the_build(tmp_path: pathlib.Path) -> None:
    out, paths, words = build_both("realnewslike", tmp_path)
    (tmp_path / "other.txt").write_text("harbour\n")
    badwords, domains = words[:2], words[2:]
    for given, message in [
        (badwords, "needs a domain list (--domain-list FILE)"),
        (domains, f"{out} was built with a list of its own: give the same one (--badwords en)"),
        (
            [*domains, "--badwords", f"en={tmp_path / 'other.txt'}"],
            f"other.txt is not the list that {out} was built with (--badwords en)",
        ),
        ([*words, "--badwords", f"de={tmp_path / 'other.txt'}"], "keeps no page in 'de'"),
    ]:
        for file in ([], paths[-1:]):
            outcome = run_c4(
                "explain", *file, "--corpus", out, "--url", "news.listed.org/2", *given
            )
            assert (outcome.status, outcome.out, outcome.err.count("\n")) == (1, "", 1)
            assert message in outcome.err


# ------------------------------------------------------------------------- pages by their address


def test_the_build_says_how_to_explain_a_page(tmp_path: pathlib.Path, wet: str) -> None:
    out = tmp_path / "the corpus"
    words = ["build", "--input", wet, "--output", out, "--workers", "1"]
    (tmp_path / "bad words.txt").write_text("harbour\n")
    built = run_c4(*words, "--badwords", f"en={tmp_path / 'bad words.txt'}").out
    [command] = re.findall(r"^why a page was dropped: c4 (.*)$", built, re.MULTILINE)
    asked = shlex.split(command.replace("URL", "b.example/inn"))
    assert asked[:3] == ["explain", "--corpus", str(out)]
    assert "\n  page bad_words: contains 'harbour'\n" in run_c4(*asked).out
    kept = run_c4(*words, "--badwords", f"en={tmp_path / 'bad words.txt'}", "--keep", "none").out
    [command] = re.findall(r"^why a page was dropped: c4 (.*)$", kept, re.MULTILINE)
    assert command.startswith(f"explain FILE --corpus '{out}' --url URL --badwords 'en=")


def test_an_address_that_is_nowhere_is_status_1(corpus: str) -> None:
    outcome = run_c4("explain", "--corpus", corpus, "--url", "http://nowhere.example/")
    line = f"c4: no page of {corpus} has the address http://nowhere.example/\n"
    assert outcome == (1, "", line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "the following arguments are required: FILE (or --corpus DIR with --url or --verdict)",
        ),
        (["--url", "a.example"], "the following arguments are required: FILE"),
        (["--corpus", "x"], "give FILE, --url or --verdict"),
    ],
)
def test_something_must_be_asked_for(words: list[str], message: str) -> None:
    outcome = run_c4("explain", *words)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err


@pytest.fixture
def own(tmp_path: pathlib.Path) -> tuple[pathlib.Path, str]:
    """A WET file and a corpus of it, to be changed."""
    path = tmp_path / "own.wet.gz"
    write_wet(path, PAGES)
    return path, make_corpus(str(path), str(tmp_path / "corpus"))


@pytest.mark.parametrize("how", ["gone", "shorter", "changed", "other"])
def test_without_its_file_a_page_is_explained_from_what_is_kept(
    own: tuple[pathlib.Path, str], how: str
) -> None:
    path, corpus = own
    urls = ("c.example/ferry", "d.example/short", "b.example/inn", "a.example/mill")
    before = [run_c4("explain", "--corpus", corpus, "--url", url).out for url in urls]
    if how == "gone":
        path.unlink()
    elif how == "shorter":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        if how == "other":  # as where a file system knows nothing of a file's content
            file = pathlib.Path(corpus) / "manifest.json"
            made = json.loads(file.read_bytes())
            made["inputs"][0]["identity"] = ""
            del made["checksum"]
            file.write_text(json.dumps(made))
        content = path.read_bytes()
        path.write_bytes(wet_bytes([(f"{url}#", date, text) for url, date, text in PAGES]))
        path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
    for url, shown in zip(urls, before, strict=True):
        outcome = run_c4("explain", "--corpus", corpus, "--url", url)
        assert (outcome.status, outcome.err) == (0, "")
        verdicts = re.findall(r"^  page (\w+)", shown, re.MULTILINE)
        assert re.findall(r"^  page (\w+)", outcome.out, re.MULTILINE) == verdicts
        assert re.findall("^ +duplicate.*", outcome.out) == re.findall("^ +duplicate.*", shown)
        what = {
            "gone": "is gone",
            "other": "no longer holds this page",
        }.get(how, f"has changed since {corpus} was built")
        line = f"\n  {path} {what}: its lines cannot be shown\n"
        assert outcome.out.count(line) == len(verdicts)
        assert " kept | " not in outcome.out
    whole = run_c4("explain", "--corpus", corpus, "--verdict", "kept")
    if how == "other":
        assert "do not match" in whole.err
        return
    assert (whole.status, whole.out) == (1, "")
    assert whole.err.startswith(f"c4: note: {path} {what}: skipped\n")
    assert f"no page of the WET files of {corpus} that were not skipped has" in whole.err
    if how != "gone":
        outcome = run_c4("explain", path, "--corpus", corpus)
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.err == f"c4: error: {path} {what}: build it again, or leave --corpus out\n"


def test_a_file_of_the_same_content_is_the_same_file(own: tuple[pathlib.Path, str]) -> None:
    path, corpus = own
    before = run_c4("explain", "--corpus", corpus, "--url", "b.example/inn")
    os.utime(path, (1, 1))
    assert run_c4("explain", "--corpus", corpus, "--url", "b.example/inn") == before
    assert "its lines cannot be shown" not in before.out


@pytest.mark.parametrize("keep", ["fingerprints", "none"])
def test_a_corpus_without_cleaned_pages_says_so(
    tmp_path: pathlib.Path, wet: str, keep: str
) -> None:
    out = tmp_path / "out"
    assert run_c4("build", "--input", wet, "--output", out, "--workers", "1", "--quiet",
                  "--keep", keep).status == 0  # fmt: skip
    lacks = f"{out} was built with --keep {keep}: it has no cleaned pages"
    outcome = run_c4("explain", "--corpus", out, "--url", "b.example/inn")
    message = f"c4: error: {lacks}; give a WET file to see it without deduplication (FILE)\n"
    assert outcome == (1, "", message)
    outcome = run_c4("explain", wet, "--corpus", out, "--url", "b.example/inn")
    assert outcome.status == 0
    assert outcome.err == f"c4: note: {lacks}; deduplication is not considered\n"
    assert outcome.out.endswith("\n  page kept: en 1.0000 (deduplication not considered)\n\n")
    outcome = run_c4("explain", wet, "--corpus", out, "--verdict", "duplicate_url")
    assert outcome.err == f"c4: error: {lacks}, so it cannot say which pages are duplicate_url\n"


def test_a_page_is_read_from_its_record_on(
    own: tuple[pathlib.Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, corpus = own
    places: list[int] = []
    original = explainer._Tail.read

    def read(tail: Any, size: int) -> bytes:
        places.append(tail._stream.tell())
        return original(tail, size)

    monkeypatch.setattr(explainer._Tail, "read", read)
    for url in ("d.example/short", "c.example/ferry"):
        out = run_c4("explain", "--corpus", corpus, "--url", url).out
        offsets = [int(offset) for offset in re.findall(r", offset (\d+) in", out)]
        assert min(places) == min(offsets) > 0
        places.clear()


def test_a_page_whose_record_cannot_be_read_by_itself_is_read_with_the_file(
    tmp_path: pathlib.Path,
) -> None:
    text = b"".join(wet_record(*page) for page in PAGES)
    path = tmp_path / "a.wet.gz"
    # Members that end in the middle of records.
    path.write_bytes(
        b"".join(gzip.compress(text[at : at + 300]) for at in range(0, len(text), 300))
    )
    corpus = make_corpus(str(path), str(tmp_path / "out"))
    for url, _, _ in PAGES[:5]:
        outcome = run_c4("explain", "--corpus", corpus, "--url", url)
        assert (outcome.status, outcome.err) == (0, "")
        with_file = run_c4("explain", path, "--corpus", corpus, "--url", url).out
        assert outcome.out.replace(f" in {path})", ")") == with_file
        assert " | " in outcome.out


def test_keepers_are_looked_for_within_bounds(
    own: tuple[pathlib.Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, corpus = own
    monkeypatch.setattr(kept, "_LOOKUPS", 0)
    out = run_c4("explain", path, "--corpus", corpus).out
    found = pages_of(out)
    assert out.count("of | a page that was not found, or not searched for in so many files\n") == 1
    assert found["http://c.example/ferry"].endswith(
        "  page duplicate_url: not searched for in so many files: give --url http://c.example/ferry"
    )
    by_url = run_c4("explain", "--corpus", corpus, "--url", "c.example/ferry").out
    assert f"  page duplicate_url: the copy of {NEW} in {path} at offset " in by_url


@pytest.mark.parametrize(("unit", "window"), [("sentences", 3), ("lines", 1)])
def test_a_page_that_deduplication_left_too_short_shows_how_short(
    tmp_path: pathlib.Path, unit: str, window: int
) -> None:
    url, other = "http://www.a.example/mill", "http://b.example/inn"
    lines = SHARED.replace(". ", ".\n").replace("It took two", "It took them two long")
    lines = lines.replace("Nobody had a", "Nobody of them had a")
    pages = [(url, OLD, f"{lines}\nIt was a mill. It was old."), (other, OLD, f"{OWN[1]}\n{lines}")]
    path, _ = write_wet(tmp_path / "a.wet.gz", pages)
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        f'name = "mine"\nbase = "en"\ndedup_unit = "{unit}"\ndedup_window = {window}\n'
    )
    out = tmp_path / "out"
    assert run_c4("build", "--input", path, "--output", out, "--recipe", recipe, "--quiet",
                  "--workers", "1").status == 0  # fmt: skip
    shown = run_c4("explain", "--corpus", out, "--url", url).out
    total = {"sentences": 5, "lines": 4}[unit]
    assert shown.endswith(
        f"\n               of | {other}\n"
        "        duplicate | It took them two long winters.\n"
        "        duplicate | Nobody of them had a machine.\n"
        f"  deduplication removed 3 of {total} {unit}\n"
        "  page few_sentences_after_dedup: 2 sentences left, 3 wanted\n\n"
    )


def test_other_versions_are_told(own: tuple[pathlib.Path, str]) -> None:
    path, corpus = own
    file = pathlib.Path(corpus) / "manifest.json"
    made = json.loads(file.read_bytes())
    made["versions"]["mmh3"] = "0.1"
    del made["checksum"]  # as from a version that wrote none
    file.write_text(json.dumps(made))
    outcome = run_c4("explain", path, "--corpus", corpus)
    assert outcome.status == 0
    assert outcome.err == (
        f"c4: note: {corpus} was built with other versions (mmh3 0.1), which may have judged lines "
        "and pages differently\n"
    )


@pytest.mark.parametrize("settings", [None, [], {"max_record_bytes": "1", "max_file_bytes": 1}])
def test_a_manifest_without_settings_is_one_line(
    own: tuple[pathlib.Path, str], settings: object
) -> None:
    path, corpus = own
    file = pathlib.Path(corpus) / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "settings": settings}))
    outcome = run_c4("explain", path, "--corpus", corpus)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith(f"c4: error: {file} is damaged: settings")
    assert outcome.err.count("\n") == 1


def test_a_page_that_loses_nothing_may_still_be_too_short(tmp_path: pathlib.Path) -> None:
    path, _ = write_wet(
        tmp_path / "a.wet.gz", [("http://d.example/", OLD, "The mill was older than the church.")]
    )
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\nbase = "en"\nmin_sentences = 1\n')
    out = str(tmp_path / "out")
    built = run_c4("build", "--input", path, "--output", out, "--recipe", recipe, "--workers", 1)
    assert built.status == 0, built.err
    dropped = read_manifest(out).counts.pages_dropped
    explained = run_c4("explain", path, "--corpus", out).out
    assert explained.rstrip().endswith(f"  page {next(iter(dropped))}: 1 sentence left, 3 wanted")
