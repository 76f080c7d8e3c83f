"""``c4 verify``: check a finished corpus against its manifest, without the inputs."""

import argparse
import contextlib
import json
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm import tqdm

from pipelines import corpus_folder, layout, manifest, storage, verify_corpus
from pipelines.digests import Progress
from pipelines.printing import printable
from pipelines.verify_corpus import Problem

__all__ = ["add_arguments", "progress_of", "run", "verify"]

_NO_MANIFEST = "is missing: this is not a corpus, or its build has not finished"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 verify``."""
    parser.epilog = textwrap.dedent(
        """\
        Checks the sums in manifest.json, the SHA-256 of every shard, the files beside the shards
        and the checksums of the kept files.

        exit status: 0 no problems; 1 problems, one per line; 2 wrong usage
        """
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the corpus, local or remote")
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check the corpus, print its problems and return the exit status."""
    del rest
    output = layout.absolute(arguments.folder)
    result = verify(output)
    problems = result["problems"]
    if arguments.json:
        print(json.dumps(result, indent=1))
        return 1 if problems else 0
    for problem in problems:
        print(printable(f"{problem['file']} {problem['problem']}"))
    checked = f"{result['shards']:,} shards, {result['kept_files']:,} kept files"
    if problems:
        advice = "run the same c4 build with --verify to rebuild what is damaged"
        if problems[0]["problem"] == _NO_MANIFEST:
            advice = "check the path, or run the same c4 build again to finish it"
        print(
            f"{output}: {len(problems):,} problem{'s' if len(problems) > 1 else ''} ({checked} "
            f"checked): {advice}"
        )
        return 1
    print(f"{output}: no problems ({checked} checked)")
    return 0


def verify(output: str) -> dict[str, Any]:
    """Check a corpus and return the result, as ``--json`` prints it."""
    shards = kept = 0
    problems: list[Problem] = []
    try:
        made = manifest.read_manifest(output)
    except corpus_folder.FolderError as error:
        path = storage.join(output, layout.MANIFEST)
        what = str(error).removeprefix(f"{path}: ")
        unusable = f"cannot be used: {what}" if storage.exists(path) else _NO_MANIFEST
        problems.append(Problem(layout.MANIFEST, unusable))
    else:
        problems += verify_corpus.manifest_problems(made)
        if not problems:
            shards = len(made["shards"])
            with progress_of(made) as progress:
                problems += verify_corpus.shard_problems(output, made, True, progress)
            problems += verify_corpus.side_file_problems(output, made, digests=True)
            verify_corpus.tell_of_foreign_shards(output, made)
        damaged, kept = verify_corpus.kept_problems(output)
        problems += damaged
    return {
        "folder": output,
        "ok": not problems,
        "shards": shards,
        "kept_files": kept,
        "problems": [{"file": problem.file, "problem": problem.what} for problem in problems],
    }


@contextlib.contextmanager
def progress_of(made: dict[str, Any]) -> Iterator[Progress]:
    """Show the progress of checking the shards, in bytes, on a terminal."""
    total, lock = sum(shard["bytes"] for shard in made["shards"]), threading.Lock()
    with tqdm(
        total=total, desc="verify", unit="B", unit_scale=True, disable=None, file=sys.stderr
    ) as bar:

        def progress(n_bytes: int) -> None:
            with lock:
                bar.update(n_bytes)

        yield progress
