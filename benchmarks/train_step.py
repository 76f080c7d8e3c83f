"""Time one training step of T5 against Hugging Face's in PyTorch: forward and backward passes.

    python -m benchmarks.train_step --peer-python PYTHON            # small, float32, on the CPU
    python -m benchmarks.train_step --peer-python PYTHON --size base --batch 128 \
        --dtype bfloat16 --peer-compile whole --peak-tflops 989     # on a GPU

`PYTHON` is an interpreter that has PyTorch and Transformers; without it only ours is timed. Both
take the same shapes (512 input and 114 target tokens, no padding), the same dropout rate and the
mean cross-entropy; both compute the loss and the gradients of all parameters. With bfloat16 the
peer runs twice, with bfloat16 parameters and with autocast over float32 parameters, and the faster
one counts (see hf_peer.py). `--dropout 0` compares without dropout.

Ours and the peer run in processes of their own. On a CPU their steps alternate, so that other load
on the machine affects both; on a GPU one process runs after the other has ended, so that each has
the card for itself. The fastest step counts. Bar: ours takes no longer than the peer; otherwise the
exit status is 1.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import hf_peer
from benchmarks.step_process import StepProcess, fastest, make_batch, serve

_OURS = "--as-ours"


def step_parser() -> argparse.ArgumentParser:
    """Return a parser of the options that describe a training step."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--size", default="small", help="a size of model/t5/config.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=512, help="tokens of an input")
    parser.add_argument("--targets", type=int, default=114, help="tokens of a target")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--dropout", type=float, default=0.1, help="of both")
    parser.add_argument("--remat", choices=["none", "dots", "full"], default="none")
    parser.add_argument("--attention", choices=["auto", "plain", "fused"], default="auto")
    parser.add_argument("--repeat", type=int, default=5, help="steps of each, after one to warm up")
    parser.add_argument("--peer-python", help="interpreter with torch and transformers")
    parser.add_argument("--peer-attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument(
        "--peer-compile", choices=["no", "whole", "blocks"], default="no",
        help="what torch.compile takes of the peer",
    )  # fmt: skip
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.train_step",
        description=(__doc__ or "").partition("\n")[0],
        parents=[step_parser()],
    )
    parser.add_argument("--peak-tflops", type=float, help="of the device; prints utilisation")
    parser.add_argument(_OURS, action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def config_of(options: argparse.Namespace) -> Any:
    """Return the `ModelConfig` that the options describe."""
    from model.t5.config import model_config  # imports no JAX

    return model_config(
        options.size, dtype=options.dtype, dropout_rate=options.dropout,
        remat=options.remat, attention=options.attention,
    )  # fmt: skip


def our_step(options: argparse.Namespace) -> Callable[[], float]:
    """Return a function that runs one step of ours and returns its loss."""
    import jax

    from model.t5.network import T5
    from model.training.train_config import StepConfig
    from model.training.train_step import batch_loss

    config = config_of(options)
    model = T5(config)
    params = jax.jit(model.init)(jax.random.key(0))
    batch = jax.device_put(
        make_batch(config.vocab_size, options.batch, options.inputs, options.targets)
    )

    loss_sum = batch_loss(model, StepConfig(z_loss=0))  # the peer has no z-loss

    def mean_loss(params: Any, batch: Any, rng: Any) -> Any:
        loss, sums = loss_sum(params, batch, rng)
        return loss / sums.tokens

    step = jax.jit(jax.value_and_grad(mean_loss))
    rngs = iter(jax.random.split(jax.random.key(1), 1000))

    def run() -> float:
        loss, gradients = step(params, batch, next(rngs))
        jax.block_until_ready(gradients)
        return float(loss)

    return run


def peak_gb() -> float:
    """Return the most memory of the device that JAX has used, in GB; 0 where it is unknown."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    return round(stats.get("peak_bytes_in_use", 0) / 1e9, 1)


def serve_ours(options: argparse.Namespace) -> None:
    import jax

    device = jax.devices()[0]
    serve(
        our_step(options), peak_gb,
        jax=jax.__version__, platform=device.platform, device=device.device_kind,
    )  # fmt: skip


def main(argv: list[str]) -> int:
    options = parse(argv)
    if options.as_ours:
        serve_ours(options)
        return 0
    if options.repeat < 1:
        raise SystemExit(f"--repeat must be positive, got {options.repeat}")
    ways = ["float32"] if options.dtype == "float32" else ["bfloat16", "autocast"]
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(
            StepProcess([sys.executable, "-m", "benchmarks.train_step", *argv, _OURS])
        )
        ours.start()
        print(
            f"{options.size} {options.dtype}, dropout {options.dropout}, batch {options.batch} x "
            f"{options.inputs}/{options.targets}; first step {ours.about['seconds']:.1f} s"
        )
        print(f"ours: JAX {ours.about['jax']} on {ours.about['device']}")
        taken, theirs = race(options, ours, ways if options.peer_python else [])
    report(options, taken, "ours")
    for line, seconds in theirs.items():
        print(f"theirs: {line}")
        report(options, seconds, "theirs")
    if not theirs:
        return 0
    ratio = taken / min(theirs.values())
    print(f"ours / theirs: {ratio:.3f}")
    return int(ratio > 1)


def race(
    options: argparse.Namespace, ours: StepProcess, ways: Sequence[str]
) -> tuple[float, dict[str, float]]:
    """Return the seconds of our fastest step, and those of each peer's by its description.

    Args:
      options: of the command.
      ours: the process of our step, which has begun.
      ways: the types of the peer's parameters, each a peer.
    """
    theirs: dict[str, float] = {}
    apart = ours.about["platform"] != "cpu"
    taken = float("inf")
    if apart or not ways:
        taken = fastest({"ours": ours}, options.repeat)["ours"]
        ours.close()
    for way in ways:
        with hf_peer.start_peer(options, way) as peer:
            peer.start()
            racers = {"theirs": peer} if apart else {"ours": ours, "theirs": peer}
            found = fastest(racers, options.repeat)
            taken = min(taken, found.get("ours", taken))
            theirs[hf_peer.describe(peer.about, options)] = found["theirs"]
    return taken, theirs


def flops_of(options: argparse.Namespace) -> float:
    """Return the model's FLOPs of one step, see model/t5/flops.py."""
    from model.t5.flops import step_flops

    return step_flops(config_of(options), options.batch, options.targets, options.inputs)


def report(options: argparse.Namespace, seconds: float, whose: str) -> None:
    tokens = options.batch * (options.inputs + options.targets)
    line = f"{whose}: {seconds:.3f} s a step, {tokens / seconds:,.0f} tokens/s"
    if options.peak_tflops:
        utilisation = flops_of(options) / seconds / (options.peak_tflops * 1e12)
        line += f", {utilisation:.1%} model FLOP utilisation"
    print(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
