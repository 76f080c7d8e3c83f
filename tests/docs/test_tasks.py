"""docs/tasks.md: its table is the registry's, and its examples run."""

import doctest
import pathlib
import re

from model.tasks import TASKS, task
from tests.model.tasks.extra import needs_extra

TEXT = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text("utf-8")


def rows_of_the_registry():
    for name, entry in TASKS.items():
        labels = ", ".join(f"`{label}`" for label in entry.labels)
        scores = ", ".join(f"`{metric}`" for metric in entry.metric_names) or "none"
        yield f"| `{name}` | `{entry.template}` | {labels} | {scores} |"


def test_the_table_is_the_registrys():
    table = TEXT.partition("| task | inputs |")[2].partition("\n\n")[0]
    assert table.splitlines()[2:] == list(rows_of_the_registry())
    assert f"The {len(TASKS)} tasks" in TEXT


def test_every_task_with_a_form_of_the_papers_is_listed():
    listed = TEXT.partition("| task | released code |")[2].partition("\n\n")[0]
    names = {name for line in listed.splitlines()[2:] for name in re.findall("`([a-z_]+)`", line)}
    others = {
        name
        for name, entry in TASKS.items()
        for paper in [task(name, form="paper")]
        if (paper.make, paper.read, paper.one_per_group)
        != (entry.make, entry.read, entry.one_per_group)
    }
    assert names & set(TASKS) == others


@needs_extra
def test_the_examples_give_what_they_say():
    session = doctest.DocTestParser().get_doctest(TEXT, {}, "docs/tasks.md", None, 0)
    assert len(session.examples) > 10
    assert doctest.DocTestRunner().run(session).failed == 0
