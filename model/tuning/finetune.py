"""Fine-tunes a trained model on tasks; the trainer's loop, with scores of tasks beside the loss."""

import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from model.data.input_config import InputConfig
from model.data.sources.task import TaskInput
from model.data.vocabulary import Vocabulary
from model.evaluation.predictor import Predictor
from model.t5.config import ModelConfig
from model.t5.network import T5
from model.tasks.mixtures import mixture
from model.tasks.prepared import OWN, Prepared
from model.text_table import text_table
from model.training import distributed
from model.training.evaluations import Evaluation, Evaluator
from model.training.metrics import read_rows
from model.training.train_config import StepConfig, TrainConfig
from model.training.trainable import adapter_mask
from model.training.trainer import Interruption, Plan, train
from model.tuning.base_model import BaseModel, open_base_model, require_trainable
from model.tuning.baselines import bag_of_words_score, majority_score
from model.tuning.best import BestCheckpoints, RemoteBest
from model.tuning.finetune_config import FinetuneConfig
from model.tuning.own_pairs import is_pairs_file, prepare_own
from model.tuning.task_scores import EvaluatedTask, evaluated_tasks, scores_in, task_evaluator
from pipelines import storage

#: Steps, sequences of a batch and tokens of the inputs that are not given: of the paper (section
#: 3.1.3), and on a CPU.
_PAPER, _CPU = (2**18, 128, 512), (500, 32, 128)
#: Options of ``c4 pretrain`` that have another name here.
_OPTION_NAMES = {
    "--init-from": "--from, --random-weights", "--tasks": "--task, --form",
    "--size": "--from", "--set d_model": "--from",
    "--architecture": "--from", "--vocab": "--from", "--validation": "--validation, --data",
}  # fmt: skip
_EVALUATIONS, _MOST_BETWEEN = 10, 1000


class TaskResult(NamedTuple):
    """How a task came out."""

    task: str
    metric: str  #: what is compared
    best: float | None  #: None where the run was never evaluated
    step: int | None  #: of the best
    last: float | None  #: of the last evaluation
    majority: float | None  #: of always giving the most frequent target; None for free text
    words: float | None  #: of a logistic regression on bags of words; None for free text


def finetune(config: FinetuneConfig, interruption: Interruption | None = None) -> list[TaskResult]:
    """Fine-tune until all steps are done, or resume, and return the results of the tasks.

    The run's folder is as that of `model.pretrain`; ``RUN/best/TASK`` has the best checkpoint of
    each task and ``RUN/best.json`` its scores. A user's own pairs are kept in ``RUN/data``.

    Args:
      config: the fine-tuning.
      interruption: as of `model.training.trainer.train`.

    Raises as `model.training.trainer.train` does, and ValueError for a source, tasks or pairs that
    cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        job = _Job(config, pathlib.Path(scratch))
        train(job.config, interruption, job.evaluators, job.notes, job.judged())
        return job.results()


def result_table(results: Sequence[TaskResult]) -> list[str]:
    """Return the lines of a table of results.

    >>> for line in result_table([TaskResult("own", "accuracy", 91.25, 400, 90.5, 50.0, 88.5)]):
    ...     print(line)
    task  metric     best  step   last  majority  bag of words
    own   accuracy  91.25   400  90.50     50.00         88.50
    """

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    rows = [("task", "metric", "best", "step", "last", "majority", "bag of words")]
    rows += [
        (
            each.task, each.metric, number(each.best),
            "-" if each.step is None else f"{each.step:,}",
            number(each.last), number(each.majority), number(each.words),
        )
        for each in results
    ]  # fmt: skip
    return list(text_table(rows, right=range(2, 7)))


class _Job:
    """A fine-tuning as a run of the trainer."""

    def __init__(self, asked: FinetuneConfig, scratch: pathlib.Path) -> None:
        self._asked, self._scratch = asked, scratch
        self.notes: list[str] = []
        base = self._base_model()
        tasks = self._task_inputs()
        self.config = self._train_config(base, tasks)
        self._tasks = evaluated_tasks(tasks, asked.keep_best)
        self._require_validation(tasks)
        self._best: BestCheckpoints | None = None
        if self.config.trained in ("adapters", "adapters-and-norms"):
            self.notes.append(self._trained_share())

    def _trained_share(self) -> str:
        """Return how much of the model an adapter layers' mask trains."""
        model, norms = T5(self.config.model), self._asked.adapter_norms
        sizes = jax.tree.map(
            lambda trained, leaf: leaf.size if trained else 0,
            adapter_mask(model, norms),
            model.param_shapes(),
        )
        count = sum(jax.tree.leaves(sizes))
        return (
            f"adapter layers of width {self._asked.adapter}: {count:,} of "
            f"{self.config.model.parameter_count():,} parameters are trained"
        )

    def _base_model(self) -> BaseModel:
        asked = self._asked
        if asked.source is not None:
            return open_base_model(asked.source, self._scratch)
        assert asked.model is not None
        assert asked.vocabulary is not None
        vocabulary = Vocabulary(asked.vocabulary)
        return require_trainable(BaseModel(asked.model, vocabulary), f"{vocabulary.path} (--vocab)")

    def _task_inputs(self) -> tuple[TaskInput, ...]:
        """Return the tasks at the rates of their mixture, in proportion to their examples."""
        asked = self._asked
        folders: dict[str, str] = {}
        for name in asked.tasks:
            if is_pairs_file(name):
                _, line = prepare_own(name, asked.validation, self._scratch)
                self.notes.append(line)
                folders[OWN] = str(self._scratch)
            else:
                folders |= dict.fromkeys(mixture(name, unsupervised=False).tasks, str(asked.data))
        opened = {name: Prepared(folder, name, asked.form) for name, folder in folders.items()}
        counts = {name: data.pair_counts.get("train", 0) for name, data in opened.items()}
        empty = [name for name, count in counts.items() if not count]
        if empty:
            raise ValueError(f"{', '.join(empty)} has no training examples (--task)")
        rates = mixture(tuple(folders)).rates(counts)
        return tuple(
            TaskInput(data=folder, name=name, form=asked.form, rate=rates[name])
            for name, folder in folders.items()
        )

    def _train_config(self, base: BaseModel, tasks: tuple[TaskInput, ...]) -> TrainConfig:
        asked = self._asked
        on_cpu = jax.default_backend() == "cpu"
        given = (asked.steps, asked.batch_size, asked.input_length)
        steps, batch_size, input_length = (
            chosen if value is None else value
            for value, chosen in zip(given, _CPU if on_cpu else _PAPER, strict=True)
        )
        model = self._model(base.config, "float32" if on_cpu else "bfloat16")
        data = InputConfig(
            **{"workers": min(8, len(os.sched_getaffinity(0)) // 2)}
            | asked.others_of(InputConfig)
            | {
                "tasks": tasks, "vocabulary": base.vocabulary, "batch_size": batch_size,
                "input_length": input_length, "target_length": asked.target_length,
                "seed": asked.seed, "architecture": model.architecture,
            },
        )  # fmt: skip
        step = StepConfig(
            **{"prng": "threefry2x32" if on_cpu else "rbg"}
            | asked.others_of(StepConfig)
            | {"seed": asked.seed, "loss_divisor": asked.loss_divisor},
        )
        eval_every = asked.eval_every
        if eval_every is None:
            eval_every = min(_MOST_BETWEEN, max(1, steps // _EVALUATIONS))
        return TrainConfig(
            **asked.others_of(TrainConfig)
            | {
                "model": model, "data": data, "step": step, "out": asked.out, "steps": steps,
                "schedule": asked.schedule, "learning_rate": asked.learning_rate,
                "init_from": None if asked.draws_parameters else asked.source,
                "optimizer_state": "new" if asked.draws_parameters else asked.optimizer_state,
                "trained": asked.trained, "checkpoint_every": asked.checkpoint_every,
                "eval_every": eval_every, "option_names": _OPTION_NAMES,
            },
        )  # fmt: skip

    def _model(self, found: ModelConfig, dtype: str) -> ModelConfig:
        asked = self._asked
        changes = {"dtype": dtype, "dropout_rate": asked.dropout_rate}
        changes |= asked.others_of(ModelConfig)
        if asked.adapter is not None:
            if found.adapter not in (None, asked.adapter):
                raise ValueError(
                    f"{asked.source} has adapter layers of width {found.adapter}, got "
                    f"{asked.adapter} (--adapter)"
                )
            changes["adapter"] = asked.adapter
        return found.replace(**changes)

    def _require_validation(self, tasks: Sequence[TaskInput]) -> None:
        there = {task.name for task in self._tasks}
        without = [task.name for task in tasks if task.name not in there]
        if not there and self.config.eval_every:
            raise ValueError(
                f"{', '.join(without)}: no validation data, so no checkpoint can be the best: "
                "prepare it, or give --eval-every 0"
            )
        if without and there:
            self.notes.append(f"note: no validation data of {', '.join(without)}")

    def judged(self) -> dict[str, Any]:
        """Return what the best checkpoint depends on: only the same run resumes."""
        digest = hashlib.sha256()
        for task in self._tasks:
            for split in task.splits:
                digest.update(f"{task.name} {split} {task.prepared.digests[split]}\n".encode())
        return {
            "validation": digest.hexdigest() if self._tasks else None,
            "keep_best": self._asked.keep_best,
            "eval_limit": self._asked.eval_limit,
        }

    def evaluators(self, plan: Plan) -> list[Evaluator]:
        """Return the evaluator of the tasks; called when the run's folder is there."""
        folder, data, config = plan.folder.path, plan.data, plan.config.model
        if distributed.is_first() and (self._scratch / OWN).is_dir():
            self._keep_pairs(folder / "data" / OWN)
        vocabulary: Any = data.vocabulary
        remote, resumes = plan.folder.remote, plan.folder.has_checkpoint()
        if remote is None:
            self._best = BestCheckpoints(folder, config, vocabulary.path, resumes=resumes)
        else:
            self._best = RemoteBest(remote, config, vocabulary.path, resumes=resumes)
        predictor = Predictor(
            config,
            vocabulary,
            batch_size=plan.config.evaluation_rows(data).batch_size,
            input_length=data.input_length,
            max_new_tokens=data.lengths.targets,
            placement=plan.placement,
        )
        evaluate = task_evaluator(self._tasks, predictor, self._best, self._asked.eval_limit)
        return [_naming_cuts(evaluate, predictor, data.input_length)]

    def _keep_pairs(self, kept: pathlib.Path) -> None:
        """Keep the user's pairs with the run, so that it can be evaluated on the same."""
        work = kept.with_name(f".{kept.name}.tmp")
        for left in (work, kept):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self._scratch / OWN, work)
        work.rename(kept)

    def results(self) -> list[TaskResult]:
        """Return how each task came out; nothing but in the first process, which records it."""
        if not distributed.is_first():
            return []
        rows = read_rows(storage.join(self.config.out, "metrics.jsonl"))
        kept = {} if self._best is None else self._best.kept()
        return [self._result(task, kept.get(task.name, {}), rows) for task in self._tasks]

    def _result(self, task: EvaluatedTask, record: dict[str, Any], rows: list[Any]) -> TaskResult:
        found = (scores_in(row, task) for row in reversed(rows))
        return TaskResult(
            task=task.name,
            metric=task.metric,
            best=record.get("value"),
            step=record.get("step"),
            last=next((value for value in found if value is not None), None),
            majority=majority_score(task, self._asked.eval_limit),
            words=bag_of_words_score(task, self._asked.eval_limit),
        )


def _naming_cuts(evaluate: Evaluator, predictor: Predictor, length: int) -> Evaluator:
    """Return an evaluator whose first line says how many inputs were too long, if any were."""

    def named(step: int, params: Any, values: Mapping[str, float]) -> Evaluation:
        before = predictor.truncated
        found = evaluate(step, params, values)
        if before or not predictor.truncated:
            return found
        note = f"{predictor.truncated:,} inputs were cut to {length} tokens (--input-length)"
        return found._replace(line=f"{found.line}; {note}")

    return named
