"""Measure the tokens per second of the input pipeline against bare SentencePiece.

::

    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --objective prefix_lm
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --workers 2
    python -m benchmarks.input_pipeline --corpus DIR --vocab FILE --data TASKS --tasks squad,dpr

With ``--tasks``, a mixture of the corpus and prepared tasks, each drawn equally often, is measured
beside the corpus alone, against encoding the texts of as many examples of each.

Both process the same pages on one core each, several times in turn: SentencePiece turns texts in
memory into arrays of ids, by its fastest call; the pipeline reads them from the corpus, encodes,
corrupts, packs and batches them. Tokens are those of the texts. Quote the ratio of CPU
seconds, since machines are shared and noisy. ``--pages`` sets how many pages of the corpus are
read. With ``--workers``, the wall time with that many processes is printed too, and the CPU of the
parent per batch.
"""

import dataclasses
import statistics
import sys
import time
from collections.abc import Mapping

from benchmarks import measure
from model.data.input_config import InputConfig, TaskInput
from model.data.input_pipeline import make_input
from model.data.objectives import OBJECTIVES, objective
from model.data.vocabulary import Vocabulary
from pipelines.corpus.reading import PageReader

Texts = list[list[bytes]]
_GROUP = 128  # texts encoded at a time, as the pipeline does


def texts_of(config: InputConfig) -> Texts:
    """All pages, in groups."""
    corpus = config.open()
    reader, pages = PageReader(corpus, 1), corpus.page_count
    return [
        reader.read_span(begin, min(begin + _GROUP, pages)) for begin in range(0, pages, _GROUP)
    ]


def texts_of_tasks(config: InputConfig, draws: Mapping[str, int]) -> Texts:
    """Return inputs and targets of so many examples of each task, again and again, in groups."""
    groups: Texts = []
    for task in config.tasks:
        pairs = task.open().pairs(task.split)
        chosen = [pairs[n % len(pairs)] for n in range(draws[task.name])]
        groups += [
            [text.encode() for pair in chosen[begin : begin + _GROUP] for text in pair]
            for begin in range(0, len(chosen), _GROUP)
        ]
    return groups


def encode(vocabulary: Vocabulary, texts: Texts) -> int:
    """Bare SentencePiece; return the tokens."""
    return sum(len(ids) for group in texts for ids in vocabulary.encode_batch(group))


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
    passes = one_epoch(config)  # loads what is loaded once, for both
    pages = texts_of(config)
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
        f"{sum(map(len, pages)):,} pages{examples}, {tokens:,} tokens, {config.objective.name}, "
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
    )
    speed(config, vocabulary, arguments.repeats)
    if arguments.tasks:
        tasks = tuple(
            TaskInput(data=arguments.data, name=name) for name in arguments.tasks.split(",")
        )
        print("mixture with tasks, each drawn equally often:")
        speed(dataclasses.replace(config, tasks=tasks), vocabulary, arguments.repeats)
    if arguments.workers:
        with_workers(dataclasses.replace(config, workers=arguments.workers), arguments.batches)
    return 0


if __name__ == "__main__":
    sys.exit(main())
