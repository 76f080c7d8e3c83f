"""The paths of everything in a corpus folder.

::

    OUT/build.json                       the mark that the folder is ours, and the build's settings
    OUT/builders/                        who builds here, and what builds have written (see
                                         pipelines.builders and pipelines.corpus_folder)
    OUT/cleaned/NAME.arrow               pages that passed the rules, in shard order, and what was
                                         dropped; these and the next three kinds of files are
                                         Arrow batches in checked files: pipelines.corpus
    OUT/cleaned/NAME.started             a WET file that is being cleaned, or whose worker died
    OUT/fingerprints/NAME.arrow          identities of their urls and sentences
    OUT/removals/NAME.bin                what deduplication removes from them, and which page keeps
                                         each copy
    OUT/rejects/NAME.jsonl               records that never became pages, with file and offset
    OUT/report/                          the report and the EU's summary, once someone has asked for
                                         them (see pipelines.report)
    OUT/why/index.bin                    which pages have a sentence or an address, once someone has
                                         asked (see pipelines.provenance.index)
    OUT/merged/PIECE.arrow               cleaned pages and removals of many files, while a build of
                                         many files runs (see pipelines.stages.merge_files)
    OUT/train-00000-of-00064.parquet     the corpus
    OUT/validation-00000-of-00001.parquet
    OUT/dataset_info.json, features.json for TFRecord readers
    OUT/README.md, croissant.json        the card, for people and other libraries; the first is
                                         CARD.md where the user has a README.md
    OUT/inputs.jsonl                     the input files of the last build, and of those before
    OUT/manifest.json                    written last: without it the folder is not a corpus

NAME is the WET file's name and 32 hex digits of its path's SHA-256, so that no two paths have the
same NAME.
"""

import hashlib
import os
import re

from pipelines import storage
from pipelines.corpus.formats import FORMATS

BUILD = "build.json"
BUILDERS = "builders"
INPUTS = "inputs.jsonl"
MANIFEST = "manifest.json"
#: folder -> suffix of the files that builds write there and leave
STAGE_FOLDERS = {
    "cleaned": ".arrow",
    "fingerprints": ".arrow",
    "removals": ".bin",
    "rejects": ".jsonl",
}
MERGED = "merged"  # whose files go when the build is done
STARTED = ".started"
_WET_SUFFIXES = re.compile(r"(\.warc)?(\.wet)?(\.gz)?$")
_DIGEST_DIGITS = 32  # 128 bits: finding two paths with the same ones is infeasible
_LONGEST_STEM = 128  # bytes: with suffixes and temporaries within the 255 of file systems
#: Earlier versions had removals in files of their own (bin).
_PIECE = re.compile(r"group-\d{5,}-of-(\d{5,})-range-\d{5,}-of-(\d{5,})\.(arrow|bin)")
SPLITS = ("train", "validation")
_SHARD = re.compile(rf"({'|'.join(SPLITS)})-\d{{5}}-of-\d{{5}}(\..+)")


def file_name(input_path: str) -> str:
    """Return the name, without suffix, of a WET file's outputs.

    >>> file_name("s3://crawl/a/CC-MAIN-0001.warc.wet.gz")
    'CC-MAIN-0001-b306b8191635dffa3f45e26db74385ab'
    """
    return _file_name(input_path, _DIGEST_DIGITS)


def file_name_of_0_1(input_path: str) -> str:
    """Return the name under which version 0.1 wrote a WET file's outputs.

    >>> file_name_of_0_1("s3://crawl/a/CC-MAIN-0001.warc.wet.gz")
    'CC-MAIN-0001-b306b819'
    """
    return _file_name(input_path, 8)


def file_names(input_path: str) -> tuple[str, str]:
    """Return the names under which this version and version 0.1 write a WET file's outputs."""
    return file_name(input_path), file_name_of_0_1(input_path)


def _file_name(input_path: str, digits: int) -> str:
    # The part after the last slash only: a name in the input never becomes a path.
    stem = _WET_SUFFIXES.sub("", input_path.replace("\\", "/").rsplit("/", 1)[-1])
    stem = stem.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore")
    digest = hashlib.sha256(input_path.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{stem}-{digest[:digits]}"


def cleaned(output: str, name: str) -> str:
    """Return the path of a WET file's cleaned pages."""
    return storage.join(output, "cleaned", f"{name}.arrow")


def started(output: str, name: str) -> str:
    """Return the path of the mark that a WET file is being cleaned."""
    return storage.join(output, "cleaned", f"{name}{STARTED}")


def fingerprints(output: str, name: str) -> str:
    """Return the path of a WET file's fingerprints."""
    return storage.join(output, "fingerprints", f"{name}.arrow")


def removals(output: str, name: str) -> str:
    """Return the path of what deduplication removes from a WET file's pages."""
    return storage.join(output, "removals", f"{name}.bin")


def rejects(output: str, name: str) -> str:
    """Return the path of a WET file's rejected records."""
    return storage.join(output, "rejects", f"{name}.jsonl")


def why_index(output: str) -> str:
    """Return the path of the index of pages by sentence and address."""
    return storage.join(output, "why", "index.bin")


def piece_name(group: int, groups: int, key_range: int, ranges: int) -> str:
    """Return the name, without suffix, of what a group of files has in a range of page keys.

    >>> piece_name(3, 800, 0, 14)
    'group-00003-of-00800-range-00000-of-00014'
    """
    return f"group-{group:05}-of-{groups:05}-range-{key_range:05}-of-{ranges:05}"


def merged(output: str, piece: str) -> str:
    """Return the path of a piece."""
    return storage.join(output, MERGED, f"{piece}.arrow")


def pieces_like(name: str) -> int:
    """Return the number of pieces in all, by the name of a file of one; 0 for any other file.

    >>> pieces_like("group-00003-of-00800-range-00000-of-00014.bin"), pieces_like("a.bin")
    (11200, 0)
    """
    found = _PIECE.fullmatch(name)
    return int(found[1]) * int(found[2]) if found else 0


def is_shard(name: str) -> bool:
    """Return whether a file name is that of a shard."""
    found = _SHARD.fullmatch(name)
    return found is not None and found[2] in {kind.suffix for kind in FORMATS.values()}


def shards_in_split(name: str) -> tuple[str, int]:
    """Return the pattern of all shards like this one and their number, by a shard's name.

    >>> shards_in_split("train-00003-of-00064.parquet")
    ('train-*-of-00064.parquet', 64)
    """
    split, _, _, count = name.split(".", 1)[0].split("-")
    return f"{split}-*-of-{count}.{name.split('.', 1)[1]}", int(count)


def absolute(path: str) -> str:
    """Return a local path from the root, without ``~`` and ``file://``; a remote one as it is.

    Workers, and a later run from another folder, must mean the same file. An empty path, such as
    that of an unset variable, stays empty: it must not become the folder one happens to be in.
    """
    if not path or not storage.is_local(path):
        return path
    return os.path.abspath(os.path.expanduser(storage.local_path(path)))
