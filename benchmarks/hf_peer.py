"""Hugging Face's T5 in PyTorch: the peer that our training step is measured against.

Runs in a process of its own, in an interpreter that has PyTorch and Transformers and nothing of
ours but NumPy:

    python -m benchmarks.hf_peer SETTINGS       # JSON, the fields of Settings; see step_process.py

One step is the forward pass, the mean cross-entropy and the backward pass to the gradients of all
parameters. `params` "bfloat16" keeps parameters and gradients in bfloat16; "autocast" runs bfloat16
products over float32 parameters, as our step does; "float32" uses float32 throughout (TF32 on a
GPU, as JAX does there). Attention is PyTorch's `scaled_dot_product_attention`.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any, Literal

from benchmarks.step_process import StepProcess, interpreter, make_batch, serve, telling_missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the peer computes."""

    sizes: dict[str, Any]  #: of the model: arguments of `transformers.T5Config`
    rows: int
    inputs: int  #: tokens of an input
    targets: int  #: tokens of a target
    dropout: float
    params: Literal["float32", "bfloat16", "autocast"]
    attention: Literal["sdpa", "eager"] = "sdpa"
    #: What `torch.compile` takes: nothing, the model with its loss, or each block. Blocks are
    #: alike, so that one graph serves them all: a large model compiles in less time.
    compiled: Literal["no", "whole", "blocks"] = "no"


def sizes_of(config: Any) -> dict[str, Any]:
    """Return the arguments of `transformers.T5Config` for one of our `ModelConfig`s."""
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


def settings_of(options: Any, params: Literal["float32", "bfloat16", "autocast"]) -> Settings:
    """Return the settings for the options of benchmarks.train_step."""
    from model.t5.config import model_config  # imports no JAX

    return Settings(
        sizes=sizes_of(model_config(options.size)),
        rows=options.batch,
        inputs=options.inputs,
        targets=options.targets,
        dropout=options.dropout,
        params=params,
        attention=options.peer_attention,
        compiled=options.peer_compile,
    )


def start_peer(python: str, settings: Settings) -> StepProcess:
    """Start the peer in the interpreter `python`."""
    return StepProcess(
        [interpreter(python), "-m", "benchmarks.hf_peer", json.dumps(dataclasses.asdict(settings))]
    )


def describe(about: dict[str, Any], settings: Settings) -> str:
    """Return one line about the peer, from the first message of its process."""
    compiled = {"no": "not compiled", "whole": "compiled whole", "blocks": "compiled by block"}
    return (
        f"PyTorch {about['torch']}, Transformers {about['transformers']} on {about['device']}, "
        f"attention {about['attention']}, parameters {about['params']}, "
        f"dropout {about['dropout']}, {compiled[settings.compiled]}"
    )


def make_step(settings: Settings) -> tuple[Callable[[], float], Callable[[], float], Any]:
    """Return a function that runs one step, one that returns the GB it took, and the model."""
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    config = transformers.T5Config(
        **settings.sizes, dropout_rate=settings.dropout, use_cache=False,
        attn_implementation=settings.attention,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config)
    dtype = torch.bfloat16 if settings.params == "bfloat16" else torch.float32
    model = model.to(device, dtype).train()
    batch = make_batch(
        settings.sizes["vocab_size"], settings.rows, settings.inputs, settings.targets
    )
    inputs, starts, targets = (
        torch.tensor(batch[name], dtype=torch.long, device=device)
        for name in ("encoder_tokens", "decoder_input_tokens", "decoder_target_tokens")
    )
    mask = torch.ones_like(inputs)
    autocast = torch.autocast(device, torch.bfloat16, enabled=settings.params == "autocast")

    def loss_of() -> Any:
        with autocast:
            logits = model(
                input_ids=inputs, attention_mask=mask, decoder_input_ids=starts, use_cache=False
            ).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    if settings.compiled == "whole":
        loss_of = torch.compile(loss_of)
    elif settings.compiled == "blocks":
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


def serve_peer(settings: Settings) -> None:
    run, memory, model = make_step(settings)
    import torch
    import transformers

    serve(
        run, memory,
        torch=torch.__version__,
        transformers=transformers.__version__,
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        attention=model.config._attn_implementation,
        params="float32 with autocast" if settings.params == "autocast" else settings.params,
        dropout=model.config.dropout_rate,
    )  # fmt: skip


def main(argv: list[str]) -> int:
    with telling_missing():
        serve_peer(Settings(**json.loads(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
