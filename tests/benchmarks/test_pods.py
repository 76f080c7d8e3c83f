"""The benchmark of pods: rows that divide, rows kept, and the page they make."""

import dataclasses
import importlib.metadata
import json

import pytest

pytest.importorskip("optax", reason="the train extra is not installed")

from benchmarks import pods
from model.pods.compile_step import DoesNotFitError
from model.pods.topologies import parse_topology
from model.t5.config import SIZES


def _found(row):
    return {
        "row": row.name, "mesh": "data=2,fsdp=4,tensor=1", "used_bytes": 3 * 2**30,
        "work_s": 0.2, "waiting_s": 0.03, "overlapped_s": 0.01, "step_s": 0.23,
        "utilization": 0.4, "tokens_per_s": 348000.0, "compile_cpu_s": 60.0, "peak_gib": 2.5,
    }  # fmt: skip


@pytest.fixture
def measured(monkeypatch):
    names = []

    def measure(row):
        names.append(row.name)
        if row.size == "4x":
            raise DoesNotFitError("does not fit")
        return _found(row)

    monkeypatch.setattr(pods, "measure", measure)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name}-0")
    return names


def test_every_published_size_has_a_row_whose_batch_divides():
    assert {row.size for row in pods.ROWS} == set(SIZES) - {"tiny"}
    assert len({row.name for row in pods.ROWS}) == len(pods.ROWS)
    for row in pods.ROWS:
        parse_topology(row.pod)
        assert row.batch % row.accumulate == 0
    assert pods.ROWS[0] == pods.Row("11B", "v3:32x32", 2048, "full")  # the paper's


def test_rows_that_are_kept_are_not_compiled_again(measured, tmp_path, capsys):
    kept, page = tmp_path / "rows.jsonl", tmp_path / "pods.md"
    first = pods.ROWS[0]
    kept.write_text(json.dumps(_found(first)) + "\n")
    options = ["--only", "11B", "--results", str(kept), "--output", str(page)]
    assert pods.main(options) == 0
    of_size = [row.name for row in pods.ROWS if row.size == "11B"]
    assert measured == of_size[1:]
    assert [json.loads(line)["row"] for line in kept.read_text().splitlines()] == of_size
    said = capsys.readouterr().out
    line = (
        "| 11B | v3:32x32 | 2,048 | full | data=2 fsdp=4 tensor=1 | 3.0 of 15.5 | 0.200 | 0.040 "
        "| 0.230 | 348,000 | 40% |"
    )
    assert line in said
    written = page.read_text()
    assert line in written
    assert "libtpu libtpu-0" in written
    assert "| v5p | 1 | 95.74 GiB | 459 TFLOP/s | 2,765 GB/s | 100 GB/s, 6 links |" in written


def test_a_page_of_kept_rows_compiles_nothing(measured, tmp_path):
    kept, page = tmp_path / "rows.jsonl", tmp_path / "pods.md"
    kept.write_text(json.dumps(_found(pods.ROWS[1])) + "\n")
    assert pods.main(["--kept", "--results", str(kept), "--output", str(page)]) == 0
    assert measured == []
    assert page.read_text().count("data=2 fsdp=4") == 1


def test_a_row_that_does_not_fit_fails_the_run_and_writes_no_page(measured, tmp_path, capsys):
    page = tmp_path / "pods.md"
    assert pods.main(["--only", "4x ", "--output", str(page)]) == 1
    assert "4x v3:8x8 128 full 1: does not fit" in capsys.readouterr().err
    assert not page.exists()


def test_microbatches_are_shown():
    row = dataclasses.replace(pods.ROWS[0], accumulate=4)
    assert "| 2,048 / 4 |" in pods.table([(row, _found(row))])[-1]


def test_what_no_row_has_is_told():
    with pytest.raises(SystemExit, match="no row has 'v9'"):
        pods.main(["--only", "v9"])
