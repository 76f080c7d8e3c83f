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
from pipelines.corpus.formats.pages import COLUMNS, Page
from pipelines.corpus.formats.provenance import no_pages
from pipelines.corpus.manifest import (
    CORPORA,
    InputFile,
    Manifest,
    OwnText,
    Settings,
    SideFile,
    Timing,
    read_manifest,
    write_manifest,
)
from pipelines.corpus.reading import Corpus
from pipelines.corpus.shard_files import PageWriter, manifest_of_pages

_TEXT_BYTES_PER_SHARD = 64 << 20  # as builds that are not large
_MOST_SHARDS = 4096
_PAGES_AT_A_TIME = 4096
_MARK = "made_by"


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split to write: its pages, in their order, and their sums, which decide its shards."""

    pages: Callable[[], Iterator[Page]]
    count: int
    text_bytes: int


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
        storage.write_bytes(storage.join(output, layout.BUILD), json_files.encode(mark))
        storage.remove([storage.join(output, layout.MANIFEST)])
        storage.sweep_temporaries(output)
        planned = {split: (each.count, _shards_of(each)) for split, each in plan.splits.items()}
        writer = PageWriter(output, formats, planned, require=claim.require)
        for split, each in plan.splits.items():
            pages = itertools.islice(each.pages(), each.count)
            while batch := list(itertools.islice(pages, _PAGES_AT_A_TIME)):
                writer.add(split, _table(batch))
        made = manifest_of_pages(
            writer.finish(),
            plan.inputs,
            recipe=plan.settings,
            settings=Settings({}, 0, 0, tuple(sorted(formats)), "auto", source=CORPORA),
            versions=plan.versions,
            timing=Timing(0.0, 0.0, 0),
        )
        made = dataclasses.replace(made, side_files=_write_side_files(output, made))
        claim.require(now=True)
        made = write_manifest(output, made)
        claim.end()
    return made


def _shards_of(plan: SplitPlan) -> int:
    return max(1, min(_MOST_SHARDS, -(-plan.text_bytes // _TEXT_BYTES_PER_SHARD), plan.count))


def _table(pages: Sequence[Page]) -> pa.Table:
    columns = {name: [getattr(page, name) for page in pages] for name in COLUMNS}
    return pa.table(columns, schema=no_pages(COLUMNS).schema)


def _write_side_files(output: str, made: Manifest) -> tuple[SideFile, ...]:
    listed = []
    for name, content in side_files(made).items():
        storage.write_bytes(storage.join(output, name), content)
        listed.append(SideFile(name, len(content), hashlib.sha256(content).hexdigest()))
    return tuple(listed)
