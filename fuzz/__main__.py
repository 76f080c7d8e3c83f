"""``python -m fuzz TARGET``: feed a target with inputs until one fails.

With atheris (the extra ``fuzz``) inputs follow the branches that earlier ones have reached; without
it they are mutations of the seeds alone. A failing input is saved, and the command to
try it again is printed.
"""

import argparse
import importlib.util
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

TARGETS = ("reader", "lines", "pages", "sentences", "urls", "growth", "files", "shards", "imports")
_CODE = ("c4_filters", "pipelines", "model.data")  # whose branches guide
_MOST_BYTES = 16_384  # whole files of a small corpus
_MOST_MIB = 2500


def main() -> int:
    """Run one target. Returns 1 when an input has failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N", help="how many inputs")
    parser.add_argument("--seconds", type=int, metavar="S", help="stop after so many, if earlier")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="another seed: other inputs"
    )
    parser.add_argument(
        "--engine", choices=("atheris", "plain"), help="default: atheris where it is installed"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("out/fuzz"), metavar="DIR",
        help="where failing inputs, and inputs that reached something new, are kept",
    )  # fmt: skip
    parser.add_argument("--replay", type=pathlib.Path, metavar="FILE", help="try this input alone")
    arguments = parser.parse_args()
    engine = arguments.engine or ("atheris" if importlib.util.find_spec("atheris") else "plain")
    if arguments.replay is not None:
        check_of(arguments.target)(arguments.replay.read_bytes())
        print(f"{arguments.replay}: fine")
        return 0
    (arguments.out / arguments.target).mkdir(parents=True, exist_ok=True)
    if engine == "atheris":
        _guided(arguments)
    return _plain(arguments)


def check_of(target: str) -> Any:
    """Return the check of a target, which takes any bytes."""
    modules = {"files": "file_targets", "shards": "file_targets", "imports": "import_targets"}
    module = importlib.import_module(f"fuzz.{modules.get(target, 'targets')}")
    return getattr(module, f"check_{target}")


def _plain(arguments: argparse.Namespace) -> int:
    from fuzz.mutations import mutated
    from fuzz.seeds import seeds_of

    check = check_of(arguments.target)
    started, cpu = time.monotonic(), time.process_time()
    done = 0
    for data in mutated(seeds_of(arguments.target), arguments.seed):
        if done >= arguments.inputs or (
            arguments.seconds and time.monotonic() - started > arguments.seconds
        ):
            break
        try:
            check(data)
        except BaseException:
            path = arguments.out / f"{arguments.target}-failed-{arguments.seed}-{done}"
            path.write_bytes(data)
            print(f"failed: python -m fuzz {arguments.target} --replay {path}", file=sys.stderr)
            raise
        done += 1
    print(
        f"{arguments.target}: {done:,} inputs, {time.process_time() - cpu:.0f} CPU s, none failed"
    )
    return 0


def _guided(arguments: argparse.Namespace) -> None:
    """Run libFuzzer, which ends the process; its last lines report the number of inputs."""
    import atheris

    with atheris.instrument_imports(include=[*_CODE]):
        check = check_of(arguments.target)
    from fuzz.seeds import WORDS, seeds_of

    scratch = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-"))
    seeds = scratch / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(seeds_of(arguments.target)):
        (seeds / str(number)).write_bytes(seed[:_MOST_BYTES])
    words = scratch / "words"
    words.write_text(
        "".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS),
        encoding="ascii",
    )
    options = [
        f"-runs={arguments.inputs}",
        f"-seed={arguments.seed}",
        f"-dict={words}",
        f"-max_len={_MOST_BYTES}",
        f"-rss_limit_mb={_MOST_MIB}",
        "-timeout=60",
        "-print_final_stats=1",
        f"-artifact_prefix={arguments.out / arguments.target}-",
        str(arguments.out / arguments.target),
        str(seeds),
    ]
    if arguments.seconds:
        options.insert(0, f"-max_total_time={arguments.seconds}")
    print(f"failing inputs: python -m fuzz {arguments.target} --replay FILE", file=sys.stderr)
    sys.stdout.flush()
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")
    atheris.Setup([sys.argv[0], *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
