"""Split the CPU of a real build completely: the parts of the account add up to the whole.

::

    python -m benchmarks.account --wet '../shared/wet/*.warc.wet.gz'
    python -m benchmarks.account --batch 1 64 256 1024 1000000 --repeats 3

Runs ``c4 build`` with one worker in one process, with a clock around each part of the work. A
part's time is its own CPU, without that of the parts that it calls. What no clock sees is a part
too: the rest of the CPU that the system counts for the process. The account fails if the clocks
themselves cost more than 5 % of the whole, and if the parts do not add up to it.

``--batch``: how many pages go through each rule before the next rule begins. With 1 the parts
alternate page by page; with 1000000 each has all pages of a file at once. What the same part costs
more with 1 is what its tables lose in the processor's cache. CPU seconds are the least of several
runs, taken in turn.
"""

import json
import pathlib
import sys
import tempfile
import time

_STARTED_S = time.process_time()  # Python's own start, and these few modules of its library

from collections.abc import Sequence  # noqa: E402

from benchmarks import measure  # noqa: E402
from benchmarks.clocks import CLOCKS, MOST, OWN, REST, WHOLE, Parts, clocks, clocks_s, table  # noqa: E402

_INNER = "in-this-process"
_PYTHON = "Python's start and end"

#: part -> what it is made of: module, and name in it. Its clock starts before the next module is
#: imported, so that imports come first.
_PARTS: Parts = {
    "imports": (("importlib._bootstrap", "_find_and_load"),),
    "Beam": (("pipelines.builds", "run_build"), ("threading", "Thread._bootstrap_inner")),
    "command line, list of inputs, claim": (("pipelines.c4_main", "main"),),
    "read: inflate": (("pipelines.wet.records", "inflate_whole"),),
    "read: digest of the input, stored bytes": (("pipelines.wet.members", "Stored._load"),),
    "read: records": (("pipelines.stages.clean_files", "read_pages"),),
    "rules: whole page": (("c4_filters.pages", "PageRules._judge_whole"),),
    "rules: lines": (("c4_filters.pages", "clean_texts"), ("c4_filters.pages", "split_lines")),
    "rules: language": (("c4_filters.pages", "detect_language"),),
    "rules: bad words": (("c4_filters.badwords", "BadWords.found"),),
    "rules: the rest": (("c4_filters.pages", "PageRules.clean_all"),),
    "sentences": (("c4_filters.pages", "PageRules.unit_starts"),),
    "addresses": (
        ("pipelines.stages.clean_files", "normalize_url"),
        ("pipelines.stages.clean_files", "url_identity"),
        ("pipelines.stages.clean_files", "identity_key"),
        ("pipelines.stages.clean_files", "split_of"),
    ),
    "hashes of units": (("pipelines.stages.clean_files", "unit_identities"),),
    "digests of pages": (("pipelines.stages.clean_files", "_digest"),),
    "columns": (("pipelines.stages.clean_files", "_Cleaner.tables"),),
    "cleaned files: cut, pack, compress": (
        ("pipelines.corpus.cleaned", "pack_batch"),
        ("pipelines.stages.clean_files", "write_cleaned"),
        ("pipelines.stages.clean_files", "write_fingerprints"),
    ),
    "files on disk": (("pipelines.storage", "write_atomically"),),
    "cleaning: pages to columns": (
        ("pipelines.stages.clean_files", "_Cleaner._judge"),
        ("pipelines.stages.clean_files", "_Cleaner._keep"),
        ("pipelines.stages.clean_files", "_Cleaner._drop"),
    ),
    "cleaning: the rest": (("pipelines.stages.graph", "clean_file"),),
    "deduplication": (
        ("pipelines.stages.dedup", "url_buffers"),
        ("pipelines.stages.older_files", "outdated_pages"),
        ("pipelines.stages.dedup", "span_buffers"),
        ("pipelines.stages.older_files", "repeated_spans"),
        ("pipelines.stages.dedup", "write_file_removals"),
    ),
    "shards: pages after deduplication": (("c4_filters.pages", "PageRules.finish_page"),),
    "shards: format": (("pipelines.corpus.shard_files", "write_table"),),
    "shards: the rest": (("pipelines.stages.graph", "write_shard"),),
    "manifest and side files": (("pipelines.stages.graph", "finish_corpus"),),
}  # fmt: skip


def _build(batch: int, words: Sequence[str]) -> int:
    """Run ``c4 build`` with clocks in this process; print the account as the last line."""
    from pipelines import c4_main
    from pipelines.engines.lean_imports import leave_out_unused

    leave_out_unused()  # as the command does before it imports Beam, which the clocks do now
    with clocks(_PARTS):
        from pipelines.stages import clean_files

        clean_files._PAGES_AT_A_TIME, clean_files._CHARS_AT_A_TIME = batch, sys.maxsize
        sys.argv = ["c4", *words]
        status = c4_main.main()  # in a process of its own, as the console command is
    seconds = {part: own / 1e9 for part, own in OWN.items()} | {_PYTHON: _STARTED_S}
    print(json.dumps({"parts": seconds, "clocks": clocks_s(), "whole": time.process_time()}))
    return status


def account(paths: Sequence[str], folder: pathlib.Path, batch: int) -> tuple[dict[str, float], int]:
    """Return the account of one build, and how many ``pages`` it read."""
    output = folder / f"batch-{batch}"
    words = ["build", "--input", *paths, "--output", str(output), "--workers", "1", "--quiet",
             "--start-over"]  # fmt: skip
    inner = [sys.executable, "-m", "benchmarks.account", _INNER, str(batch)]
    ran = measure.run([*inner, *words])
    whole, found = ran.cpu_s, json.loads(ran.output.splitlines()[-1])
    parts: dict[str, float] = found["parts"]
    parts[_PYTHON] += whole - found["whole"]
    parts[REST] = whole - sum(parts.values())
    made = json.loads((output / "manifest.json").read_text())
    return parts | {WHOLE: whole, CLOCKS: found["clocks"]}, made["counts"]["pages_read"]


def main() -> int:
    parser = measure.parser(__doc__, wet=True)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256, 1024], metavar="PAGES")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    paths = measure.wet_files(parser, arguments.wet)
    least: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="c4-account-") as folder:
        for _ in range(arguments.repeats):
            for batch in arguments.batch:
                found, pages = account(paths, pathlib.Path(folder), batch)
                if batch not in least or found[WHOLE] < least[batch][WHOLE]:
                    least[batch] = found
    shown = {f"{batch:,}": found for batch, found in least.items()}
    print(*table(f"CPU ms a page of {pages:,}, and of the whole", shown, pages / 1e3), sep="\n")
    faults = [
        f"batches of {batch:,}: {fault}"
        for batch, found in least.items()
        for holds, fault in (
            (found[REST] >= 0, "the parts come to more than the whole"),
            (found[CLOCKS] <= MOST * found[WHOLE], "the clocks cost more than 5 %"),
        )
        if not holds
    ]
    print(*faults or ["the parts add up to the whole, clocks included"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [_INNER]:
        sys.exit(_build(int(sys.argv[2]), sys.argv[3:]))
    sys.exit(main())
