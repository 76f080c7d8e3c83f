"""``c4 report``: the page parsed, read in Chromium, and fed with hostile text."""

import base64
import hashlib
import html.parser
import itertools
import json
import pathlib
import re
import xml.etree.ElementTree
from collections import Counter
from typing import Any

import pytest

from c4_filters.verdicts import PageVerdict
from pipelines.report.charts import bars
from pipelines.report.page import embedded, render
from pipelines.report.text import visible
from testing.browser import Browser, find_chromium
from testing.helpers import manifest_of, run_c4, wet_record, write_wet

ROOT = pathlib.Path(__file__).resolve().parents[3]
SAMPLES = str(ROOT / "samples" / "wet" / "sample-0000?.warc.wet.gz")
DATE = "2019-04-18T10:00:00Z"
FINE = "The ferry was late again. It rained the whole day. Nobody minded the wait at all."
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028<!-- & ]]>"
HIDDEN = "safe \u202egpj.exe\u202c \u2066x\u2069 \x1b[31m \ufeff\u200b"
HOSTILE_PAGES = [
    ('http://a.example/\u202e"><script>alert(3)</script>', f"{FINE}\n{HOSTILE} {FINE}"),
    ("javascript:alert(4)//http://b.example/", f"One more page is here. {FINE}\n{HIDDEN} {FINE}"),
    ("https://c.example/$x^{2}$?a=<svg onload=alert(5)>&b='", f"Yet another one. {FINE} {HOSTILE}"),
    ("http://d.example/x", f"{HOSTILE} {{ alert(6) }} {FINE}"),
    ("http://e.example/y", f"{HOSTILE}"),
]
RECIPE = """
name = "evil"
description = "</script><script>alert(7)</script> $\\\\frac{a}$ \\u202e"
base = "en.noblocklist"
languages = []
min_language_probability = 0.0
"""


class Page(html.parser.HTMLParser):
    """The elements of a page, and the text in them."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, str] = {}
        self._open = False
        self.content = path.read_text(encoding="utf-8")
        self.feed(self.content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            place = len(self.elements) - 1
            self.texts[place] = self.texts.get(place, "") + data

    def text_of(self, tag: str, **attributes: str) -> str:
        [place] = [
            place
            for place, (name, has) in enumerate(self.elements)
            if name == tag and has.items() >= attributes.items()
        ]
        return self.texts[place]

    @property
    def data(self) -> Any:
        return json.loads(self.text_of("script", type="application/json"))


def built(output: pathlib.Path, *arguments: object) -> pathlib.Path:
    outcome = run_c4("build", "--output", output, "--quiet", *map(str, arguments))
    assert outcome.status == 0, outcome.err
    return output


def reported(*arguments: object) -> pathlib.Path:
    outcome = run_c4("report", *map(str, arguments))
    assert outcome.status == 0, outcome.err
    return pathlib.Path(outcome.out.strip())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    folder = tmp_path_factory.mktemp("report")
    clean = built(folder / "en", "--input", SAMPLES)
    raw = built(folder / "raw", "--input", SAMPLES, "--recipe", "en.noclean", "--format", "json")
    return clean, raw


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("hostile")
    recipe = folder / "<script>alert(8)<script>.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    wet = folder / "a<b>&.warc.wet.gz"
    write_wet(wet, [(url, DATE, text) for url, text in HOSTILE_PAGES])
    with wet.open("ab") as file:
        import gzip

        record = wet_record("", DATE, HOSTILE).replace(b"WARC-Target-URI", b"X-<script>")
        file.write(gzip.compress(record))
    return reported(built(folder / "out", "--input", wet, "--recipe", recipe))


# ----------------------------------------------------------------------------- the file, parsed


def test_counts_are_those_of_the_manifest(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    folder = folders[0]
    path = reported(folder)
    assert path == folder / "report" / "report.html"
    counts = manifest_of(folder)["counts"]
    [build] = Page(path).data["builds"]
    assert build["pages"][0] == ["read", 0, counts["pages_read"]]
    assert build["pages"][-1] == ["written", 0, counts["pages_written"]]
    assert {name: dropped for name, dropped, _ in build["pages"][1:-1]} == counts["pages_dropped"]
    assert build["pages"][-2][2] == counts["pages_written"]
    assert build["lines"][-2][2] == counts["lines_written"]
    assert sum(n for _, n in build["lengths"]) == counts["pages_written"]
    assert sum(pages for _, pages, _ in build["languages"]) == counts["pages_written"]
    assert dict(map(tuple, build["years"])) == {"2019": counts["pages_written"]}


def test_every_dropped_page_of_a_small_corpus_is_shown_with_its_reason(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    [build] = Page(reported(folders[0])).data["builds"]
    counts = manifest_of(folders[0])["counts"]["pages_dropped"]
    samples = build["samples"]
    assert {name: len(samples[name]) for name in counts} == counts
    assert build["notes"] == []
    for page in samples[PageVerdict.FEW_SENTENCES]:
        assert re.fullmatch(r"\d sentences? left, 3 wanted", page["note"])
        assert {verdict for verdict, _ in page["lines"]} - {"kept"}
    for page in samples[PageVerdict.BAD_WORDS]:
        [word] = page["marks"]
        assert any(word in text.lower() for _, text in page["lines"])
    for page in samples[PageVerdict.FEW_SENTENCES_AFTER_DEDUP]:
        assert "duplicate" in [verdict for verdict, _ in page["lines"]]
    [curly] = samples[PageVerdict.CURLY_BRACKET]
    assert "{" in next(text for verdict, text in curly["lines"] if verdict == "curly_bracket")


@pytest.mark.slow
def test_pages_that_rules_drop_after_deduplication_are_shown_too(tmp_path: pathlib.Path) -> None:
    folder = built(tmp_path / "out", "--input", SAMPLES, "--recipe", "tfds")
    [build] = Page(reported(folder)).data["builds"]
    counts = manifest_of(folder)["counts"]["pages_dropped"]
    assert PageVerdict.BAD_WORDS in counts
    assert {name: len(build["samples"][name]) for name in counts} == counts


@pytest.mark.slow
def test_repeated_spans_have_their_text_and_pages(tmp_path: pathlib.Path) -> None:
    shared = "The harbour opens at six. Boats leave on the hour. Dogs travel free of charge."
    pages = [
        (
            f"http://{n}.example/",
            DATE,
            f"Page {n} begins here now. {shared} It ends with {n} words.",
        )
        for n in range(9)
    ]
    pages += [("http://3.example/", "2019-04-19T10:00:00Z", pages[3][2])]
    write_wet(tmp_path / "a.warc.wet.gz", pages[:5])
    write_wet(tmp_path / "b.warc.wet.gz", pages[5:])
    recipe = tmp_path / "spans.toml"
    recipe.write_text('name = "spans"\nlanguages = []\nmin_language_probability = 0.0\n')
    folder = built(tmp_path / "out", "--input", tmp_path / "*.gz", "--recipe", recipe)
    [build] = Page(reported(folder)).data["builds"]
    [span] = build["repeated"]
    assert span["text"] == shared
    assert span["copies"] == 9
    assert len(span["pages"]) == 6
    assert set(span["pages"]) <= {f"http://{n}.example/" for n in range(9)}
    assert build["span_groups"] == [["9 to 16", 1]]
    assert build["url_groups"] == [["2", 1]]


@pytest.mark.slow
def test_samples_are_few_and_always_the_same(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    paths = [tmp_path / f"{n}.html" for n in range(2)]
    for path in paths:
        reported(folders[0], "--samples", "2", "--to", path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    [build] = Page(paths[0]).data["builds"]
    assert max(map(len, build["samples"].values())) == 2
    [none] = Page(reported(folders[0], "--samples", "0")).data["builds"]
    assert not any(none["samples"].values())
    assert none["pages"] == build["pages"]
    assert run_c4("report", folders[0], "--samples", "201").status == 1


@pytest.mark.slow
def test_two_builds_are_in_one_page(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    data = Page(reported(*folders)).data
    assert data["names"] == ["en", "en.noclean"]
    assert data["builds"][0]["pages"] != data["builds"][1]["pages"]
    same = Page(reported(folders[0], folders[0])).data
    assert same["names"] == ["en (A)", "en (B)"]


@pytest.mark.slow
def test_without_kept_files_it_says_what_it_cannot_show(tmp_path: pathlib.Path) -> None:
    folder = built(tmp_path / "out", "--input", SAMPLES, "--keep", "none")
    [build] = Page(reported(folder)).data["builds"]
    assert "without its cleaned files only a few pages per rule are shown" in build["notes"][0]
    assert build["samples"][PageVerdict.FEW_SENTENCES]
    assert build["repeated"] == build["url_groups"] == []


@pytest.mark.slow
def test_without_the_inputs_it_says_so_once(tmp_path: pathlib.Path) -> None:
    wet = [tmp_path / name for name in ("a.warc.wet.gz", "b.warc.wet.gz")]
    for path in wet:
        path.write_bytes((ROOT / "samples" / "wet" / "sample-00000.warc.wet.gz").read_bytes())
    folder = built(tmp_path / "out", "--input", *wet)
    for path in wet:
        path.unlink()
    [build] = Page(reported(folder)).data["builds"]
    [note] = build["notes"]
    assert " sampled pages are not shown, because WET files cannot be read (" in note
    assert note.endswith(f"No such file or directory): {wet[0]} and 1 more file.")
    assert build["samples"][PageVerdict.FEW_SENTENCES]  # those that the manifest has


@pytest.mark.slow
def test_pages_of_the_opt_out_list_are_counted_and_not_shown(tmp_path: pathlib.Path) -> None:
    listed = tmp_path / "opt_out.txt"
    listed.write_text("example.com\nexample.org\n")
    folder = built(tmp_path / "out", "--input", SAMPLES, "--opt-out", listed)
    [build] = Page(reported(folder)).data["builds"]
    assert build["samples"][PageVerdict.OPTED_OUT] == []
    assert "opt-out list are counted, and not shown" in build["notes"][0]


def test_what_is_no_corpus_is_refused_in_a_line(tmp_path: pathlib.Path) -> None:
    outcome = run_c4("report", tmp_path)
    assert outcome.status == 1
    assert "is not a corpus" in outcome.err
    assert outcome.err.count("\n") == 1


def test_escapes_show_what_hides() -> None:
    assert visible("a\u202eb\u200bc\x00\n\u0645\u200c") == "a\\u202eb\\u200bc\\u0000\n\u0645\u200c"
    assert visible("\U000e0041") == "\\U000e0041"
    for code in [*range(0x2028, 0x202F), *range(0x2066, 0x206A)]:
        assert chr(code) not in visible(f"x{chr(code)}")


def test_data_cannot_end_its_element() -> None:
    text = embedded({HOSTILE: [HOSTILE]})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {HOSTILE: [HOSTILE]}


def test_hostile_text_stays_data(hostile: pathlib.Path) -> None:
    page = Page(hostile)
    tags = Counter(tag for tag, _ in page.elements)
    assert tags["script"] == 2
    assert tags["style"] == 1
    assert not tags.keys() & {"img", "svg", "iframe", "object", "embed", "form", "base", "link"}
    assert not [name for _, has in page.elements for name in has if name.startswith("on")]
    assert all(character not in page.content for character in "\u2028\u2029\u202e\x1b\ufeff")
    [build] = page.data["builds"]
    shown = json.dumps(build["samples"], ensure_ascii=False)
    assert "</script><script>alert(1)" in shown
    assert "\\\\u202egpj.exe\\\\u202c" in shown
    assert build["recipe"] == "evil"
    assert "alert(7)" in build["description"]


def test_the_policy_allows_this_script_and_style_alone(hostile: pathlib.Path) -> None:
    page = Page(hostile)
    [policy] = [has["content"] for _, has in page.elements if "http-equiv" in has]
    hashes = []
    for tag in ("script", "style"):
        [place] = [p for p, (name, has) in enumerate(page.elements) if name == tag and not has]
        digest = hashlib.sha256(page.texts[place].encode()).digest()
        hashes.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    assert policy == (
        f"default-src 'none'; script-src {hashes[0]}; style-src {hashes[1]}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    script = page.content.rpartition("<script>")[2]
    for name in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch",
    ):
        assert name not in script


def test_charts_are_images_in_which_labels_are_text(hostile: pathlib.Path) -> None:
    charts = Page(hostile).data["charts"]
    assert {"pages", "domains", "lengths"} <= charts.keys()
    for address in charts.values():
        head, _, data = address.partition(",")
        assert head == "data:image/svg+xml;base64"
        drawn = base64.b64decode(data).decode()
        assert "prefers-color-scheme:dark" in drawn
        tags = {
            element.tag.rpartition("}")[2]
            for element in xml.etree.ElementTree.fromstring(drawn).iter()
        }
        assert not tags & {"script", "foreignObject", "image", "a"}


@pytest.mark.parametrize(
    ("most", "log", "ticks"),
    [
        (76, True, ["0", "1", "10"]),
        (20_000, True, ["0", "1", "100", "10 k"]),
        (209_000, False, ["0", "60 k", "120 k", "180 k"]),
    ],
)
def test_a_scale_has_several_marks_whatever_its_length(
    most: int, log: bool, ticks: list[str]
) -> None:
    drawn = base64.b64decode(bars(["rule"], [("en", [most])], log).partition(",")[2])
    elements = xml.etree.ElementTree.fromstring(drawn).iter()
    shown = [each.text for each in elements if each.tag.endswith("}text")]
    assert shown == [*ticks, "rule"]


@pytest.mark.slow
def test_a_page_stays_small_whatever_its_samples(tmp_path: pathlib.Path) -> None:
    long = "An unusually long line about ferries, with <many> signs & more of them, follows. " * 60
    pages = [
        (f"http://{n}.example/{rule}", DATE, text)
        for n in range(220)
        for rule, text in (
            ("few", f"{long}{n}"),
            ("curly", f"A line with a {{ and the number {n}.\n" + f"{long}\n" * 12),
            ("lorem", f"Here is lorem ipsum {n} for you.\n" + f"{long}\n" * 12),
        )
    ]
    write_wet(tmp_path / "a.warc.wet.gz", pages)
    folder = built(tmp_path / "out", "--input", tmp_path / "*.gz")
    path = reported(folder, folder)
    assert path.stat().st_size < 5_000_000
    data = Page(path).data
    samples = data["builds"][1]["samples"]
    assert len(samples["curly_bracket"]) == len(samples["lorem_ipsum"]) == 200


# -------------------------------------------------------------------------------- in Chromium


@pytest.mark.slow
def test_many_verdicts_of_rules_of_ones_own_have_fewer_samples(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    [build] = Page(reported(folders[0])).data["builds"]
    page = {
        "url": f"http://a.example/{'ü' * 250}",
        "note": "",
        "lines": [["", "One."]],
        "marks": [],
    }
    for verdicts, most in ((10, 200), (60, 60)):
        build["samples"] = {f"rule_{n}": [page] * 200 for n in range(verdicts)}
        path = tmp_path / "report.html"
        path.write_bytes(render([build], 200))
        assert path.stat().st_size < 5_000_000
        data = Page(path).data
        assert {len(found) for found in data["builds"][0]["samples"].values()} == {data["most"]}
        assert most <= data["most"] <= most * 2


needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")
CHOOSE = (
    "(() => {{ const rule = document.getElementById('rule'); rule.value = '{}';"
    " rule.dispatchEvent(new Event('change')); }})()"
)


@pytest.mark.slow
@needs_chromium
def test_a_reader_searches_a_rule_and_compares_two_recipes(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    path = reported(*folders)
    counts = [manifest_of(folder)["counts"] for folder in folders]
    with Browser(tmp_path / "profile") as page:
        for width in (360, 1280):
            page.view(width, 800, dark=width == 360)
            assert page.open(path) < 2
            assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.title") == "Report: en and en.noclean"
        # Side by side: the first and last row of the first table.
        row = "[...document.querySelectorAll('#pages table tr')].map((row) => row.innerText)"
        rows = [line.split("\t") for line in page.run(row)]
        assert rows[1][:3] == ["read", *(f"{each['pages_read']:,}" for each in counts)]
        assert rows[-1][:3] == ["written", *(f"{each['pages_written']:,}" for each in counts)]
        found = "document.getElementById('found').textContent"
        page.run(CHOOSE.format("few_sentences"))
        few = counts[0]["pages_dropped"]["few_sentences"]
        assert page.run(found) == f"{few} of {few} sampled pages, out of {few} that were read"
        word = page.run("document.querySelector('#list .text').textContent").split()[0]
        page.run("document.getElementById('search').focus()")
        page.type(word)
        hits = int(page.run(found).split()[0])
        assert 1 <= hits <= few
        assert page.run("document.querySelectorAll('#list > li').length") == hits
        marks = page.run(
            "[...document.querySelectorAll('#list .text mark')].map((m) => m.innerText)"
        )
        assert word.lower() in [mark.lower() for mark in marks]
        page.type("no page has this")
        assert page.run(found).startswith("0 of ")
        page.run("document.getElementById('search').value = ''")
        page.run("document.getElementById('build').focus()")
        page.press("ArrowDown")
        page.run(CHOOSE.format("kept"))
        kept = counts[1]["pages_written"]
        assert f"out of {kept:,} that were read" in page.run(found)
        assert page.run("document.querySelectorAll('#list > li').length") == 20
        page.run("document.getElementById('more').focus()")
        page.press("Enter")
        assert page.run("document.querySelectorAll('#list > li').length") == 40
        assert page.run("document.activeElement.parentElement.id") == "list"
        links = "[...document.querySelectorAll('#list a')].map((a) => [a.protocol, a.rel])"
        assert {tuple(link) for link in page.run(links)} <= {
            (scheme, "noreferrer noopener nofollow") for scheme in ("http:", "https:")
        }
        assert not page.problems


@pytest.mark.slow
@needs_chromium
def test_the_page_can_be_read_without_eyes_and_mouse(
    folders: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    path = reported(folders[0])
    with Browser(tmp_path / "profile") as page:
        page.view(1280, 800)
        page.open(path)
        page.press("Tab")
        assert page.run("document.activeElement.className") == "skip"
        order = []
        for _ in range(40):
            page.press("Tab")
            order.append(page.run("document.activeElement.getAttribute('href')"))
        assert [at for at in order if at][:3] == ["#overview", "#pages", "#lines"]
        assert page.run("document.querySelectorAll('img:not([alt])').length") == 0
        assert page.run("document.querySelectorAll('table:not(:has(caption))').length") == 0
        assert page.run("document.querySelectorAll('th:not([scope])').length") == 0
        unnamed = "[...document.querySelectorAll('input, select')].filter((e) => !e.labels.length)"
        assert page.run(f"{unnamed}.length") == 0
        levels = page.run("[...document.querySelectorAll('h1, h2, h3')].map((e) => +e.tagName[1])")
        assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
        page.run(CHOOSE.format("few_sentences"))
        for dark in (False, True):
            page.view(1280, 800, dark=dark)
            for selector in ("body", "a", ".note", ".verdict", "mark", ".fatal .verdict", "button"):
                assert contrast(page, selector) >= 4.5, (selector, dark)


CONTRAST = """
(() => {
  const node = document.querySelector('%s');
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  let back = node;
  while (back && (parse(getComputedStyle(back).backgroundColor)[3] ?? 1) === 0) {
    back = back.parentElement;
  }
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(parse(getComputedStyle(node).color)),
    light(parse(getComputedStyle(back).backgroundColor))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()
"""


def contrast(page: Browser, selector: str) -> float:
    """WCAG 2.1: text to its background."""
    return float(page.run(CONTRAST % selector))


@pytest.mark.slow
@needs_chromium
def test_hostile_text_does_nothing_in_a_browser(
    hostile: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with Browser(tmp_path / "profile") as page:
        page.view(1280, 800)
        page.open(hostile)
        assert page.run("document.querySelectorAll('script').length") == 2
        assert page.run("[...document.images].every((i) => i.src.startsWith('data:image/svg'))")
        assert "</script><script>alert(1)" in page.run("document.getElementById('list').innerText")
        links = page.run("[...document.querySelectorAll('main a')].map((a) => a.href)")
        assert links
        assert all(link.startswith(("http://", "https://")) for link in links)
        assert not [link for link in links if "\u202e" in link or "alert(3)" in link]
        # The policy holds for what gets in nevertheless.
        page.run(
            "document.body.appendChild(document.createElement('script')).textContent = 'x = 1'"
        )
        assert page.run("typeof x") == "undefined"
        assert len(page.problems) == 1
        assert "Content Security Policy" in page.problems[0]
