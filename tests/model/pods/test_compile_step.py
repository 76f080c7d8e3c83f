"""The training step compiled for slices of TPUs, on a machine without one."""

import argparse
import importlib.util

import pytest

from model.chips import CHIPS
from model.commands import compile_only, pretrain
from model.data.batches import BatchSpec
from model.pods import compile_step
from model.pods.compile_step import DoesNotFitError, StepPlan
from model.pods.topologies import parse_topology
from model.t5.config import SIZES, model_config
from model.training.train_config import StepConfig


def _arguments(*options):
    parser = argparse.ArgumentParser()
    pretrain.add_arguments(parser)
    return parser.parse_args(options)


def _refused(*options):
    with pytest.raises(ValueError, match=r"^.+$") as caught:
        compile_only.run(_arguments("--compile-only", *options))
    return str(caught.value)


def test_what_cannot_be_compiled_is_told_before_compiling():
    assert "known: v3" in _refused("v9:2x2")
    assert "no size 'smal', perhaps 'small'" in _refused("v5e:2x2", "--size", "smal")
    assert "--init-from" in _refused("v5e:2x2", "--init-from", "somewhere")
    assert "9 sequences does not divide into 2 microbatches" in _refused(
        "v5e:2x2", "--batch-size", "9", "--accumulate", "2"
    )


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the tpu extra is not installed"
)

SMALL = {"num_layers": 2, "vocab_size": 1024}


def _plan(text, *, size="tiny", mesh="auto", batch=16, lengths=(64, 32), accumulate=1, **changes):
    return StepPlan(
        topology=parse_topology(text),
        config=model_config(size, **{"dtype": "bfloat16", **SMALL, **changes}),
        batch=BatchSpec(batch, lengths[1], encoder_length=lengths[0]),
        step=StepConfig(accumulate=accumulate, prng="rbg"),
        mesh=mesh,
    )


@pytest.mark.slow
@needs_libtpu
def test_a_step_for_two_by_two_chips():
    report = compile_step.compile_step(_plan("v3:2x2", mesh="data=2,fsdp=2,tensor=2"))
    line = report.roofline
    # All products of the model are in the program, and no others, without rematerialisation.
    assert line.program_flops * 8 == pytest.approx(line.model_flops, rel=0.02)
    assert 0 < line.products_s <= line.work_s < line.step_s
    assert 0 < line.utilization < 1
    # A quarter of the parameters (fsdp x tensor), padding, and what is held whole.
    quarter = report.plan.config.parameter_count()
    assert quarter <= report.state_bytes < 2 * quarter
    assert 0 < report.memory.temporaries < 2**30
    assert {kind for kind, _ in report.exchanges} >= {"all-reduce", "all-gather"}
    said = "\n".join(compile_step.report_lines(report))
    assert "v3:2x2: 4 chips, 8 devices of 15.48 GiB" in said
    assert "mesh: data=2,fsdp=2,tensor=2\n" in said
    assert "% of peak" in said


@pytest.mark.slow
@needs_libtpu
def test_the_command(capsys):
    assert compile_only.run(
        _arguments(
            "--compile-only", "v5e:2x2", "--size", "tiny", "--architecture", "language-model",
            "--objective", "causal_lm", "--input-length", "32", "--batch-size", "8",
            "--accumulate", "2", "--remat", "full",
        )
    ) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert "language-model, bfloat16, remat full, dropout 0.1" in said
    assert "8 sequences of 32 tokens in 2 microbatches" in said
    assert "(chosen)" in said


@pytest.mark.slow
@needs_libtpu
def test_what_does_not_fit_says_what_would():
    # 11B on one host of four 16 GiB chips: its parameters alone take 42 GiB.
    plan = _plan("v5e:2x2", size="11B", num_layers=24, mesh="fsdp=4", batch=4, lengths=(16, 16))
    with pytest.raises(DoesNotFitError, match=r"does not fit v5e:2x2: .*--remat full") as caught:
        compile_step.compile_step(plan)
    assert "exceeds available HBM (15.75G)" in str(caught.value)


@pytest.mark.slow
@needs_libtpu
def test_a_batch_that_the_mesh_does_not_divide_is_told():
    with pytest.raises(
        ValueError, match=r"in 2 microbatches does not divide over 4 .* mesh data=4"
    ):
        compile_step.compile_step(_plan("v5e:2x2", mesh="data=4", batch=4, accumulate=2))


def test_every_size_has_a_pod_that_its_state_fits():
    most = max(chip.device_bytes for chip in CHIPS.values())
    for config in SIZES.values():
        assert config.parameter_count() * 4 / 16 < most
