import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from pipelines.corpus.removals import Removals, write_removals
from scripts import check_removals
from testing.helpers import run_c4

pytestmark = pytest.mark.slow

SAMPLES = pathlib.Path(__file__).resolve().parents[2] / "samples" / "wet"


@pytest.fixture(scope="module", params=["en", "tfds", "no_urls"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("corpus")
    recipe = request.param
    if recipe == "no_urls":
        (folder / "mine.toml").write_text('name = "mine"\nbase = "en"\ndedup_urls = false\n')
        recipe = str(folder / "mine.toml")
    out = folder / "out"
    outcome = run_c4("build", "--input", SAMPLES / "sample-0000[01]*", "--output", out,
                     "--recipe", recipe, "--workers", "1", "--quiet")  # fmt: skip
    assert outcome.status == 0, outcome.err
    return str(out)


def test_every_removal_of_a_build_is_right(
    corpus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_removals, "_SPANS_AT_ONCE", 2_000)
    counts, wrong = check_removals.check(corpus)
    assert wrong == []
    assert counts["sentences"] + counts["lines"] > 3
    assert check_removals.main([corpus]) == 0
    assert "removed; 0 wrong" in capsys.readouterr().out


def test_kept_files_that_are_not_there_are_named_in_a_line(
    corpus: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(corpus, tmp_path / "some", ignore=shutil.ignore_patterns("cleaned"))
    assert check_removals.main([str(tmp_path / "some")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert f"{tmp_path / 'some' / 'cleaned'}/" in error
    assert check_removals.main([str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("what", ["unit more", "unit less", "unit keeper", "page", "page keeper"])
def test_a_removal_that_is_wrong_is_found(corpus: str, what: str) -> None:
    for path in sorted(pathlib.Path(corpus, "removals").iterdir()):
        content = path.read_bytes()
        with Removals(str(path)) as file:
            values = read(file)
        if change(values, what):
            break
    else:
        assert what == "page keeper", "nothing to change"
        return  # no duplicate urls
    try:
        write_removals(str(path), *values, "")
        assert check_removals.check(corpus)[1]
        assert check_removals.main([corpus]) == 1
    finally:
        path.write_bytes(content)


def read(file: Removals) -> list[Any]:
    pages, units = file.pages(0, file.page_count), file.units(0, file.unit_count)
    return [
        pages.copy(),
        units.copy(),
        np.array([file.keeper_of_page(at) for at in np.flatnonzero(pages)], np.uint64),
        np.array([file.keeper_of_unit(at) for at in np.flatnonzero(units)], np.uint64),
    ]


def change(values: list[Any], what: str) -> bool:
    pages, units, page_keepers, unit_keepers = values
    if what.startswith("page"):
        if what == "page":
            at = int(np.flatnonzero(pages == 0)[0])
            pages[at] = 1
            values[2] = np.insert(page_keepers, np.count_nonzero(pages[:at]), 7)
        elif len(page_keepers):
            page_keepers[0] += np.uint64(1)
        else:
            return False
        return True
    if not units.any():
        return False
    if what == "unit keeper":
        unit_keepers[0] += np.uint64(1)
    elif what == "unit less":
        units[np.flatnonzero(units)[0]] = False
        values[3] = unit_keepers[1:]
    else:
        at = int(np.flatnonzero(~units)[0])
        units[at] = True
        values[3] = np.insert(unit_keepers, np.count_nonzero(units[:at]), unit_keepers[0])
    return True
