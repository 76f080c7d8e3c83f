"""``c4 verify``: check a finished corpus against its manifest, without the inputs."""

import argparse
import dataclasses
import json
from typing import Any

from pipelines import storage, verify_corpus
from pipelines.commands.one_corpus import OneCorpus
from pipelines.corpus import layout
from pipelines.corpus.manifest import Manifest
from pipelines.options import add_options, given_values, option
from pipelines.printing import counted, print_lines, print_note, printable
from pipelines.verify_corpus import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options(OneCorpus):
    """What to check."""

    json: bool = option("print the result as a JSON object", default=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 verify``."""
    parser.epilog = """
        Checks the sums in manifest.json, the SHA-256 of every shard, the root digest, the files
        beside the shards and the checksums of the kept files. Shards of a remote corpus are copied
        to this machine's folder for temporary files (TMPDIR), a few at a time.

        exit status: 0 no problems; 1 problems, one per line; 2 wrong usage
    """
    add_options(parser, _Options)


def run(arguments: argparse.Namespace) -> int:
    """Check the corpus, print its problems and return the exit status."""
    options = _Options(**given_values(arguments, _Options))
    output = layout.absolute(options.folder)
    result = verify(output)
    problems = result["problems"]
    if options.json:
        print(json.dumps(result, indent=1))
        return 1 if problems else 0
    print_lines(*(printable(f"{each['file']} {each['problem']}") for each in problems))
    checked = f"{result['shards']:,} shards, {result['kept_files']:,} kept files"
    if problems:
        advice = "run the same c4 build with --verify to rebuild what is damaged"
        if problems[0]["problem"] == verify_corpus.NO_MANIFEST:
            advice = "check the path, or run the same c4 build again to finish it"
        print_lines(f"{output}: {counted(len(problems), 'problem')} ({checked} checked): {advice}")
        return 1
    print_lines(f"{output}: no problems ({checked} checked)")
    return 0


def verify(output: str) -> dict[str, Any]:
    """Check a corpus and return the result, as ``--json`` prints it."""
    shards = kept = 0
    problems: list[Problem] = []
    made = verify_corpus.manifest_problem(output)
    if isinstance(made, Problem):
        problems.append(made)
    else:
        shards = len(made.shards)
        problems += verify_corpus.content_problems(output, made)
        problems += verify_corpus.side_file_problems(output, made)
        print_foreign_shards(output, made)
        damaged, kept = verify_corpus.kept_problems(output, made)
        problems += damaged
    return {
        "folder": output,
        "ok": not problems,
        "root_digest": None if isinstance(made, Problem) else made.root_digest,
        "shards": shards,
        "kept_files": kept,
        "problems": [{"file": problem.file, "problem": problem.what} for problem in problems],
    }


def print_foreign_shards(output: str, made: Manifest) -> None:
    """Print on standard error which files look like shards of this corpus but are not."""
    for name in verify_corpus.foreign_shards(output, made)[:10]:
        pattern, count = layout.shards_in_split(name)
        print_note(
            f"c4: note: {storage.join(output, name)} is not part of this corpus, but readers of "
            f"{pattern.replace(f'{count:05}', '*')} read it too: move it elsewhere"
        )
