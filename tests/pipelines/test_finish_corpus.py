import dataclasses
import json
import os
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c4_filters.recipes import RECIPES
from pipelines import builders, corpus_folder, finish_corpus, storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import shard_file_name
from pipelines.corpus.manifest import Manifest, ShardFile, ShownPage, read_manifest
from pipelines.corpus.root_digest import RowDigests
from pipelines.corpus_folder import FolderError, claim_folder
from pipelines.finish_corpus import BalanceError, make_manifest
from pipelines.input_list import write_input_list
from pipelines.stages.clean_files import FileSummary
from pipelines.stages.write_shards import ShardSummary


def config_for(folder: pathlib.Path, **changes: Any) -> BuildConfig:
    values = {"inputs": ("a*",), "output": str(folder / "out"), "recipe": RECIPES["en"], **changes}
    return BuildConfig(**values)


def file(path: str, **values: Any) -> FileSummary:
    values = {"bytes": 10, "sha256": "00", **values}
    return FileSummary(path=path, name=layout.file_name(path), **values)


def shard(split: str, index: int, count: int, formats: tuple[str, ...] = ("parquet",), **values: Any
) -> ShardSummary:  # fmt: skip
    files = tuple(
        ShardFile(
            shard_file_name(split, index, count, name), split, name, values.get("pages", 0), 3,
            "f" * 64,
        )
        for name in formats
    )  # fmt: skip
    empty: dict[str, Any] = {
        "pages": 0, "lines": 0, "text_bytes": 0, "pages_dropped": {}, "lines_dropped": {},
        "samples": {}, "kept_page": None, "cpu_s": 0.5, "rows": RowDigests(),
        "languages": {}, "dates": (),
    }  # fmt: skip
    return ShardSummary(split=split, index=index, count=count, files=files, **(empty | values))


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def names(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------- claiming


def test_a_folder_is_claimed_once_and_again_by_the_same_build(tmp_path: pathlib.Path) -> None:
    config = config_for(tmp_path)
    claim_folder(config, start_over=False)
    assert names(tmp_path / "out") == ["build.json"]
    saved = (tmp_path / "out" / "build.json").read_bytes()
    assert json.loads(saved) == {
        "made_by": "colossal-c4",
        **json.loads(json.dumps(config.identity)),
    }
    claim_folder(dataclasses.replace(config, inputs=("b", "c")), start_over=False)
    assert (tmp_path / "out" / "build.json").read_bytes() == saved


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe": RECIPES["de"]}, "recipe.name is 'en' there and 'de' now (and "),
        (
            {"recipe": dataclasses.replace(RECIPES["en"], min_sentences=4)},
            ": recipe.min_sentences is 3 there and 4 now;",
        ),
        ({"formats": ("json",)}, ": formats is ['parquet'] there and ['json'] now;"),
        ({"shards": 8}, ": shards is 'auto' there and 8 now;"),
        ({"max_record_bytes": 5}, ": max_record_bytes is 67108864 there and 5 now;"),
    ],
)
def test_other_settings_are_refused_by_name(
    tmp_path: pathlib.Path, changes: dict[str, Any], words: str
) -> None:
    claim_folder(config_for(tmp_path), start_over=False)
    before = (tmp_path / "out" / "build.json").read_bytes()
    with pytest.raises(FolderError) as raised:
        claim_folder(config_for(tmp_path, **changes), start_over=False)
    message = str(raised.value)
    assert words in message
    assert "--start-over" in message
    assert "\n" not in message
    assert (tmp_path / "out" / "build.json").read_bytes() == before
    claim_folder(config_for(tmp_path, **changes), start_over=True)
    claim_folder(config_for(tmp_path, **changes), start_over=False)


def test_another_word_list_is_another_build(tmp_path: pathlib.Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("darn\n")
    config = {"badwords": (("en", str(words)),)}
    claim_folder(config_for(tmp_path, **config), start_over=False)
    claim_folder(config_for(tmp_path, **config), start_over=False)
    words.write_text("darn\nheck\n")
    with pytest.raises(FolderError, match=r"lists\.--badwords en is '[0-9a-f]{64}' there"):
        claim_folder(config_for(tmp_path, **config), start_over=False)
    with pytest.raises(FolderError, match="there and None now"):
        claim_folder(config_for(tmp_path), start_over=False)


def claimed(out: pathlib.Path) -> None:
    """Leaves what a build leaves when its launcher is killed."""
    with builders.hold(str(out)):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1]", b"null", b'"en"'])
def test_a_damaged_record_is_refused(out: pathlib.Path, content: bytes) -> None:
    claimed(out)
    (out / "build.json").write_bytes(content)
    with pytest.raises(FolderError, match=r"build\.json is damaged: .*--start-over"):
        claim_folder(config_for(out.parent), start_over=False)
    assert (out / "build.json").read_bytes() == content
    claim_folder(config_for(out.parent), start_over=True)
    claim_folder(config_for(out.parent), start_over=False)


def of_0_1(folder: pathlib.Path, **changes: Any) -> dict[str, Any]:
    """The build.json of version 0.1."""
    return dict(json.loads(json.dumps(config_for(folder, **changes).identity)))


@pytest.mark.parametrize("start_over", [False, True])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{}", b'{"made_by": "setuptools"}', b'{"name": "my site", "version": "1.0"}',
     b'{"recipe": {"name": "apple pie"}, "formats": ["pdf"]}'],
)  # fmt: skip
def test_the_build_json_of_something_else_is_refused(
    out: pathlib.Path, content: bytes, start_over: bool
) -> None:
    for name in ("README.md", "features.json", "mine.txt"):
        (out / name).write_text("mine")
    (out / "build.json").write_bytes(content)
    before = names(out)
    with pytest.raises(
        FolderError, match=r"files that c4 build did not write: its build\.json was"
    ) as raised:
        claim_folder(config_for(out.parent), start_over)
    assert "--start-over" not in str(raised.value)
    assert names(out) == before
    assert (out / "build.json").read_bytes() == content


def test_a_folder_of_version_0_1_is_ours(out: pathlib.Path) -> None:
    (out / "build.json").write_text(json.dumps(of_0_1(out.parent)))
    claim_folder(config_for(out.parent), start_over=False)
    assert json.loads((out / "build.json").read_bytes())["made_by"] == "colossal-c4"
    (out / "build.json").write_text(json.dumps(of_0_1(out.parent, shards=7)))
    with pytest.raises(FolderError, match="shards is 7 there"):
        claim_folder(config_for(out.parent), start_over=False)


def test_a_folder_of_version_0_1_knew_no_end_marks(out: pathlib.Path) -> None:
    content = of_0_1(out.parent)
    del content["recipe"]["end_marks"]
    (out / "build.json").write_text(json.dumps(content))
    claim_folder(config_for(out.parent), start_over=False)
    (out / "build.json").write_text(json.dumps(content))
    with pytest.raises(FolderError, match=r"recipe\.name is 'en' there"):
        claim_folder(config_for(out.parent, recipe=RECIPES["zh"]), start_over=False)


@pytest.mark.parametrize("side_files", [{"README.md": 5}, {"README.md": "abc"}, [1], 5, None])
def test_a_damaged_record_of_what_was_written_lists_nothing(
    out: pathlib.Path, side_files: object
) -> None:
    whole_folder(out)
    (out / "manifest.json").unlink()
    record = {"shards": ["../*", 3], "side_files": side_files}
    (out / "builders" / "written.json").write_text(json.dumps(record))
    claim_folder(config_for(out.parent, formats=("json",)), start_over=True)
    assert {"README.md", "features.json", "dataset_info.json"} <= set(names(out))


def test_a_folder_of_something_else_is_refused(out: pathlib.Path) -> None:
    (out / "thesis.tex").write_text("x")
    with pytest.raises(FolderError, match=r"did not write, such as thesis\.tex"):
        claim_folder(config_for(out.parent), start_over=False)
    assert names(out) == ["thesis.tex"]


def test_an_empty_folder_and_a_fresh_disk_are_fine(out: pathlib.Path) -> None:
    (out / "lost+found").write_bytes(b"")
    claim_folder(config_for(out.parent), start_over=False)
    assert names(out) == ["build.json", "lost+found"]


README_OF_0_1 = """---
configs: [{"config_name": "en"}]
dataset_info: {"config_name": "en"}
---
# c4/en

C4-style corpus, recipe en: The paper's C4

| split | pages |
|---|---|
| train | 1,234 |

```python
import datasets
datasets.load_dataset("PATH/OF/THIS/FOLDER")
```
"""
INPUT = "/crawl/a.warc.wet.gz"
NAME = layout.file_name(INPUT)
OWN = [
    "manifest.json", "dataset_info.json", "features.json", "croissant.json", "README.md",
    "inputs.jsonl",
    "train-00000-of-00001.parquet", "validation-00000-of-00001.parquet",
    "train-00001-of-00003.parquet",
    f"cleaned/{NAME}.arrow", f"cleaned/{NAME}.started",
    f"fingerprints/{NAME}.arrow", f"removals/{NAME}.bin", f"rejects/{NAME}.jsonl",
    f"cleaned/.{NAME}.arrow.tmp-00112233445566778899aabbccddeeff",
    f"merged/{layout.piece_name(0, 1, 0, 1)}.bin",
]  # fmt: skip
STRANGERS = [
    "notes.txt", "train.parquet", "train-00000-of-00002.parquet.bak", "test-00000-of-00002.parquet",
    "train-00003-of-00009.parquet", "train-00000-of-00001.json.gz",
    "cleaned/notes.txt", "mine/build.json", "cleaned/deeper/a.arrow", "rejects/solved.md",
    "cleaned/mine.arrow", "cleaned/mine-01234567.arrow", "removals/model.bin", "merged/mine.arrow",
    "fingerprints/of-deadbeef.arrow", "rejects/mine-0123456789abcdef.jsonl", "cleaned/mine.started",
]  # fmt: skip


def whole_folder(out: pathlib.Path) -> BuildConfig:
    """A finished corpus, shards that an unfinished build wrote before, and a user's own files."""
    config = config_for(out.parent)
    claimed(out)
    claim_folder(config, start_over=False)
    write_input_list(config.output, [storage.FileInfo(INPUT, 10)])
    corpus_folder.plan_files(config.output, ["train-00001-of-00003.parquet"])
    corpus_folder.plan_files(config.output, ["train-00000-of-00001.parquet"])
    finish(config, ("parquet",))
    for name in OWN + STRANGERS:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if not (out / name).exists():
            (out / name).write_text(INPUT)
    return config


def without_builders(folder: pathlib.Path) -> list[str]:
    return [name for name in names(folder) if not name.startswith("builders/")]


def test_starting_over_removes_what_builds_wrote_and_nothing_else(out: pathlib.Path) -> None:
    config = whole_folder(out)
    assert set(OWN + STRANGERS) < set(names(out))
    claim_folder(dataclasses.replace(config, shards=2), start_over=True)
    assert without_builders(out) == sorted([*STRANGERS, "build.json"])
    assert json.loads((out / "build.json").read_bytes())["shards"] == 2
    claim_folder(dataclasses.replace(config, shards=3), start_over=True)
    assert without_builders(out) == sorted([*STRANGERS, "build.json"])


def test_starting_over_knows_the_files_of_version_0_1(out: pathlib.Path) -> None:
    config = whole_folder(out)
    for path in (out / "builders").iterdir():
        path.unlink()
    made = json.loads((out / "manifest.json").read_bytes())
    del made["side_files"]
    (out / "manifest.json").write_text(json.dumps(made))
    (out / "build.json").write_text(json.dumps(of_0_1(out.parent)))
    (out / "inputs.jsonl").write_text(f'["{INPUT}", 10]\n')
    (out / "train-00001-of-00003.parquet").unlink()  # 0.1 has no record of unfinished builds
    (out / "croissant.json").unlink()  # 0.1 did not write it
    (out / "README.md").write_text(README_OF_0_1)
    claim_folder(dataclasses.replace(config, shards=2), start_over=True)
    assert without_builders(out) == sorted([*STRANGERS, "build.json"])


@pytest.mark.parametrize("start_over", [False, True])
def test_the_users_own_readme_stays(out: pathlib.Path, start_over: bool) -> None:
    config = whole_folder(out)
    (out / "README.md").write_text("# My corpus\n")
    claim_folder(config, start_over)
    corpus_folder.begin(str(out))
    made = finish(config, ("parquet",))
    assert (out / "README.md").read_text() == "# My corpus\n"
    listed = ["features.json", "dataset_info.json", "croissant.json", "CARD.md"]
    assert [file.name for file in made.side_files or ()] == listed
    (out / "README.md").unlink()
    made = finish(config, ("parquet",))
    assert "# c4/en" in (out / "README.md").read_text()
    assert len(made.side_files or ()) == 4
    assert not (out / "CARD.md").exists()


def test_a_foreign_file_in_the_place_of_a_shard_is_not_overwritten(out: pathlib.Path) -> None:
    config = config_for(out.parent)
    claim_folder(config, start_over=False)
    planned = [f"train-{index:05}-of-00009.parquet" for index in range(9)]
    (out / planned[4]).write_text("mine")
    with pytest.raises(OSError, match=r"train-00004-of-00009\.parquet has the name of a shard of"):
        corpus_folder.plan_files(str(out), planned)
    (out / planned[4]).unlink()
    corpus_folder.plan_files(str(out), planned)
    (out / planned[4]).write_text("ours")
    corpus_folder.plan_files(str(out), planned)  # as in a retry


def test_the_mark_of_completeness_goes_first(
    out: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = whole_folder(out)
    removed = []

    def fails_after_one(path: str) -> None:
        removed.append(os.path.basename(path))
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "remove", fails_after_one)
    with pytest.raises(PermissionError):
        claim_folder(config, start_over=True)
    assert removed == ["manifest.json"]


def test_beginning_takes_back_the_mark_and_sweeps_leftovers(out: pathlib.Path) -> None:
    left = ".x.parquet.tmp-00112233445566778899aabbccddeeff"
    for name in ("manifest.json", left, f"cleaned/{left}", "cleaned/a.arrow"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)
    corpus_folder.begin(str(out))
    assert names(out) == ["cleaned/a.arrow"]
    corpus_folder.begin(str(out))


# ------------------------------------------------------------------------------------ adding up


def whole_build() -> tuple[list[FileSummary], list[ShardSummary]]:
    files = [
        file("/b", pages_read=5, pages_kept=4, lines_read=50, lines_kept=40, cpu_s=1.25,
             pages_dropped={"no_text": 1}, lines_dropped={"no_end_mark": 10}, resumed=True,
             records_of_other_types={"warcinfo": 1}),
        file("/a", pages_read=3, pages_kept=3, lines_read=9, lines_kept=9, cpu_s=1.0,
             wrong_lengths=3, records_of_other_types={"resource": 2, "warcinfo": 1},
             records_rejected={"no_url": 2}),
        file("/c", unreadable="it is empty"),
    ]  # fmt: skip
    shards = [
        shard("validation", 0, 1, pages=1, lines=9, text_bytes=90),
        shard("train", 1, 2, pages=4, lines=31, text_bytes=500,
              lines_dropped={"duplicate": 2}, kept_page=ShownPage("u", "t")),
        shard("train", 0, 2, pages_dropped={"duplicate_url": 2},
              lines_dropped={"on_dropped_page": 6, "duplicate": 1}),
    ]  # fmt: skip
    return files, shards


def test_a_build_adds_up(tmp_path: pathlib.Path) -> None:
    files, shards = whole_build()
    whole = make_manifest(config_for(tmp_path, shards=2), files, shards)
    made = whole.as_dict()
    assert made["counts"] == {
        "files_read": 2,
        "files_unreadable": 1,
        "pages_read": 8,
        "pages_written": 5,
        "pages_dropped": {"duplicate_url": 2, "no_text": 1},
        "lines_read": 59,
        "lines_written": 40,
        "lines_dropped": {"duplicate": 3, "no_end_mark": 10, "on_dropped_page": 6},
        "records_rejected": 2,
        "records_of_other_types": {"resource": 2, "warcinfo": 2},
        "records_of_wrong_length": 3,
        "records_rejected_by_reason": {"no_url": 2},
    }
    assert [found["path"] for found in made["inputs"]] == ["/a", "/b"]
    assert made["unreadable_inputs"] == [
        {"path": "/c", "bytes": 10, "identity": "", "error": "it is empty"}
    ]
    assert made["splits"] == {
        "train": {"pages": 4, "text_bytes": 500},
        "validation": {"pages": 1, "text_bytes": 90},
    }
    assert [found["name"] for found in made["shards"]] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    ]
    assert made["kept_page"] == {"url": "u", "text": "t"}
    assert made["timing"] == {"clean_cpu_s": 2.25, "write_cpu_s": 1.5, "files_resumed": 1}
    assert made["settings"]["shards"] == 2
    assert set(made["settings"]).isdisjoint({"recipe", "versions"})
    # In whatever order workers report.
    assert make_manifest(config_for(tmp_path, shards=2), files[::-1], shards[::-1]) == whole


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_whatever_is_lost_is_noticed(data: st.DataObject) -> None:
    files, shards = whole_build()
    config = config_for(pathlib.Path("/nowhere"))
    parts: list[Any] = [*files[:2], *shards]
    part = data.draw(st.sampled_from(parts))
    kept = isinstance(part, FileSummary)
    field = data.draw(
        st.sampled_from(
            ["pages_read", "lines_read", "pages_dropped", "lines_dropped"]
            if kept
            else ["pages", "lines", "pages_dropped", "lines_dropped"]
        )
    )
    change = data.draw(st.integers(-3, 3))
    value = getattr(part, field)
    changed = {**value, "other": change} if isinstance(value, dict) else value + change
    replaced = dataclasses.replace(part, **{field: changed})
    files = [replaced if each is part else each for each in files]
    shards = [replaced if each is part else each for each in shards]
    if change:
        what = "pages" if field.startswith("pages") else "lines"
        with pytest.raises(BalanceError, match=rf"^{what} do not balance: read \d+, written"):
            make_manifest(config, files, shards)
    else:
        make_manifest(config, files, shards)


def test_samples_are_few_and_the_same_in_any_order(tmp_path: pathlib.Path) -> None:
    def sampled(path: str, urls: list[str]) -> FileSummary:
        return file(path, samples={"no_text": [{"url": url} for url in urls]})

    files = [sampled("/a", ["9", "1", "5"]), sampled("/b", ["2", "8"]), sampled("/c", ["3", "7"])]
    for order in (files, files[::-1]):
        made = make_manifest(config_for(tmp_path), order, [shard("train", 0, 1)])
        assert [page["url"] for page in made.samples["no_text"]] == ["1", "2", "3", "5", "7"]


# ------------------------------------------------------------------------------------ finishing


def finish(config: BuildConfig, formats: tuple[str, ...]) -> Manifest:
    shards = [shard("train", 0, 1, formats), shard("validation", 0, 1, formats)]
    made = make_manifest(config, [file("/a")], shards)
    for entry in made.shards:
        (pathlib.Path(config.output) / entry.name).write_bytes(b"abc")
    return finish_corpus.finish_corpus(config.output, made)


def test_finishing_removes_shards_of_earlier_builds_only(out: pathlib.Path) -> None:
    stale = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    corpus_folder.plan_files(str(out), stale)
    foreign = ["notes.txt", "train-of-thought.parquet", "train-00003-of-00009.parquet"]
    for name in [*stale, *foreign]:
        (out / name).write_text("old")
    made = finish(config_for(out.parent), ("parquet",))
    described = {"README.md", "dataset_info.json", "features.json", "croissant.json"}
    described.add("builders/written.json")
    assert described <= set(names(out))
    assert sorted(set(names(out)) - described) == [
        "manifest.json",
        "notes.txt",
        "train-00000-of-00001.parquet",
        "train-00003-of-00009.parquet",
        "train-of-thought.parquet",
        "validation-00000-of-00001.parquet",
    ]
    assert read_manifest(str(out)) == made


def test_what_tfds_reads_describes_the_tfrecord_shards_where_there_are_some(
    out: pathlib.Path,
) -> None:
    finish(config_for(out.parent, formats=("json", "tfrecord")), ("json", "tfrecord"))
    text = (out / "dataset_info.json").read_text()
    assert "recipe en" in json.loads(text)["description"]
    assert "json.gz" not in text


def test_the_manifest_is_the_last_thing_written(
    out: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(finish_corpus, "write_side_files", fails)
    with pytest.raises(OSError, match="No space"):
        finish(config_for(out.parent, formats=("tfrecord",)), ("tfrecord",))
    assert "manifest.json" not in names(out)


def test_a_build_that_lost_its_folder_publishes_no_manifest(out: pathlib.Path) -> None:
    config = config_for(out.parent)
    shards = [shard("train", 0, 1), shard("validation", 0, 1)]
    made = make_manifest(config, [file("/a")], shards)
    with builders.hold(str(out)) as claim:
        pass
    with builders.hold(str(out)), pytest.raises(OSError, match="another build has taken"):
        finish_corpus.finish_corpus(config.output, made, lambda: claim.require(now=True))
    assert without_builders(out) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has no manifest.json: it is not a corpus, or its build has not finished"),
        (b"", "damaged"),
        (b'{"manifest_version": 1', "damaged"),
        (b"\xff\xfe", "damaged"),
        (b"[]", "not a JSON object"),
        (b"{}", "is damaged: shards must be of type list, got None"),
        (b'{"shards": []}', "has no manifest_version: it describes text that c4 build did not"),
        (b'{"manifest_version": 2}', "has manifest_version 2, and this version of c4 reads 1"),
    ],
)
def test_a_corpus_without_a_good_manifest_is_refused_in_one_line(
    out: pathlib.Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (out / "manifest.json").write_bytes(content)
    with pytest.raises(CorpusError) as raised:
        read_manifest(str(out))
    assert words in str(raised.value)
    assert str(out) in str(raised.value)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------- read, of anyone


@pytest.mark.parametrize("name", ["model.bin", "table.arrow", "group-1-of-2-range-3-of-4.bin"])
def test_strangers_in_the_folder_of_pieces_stay(out: pathlib.Path, name: str) -> None:
    piece = layout.piece_name(0, 1, 0, 1)
    (out / "merged").mkdir()
    for own in (f"{piece}.arrow", f"{piece}.bin", f".{piece}.bin.tmp-{'0' * 32}", name):
        (out / "merged" / own).write_text("x")
    with pytest.raises(FolderError, match="did not write, such as merged/"):
        claim_folder(config_for(out.parent), start_over=False)
    corpus_folder.begin(str(out))
    assert names(out) == [f"merged/{name}"]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("counts", {}), ("counts", None), ("splits", []), ("splits", {"train\x1b": {}}),
        ("timing", None), ("kept_page", 3), ("kept_page", {"url": 3, "text": ""}),
        ("unreadable_inputs", [3]), ("inputs", None), ("shards", [{"name": 1}]),
    ],
)  # fmt: skip
def test_sections_of_another_kind_are_damage(
    out: pathlib.Path, section: str, value: object
) -> None:
    config = config_for(out.parent)
    made = make_manifest(config, *whole_build()).as_dict()
    (out / "manifest.json").write_text(json.dumps(made))
    read_manifest(str(out))
    (out / "manifest.json").write_text(json.dumps(made | {section: value}))
    with pytest.raises(CorpusError, match=r"manifest\.json is damaged: "):
        read_manifest(str(out))
