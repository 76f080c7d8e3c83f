"""Paired comparisons: whether A is better than B, by runs that share their seeds."""

import dataclasses
import math
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference of two sets of paired runs.

    Attributes:
        a: mean of A.
        b: mean of B.
        pairs: number of pairs.
        difference: mean of B minus A.
        low: lower end of the confidence interval of the difference; -inf for a single pair.
        high: upper end; inf for a single pair.
        level: of the interval, such as 0.95.
        higher_is_better: whether a larger value is better.
    """

    a: float
    b: float
    pairs: int
    difference: float
    low: float
    high: float
    level: float
    higher_is_better: bool

    @property
    def verdict(self) -> str:
        """``A is better``, ``B is better``, or ``cannot tell`` if the interval includes 0."""
        if self.low <= 0 <= self.high:
            return "cannot tell"
        return "B is better" if (self.difference > 0) == self.higher_is_better else "A is better"


def compare_paired(
    a: Sequence[float], b: Sequence[float], *, level: float = 0.95, higher_is_better: bool
) -> Comparison:
    """Compare paired values: the n-th of A and of B come from runs with the same seed.

    The interval is Student's for the mean of the differences: it assumes that differences vary over
    seeds about as a normal distribution does, and nothing about how A or B themselves vary. If
    there is no difference, it excludes 0 in a share of 1 - ``level`` of comparisons.

    Raises ValueError if the numbers of values differ, if there are none, if one is not finite, or
    for a level outside (0, 1).

    >>> compare_paired([2.0, 2.1, 2.2], [2.1, 2.2, 2.3], higher_is_better=False).verdict
    'A is better'
    >>> compare_paired([2.0, 2.1], [2.1, 2.0], higher_is_better=False).verdict
    'cannot tell'
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"a paired comparison needs pairs, got {len(a)} values and {len(b)}")
    if not all(map(math.isfinite, (*a, *b))):
        raise ValueError("a paired comparison needs finite values")
    if not 0 < level < 1:
        raise ValueError(f"the level must be between 0 and 1, got {level}")
    differences = [right - left for left, right in zip(a, b, strict=True)]
    mean, pairs = statistics.fmean(differences), len(differences)
    half = math.inf
    if pairs > 1:
        from scipy.stats import t  # a dependency of JAX

        half = float(t.ppf(0.5 + level / 2, pairs - 1)) * spread(differences) / math.sqrt(pairs)
    return Comparison(
        statistics.fmean(a), statistics.fmean(b), pairs, mean, mean - half, mean + half, level,
        higher_is_better,
    )  # fmt: skip


def spread(values: Sequence[float]) -> float:
    """Return the sample standard deviation, 0 for values that differ by rounding alone.

    NaN for fewer than two values.
    """
    if len(values) < 2:
        return math.nan
    deviation = statistics.stdev(values)
    return deviation if deviation > 1e-12 * max(map(abs, values)) else 0.0
