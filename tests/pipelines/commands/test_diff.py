import json
import pathlib
import shutil

import pytest

from c4_filters.urls import normalize_url, page_key
from pipelines.commands.diff import _named
from pipelines.provenance.differences import SettingDifference
from testing.helpers import Page, read_corpus, run_c4, write_wet

pytestmark = pytest.mark.slow

SAMPLES = pathlib.Path(__file__).resolve().parents[3] / "samples" / "wet"
OLD, NEW = "2019-04-18T10:00:00Z", "2019-04-20T10:00:00Z"
SHARED = "The old harbour was rebuilt by hand. It took two winters. Nobody had a machine."
OWN = [
    f"The {what} was older than the church. It stood by the water. People liked it very much."
    for what in ("mill", "inn", "ferry house", "lime kiln", "barn", "bakery")
]
MILL, INN = sorted(
    ("http://a.example/mill/", "http://b.example/inn"), key=lambda u: page_key(normalize_url(u))
)
FIRST: list[Page] = [
    (INN, OLD, f"{OWN[0]}\n{SHARED}"),
    ("http://c.example/ferry", OLD, f"{OWN[2]}\nMy own boat."),
    ("http://d.example/kiln", OLD, OWN[3]),
    ("http://f.example/few", OLD, "It was the only line of it."),
    ("http://g.example/barn", OLD, f"{OWN[4]}\nIt is old."),
]
SECOND: list[Page] = [
    (MILL, OLD, f"{OWN[1]}\n{SHARED}"),
    ("http://c.example/ferry/", NEW, f"{OWN[2]}\nYour boat is not on the water."),
]


def build(out: pathlib.Path, *options: str | pathlib.Path) -> pathlib.Path:
    outcome = run_c4("build", "--output", out, "--workers", "1", "--quiet", *options)
    assert outcome.status == 0, outcome.err
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpora")
    write_wet(folder / "1.warc.wet.gz", FIRST)
    write_wet(folder / "2.warc.wet.gz", SECOND)
    (folder / "mine.toml").write_text(
        'name = "mine"\nbase = "en"\nmin_sentences = 1\nmin_sentences_after_dedup = 1\n'
        "min_words_per_line = 3"
    )
    first, second = folder / "1.warc.wet.gz", folder / "2.warc.wet.gz"
    build(folder / "a", "--input", first)
    build(folder / "b", "--input", first, second, "--recipe", folder / "mine.toml", "--shards", "3",
          "--format", "tfrecord")  # fmt: skip
    return folder


def diff(a: pathlib.Path, b: pathlib.Path) -> dict:
    outcome = run_c4("diff", a, b, "--json")
    assert (outcome.status, outcome.err) == (0, "")
    return json.loads(outcome.out)


def test_every_page_that_differs_has_its_reason(folder: pathlib.Path) -> None:
    found = diff(folder / "a", folder / "b")
    names = [each["name"] for each in found["settings"]]
    assert names[0] == "recipe.name"
    assert {"name": "recipe.min_sentences", "a": 3, "b": 1} in found["settings"]
    assert found["settings"][-1] == {
        "name": "inputs", "a": [], "b": [str(folder / "2.warc.wet.gz")],
    }  # fmt: skip
    pages = {page["url"]: (page["only_in"], page["why"]) for page in found["pages"]}
    assert pages == {
        INN: (None, "duplicate"),
        MILL: ("b", "not_read"),
        "http://c.example/ferry": (None, "other_record"),
        "http://f.example/few": ("b", "few_sentences"),
        "http://g.example/barn": (None, "rules"),
    }
    assert found["counts"] == {"only_in_a": 0, "only_in_b": 2, "differing": 3, "equal": 1}
    keys = [page_key(normalize_url(page["url"])) for page in found["pages"]]
    assert keys == sorted(keys)
    shown = run_c4("diff", folder / "b", folder / "a").out.splitlines()
    assert shown[0] == 'recipe.name: "mine" in A, "en" in B'
    assert "only in A  http://f.example/few  (B: few_sentences)" in shown
    assert f"differs    {INN}  (duplicate)" in shown
    assert shown[-1] == "2 pages only in A, 0 only in B, 3 with another text, 1 equal"


def test_a_corpus_equals_itself_in_another_format(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    again = build(tmp_path / "again", "--input", folder / "1.warc.wet.gz", "--format", "json",
                  "--shards", "5")  # fmt: skip
    found = diff(folder / "a", again)
    assert found["pages"] == []
    assert [each["name"] for each in found["settings"]] == ["formats", "shards"]
    assert found["counts"]["equal"] == 4


def test_what_a_corpus_was_built_against_is_named(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    second = ("--input", folder / "2.warc.wet.gz")
    grown = build(tmp_path / "grown", *second, "--against", folder / "a")
    plain = build(tmp_path / "plain", *second)
    assert diff(grown, plain)["settings"] == [
        {"name": "against", "a": [str(folder / "a")], "b": []}
    ]
    assert run_c4("diff", plain, grown).out.splitlines()[0] == (
        f'against: [] in A, ["{folder / "a"}"] in B'
    )


def test_many_files_are_counted() -> None:
    paths = [f"/wet/sample-{number}.warc.wet.gz" for number in range(9)]
    assert _named(SettingDifference("inputs", [], paths)) == (
        "inputs: 0 files only in A, 9 files (/wet/sample-0.warc.wet.gz, ...) only in B"
    )
    assert _named(SettingDifference("inputs", paths[:1], paths[1:2])) == (
        f"inputs: 1 file ({paths[0]}) only in A, 1 file ({paths[1]}) only in B"
    )


def test_without_kept_files_the_reason_is_unknown(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    bare = build(tmp_path / "bare", "--input", folder / "1.warc.wet.gz", "--keep", "none")
    found = {page["url"]: page["why"] for page in diff(bare, folder / "b")["pages"]}
    assert found["http://f.example/few"] is found["http://g.example/barn"] is None
    assert found["http://c.example/ferry"] == "other_record"
    shown = run_c4("diff", bare, folder / "b").out
    assert "(A: unknown, since the pages of the build were not kept)" in shown


def test_equals_a_comparison_of_all_pages_at_once(tmp_path: pathlib.Path) -> None:
    """On real pages: against dictionaries of both corpora."""
    inputs = ["--input", SAMPLES / "sample-0000[01]*"]
    a = build(tmp_path / "a", *inputs, "--shards", "4")
    b = build(tmp_path / "b", *inputs, "--recipe", "en.noblocklist", "--shards", "3")
    c = build(tmp_path / "c", *inputs, "--recipe", "en.paper_v3")
    texts = [
        {normalize_url(page["url"]): page["text"] for pages in read_corpus(each).values()
         for page in pages}
        for each in (a, b, c)
    ]  # fmt: skip
    reasons = set()
    for one, other, left, right in ((a, b, *texts[:2]), (a, c, texts[0], texts[2])):
        wanted = {
            (url, None if url in left and url in right else "a" if url in left else "b")
            for url in left.keys() | right.keys()
            if left.get(url) != right.get(url)
        }
        found = diff(one, other)["pages"]
        assert {(normalize_url(page["url"]), page["only_in"]) for page in found} == wanted
        assert len(found) == len(wanted) > 0
        reasons |= {page["why"] for page in found}
    assert reasons >= {"few_sentences", "rules"}
    assert None not in reasons


def test_what_cannot_be_compared_is_one_line(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    outcome = run_c4("diff", folder / "a", tmp_path)
    assert (outcome.status, outcome.out) == (1, "")
    assert "has no manifest.json" in outcome.err
    other = tmp_path / "other"
    shutil.copytree(folder / "b", other)
    shard = sorted(other.glob("train-*.tfrecord"))
    contents = [path.read_bytes() for path in shard]
    manifest = json.loads((other / "manifest.json").read_bytes())
    by_name = {entry["name"]: entry for entry in manifest["shards"]}
    first, last = shard[0].name, shard[-1].name
    for name, content, source in ((first, contents[-1], last), (last, contents[0], first)):
        (other / name).write_bytes(content)
        by_name[name] |= {"old": source}
    swapped = {name: by_name[by_name[name].pop("old")] for name in (first, last)}
    sizes = {name: {key: swapped[name][key] for key in ("pages", "bytes", "sha256")}
             for name in swapped}  # fmt: skip
    for name, values in sizes.items():
        by_name[name].update(values)
    del manifest["checksum"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    outcome = run_c4("diff", other, folder / "a")
    assert outcome.status == 1
    assert f"{other}: pages are not in the order of c4 build" in outcome.err
    assert outcome.err.count("\n") == 1
