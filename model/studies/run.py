"""Runs experiments of the paper: what ``c4 study run`` does.

::

    OUT/study.json         settings
        vocab.model        unless given
        pretrain/..., finetune/...
        evaluate/*.json    scores
        done/...           a mark for each finished command
        rows.json          for each row and seed, its files of scores
        logs/
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from model.small_files import read_json_object, require_local, write_json
from model.studies.commands import run_c4
from model.studies.experiments import CORPORA, EXPERIMENTS, Row, experiment
from model.studies.folders import begin_folder, locked
from model.studies.plan import Job, MissingError, RowPlan, Study, plan_row
from model.studies.scales import SCALES
from pipelines.corpus.reading import open_corpus
from pipelines.options import check_bounds, option

#: Lists the scores of each row.
ROWS = "rows.json"
_SETTINGS = "study.json"
_MEASURED_PAGES = 1000


def study_names(asked: str) -> tuple[str, ...]:
    """Return the experiments of a list such as ``table2,table4``, or of ``all``.

    Raises ValueError for unknown names.
    """
    if asked == "all":
        return tuple(EXPERIMENTS)
    return tuple(experiment(name).name for name in dict.fromkeys(asked.split(",")))


def _read_corpora(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in given:
        name, equals, folder = entry.partition("=")
        if not equals or not folder:
            raise ValueError(f"--corpus {entry}: write NAME=DIR, such as c4=corpus")
        if name in found:
            raise ValueError(f"--corpus {name}= is given twice, as {found[name]} and {folder}")
        found[name] = folder
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Experiments to run. Raises ValueError for what cannot be.

    Attributes:
        names: names of experiments.
        out: folder for the runs.
        data: folder of prepared tasks.
        corpora: folders by the names of `model.studies.experiments.CORPORA`.
        scale: a key of `model.studies.scales.SCALES`.
        seeds: runs of each row.
        vocabulary: SentencePiece model; None makes one from the corpus ``c4``, at a scale that
            allows it.
    """

    names: tuple[str, ...]
    out: str = option("folder for the runs; the same command resumes there", metavar="DIR")
    data: str = option("folder of data that c4 tasks prepare wrote", metavar="DIR")
    corpora: dict[str, str] = option(
        f"a corpus by its name in the paper: {', '.join(CORPORA)}; may be repeated. Rows of other "
        "corpora are left out",
        "--corpus", default_factory=dict, metavar="NAME=DIR", action="append",
        read=_read_corpora,
    )  # fmt: skip
    scale: str = option(
        f"one of {', '.join(SCALES)}: tiny takes minutes on two cores and shows that an "
        "experiment runs; paper is the real one",
        metavar="NAME",
    )
    seeds: int = option("runs of each row, with different seeds", default=1, metavar="N", least=1,
                        most=999)  # fmt: skip
    vocabulary: str | None = option(
        "SentencePiece model (default: with --scale tiny, one is made from the corpus c4)",
        "--vocab", default=None, metavar="FILE",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_bounds(self)
        require_local(self.out, "--out")
        if self.scale not in SCALES:
            raise ValueError(f"no scale {self.scale!r}: {', '.join(SCALES)} (--scale)")
        for name in self.names:
            experiment(name)
        unknown = [name for name in self.corpora if name not in CORPORA]
        if unknown:
            raise ValueError(
                f"no experiment has a corpus {', '.join(unknown)}; they have "
                f"{', '.join(CORPORA)} (--corpus)"
            )
        if self.vocabulary is None:
            if SCALES[self.scale].vocabulary_size is None:
                raise ValueError(
                    f"--vocab is missing: a study at scale {self.scale} needs the vocabulary that "
                    "its models are to have"
                )
            if "c4" not in self.corpora:
                raise ValueError(
                    "give --corpus c4=DIR, from which the vocabulary is made, or --vocab"
                )


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a row: ``missing`` or ``failed`` say why it has no scores."""

    experiment: str
    row: Row
    seed: int
    missing: str | None = None
    failed: str | None = None


def run_study(
    config: StudyConfig, say: Callable[[str], None] = lambda line: None, *, dry_run: bool = False
) -> list[Result]:
    """Run what is missing of experiments; return a result for each row and seed.

    A row whose corpus was not given is missing, and a command that fails fails the rows that need
    it; the others are run. Rows share what they have in common.

    Raises ValueError for a folder of another study or that another process works in, and for
    unusable tasks or vocabulary.

    Args:
        config: what to run.
        say: takes lines about progress.
        dry_run: say the commands instead of running them.
    """
    out = pathlib.Path(config.out)
    tasks = Study.usable_tasks(config.data)  # before the folder is that of a study with these data
    with contextlib.nullcontext() if dry_run else locked(out, _SETTINGS):
        return _run_locked(config, out, tasks, say, dry_run)


def _run_locked(
    config: StudyConfig,
    out: pathlib.Path,
    tasks: tuple[str, ...],
    say: Callable[[str], None],
    dry_run: bool,
) -> list[Result]:
    vocabulary = config.vocabulary or f"made from {config.corpora['c4']}"
    settings = {"scale": config.scale, "data": config.data, "vocabulary": vocabulary}
    begin_folder(out / _SETTINGS, settings, write=False)
    if config.vocabulary is not None and not pathlib.Path(config.vocabulary).is_file():
        raise ValueError(f"{config.vocabulary}: no such file (--vocab)")
    begin_folder(out / _SETTINGS, settings, write=not dry_run)
    study = _study(config, out, tasks, say, dry_run)
    failures: dict[str, str] = {}
    said: set[str] = set()
    results = []
    for name in config.names:
        for row in experiment(name).rows:
            for seed in range(config.seeds):
                try:
                    plan = plan_row(study, row, seed)
                except MissingError as error:
                    results.append(Result(name, row, seed, missing=str(error)))
                    continue
                failed = None
                for job in (each for last in plan.evaluations for each in last.in_order()):
                    if dry_run:
                        if job.name not in said:
                            say(shlex.join(["c4", *job.command(config.out)]))
                        said.add(job.name)
                    else:
                        failed = failed or _run(job, out, failures, say)
                results.append(Result(name, row, seed, failed=failed))
                if failed is None and not dry_run:
                    _record(out, name, plan)
    return results


def _study(
    config: StudyConfig,
    out: pathlib.Path,
    tasks: tuple[str, ...],
    say: Callable[[str], None],
    dry_run: bool,
) -> Study:
    scale = SCALES[config.scale]
    vocabulary = config.vocabulary
    if vocabulary is None:
        vocabulary = str(out / "vocab.model")
        words = ["vocab", "--corpus", f"c4={config.corpora['c4']}", "--output", vocabulary,
                 "--size", str(scale.vocabulary_size)]  # fmt: skip
        if dry_run:
            say(shlex.join(["c4", *words]))
        elif not pathlib.Path(vocabulary).is_file():
            say("making a vocabulary")
            run_c4(words, out / "logs" / "vocab.log")
    repeated = {
        row.pretrain.corpus
        for name in config.names
        for row in experiment(name).rows
        if row.pretrain is not None and row.pretrain.repeats is not None
    }
    pages = {
        name: _tokens_per_page(config.corpora[name], vocabulary)
        for name in sorted(repeated & config.corpora.keys())
        if pathlib.Path(vocabulary).is_file()
    }
    return Study(scale, config.corpora, config.data, vocabulary, tasks, pages)


def _tokens_per_page(corpus: str, vocabulary: str) -> float:
    """Return the mean tokens of a corpus's first pages, which are a random sample of it."""
    from model.data.vocabulary import Vocabulary

    pages = itertools.islice(open_corpus(corpus).pages("train"), _MEASURED_PAGES)
    lengths = [len(ids) for ids in Vocabulary(vocabulary).encode_batch([p.text for p in pages])]
    return sum(lengths) / len(lengths)


def _run(
    job: Job, out: pathlib.Path, failures: dict[str, str], say: Callable[[str], None]
) -> str | None:
    """Run a job unless it is done or failed before; return why it failed."""
    mark = out / "done" / job.name
    if job.name not in failures and not mark.is_file():
        blocked = next((failures[need.name] for need in job.needs if need.name in failures), None)
        if blocked is not None:
            failures[job.name] = blocked
        else:
            say(job.name)
            if job.kind == "evaluate":
                (out / job.name).parent.mkdir(parents=True, exist_ok=True)
            try:
                run_c4(job.command(str(out)), out / "logs" / f"{job.name}.log",
                       (out / "compiled").absolute())  # fmt: skip
            except ValueError as error:
                failures[job.name] = f"{job.kind}: {error}"
            else:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.write_text(json.dumps(job.command("{out}")) + "\n")
    return failures.get(job.name)


def _record(out: pathlib.Path, name: str, plan: RowPlan) -> None:
    path = out / ROWS
    rows: dict[str, Any] = read_json_object(path) if path.is_file() else {}
    of_row = rows.setdefault(name, {}).setdefault(plan.row.title, {})
    of_row[str(plan.seed)] = [f"{job.name}.json" for job in plan.evaluations]
    write_json(path, rows)
