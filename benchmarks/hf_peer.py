"""Hugging Face's T5 in PyTorch: the peer that our training step is measured against.

Runs in a process of its own, in an interpreter that has PyTorch and Transformers and nothing of
ours but NumPy:

    python -m benchmarks.hf_peer OPTIONS        # JSON: those of train_step.py, and `params`

One step is the forward pass, the mean cross-entropy and the backward pass to the gradients of all
parameters. `params` "bfloat16" keeps parameters and gradients in bfloat16; "autocast" runs bfloat16
products over float32 parameters, as our step does; "float32" uses float32 throughout (TF32 on a
GPU, as JAX does there). Attention is PyTorch's `scaled_dot_product_attention`. `torch.compile`
takes nothing, the model with its loss, or each block: blocks are alike, so that one graph serves
them all and a large model compiles in less time.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.step_process import StepProcess, interpreter, make_batch, serve, telling_missing


def sizes_of(size: str) -> dict[str, Any]:
    """Return the arguments of `transformers.T5Config` for one of our sizes."""
    from model.t5.config import model_config  # imports no JAX

    config = model_config(size)
    return {
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


def start_peer(options: argparse.Namespace, params: str) -> StepProcess:
    """Start the peer with the options of benchmarks.train_step, in its interpreter or in ours."""
    given = json.dumps({**vars(options), "params": params})
    python = interpreter(options.peer_python or sys.executable)
    return StepProcess([python, "-m", "benchmarks.hf_peer", given])


def describe(about: dict[str, Any], options: argparse.Namespace) -> str:
    """Return one line about the peer, from the first message of its process."""
    compiled = {"no": "not compiled", "whole": "compiled whole", "blocks": "compiled by block"}
    return (
        f"PyTorch {about['torch']}, Transformers {about['transformers']} on {about['device']}, "
        f"attention {about['attention']}, parameters {about['params']}, "
        f"dropout {about['dropout']}, {compiled[options.peer_compile]}"
    )


def make_step(
    options: argparse.Namespace,
) -> tuple[Callable[[], float], Callable[[], float], Any]:
    """Return a function that runs one step, one that returns the GB it took, and the model."""
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    sizes = sizes_of(options.size)
    config = transformers.T5Config(
        **sizes, dropout_rate=options.dropout, use_cache=False,
        attn_implementation=options.peer_attention,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config)
    dtype = torch.bfloat16 if options.params == "bfloat16" else torch.float32
    model = model.to(device, dtype).train()
    batch = make_batch(sizes["vocab_size"], options.batch, options.inputs, options.targets)
    inputs, starts, targets = (
        torch.tensor(batch[name], dtype=torch.long, device=device)
        for name in ("encoder_tokens", "decoder_input_tokens", "decoder_target_tokens")
    )
    mask = torch.ones_like(inputs)
    autocast = torch.autocast(device, torch.bfloat16, enabled=options.params == "autocast")

    def loss_of() -> Any:
        with autocast:
            logits = model(
                input_ids=inputs, attention_mask=mask, decoder_input_ids=starts, use_cache=False
            ).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    if options.peer_compile == "whole":
        loss_of = torch.compile(loss_of)
    elif options.peer_compile == "blocks":
        for stack in (model.encoder, model.decoder):
            for block in stack.block:
                block.compile()

    def run() -> float:
        model.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        if on_gpu:
            torch.cuda.synchronize()
        return float(loss.detach())

    def memory() -> float:
        return torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0

    return run, memory, model


def serve_peer(options: argparse.Namespace) -> None:
    run, memory, model = make_step(options)
    import torch
    import transformers

    serve(
        run, memory,
        torch=torch.__version__,
        transformers=transformers.__version__,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        attention=model.config._attn_implementation,
        params="float32 with autocast" if options.params == "autocast" else options.params,
        dropout=model.config.dropout_rate,
    )  # fmt: skip


def main(argv: list[str]) -> int:
    with telling_missing():
        serve_peer(argparse.Namespace(**json.loads(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
