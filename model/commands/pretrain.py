"""``c4 pretrain``: checks what is asked for, says what it comes to, trains."""

import argparse
import dataclasses
import json
import logging
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from model.data.objectives import OBJECTIVES, Objective, objective
from model.options import option_of
from model.t5.config import ARCHITECTURES, SIZES, ModelConfig, model_config

if TYPE_CHECKING:
    from model.data.rows import InputConfig
    from model.data.vocabulary import Vocabulary
    from model.training.train_config import TrainConfig
    from model.training.train_step import StepConfig

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``c4 pretrain``."""
    parser.epilog = textwrap.dedent(
        """\
        The same command run again goes on from the newest checkpoint in --out. Then --steps,
        --mesh, --accumulate, --remat, --attention, --workers and what is logged or kept may be
        others; anything else is refused.

        exit status: 0 done; 1 failed, refused, or stopped because the loss is no number or
        diverges; 2 wrong usage; 130 interrupted (SIGINT or SIGTERM: the state was saved)
        """
    )
    parser.add_argument("--corpus", metavar="DIR", help="a finished corpus of c4 build")
    parser.add_argument("--vocab", metavar="FILE", help="SentencePiece model, as c4 vocab makes it")
    parser.add_argument(
        "--out", "--output", dest="out", metavar="DIR", help="folder of the run, new or begun"
    )

    group = parser.add_argument_group("model")
    group.add_argument("--size", metavar="NAME", help=f"one of {', '.join(SIZES)} (default: small)")
    group.add_argument(
        "--architecture",
        metavar="NAME",
        help=f"one of {', '.join(ARCHITECTURES)} (default: encoder-decoder)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of the size, such as d_model=64 or num_layers=2; may be repeated",
    )
    group.add_argument(
        "--init-from",
        metavar="CKPT",
        help="begin with the parameters of a folder of c4 import-hf or of another run, and its "
        "vocabulary unless --vocab is given",
    )
    group.add_argument("--dropout", type=float, metavar="RATE", help="default: that of the size")
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="of activations (default: bfloat16 on TPUs and GPUs, float32 on CPUs)",
    )
    group.add_argument(
        "--remat",
        choices=["none", "dots", "full"],
        default="none",
        help="what the backward pass computes again to save memory (default: none)",
    )
    group.add_argument(
        "--attention", choices=["auto", "plain", "fused"], default="auto",
        help="its kernel (default: auto, fused where the device has one)",
    )  # fmt: skip

    group = parser.add_argument_group("objective")
    group.add_argument(
        "--objective",
        default="span3",
        metavar="NAME",
        help=f"one of {', '.join(OBJECTIVES)} (default: span3)",
    )
    group.add_argument(
        "--noise-density", type=float, metavar="SHARE", help="of tokens that are noise"
    )
    group.add_argument(
        "--batch-size", type=int, default=128, metavar="N",
        help="sequences a step, on all devices together (default: 128)",
    )  # fmt: skip
    group.add_argument(
        "--input-length", type=int, default=512, metavar="N",
        help="tokens of the inputs; the objective solves the targets' (default: 512)",
    )  # fmt: skip
    group.add_argument(
        "--max-pages", type=int, metavar="N",
        help="train on the first N pages only, again and again",
    )  # fmt: skip
    group.add_argument(
        "--format",
        choices=["parquet", "tfrecord", "json"],
        help="shards to read, if there are several",
    )

    group = parser.add_argument_group("training")
    group.add_argument(
        "--steps", type=int, default=2**19, metavar="N", help="default: 524288, the paper's"
    )
    group.add_argument(
        "--accumulate", type=int, default=1, metavar="N",
        help="take a batch in N parts, one after another, to save memory (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--learning-rate-schedule", default="inverse-square-root", metavar="NAME",
        help="inverse-square-root (default) or constant",
    )  # fmt: skip
    group.add_argument(
        "--learning-rate", type=float, metavar="RATE",
        help="the schedule's scale (default: 1 of inverse-square-root, 0.001 of constant)",
    )  # fmt: skip
    group.add_argument(
        "--warmup", type=int, default=10_000, metavar="N",
        help="steps at the first learning rate, 1/sqrt(N) (default: 10000)",
    )  # fmt: skip
    group.add_argument(
        "--z-loss", type=float, default=1e-4, metavar="FACTOR", help="default: 0.0001"
    )
    group.add_argument(
        "--label-smoothing", type=float, default=0.0, metavar="SHARE", help="default: 0"
    )
    group.add_argument(
        "--loss-divisor",
        default="batch-length",
        choices=["batch-length", "tokens", "sum"],
        help="what the losses' sum is divided by: sequences times target length (default), target "
        "tokens, or nothing",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")

    group = parser.add_argument_group("checkpoints, evaluation, metrics")
    group.add_argument(
        "--checkpoint-every", type=int, default=5000, metavar="N", help="steps (default: 5000)"
    )
    group.add_argument(
        "--keep-last", type=int, default=3, metavar="N", help="newest to keep (default: 3)"
    )
    group.add_argument(
        "--keep-every", type=int, metavar="N",
        help="also keep those whose step is a multiple of N",
    )  # fmt: skip
    group.add_argument(
        "--eval-every", type=int, metavar="N",
        help="steps between evaluations on the validation split, 0 for none (default: as "
        "--checkpoint-every, where there are validation pages)",
    )  # fmt: skip
    group.add_argument(
        "--eval-batches", type=int, default=16, metavar="N",
        help="batches of an evaluation (default: 16)",
    )  # fmt: skip
    group.add_argument(
        "--divergence", type=float, default=2.0, metavar="NATS",
        help="stop when the mean of 100 losses rises that far above its best (default: 2)",
    )  # fmt: skip
    group.add_argument(
        "--log-every", type=int, default=100, metavar="N",
        help="steps to a line of the log and a point of TensorBoard; metrics.jsonl has every step "
        "(default: 100)",
    )  # fmt: skip
    group.add_argument(
        "--peak-tflops", type=float, metavar="N",
        help="of one device, for model FLOP utilisation (default: known for TPUs and many GPUs)",
    )  # fmt: skip
    group.add_argument(
        "--profile", type=int, default=0, metavar="N",
        help="trace N steps with JAX's profiler into OUT/profile",
    )  # fmt: skip
    group.add_argument("--quiet", action="store_true", help="no progress")

    group = parser.add_argument_group("devices")
    group.add_argument(
        "--mesh", default="auto", metavar="AXES",
        help="data=2,fsdp=4,tensor=1, any of the three, -1 for what is left; default: auto",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=int, metavar="N",
        help="processes that prepare the input, 0 for none (default: half the cores, at most 8)",
    )  # fmt: skip
    group.add_argument(
        "--input-shards", type=int, metavar="N",
        help="parts of the corpus read side by side, a multiple of the hosts that a run may ever "
        "have (default: as many as hosts)",
    )  # fmt: skip
    group.add_argument(
        "--compile-only", metavar="TOPOLOGY",
        help="compile the step for a TPU pod such as v3:32x32 on this machine and say whether it "
        "fits and what it takes; reads no corpus",
    )  # fmt: skip
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything that can be checked, print what would be trained, train nothing",
    )
    group = parser.add_argument_group(
        "several processes", "Not needed on TPU pods, nor under srun or mpirun: they are found."
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process-id", type=int, metavar="K", help="number of this one, from 0")


def run(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Trains as the options say. Returns the exit status."""
    del rest
    if arguments.compile_only is not None:
        from model.pods import compile_step

        status: int = compile_step.run(arguments)
        return status
    for name in ("corpus", "out"):
        if getattr(arguments, name) is None:
            raise ValueError(
                f"--{name} is missing: c4 pretrain --corpus DIR --vocab FILE --out DIR"
            )
    for name in ("corpus", "out", "vocab", "init_from", "size", "architecture"):
        if getattr(arguments, name) == "":
            raise ValueError(f"--{name.replace('_', '-')} is empty")
    noise = objective_of(arguments)
    start = _Start.of(arguments)
    if not os.environ.get("C4_TRACEBACK"):
        # Orbax logs the traceback of what it raises, asyncio that of what failed beside it; a
        # failure is told once, in a line.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)

    # Before anything asks JAX for devices.
    from model.devices import pass_over_absent_tpus
    from model.training import distributed

    pass_over_absent_tpus()

    distributed.initialize(
        distributed.Cluster(
            coordinator=arguments.coordinator,
            processes=arguments.processes,
            process_id=arguments.process_id,
        )
    )
    try:
        config = _train_config(arguments, noise, start)
        from model.training import trainer

        _check_sentinels(config.data)
        if arguments.dry_run:
            _print_plan(config, trainer.check(config))
        else:
            trainer.train(config, arguments.asked)
        return 0
    finally:
        distributed.shutdown()


def _check_sentinels(data: "InputConfig") -> None:
    """Print a warning where texts may have more noise spans than the vocabulary has sentinels.

    Raises ValueError where the objective needs sentinels and there are none.
    """
    from model.training.distributed import is_first

    needed, there = data.objective.most_sentinels(data.lengths.raw), data.vocabulary.extra_ids
    if data.objective.sentinels and not there:
        without = ", ".join(name for name, other in OBJECTIVES.items() if not other.sentinels)
        raise ValueError(
            f"objective {data.objective.name} needs sentinels, and the vocabulary has none: "
            f"{without} need none (--objective)"
        )
    if needed > there and is_first():
        print(
            f"c4: warning: objective {data.objective.name} makes up to {needed} spans of a text of "
            f"{data.lengths.raw} tokens, and the vocabulary has {there} sentinels: spans beyond "
            f"the last share it; c4 vocab --extra-ids {needed} makes more, and a smaller "
            "--input-length or --noise-density needs fewer",
            file=sys.stderr,
            flush=True,
        )


def objective_of(arguments: argparse.Namespace) -> Objective:
    """The objective asked for. Raises ValueError for an unknown one."""
    chosen = objective(arguments.objective)
    if arguments.noise_density is None:
        return chosen
    return chosen.replace(noise_density=arguments.noise_density)


def model_of(
    arguments: argparse.Namespace, vocab_size: int | None = None, dtype: str = "bfloat16"
) -> ModelConfig:
    """The model asked for by its size.

    ``dtype`` is what --dtype defaults to. Raises ValueError for a size, an architecture or a
    value that cannot be.
    """
    changes = {**_set_values(arguments.set), **_how(arguments, dtype)}
    if vocab_size is not None:
        changes["vocab_size"] = vocab_size
    return model_config(
        arguments.size or "small", arguments.architecture or "encoder-decoder", **changes
    )


def step_of(arguments: argparse.Namespace, prng: Literal["threefry2x32", "rbg"]) -> "StepConfig":
    """The step asked for, its masks drawn by ``prng``. Raises ValueError for what cannot be."""
    from model.training.train_step import StepConfig

    return StepConfig(
        accumulate=arguments.accumulate,
        z_loss=arguments.z_loss,
        loss_divisor=arguments.loss_divisor,
        label_smoothing=arguments.label_smoothing,
        seed=arguments.seed,
        prng=prng,
    )


def _how(arguments: argparse.Namespace, dtype: str) -> dict[str, Any]:
    changes = {
        "dtype": arguments.dtype or dtype,
        "remat": arguments.remat,
        "attention": arguments.attention,
    }
    if arguments.dropout is not None:
        changes["dropout_rate"] = arguments.dropout
    return changes


def _set_values(assignments: Sequence[str]) -> dict[str, Any]:
    """What ``--set`` gives, as the values of fields.

    >>> _set_values(["d_model=64", "tied_logits=false", "feed_forward=gated-gelu"])
    {'d_model': 64, 'tied_logits': False, 'feed_forward': 'gated-gelu'}
    """
    fields = {field.name: field.type for field in dataclasses.fields(ModelConfig)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or name not in fields:
            known = ", ".join(sorted(name for name in fields if _is_set(name)))
            raise ValueError(f"--set {assignment}: write NAME=VALUE; names: {known}")
        if not _is_set(name):
            option = option_of(f"model.{name}")
            raise ValueError(f"--set {assignment}: {name} is given by {option}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        wants_bool, wants_float = fields[name] is bool, fields[name] is float
        if wants_bool != isinstance(value, bool) or (
            wants_float and not isinstance(value, int | float)
        ):
            raise ValueError(f"--set {assignment}: {text!r} is no value of {name}")
        values[name] = value
    return values


def _is_set(field: str) -> bool:
    """Return whether ``--set`` sets this field of the model."""
    return "--set" in option_of(f"model.{field}")


@dataclasses.dataclass(frozen=True)
class _Start:
    """What a run starts from, besides its options."""

    vocabulary: "Vocabulary"
    model: ModelConfig | None  #: of --init-from

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "_Start":
        from model.data.vocabulary import Vocabulary

        path, config = arguments.vocab, None
        if arguments.init_from is not None:
            for name in ("size", "architecture"):
                if getattr(arguments, name) is not None:
                    raise ValueError(f"--init-from says which model it is: leave --{name} out")
            if arguments.set:
                raise ValueError("--init-from says which model it is: leave --set out")
            from model.training.checkpoints import read_model

            config, kept = read_model(arguments.init_from)
            if (
                path is not None
                and kept is not None
                and not Vocabulary(path).same_as(Vocabulary(kept))
            ):
                raise ValueError(
                    f"{path} differs from the vocabulary of {arguments.init_from}, whose embedding "
                    "would not fit it: leave --vocab out"
                )
            path = kept or path
            if path is None:
                raise ValueError(
                    f"--vocab is missing: {arguments.init_from} keeps no vocabulary, so give the "
                    "SentencePiece model that it was trained with"
                )
        if path is None:
            raise ValueError("--vocab is missing: c4 vocab makes one from a corpus")
        vocabulary = Vocabulary(path)
        if vocabulary.obstacle is not None:
            raise ValueError(
                f"{path}: {vocabulary.obstacle}, so T5's tokenizer, with which the trained model "
                "would be used, would give other ids: give another vocabulary (--vocab)"
            )
        return cls(vocabulary, config)


def _train_config(
    arguments: argparse.Namespace, noise: Objective, start: _Start
) -> "TrainConfig":  # fmt: skip
    import jax

    from model.data.rows import InputConfig
    from model.training.train_config import TrainConfig

    on_cpu = jax.default_backend() == "cpu"
    dtype = "float32" if on_cpu else "bfloat16"
    if start.model is None:
        model = model_of(arguments, start.vocabulary.padded_size, dtype)
    else:
        model = start.model.replace(**_how(arguments, dtype))
        if start.vocabulary.id_count > model.vocab_size:
            raise ValueError(
                f"{start.vocabulary.path} has {start.vocabulary.id_count} ids, the model of "
                f"{arguments.init_from} {model.vocab_size}: give the vocabulary it was trained "
                "with (--vocab)"
            )
    data = InputConfig(
        corpus=arguments.corpus,
        vocabulary=start.vocabulary,
        objective=noise,
        architecture=model.architecture,
        batch_size=arguments.batch_size,
        input_length=arguments.input_length,
        seed=arguments.seed,
        format=arguments.format,
        max_pages=arguments.max_pages,
        input_shards=arguments.input_shards,
        workers=_workers(arguments.workers),
    )
    step = step_of(arguments, "threefry2x32" if on_cpu else "rbg")
    peak = arguments.peak_tflops
    if peak is not None and not peak > 0:
        raise ValueError(f"--peak-tflops must be positive, got {peak}")
    return TrainConfig(
        out=arguments.out,
        model=model,
        data=data,
        step=step,
        steps=arguments.steps,
        schedule=arguments.learning_rate_schedule,
        learning_rate=arguments.learning_rate,
        warmup=arguments.warmup,
        init_from=arguments.init_from,
        mesh=arguments.mesh,
        checkpoint_every=arguments.checkpoint_every,
        keep_last=arguments.keep_last,
        keep_every=arguments.keep_every,
        eval_every=arguments.eval_every,
        eval_batches=arguments.eval_batches,
        divergence=arguments.divergence,
        log_every=arguments.log_every,
        peak_flops=None if peak is None else peak * 1e12,
        profile_steps=arguments.profile,
        quiet=arguments.quiet,
    )


def _workers(asked: int | None) -> int:
    if asked is not None:
        return asked
    return min(8, len(os.sched_getaffinity(0)) // 2)


def _print_plan(config: "TrainConfig", layout: Any) -> None:
    from model.data.passes import corpus_size

    spec, model = config.data.batch_spec(), config.model
    lengths = config.data.lengths
    print(
        f"model        {model.architecture}, {model.parameter_count():,} parameters: "
        f"{model.num_layers} layers of d_model {model.d_model}, d_ff {model.d_ff}, "
        f"{model.num_heads} heads of {model.d_kv}, {model.feed_forward}, vocabulary "
        f"{model.vocab_size:,}, dropout {model.dropout_rate:g}, {model.dtype}"
    )
    print(f"mesh         {layout.shape} of {layout.mesh.devices.flat[0].device_kind}")
    print(
        f"state        {layout.bytes_per_device() / 2**20:,.1f} MiB a device, without activations"
    )
    noise = {
        name.replace("_", " "): value
        for name, value in dataclasses.asdict(config.data.objective).items()
        if value is not None and name not in ("name", "approach")
    }
    print(
        f"objective    {config.data.objective.name}: {config.data.objective.approach}, "
        + ", ".join(f"{name} {value}" for name, value in noise.items())
    )
    print(
        f"batch        {spec.batch_size} sequences of {lengths.inputs} + {lengths.targets} tokens "
        f"from pieces of {lengths.raw}, in {config.step.accumulate} microbatch(es)"
    )
    rate = "the paper's" if config.learning_rate is None else config.learning_rate
    print(f"schedule     {config.schedule}, scale {rate}, warmup {config.warmup:,}")
    print(f"steps        {config.steps:,}: {config.steps * spec.tokens:,} tokens")
    size = corpus_size(config.data, config.data.input_shards or 1)
    print(f"corpus       {size.described(config.steps * config.data.batch_size)}")
