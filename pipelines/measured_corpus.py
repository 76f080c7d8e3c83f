"""What a corpus that was built says about the next one: its pages' profile and what they cost."""

import dataclasses
from typing import Any

from pipelines import layout, manifest, storage
from pipelines.handover import CleanedFile
from pipelines.plan import Cluster, Profile, Rates, Work, make_plan

__all__ = ["MeasuredCorpus", "measured_corpus"]

_FILES_LOOKED_AT = 200  # evenly spread; each is a few requests where it is remote
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
    """Reads the manifest of a corpus, the heads of some cleaned files, and the sizes of files.

    Raises:
        FolderError: there is no finished corpus (a ValueError).
        ValueError: it holds too little to be a model, or its cleaned files are gone.

    """
    made = manifest.read_manifest(output)
    pages = int(made["counts"]["pages_read"])
    written = sum(split["pages"] for split in made["splits"].values())
    if not written:
        raise ValueError(f"{output} has no pages: it is no model for another build (--like)")
    heads = _heads(output, [file["path"] for file in made["inputs"]])
    looked_at = sum(int(head["pages_read"]) for head in heads)
    if not looked_at:
        raise ValueError(f"the cleaned files of {output} hold no pages read (--like)")
    stored = sum(file["bytes"] for file in made["inputs"])

    def a_page(name: str) -> float:
        return sum(float(head[name]) for head in heads) / looked_at

    dropped = sum(head["pages_dropped"].get(verdict, 0) for head in heads for verdict in _JUDGED)
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


def _heads(output: str, paths: list[str]) -> list[dict[str, Any]]:
    step = max(1, -(-len(paths) // _FILES_LOOKED_AT))
    heads = []
    for path in sorted(paths)[::step]:
        cleaned = layout.cleaned(output, layout.file_name(path))
        if not storage.exists(cleaned):
            raise ValueError(
                f"{cleaned} is gone: a corpus without its cleaned files is no model (--like)"
            )
        with CleanedFile(cleaned) as file:
            heads.append(file.summary["file"])
    return heads


def _calibrated(output: str, made: dict[str, Any], profile: Profile) -> MeasuredCorpus:
    """The model, with cleaning, writing and stored bytes scaled to what they were in this build."""
    rates, files = Rates(), len(made["inputs"])
    pages = int(made["counts"]["pages_read"])
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
    cleaned = sum(size for _, size in storage.match(storage.join(output, "cleaned", "*.arrow")))
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
