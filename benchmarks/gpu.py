"""Check and time the trainer on one NVIDIA GPU in a few minutes.

    python -m benchmarks.gpu --out DIR --seconds 320         # all stages that fit, in this order
    python -m benchmarks.gpu --out DIR --only check,step-base
    python -m benchmarks.gpu --out DIR --tiny                # the same program on a CPU, to try it

Stages that check results come first, then those that measure speed, the most telling first.
The checkout need not be installed, and Beam is not needed. Each stage is a process of its own with
its own time limit: a stage that fails or runs out of memory does not stop the others, and JAX and
PyTorch never share the card. A stage is skipped if less time is left than it needs. After each
stage, `DIR/gpu.json` is written again, with one object for each stage by name: what it measured, or
"error" or "skipped" with one line; `DIR/stages.log` has all that the stages printed.

The golden models are read from ../shared/golden or .gpu/golden, the corpus and vocabulary of
`pretrain` from `make tour` or .gpu/ (.gpu/corpus, .gpu/vocab.model). The peer is Hugging Face's T5
(hf_peer.py) in this interpreter, or in that of --peer-python.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEAK = 989e12  # FLOP/s of an H100 or H200 in dense bfloat16, by the datasheet

_RESULT = "RESULT "  # begins the lines by which a stage reports
_CACHE = pathlib.Path(tempfile.gettempdir(), f"c4-gpu-cache-{os.getuid()}")
_OURS = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", "JAX_COMPILATION_CACHE_DIR": str(_CACHE)}
_EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # float32 products are TF32 otherwise


@dataclasses.dataclass(frozen=True)
class Stage:
    """One measurement.

    Attributes:
      limit: seconds after which it is stopped.
      needs: seconds that must be left to begin it.
      arguments: of this program, behind --stage.
      environment: variables of its process.
    """

    limit: float
    needs: float
    arguments: Sequence[str]
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: _OURS)


def _step(kind: str, size: str, rows: int, *more: str) -> list[str]:
    return [kind, "--size", size, "--batch", str(rows), *more]


_FUSED = ("--attention", "fused")
_DOTS = (*_FUSED, "--remat", "dots")
_WHOLE = ("--peer-compile", "whole")
_BF16 = ("--params", "bfloat16")

STAGES: Mapping[str, Stage] = {
    "card": Stage(40, 20, ["card"]),
    "golden": Stage(60, 25, ["golden"], {**_OURS, **_EXACT}),
    "check": Stage(90, 40, ["check"], {**_OURS, "XLA_FLAGS": "--xla_gpu_autotune_level=0"}),
    "ours-base-fused": Stage(90, 40, _step("ours", "base", 128, *_FUSED)),
    "peer-base-bf16": Stage(120, 60, _step("peer", "base", 128, *_BF16, *_WHOLE), {}),
    "ours-base-dots": Stage(70, 35, _step("ours", "base", 128, *_DOTS)),
    "step-base": Stage(80, 40, _step("step", "base", 128, *_FUSED)),
    "ours-base-plain": Stage(70, 35, _step("ours", "base", 128, "--attention", "plain")),
    "peer-base-autocast": Stage(
        120, 60, _step("peer", "base", 128, "--params", "autocast", *_WHOLE), {}
    ),
    "ours-base-dropout0": Stage(70, 35, _step("ours", "base", 128, *_FUSED, "--dropout", "0")),
    "peer-base-dropout0": Stage(
        120, 60, _step("peer", "base", 128, *_BF16, *_WHOLE, "--dropout", "0"), {}
    ),
    "ours-large-dots": Stage(100, 45, _step("ours", "large", 64, *_DOTS)),
    "peer-large-bf16": Stage(
        100, 45, _step("peer", "large", 64, *_BF16, "--peer-compile", "blocks"), {}
    ),
    "ours-small-fused": Stage(60, 30, _step("ours", "small", 128, *_FUSED)),
    "peer-small-bf16": Stage(80, 40, _step("peer", "small", 128, *_BF16, *_WHOLE), {}),
    "pretrain": Stage(100, 50, ["pretrain"]),
}


class SkipError(Exception):
    """A stage cannot run here; the message is the reason, one line."""


# The driver.


def drive(options: argparse.Namespace) -> int:
    """Run the stages and return 1 if one failed, else 0."""
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.seconds
    results: dict[str, Any] = {}
    with (out / "stages.log").open("w", encoding="utf-8") as log:
        for name in options.only or STAGES:
            stage, left = STAGES[name], end - time.monotonic()
            if left < stage.needs:
                reason = f"{max(left, 0):.0f} s left, needs {stage.needs:.0f} s"
                results[name] = {"skipped": reason}
            else:
                limit = stage.limit * (5 if options.tiny else 1)
                command = command_of(stage, options)
                results[name], printed = run_stage(
                    command, environment_of(stage, options.tiny), min(limit, left)
                )
                log.write(f"===== {name}: {json.dumps(results[name])[:400]}\n{printed}\n")
                log.flush()
            write_atomically(out / "gpu.json", json.dumps(results, indent=1) + "\n")
            print(f"{name:20s} {json.dumps(results[name])[:400]}", flush=True)
    print(table(results))
    return int(any("error" in result for result in results.values()))


def command_of(stage: Stage, options: argparse.Namespace) -> list[str]:
    """Return the command that runs a stage, in the root of the checkout."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--stage", *stage.arguments]
    command += ["--tiny"] * options.tiny
    for name in ("corpus", "vocab", "peer_python"):
        if value := getattr(options, name):
            command += [f"--{name.replace('_', '-')}", value]
    return command


def environment_of(stage: Stage, tiny: bool) -> dict[str, str]:
    """Return the environment of a stage's process."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if tiny:
        return {**environment, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    flags = [os.environ.get("XLA_FLAGS", ""), stage.environment.get("XLA_FLAGS", "")]
    return {**environment, **stage.environment, "XLA_FLAGS": " ".join(flags).strip()}


def run_stage(
    command: Sequence[str], environment: Mapping[str, str], limit: float
) -> tuple[dict[str, Any], str]:
    """Run one stage and return its result and the end of what it printed.

    Whatever it started ends with it, at the latest after `limit` seconds.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=environment, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        ending = ""
        try:
            status = process.wait(limit)
            if status < 0:
                ending = f"killed by {signal.Signals(-status).name}"
            elif status:
                ending = f"exit status {status}"
        except subprocess.TimeoutExpired:
            ending = f"stopped after its limit of {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):  # its children have its group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        file.seek(0)
        printed = file.read().decode("utf-8", "replace")
    lines = printed.splitlines()
    result: dict[str, Any] = {}
    for line in lines:
        if line.startswith(_RESULT):
            result |= json.loads(line.removeprefix(_RESULT))
    if ending and "error" not in result:
        last = next((line for line in reversed(lines) if _is_message(line)), "printed nothing")
        result["error"] = f"{ending}: {last.strip()[:300]}"
    result["wall_s"] = round(time.monotonic() - start, 1)
    return result, printed[-200_000:]


def _is_message(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(_RESULT)


def write_atomically(path: pathlib.Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def table(results: Mapping[str, Any]) -> str:
    """Return the summary; `of card` is the share of the product's speed that `card` measured."""
    ceiling = results.get("card", {}).get("matmul_tflops", 0) * 1e12
    lines = [
        f"{'stage':20s} {'batch':>5s} {'ms':>8s} {'tok/s':>10s} {'MFU989':>7s} {'of card':>7s} "
        f"{'GB':>6s}"
    ]
    for name, result in results.items():
        if "seconds" in result:
            rate = result["flops"] / result["seconds"]
            lines.append(
                f"{name:20s} {result['batch']:5d} {result['seconds'] * 1e3:8.1f} "
                f"{result['tokens'] / result['seconds']:10,.0f} {rate / PEAK:7.1%} "
                f"{rate / ceiling if ceiling else float('nan'):7.1%} {result['peak_gb']:6.1f}"
            )
        lines += [
            f"{name:20s} {word}: {result[word]}" for word in ("error", "skipped") if word in result
        ]
    return "\n".join(lines)


# The stages, each in a process of its own.


def run_as_stage(options: argparse.Namespace) -> int:
    """Run one stage in this process and report what it finds, also why it fails."""
    try:
        if options.stage != "peer" and not options.tiny:
            require_gpu(in_this_process=options.stage != "pretrain")
        globals()[options.stage](options)
    except SkipError as reason:
        report(skipped=str(reason))
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        report(error=f"{type(error).__name__}: {first[:300]}")
        return 1
    return 0


def require_gpu(*, in_this_process: bool) -> None:
    """Raise RuntimeError if JAX sees no GPU.

    JAX takes most of the card's memory when it is asked: where that is for another process, ask in
    a third one.
    """
    ask = "import jax; print(jax.default_backend())"
    if in_this_process:
        import jax

        backend = jax.default_backend()
    else:
        words = subprocess.check_output([sys.executable, "-c", ask], text=True).split()
        backend = words[-1]
    if backend != "gpu":
        raise RuntimeError(f"JAX sees no GPU, only {backend} (--tiny runs on a CPU)")


def report(**what: Any) -> None:
    """Report results to the driver; later ones are added."""
    print(_RESULT + json.dumps(what), flush=True)


def report_step(options: argparse.Namespace, **what: Any) -> None:
    """Report a step of `options.size`."""
    from benchmarks.train_step import flops_of

    report(
        size=options.size,
        batch=options.batch,
        dropout=options.dropout,
        tokens=options.batch * (options.inputs + options.targets),
        flops=flops_of(options),
        **what,
    )


def median_seconds(run: Callable[[], Any], times: int) -> float:
    """Return the median time of `run`, after three runs to warm up."""
    for _ in range(3):
        run()
    return statistics.median(timeit.repeat(run, number=1, repeat=times))


def timed_step(run: Callable[[], Any], times: int) -> dict[str, float]:
    """Return the seconds of a step, those of its first run, which compiles, and its memory."""
    from benchmarks.train_step import peak_gb

    first = round(timeit.timeit(run, number=1), 1)
    return {"first_s": first, "seconds": median_seconds(run, times), "peak_gb": peak_gb()}


def card(options: argparse.Namespace) -> None:
    """Measure the two ceilings: a bfloat16 product and a copy."""
    import importlib.metadata

    import jax
    import jax.numpy as jnp

    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    side, copies = (512, 1) if options.tiny else (8192, 8)
    a, b = (jax.random.normal(jax.random.key(k), (side, side), jnp.bfloat16) for k in (0, 1))
    x = jax.random.normal(jax.random.key(2), (copies * side * side,), jnp.float32)
    product, copy = jax.jit(lambda a, b: a @ b), jax.jit(lambda x: x + 1)
    product_s = median_seconds(lambda: product(a, b).block_until_ready(), 20)
    copy_s = median_seconds(lambda: copy(x).block_until_ready(), 10)
    report(
        device=jax.devices()[0].device_kind,
        versions={"python": sys.version.split()[0], **installed},
        matmul_tflops=round(2 * side**3 / product_s / 1e12, 4),
        copy_tb_s=round(2 * x.nbytes / copy_s / 1e12, 4),
    )


def golden(options: argparse.Namespace) -> None:
    """Run tests/model/t5/test_golden.py on the card, in float32."""
    places = [ROOT / ".." / "shared" / "golden", ROOT / ".gpu" / "golden"]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise SkipError("no golden models in ../shared/golden or .gpu/golden")
    os.environ["C4_GOLDEN"] = str(folder)
    import jax
    import pytest

    class Outcome:
        passed = 0

        def pytest_runtest_logreport(self, report: Any) -> None:
            self.passed += report.when == "call" and report.passed

    outcome = Outcome()
    # Without tests/conftest.py, which puts JAX on the CPU.
    status = pytest.main(
        ["-q", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts=",
         "-o", "filterwarnings=default", "tests/model/t5/test_golden.py"],
        plugins=[outcome],
    )  # fmt: skip
    report(backend=jax.default_backend(), passed=outcome.passed)
    if status or not outcome.passed:
        raise RuntimeError(f"pytest ended with status {int(status)}: {outcome.passed} tests passed")


def check(options: argparse.Namespace) -> None:
    """Compare loss and gradients in bfloat16, fused and plain, with float32; packed rows."""
    import jax
    import numpy as np

    from benchmarks import step_process
    from model.t5.config import model_config
    from model.t5.network import T5
    from model.training.train_config import StepConfig
    from model.training.train_step import batch_loss

    size, rows, lengths = ("tiny", 2, (32, 16)) if options.tiny else ("small", 8, (512, 114))
    fused = "auto" if options.tiny else "fused"
    random = np.random.default_rng(0)

    def segments(length: int) -> np.ndarray:  # up to three texts and, but for one row, padding
        cuts = np.sort(random.integers(2, length - 2, (rows, 3)), axis=1)
        ids = 1 + (np.arange(length) >= cuts[:, :1]) + (np.arange(length) >= cuts[:, 1:2])
        padded = np.where(np.arange(length) >= cuts[:, 2:], 0, ids)
        padded[0] = ids[0]
        return padded.astype(np.int32)

    batch = step_process.make_batch(model_config(size).vocab_size, rows, *lengths)
    batch |= {f"{side}_segments": segments(batch[f"{side}_segments"].shape[1])
              for side in ("encoder", "decoder")}  # fmt: skip
    batch["loss_weights"] = (batch["decoder_segments"] > 0).astype(np.float32)
    params = jax.jit(T5(model_config(size)).init)(jax.random.key(0))

    def gradients(dtype: str, path: str, dropout: float) -> tuple[float, dict[str, np.ndarray]]:
        config = model_config(size, dtype=dtype, attention=path, dropout_rate=dropout)
        loss_sum = batch_loss(T5(config), StepConfig(z_loss=0))

        def mean_loss(params: Any) -> Any:
            loss, sums = loss_sum(params, batch, jax.random.key(1))
            return loss / sums.tokens

        with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
            value, gradient = jax.jit(jax.value_and_grad(mean_loss))(params)
        leaves = jax.tree_util.tree_leaves_with_path(gradient)
        return float(value), {
            jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in leaves
        }

    compared: dict[str, Any] = {}
    bad = []
    for dropout in (0.1,) if options.tiny else (0.0, 0.1):
        exact_loss, exact = gradients("float32", "plain", dropout)
        norms = {leaf: np.linalg.norm(value) for leaf, value in exact.items()}
        errors: dict[str, dict[str, float]] = {}
        for name, path in {"plain": "plain", "fused": fused}.items():
            loss, found = gradients("bfloat16", path, dropout)
            error = {leaf: float(np.linalg.norm(found[leaf] - exact[leaf]) / norms[leaf])
                     for leaf in exact}  # fmt: skip
            worst = max(error, key=error.__getitem__)
            biases = [leaf for leaf in exact if "relative_bias" in leaf]
            errors[name] = error
            compared[f"{name} dropout {dropout}"] = {
                "loss": loss,
                "exact": exact_loss,
                "worst": [worst, round(error[worst], 4)],
                "bias_norm_ratio": {
                    leaf: float(np.linalg.norm(found[leaf]) / norms[leaf]) for leaf in biases
                },
                "bias_error": {leaf: round(error[leaf], 4) for leaf in biases},
            }
            if not abs(loss - exact_loss) < 0.01 * exact_loss:  # NaN is bad too
                bad.append([dropout, name, "loss", loss, exact_loss])
        for leaf, error_of_leaf in errors["fused"].items():
            if not error_of_leaf < 1.5 * errors["plain"][leaf] + 5e-3:
                bad.append(
                    [dropout, leaf, round(error_of_leaf, 4), round(errors["plain"][leaf], 4)]
                )
    report(backend=jax.default_backend(), bad=bad, **compared)
    if bad:
        raise RuntimeError(f"{len(bad)} gradients or losses are off, the first: {bad[0]}")


def ours(options: argparse.Namespace) -> None:
    """Time the step of benchmarks.train_step: loss and gradients."""
    from benchmarks import train_step

    losses: list[float] = []
    run = train_step.our_step(options)
    found = timed_step(lambda: losses.append(run()), options.repeat)
    report_step(options, loss=losses[0], **found)


def step(options: argparse.Namespace) -> None:
    """Time the whole training step: z-loss, metrics, Adafactor, donated state."""
    import jax

    from benchmarks import step_process, train_step
    from model.t5.network import T5
    from model.training.optimizer import inverse_square_root
    from model.training.train_step import Learner

    config = train_step.config_of(options)
    learner = Learner(T5(config), inverse_square_root())
    state = jax.jit(learner.init)(jax.random.key(0))
    batch = jax.device_put(
        step_process.make_batch(config.vocab_size, options.batch, options.inputs, options.targets)
    )
    program = jax.jit(learner.step, donate_argnums=0)
    losses = []

    def run() -> None:
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready(state)
        losses.append(float(metrics.sums.loss))

    found = timed_step(run, options.repeat)
    report_step(options, losses=[losses[0], losses[-1]], **found)


def peer(options: argparse.Namespace) -> None:
    """Time Hugging Face's T5; this process leaves the card to it."""
    from benchmarks import hf_peer
    from benchmarks.step_process import MissingError

    with hf_peer.start_peer(options, options.params) as process:
        try:
            process.start()
        except MissingError as error:
            raise SkipError(str(error)) from error
        report(peer=hf_peer.describe(process.about, options))
        steps = [process.step() for _ in range(3 + options.repeat)]  # three to warm up
    report_step(
        options,
        seconds=statistics.median(step["seconds"] for step in steps[3:]),
        first_s=round(process.about["seconds"], 1),
        loss=process.about["loss"],
        peak_gb=round(steps[-1]["peak_gb"], 1),
    )


def pretrain(options: argparse.Namespace) -> None:
    """Run `c4 pretrain` as a user does, and report how long the card waits for data."""
    corpus = options.corpus or _first_of(".gpu/corpus", "out/samples")
    vocab = options.vocab or _first_of(".gpu/vocab.model", "out/tour/samples.model")
    if not (corpus and vocab):
        raise SkipError("no corpus and vocabulary: run make tour, or give --corpus and --vocab")
    size = ["--size", "base", "--steps", "60"]
    if options.tiny:
        size = ["--size", "tiny", "--input-length", "64", "--batch-size", "8", "--steps", "4"]
        size += ["--workers", "0"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "pipelines.c4_main", "pretrain", "--corpus", corpus,
            "--vocab", vocab, "--out", folder, "--log-every", "1" if options.tiny else "20",
            "--eval-batches", "1", *size,
        ]  # fmt: skip
        ended = subprocess.run(command, check=False, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)  # fmt: skip
        print(ended.stdout)
        if ended.returncode:
            lines = [line for line in ended.stdout.splitlines() if line.strip()]
            reason = next((line for line in lines if line.startswith("c4: error")), lines[-1])
            raise RuntimeError(f"c4 pretrain ended with status {ended.returncode}: {reason}")
        lines = pathlib.Path(folder, "metrics.jsonl").read_text().splitlines()
    steps = [row for row in map(json.loads, lines) if "data_wait_fraction" in row]
    late = steps[len(steps) // 2 :]  # compiled, and the input pipeline filled
    report(
        steps=steps[-1]["step"],
        waiting=statistics.mean(row["data_wait_fraction"] for row in late),
        last=steps[-1],
    )


def _first_of(*names: str) -> str | None:
    return next((name for name in names if (ROOT / name).exists()), None)


def _stages(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in STAGES:
            raise argparse.ArgumentTypeError(f"no stage {name!r}; known: {', '.join(STAGES)}")
    return names


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--out", help="folder for gpu.json and stages.log")
    parser.add_argument("--seconds", type=float, default=320, help="for all stages (default: 320)")
    parser.add_argument("--only", type=_stages, metavar="STAGES", help=f"of {','.join(STAGES)}")
    parser.add_argument("--tiny", action="store_true", help="try the program on a CPU")
    parser.add_argument("--corpus", type=os.path.abspath, help="of the stage pretrain")
    parser.add_argument("--vocab", type=os.path.abspath, help="of the stage pretrain")
    parser.add_argument("--peer-python", help="interpreter with torch and transformers")
    parser.set_defaults(stage=None)

    if argv[:1] == ["--stage"]:
        return _parse_stage(argv, parser)
    options = parser.parse_args(argv)
    if options.out is None:
        parser.error("--out is required")
    return options


def _parse_stage(argv: Sequence[str], parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the options of one stage: those of the command, and those of benchmarks.train_step."""
    from benchmarks.train_step import step_parser

    of_step = step_parser()
    of_step.add_argument("--stage")
    of_step.add_argument("--params", default="bfloat16")
    of_step.set_defaults(batch=128, dtype="bfloat16", size="base", repeat=10)
    found, rest = of_step.parse_known_args(argv)
    options = parser.parse_args(rest, found)
    if options.tiny:
        options.size, options.batch, options.inputs, options.targets = "tiny", 2, 32, 16
        options.attention, options.repeat = "auto", 2
        options.peer_compile = "no"  # PyTorch takes minutes on a CPU
    return options


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    if options.stage:
        return run_as_stage(options)

    def stop(number: int, frame: Any) -> NoReturn:
        sys.exit(128 + number)  # through run_stage's finally, which ends the stage

    signal.signal(signal.SIGTERM, stop)
    return drive(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
