"""What a step keeps for its backward pass, read from the program lowered for CUDA.

A scan over layers keeps stacked arrays, one row a layer. JAX decides what they are, and a harmless
change of an expression may double them, which no other test would see.
"""

import collections
import math
import re

import jax
import pytest

from model.data.batches import BatchSpec
from model.t5.config import model_config
from model.t5.network import T5
from model.training.train_step import batch_loss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cuda")]

_BYTES = {"bf16": 2, "f32": 4, "i1": 1, "i32": 4, "ui32": 4, "i64": 8}
_ROWS, _INPUTS, _TARGETS = 128, 512, 114  # the paper's baseline, section 3.1.2


def lowered(size, **changes):
    """Return the text of loss and gradients, lowered for CUDA."""
    model = T5(model_config(size, dtype="bfloat16", **changes))
    loss = batch_loss(model)
    spec = BatchSpec(_ROWS, _TARGETS, encoder_length=_INPUTS)
    batch = {name: jax.ShapeDtypeStruct(*array) for name, array in spec.arrays.items()}

    def total(params, batch):
        return loss(params, batch, jax.random.key(0))[0]

    traced = jax.jit(jax.grad(total)).trace(model.param_shapes(), batch)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


def kept_gb(text, layers):
    """Return what the forward scans of encoder and decoder stack, in GB; parameters not counted."""
    found = []
    for loop in re.findall(r"stablehlo\.while\(.*?\) : ([^\n]*)", text)[:2]:
        arrays = [
            ([int(number) for number in shape.split("x")], kind)
            for shape, kind in re.findall(r"tensor<((?:\d+x)*\d+)x(\w+)>", loop)
        ]
        found.append(
            sum(
                math.prod(shape) * _BYTES[kind]
                for shape, kind in arrays
                if shape[0] == layers and (kind != "f32" or _ROWS in shape[1:])
            )
            / 1e9
        )
    return found


@pytest.mark.parametrize(
    ("size", "remat", "encoder", "decoder"),
    [
        # The products need 14.5 and 6.7 GB: for each layer the residual stream twice, its norms,
        # queries, keys, values, what is attended to, and the hidden layer.
        ("base", "none", 14.8, 7.1),
        ("base", "dots", 12.2, 6.0),
        ("base", "full", 1.25, 0.28),
        ("v1.1-base", "none", 20.0, 8.2),
    ],
)
def test_a_step_keeps_no_more_than_this(size, remat, encoder, decoder):
    config = model_config(size)
    found = kept_gb(lowered(size, remat=remat), config.num_layers)
    assert 0.9 * encoder < found[0] < encoder
    assert 0.9 * decoder < found[1] < decoder


def test_logits_never_exist_whole():
    text = lowered("base")
    whole = {shape for shape in re.findall(r"tensor<([0-9x]+)x32128xf32>", text) if "x" in shape}
    assert whole == {f"{_ROWS}x17"}


@pytest.mark.parametrize("remat", ["none", "dots"])
def test_attention_runs_once_forward_and_once_backward(remat):
    calls = collections.Counter(re.findall(r"__cudnn\$fmha\w+", lowered("base", remat=remat)))
    assert calls == {"__cudnn$fmhaScaleBiasSoftmax": 3, "__cudnn$fmhaScaleBiasSoftmaxBackward": 3}


def test_gradients_of_the_bias_and_the_head_are_summed_in_float32():
    text = lowered("base")
    bias = re.findall(r"dot_general[^\n]*-> tensor<1x\d+x(\w+)>", text)
    assert bias
    assert set(bias) == {"f32"}
    head = re.findall(r"dot_general[^\n]*-> tensor<768x32128x(\w+)>", text)
    assert head == ["f32"]
