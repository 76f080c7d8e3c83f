"""``c4 predict``: one input per line in, one prediction per line out."""

import argparse
import contextlib
import dataclasses
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from model.commands.starting import report_failures_once
from model.evaluation.decoding import Decoding
from model.small_files import naming
from pipelines import storage
from pipelines.options import add_options, given_values, option, refuse_empty
from pipelines.printing import print_note

#: Batches read ahead, so that inputs of about one length meet.
_BATCHES_AHEAD = 32
#: Seconds to wait for another line, before what is there is predicted.
_WAIT_S = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig(Decoding):
    """The options of ``c4 predict``."""

    source: str = option(
        "RUN of c4 pretrain or c4 finetune (its kept best checkpoint, else its last), one "
        "checkpoint, what c4 import-hf wrote, or a folder in Hugging Face's layout",
        "--from", metavar="RUN|CKPT|HF_DIR",
    )  # fmt: skip
    task: str | None = option(
        "the kept best checkpoint of this task, where a run keeps several",
        default=None, metavar="NAME",
    )  # fmt: skip
    input: str = option("file of inputs, - for standard input", default="-", metavar="FILE")
    output: str = option(
        "file to write, which appears when it is whole; - for standard output",
        default="-", metavar="FILE",
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 predict``."""
    parser.epilog = """
        Reads one input per line, UTF-8, and writes one prediction per line and nothing else to
        standard output; notes go to standard error. A line break inside a prediction becomes a
        space. An empty line is an input like any other. Predictions of a pipe's first lines are
        written before its end.

        Inputs are as the model was trained on, a task's prefix included (c4 tasks show NAME).
        <extra_id_0> in an input is the first sentinel, a gap to fill.
    """
    add_options(parser, PredictConfig, "source", "task", "input", "output")
    group = parser.add_argument_group("decoding")
    add_options(
        group, PredictConfig, "beams", "length_penalty", "sample", "temperature", "top_p", "seed",
        "max_new_tokens",
    )  # fmt: skip
    group = parser.add_argument_group("batches")
    add_options(group, PredictConfig, "batch_size", "input_length")


def run(arguments: argparse.Namespace) -> int:
    """Predict every line. Returns the exit status."""
    refuse_empty(arguments)
    config = PredictConfig(**given_values(arguments, PredictConfig))
    interruption = getattr(arguments, "interruption", None)
    if interruption is not None and config.output != "-":
        interruption.expect(f"c4: interrupted: {config.output} was not written", 0.8)
    elif interruption is not None:
        interruption.expect("c4: interrupted: predictions written so far are good", 0.8)
    report_failures_once()
    with _open_input(config.input) as lines:  # before the model, which takes longer
        return _predict(config, lines)


def _predict(config: PredictConfig, lines: BinaryIO) -> int:
    import jax

    from model.devices import pass_over_absent_tpus
    from model.evaluation.trained import open_trained

    pass_over_absent_tpus()
    trained = open_trained(config.source, config.task)
    predictor = config.predictor(trained, parse_sentinels=True)
    params = predictor.placed(trained.params)
    step = "" if trained.step is None else f", step {trained.step:,}"
    parameters = trained.config.parameter_count()
    device = jax.devices()[0].device_kind
    _say(f"{trained.name}{step}: {parameters:,} parameters on {device}")
    count = 0
    with _open_output(config.output) as write:
        for chunk in chunks_of(lines, config.input, _BATCHES_AHEAD * config.batch_size):
            predictions = predictor(params, chunk, first=count)
            write("".join(f"{_one_line(text)}\n" for text in predictions).encode())
            count += len(chunk)
    cut = ""
    if predictor.truncated:
        cut = f", {predictor.truncated:,} cut to {config.input_length} tokens (--input-length)"
    _say(f"{count:,} lines{cut}")
    return 0


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        print_note(line)


def _one_line(text: str) -> str:
    return re.sub(r"\r\n|[\r\n]", " ", text)


@contextlib.contextmanager
def _open_input(path: str) -> Iterator[BinaryIO]:
    # Standard input is opened again: a thread that waits in sys.stdin would hold its lock while
    # Python ends.
    # Its number may be another file's by now, where it was closed at the start.
    if path == "-" and sys.stdin is None:
        raise ValueError("standard input is closed: give a file (--input)")
    file = open(0, "rb", closefd=False) if path == "-" else storage.open_raw(path)  # noqa: SIM115
    try:
        yield file
    finally:
        # Nothing is left to do with it, and a thread may be waiting in it.
        if path != "-":
            file.close()


@contextlib.contextmanager
def _open_output(path: str) -> Iterator[Callable[[bytes], object]]:
    if path == "-":
        yield _print_bytes
        return
    with storage.write_atomically(path) as file:
        yield file.write


def _print_bytes(content: bytes) -> None:
    """Write to standard output so that whoever reads it has the bytes at once."""
    binary = getattr(sys.stdout, "buffer", None)
    with naming("standard output"):
        if binary is None:  # a caller's own
            sys.stdout.write(content.decode())
        else:
            binary.write(content)
        sys.stdout.flush()


def chunks_of(lines: BinaryIO, name: str, most: int) -> Iterator[list[str]]:
    """Yield the lines of a file as texts, as many at a time as are there, at most ``most``.

    Lines that were read before an error are yielded before it is raised: ValueError for a line that
    is not UTF-8, OSError for what cannot be read.
    """
    ready: queue.Queue[str | Exception | None] = queue.Queue(most)

    def read() -> None:
        try:
            for number, line in enumerate(lines, 1):
                text = line.removesuffix(b"\n").removesuffix(b"\r")
                try:
                    ready.put(text.decode())
                except UnicodeDecodeError as error:
                    shown = "standard input" if name == "-" else name
                    raise ValueError(
                        f"{shown}, line {number}: not UTF-8 ({error.reason} at byte {error.start})"
                    ) from None
            ready.put(None)
        except Exception as error:
            ready.put(error)

    threading.Thread(target=read, name="lines", daemon=True).start()
    end: str | Exception | None = ""
    while isinstance(end, str):
        chunk: list[str] = []
        while len(chunk) < most:
            try:
                end = ready.get(timeout=_WAIT_S if chunk else None)
            except queue.Empty:
                break
            if not isinstance(end, str):
                break
            chunk.append(end)
        if chunk:
            yield chunk
    if end is not None:
        raise end
