"""``c4 predict``: lines in, lines out, as a process and in this one."""

import errno
import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from model.commands.predict import _open_output, chunks_of
from model.evaluation.predictor import Predictor
from model.evaluation.trained import open_trained
from model.exchange.hugging_face import export_model
from model.t5.strategies import Beam, Sample
from testing import vocabularies
from testing.helpers import run_c4
from testing.tiny_t5 import V1_0, random_params

ROOT = pathlib.Path(__file__).resolve().parents[3]
LINES = ["a narrow path", "", "Prices rose <extra_id_0> by 12%", "the baker"]
SHORT = ["--max-new-tokens", "4", "--batch-size", "2"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    vocabulary = vocabularies.train(folder / "v.model")
    export_model(folder / "tiny", V1_0, random_params(V1_0), vocabulary)
    return folder / "tiny"


def expected(theirs, how=None, lines=LINES, **options):
    trained = open_trained(theirs)
    hows = {} if how is None else {"how": how}
    predictor = Predictor(
        trained.config, trained.vocabulary, batch_size=2, max_new_tokens=4, parse_sentinels=True,
        **hows, **options,
    )  # fmt: skip
    return predictor(trained.params, lines)


def process(*arguments, **options):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.c4_main", "predict", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, cwd=ROOT, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_a_pipe_sees_predictions_before_its_end_and_an_interrupt_keeps_them(theirs):
    with process("--from", theirs, *SHORT, text=True) as running:
        running.stdin.write("".join(f"{line}\n" for line in LINES))
        running.stdin.flush()
        found = [running.stdout.readline() for _ in LINES]
        assert found == [f"{line}\n" for line in expected(theirs)]
        running.stdin.write("one more, without an end")
        running.stdin.flush()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    notes = err.splitlines()
    assert notes[0].startswith(f"tiny: {V1_0.parameter_count():,} parameters on ")
    assert notes[-1] == "c4: interrupted: predictions written so far are good"
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_it_quietly(theirs):
    with process("--from", theirs, *SHORT, text=True) as running:
        running.stdin.write("the baker\n")
        running.stdin.flush()
        running.stdout.readline()
        running.stdout.close()
        running.stdin.write("the baker\n" * 3)
        running.stdin.close()
        err = running.stderr.read()
        running.wait(60)
    assert running.returncode == 0
    assert "rror" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "how"),
    [
        (["--beams", "2", "--length-penalty", "1"], Beam(2, 1.0)),
        (["--sample", "--temperature", "2", "--top-p", "0.9", "--seed", "5"], Sample(2.0, 0.9, 5)),
    ],
)
def test_files_and_ways_of_decoding(theirs, tmp_path, quick_xla, options, how):
    (tmp_path / "in.txt").write_bytes("\r\n".join(LINES).encode())
    outcome = run_c4(
        "predict", "--from", theirs, "--input", tmp_path / "in.txt", "--output",
        tmp_path / "out.txt", "--input-length", "8", *SHORT, *options,
    )  # fmt: skip
    assert (outcome.status, outcome.out) == (0, ""), outcome.err
    wanted = expected(theirs, how, input_length=8)
    assert (tmp_path / "out.txt").read_text() == "".join(f"{line}\n" for line in wanted)
    assert outcome.err.splitlines()[-1] == "4 lines, 2 cut to 8 tokens (--input-length)"


@pytest.mark.slow
def test_line_breaks_in_a_prediction_become_spaces(theirs, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("a\nb")
    monkeypatch.setattr(
        Predictor, "__call__", lambda self, params, texts, first: ["x\r\ny\nz\r"] * 2
    )
    outcome = run_c4("predict", "--from", theirs, "--input", tmp_path / "in.txt")
    assert outcome.out == "x y z \nx y z \n"


def test_broken_text_names_its_line_after_the_lines_before_it():
    lines = io.BytesIO(b"one\ntwo\n\xff\xfe three\nfour\n")
    chunks = chunks_of(lines, "in.txt", 2)
    assert next(chunks) == ["one", "two"]
    message = r"in.txt, line 3: not UTF-8 \(invalid start byte at byte 0\)"
    with pytest.raises(ValueError, match=message):
        next(chunks)


def test_chunks_are_bounded_and_keep_every_line():
    lines = [f"line {number}" for number in range(25)]
    chunks = list(chunks_of(io.BytesIO("\n".join(lines).encode()), "x", 10))
    assert [line for chunk in chunks for line in chunk] == lines
    assert max(map(len, chunks)) <= 10
    assert list(chunks_of(io.BytesIO(b"\n\n"), "x", 10)) == [["", ""]]
    assert list(chunks_of(io.BytesIO(b""), "x", 10)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beams", "0"], "beams must be at least 1, got 0 (--beams)"),
        (["--beams", "2", "--sample"], "--beams and --sample are two ways of decoding"),
        (["--length-penalty", "1"], "--length-penalty belongs to --beams"),
        (["--top-p", "0.5"], "--top-p belongs to --sample"),
        (["--sample", "--top-p", "0"], "top_p must be above 0 and at most 1, got 0.0 (--top-p)"),
        (["--sample", "--seed", "-1"], "seed must be an integer from 0 to 2**32 - 1, got -1"),
        (["--input", ""], "--input is empty"),
        (["--from", ""], "--from is empty"),
        (["--input", "absent.txt"], "absent.txt: No such file"),
        (["--input", __file__], "no such folder"),
    ],
)
def test_wrong_usage_is_a_line(tmp_path, options, message):
    outcome = run_c4("predict", "--from", tmp_path / "none", *options)
    assert (outcome.status, outcome.out) == (1, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_closed_standard_input_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    done = run_c4("predict", "--from", tmp_path)
    assert done.status == 1
    assert done.err == "c4: error: standard input is closed: give a file (--input)\n"


def test_standard_output_that_is_full_is_named(monkeypatch):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(OSError, match="standard output"), _open_output("-") as write:
        write(b"x")
