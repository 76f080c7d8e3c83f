"""The benchmark of imports, on a few articles."""

import pytest

pytest.importorskip("mwparserfromhell", reason="needs the extra import")

from benchmarks import imports


@pytest.mark.slow
def test_an_import_costs_at_most_what_the_parser_alone_does_and_a_third(capsys):
    assert imports.main(["--articles", "12"]) == 0
    assert "12 articles" in capsys.readouterr().out
