"""The option with which CI fails when something is skipped that it should have run."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow

SUITE = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skipif(True, reason="{reason}")
def test_that_is_skipped():
    pass

@pytest.mark.xfail(strict=True)
def test_that_fails_as_known():
    raise AssertionError
"""
MODULE = """
import pytest

pytest.importorskip("no_such_library", reason="{reason}")
"""
FIXTURE = """
import pytest

@pytest.fixture
def cluster():
    pytest.skip("{reason}")

def test_on_it(cluster):
    pass
"""


SUITES = {"test": SUITE, "module": MODULE, "fixture": FIXTURE}
ALLOWED = ("root reads everything", "the build was done before it could be interrupted")
REFUSED = ("root reads everything, and more", "the tpu extra is not installed", "no Java here")


def run(folder, reasons, *options):
    for name, suite in SUITES.items():
        for number, reason in enumerate(reasons):
            path = folder / f"test_{name}_{number}.py"
            path.write_text(suite.format(reason=reason), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", *options]
    return subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", folder, folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_skips_for_other_reasons_than_the_listed_fail(tmp_path):
    done = run(tmp_path, ALLOWED + REFUSED, "--strict-skips")
    assert done.returncode == 1, done.stdout + done.stderr
    _, _, told = done.stdout.partition("skipped, and not allowed by allowed_skips.txt")
    refused = [line for line in told.splitlines() if line.startswith("test_")]
    assert len(refused) == len(SUITES) * len(REFUSED)
    for reason in REFUSED:
        assert sum(line.endswith(f": {reason}") for line in refused) == len(SUITES)


@pytest.mark.parametrize(
    ("reasons", "options"), [(ALLOWED, ["--strict-skips"]), (ALLOWED + REFUSED, [])]
)
def test_skips_for_listed_reasons_or_without_the_option_are_skips(reasons, options, tmp_path):
    done = run(tmp_path, reasons, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not allowed" not in done.stdout
