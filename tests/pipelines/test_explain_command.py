import json
import pathlib
import re

import pytest

from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from c4_filters.urls import normalize_url, page_key
from pipelines import dedup, layout, manifest
from pipelines.clean_files import clean_file
from pipelines.config import BuildConfig
from pipelines.merge_files import cleaned_sources
from pipelines.write_shards import plan_shards, write_shard
from tests.helpers import Page, run_c4, wet_bytes, write_wet

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
    manifest.claim_folder(config, start_over=False)
    file = clean_file(wet, pathlib.Path(wet).stat().st_size, out, rules, "id", 1 << 20)
    lost, _ = dedup.url_buffers(out, file.name, 1)
    pages = [lost] if lost is not None else []
    lost, _ = dedup.span_buffers(out, file.name, pages, recipe.dedup_window, 1)
    spans = [lost] if lost is not None else []
    dedup.write_file_removals(out, file.name, pages, spans, recipe.dedup_window, "")
    shards = [
        write_shard(task, cleaned_sources(out, [file.name]), out, config.formats, rules)
        for task in plan_shards(0, 1)
    ]
    manifest.write_manifest(config, manifest.make_manifest(config, [file], shards))
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
        (["--verdict", "bad_words"], "is there with the verdict bad_words"),
        (
            ["--url", "d.example/short", "--verdict", "kept"],
            "has the address d.example/short with the verdict kept",
        ),
    ],
)
def test_nothing_that_fits_is_status_1(wet: str, words: list[str], what: str) -> None:
    outcome = run_c4("explain", wet, *words)
    assert outcome == (1, "", f"c4: in {wet} no page {what}\n")


def test_a_file_of_no_pages_is_status_1(tmp_path: pathlib.Path) -> None:
    path, _ = write_wet(tmp_path / "a.wet.gz", [])
    assert run_c4("explain", path) == (1, "", f"c4: in {path} no page is there\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{dir}/absent.gz"], "no input file matches"),
        (["{dir}/not_wet"], "not_wet: no WARC record in its"),
        (["{dir}/*.wet.gz"], "names 2"),
        (["{wet}", "--verdict", "fine"], "unknown verdict 'fine'; known: kept, no_text,"),
        (["{wet}", "--recipe", "enn"], "did you mean 'en'?"),
        (["{wet}", "--recipe", "realnewslike"], "--domain-list FILE"),
        (["{wet}", "--badwords", "eng={wet}"], "'eng' is no language code"),
        (["{wet}", "--corpus", "{dir}"], "has no manifest.json"),
        (
            ["{wet}", "--corpus", "{corpus}", "--recipe", "de"],
            "was built with recipe en, not de as it stands",
        ),
        (["{dir}/1.wet.gz", "--corpus", "{corpus}"], "was not built from"),
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
    made = manifest.read_manifest(out)
    assert (made["counts"]["pages_written"], made["counts"]["pages_dropped"]) == (2, {})
    explained = run_c4("explain", path, "--corpus", out, "--url", url).out
    assert re.search(
        rf"deduplication removed [13] of \d {unit}\n  page kept: en 1.0000$", explained.rstrip()
    )
