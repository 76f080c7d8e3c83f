"""Compares two corpora by the models that they make: what ``c4 ablate`` does.

::

    OUT/ablate.json        settings
        corpora/a, b       corpora made of --recipe-a and --recipe-b
        training/a, b      the corpora without the pages that are held out
        texts/*.jsonl      held-out text
        vocab.model        unless given
        runs/a-seed-0 ...  pre-training runs, paired by their seeds
        tasks/NAME/...     fine-tuning runs
        results.json       what was measured of each run
        logs/

Everything that is there is not done again.
"""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from c4_filters.recipes import load_recipe
from model.data.input_config import require_encoder_inputs
from model.data.objectives import OBJECTIVES, objective
from model.evaluation.best_files import kept_best
from model.small_files import read_json_object, require_local, write_json
from model.studies.commands import run_c4, run_python
from model.studies.folders import begin_folder, locked
from model.studies.held_out import write_texts
from model.studies.held_out_pages import held_out_pages, hold_out, judged, read_pages
from model.studies.statistics import Comparison, compare_paired
from model.t5.config import ARCHITECTURES, SIZES, model_config
from model.tasks.prepared import OWN, Prepared
from model.tasks.registry import TASKS, unknown_task
from model.text_table import text_table
from pipelines.options import check_bounds, comma_separated, option
from pipelines.printing import fitted

ARMS = ("a", "b")
_SETTINGS = "ablate.json"
#: Of each held-out text; a million bytes are measured in seconds, and seeds differ by more.
_TEXT_BYTES = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblateConfig:
    """A comparison. Raises ValueError for what cannot be.

    Attributes:
        a: a corpus; None if ``recipe_a`` makes it.
        b: another.
        recipe_a: recipe of a corpus that is made of ``inputs``.
        recipe_b: the recipe of the other.
        inputs: WET files, as ``c4 build --input``.
        out: folder for the runs.
        held_out: a corpus whose pages are the held-out text; None holds pages out of both.
        held_out_share: share of the pages that are held out, by a hash of their URLs.
        vocabulary: SentencePiece model; None makes one from both corpora.
        vocabulary_size: of the one that is made.
        seeds: number of pairs.
        level: of confidence intervals.
        size, changes, architecture, objective, steps, batch_size, input_length, learning_rate,
            warmup: of pre-training, as of ``c4 pretrain``.
        tasks: tasks to fine-tune on as well.
        data: folder of prepared tasks.
        fine_tune_steps: steps of fine-tuning.
    """

    recipe_a: str | None = option(
        "build corpus A from --input with this recipe", default=None, metavar="RECIPE"
    )
    recipe_b: str | None = option(
        "build corpus B from --input with this recipe", default=None, metavar="RECIPE"
    )
    inputs: str | None = option(
        "WET files for --recipe-a and --recipe-b", "--input", default=None, metavar="PATTERN"
    )
    a: str | None = option("a finished corpus", "a", nargs="?", default=None, metavar="A")
    b: str | None = option("another, to compare with it", "b", nargs="?", default=None, metavar="B")
    out: str = option("folder for the runs; the same command resumes there", metavar="DIR")
    held_out: str | None = option(
        "judge on the text of this corpus (default: hold pages out of both corpora)",
        default=None, metavar="CORPUS",
    )  # fmt: skip
    held_out_share: float = option(
        "share of the pages to hold out of both, chosen by a hash of the URL",
        default=0.02, metavar="SHARE", least=0.0001, most=0.5,
    )  # fmt: skip
    vocabulary: str | None = option(
        "SentencePiece model (default: one is made from both corpora)",
        "--vocab", default=None, metavar="FILE",
    )  # fmt: skip
    vocabulary_size: int = option(
        "pieces of the vocabulary that is made", "--vocab-size", default=4000, metavar="N",
        least=100,
    )  # fmt: skip
    seeds: int = option("pairs of runs", default=5, metavar="N", least=2, most=1000)
    level: float = option(
        "of the confidence intervals: 0.99 raises a false alarm once in a hundred comparisons",
        default=0.99, metavar="SHARE", least=0.5, most=0.9999,
    )  # fmt: skip

    size: str = option(f"one of {', '.join(SIZES)}", default="tiny", metavar="NAME")
    changes: tuple[str, ...] = option(
        "another value for a field of the size, such as d_model=64; may be repeated",
        "--set", default=(), metavar="NAME=VALUE", action="append", read=tuple,
    )  # fmt: skip
    # A language model learns most from a token, since it predicts each. In 300 steps, span
    # corruption does not tell shuffled words from text.
    architecture: str = option(
        f"one of {', '.join(ARCHITECTURES)}", default="language-model", metavar="NAME"
    )
    objective: str = option(f"one of {', '.join(OBJECTIVES)}", default="causal_lm", metavar="NAME")
    steps: int = option("steps of each run", default=300, metavar="N", least=1)
    batch_size: int = option("sequences per step", default=16, metavar="N", least=1)
    input_length: int = option("tokens of the inputs", default=128, metavar="N", least=2)
    warmup: int = option(
        "steps of the schedule's constant part", default=1000, metavar="N", least=1
    )

    tasks: tuple[str, ...] = option(
        "fine-tune on these tasks as well",
        "--task", default=(), metavar="NAME[,NAME]", read=comma_separated("--task"),
    )  # fmt: skip
    data: str | None = option(
        "folder of data that c4 tasks prepare wrote", default=None, metavar="DIR"
    )
    fine_tune_steps: int = option("steps of fine-tuning", default=300, metavar="N", least=1)

    def __post_init__(self) -> None:
        check_bounds(self)
        require_local(self.out, "--out")
        recipes = (self.recipe_a, self.recipe_b)
        if "" in (self.a, self.b):
            raise ValueError("the name of a corpus is empty: c4 ablate A B --out DIR")
        if self.inputs is not None or any(recipes):
            if self.a is not None or self.b is not None:
                raise ValueError("give two corpora, or --recipe-a and --recipe-b, not both")
            if self.inputs is None or not all(recipes):
                raise ValueError("recipes need all of --recipe-a, --recipe-b and --input")
        elif self.a is None or self.b is None:
            raise ValueError("two corpora are needed: c4 ablate A B --out DIR")
        if self.tasks and self.data is None:
            raise ValueError("--task needs --data, the folder that c4 tasks prepare wrote")
        model_config(self.size, self.architecture)
        require_encoder_inputs(objective(self.objective), self.architecture)

    @property
    def settings(self) -> dict[str, Any]:
        """What results depend on; the number of pairs may grow."""
        facts = dataclasses.asdict(self)
        for name in ("out", "seeds", "level", "tasks", "data"):
            del facts[name]
        return facts


class Outcome(NamedTuple):
    """What was measured.

    Attributes:
        corpora: the two corpora.
        texts: the text that the verdict is from, and its bytes.
        comparisons: by what was compared, ``bits per byte`` first.
    """

    corpora: tuple[str, str]
    texts: dict[str, int]
    comparisons: dict[str, Comparison]


def ablate(config: AblateConfig, progress: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train pairs of runs on both corpora and compare them. Resumes what it finds in ``out``.

    Raises ValueError for a folder of another comparison, for corpora without text to judge on, and
    if a command fails, with its last line.
    """
    work = Work(config, progress)
    work.require_material()
    with locked(pathlib.Path(config.out), _SETTINGS):
        return _ablate(work, config, progress)


def _ablate(work: "Work", config: AblateConfig, progress: Callable[[str], None]) -> Outcome:
    work.begin()
    corpora = work.corpora()
    training, texts = work.split(corpora)
    vocabulary = work.vocabulary(training)
    pairs = [(arm, seed) for seed in range(config.seeds) for arm in ARMS]
    for arm, seed in pairs:
        work.train(arm, seed, training[arm], vocabulary)
    bits = work.measure(texts, pairs)
    comparisons = {
        "bits per byte": compare_paired(
            *([bits_per_byte(bits[f"{arm}-seed-{seed}"]) for seed in range(config.seeds)]
              for arm in ARMS),
            level=config.level,
            higher_is_better=False,
        )
    }  # fmt: skip
    for task in config.tasks:
        values = [[work.fine_tune(arm, seed, task) for seed in range(config.seeds)] for arm in ARMS]
        undefined = sum(map(math.isnan, itertools.chain(*values)))
        if undefined:
            progress(f"{task}: not compared: the score of {undefined} runs is undefined")
        else:
            comparisons[task] = compare_paired(*values, level=config.level, higher_is_better=True)
    sizes = {pathlib.Path(path).stem: size for path, size in texts.items()}
    return Outcome((corpora["a"], corpora["b"]), sizes, comparisons)


def outcome_lines(config: AblateConfig, outcome: Outcome) -> Iterator[str]:
    """Yield a report as text."""
    yield f"A  {outcome.corpora[0]}"
    yield f"B  {outcome.corpora[1]}"
    tokens = config.steps * config.batch_size * config.input_length
    yield fitted(
        f"{config.seeds} pairs of runs; {config.steps:,} steps of {config.batch_size} x "
        f"{config.input_length}, {tokens:,} tokens each"
    )
    described = {"both": "lines that both corpora have", "a": "pages of A", "b": "pages of B",
                 "given": config.held_out}  # fmt: skip
    judged = " and ".join(
        f"{size:,} bytes of {described[name]}" for name, size in outcome.texts.items()
    )
    yield fitted(f"bits per byte, lower is better, on held-out text: {judged}")
    yield ""
    rows: list[tuple[str, ...]] = [
        ("", "A", "B", "B - A", f"{100 * config.level:g}% interval", "verdict")
    ]
    for name, found in outcome.comparisons.items():
        digits = 4 if name == "bits per byte" else 2
        numbers = (found.a, found.b)
        interval = f"{found.low:+.{digits}f} to {found.high:+.{digits}f}"
        shown = (f"{number:.{digits}f}" for number in numbers)
        rows.append((name, *shown, f"{found.difference:+.{digits}f}", interval, found.verdict))
    yield from text_table(rows, right=range(1, 5))


def bits_per_byte(of_texts: dict[str, Any]) -> float:
    """Return the bits per byte of a run, the mean over the texts that it was measured on."""
    values = [float(found["bits"] / found["bytes"]) for found in of_texts.values()]
    return sum(values) / len(values)


class Work:
    """The parts of a comparison, each of which keeps what is there.

    They are to be called in the order in which they are written here.
    """

    def __init__(self, config: AblateConfig, progress: Callable[[str], None]) -> None:
        self._config, self._say = config, progress
        self._out = pathlib.Path(config.out)
        self._logs = self._out / "logs"
        self._cache = (self._out / "compiled").absolute()

    def begin(self) -> None:
        """Check that the folder is of this comparison, or begin it. Raises ValueError if not."""
        begin_folder(self._out / _SETTINGS, self._config.settings)

    def require_material(self) -> None:
        """Raise ValueError or OSError for what is not there: hours of training need it later."""
        config = self._config
        for name in config.tasks:
            if name not in (*TASKS, OWN):
                raise ValueError(f"{unknown_task(name, (*TASKS, OWN))} (--task)")
            prepared = Prepared(str(config.data), name)
            if not (prepared.pair_counts.get("train") and prepared.validation_splits):
                raise ValueError(
                    f"{name}: {config.data} has no examples to train on and to validate on (--task)"
                )
        for corpus in (config.a, config.b, config.held_out):
            if corpus is not None:
                next(read_pages(corpus), None)
        for recipe in (config.recipe_a, config.recipe_b):
            if recipe is not None and not recipe.endswith(".toml"):
                load_recipe(recipe)
        if config.vocabulary is not None and not pathlib.Path(config.vocabulary).is_file():
            raise ValueError(f"{config.vocabulary}: no such file (--vocab)")

    def corpora(self) -> dict[str, str]:
        """Return the corpus of each arm, built if the arms are recipes."""
        config = self._config
        if config.inputs is None:
            return {"a": str(config.a), "b": str(config.b)}
        made = {}
        for arm, recipe in zip(ARMS, (config.recipe_a, config.recipe_b), strict=True):
            folder = self._out / "corpora" / arm
            made[arm] = str(folder)
            if not (folder / "manifest.json").is_file():
                self._say(f"building corpus {arm.upper()} with recipe {recipe}")
                words = ["build", "--input", config.inputs, "--output", str(folder)]
                run_c4([*words, "--recipe", str(recipe), "--quiet"], self._log(f"build-{arm}"))
        return made

    def split(self, corpora: dict[str, str]) -> tuple[dict[str, str], dict[str, int]]:
        """Return what each arm trains on, and the files of held-out text with their bytes."""
        texts = self._out / "texts"
        done = texts / "sizes.json"
        given = self._config.held_out
        training = corpora
        if given is None:
            training = {arm: str(self._out / "training" / arm) for arm in ARMS}
        if not done.is_file():
            self._say("choosing the held-out text")
            if given is not None:
                found: dict[str, Iterable[str]] = {"given": held_out_pages(given)}
            else:
                share = self._config.held_out_share
                found = judged(
                    *(
                        hold_out(corpora[arm], pathlib.Path(training[arm]), share, 4 * _TEXT_BYTES)
                        for arm in ARMS
                    )
                )
            texts.mkdir(parents=True, exist_ok=True)
            sizes = {
                name: write_texts(texts / f"{name}.jsonl", lines, _TEXT_BYTES)
                for name, lines in found.items()
            }
            if not all(sizes.values()):
                raise ValueError(
                    "too little text to judge on: use larger corpora or --held-out-share"
                )
            write_json(done, sizes)
        sizes = read_json_object(done)
        return training, {str(texts / f"{name}.jsonl"): size for name, size in sizes.items()}

    def vocabulary(self, training: dict[str, str]) -> str:
        """Return the vocabulary of all runs, made if none was given."""
        if self._config.vocabulary is not None:
            return self._config.vocabulary
        path = self._out / "vocab.model"
        if not path.is_file():
            self._say("making a vocabulary from both corpora")
            words = ["vocab", "--size", str(self._config.vocabulary_size), "--output", str(path)]
            for arm, folder in training.items():
                words += ["--corpus", f"{arm}={folder}"]
            run_c4(words, self._log("vocab"))
        return str(path)

    def train(self, arm: str, seed: int, corpus: str, vocabulary: str) -> None:
        """Train one run."""
        config, run = self._config, self._run(arm, seed)
        last = run / "checkpoints" / str(config.steps)
        if f"{arm}-seed-{seed}" in self._results() or last.is_dir():
            return
        self._say(f"training {arm.upper()} with seed {seed}")
        words = [
            "pretrain", "--corpus", corpus, "--vocab", vocabulary, "--out", str(run),
            "--seed", str(seed), "--size", config.size, "--architecture", config.architecture,
            "--objective", config.objective, "--steps", str(config.steps),
            "--batch-size", str(config.batch_size), "--input-length", str(config.input_length),
            "--warmup", str(config.warmup), "--workers", "0", "--eval-every", "0",
            "--keep-last", "1", "--quiet",
        ]  # fmt: skip
        for change in config.changes:
            words += ["--set", change]
        run_c4(words, self._log(f"train-{arm}-{seed}"), self._cache)

    def measure(
        self, texts: dict[str, int], runs: Iterable[tuple[str, int]]
    ) -> dict[str, dict[str, Any]]:
        """Return what each of the runs, (arm, seed), costs on the texts: by its name."""
        results = self._results()
        names = [f"{arm}-seed-{seed}" for arm, seed in runs]
        todo = [name for name in names if name not in results]
        if todo:
            self._say(f"measuring {len(todo)} runs on held-out text")
            words = [word for path in texts for word in ("--texts", path)]
            if self._config.objective == "causal_lm":
                words.append("--whole")
            folders = [str(self._out / "runs" / name) for name in todo]
            printed = run_python(
                "model.studies.held_out", [*words, *folders], self._log("measure"), self._cache
            )
            lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
            results |= {
                name: {pathlib.Path(path).stem: bits for path, bits in line["texts"].items()}
                for name, line in zip(todo, lines, strict=True)
            }
            write_json(self._out / "results.json", results)
        return results

    def fine_tune(self, arm: str, seed: int, task: str) -> float:
        """Return the task's validation score of the best checkpoint; NaN if it is undefined."""
        config = self._config
        run = self._out / "tasks" / task / f"{arm}-seed-{seed}"
        if not (run / "done").is_file():
            self._say(f"fine-tuning {arm.upper()} with seed {seed} on {task}")
            words = [
                "finetune", "--from", str(self._run(arm, seed)), "--task", task,
                "--data", str(config.data), "--steps", str(config.fine_tune_steps),
                "--batch-size", str(config.batch_size), "--input-length", str(config.input_length),
                "--seed", str(seed), "--out", str(run), "--quiet",
            ]  # fmt: skip
            run_c4(words, self._log(f"finetune-{task}-{arm}-{seed}"), self._cache)
            (run / "done").touch()
        value = kept_best(run)[task]["value"]
        return math.nan if value is None else float(value)

    def _run(self, arm: str, seed: int) -> pathlib.Path:
        return self._out / "runs" / f"{arm}-seed-{seed}"

    def _results(self) -> dict[str, Any]:
        path = self._out / "results.json"
        return read_json_object(path) if path.is_file() else {}

    def _log(self, name: str) -> pathlib.Path:
        return self._logs / f"{name}.log"
