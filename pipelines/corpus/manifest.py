"""``manifest.json``: what a finished corpus holds and how it was made.

It is written last: a folder without it is not a corpus. `Manifest` is what ``c4 build`` writes.
`OwnText` is the form for text of the user's own, written by hand: no ``manifest_version``, and of
each shard its name, split and number of pages.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from typing import Any, Literal, NamedTuple, overload

from pipelines import storage
from pipelines.corpus import formats, json_files, layout, typed_json
from pipelines.corpus.errors import CorpusError, one_line

MANIFEST_VERSION = 1
#: `Settings.source` of builds of WET files; others: CORPORA, `pipelines.imports.sources`.
WET = "wet"
#: The source of a corpus that was made of other corpora (`pipelines.corpus.derived`).
CORPORA = "corpora"
#: The name in `Settings.lists` of the list that cleaned files do not depend on.
OPT_OUT = "--opt-out"
_SHOWN_CHARS = 2000  # of a kept page
_MOST_PAGES = 1 << 48  # of a shard: what arithmetic can hold

#: Where to read how text that c4 build did not make becomes a corpus.
_OWN_TEXT = "for text of your own see docs/training.md"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a corpus depends on besides its inputs, recipe and versions."""

    lists: dict[str, str]  # option -> SHA-256 of the list that the user gave
    max_record_bytes: int
    max_file_bytes: int
    formats: tuple[str, ...]
    shards: int | str  # train shards, or "auto"
    provenance: bool = False  # whether Parquet shards have columns of it
    rules: dict[str, str] = dataclasses.field(default_factory=dict)  # module -> SHA-256 of source
    source: str = WET  # what the inputs are; not in the file unless they are something else


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A WET file, or another input, that was read."""

    path: str
    bytes: int
    sha256: str
    identity: str = ""  # modification time or etag; version 0.1 has none
    pages_read: int = 0

    def may_be(self, found: storage.FileInfo) -> bool:
        """Return whether a file has the size and, where both are known, the identity of this."""
        known = self.identity and found.identity
        return found.size == self.bytes and (not known or found.identity == self.identity)


@dataclasses.dataclass(frozen=True)
class UnreadableFile:
    """An input that could not be read."""

    path: str
    bytes: int
    identity: str = ""
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pages and lines by rule: read = written + dropped."""

    files_read: int
    files_unreadable: int
    pages_read: int
    pages_written: int
    pages_dropped: dict[str, int]
    lines_read: int
    lines_written: int
    lines_dropped: dict[str, int]
    records_rejected: int
    records_rejected_by_reason: dict[str, int]
    records_of_other_types: dict[str, int] = dataclasses.field(default_factory=dict)
    records_of_wrong_length: int = 0


@dataclasses.dataclass(frozen=True)
class SplitSums:
    """Pages of a split, and bytes of their texts."""

    pages: int
    text_bytes: int


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A shard in one format."""

    name: str
    split: str
    format: str
    pages: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Recleaned:
    """A WET file that was cleaned again although a cleaned file was there."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ShownPage:
    """A kept page, shortened, for people to look at."""

    url: str
    text: str

    @classmethod
    def of(cls, url: str, text: str) -> "ShownPage":
        """Return the beginning of a page."""
        return cls(url, text[:_SHOWN_CHARS])


@dataclasses.dataclass(frozen=True)
class SideFile:
    """A file beside the shards, such as ``dataset_info.json``."""

    name: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class OlderCorpus:
    """A corpus that this one was built against, see `pipelines.corpus.older`."""

    path: str  # where it was
    root_digest: str
    recipe: str  # name
    fingerprints: str  # digest of what its fingerprints depend on


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a build took. The only part that differs between two builds of one corpus."""

    clean_cpu_s: float
    write_cpu_s: float
    files_resumed: int


@dataclasses.dataclass(frozen=True)
class CitedSource:
    """Where rules, or the list of an option, come from."""

    of: str
    name: str
    url: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of a corpus that ``c4 build`` made, with the fields of the file.

    Fields with defaults are absent from corpora of version 0.1.

    ``root_digest`` names the corpus: `pipelines.corpus.root_digest`. ``against`` lists the older
    corpora that it adds to, with those that these were built against, oldest first.
    """

    manifest_version: int = MANIFEST_VERSION
    recipe: dict[str, Any]
    settings: Settings
    versions: dict[str, str]
    inputs: tuple[InputFile, ...]
    unreadable_inputs: tuple[UnreadableFile, ...]
    counts: Counts
    splits: dict[str, SplitSums]
    shards: tuple[ShardFile, ...]
    keep: str = "all"
    recleaned: tuple[Recleaned, ...] = ()
    kept_page: ShownPage | None = None
    samples: dict[str, Any] = dataclasses.field(default_factory=dict)
    languages: dict[str, int] = dataclasses.field(default_factory=dict)  # pages written, by code
    dates: tuple[str, ...] = ()  # the oldest and the newest WARC-Date written
    card: dict[str, Any] = dataclasses.field(default_factory=dict)  # see card.owner
    timing: Timing
    side_files: tuple[SideFile, ...] | None = None
    against: tuple[OlderCorpus, ...] = ()
    root_digest: str = ""
    sources: tuple[CitedSource, ...] = ()
    rule_sources: dict[str, str] = dataclasses.field(default_factory=dict)  # module -> its text
    checksum: str = ""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the shards, in their order."""
        return tuple(dict.fromkeys(shard.format for shard in self.shards))

    @property
    def source(self) -> str:
        """A digest of what the corpus was made from: recipe, lists, versions, input contents."""
        return _source(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return _encoded(self) | {"settings": _encoded(self.settings)}

    def wrong_sums(self) -> list[str]:
        """Return which sums are wrong, and which shards are listed twice or not at all."""
        wrong = self._wrong_shards()
        for name, (one, other) in self._sums().items():
            if one != other:
                wrong.append(f"{name} must be {other:,}, got {one:,}")
        return wrong

    def _sums(self) -> dict[str, tuple[int, int]]:
        """Return, by what they are of, pairs of numbers that must be equal."""
        counts = self.counts
        sums = {
            "files_read": (counts.files_read, len(self.inputs)),
            "files_unreadable": (counts.files_unreadable, len(self.unreadable_inputs)),
            "pages_read": (counts.pages_read, sum(file.pages_read for file in self.inputs)),
            "records_rejected": (
                counts.records_rejected,
                sum(counts.records_rejected_by_reason.values()),
            ),
            "pages written and dropped": (
                counts.pages_written + sum(counts.pages_dropped.values()),
                counts.pages_read,
            ),
            "lines written and dropped": (
                counts.lines_written + sum(counts.lines_dropped.values()),
                counts.lines_read,
            ),
            "pages_written": (
                counts.pages_written,
                sum(split.pages for split in self.splits.values()),
            ),
        }
        pages: Counter[tuple[str, str]] = Counter()
        for shard in self.shards:
            pages[shard.format, shard.split] += shard.pages
        for (shard_format, split), count in sorted(pages.items()):
            sums[f"pages of {split} in {shard_format}"] = (count, self.splits[split].pages)
        return sums

    def _wrong_shards(self) -> list[str]:
        names = Counter(shard.name for shard in self.shards)
        wrong = [f"{name} is listed {count} times" for name, count in names.items() if count > 1]
        found = Counter(layout.shards_in_split(name) for name in names)
        wrong += [
            f"it lists {held} of {count} shards {pattern}"
            for (pattern, count), held in found.items()
            if held != count
        ]
        if not self.formats or len(found) != 2 * len(self.formats):
            wrong.append("it lists no shards for one of the splits")
        numbers = [
            *(number for pair in self._sums().values() for number in pair),
            *(shard.bytes for shard in self.shards),
            *self.counts.pages_dropped.values(),
            *self.counts.lines_dropped.values(),
        ]
        if any(number < 0 for number in numbers):
            wrong.append("it has a negative number")
        return wrong


#: What the file lacks while it has its default: what builds wrote before there was the option.
_ABSENT_BY_DEFAULT = {
    "against", "card", "checksum", "dates", "languages", "provenance", "root_digest",
    "rule_sources", "rules", "side_files", "source", "sources",
}  # fmt: skip


def _encoded(value: Manifest | Settings) -> dict[str, Any]:
    content: dict[str, Any] = typed_json.encode(value)
    for field in dataclasses.fields(value):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        if field.name in _ABSENT_BY_DEFAULT and getattr(value, field.name) == default:
            del content[field.name]
    return content


@dataclasses.dataclass(frozen=True)
class OwnShard:
    """A file of text that ``c4 build`` did not make."""

    name: str
    split: str
    pages: int
    bytes: int | None = None

    @property
    def format(self) -> str:
        """The format, by the file name."""
        return formats.format_of(self.name)


@dataclasses.dataclass(frozen=True)
class OwnText:
    """A manifest without ``manifest_version``: text that ``c4 build`` did not make."""

    shards: tuple[OwnShard, ...]
    source: str = ""  # a digest of recipe, lists, versions and inputs, if the manifest has any


class Listed(NamedTuple):
    """The files that a manifest lists."""

    shards: list[str]  # names
    side_files: dict[str, str]  # name -> SHA-256
    inputs: set[str]  # paths of WET files, readable or not


def read_listed(folder: str) -> Listed:
    """Return what a manifest lists, whatever else of it is damaged; nothing if there is none.

    Raises:
        OSError: The manifest is there and cannot be read.
    """
    made = json_files.read_object(storage.join(folder, layout.MANIFEST)) or {}

    def entries(section: str) -> list[dict[str, Any]]:
        found = made.get(section)
        found = found if isinstance(found, list) else []
        return [entry for entry in found if isinstance(entry, dict)]

    return Listed(
        [str(shard.get("name")) for shard in entries("shards")],
        {str(file.get("name")): str(file.get("sha256")) for file in entries("side_files")},
        {str(f.get("path")) for f in (*entries("inputs"), *entries("unreadable_inputs"))},
    )


@overload
def read_manifest(folder: str) -> Manifest: ...
@overload
def read_manifest(folder: str, own_text: Literal[True]) -> Manifest | OwnText: ...


def read_manifest(folder: str, own_text: bool = False) -> Manifest | OwnText:
    """Read the manifest of a finished corpus.

    Args:
        folder: Of the corpus, local or remote.
        own_text: Whether the corpus may be text that ``c4 build`` did not make.

    Raises:
        CorpusError: There is no manifest (the folder is not a corpus, or its build has not
            finished), or it is damaged, of another version, or of text that ``c4 build`` did not
            make although ``own_text`` is false.
    """
    path = storage.join(folder, layout.MANIFEST)
    content = _read(folder, path, _OWN_TEXT if own_text else "")
    version = content.get("manifest_version")
    try:
        if version is None and "manifest_version" not in content:
            made = _own_text(content)
            if not own_text:
                raise CorpusError(
                    f"{path} has no manifest_version: it describes text that c4 build did not "
                    "make, which c4 vocab and c4 pretrain read; this needs a corpus of c4 build"
                )
            return made
        if type(version) is not int or version != MANIFEST_VERSION:
            raise CorpusError(
                f"{path} has manifest_version {version!r:.40}, and this version of c4 reads "
                f"{MANIFEST_VERSION}: use the c4 that made the corpus, or build it again"
            )
        return _built(content)
    except CorpusError:
        raise
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is damaged: {one_line(error)}") from None


def write_manifest(folder: str, made: Manifest) -> Manifest:
    """Write the manifest of a corpus whose shards are there, and return it with its checksum."""
    made = dataclasses.replace(made, checksum=_checksum(made.as_dict()))
    path = storage.join(folder, layout.MANIFEST)
    storage.write_bytes(path, json_files.encode(made.as_dict()))
    return made


def _read(folder: str, path: str, advice: str) -> dict[str, Any]:
    advice = advice and f"; {advice}"
    try:
        content = json.loads(storage.read_bytes(path))
    except NotADirectoryError:
        raise CorpusError(f"{folder} is a file, and a corpus is a folder{advice}") from None
    except FileNotFoundError:
        raise CorpusError(
            f"{folder} has no {layout.MANIFEST}: it is not a corpus, or its build has not finished "
            f"(run the same c4 build again to finish it){advice}"
        ) from None
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is damaged: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise CorpusError(f"{path} is damaged: it is not a JSON object")
    return content


def _built(content: dict[str, Any]) -> Manifest:
    made: Manifest = typed_json.decode(Manifest, content)
    for name in ("name", "description"):
        typed_json.decode(str, made.recipe.get(name), f"recipe.{name}")
    if set(made.splits) != set(layout.SPLITS):
        raise ValueError(f"splits are {sorted(made.splits)}")
    for shard in made.shards:
        _require_readable(shard)
        if (
            not layout.is_shard(shard.name)
            or not shard.name.startswith(f"{shard.split}-")
            or shard.format != formats.format_of(shard.name)
            or len(shard.sha256) != 64
        ):
            raise ValueError(f"the entry of shard {shard.name!r} is wrong")
    if wrong := made.wrong_sums():  # which say more than a checksum
        raise ValueError("; ".join(wrong))
    if "checksum" in content and made.checksum != _checksum(content):  # older manifests have none
        raise ValueError("checksum mismatch")
    return made


def _own_text(content: dict[str, Any]) -> OwnText:
    shards = typed_json.decode(tuple[OwnShard, ...], content.get("shards"), "shards")
    for shard in shards:
        _require_readable(shard)
    try:
        return OwnText(shards, _source(content))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {one_line(error)}") from None


def _require_readable(shard: ShardFile | OwnShard) -> None:
    """Raise ValueError for a shard that no reader can open or count."""
    if "/" in shard.name or "\\" in shard.name or shard.name in ("", ".", ".."):
        raise ValueError(f"shard name {shard.name[:100]!r}")
    if not 0 <= shard.pages < _MOST_PAGES:
        raise ValueError(f"{shard.name} has {shard.pages!r} pages")
    formats.format_of(shard.name)


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest's values, in whatever form its JSON is written."""
    values = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _source(content: dict[str, Any]) -> str:
    inputs = [each["sha256"] for each in content.get("inputs", ())]
    made_with = {name: content.get(name) for name in ("recipe", "versions")}
    settings = content.get("settings", {})
    rules = [settings["rules"]] if settings.get("rules") else []
    return digest([made_with, settings.get("lists"), sorted(inputs), *rules])


def digest(value: Any) -> str:
    """Return sixteen hex digits that identify JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
