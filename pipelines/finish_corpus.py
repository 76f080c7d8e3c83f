"""The end of a build: add up what workers report, write the side files, then the manifest."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from c4_filters.sources import sources_of
from pipelines import corpus_folder, storage
from pipelines.config import BuildConfig
from pipelines.corpus import layout, typed_json
from pipelines.corpus.card.owner import read_owner
from pipelines.corpus.card.side_files import CARD, OTHER_CARD, side_files
from pipelines.corpus.manifest import (
    CitedSource,
    Counts,
    InputFile,
    Manifest,
    Recleaned,
    Settings,
    SideFile,
    Timing,
    UnreadableFile,
    write_manifest,
)
from pipelines.corpus.root_digest import root_digest
from pipelines.corpus.shard_files import added, described
from pipelines.stages.clean_files import FileSummary
from pipelines.stages.write_shards import ShardSummary

_SAMPLES_PER_VERDICT = 5


class BalanceError(AssertionError):
    """Some pages or lines were neither written nor counted as dropped: a bug of this project."""


def make_manifest(
    config: BuildConfig, files: Iterable[FileSummary], shards: Iterable[ShardSummary]
) -> Manifest:
    """Add up a build. Raises BalanceError if pages or lines are missing from the sums."""
    files = sorted(files, key=lambda file: file.path)
    shards = sorted(shards, key=lambda shard: (shard.split != "train", shard.index))
    read = [file for file in files if not file.unreadable]
    parts: list[FileSummary | ShardSummary] = [*read, *shards]
    own = config.own_rules()
    settings = {
        name: value for name, value in config.identity.items() if name not in ("recipe", "versions")
    }
    made = Manifest(
        recipe=config.recipe.as_dict(),
        settings=typed_json.decode(Settings, settings),
        versions=config.identity["versions"],
        inputs=tuple(
            InputFile(file.path, file.bytes, file.sha256, file.identity, file.pages_read)
            for file in read
        ),
        unreadable_inputs=tuple(
            UnreadableFile(file.path, file.bytes, file.identity, file.unreadable)
            for file in files
            if file.unreadable
        ),
        counts=_counts(files, read, shards),
        keep=config.keep,
        recleaned=tuple(Recleaned(file.path, file.recleaned) for file in read if file.recleaned),
        against=tuple(older.entry() for older in config.older),
        samples=_samples([part.samples for part in parts]),
        card=read_owner(config.card).as_dict() if config.card is not None else {},
        sources=tuple(CitedSource(*source) for source in sources_of(config.recipe)),
        rule_sources=own.sources if own is not None else {},
        timing=Timing(
            clean_cpu_s=round(sum(file.cpu_s for file in read), 3),
            write_cpu_s=round(sum(shard.cpu_s for shard in shards), 3),
            files_resumed=sum(file.resumed for file in read),
        ),
        **described(shards),
    )
    rows = {
        split: [shard.rows for shard in shards if shard.split == split] for split in layout.SPLITS
    }
    return dataclasses.replace(made, root_digest=root_digest(made, rows))


def _counts(
    files: Sequence[FileSummary], read: Sequence[FileSummary], shards: Sequence[ShardSummary]
) -> Counts:
    parts: list[FileSummary | ShardSummary] = [*read, *shards]
    rejected = added(file.records_rejected for file in read)
    counts = Counts(
        files_read=len(read),
        files_unreadable=len(files) - len(read),
        pages_read=sum(file.pages_read for file in read),
        pages_written=sum(shard.pages for shard in shards),
        pages_dropped=added(part.pages_dropped for part in parts),
        lines_read=sum(file.lines_read for file in read),
        lines_written=sum(shard.lines for shard in shards),
        lines_dropped=added(part.lines_dropped for part in parts),
        records_rejected=sum(rejected.values()),
        records_rejected_by_reason=rejected,
        records_of_other_types=added(file.records_of_other_types for file in read),
        records_of_wrong_length=sum(file.wrong_lengths for file in read),
    )
    for what, came_in, came_out, by_rule in (
        ("pages", counts.pages_read, counts.pages_written, counts.pages_dropped),
        ("lines", counts.lines_read, counts.lines_written, counts.lines_dropped),
    ):
        dropped = sum(by_rule.values())
        if came_in != came_out + dropped:
            raise BalanceError(
                f"{what} do not balance: read {came_in}, written {came_out}, dropped {dropped}"
            )
    return counts


def finish_corpus(
    output: str, made: Manifest, require: Callable[[], None] = lambda: None
) -> Manifest:
    """Finish a corpus: remove shards of earlier builds, write side files, then the manifest.

    Args:
        output: The corpus folder.
        made: What `make_manifest` returned, or the like.
        require: Raises an error if another build has taken the folder. It is called before
            anything is published.

    Returns:
        The manifest as it was written.
    """
    require()
    current = {shard.name for shard in made.shards}
    corpus_folder.record_files(output, {layout.shards_in_split(name)[0] for name in current})
    storage.remove(
        storage.join(output, name)
        for name in corpus_folder.own_shards(output, storage.listdir(output))
        if name not in current
    )
    made = write_side_files(output, made)
    require()
    return write_manifest(output, made)


def write_side_files(output: str, made: Manifest) -> Manifest:
    """Write the side files of a corpus, without overwriting files of the user.

    Where the user has a README.md, the card goes to CARD.md.

    Returns:
        The manifest with the files that belong to the build. It is not written yet.
    """
    wanted = side_files(made)
    own = corpus_folder.own_side_files(output, [*wanted, OTHER_CARD])
    contents = {}

    def add(name: str, content: bytes) -> bool:
        path = storage.join(output, name)
        if name in own or not storage.exists(path) or storage.read_bytes(path) == content:
            contents[name] = content
            return True
        return False  # it is the user's own

    for name, content in wanted.items():
        if not add(name, content) and name == CARD:
            add(OTHER_CARD, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    # Recorded first, so that after a kill the next build recognises them as its own.
    corpus_folder.record_files(output, digests=digests)
    for name, content in contents.items():
        path = storage.join(output, name)
        if storage.read_if_exists(path) != content:
            storage.write_bytes(path, content)
    if OTHER_CARD in own and OTHER_CARD not in contents:  # the user has removed their README.md
        storage.remove([storage.join(output, OTHER_CARD)])
    listed = [SideFile(name, len(content), digests[name]) for name, content in contents.items()]
    return dataclasses.replace(made, side_files=tuple(listed))


def _samples(parts: Sequence[Mapping[str, list[dict[str, str]]]]) -> dict[str, Any]:
    samples: dict[str, list[dict[str, str]]] = {}
    for part in parts:
        for verdict, pages in part.items():
            samples.setdefault(verdict, []).extend(pages)
    return {
        verdict: sorted(pages, key=lambda page: page["url"])[:_SAMPLES_PER_VERDICT]
        for verdict, pages in sorted(samples.items())
    }
