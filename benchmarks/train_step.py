"""Times one training step of T5 against Hugging Face's in PyTorch: forward and backward passes.

    python -m benchmarks.train_step --peer-python PYTHON            # small, fp32, on the CPU
    python -m benchmarks.train_step --peer-python PYTHON --size base --batch 128 \
        --dtype bfloat16 --peer-compile --peak-tflops 989            # on a GPU

`PYTHON` is an interpreter that has PyTorch and transformers; without it only ours is timed. Both
take the same shapes (512 input and 114 target tokens, none of them padding), a new dropout mask
each step, and the mean cross-entropy; both return the loss and float32 gradients of all
parameters. Steps alternate between the two and the least of each counts, so that whatever else the
machine does falls on both. Bar on a CPU: ours takes no longer than theirs; the program fails
beyond it. In PyTorch bfloat16 is autocast over float32 parameters.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

_PEER = "--as-peer"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.train_step", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--size", default="small", help="a size of model/t5/config.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=512, help="tokens of an input")
    parser.add_argument("--targets", type=int, default=114, help="tokens of a target")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--remat", choices=["none", "dots", "full"], default="none")
    parser.add_argument("--attention", choices=["auto", "plain", "fused"], default="auto")
    parser.add_argument("--repeat", type=int, default=5, help="steps of each, after one to warm up")
    parser.add_argument("--peer-python", help="interpreter with torch and transformers")
    parser.add_argument("--peer-compile", action="store_true", help="torch.compile theirs")
    parser.add_argument("--peak-tflops", type=float, help="of the device; prints utilisation")
    parser.add_argument(_PEER, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def make_batch(vocab_size: int, options: argparse.Namespace) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    inputs = random.integers(2, vocab_size, (options.batch, options.inputs), np.int32)
    targets = random.integers(2, vocab_size, (options.batch, options.targets), np.int32)
    return {
        "encoder_tokens": inputs,
        "encoder_segments": np.ones_like(inputs),
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_segments": np.ones_like(targets),
        "loss_weights": np.ones_like(targets, np.float32),
    }


def our_step(options: argparse.Namespace) -> tuple[Callable[[], float], Any]:
    """A function that runs one step and returns its loss, and what the model is."""
    import jax
    import jax.numpy as jnp

    from model.t5.config import model_config
    from model.t5.network import T5

    config = model_config(
        options.size, dtype=options.dtype, dropout_rate=options.dropout,
        remat=options.remat, attention=options.attention,
    )  # fmt: skip
    model = T5(config)
    params = jax.jit(model.init)(jax.random.key(0))
    batch = jax.device_put(make_batch(config.vocab_size, options))

    def mean_loss(params: Any, batch: Any, rng: Any) -> Any:
        logits = model.logits(params, batch, dropout_rng=rng)
        chosen = jnp.take_along_axis(logits, batch["decoder_target_tokens"][..., None], axis=-1)
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen[..., 0])

    step = jax.jit(jax.value_and_grad(mean_loss))
    rngs = iter(jax.random.split(jax.random.key(1), 1000))

    def run() -> float:
        loss, gradients = step(params, batch, next(rngs))
        jax.block_until_ready(gradients)
        return float(loss)

    return run, config


def their_step(options: argparse.Namespace, sizes: dict[str, Any]) -> Callable[[], float]:
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = transformers.T5Config(**sizes, dropout_rate=options.dropout)
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).to(device).train()
    batch = make_batch(sizes["vocab_size"], options)
    inputs, starts, targets = (
        torch.tensor(batch[name], dtype=torch.long, device=device)
        for name in ("encoder_tokens", "decoder_input_tokens", "decoder_target_tokens")
    )
    mask = torch.ones_like(inputs)
    bfloat16 = torch.autocast(device, torch.bfloat16, enabled=options.dtype == "bfloat16")

    def loss_of() -> Any:
        with bfloat16:
            logits = model(
                input_ids=inputs, attention_mask=mask, decoder_input_ids=starts, use_cache=False
            ).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    if options.peer_compile:
        loss_of = torch.compile(loss_of)

    def run() -> float:
        model.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    return run


def timed(run: Callable[[], float]) -> float:
    start = time.perf_counter()
    loss = run()
    seconds = time.perf_counter() - start
    if not np.isfinite(loss):
        raise ValueError(f"the loss is {loss}: the step was not what a step is")
    return seconds


def serve(run: Callable[[], float]) -> None:
    """One step for each line read, its seconds for each line written."""
    timed(run)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(timed(run), flush=True)


def peer_process(options: argparse.Namespace, config: Any, argv: list[str]) -> Any:
    """The same program in the other interpreter; a context that ends it and closes its pipes."""
    sizes = {
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.d_kv,
        "d_ff": config.d_ff,
        "num_layers": config.num_layers,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.num_heads,
        "feed_forward_proj": config.feed_forward,
        "tie_word_embeddings": config.tied_logits,
    }
    return subprocess.Popen(
        [options.peer_python, __file__, *argv, _PEER, json.dumps(sizes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(peer: Any) -> None:
    """Return when the peer has made its first step."""
    for line in peer.stdout:
        if line.strip() == "ready":
            return
    raise ValueError(f"{peer.args[0]} ended before its first step: see its message above")


def ask(peer: Any) -> float:
    peer.stdin.write("\n")
    peer.stdin.flush()
    return float(peer.stdout.readline())


def main(argv: list[str]) -> int:
    options = parse(argv)
    if options.as_peer:
        serve(their_step(options, json.loads(options.as_peer)))
        return 0
    if options.repeat < 1:
        raise SystemExit(f"--repeat must be positive, got {options.repeat}")
    run, config = our_step(options)
    start = time.perf_counter()
    timed(run)
    print(
        f"{options.size} {options.dtype}, dropout {options.dropout}, batch {options.batch} x "
        f"{options.inputs}/{options.targets}; first step {time.perf_counter() - start:.1f} s"
    )
    ours: list[float] = []
    theirs: list[float] = []
    if options.peer_python:
        with peer_process(options, config, argv) as peer:
            wait_for(peer)
            for _ in range(options.repeat):
                ours.append(timed(run))
                theirs.append(ask(peer))
    else:
        ours = [timed(run) for _ in range(options.repeat)]
    report(options, config, min(ours), "ours")
    if not theirs:
        return 0
    report(options, config, min(theirs), "theirs")
    ratio = min(ours) / min(theirs)
    print(f"ours / theirs: {ratio:.3f}")
    return int(ratio > 1)


def report(options: argparse.Namespace, config: Any, seconds: float, whose: str) -> None:
    from model.t5.flops import step_flops  # the peer's interpreter needs nothing of ours

    tokens = options.batch * (options.inputs + options.targets)
    line = f"{whose}: {seconds:.3f} s a step, {tokens / seconds:,.0f} tokens/s"
    if options.peak_tflops:
        shapes = {
            "encoder_tokens": (options.batch, options.inputs),
            "decoder_input_tokens": (options.batch, options.targets),
        }
        utilisation = step_flops(config, shapes) / seconds / (options.peak_tflops * 1e12)
        line += f", {utilisation:.1%} model FLOP utilisation"
    print(line)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
