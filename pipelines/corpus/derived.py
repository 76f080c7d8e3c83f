"""Corpora made of pages of other corpora: mixtures and first parts.

Their shards, manifest and side files are those of a build, so that whatever opens a corpus opens
them. They have no kept files: nothing of them was cleaned.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipelines import builders, storage
from pipelines.corpus import json_files, layout
from pipelines.corpus.card.side_files import side_files
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.formats import format_named
from pipelines.corpus.formats.pages import LANGUAGE_FEATURES, TEXT_FEATURES, Page
from pipelines.corpus.manifest import (
    CORPORA,
    Counts,
    InputFile,
    Manifest,
    OwnText,
    Settings,
    ShardFile,
    SideFile,
    SplitSums,
    Timing,
    read_manifest,
    write_manifest,
)
from pipelines.corpus.reading import Corpus
from pipelines.corpus.shard_files import Described, write_shard_files

_TEXT_BYTES_PER_SHARD = 64 << 20  # as builds that are not large
_MOST_SHARDS = 4096
_MARK = "made_by"


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split to write: its pages, in their order, and their sums, which decide its shards."""

    pages: Callable[[], Iterator[Page]]
    count: int
    text_bytes: int
    lines: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A corpus to write.

    Attributes:
        settings: What it depends on besides its inputs: ``name``, ``description`` and more, which
            stand in the manifest in the place of a recipe.
        versions: Of packages that can change its pages.
        inputs: The corpora, see `input_of`.
        splits: "train" and "validation".
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    inputs: tuple[InputFile, ...]
    splits: dict[str, SplitPlan]


def input_of(corpus: Corpus) -> InputFile:
    """Return the entry of a corpus among the inputs of another; its pages are not counted yet."""
    made = corpus.manifest
    shards = [
        (shard.name, shard.pages, "" if isinstance(made, OwnText) else getattr(shard, "sha256", ""))
        for shard in made.shards
    ]
    digest = hashlib.sha256(json.dumps(sorted(shards)).encode()).hexdigest()
    return InputFile(corpus.folder, sum(shard.bytes or 0 for shard in made.shards), digest)


def finished(
    output: str,
    settings: dict[str, Any],
    inputs: Sequence[InputFile],
    formats: Sequence[str],
) -> Manifest | None:
    """Return the manifest of the same corpus if it is there already, whole by names and sizes.

    Raises:
        CorpusError: The folder holds something else.
    """
    wanted = _mark(settings, inputs, formats)
    found = json_files.read_object(storage.join(output, layout.BUILD))
    if found is None:
        if names := storage.listdir(output):
            raise CorpusError(
                f"{output} holds other files, such as {names[0]}: give a new or empty folder "
                "(--output)"
            )
        return None
    if found != wanted:
        raise CorpusError(
            f"{output} holds a corpus of other settings or inputs: give another folder (--output)"
        )
    if not storage.exists(storage.join(output, layout.MANIFEST)):
        return None
    made = read_manifest(output)
    sizes = storage.sizes(output)
    whole = all(sizes.get(shard.name) == shard.bytes for shard in made.shards)
    return made if whole else None


def _mark(
    settings: dict[str, Any], inputs: Sequence[InputFile], formats: Sequence[str]
) -> dict[str, Any]:
    mark: dict[str, Any] = json.loads(
        json.dumps(
            {
                _MARK: builders.MADE_BY,
                "recipe": settings,
                "inputs": [[entry.path, entry.sha256] for entry in inputs],
                "formats": sorted(formats),
                "source": CORPORA,
            }
        )
    )
    return mark


def write_corpus(output: str, plan: Plan, formats: Sequence[str]) -> Manifest:
    """Write a corpus and return its manifest, which is written last.

    Args:
        output: A folder that `finished` has looked at.
        plan: What to write.
        formats: Names of formats, see `pipelines.corpus.formats`.

    Raises:
        CorpusError: A corpus that it reads is damaged or has changed.
        OSError: A file cannot be written, or another build runs in the folder.
    """
    for name in formats:
        format_named(name)
    with builders.hold(output, runner=f"c4 {plan.settings['name']}") as claim:
        mark = _mark(plan.settings, plan.inputs, formats)
        with storage.write_atomically(storage.join(output, layout.BUILD)) as file:
            file.write(json_files.encode(mark))
        storage.remove([storage.join(output, layout.MANIFEST)])
        storage.sweep_temporaries(output)
        shards: list[ShardFile] = []
        described = Described()
        for split in layout.SPLITS:
            shards += _write_split(output, split, plan.splits[split], formats, claim, described)
        made = _manifest(plan, shards, formats, described)
        made = dataclasses.replace(made, side_files=_write_side_files(output, made))
        claim.require(now=True)
        made = write_manifest(output, made)
        claim.end()
    return made


def _write_split(
    output: str,
    split: str,
    plan: SplitPlan,
    formats: Sequence[str],
    claim: builders.Claim,
    described: Described,
) -> list[ShardFile]:
    """Write and describe the shards of a split, each with as many pages."""
    count = max(1, min(_MOST_SHARDS, -(-plan.text_bytes // _TEXT_BYTES_PER_SHARD), plan.count))
    shards: list[ShardFile] = []
    pages = plan.pages()
    for index in range(count):
        size = plan.count * (index + 1) // count - plan.count * index // count
        table = _table(list(itertools.islice(pages, size)))
        if len(table) != size:
            raise CorpusError(f"{output}: a corpus that is read has lost pages: run again")
        described.add(table)
        shards += write_shard_files(output, (split, index, count), table, formats, claim.require)
    return shards


def _table(pages: Sequence[Page]) -> pa.Table:
    columns = {**TEXT_FEATURES, **LANGUAGE_FEATURES}.values()
    kinds = {name: pa.large_string() for name in columns}
    kinds["language_probability"] = pa.float32()
    table = {
        name: pa.array([getattr(page, name) for page in pages], kind)
        for name, kind in kinds.items()
    }
    return pa.table(table)


def _manifest(
    plan: Plan, shards: Sequence[ShardFile], formats: Sequence[str], described: Described
) -> Manifest:
    pages = sum(split.count for split in plan.splits.values())
    lines = sum(split.lines for split in plan.splits.values())
    return Manifest(
        recipe=plan.settings,
        settings=Settings({}, 0, 0, tuple(sorted(formats)), "auto", source=CORPORA),
        versions=plan.versions,
        inputs=plan.inputs,
        unreadable_inputs=(),
        counts=Counts(len(plan.inputs), 0, pages, pages, {}, lines, lines, {}, 0, {}),
        splits={name: SplitSums(s.count, s.text_bytes) for name, s in plan.splits.items()},
        shards=tuple(shards),
        keep="none",
        kept_page=described.shown,
        languages=dict(described.languages),
        dates=described.dates,
        timing=Timing(0.0, 0.0, 0),
    )


def _write_side_files(output: str, made: Manifest) -> tuple[SideFile, ...]:
    listed = []
    for name, content in side_files(made).items():
        with storage.write_atomically(storage.join(output, name)) as file:
            file.write(content)
        listed.append(SideFile(name, len(content), hashlib.sha256(content).hexdigest()))
    return tuple(listed)
