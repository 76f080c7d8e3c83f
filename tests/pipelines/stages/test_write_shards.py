import dataclasses
import hashlib
import pathlib
import pickle
import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES
from pipelines import storage
from pipelines.corpus import cleaned as cleaned_files
from pipelines.corpus import layout
from pipelines.corpus.manifest import ShownPage
from pipelines.corpus.root_digest import RowDigests
from pipelines.stages.merge_files import cleaned_sources
from pipelines.stages.write_shards import ShardSummary, ShardTask, plan_shards, write_shard
from testing.helpers import read_corpus
from tests.pipelines.cleaned_pages import ANY, LATE, LINES, Page, some_pages, write_file

WHOLE = ShardTask("train", 0, 1)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def any_rules() -> PageRules:
    return PageRules(ANY)


@pytest.fixture(scope="module")
def late_rules() -> PageRules:
    return PageRules(LATE)


# --------------------------------------------------------------------------------------- ranges


@given(count=st.integers(1, 99_999), probe=st.integers(0, 2**64 - 1))
@example(count=1, probe=2**64 - 1)
@example(count=99_999, probe=0)
@settings(deadline=None)
def test_key_ranges_part_all_keys_without_gap_or_overlap(count: int, probe: int) -> None:
    def bounds(index: int) -> tuple[int, int]:
        return ShardTask("train", index, count).key_range()

    assert bounds(0)[0] == 0
    assert bounds(count - 1)[1] == 2**64
    owner = probe * count >> 64  # as a fraction of all keys, times the shards
    low, high = bounds(owner)
    assert low <= probe < high
    if owner:
        assert bounds(owner - 1)[1] == low
    if owner + 1 < count:
        assert bounds(owner + 1)[0] == high
    assert 0 <= (high - low) - (2**64 // count) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1000])
def test_every_range_of_a_corpus_begins_where_the_last_ended(count: int) -> None:
    at = 0
    for index in range(count):
        low, high = ShardTask("train", index, count).key_range()
        assert low == at < high
        at = high
    assert at == 2**64


@pytest.mark.parametrize(
    ("text_bytes", "asked", "train", "validation"),
    [
        (0, None, 1, 1),
        (1, None, 1, 1),
        (64 << 20, None, 1, 1),
        ((64 << 20) + 1, None, 2, 1),
        (64 * 1024 << 20, None, 1024, 8),
        (64 * 4096 << 20, None, 4096, 32),
        (100 * 4096 << 20, None, 4096, 32),
        (257 * 4096 << 20, None, 4112, 33),
        (10**18, None, 99_999, 782),
        (10**18, 3, 3, 1),
        (0, 129, 129, 2),
    ],
)
def test_plan(text_bytes: int, asked: int | None, train: int, validation: int) -> None:
    tasks = plan_shards(text_bytes, asked)
    assert tasks == [ShardTask("train", index, train) for index in range(train)] + [
        ShardTask("validation", index, validation) for index in range(validation)
    ]


# --------------------------------------------------------------------------------------- pages


def write(
    task: ShardTask,
    names: Sequence[str],
    folder: pathlib.Path,
    rules: PageRules,
    formats: Sequence[str] = ("parquet",),
) -> ShardSummary:
    return write_shard(task, cleaned_sources(str(folder), names), str(folder), formats, rules)


@pytest.mark.slow
@given(
    pages=some_pages(),
    spread=st.randoms(use_true_random=False),
    count=st.sampled_from([1, 2, 7]),
    batch_rows=st.integers(1, 4),
    late=st.booleans(),
)
@settings(
    max_examples=35,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_shards_are_the_pages_cut_and_sorted(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    any_rules: PageRules,
    late_rules: PageRules,
    pages: list[Page],
    spread: random.Random,
    count: int,
    batch_rows: int,
    late: bool,
) -> None:
    monkeypatch.setattr(cleaned_files, "BATCH_ROWS", batch_rows)  # slices of several batches
    folder = tmp_path_factory.mktemp("shards")
    names = ["a", "b", "c"]
    groups: dict[str, list[Page]] = {name: [] for name in names}
    for page in pages:
        groups[spread.choice(names)].append(page)
    for name, group in groups.items():
        write_file(folder, name, group)
    spread.shuffle(names)
    # Units are lines, but only the late recipe says so; the other counts units as sentences.
    rules = late_rules if late else any_rules
    tasks = [ShardTask(split, n, count) for split in layout.SPLITS for n in range(count)]
    shards = [write(task, names, folder, rules) for task in tasks]

    expected: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    dropped = {"duplicate_url": 0, "empty_after_dedup": 0, "few_sentences_after_dedup": 0}
    for page in sorted(pages, key=lambda page: (page.key, page.number)):
        left = [line for line, gone in zip(page.lines, page.gone, strict=True) if not gone]
        if page.outdated:
            dropped["duplicate_url"] += 1
        elif not left:
            dropped["empty_after_dedup"] += 1
        elif not late and len(left) < 3:
            dropped["few_sentences_after_dedup"] += 1
        else:
            split = "validation" if page.validation else "train"
            expected[split].append((f"http://{page.number}.example/", "\n".join(left)))
    found = read_corpus(folder)
    assert {
        split: [(row["url"], row["text"]) for row in found[split]] for split in found
    } == expected
    for verdict, number in dropped.items():
        assert sum(shard.pages_dropped.get(verdict, 0) for shard in shards) == number
    written = [text for texts in expected.values() for _, text in texts]
    assert sum(shard.pages for shard in shards) == len(written)
    assert sum(shard.lines for shard in shards) == sum(text.count("\n") + 1 for text in written)
    assert sum(shard.text_bytes for shard in shards) == sum(len(text.encode()) for text in written)
    lines_dropped = sum(sum(shard.lines_dropped.values()) for shard in shards)
    assert sum(len(page.lines) for page in pages) == lines_dropped + sum(
        shard.lines for shard in shards
    )
    languages = {row["language"] for rows in found.values() for row in rows}
    assert languages <= ({"en"} if late else {None})


def test_the_same_bytes_in_whatever_order_files_are_named(
    tmp_path: pathlib.Path, any_rules: PageRules
) -> None:
    # Keys meet in hash collisions only; the digest then decides. Pages equal in both are one page
    # twice (a recipe that keeps urls), of which one may have lost sentences.
    pages = [Page(key, LINES, [False] * 3, number=n) for n, key in enumerate([7, 7, 5, 2**64 - 1])]
    twin = dataclasses.replace(pages[0], lines=[*LINES, *LINES], gone=[True] + [False] * 5)
    for name, group in {"a": pages[:1], "b": pages[1:], "c": [twin]}.items():
        write_file(tmp_path, name, group)
    digests = []
    for names in (["a", "b", "c"], ["c", "b", "a"], ["b", "c", "a"]):
        shard = write(WHOLE, names, tmp_path, any_rules, ["parquet", "json"])
        digests.append([file.sha256 for file in shard.files])
    assert digests[0] == digests[1] == digests[2]


def test_files_are_described_as_they_are(tmp_path: pathlib.Path, any_rules: PageRules) -> None:
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3, number=1)])
    formats = ["json", "tfrecord", "parquet"]
    shard = write(ShardTask("train", 0, 3), ["a"], tmp_path, any_rules, formats)
    assert [file.format for file in shard.files] == formats
    assert [file.name for file in shard.files] == [
        "train-00000-of-00003.json.gz",
        "train-00000-of-00003.tfrecord",
        "train-00000-of-00003.parquet",
    ]
    for file in shard.files:
        content = (tmp_path / file.name).read_bytes()
        assert len(content) == file.bytes > 0
        assert hashlib.sha256(content).hexdigest() == file.sha256
    assert shard.kept_page == ShownPage("http://1.example/", "\n".join(LINES))
    assert shard.pages == 1
    assert shard.rows != RowDigests()
    assert pickle.loads(pickle.dumps(shard)) == shard  # as engines send it


def test_a_shard_of_no_pages_is_a_file_of_no_rows(
    tmp_path: pathlib.Path, any_rules: PageRules
) -> None:
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3)])
    for task, names in [(ShardTask("train", 1, 2), ["a"]), (ShardTask("validation", 0, 1), [])]:
        shard = write(task, names, tmp_path, any_rules)
        assert (shard.pages, shard.lines, shard.text_bytes, shard.kept_page) == (0, 0, 0, None)
        assert (tmp_path / shard.files[0].name).exists()
    assert read_corpus(tmp_path) == {"train": [], "validation": []}


def test_late_rules_judge_what_deduplication_left(tmp_path: pathlib.Path) -> None:
    recipe = dataclasses.replace(RECIPES["tfds"], name="late", drop_parser_accidents=False)
    rules = PageRules(recipe, badwords={"en": ["brimstone"]})
    german = ["Der Fluss ist heute hoch. Niemand setzt jetzt über. Wir warten auf die Fähre."]
    bad = "There was brimstone in the air. It smelled of eggs. Nobody minded at all."
    write_file(
        tmp_path,
        "a",
        [
            Page(1, LINES, [False] * 3, number=1),
            Page(2, german, [False], number=2),
            Page(3, [*LINES, bad], [False] * 4, number=3),
            Page(4, [*LINES, bad], [False] * 3 + [True], number=4),  # the word went with its line
            Page(5, [bad, *german], [False, True], number=5),
        ],
    )
    shard = write(WHOLE, ["a"], tmp_path, rules)
    assert shard.pages_dropped == {"other_language": 1, "bad_words": 2}
    assert shard.lines_dropped == {"duplicate": 2, "on_dropped_page": 6}
    rows = read_corpus(tmp_path)["train"]
    assert [(row["url"], row["language"]) for row in rows] == [
        ("http://1.example/", "en"),
        ("http://4.example/", "en"),
    ]
    assert all(row["language-probability"] >= 0.99 for row in rows)
    assert {verdict: len(samples) for verdict, samples in shard.samples.items()} == {
        "other_language": 1,
        "bad_words": 2,
    }
    assert [sample["evidence"] for sample in shard.samples["bad_words"]] == ["brimstone"] * 2


def test_samples_are_few_and_short(tmp_path: pathlib.Path, any_rules: PageRules) -> None:
    pages = [Page(n, [LINES[0] * 9, LINES[1]], [True, False], number=n) for n in range(9)]
    write_file(tmp_path, "a", pages)
    shard = write(WHOLE, ["a"], tmp_path, any_rules)
    assert shard.pages_dropped == {"few_sentences_after_dedup": 9}
    [samples] = shard.samples.values()
    assert [sample["url"] for sample in samples] == [f"http://{n}.example/" for n in range(3)]
    assert {len(sample["text"]) for sample in samples} == {300}
