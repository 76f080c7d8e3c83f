"""The paper's experiments at scale tiny, with the real commands: half an hour on two cores.

::

    C4_ALL_STUDIES=1 python -m pytest tests/model/studies/test_all_studies.py
"""

import os
import random
import re

import pytest

from model.studies.experiments import experiment
from model.tasks import TASKS
from model.tasks.prepared import prepare
from testing import languages
from testing.helpers import run_c4
from tests.model.tasks.extra import needs_extra

pytestmark = [
    needs_extra,
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("C4_ALL_STUDIES"), reason="long: C4_ALL_STUDIES=1 runs it"
    ),
]
TABLES = [f"table{number}" for number in (2, 4, 5, 6, 7, 10, 11, 12, 13)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus, and two tasks: one of GLUE, and one by itself."""
    folder = tmp_path_factory.mktemp("studies")
    languages.corpus(folder / "corpus", "en", count=2000)
    made = run_c4(
        "vocab", "--corpus", f"c4={folder / 'corpus'}", "--size", "120", "--output",
        folder / "vocab.model",
    )  # fmt: skip
    assert made.status == 0, made.err
    rng = random.Random(0)
    for name, field in (("glue_cola", "sentence"), ("squad", "question")):
        sample = TASKS[name].sample
        rows = []
        for number in range(80):
            raw = {**sample, field: f"{sample[field]} {rng.randrange(1000)}"}
            if "label" in raw:
                raw |= {"label": number % 2, "idx": number}
            rows.append(("validation" if number < 16 else "train", raw))
        prepare(name, rows, folder / "tasks", "made up")
    return folder


@pytest.mark.parametrize("table", TABLES)
def test_a_table_runs_and_is_rendered(place, table):
    done = run_c4(
        "study", "run", table, "--scale", "tiny", "--corpus", f"c4={place / 'corpus'}",
        "--data", place / "tasks", "--out", place / "out", "--vocab", place / "vocab.model",
    )  # fmt: skip
    rows = len(experiment(table).rows)
    assert done.status == 0, done.out
    assert f"{rows} of {rows} rows have scores" in done.out
    shown = run_c4("study", "table", table, "--runs", place / "out")
    assert shown.status == 0
    assert len(re.findall(r"  ours, 1 seed  ", shown.out)) == rows
    assert "CoLA" in shown.out
    print(shown.out)
