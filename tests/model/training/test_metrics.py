"""Files, guard and terminal of a run's metrics."""

import json
import math
import os

import numpy as np
import pytest

from model.chips import peak_flops
from model.training.losses import LossSums
from model.training.metrics import (
    DivergenceGuard,
    MetricsFile,
    StepTimer,
    TrainingStoppedError,
    mean_row,
    read_rows,
    step_row,
)
from model.training.train_step import StepMetrics


def _row(step, loss=2.0):
    return {
        "step": step, "loss": loss, "accuracy": 0.5, "seconds": 2.0, "tokens_per_s": 1234.0,
        "data_wait_fraction": 0.25,
    }  # fmt: skip


def test_a_step_as_a_row():
    told = StepMetrics(
        LossSums(*map(np.float32, (30.0, 1.0, 5.0, 10.0))),
        *map(np.float32, (100.0, 0.01, 2.0, 3.0, 1.0)),
    )
    assert step_row(7, told, 0.5, 0.125, 0.2) == {
        "step": 7, "loss": 3.0, "z_loss": pytest.approx(0.1), "accuracy": 0.5,
        "learning_rate": pytest.approx(0.01), "gradient_norm": 2.0, "param_norm": 3.0,
        "target_tokens": 10, "seconds": 0.5, "tokens_per_s": 200.0, "data_wait_fraction": 0.25,
        "mfu": 0.4,
    }  # fmt: skip
    assert "mfu" not in step_row(7, told, 0.5, 0.125)


def test_a_file_goes_on_behind_a_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in (1, 2, 3, 4):
        file.write(_row(step))
    file.write({"step": 4, "validation_loss": 1.0})
    file.close()
    with open(path, "a") as raw:
        raw.write('{"step": 5, "los')  # killed while writing
    assert [row["step"] for row in read_rows(path)] == [1, 2, 3, 4, 4]
    file = MetricsFile(path, 3)
    file.write(_row(4, 9.0))
    file.flush()
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [
        (1, 2.0), (2, 2.0), (3, 2.0), (4, 9.0),
    ]  # fmt: skip
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_that_are_no_rows_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    strange = ["[]", "{}", '{"a": 1}', '{"step": null}', '{"step": "x"}', '{"step": 2, "loss": []}']
    with open(path, "wb") as raw:
        raw.write("\n".join(['{"step": 1}', *strange, 10**5 * "[", ""]).encode())
        raw.write(bytes(20) + b"\n\xff\xfe\n" + b'{"step": 2, "loss": null}\n')
    assert read_rows(path) == [{"step": 1}, {"step": 2, "loss": None}]
    MetricsFile(path, 1).close()
    assert path.read_text() == '{"step": 1}\n'


def test_what_is_no_number_is_still_json(tmp_path):
    file = MetricsFile(tmp_path / "m", 0)
    file.write(_row(1, math.nan))
    file.write(_row(2, math.inf))
    file.close()

    def refuse(name):
        raise AssertionError(name)

    lines = (tmp_path / "m").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["loss"] for line in lines] == [None, None]


def test_the_guard_waits_for_a_full_window_and_goes_on_from_its_state():
    guard = DivergenceGuard(1.0, window=4)
    for step, loss in enumerate([9.0, 2.0, 8.0, 1.0], 1):  # mean 5
        guard.see(step, loss)
    twin = DivergenceGuard(1.0, window=4)
    twin.set_state(json.loads(json.dumps(guard.get_state())))
    for each in (guard, twin):
        each.see(5, 10.0)  # mean 5.25
        with pytest.raises(TrainingStoppedError, match=r"step 6.* from 5\.000 to 6\.250"):
            each.see(6, 6.0)


def test_a_new_guard_has_a_state(tmp_path):
    state = json.loads(json.dumps(DivergenceGuard(1.0).get_state()))
    guard = DivergenceGuard(1.0)
    guard.set_state(state)
    guard.see(1, 5.0)


def test_means_weigh_rates_by_time():
    rows = [{**_row(1, 4.0), "seconds": 1.0, "mfu": 0.4}, {**_row(2), "seconds": 3.0, "mfu": 0.2}]
    mean = mean_row(rows)
    assert mean["loss"] == 3.0
    assert mean["mfu"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA B200", 2250e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", 65e12),
        ("Tesla V100-SXM2-32GB", 125e12),
        ("NVIDIA Tesla V100-PCIE-16GB", 112e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA RTX A6000", 154.8e12),
        # Other cards whose names hold or begin with those of the table.
        ("NVIDIA L400", None),
        ("NVIDIA L4 Laptop GPU", None),
        ("NVIDIA H100 64GB HBM2", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA A1000", None),
        ("NVIDIA", None),
        ("", None),
        ("TPU v4", 275e12),
        ("TPU v3", 61.5e12),  # a core
        ("TPU v5 lite", 197e12),
        ("Radeon", None),
        ("cpu", None),
    ],
)
def test_peaks(kind, peak):
    assert peak_flops(kind) == peak


def test_a_timer_leaves_out_what_it_is_told_to(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("model.training.metrics.time.monotonic", lambda: now[0])
    timer = StepTimer()
    with timer.waiting():
        now[0] += 2
    now[0] += 3
    assert timer.lap() == (5, 2)
    now[0] += 100  # an evaluation
    timer.reset()
    now[0] += 1
    assert timer.lap() == (1, 0)


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    metrics = MetricsFile(tmp_path / "m.jsonl", 0)
    metrics.close()
    metrics._file = open("/dev/full", "w")  # noqa: SIM115
    metrics.write(_row(1))
    with pytest.raises(OSError, match=r"No space left on device: .*m\.jsonl"):
        metrics.flush()
    with pytest.raises(OSError, match=r"No space left on device: .*m\.jsonl"):
        metrics.close()


@pytest.mark.slow
def test_files_of_another_kind_are_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a file: move it away"):
        MetricsFile(tmp_path / "pipe", 0)
