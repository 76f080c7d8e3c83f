"""Times decoding of T5, greedy and with beams, against Hugging Face's `generate` in PyTorch.

    python -m benchmarks.decode --peer-python PYTHON             # small, float32, on the CPU
    python -m benchmarks.decode --peer-python PYTHON --beams 1 4 --batch 8 --inputs 128 --new 64

`PYTHON` is an interpreter that has PyTorch and Transformers; without it only ours is timed. Both
run the encoder and then decode exactly `--new` tokens in every row: no token ends a sequence.
Weights are random, which changes nothing about the work. The peer runs in inference mode with its
cache of keys and values, once with PyTorch's scaled_dot_product_attention and once without, and the
faster one counts. `--beams 0` is greedy.

Ours and the peer run in processes of their own and take turns, so that other load on the machine
affects both; the fastest run of each counts. Bar: ours makes at least as many tokens a second as
the peer, in each way of decoding; otherwise the exit status is 1.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from benchmarks.hf_peer import sizes_of
from benchmarks.step_process import (
    StepProcess,
    fastest,
    interpreter,
    make_batch,
    serve,
    telling_missing,
)

_AS = "--as"  # what a process is, "ours" or the peer's attention, and its beams
_ATTENTIONS = ("sdpa", "eager")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.decode", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--size", default="small", help="a size of model/t5/config.py")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=128, help="tokens of an input")
    parser.add_argument("--new", type=int, default=64, help="tokens of an output")
    parser.add_argument("--beams", type=int, nargs="+", default=[0, 4], help="0: greedy")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each, after one to warm up")
    parser.add_argument("--peer-python", help="interpreter with torch and transformers")
    parser.add_argument(_AS, nargs=2, dest="role", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args(arguments)


def our_run(options: argparse.Namespace, beams: int) -> Callable[[], float]:
    """Return a function that decodes a batch once."""
    import jax

    from model.t5.config import model_config
    from model.t5.network import T5
    from model.t5.search import search
    from model.t5.strategies import Beam, Greedy

    config = model_config(options.size, eos_ids=())
    model = T5(config)
    params = jax.jit(model.init)(jax.random.key(0))
    batch = make_batch(config.vocab_size, options.batch, options.inputs, 1)
    inputs = {name: batch[name] for name in ("encoder_tokens", "encoder_segments")}
    how = Beam(beams) if beams else Greedy()
    decode = jax.jit(lambda params, inputs: search(model, params, inputs, options.new, how))

    def run() -> float:
        found = jax.block_until_ready(decode(params, inputs))
        return float(found.shape != (options.batch, options.new))

    return run


def peer_run(options: argparse.Namespace, beams: int, attention: str) -> Callable[[], float]:
    """Return a function with which the peer decodes a batch once."""
    import torch
    import transformers

    sizes = sizes_of(options.size)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = transformers.T5Config(
        **sizes, decoder_start_token_id=0, eos_token_id=None, attn_implementation=attention
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = None
    batch = make_batch(sizes["vocab_size"], options.batch, options.inputs, 1)
    ids = torch.tensor(batch["encoder_tokens"], dtype=torch.long)
    how = {"num_beams": max(1, beams), "do_sample": False, "length_penalty": 0.6}
    if not beams:
        del how["length_penalty"]

    def run() -> float:
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids),
                max_new_tokens=options.new, use_cache=True, **how,
            )  # fmt: skip
        # The start token comes first.
        return float(tuple(found.shape) != (options.batch, options.new + 1))

    return run


def serve_as(options: argparse.Namespace, who: str, beams: int) -> None:
    """Run as one of the timed processes."""
    if who == "ours":
        import jax

        serve(our_run(options, beams), lambda: 0.0, about=f"JAX {jax.__version__}")
        return
    with telling_missing():
        run = peer_run(options, beams, who)
        import torch
        import transformers

        about = f"PyTorch {torch.__version__}, Transformers {transformers.__version__}, {who}"
        serve(run, lambda: 0.0, about=about)


def race(options: argparse.Namespace, argv: Sequence[str], beams: int) -> float | None:
    """Time one way of decoding, print it, and return our tokens a second in those of the peer."""
    pythons = {"ours": sys.executable}
    if options.peer_python:
        pythons |= dict.fromkeys(_ATTENTIONS, options.peer_python)
    with contextlib.ExitStack() as stack:
        racers = {}
        for who, python in pythons.items():
            command = [interpreter(python), "-m", "benchmarks.decode", *argv, _AS, who, str(beams)]
            name = who if who == "ours" else f"theirs, {who}"
            racers[name] = stack.enter_context(StepProcess(command))
        for name, racer in racers.items():
            racer.start()
            if racer.about["loss"]:
                raise SystemExit(f"{name} did not make {options.new} tokens in every row")
        taken = fastest(racers, options.repeat)
    way = f"beam {beams}" if beams else "greedy"
    tokens = options.batch * options.new
    for name, racer in racers.items():
        rate = f"{tokens / taken[name]:,.0f} tokens/s, {taken[name]:.3f} s"
        print(f"{way}: {name}: {rate}; {racer.about['about']}", flush=True)
    theirs = [seconds for name, seconds in taken.items() if name != "ours"]
    if not theirs:
        return None
    ratio = min(theirs) / taken["ours"]
    print(f"{way}: ours / theirs: {ratio:.2f}", flush=True)
    return ratio


def main(argv: list[str]) -> int:
    options = parse(argv)
    if options.role is not None:
        serve_as(options, options.role[0], int(options.role[1]))
        return 0
    if options.repeat < 1:
        raise SystemExit(f"--repeat must be positive, got {options.repeat}")
    print(
        f"{options.size}: {options.batch} rows, {options.inputs} input and {options.new} new tokens"
    )
    ratios = [race(options, argv, beams) for beams in options.beams]
    return int(any(ratio is not None and ratio < 1 for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
