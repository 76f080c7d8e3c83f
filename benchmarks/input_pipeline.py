"""Measure the tokens per second of the input pipeline against bare SentencePiece.

::

    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --objective prefix_lm
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --workers 2
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --account
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --data TASKS --tasks squad,dpr

With ``--tasks``, a mixture of the corpus and prepared tasks, each drawn equally often, is measured
beside the corpus alone, against encoding the texts of as many examples of each. A task whose
examples are drawn again is not encoded again.

Both process the same pages on one core each, several times in turn. SentencePiece turns texts in
memory into arrays of ids, by the fastest of its calls: one with all texts. The pipeline opens the
corpus, reads, encodes, corrupts, packs and batches until all pages have been read once; what it
reads of the next epoch by then is encoded by both. Tokens are those of the texts. Quote the ratio
of CPU seconds, since machines are shared and noisy. ``--pages`` sets how many pages of the corpus
are read; ``--one-each`` gives each example a row. With ``--workers``, the wall time with that many
processes is printed too, and the CPU of the parent per batch.

``--account`` splits the pipeline's CPU completely instead, into parts with a clock around each, and
the rest, which no clock sees. It fails if the rest or the clocks' own cost is above 5 % of the
whole.
"""

import dataclasses
import statistics
import sys
import time
import unittest.mock
from collections.abc import Mapping, Sequence

from benchmarks import measure
from benchmarks.clocks import CLOCKS, MOST, OWN, REST, WHOLE, Parts, clocks, clocks_s, table
from model.data.input_config import InputConfig
from model.data.input_pipeline import make_input
from model.data.objectives import OBJECTIVES, objective
from model.data.sources.task import TaskInput
from model.data.vocabulary import Vocabulary
from pipelines.corpus.reading import PageReader

_PARTS: Parts = {
    "opening": (("model.data.input_pipeline", "InputIterator.__init__"),),
    "SentencePiece": (("model.data.vocabulary", "Vocabulary.encode_batch"),),
    "read: decoded row groups": (("pipelines.corpus.formats.parquet", "_decoded"),),
    "read: texts of pages": (("pipelines.corpus.reading", "PageReader.read_span"),),
    "order of pages, random generators": (
        ("model.data.sources.corpus", "PageOrder.ranges"),
        ("model.data.sources.corpus", "generator"),
    ),
    "pages to pieces": (("model.data.sources.corpus", "CorpusSource.measured_pairs"),),
    "noise": (("model.data.objectives", "Objective.draw_noise"),),
    "inputs and targets": (("model.data.objectives", "Objective.render"),),
    "tasks: order of examples": (("model.data.sources.task", "TaskSource._places"),),
    "tasks: examples as text": (
        ("model.tasks.prepared", "Prepared.pairs"),
        ("model.tasks.prepared", "_Lazy.__getitem__"),
    ),
    "tasks: ids kept and found": (("model.data.sources.task", "TaskSource.pairs"),),
    "drawing": (
        ("model.data.input_pipeline", "draw_block"),
        ("model.data.input_pipeline", "_SourceStream.take"),
        ("model.data.input_pipeline", "_ShardStream._made"),
    ),
    "packing": (("model.data.batches", "first_fit"), ("model.data.batches", "one_each")),
    "rows": (("model.data.rows", "RowPacker.__call__"),),
    "batches": (("model.data.input_pipeline", "InputIterator.__next__"),),
}


def pages_read(config: InputConfig) -> tuple[list[bytes], dict[str, float]]:
    """Return all pages that a run reads, and its passes of each source."""
    pages: list[bytes] = []
    read_span = PageReader.read_span

    def noted(self: PageReader, start: int, stop: int) -> list[bytes]:
        texts = read_span(self, start, stop)
        pages.extend(texts)
        return texts

    with unittest.mock.patch.object(PageReader, "read_span", noted):
        passes = one_epoch(config)
    return pages, passes


def texts_of_tasks(config: InputConfig, draws: Mapping[str, int]) -> list[bytes]:
    """Return inputs and targets of so many examples of each task, again and again."""
    texts: list[bytes] = []
    for task in config.tasks:
        pairs = task.open().pairs(task.split)
        for number in range(draws[task.name]):
            texts += [text.encode() for text in pairs[number % len(pairs)]]
    return texts


def encode(vocabulary: Vocabulary, texts: Sequence[bytes]) -> int:
    """Encode by bare SentencePiece, and return how many tokens there are."""
    return sum(map(len, vocabulary.encode_batch(texts)))


def one_epoch(config: InputConfig) -> dict[str, float]:
    """Run the whole pipeline until the corpus has been read once; return the passes of each source.

    From opening the corpus to the last batch.
    """
    iterator = make_input(config)
    while iterator.epoch() < 1:
        next(iterator)
    passes = iterator.epochs()
    iterator.close()
    return passes


def speed(config: InputConfig, vocabulary: Vocabulary, repeats: int) -> float:
    """Print tokens per CPU second of both, and their ratio; return the ratio."""
    pages, passes = pages_read(config)  # loads what is loaded once, for both
    draws = {
        task.name: round(passes[task.name] * task.open().pair_counts[task.split])
        for task in config.tasks
    }
    texts = pages + texts_of_tasks(config, draws)
    tokens = encode(vocabulary, texts)
    turns = measure.in_turn(
        {
            "sentencepiece": lambda: encode(vocabulary, texts),
            "pipeline": lambda: one_epoch(config),
        },
        repeats,
    )
    examples = "".join(f" and {count:,} of {name}" for name, count in draws.items())
    print(
        f"{len(pages):,} pages{examples}, {tokens:,} tokens, {config.objective.name}, "
        f"{config.architecture}"
    )
    for what, cpu_s in turns.items():
        print(
            f"  {what:<14}{tokens / min(cpu_s) / 1e6:8.3f} million tokens per CPU second, at best"
        )
    # What a shared machine's other work does to one, it mostly does to its neighbour in time.
    ratio: float = statistics.median(
        bare / ours for bare, ours in zip(*turns.values(), strict=True)
    )
    print(f"  pipeline at {ratio:.2f} of bare SentencePiece, the median of {repeats} turns")
    return ratio


def account(config: InputConfig, vocabulary: Vocabulary, repeats: int) -> bool:
    """Print the CPU nanoseconds a token of each part, the costliest first.

    They are those of the run with the least CPU. Return whether they add up to the whole.
    """
    pages, _ = pages_read(config)
    tokens = encode(vocabulary, pages)
    least: dict[str, float] = {}
    plain = measure.in_turn({"": lambda: one_epoch(config)}, repeats)[""]
    for _ in range(repeats):
        # SentencePiece works in a thread of its own.
        with clocks(_PARTS, time.process_time_ns):
            started = time.process_time()
            one_epoch(config)
            whole = time.process_time() - started
        if not least or whole < least[WHOLE]:
            least = {part: own / 1e9 for part, own in OWN.items()}
            least |= {REST: whole - sum(least.values()), WHOLE: whole}
            least[CLOCKS] = clocks_s(time.process_time_ns)
    print(f"CPU nanoseconds for each of {tokens:,} tokens of {len(pages):,} pages")
    print(*table("", {"least": least}, tokens / 1e9), sep="\n")
    print(f"{'whole, without clocks':<45}{min(plain) / tokens * 1e9:12.4f}")
    faults = [
        f"{name}: {least[name] / least[WHOLE]:.1%} of the whole"
        for name in (REST, CLOCKS)
        if abs(least[name]) >= MOST * least[WHOLE]
    ]
    print(*faults or ["the parts add up to the whole, clocks included"], sep="\n")
    return not faults


def with_workers(config: InputConfig, batches: int) -> None:
    """Print tokens per second of wall time, and the parent's share of the work."""
    iterator = make_input(config)
    next(iterator)  # the processes are up
    started, busy = time.monotonic(), time.process_time()
    for _ in range(batches):
        next(iterator)
    wall_s, cpu_s = time.monotonic() - started, time.process_time() - busy
    iterator.close()
    rows = batches * config.batch_size
    tokens = rows * config.lengths.raw
    print(
        f"{config.workers} workers: {tokens / wall_s / 1e6:.3f} million tokens a second, "
        f"{rows / wall_s:.0f} rows a second; parent busy {cpu_s / batches * 1e3:.2f} ms a batch "
        f"of {config.batch_size}"
    )


def main() -> int:
    parser = measure.parser(__doc__)
    parser.add_argument("--corpus", required=True, metavar="DIR")
    parser.add_argument("--vocab", required=True, metavar="FILE")
    parser.add_argument("--format", choices=("parquet", "tfrecord", "json"))
    parser.add_argument("--objective", default="span3", choices=OBJECTIVES)
    parser.add_argument("--architecture", default="encoder-decoder")
    parser.add_argument("--pages", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batches", type=int, default=100, help="with --workers")
    parser.add_argument("--one-each", action="store_true", help="one example a row")
    parser.add_argument("--account", action="store_true", help="where the time goes")
    parser.add_argument("--data", metavar="DIR", help="prepared tasks")
    parser.add_argument("--tasks", default="", metavar="NAME,NAME")
    arguments = parser.parse_args()
    vocabulary = Vocabulary(arguments.vocab)
    config = InputConfig(
        corpus=arguments.corpus,
        vocabulary=vocabulary,
        objective=objective(arguments.objective),
        architecture=arguments.architecture,
        format=arguments.format,
        max_pages=arguments.pages,
        packed=not arguments.one_each,
    )
    repeats = arguments.repeats

    def measured(config: InputConfig) -> bool:
        if arguments.account:
            return account(config, vocabulary, repeats)
        speed(config, vocabulary, repeats)
        return True

    holds = measured(config)
    if arguments.tasks:
        tasks = tuple(
            TaskInput(data=arguments.data, name=name) for name in arguments.tasks.split(",")
        )
        print("mixture with tasks, each drawn equally often:")
        holds = measured(dataclasses.replace(config, tasks=tasks)) and holds
    if arguments.workers:
        with_workers(dataclasses.replace(config, workers=arguments.workers), arguments.batches)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
