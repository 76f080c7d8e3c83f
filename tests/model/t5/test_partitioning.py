import jax.numpy as jnp
import pytest

from model.t5.partitioning import constrain, use_constraint


def test_a_constraint_holds_inside_its_block_alone():
    x = jnp.ones((2, 3))
    with use_constraint(lambda x, axes: x * len(axes)):
        with use_constraint(lambda x, axes: x + (axes == ("batch", None))):
            assert (constrain(x, "batch", None) == 2).all()
        assert (constrain(x, "batch", "length") == 2).all()
    assert constrain(x, "batch", "length") is x


def test_a_constraint_ends_with_an_error_too():
    x = jnp.ones(2)
    with pytest.raises(RuntimeError), use_constraint(lambda x, axes: x * 2):
        raise RuntimeError
    assert constrain(x, "batch") is x


@pytest.mark.parametrize("axes", [("batch",), ("batch", "length", "heads"), ("batch", "lenght")])
def test_each_axis_has_a_known_name(axes):
    with pytest.raises(ValueError, match=r"for each axis of an array of shape \(2, 3\), got"):
        constrain(jnp.ones((2, 3)), *axes)
