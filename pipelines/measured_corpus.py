"""What a corpus that was built says about the next one: its pages' profile and what they cost."""

import dataclasses
import reprlib
from collections.abc import Iterator
from typing import Any

from pipelines import storage
from pipelines.clean_files import FileSummary, _require_types
from pipelines.corpus import layout
from pipelines.corpus.cleaned import CleanedFile
from pipelines.corpus.formats import FORMATS
from pipelines.corpus.manifest import read_manifest
from pipelines.plan import Cluster, Profile, Rates, Work, make_plan

__all__ = ["MeasuredCorpus", "measured_corpus"]

_FILES_LOOKED_AT = 200  # evenly spread; each is a few requests where it is remote
_MOST = 10**15  # bytes, pages or seconds of a corpus: beyond is damage
_JUDGED = ("no_language", "other_language", "low_confidence", "bad_words")


@dataclasses.dataclass(frozen=True)
class MeasuredCorpus:
    """A finished build, as a model for another.

    Attributes:
      files: WET files it was built from.
      pages: read from them.
      stored_bytes: of these files.
      profile: amounts a page; its ``effort`` makes cleaning cost what it did in this build.
      rates: the model's, with writing as it was in this build.
    """

    files: int
    pages: int
    stored_bytes: int
    profile: Profile
    rates: Rates


def measured_corpus(output: str) -> MeasuredCorpus:
    """Read the manifest of a corpus, the heads of some cleaned files, and the sizes of files.

    Raises:
        OSError: a file of it cannot be read.
        ValueError: there is no finished corpus, it is damaged, it holds too little to be a model,
            or its cleaned files are gone; one line that names the file and the option.

    """
    if not output:
        raise ValueError("no corpus folder (--like)")
    try:
        made = _manifest(output)
        heads = _heads(output, [file["path"] for file in made["inputs"]])
    except ValueError as error:
        raise ValueError(f"{error} (--like)") from None
    pages = made["counts"]["pages_read"]
    looked_at = sum(head.pages_read for head in heads)
    if not looked_at:
        raise ValueError(f"the cleaned files of {output} hold no pages read (--like)")
    stored = sum(file["bytes"] for file in made["inputs"])

    def a_page(name: str) -> float:
        return float(sum(getattr(head, name) for head in heads)) / looked_at

    dropped = sum(head.pages_dropped.get(verdict, 0) for head in heads for verdict in _JUDGED)
    default = Profile()
    kept_pages = a_page("pages_kept")
    profile = Profile(
        stored_bytes=stored / pages,
        text_bytes=stored / pages * default.text_bytes / default.stored_bytes,
        judged_pages=min(1.0, kept_pages + dropped / looked_at),
        kept_pages=kept_pages,
        kept_bytes=a_page("text_bytes"),
        units=a_page("units"),
        written_bytes=sum(split["text_bytes"] for split in made["splits"].values()) / pages,
    )
    return _calibrated(output, made, profile)


def _manifest(output: str) -> dict[str, Any]:
    """The manifest, with all that is taken from it checked. Raises ValueError naming the file."""
    made: dict[str, Any] = read_manifest(output).as_dict()
    path = storage.join(output, layout.MANIFEST)
    try:
        _require_amounts(_amounts_of(made))
        _require_names(made)
        written = sum(split["pages"] for split in made["splits"].values())
        stored = sum(file["bytes"] for file in made["inputs"])
    except KeyError as error:
        raise ValueError(f"{path}: damaged: it lacks {error}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: damaged: {error}") from None
    if not (made["counts"]["pages_read"] and written and stored):
        raise ValueError(f"{path}: a corpus of no pages is no model for another build")
    return made


def _amounts_of(made: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name, value, and whether it must be whole, of every number that is used."""
    yield "pages_read", made["counts"]["pages_read"], True
    for split in made["splits"].values():
        yield "pages", split["pages"], True
        yield "text_bytes", split["text_bytes"], True
    for file in (*made["inputs"], *made["shards"]):
        yield "bytes", file["bytes"], True
    for name in ("clean_cpu_s", "write_cpu_s"):
        yield name, made["timing"][name], False


def _require_amounts(amounts: Iterator[tuple[str, Any, bool]]) -> None:
    for name, value, whole in amounts:
        if type(value) is not int and (whole or type(value) is not float):
            kind = "a whole number" if whole else "a number"
            raise TypeError(f"{name} must be {kind}, got {reprlib.repr(value)}")
        if not 0 <= value <= _MOST:  # nor NaN
            raise ValueError(
                f"{name} must lie between 0 and {_MOST:.0e}, got {reprlib.repr(value)}"
            )


def _require_names(made: dict[str, Any]) -> None:
    formats = made["settings"]["formats"]
    if not isinstance(formats, list) or not formats or not all(f in FORMATS for f in formats):
        raise ValueError(f"formats must be of {', '.join(FORMATS)}, got {reprlib.repr(formats)}")
    named = [("path", file["path"]) for file in made["inputs"]]
    named += [(name, shard[name]) for shard in made["shards"] for name in ("format", "split")]
    for name, value in named:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {reprlib.repr(value)}")


def _head(cleaned: str) -> FileSummary:
    """What a cleaned file says of itself. Raises ValueError naming it where that cannot be."""
    with CleanedFile(cleaned) as file:
        found = file.summary
    try:
        head = FileSummary(**found["file"])
        _require_types(head)
    except KeyError as error:
        raise ValueError(f"{cleaned}: damaged: it lacks {error}") from None
    except TypeError as error:
        raise ValueError(f"{cleaned}: damaged: {error}") from None
    amounts = [value for value in vars(head).values() if type(value) in (int, float)]
    amounts += head.pages_dropped.values()
    if not all(0 <= value <= _MOST for value in amounts):
        raise ValueError(f"{cleaned}: damaged: an amount is negative or past all bounds")
    if head.pages_kept > head.pages_read:
        raise ValueError(
            f"{cleaned}: damaged: {head.pages_kept} pages kept of {head.pages_read} read"
        )
    return head


def _heads(output: str, paths: list[str]) -> list[FileSummary]:
    step = max(1, -(-len(paths) // _FILES_LOOKED_AT))
    heads = []
    for path in sorted(paths)[::step]:
        cleaned = layout.cleaned(output, layout.file_name(path))
        if not storage.exists(cleaned):
            raise ValueError(f"{cleaned} is gone: a corpus without its cleaned files is no model")
        heads.append(_head(cleaned))
    return heads


def _calibrated(output: str, made: dict[str, Any], profile: Profile) -> MeasuredCorpus:
    """The model, with cleaning, writing and stored bytes scaled to what they were in this build."""
    rates, files = Rates(), len(made["inputs"])
    pages = made["counts"]["pages_read"]
    formats = tuple(made["settings"]["formats"])
    shards = sum(split == "train" for split in _one_format(made["shards"]))
    reckoned = make_plan(
        Work(files, pages, profile),
        Cluster(1, 1, 64.0, local=True),
        rates,
        max(1, shards),
        formats,
    )
    cpu_s = {stage.name: stage.cpu_s for stage in reckoned.stages}
    per_file = rates.file_s * files
    clean = _part(made["timing"]["clean_cpu_s"] - per_file, cpu_s["clean"] - per_file)
    write = _part(made["timing"]["write_cpu_s"], cpu_s["write"])
    cleaned = sum(file.size for file in storage.match(storage.join(output, "cleaned", "*.arrow")))
    shard_bytes = sum(shard["bytes"] for shard in made["shards"])
    profile = dataclasses.replace(
        profile,
        effort=profile.effort * clean,
        cleaned_ratio=profile.cleaned_ratio * _part(cleaned, reckoned.disk_bytes["cleaned"]),
        shard_ratio=profile.shard_ratio * _part(shard_bytes, reckoned.disk_bytes["shards"]),
    )
    rates = dataclasses.replace(
        rates,
        write_page_s=rates.write_page_s * write,
        write_byte_s=rates.write_byte_s * write,
    )
    stored = sum(file["bytes"] for file in made["inputs"])
    return MeasuredCorpus(files, pages, stored, profile, rates)


def _one_format(shards: list[dict[str, Any]]) -> list[str]:
    """The splits of the shards of one of the formats."""
    return [shard["split"] for shard in shards if shard["format"] == shards[0]["format"]]


def _part(measured: float, reckoned: float) -> float:
    return measured / reckoned if measured > 0 and reckoned > 0 else 1.0
