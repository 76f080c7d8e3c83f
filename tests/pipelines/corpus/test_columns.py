"""Columns of texts: views of their values, and columns joined of values, equal Arrow's own."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.corpus.columns import ends, joined, views


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.large_binary()])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=5), max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_values_are_those_of_the_column(
    kind: pa.DataType, texts: list[str], first: int, count: int
) -> None:
    values = [text.encode() for text in texts]
    column = pa.array(values, kind).slice(min(first, len(values)), count)
    assert [bytes(view) for view in views(column)] == values[first : first + count]
    if kind != pa.string():
        made = joined(views(column), kind)
        made.validate(full=True)
        assert made.equals(column)
        assert ends(values).tolist() == [len(b"".join(values[:n])) for n in range(len(values) + 1)]
