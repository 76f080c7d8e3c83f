"""Merged files stand for the files they were made of; what is merged, and when."""

import itertools
import pathlib
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from c4_filters.pages import PageRules
from pipelines import storage
from pipelines.corpus import cleaned as cleaned_files
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile, key_range
from pipelines.corpus.container import DamagedFileError
from pipelines.corpus.removals import OtherBuildError, Removals
from pipelines.stages.merge_files import MergePlan, cleaned_sources, merge_files, plan_merge
from pipelines.stages.write_shards import plan_shards, write_shard
from testing.helpers import run_c4, write_wet
from tests.pipelines.cleaned_pages import ANY, LINES, Page, some_pages, write_file


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def rules() -> PageRules:
    return PageRules(ANY)


@given(
    files=st.integers(0, 100_000),
    text_bytes=st.integers(0, 1 << 42),
    shards=st.integers(1, 30_000),
)
@example(files=56_000, text_bytes=1400 << 30, shards=22_000)
@example(files=16, text_bytes=0, shards=16)
@example(files=558, text_bytes=6_421_335_266, shards=25_800)  # a rounded optimum: 1.48 times
def test_a_plan_opens_less(files: int, text_bytes: int, shards: int) -> None:
    plan = plan_merge(files, text_bytes, shards)
    pieces = max(1, -(-text_bytes // (128 << 20)))
    ranges = np.arange(1, pieces + 1)
    least = (files * ranges + shards * np.minimum(files, -(-pieces // ranges))).min()
    if plan is None:
        assert not files or files * shards < 8 * least
        return
    assert files * plan.ranges + shards * plan.groups == least
    assert 1 <= plan.groups <= files
    assert files * shards >= 8 * (files * plan.ranges + shards * plan.groups)
    # No piece is over the size, but where a file alone would be.
    assert text_bytes / (plan.groups * plan.ranges) <= 128 << 20 or plan.groups == files


@pytest.mark.parametrize(
    ("files", "gigabytes", "shards", "merged"),
    [(0, 0, 1, False), (1, 1, 16, False), (13, 0.1, 3, False), (100, 2.5, 40, False),
     (400, 10, 160, True), (56_000, 1400, 22_000, True)],
)  # fmt: skip
def test_few_files_are_left_as_they_are(
    files: int, gigabytes: float, shards: int, merged: bool
) -> None:
    assert (plan_merge(files, int(gigabytes * 2**30), shards) is not None) == merged


@pytest.mark.slow
@given(
    files=st.integers(1, 40),
    groups=st.integers(1, 40),
    ranges=st.integers(1, 9),
    shards=st.integers(1, 9),
    key=st.integers(0, 2**64 - 1),
)
@settings(max_examples=60)
def test_each_page_is_in_one_piece_and_its_shard_opens_it(
    files: int, groups: int, ranges: int, shards: int, key: int
) -> None:
    assume(groups <= files)
    plan = MergePlan(groups, ranges)
    names = [f"{number:02}" for number in range(files)]
    assert list(itertools.chain(*(plan.files_of(group, names) for group in range(groups)))) == names
    assert len({plan.piece("out", task) for task in plan.tasks()}) == groups * ranges
    for group in range(groups):
        holders = [
            plan.piece("out", task)
            for task in plan.tasks()
            if task.group == group
            and key_range(task.key_range, ranges)[0] <= key < key_range(task.key_range, ranges)[1]
        ]
        assert len(holders) == 1
        for index in range(shards):
            low, high = key_range(index, shards)
            opened = plan.sources("out", low, high)
            assert not low <= key < high or holders[0] in opened
            assert len(opened) <= groups * (-(-ranges // shards) + 1)


@pytest.mark.slow
@given(
    pages=some_pages(),
    spread=st.randoms(use_true_random=False),
    files=st.integers(1, 5),
    groups=st.integers(1, 5),
    ranges=st.integers(1, 3),
    shards=st.integers(1, 3),
    batch_rows=st.integers(1, 4),
)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_shards_are_the_same_from_pieces(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rules: PageRules,
    pages: list[Page],
    spread: random.Random,
    files: int,
    groups: int,
    ranges: int,
    shards: int,
    batch_rows: int,
) -> None:
    assume(groups <= files)
    monkeypatch.setattr(cleaned_files, "_BATCH_ROWS", batch_rows)
    folder = tmp_path_factory.mktemp("merged")
    output = str(folder)
    names = [f"file-{number}" for number in range(files)]
    of_file: dict[str, list[Page]] = {name: [] for name in names}
    for page in pages:
        of_file[spread.choice(names)].append(page)
        if page.number % 4 == 0:  # copies that differ in what is removed: their order shows
            twin = Page(page.key, page.lines, page.gone[::-1], validation=page.validation)
            twin.number = page.number
            of_file[spread.choice(names)].append(twin)
    for name, group in of_file.items():
        write_file(folder, name, group)
    plan = MergePlan(groups, ranges)
    tasks = plan.tasks()
    spread.shuffle(names)
    spread.shuffle(tasks)
    made = [merge_files(task, plan, names, output) for task in tasks]
    assert sorted(made) == sorted(plan.piece(output, task).cleaned for task in tasks)

    held = 0
    for task in tasks:
        with CleanedFile(plan.piece(output, task).cleaned) as piece:
            held += piece.pages
    assert held == sum(map(len, of_file.values()))
    for task in plan_shards(0, shards):
        low, high = task.key_range()
        direct = write_shard(task, cleaned_sources(output, names), output, ["parquet"], rules)
        merged = write_shard(task, plan.sources(output, low, high), output, ["parquet"], rules)
        assert merged.files == direct.files
        assert (merged.pages, merged.lines) == (direct.pages, direct.lines)
        assert merged.pages_dropped == direct.pages_dropped
        assert merged.lines_dropped == direct.lines_dropped


def test_removals_move_with_their_pages(tmp_path: pathlib.Path) -> None:
    first = [Page(9, LINES[:1], [True], number=1), Page(3, LINES, [False, True, False], number=2)]
    second = [Page(5, LINES[:2], [True, False], outdated=True, number=3)]
    write_file(tmp_path, "a", first)
    write_file(tmp_path, "b", second)
    plan = MergePlan(1, 1)
    merge_files(plan.tasks()[0], plan, ["b", "a"], str(tmp_path))
    source = plan.piece(str(tmp_path), plan.tasks()[0])
    with CleanedFile(source.cleaned) as cleaned, Removals(source.removals) as removals:
        [(rows, _, _)] = cleaned.slices(0, 0, 2**64)
        assert rows["page_key"].to_pylist() == [3, 5, 9]
        assert removals.pages(0, 3).tolist() == [False, True, False]
        assert removals.units(0, 6).tolist() == [False, True, False, True, False, True]


def test_a_damaged_file_is_named(tmp_path: pathlib.Path) -> None:
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3)])
    cleaned = pathlib.Path(layout.cleaned(str(tmp_path), "a"))
    content = bytearray(cleaned.read_bytes())
    content[60] ^= 1
    cleaned.write_bytes(content)
    plan = MergePlan(1, 1)
    with pytest.raises(DamagedFileError, match=r"a\.arrow is damaged \(checksum mismatch"):
        merge_files(plan.tasks()[0], plan, ["a"], str(tmp_path))
    assert not (tmp_path / "merged").exists()


def test_files_of_another_build_are_refused(tmp_path: pathlib.Path, rules: PageRules) -> None:
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3)])
    plan, [task] = MergePlan(1, 1), MergePlan(1, 1).tasks()
    with pytest.raises(OtherBuildError, match=r"a\.bin belongs to another build"):
        merge_files(task, plan, ["a"], str(tmp_path), "other")
    merge_files(task, plan, ["a"], str(tmp_path), "")
    [train, _] = plan_shards(0, 1)
    for sources in (cleaned_sources(str(tmp_path), ["a"]), plan.sources(str(tmp_path), 0, 2**64)):
        write_shard(train, sources, str(tmp_path), ["parquet"], rules, "")
        with pytest.raises(OtherBuildError, match="belongs to another build"):
            write_shard(train, sources, str(tmp_path), ["parquet"], rules, "other")
    # Pages and removals that do not fit together.
    write_file(tmp_path, "a", [Page(5, LINES[:2], [False] * 2)])
    pathlib.Path(layout.removals(str(tmp_path), "a")).write_bytes(
        pathlib.Path(plan.piece(str(tmp_path), task).removals).read_bytes()
    )
    with pytest.raises(OtherBuildError, match=r"a\.bin belongs to another build"):
        write_shard(train, cleaned_sources(str(tmp_path), ["a"]), str(tmp_path), ["json"], rules)


@pytest.mark.slow
def test_a_build_of_many_files_is_the_build_of_few(tmp_path: pathlib.Path) -> None:
    draw = np.random.default_rng(0)
    pages = [
        (
            f"http://{number}.example/",
            "2019-04-18T10:00:00Z",
            "\n".join(
                f"The {place} has {count} boats in its harbour this year."
                for place, count in zip(
                    draw.choice(["village", "city", "island", "port"], 6),
                    draw.integers(2, 30, 6),
                    strict=True,
                )
            ),
        )
        for number in range(60)
    ]
    (tmp_path / "many").mkdir()
    (tmp_path / "few").mkdir()
    for number in range(20):
        write_wet(tmp_path / "many" / f"{number:02}.warc.wet.gz", pages[number::20])
    write_wet(tmp_path / "few" / "all.warc.wet.gz", pages)
    assert plan_merge(20, 0, 21) is not None
    shards, merged = [], []
    for name in ("many", "few"):
        out = tmp_path / "out" / name
        inputs = ("--input", tmp_path / name / "*")
        outcome = run_c4("build", *inputs, "--output", out, "--shards", "20", "--workers", "1")
        assert outcome.status == 0, outcome.err
        merged.append((out / "merged").exists())
        shards.append({path.name: path.read_bytes() for path in out.glob("*.parquet")})
        assert not list((out / "merged").glob("*")), "pieces are gone when the shards are there"
    assert shards[0] == shards[1]
    assert len(shards[0]) == 21
    assert merged == [True, False]
