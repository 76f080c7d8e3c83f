import dataclasses
import hashlib
import io
import itertools
import pathlib
import re
import subprocess
import sys
from collections import Counter

import pytest
import warcio

from benchmarks import generate_wet
from benchmarks.generate_wet import SyntheticCrawl, generate
from c4_filters.pages import PageRules, RawPage
from c4_filters.recipes import load_recipe
from c4_filters.sentences import sentence_splitter

ROOT = pathlib.Path(generate_wet.__file__).parents[1]
COMMAND = sys.executable, "-m", "benchmarks.generate_wet"
SAMPLE = 200
PINNED = "686c10dcf4655bd568e17f3f9962ca7449541a8d84834561f3d0c31977945d99"
JUNK_LINE = re.compile(r".*[^.?!\"]")


def raw(page):
    return RawPage(page.url, page.date, "text/plain", str(len(page.text)), page.text.decode())


def normalized(url):
    return re.sub(r"\?(utm_|ref|feed).*", "", re.sub(r"https?://(www\.)?", "", url)).rstrip("/")


def sentences_of(page):
    """Sentences of the lines with an end mark, by the project's splitter."""
    text = page.text.decode()
    splitter = sentence_splitter()
    return [
        line[start:stop]
        for line in text.split("\n")
        if not JUNK_LINE.fullmatch(line)
        for start, stop in splitter.spans(line)
    ]


def duplicate_sentences(pages):
    """Number of sentences that lie in a span of three which stands more than once, and of all."""
    spans = Counter()
    texts = [sentences_of(page) for page in pages]
    for text in texts:
        spans.update(itertools.pairwise(itertools.pairwise(text)))
    marked = 0
    for text in texts:
        inside = set()
        for i, span in enumerate(itertools.pairwise(itertools.pairwise(text))):
            if spans[span] > 1:
                inside |= {i, i + 1, i + 2}
        marked += len(inside)
    return marked, sum(map(len, texts))


def records(path):
    reader = warcio.ArchiveIterator(io.BytesIO(path.read_bytes()), check_digests="raise")
    for record in reader:
        get = record.rec_headers.get_header
        yield get("WARC-Target-URI"), get("WARC-Date"), record.content_stream().read()


# --- the same arguments, the same bytes --------------------------------------------------------


def test_same_arguments_give_the_same_bytes(tmp_path):
    runs = [
        generate(tmp_path / name, pages=600, files=3, crawl=SyntheticCrawl(seed=5))
        for name in ("first", "second")
    ]
    assert [p.name for p in runs[0]] == [f"synthetic-0000{k}.warc.wet.gz" for k in range(3)]
    assert [p.read_bytes() for p in runs[0]] == [p.read_bytes() for p in runs[1]]


def test_pages_are_pinned():
    # Measured once: NumPy keeps Philox's raw stream, so a difference is a change of this program.
    digest = hashlib.sha256()
    for page in SyntheticCrawl(seed=5).pages(0, 300):
        digest.update("\n".join([page.url, page.date, ""]).encode() + page.text)
    assert digest.hexdigest() == PINNED


def test_another_seed_gives_other_pages():
    one, two = (list(SyntheticCrawl(seed=s).pages(0, SAMPLE)) for s in (5, 6))
    assert not {page.text for page in one} & {page.text for page in two}
    # The phrases are shared, the sentences made of them are not, boilerplate included.
    shared = set(sentences_of(one[0])) & {s for page in two for s in sentences_of(page)}
    assert shared == set()


@pytest.mark.parametrize("files", [1, 2, 7])
def test_a_page_does_not_depend_on_the_number_of_files(tmp_path, files):
    crawl = SyntheticCrawl(seed=9)
    paths = generate(tmp_path, pages=521, files=files, crawl=crawl)
    found = [page for path in paths for page in list(records(path))[1:]]
    assert found == list(crawl.pages(0, 521))


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (255, 257), (256, 512), (300, 300), (77, 600)])
def test_any_stretch_of_pages_can_be_asked_for(start, stop):
    crawl = SyntheticCrawl(seed=3)
    assert list(crawl.pages(start, stop)) == list(crawl.pages(0, 600))[start:stop]


# --- the records -----------------------------------------------------------------------------


def test_an_independent_reader_confirms_every_digest(tmp_path):
    (path,) = generate(tmp_path, pages=50, files=1, crawl=SyntheticCrawl(seed=1))
    reader = warcio.ArchiveIterator(io.BytesIO(path.read_bytes()), check_digests="raise")
    ids, types, lengths = [], [], []
    for record in reader:
        payload = record.content_stream().read()
        ids.append(record.rec_headers.get_header("WARC-Record-ID"))
        types.append(record.rec_type)
        lengths.append(int(record.rec_headers.get_header("Content-Length")) - len(payload))
    assert types == ["warcinfo"] + ["conversion"] * 50
    assert lengths == [0] * 51
    assert len(set(ids)) == 51
    uuid4 = re.compile(r"<urn:uuid:[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}>")
    assert all(map(uuid4.fullmatch, ids[1:]))


def test_each_record_is_a_gzip_member(tmp_path):
    (path,) = generate(tmp_path, pages=20, files=1, crawl=SyntheticCrawl(seed=1))
    content = path.read_bytes()
    offsets = []
    with path.open("rb") as file:
        reader = warcio.ArchiveIterator(file)
        for _ in reader:
            offsets.append(reader.get_record_offset())
    assert len(offsets) == 21
    assert {content[offset : offset + 3] for offset in offsets} == {b"\x1f\x8b\x08"}


# --- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page_bytes", "sentences"), [(2300, 20), (1500, 12), (5000, 25), (1800, 20), (9000, 40)]
)
def test_mean_size_and_sentences_within_a_tenth(page_bytes, sentences):
    crawl = SyntheticCrawl(seed=2, page_bytes=page_bytes, sentences=sentences)
    pages = list(crawl.pages(0, 3 * SAMPLE))
    size = sum(len(page.text) for page in pages) / len(pages)
    count = sum(len(sentences_of(page)) for page in pages) / len(pages)
    assert size == pytest.approx(page_bytes, rel=0.1)
    assert count == pytest.approx(sentences, rel=0.1)


def test_lines_of_a_page():
    pages = list(SyntheticCrawl(seed=2).pages(0, SAMPLE))
    lines = [page.text.decode().split("\n") for page in pages]
    kept = sum(not JUNK_LINE.fullmatch(line) for page in lines for line in page) / SAMPLE
    junk = sum(JUNK_LINE.fullmatch(line) is not None for page in lines for line in page) / SAMPLE
    assert 8 <= kept <= 10
    assert 5 <= junk <= 15
    assert all(page for page in lines for page in page), "no empty lines"


# --- what the filters make of the pages --------------------------------------------------------


def test_pages_pass_the_rules_of_the_default_recipe():
    rules = PageRules(load_recipe("en"))
    counts = Counter()
    pages = list(SyntheticCrawl(seed=4).pages(1000, 1000 + SAMPLE))
    cleaned = [rules.clean(raw(page), counts) for page in pages]
    verdicts = Counter(str(page.verdict) for page in cleaned)
    assert verdicts["kept"] >= 0.95 * SAMPLE, verdicts
    certain = [
        page.language is not None
        and page.language.code == "en"
        and page.language.probability >= 0.99
        for page in cleaned
    ]
    assert sum(certain) >= 0.95 * SAMPLE
    # Junk falls to the end mark; no other line rule ever fires.
    assert {str(reason) for reason, n in counts.items() if n} == {"lines_read", "no_end_mark"}


# --- duplicates ------------------------------------------------------------------------------


def test_sentences_do_not_repeat_without_boilerplate():
    pages = list(SyntheticCrawl(seed=4, duplicate_share=0).pages(0, 5 * SAMPLE))
    sentences = [sentence for page in pages for sentence in sentences_of(page)]
    assert len(set(sentences)) >= 0.999 * len(sentences)
    assert duplicate_sentences(pages)[0] == 0
    assert len({normalized(page.url) for page in pages}) == len(pages)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.15, 0.27, 0.5])
def test_share_of_sentences_in_repeated_spans(share):
    # Among fewer pages the least popular paragraphs often stand on one page only.
    pages = list(SyntheticCrawl(seed=4, duplicate_share=share).pages(0, 20 * SAMPLE))
    repeated, total = duplicate_sentences(pages)
    assert repeated / total == pytest.approx(share, rel=0.1)


def test_a_tenth_of_the_share_of_pages_visits_an_earlier_url():
    pages = list(SyntheticCrawl(seed=4, duplicate_share=0.5).pages(0, 20 * SAMPLE))
    seen = {}
    older = newer = 0
    spellings = set()
    for page in pages:
        url = normalized(page.url)
        if url in seen:
            assert page.date != seen[url].date
            assert page.text != seen[url].text
            older += page.date < seen[url].date
            newer += page.date > seen[url].date
            spellings.add(re.sub(r"[^/]+\.example/\w+/\d+", "", page.url).partition("=")[0])
        seen.setdefault(url, page)
    assert (older + newer) / len(pages) == pytest.approx(0.05, rel=0.15)
    assert older > 0
    assert newer > 0
    assert spellings == {"http://", "https://?utm_source", "https:///", "http://?ref"}


def test_one_boilerplate_paragraph_is_extremely_popular():
    crawl = SyntheticCrawl(seed=4)
    pages = list(crawl.pages(0, 5 * SAMPLE))
    lines = Counter(line for page in pages for line in set(page.text.split(b"\n")))
    popular = [n for line, n in lines.most_common() if line.endswith(b".") and len(line) > 200]
    assert popular[0] > len(pages) / 10


# --- refusals and the command line -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be in"),
        ({"seed": 2**64}, "seed must be in"),
        ({"sentences": 3}, "sentences must be at least 4, got 3"),
        ({"duplicate_share": 0.95}, "duplicate_share must be"),
        ({"duplicate_share": -0.1}, "duplicate_share must be"),
        ({"page_bytes": 700}, r"page_bytes must be at least 1\d\d\d for 20 sentences, got 700"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SyntheticCrawl(**{"seed": 1, **change})


def test_the_least_page_size_named_in_the_error_is_accepted():
    with pytest.raises(ValueError, match="page_bytes") as error:
        SyntheticCrawl(seed=1, page_bytes=100)
    least = int(re.search(r"at least (\d+)", str(error.value))[1])
    crawl = SyntheticCrawl(seed=1, page_bytes=least)
    with pytest.raises(ValueError, match="page_bytes"):
        dataclasses.replace(crawl, page_bytes=least - 1)


@pytest.mark.parametrize(("pages", "files"), [(5, 6), (0, 0), (3, 0)])
def test_more_files_than_pages_are_refused(tmp_path, pages, files):
    with pytest.raises(ValueError, match="files must be between"):
        generate(tmp_path, pages=pages, files=files, crawl=SyntheticCrawl(seed=1))
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path):
    command = [*COMMAND, "--pages", "30", "--files", "2"]
    command += ["--seed", "8", "--out", str(tmp_path / "cli"), "--page-bytes", "3000"]
    command += ["--sentences", "15", "--duplicate-share", "0.4"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    crawl = SyntheticCrawl(8, page_bytes=3000, sentences=15, duplicate_share=0.4)
    paths = generate(tmp_path / "api", pages=30, files=2, crawl=crawl)
    for path in paths:
        assert (tmp_path / "cli" / path.name).read_bytes() == path.read_bytes()
    assert done.stdout.startswith("30 pages, 2 files, ")


def test_command_line_names_the_way_out(tmp_path):
    command = [*COMMAND, "--pages", "30", "--files", "2"]
    command += ["--seed", "8", "--out", str(tmp_path), "--page-bytes", "100"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "--page-bytes, --sentences" in done.stderr
    assert "Traceback" not in done.stderr
