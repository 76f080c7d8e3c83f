"""Extrapolate from a finished corpus: the profile of its pages, and their cost."""

import contextlib
import dataclasses
import reprlib
from collections.abc import Iterator
from typing import Any

from c4_filters.verdicts import PageVerdict, page_verdict
from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.formats import FORMATS
from pipelines.corpus.manifest import read_manifest
from pipelines.plan import Fleet, Profile, Rates, Work, make_plan
from pipelines.stages.clean_files import FileSummary, read_summary

_FILES_LOOKED_AT = 200  # evenly spread; each is a few requests where it is remote
_MOST = 10**15  # bytes, pages or seconds of a corpus: beyond is damage
JUDGED = ("no_language", "other_language", "low_confidence", "bad_words")


@dataclasses.dataclass(frozen=True)
class MeasuredCorpus:
    """A finished build, to extrapolate from.

    Attributes:
      files: WET files it was built from.
      pages: read from them.
      profile: amounts per page; its ``effort`` makes cleaning cost what it did in this build.
      rates: the packaged ones, with writing as it was in this build.
    """

    files: int
    pages: int
    profile: Profile
    rates: Rates


def measured_corpus(output: str) -> MeasuredCorpus:
    """Read the manifest of a corpus, the heads of some cleaned files, and the sizes of files.

    Raises:
        OSError: A file of it cannot be read.
        ValueError: There is no finished corpus, it is damaged, it holds too little to extrapolate
            from, or its cleaned files are gone; one line that names the file and the option.

    """
    if not output:
        raise ValueError("no corpus folder (--like)")
    try:
        return _measured(output)
    except ValueError as error:
        raise ValueError(f"{error} (--like)") from None


def _measured(output: str) -> MeasuredCorpus:
    made = read_manifest(output)
    path = storage.join(output, layout.MANIFEST)
    with _reading(path, made.as_dict()):
        formats = made.settings.formats
        if not all(name in FORMATS for name in formats):
            raise ValueError(
                f"formats must be of {', '.join(FORMATS)}, got {reprlib.repr(formats)}"
            )
    paths = sorted(file.path for file in made.inputs)
    cleaned_files = [layout.cleaned(output, layout.file_name(path)) for path in paths]
    pages = made.counts.pages_read
    stored_bytes = sum(file.bytes for file in made.inputs)
    written_pages = sum(split.pages for split in made.splits.values())
    written_bytes = sum(split.text_bytes for split in made.splits.values())
    shard_bytes = sum(shard.bytes for shard in made.shards)
    trains = sum(shard.split == "train" for shard in made.shards)
    if not (pages and stored_bytes and written_pages and formats):
        raise ValueError(f"{path}: this corpus has no pages, so --like cannot extrapolate from it")
    heads = list(map(_head, cleaned_files[:: -(-len(paths) // _FILES_LOOKED_AT)]))
    looked_at = sum(head.pages_read for head in heads)
    if not looked_at:
        raise ValueError(f"the cleaned files of {output} hold no pages read")

    def per_page(name: str) -> float:
        return float(sum(getattr(head, name) for head in heads)) / looked_at

    dropped = sum(
        count
        for head in heads
        for verdict, count in head.pages_dropped.items()
        if verdict in JUDGED or not isinstance(page_verdict(verdict), PageVerdict)
    )
    default = Profile()
    profile = Profile(
        stored_bytes=stored_bytes / pages,
        text_bytes=stored_bytes / pages * default.text_bytes / default.stored_bytes,
        judged_pages=min(1.0, per_page("pages_kept") + dropped / looked_at),
        kept_pages=per_page("pages_kept"),
        kept_bytes=per_page("text_bytes"),
        units=per_page("units"),
        written_bytes=written_bytes / pages,
    )
    # Cleaning, writing and stored bytes are scaled to what they were in this build.
    rates, work = Rates(), Work(len(paths), pages, profile)
    shards = max(1, trains // len(formats))
    plan = make_plan(work, Fleet(1, 1, 64.0, local=True), rates, shards, formats)
    cpu_s = {stage.name: stage.cpu_s for stage in plan.stages}
    small = rates.file_s * len(paths)
    cleaned = sum(file.size for file in storage.match(storage.join(output, "cleaned", "*.arrow")))
    profile = dataclasses.replace(
        profile,
        effort=profile.effort * _ratio(made.timing.clean_cpu_s - small, cpu_s["clean"] - small),
        cleaned_ratio=profile.cleaned_ratio * _ratio(cleaned, plan.disk_bytes["cleaned"]),
        shard_ratio=profile.shard_ratio * _ratio(shard_bytes, plan.disk_bytes["shards"]),
    )
    write = _ratio(made.timing.write_cpu_s, cpu_s["write"])
    rates = dataclasses.replace(
        rates, write_page_s=rates.write_page_s * write, write_byte_s=rates.write_byte_s * write
    )
    return MeasuredCorpus(len(paths), pages, profile, rates)


def _head(cleaned: str) -> FileSummary:
    """Return the summary in a cleaned file. Raises ValueError naming the file if it is invalid."""
    if not storage.exists(cleaned):
        raise ValueError(f"{cleaned} is gone: --like needs the cleaned files of a corpus")
    with CleanedFile(cleaned) as file:
        found = file.summary
    with _reading(cleaned, found):
        head = read_summary(found["file"])
        if head.pages_kept > head.pages_read:
            raise ValueError(f"{head.pages_kept} pages kept of {head.pages_read} read")
    return head


@contextlib.contextmanager
def _reading(path: str, found: dict[str, Any]) -> Iterator[None]:
    """Name a file whose numbers are out of bounds, or that lacks what the block takes from it."""
    try:
        _require_bounds("", found)
        yield
    except KeyError as error:
        raise ValueError(f"{path}: damaged: it lacks {error}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}") from None


def _require_bounds(name: str, value: Any) -> None:
    entries = value.items() if isinstance(value, dict) else ()
    for key, entry in enumerate(value) if isinstance(value, list) else entries:
        _require_bounds(f"{name} {key}".strip(), entry)
    if isinstance(value, int | float) and not 0 <= value <= _MOST:  # nor NaN
        raise ValueError(f"{name} must lie between 0 and {_MOST:.0e}, got {reprlib.repr(value)}")


def _ratio(measured: float, estimated: float) -> float:
    return measured / estimated if measured > 0 and estimated > 0 else 1.0
