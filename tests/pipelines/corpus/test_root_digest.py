"""The root digest: of what it is made, and that nothing else changes it."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c4_filters.urls import normalize_url, page_key
from pipelines import BuildConfig
from pipelines.corpus.cleaned import key_range
from pipelines.corpus.manifest import Manifest, OlderCorpus, read_manifest, write_manifest
from pipelines.corpus.root_digest import RowDigests, named_by, root_digest, row_digests
from pipelines.finish_corpus import make_manifest
from samples.make_samples import WET_DIR
from testing.helpers import read_corpus, run_c4

SAMPLES = str(WET_DIR / "*")
# Neighbours in one bucket of 2^44 keys, on both sides of bounds of buckets and of shards.
KEYS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 2**44 - 1, 2**44, 2**44 + 1, 2**63 - 1, 2**63, 2**64 - 1]),
    st.integers(2**64 // 3 - 3, 2**64 // 3 + 3),
)
TEXTS = st.text("aé\n\0", max_size=3)
ROWS = st.lists(st.tuples(KEYS, TEXTS, TEXTS, TEXTS), max_size=30)


def naive(rows: list[tuple[int, str, str, str]]) -> str:
    """The definition of docs/growing.md, over all rows of a split at once."""
    buckets: dict[int, list[tuple[int, bytes]]] = {}
    for key, *parts in rows:
        url, stamp, text = (part.encode() for part in parts)
        head = f"{len(url)}\n{len(stamp)}\n".encode()
        digest = hashlib.sha256(head + url + stamp + text).digest()
        buckets.setdefault(key // 2**44, []).append((key, digest))
    total = b""
    for number, found in sorted(buckets.items()):
        joined = b"".join(digest for _, digest in sorted(found))
        total += number.to_bytes(4, "big") + hashlib.sha256(joined).digest()
    return hashlib.sha256(total).hexdigest()


def in_shards(rows: list[tuple[int, str, str, str]], count: int) -> list[RowDigests]:
    ordered = sorted(rows, key=lambda row: row[0])
    parts = []
    for index in range(count):
        low, high = key_range(index, count)
        own = [row for row in ordered if low <= row[0] < high]
        columns = {
            name: pa.array([row[at] for row in own], pa.large_string())
            for at, name in ((1, "url"), (2, "timestamp"), (3, "text"))
        }
        keys = np.array([row[0] for row in own], np.uint64)
        parts.append(row_digests(pa.table(columns), keys, (low, high)))
    return parts


def manifest(**changes: Any) -> Manifest:
    made = make_manifest(BuildConfig(inputs="a", output="b"), [], [])
    return dataclasses.replace(made, **changes)


@given(ROWS, st.sampled_from([1, 2, 3, 7, 64, 4096]))
def test_however_shards_are_cut_the_digest_is_that_of_the_definition(
    rows: list[tuple[int, str, str, str]], count: int
) -> None:
    made = manifest()
    wanted = named_by(made) | {"rows": {"train": naive(rows), "validation": naive([])}}
    content = json.dumps(wanted, sort_keys=True, separators=(",", ":")).encode()
    found = root_digest(made, {"train": in_shards(rows, count), "validation": [RowDigests()]})
    assert found == hashlib.sha256(content).hexdigest()


def test_what_names_a_corpus_and_what_does_not() -> None:
    made = manifest()
    older = OlderCorpus("/old", "f" * 64, "en", "e" * 64)

    def name(made: Manifest, rows: list[tuple[int, str, str, str]] | None = None) -> str:
        parts = in_shards(rows or [], 1)
        return root_digest(made, {"train": parts, "validation": []})

    row = (5, "u", "t", "x")
    listed = dataclasses.replace(made.settings, lists={"--url-list": "0" * 64})
    others = [
        name(made),
        name(made, [row]),
        name(made, [row, row]),
        name(made, [(6, "u", "t", "x")]),  # only order counts
        name(made, [(5, "ut", "", "x")]),
        root_digest(made, {"train": [], "validation": in_shards([row], 1)}),
        name(dataclasses.replace(made, recipe=made.recipe | {"min_sentences": 4})),
        name(dataclasses.replace(made, settings=listed)),
        name(dataclasses.replace(made, against=(older,))),
    ]
    assert others[1] == others.pop(3)
    assert len(set(others)) == len(others)
    same = [
        dataclasses.replace(made, recipe=made.recipe | {"name": "x", "description": "y"}),
        dataclasses.replace(made, versions={"colossal-c4": "9"}),
        dataclasses.replace(
            made, settings=dataclasses.replace(made.settings, formats=("json",), shards=9)
        ),
    ]
    assert {name(each) for each in same} == {name(made)}
    moved = [dataclasses.replace(older, path=path) for path in ("/old", "gs://b/old")]
    assert len({name(dataclasses.replace(made, against=(each,))) for each in moved}) == 1


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """The sample pages in several formats and numbers of shards."""
    folder = tmp_path_factory.mktemp("corpora")
    built = []
    for kind, shards in (("parquet", "1"), ("tfrecord", "5"), ("json", "2")):
        built.append(folder / kind)
        more = ("--format", kind, "--shards", shards, "--workers", "1")
        outcome = run_c4("build", "--input", SAMPLES, "--output", built[-1], *more)
        assert outcome.status == 0, outcome.err
        assert f"root digest: {read_manifest(str(built[-1])).root_digest}\n" in outcome.out
    return built


@pytest.mark.slow
def test_builds_of_any_format_and_number_of_shards_have_one_name(
    corpora: list[pathlib.Path],
) -> None:
    [found] = {read_manifest(str(corpus)).root_digest for corpus in corpora}
    rows = {
        split: [
            (page_key(normalize_url(page["url"])), page["url"], page["timestamp"], page["text"])
            for page in pages
        ]
        for split, pages in read_corpus(corpora[0]).items()
    }
    parts = named_by(read_manifest(str(corpora[0])))
    parts |= {"rows": {split: naive(pages) for split, pages in rows.items()}}
    content = json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()
    assert found == hashlib.sha256(content).hexdigest()
    for corpus in corpora:
        outcome = run_c4("verify", corpus)
        assert outcome.status == 0, outcome.out


@pytest.mark.slow
def test_verify_finds_a_name_of_other_pages(corpora: list[pathlib.Path]) -> None:
    folder = str(corpora[0])
    made = read_manifest(folder)
    write_manifest(folder, dataclasses.replace(made, root_digest="0" * 64))
    outcome = run_c4("verify", folder)
    assert outcome.status == 1
    wanted = f"manifest.json has root digest {'0' * 64}, not {made.root_digest}\n"
    assert outcome.out.startswith(wanted)
    # A build that checks everything writes the corpus again.
    again = ("build", "--input", SAMPLES, "--output", folder, "--shards", "1", "--workers", "1")
    assert run_c4(*again, "--verify").status == 0
    assert read_manifest(folder).root_digest == made.root_digest
    # A corpus of an earlier version has no name, and gets one.
    write_manifest(folder, dataclasses.replace(made, root_digest=""))
    assert "root_digest" not in json.loads((corpora[0] / "manifest.json").read_text())
    assert run_c4("verify", folder).status == 0
    outcome = run_c4(*again)
    assert (outcome.status, "complete already" in outcome.out) == (0, True)
    assert read_manifest(folder).root_digest == made.root_digest
