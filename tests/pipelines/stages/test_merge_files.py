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
from pipelines.corpus import layout, pieces
from pipelines.corpus.container import DamagedFileError
from pipelines.corpus.pieces import PiecePart, read_part
from pipelines.corpus.removals import OtherBuildError
from pipelines.stages import merge_files as merging
from pipelines.stages.merge_files import (
    MergePlan,
    MergeTask,
    cleaned_sources,
    merge_files,
    plan_merge,
)
from pipelines.stages.write_shards import ShardTask, plan_shards, write_shard
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
def test_a_plan_makes_fewest_requests(files: int, text_bytes: int, shards: int) -> None:
    plan = plan_merge(files, text_bytes, shards)
    size = min(max(128 << 20, -(-text_bytes // 2048)), 512 << 20)
    pieces = max(1, -(-text_bytes // size))
    ranges = np.arange(1, min(pieces, shards) + 1)
    groups = np.minimum(files, np.maximum(-(-pieces // ranges), -(-files // 1000)))
    least = (3 * files * ranges + shards * groups).min()
    if plan is None:
        assert not files or 3 * files * shards < 16 * least
        return
    assert 3 * files * plan.ranges + shards * plan.groups == least
    assert 1 <= plan.groups <= files <= 1000 * plan.groups
    assert 1 <= plan.ranges <= shards
    assert 3 * files * shards >= 16 * least
    # No piece is over the size, but where a file or a shard alone would be.
    assert (
        text_bytes / (plan.groups * plan.ranges) <= size
        or plan.groups == files
        or plan.ranges == shards
    )


@pytest.mark.parametrize(
    ("files", "gigabytes", "shards", "merged"),
    [(0, 0, 1, False), (1, 1, 16, False), (13, 0.1, 3, False), (100, 2.5, 40, False),
     (400, 10, 160, True), (56_000, 1400, 22_000, True)],
)  # fmt: skip
def test_few_files_are_left_as_they_are(
    files: int, gigabytes: float, shards: int, merged: bool
) -> None:
    assert (plan_merge(files, int(gigabytes * 2**30), shards) is not None) == merged


@given(files=st.integers(1, 40), groups=st.integers(1, 40), ranges=st.integers(1, 9),
       shards=st.integers(1, 20))  # fmt: skip
def test_every_file_and_every_shard_is_in_one_piece(
    files: int, groups: int, ranges: int, shards: int
) -> None:
    assume(groups <= files)
    plan = MergePlan(groups, ranges)
    names = [f"{number:02}" for number in range(files)]
    assert list(itertools.chain(*(plan.files_of(group, names) for group in range(groups)))) == names
    assert len({plan.piece("out", task) for task in plan.tasks()}) == groups * ranges
    for group in range(groups):
        tasks = [task for task in plan.tasks() if task.group == group]
        found = itertools.chain(*(plan.shards_of(task, shards) for task in tasks))
        assert list(found) == list(range(shards))


@pytest.mark.slow
@given(
    some=some_pages(),
    spread=st.randoms(use_true_random=False),
    files=st.integers(1, 5),
    groups=st.integers(1, 5),
    ranges=st.integers(1, 3),
    shards=st.integers(1, 3),
    batch_rows=st.integers(1, 4),
    sorted_bytes=st.sampled_from([2_000, 1 << 20]),
)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_shards_are_the_same_from_pieces(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rules: PageRules,
    some: list[Page],
    spread: random.Random,
    files: int,
    groups: int,
    ranges: int,
    shards: int,
    batch_rows: int,
    sorted_bytes: int,
) -> None:
    assume(groups <= files)
    monkeypatch.setattr(cleaned_files, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(merging, "SORTED_BYTES", sorted_bytes)
    monkeypatch.setattr(pieces, "_SECTION_TEXT_BYTES", 200)
    folder = tmp_path_factory.mktemp("merged")
    output = str(folder)
    names = [f"file-{number}" for number in range(files)]
    of_file: dict[str, list[Page]] = {name: [] for name in names}
    for page in some:
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
    planned = plan_shards(0, shards)
    parts = made_parts(tasks, plan, names, planned, output)
    assert {part.path for of_shard in parts.values() for part in of_shard} <= {
        plan.piece(output, task) for task in tasks
    }
    held = sum(len(rows) for part in itertools.chain(*parts.values())
               for rows, *_ in read_part(part))  # fmt: skip
    assert held == sum(map(len, of_file.values()))
    for number, task in enumerate(planned):
        direct = write_shard(task, cleaned_sources(output, names), output, ["parquet"], rules)
        merged = write_shard(task, parts[number], output, ["parquet"], rules)
        assert merged.files == direct.files
        assert (merged.pages, merged.lines) == (direct.pages, direct.lines)
        assert merged.pages_dropped == direct.pages_dropped
        assert merged.lines_dropped == direct.lines_dropped


def made_parts(
    tasks: list[MergeTask],
    plan: MergePlan,
    names: list[str],
    planned: list[ShardTask],
    output: str,
) -> dict[int, list[PiecePart]]:
    """Make all pieces; return the parts of each shard, in the order of their groups."""
    parts: dict[int, list[PiecePart]] = {number: [] for number in range(len(planned))}
    for task in tasks:
        for number, part in merge_files(task, plan, names, planned, output):
            parts[number].append(part)
    return {number: sorted(of_shard) for number, of_shard in parts.items()}


def test_removals_move_with_their_pages_and_copies_keep_the_order_of_their_files(
    tmp_path: pathlib.Path,
) -> None:
    first = [
        Page(9, LINES[:1], [True], number=1),
        Page(3, LINES, [False, True, False], number=2),
        Page(5, LINES[:2], [False, True], number=3),
    ]
    second = [Page(5, LINES[:2], [True, False], outdated=True, number=3)]
    write_file(tmp_path, "a", first)
    write_file(tmp_path, "b", second)
    plan = MergePlan(1, 1)
    [(_, part)] = merge_files(plan.tasks()[0], plan, ["b", "a"], plan_shards(0, 1), str(tmp_path))
    [(rows, codes, gone, _)] = read_part(PiecePart.unpacked(part.packed()))
    assert rows["page_key"].to_pylist() == [3, 5, 5, 9]
    assert codes.tolist() == [0, 0, 1, 0]
    assert gone.tolist() == [False, True, False, False, True, True, False, True]


def test_a_damaged_file_is_named(tmp_path: pathlib.Path) -> None:
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3)])
    cleaned = pathlib.Path(layout.cleaned(str(tmp_path), "a"))
    content = bytearray(cleaned.read_bytes())
    content[60] ^= 1
    cleaned.write_bytes(content)
    plan = MergePlan(1, 1)
    with pytest.raises(DamagedFileError, match=r"a\.arrow is damaged \(checksum mismatch"):
        merge_files(plan.tasks()[0], plan, ["a"], plan_shards(0, 1), str(tmp_path))
    assert not list((tmp_path / "merged").iterdir())


def test_files_of_another_build_are_refused(tmp_path: pathlib.Path, rules: PageRules) -> None:
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3)])
    plan, [task] = MergePlan(1, 1), MergePlan(1, 1).tasks()
    planned = plan_shards(0, 1)
    with pytest.raises(OtherBuildError, match=r"a\.bin belongs to another build"):
        merge_files(task, plan, ["a"], planned, str(tmp_path), "other")
    [(_, part)] = merge_files(task, plan, ["a"], planned, str(tmp_path), "")
    sources = cleaned_sources(str(tmp_path), ["a"])
    write_shard(planned[0], sources, str(tmp_path), ["parquet"], rules, "")
    with pytest.raises(OtherBuildError, match="belongs to another build"):
        write_shard(planned[0], sources, str(tmp_path), ["parquet"], rules, "other")
    # A piece that another build has written since is not the one that a shard was told of.
    write_file(tmp_path, "a", [Page(5, LINES[:2], [False] * 2)])
    merge_files(task, plan, ["a"], planned, str(tmp_path), "")
    with pytest.raises(DamagedFileError, match="is damaged"):
        write_shard(planned[0], [part], str(tmp_path), ["json"], rules)
    piece = pathlib.Path(plan.piece(str(tmp_path), task))
    piece.write_bytes(piece.read_bytes()[:100])
    with pytest.raises(DamagedFileError, match="it ends early"):
        write_shard(planned[0], [part], str(tmp_path), ["json"], rules)
    # Pages and removals that do not fit together.
    page_file = pathlib.Path(layout.cleaned(str(tmp_path), "a")).read_bytes()
    write_file(tmp_path, "a", [Page(5, LINES, [False] * 3)])
    pathlib.Path(layout.cleaned(str(tmp_path), "a")).write_bytes(page_file)
    with pytest.raises(OtherBuildError, match=r"a\.bin belongs to another build"):
        write_shard(planned[0], sources, str(tmp_path), ["json"], rules)


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
        for number in range(72)
    ]
    (tmp_path / "many").mkdir()
    (tmp_path / "few").mkdir()
    for number in range(24):
        write_wet(tmp_path / "many" / f"{number:02}.warc.wet.gz", pages[number::24])
    write_wet(tmp_path / "few" / "all.warc.wet.gz", pages)
    assert plan_merge(24, 0, 25) is not None
    shards, merged = [], []
    for name in ("many", "few"):
        out = tmp_path / "out" / name
        inputs = ("--input", tmp_path / name / "*")
        outcome = run_c4("build", *inputs, "--output", out, "--shards", "24", "--workers", "1")
        assert outcome.status == 0, outcome.err
        merged.append((out / "merged").exists())
        shards.append({path.name: path.read_bytes() for path in out.glob("*.parquet")})
        assert not list((out / "merged").glob("*")), "pieces are gone when the shards are there"
    assert shards[0] == shards[1]
    assert len(shards[0]) == 25
    assert merged == [True, False]
