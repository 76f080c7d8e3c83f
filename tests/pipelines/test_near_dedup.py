"""Near duplicates, end to end: the same bytes however it is run, a twin of all pairs, explained."""

import itertools
import pathlib
import random
import shutil

import pytest

from c4_filters import near
from c4_filters.urls import md5_key, normalize_url, page_key
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.removals import Removals
from pipelines.stages import graph, near_files
from pipelines.stages.merge_files import MergePlan
from testing.helpers import digests, manifest_of, read_corpus, run_c4, write_wet

pytestmark = pytest.mark.slow

SHARED = pathlib.Path(__file__).resolve().parents[2] / ".." / "shared"
DATE = "2019-04-18T10:00:00Z"
RECIPE = 'name = "near"\nbase = "en"\nnear_dedup = {threshold = 0.8}\n'
WORDS = [f"{one}{two}" for one in ("river", "stone", "corn", "wood") for two in range(40)]


def sentence(rng: random.Random) -> str:
    return f"The {' and the '.join(rng.choices(WORDS, k=9))} were there."


def versions(rng: random.Random) -> list[str]:
    """Return versions of one page, each much like the one before and less like the first.

    Every third sentence ends in a word of its own, so that exact deduplication, of three sentences
    in a row, finds nothing.
    """
    text = [sentence(rng) for _ in range(30)]
    found = []
    for _ in range(5):
        for at in range(30):
            if at % 3 == 0:
                text[at] = f"{text[at].rsplit(' ', 1)[0]} word{rng.randrange(10**6)}."
            elif rng.random() < 0.04:
                text[at] = sentence(rng)
        found.append("\n".join(text))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("near")
    rng = random.Random(5)
    pages = [
        (f"http://{rng.randrange(10**9)}.example/{number}-{version}", DATE, text)
        for number in range(30)
        for version, text in enumerate(versions(rng))
    ]
    rng.shuffle(pages)
    for at in range(5):
        write_wet(folder / f"{at}.warc.wet.gz", pages[at::5])
    (folder / "near.toml").write_text(RECIPE)
    return folder


def build(folder: pathlib.Path, out: pathlib.Path, *more: str, recipe: str = "near.toml") -> None:
    name = str(folder / recipe) if recipe.endswith(".toml") else recipe
    done = run_c4(
        "build", "--input", str(folder / "*.wet.gz"), "--output", out, "--recipe", name, *more
    )
    assert done.status == 0, done.err


@pytest.fixture(scope="module")
def corpora(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    found = {name: folder / name for name in ("plain", "1", "2", "4")}
    build(folder, found["plain"], "--workers", "1", "--shards", "2", recipe="en")
    for workers in ("1", "2", "4"):
        build(folder, found[workers], "--workers", workers, "--shards", "2")
    return found


def twin(pages: list[tuple[int, str, str]], threshold: float) -> dict[str, str]:
    """The urls that go, with the url that stays, of pages (rank, url, text): every pair, in order.

    Candidates are by the same numbers; all else is written out.
    """
    pages = sorted(pages)
    numbers = near.band_hashes([text for _, _, text in pages], near.bands_for(threshold))
    sets = [near.shingles(text) for _, _, text in pages]
    kept: list[int] = []
    gone: dict[str, str] = {}
    for at, (_, url, _) in enumerate(pages):
        for better in kept:
            if not (numbers[at] == numbers[better]).any():
                continue
            both = len(sets[at] & sets[better])
            if both / len(sets[at] | sets[better]) >= threshold:
                gone[url] = pages[better][1]
                break
        else:
            kept.append(at)
    return gone


def written(folder: pathlib.Path) -> list[tuple[int, str, str]]:
    return [
        (page_key(normalize_url(page["url"])), page["url"], page["text"])
        for page in itertools.chain(*read_corpus(folder).values())
    ]


def test_a_build_drops_what_a_twin_drops(corpora: dict[str, pathlib.Path]) -> None:
    before, after = written(corpora["plain"]), written(corpora["1"])
    gone = twin(before, 0.8)
    assert {page[1]: page for page in before if page[1] not in gone} == {p[1]: p for p in after}
    counts = manifest_of(corpora["1"])["counts"]
    assert counts["pages_dropped"]["near_duplicate"] == len(gone)
    # Some pages stay although they are like one that goes: being similar is not passed on.
    sets = {url: near.shingles(text) for _, url, text in before}
    assert any(
        near.similarity(sets[url], sets[lost]) >= 0.8 for _, url, _ in after for lost in gone
        if gone[lost] != url
    )  # fmt: skip
    assert len(gone) > 20


def test_workers_and_shards_do_not_matter(corpora: dict[str, pathlib.Path]) -> None:
    assert digests(corpora["1"]) == digests(corpora["2"]) == digests(corpora["4"])
    assert len(digests(corpora["1"])) == 3


def test_merged_files_do_not_matter(
    folder: pathlib.Path,
    corpora: dict[str, pathlib.Path],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans = []

    def plan(*_: object) -> MergePlan:
        plans.append(MergePlan(2, 2))
        return plans[-1]

    monkeypatch.setattr(graph, "plan_merge", plan)
    build(folder, tmp_path / "out", "--workers", "1", "--shards", "2")
    assert plans
    assert digests(tmp_path / "out") == digests(corpora["1"])


def test_each_near_duplicate_is_explained_with_the_page_that_stays(
    corpora: dict[str, pathlib.Path],
) -> None:
    gone = twin(written(corpora["plain"]), 0.8)
    shown = run_c4("explain", "--corpus", corpora["2"], "--verdict", "near_duplicate")
    assert shown.status == 0, shown.err
    found = {}
    for line in shown.out.splitlines():
        if line.startswith("http"):
            url = line.split()[0]
        elif "  page " in line:
            found[url] = line
    assert found == {
        url: f"  page near_duplicate: much of it is in {keeper}" for url, keeper in gone.items()
    }
    assert run_c4("verify", corpora["2"]).status == 0


def test_every_step_may_run_again(
    folder: pathlib.Path, corpora: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """An engine that lost results runs steps again that read what a later step has written."""
    out = str(tmp_path / "out")
    shutil.copytree(corpora["1"], out)
    config = BuildConfig(inputs="x", output=out, recipe=str(folder / "near.toml"))
    rules = config.page_rules()
    names = sorted(path.name[:-4] for path in pathlib.Path(out, "removals").iterdir())
    files = {name: pathlib.Path(layout.removals(out, name)) for name in names}
    before = {name: path.read_bytes() for name, path in files.items()}
    with Removals(str(files[names[0]])) as removals:
        build_id = removals._file.head["build_id"]
        assert 3 in removals.pages(0, removals.page_count)
    pairs = []
    numbers: dict[int, list[tuple[str, bytes]]] = {}
    for name in names:
        for bucket, rows in near_files.number_buffers(out, name, rules, build_id, 3).items():
            numbers.setdefault(bucket, []).append((name, rows))
    asked: dict[str, list[tuple[str, bytes]]] = {}
    for buffers in numbers.values():
        for name, what in near_files.candidates(buffers):
            asked.setdefault(name, []).append(what)
    hubs: dict[str, list[near_files.HubText]] = {}
    for name, parts in asked.items():
        for other, hub in near_files.hub_texts(out, name, rules, build_id, parts):
            hubs.setdefault(other, []).append(hub)
    for name, texts in hubs.items():
        pairs.append((name, near_files.similar_pairs(out, name, rules, build_id, texts)))
    lost = dict(near_files.dropped_pages(pairs))
    for name in names:
        near_files.write_near_removals(out, name, [lost[name]] if name in lost else [], build_id)
    assert {name: path.read_bytes() for name, path in files.items()} == before
    for name in names:  # and without any, the file is that of exact deduplication
        near_files.write_near_removals(out, name, [], build_id)
        with Removals(str(files[name])) as removals:
            assert 3 not in removals.pages(0, removals.page_count)


NOTHING_BUT_NEWS = ["conv-07-news-2000-2015"]


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("en", NOTHING_BUT_NEWS),
        ("tfds", NOTHING_BUT_NEWS),  # which detects languages after deduplication
        ("en.noclean", ["conv-08-warc-responses", "orig-04-CC-MAIN-2013-2014-2015-2024"]),
    ],
)
def test_real_pages_lose_what_a_twin_drops(
    base: str, names: list[str], tmp_path: pathlib.Path
) -> None:
    paths = [SHARED / "wet" / f"{name}.warc.wet.gz" for name in names]
    if not all(path.exists() for path in paths):
        pytest.skip("no ../shared/wet here")
    recipe = tmp_path / "near.toml"
    recipe.write_text(f'name = "near"\nbase = "{base}"\nnear_dedup = {{threshold = 0.6}}\n')
    for out, name in (("plain", base), ("near", str(recipe))):
        done = run_c4(
            "build", "--input", *paths, "--output", tmp_path / out, "--recipe", name,
            "--workers", "1",
        )  # fmt: skip
        assert done.status == 0, done.err
    before, after = written(tmp_path / "plain"), written(tmp_path / "near")
    if base == "tfds":
        before = [(md5_key(url), url, text) for _, url, text in before]
    gone = twin(before, 0.6)
    assert sorted(url for _, url, _ in before) == sorted([*gone, *(url for _, url, _ in after)])
    counts = manifest_of(tmp_path / "near")["counts"]
    assert counts["pages_dropped"]["near_duplicate"] == len(gone) > 0
