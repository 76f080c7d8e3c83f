"""The paper's unsupervised objectives: from a text's tokens to inputs and targets.

An objective is three choices (paper section 3.3, figure 5) and the lengths that follow from them:
which tokens are noise, what the inputs show of them, and what the targets ask for. With the tokens
``a b c d e f g h``, noise ``c d g``, sentinels ``s0 s1 s2`` and the mask ``M`` (which is ``s0``):

==========  =================  ====================  ===============================
what        name               gives                 where it is used
==========  =================  ====================  ===============================
``inputs``  ``nothing``        (empty)               causal_lm
            ``kept``           a b e f h             drop, prefix_lm
            ``mask``           a b M M e f M h       mass
            ``mask-random``    as ``mask``, but one  bert
                               in ten a random id
            ``sentinels``      a b s0 e f s1 h       iid..., span...
            ``shuffled``       f a h c b g d e       deshuffle
``targets`` ``whole``          a b c d e f g h       causal_lm, bert, mass, deshuffle
            ``noise``          c d g                 drop, prefix_lm
            ``sentinels``      s0 c d s1 g s2        iid..., span...
==========  =================  ====================  ===============================

Rules and constants are those of the released code (google-research/text-to-text-transfer-
transformer, ``t5/data/preprocessors.py`` and ``t5/models/gin/objectives``) unless a switch says
otherwise. All randomness comes from the generator that is passed in.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from model.data.batches import BatchSpec
from model.data.sequences import Sequences
from pipelines.options import option

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_FIRST_RANDOM_ID = 3  # behind pad, eos and unk (preprocessors.py, random token of BERT-style)
_MOST_TOKENS = 2**20  # of inputs: far beyond what attention can hold, and solved in a second
_RANDOM_SHARE = 0.1  # of BERT-style's noise tokens (iid_15_r10s90_f.gin: "r10s90")


class Ids(Protocol):
    """What an objective needs to know of a vocabulary."""

    @property
    def size(self) -> int:
        """Number of ids, sentinels included."""

    @property
    def extra_ids(self) -> int:
        """Number of sentinels: the last ids, the first sentinel being the very last."""


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long things are, in tokens; ``inputs`` and ``targets`` with their end-of-sequence id.

    Attributes:
        raw: Length to which a text is cut before the objective.
        inputs: Most that the inputs may be, longer ones are cut; 0 where there are none.
        targets: The same of the targets.
        joined: Length of a row in which one sequence holds both, for models without an encoder;
            None for others.
    """

    raw: int
    inputs: int
    targets: int
    joined: int | None = None

    def batch_spec(self, rows: int) -> BatchSpec:
        """Return the arrays of a batch of so many rows."""
        if self.joined is not None:
            return BatchSpec(rows, self.joined)
        return BatchSpec(rows, self.targets, encoder_length=self.inputs)


class Runs(NamedTuple):
    """Runs of tokens in texts, none of them empty."""

    begins: Ints  #: int64 [runs]
    lengths: Ints  #: int64 [runs]
    counts: Ints  #: int64 [texts]: the runs of each


class Noise:
    """Which tokens of texts are noise: by a mask, or by runs of noise and of kept tokens."""

    def __init__(
        self, texts: Sequences, mask: Bools | None = None, runs: tuple[Runs, Runs] | None = None
    ) -> None:
        """Take a mask, bool [tokens], or the runs."""
        self._texts, self._mask, self._runs = texts, mask, runs

    @property
    def mask(self) -> Bools:
        """Whether each token is noise: bool [tokens]."""
        if self._mask is None:
            begins, lengths, _ = self.runs
            change = np.zeros(len(self._texts.tokens) + 1, dtype=np.int8)
            change[begins], change[begins + lengths] = 1, -1
            self._mask = np.cumsum(change[:-1], dtype=np.int8).view(np.bool_)
        return self._mask

    @property
    def runs(self) -> Runs:
        """Runs of noise."""
        return self._runs[0] if self._runs else _runs(self._texts, self.mask)

    @property
    def kept_runs(self) -> Runs:
        """Runs of tokens that are no noise."""
        return self._runs[1] if self._runs else _runs(self._texts, ~self.mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """One way to make inputs and targets of a text. Raises ValueError for what cannot be.

    >>> spans = objective("span3")
    >>> spans.lengths(512)
    Lengths(raw=568, inputs=512, targets=114, joined=None)
    """

    name: str
    approach: Literal["language-modeling", "bert-style", "deshuffling"]  #: of figure 5
    noise: Literal["all", "suffix", "iid", "spans"]
    inputs: Literal["nothing", "kept", "mask", "mask-random", "sentinels", "shuffled"]
    targets: Literal["whole", "noise", "sentinels"]
    #: Of iid and spans alone.
    noise_density: float | None = option(
        "share of tokens that are noise", default=None, metavar="SHARE"
    )
    mean_span: float | None = None  #: tokens in a run of noise, on average; spans alone
    #: Whether the pages of a group become one text before it is cut.
    concatenate: bool = True
    #: The gin files' length for inputs of 512; None: from the rendering and the density.
    targets_at_512: int | None = None
    #: End targets with a sentinel even where the text ends in noise, as in the paper's figure 2.
    #: The released code does not.
    closing_sentinel: bool = False
    #: What the runs beyond the vocabulary's last sentinel get. The released code counts on into
    #: the ids of real pieces ("reference"), which happens in most texts at 50 % noise (128 runs
    #: in 511 tokens, paper table 6); "last" repeats the last sentinel, so that lengths and the
    #: share of noise stay and no piece of text is taken for a mark.
    sentinel_overflow: Literal["last", "reference"] = "last"

    def __post_init__(self) -> None:
        has_density = self.noise in ("iid", "spans")
        if has_density != (self.noise_density is not None):
            raise ValueError(
                f"{self.name}: noise_density belongs to iid and random-span noise, got "
                f"{self.noise_density} with noise {self.noise!r} (--noise-density)"
            )
        if self.noise_density is not None and not 0 < self.noise_density < 1:
            raise ValueError(
                f"{self.name}: noise_density must be between 0 and 1, got {self.noise_density} "
                "(--noise-density)"
            )
        if (self.noise == "spans") != (self.mean_span is not None):
            raise ValueError(
                f"{self.name}: mean_span belongs to random-span noise, got {self.mean_span} with "
                f"noise {self.noise!r}"
            )
        if self.mean_span is not None and not self.mean_span >= 1:
            raise ValueError(f"{self.name}: mean_span must be at least 1, got {self.mean_span}")
        if self.closing_sentinel and self.targets != "sentinels":
            raise ValueError(
                f"{self.name}: closing_sentinel is for targets with sentinels, and these are "
                f"{self.targets!r}"
            )

    @property
    def sentinels(self) -> bool:
        """Whether it needs a vocabulary with sentinels."""
        return self.inputs in ("mask", "mask-random", "sentinels") or self.targets == "sentinels"

    @property
    def splits(self) -> bool:
        """Whether inputs and targets are two parts of the text, with nothing shown twice."""
        return self.noise in ("all", "suffix") and self.inputs != "shuffled"

    def replace(self, **changes: Any) -> "Objective":
        """Return the same objective with other values, checked again.

        Another density or span length drops what the gin files say of the targets' length.
        """
        if changes.keys() & {"noise_density", "mean_span", "noise", "targets"}:
            changes = {"targets_at_512": None, **changes}
        return dataclasses.replace(self, **changes)

    def lengths(self, input_length: int = 512, separator_length: int | None = None) -> Lengths:
        """Lengths for inputs of at most ``input_length`` tokens, end of sequence included.

        ``separator_length`` is for models without an encoder: as many tokens stand between inputs
        and targets in the one sequence that holds both. Raises ValueError when nothing fits.
        """
        if input_length < 4 + (separator_length or 0):
            raise ValueError(
                f"input_length must be at least {4 + (separator_length or 0)}, got {input_length} "
                "(--input-length)"
            )
        if input_length > _MOST_TOKENS:
            raise ValueError(
                f"input_length must be at most {_MOST_TOKENS}, got {input_length} (--input-length)"
            )
        if self.noise == "spans":
            raw, targets = _solve_spans(*self._span_noise, input_length)
        else:
            raw, targets = input_length - 1, self._target_length(input_length)
        if self.closing_sentinel:
            targets += 1
        inputs = 0 if self.inputs == "nothing" else input_length
        joined = None
        if separator_length is not None:
            if not self.splits:
                joined = input_length - 1 + separator_length + targets
            else:  # nothing stands there twice: the row need not be longer than the inputs' one
                joined = input_length
                raw -= separator_length if inputs else 0
        return Lengths(raw, inputs, targets, joined)

    @property
    def _span_noise(self) -> tuple[float, float]:
        """Density of the noise, and mean length of a run of it."""
        assert self.noise_density is not None
        assert self.mean_span is not None
        return self.noise_density, self.mean_span

    def _target_length(self, input_length: int) -> int:
        if self.targets_at_512 is not None:
            return math.ceil(self.targets_at_512 * input_length / 512)
        if self.noise_density is None or self.targets == "whole":
            return input_length
        # Four standard deviations above what is expected: one text in thirty thousand is cut. The
        # gin files leave between one (10 %) and more than four.
        raw, p = input_length - 1, self.noise_density
        mean, variance = p, p * (1 - p)
        if self.targets == "sentinels":
            # A token counts once, and twice where it begins a run; neighbours are correlated.
            mean = p * (2 - p)
            variance = p * (4 - 3 * p) - mean**2 - 2 * p * mean * (1 - p)
        return min(input_length, math.ceil(raw * mean + 4 * math.sqrt(raw * variance)) + 1)

    def most_sentinels(self, raw: int) -> int:
        """Return how many different sentinels a text of ``raw`` tokens may ask for; 0 for none.

        Random spans have a known number. Under iid noise any number up to half of the tokens can
        come; this is what one text in a million goes beyond, five standard deviations above the
        mean.

        >>> objective("span3").most_sentinels(568), objective("iid").most_sentinels(511)
        (28, 98)
        """
        if "sentinels" not in (self.inputs, self.targets):
            return 1 if self.sentinels else 0
        if raw < 2:
            return 1
        if self.noise == "spans":
            return _noise_and_spans(raw, *self._span_noise)[1] + self.closing_sentinel
        p = self.noise_density
        if p is None:  # one run of noise, one of kept tokens
            return 1
        # A run begins at each noise token whose left neighbour is kept, or that has none.
        begins = p * (1 - p)
        mean = p + (raw - 1) * begins
        deviation = math.sqrt(raw * begins * (1 - 3 * begins))
        # Targets mark the runs of kept tokens, one more where a text begins and ends with such.
        return min(math.ceil(mean + 5 * deviation) + 1, -(-raw // 2))

    def __call__(
        self, texts: Sequences, ids: Ids, rng: np.random.Generator
    ) -> tuple[Sequences, Sequences]:
        """Return inputs and targets of each text, without end-of-sequence ids, not yet cut.

        Texts too short to have both (one token under a noise that splits) are left out. Raises
        ValueError for a vocabulary without the sentinels it needs.
        """
        if self.sentinels and not ids.extra_ids:
            raise ValueError(
                f"objective {self.name} needs sentinels, and the vocabulary has none: train it "
                "with extra ids"
            )
        if self.noise == "suffix":
            texts = _without_short(texts, 2)
        return self.render(texts, self.draw_noise(texts, rng), ids, rng)

    def render(
        self, texts: Sequences, noise: Noise, ids: Ids, rng: np.random.Generator
    ) -> tuple[Sequences, Sequences]:
        """Return inputs and targets under given noise."""
        return self._inputs_of(texts, noise, ids, rng), self._targets_of(texts, noise, ids)

    def draw_noise(self, texts: Sequences, rng: np.random.Generator) -> Noise:
        """Which tokens are noise. A text of two parts needs two tokens or more."""
        if self.noise == "all":
            return Noise(texts, np.ones(len(texts.tokens), dtype=np.bool_))
        if self.noise == "suffix":
            # Between 1 token and all but one (preprocessors.py, random_prefix_noise_mask).
            prefix = rng.integers(1, texts.lengths)
            runs = np.stack([prefix, texts.lengths - prefix], axis=1).ravel()
            return Noise(texts, np.repeat(np.tile(np.array([False, True]), len(prefix)), runs))
        if self.noise == "iid":
            assert self.noise_density is not None
            return Noise(texts, iid_noise(texts.lengths, self.noise_density, rng))
        return Noise(texts, runs=_random_spans(texts.lengths, *self._span_noise, rng))

    def _inputs_of(
        self, texts: Sequences, noise: Noise, ids: Ids, rng: np.random.Generator
    ) -> Sequences:
        match self.inputs:
            case "nothing":
                return Sequences(texts.tokens[:0], np.zeros_like(texts.lengths))
            case "kept":
                return texts.only(~noise.mask)
            case "sentinels":
                return self._with_sentinels(texts, noise.runs, ids)
            case "shuffled":
                return _shuffled(texts, rng)
        tokens = np.where(noise.mask, np.int32(ids.size - 1), texts.tokens)
        if self.inputs == "mask-random":
            at = np.flatnonzero(noise.mask)
            at = at[rng.random(len(at), dtype=np.float32) < _RANDOM_SHARE]
            tokens[at] = rng.integers(_FIRST_RANDOM_ID, ids.size, len(at), dtype=np.int32)
        return Sequences(tokens, texts.lengths)

    def _targets_of(self, texts: Sequences, noise: Noise, ids: Ids) -> Sequences:
        match self.targets:
            case "whole":
                return texts
            case "noise":
                return texts.only(noise.mask)
        if not self.closing_sentinel:
            return self._with_sentinels(texts, noise.kept_runs, ids)
        # A kept token more at the end closes the last noise; where the text ends in kept tokens
        # it joins their run and changes nothing.
        longer = texts.take(range(len(texts)), ending=[0])
        kept = np.insert(~noise.mask, texts.ends, True)
        return self._with_sentinels(longer, _runs(longer, kept), ids)

    def _with_sentinels(self, texts: Sequences, marked: Runs, ids: Ids) -> Sequences:
        """Return texts with each run of marked tokens as one sentinel, numbered from the left."""
        before = np.concatenate([[0], np.cumsum(marked.counts)])
        number = np.arange(len(marked.begins)) - np.repeat(before[:-1], marked.counts)
        if self.sentinel_overflow == "last":
            number = np.minimum(number, ids.extra_ids - 1)
        elif len(number) and int(number.max()) > ids.size - 1 - _FIRST_RANDOM_ID:
            raise ValueError(
                f"{int(number.max()) + 1} runs of noise in one text, and the vocabulary has only "
                f"{ids.size} ids; sentinel_overflow='last' repeats the last sentinel"
            )
        # A sentinel takes the place of its run's last token; the others before it are left out.
        left_out = np.concatenate([[0], np.cumsum(marked.lengths - 1)])
        at = marked.begins - left_out[:-1]
        steps = np.ones(len(texts.tokens) - int(left_out[-1]), dtype=np.int64)
        steps[at] = marked.lengths
        steps[:1] -= 1
        tokens = texts.tokens.take(np.cumsum(steps, out=steps))
        tokens[at] = ids.size - 1 - number
        return Sequences(tokens, texts.lengths - np.diff(left_out[before]))


def _runs(texts: Sequences, marked: Bools) -> Runs:
    """Return the runs of marked tokens; none goes on from one text into the next."""
    border = np.zeros(len(marked) + 1, dtype=np.bool_)
    border[texts.starts] = True
    padded = np.concatenate([[False], marked, [False]])
    begins = np.flatnonzero(marked & (border[:-1] | ~padded[:-2]))
    lasts = np.flatnonzero(marked & (border[1:] | ~padded[2:]))
    bounds = np.searchsorted(begins, np.append(texts.starts, len(marked)))
    return Runs(begins, lasts + 1 - begins, np.diff(bounds))


def iid_noise(lengths: Ints, density: float, rng: np.random.Generator) -> Bools:
    """Each token noise by itself, with probability ``density``: bool [sum of lengths]."""
    noise: Bools = rng.random(int(lengths.sum()), dtype=np.float32) < density
    return noise


def random_spans_noise(
    lengths: Ints, density: float, mean_span: float, rng: np.random.Generator
) -> Bools:
    """Noise in runs: bool [sum of lengths] (preprocessors.py, random_spans_noise_mask).

    A text of ``length`` tokens has ``round(length * density)`` noise tokens (at least one, not
    all), in ``round(noise / mean_span)`` runs. Noise and the rest are each cut into that many
    parts, all ways to do so being equally likely, and laid out in turn: the text begins with kept
    tokens and ends with noise. A text of one token keeps it.

    >>> mask = random_spans_noise(np.array([8]), 0.5, 2.0, np.random.default_rng(0))
    >>> int(mask.sum()), mask[0], mask[-1]
    (4, np.False_, np.True_)
    """
    texts = Sequences(np.empty(int(lengths.sum()), np.int32), lengths)
    return Noise(texts, runs=_random_spans(lengths, density, mean_span, rng)).mask


def _random_spans(
    lengths: Ints, density: float, mean_span: float, rng: np.random.Generator
) -> tuple[Runs, Runs]:
    """Return the runs of `random_spans_noise`, and those of the rest."""
    of_lengths = [
        (lengths == length, length, *_noise_and_spans(length, density, mean_span))
        for length in np.unique(lengths[lengths > 1]).tolist()
    ]
    parts = _random_parts(
        [
            (int(texts.sum()), tokens, spans)
            for texts, length, noise, spans in of_lengths
            for tokens in (length - noise, noise)
        ],
        rng,
    )
    spans_each = np.ones_like(lengths)
    for texts, *_, spans in of_lengths:
        spans_each[texts] = spans
    kept, noise = np.zeros((2, int(spans_each.sum())), dtype=np.int64)
    kept[np.cumsum(spans_each) - spans_each] = lengths  # stays where there is no noise
    for (texts, *_), *lengths_of_parts in zip(of_lengths, parts[::2], parts[1::2], strict=True):
        at = np.repeat(texts, spans_each)
        kept[at], noise[at] = map(np.ravel, lengths_of_parts)
    both = kept + noise
    begins = np.cumsum(both) - both
    runs = Runs(begins + kept, noise, spans_each), Runs(begins, kept, spans_each)
    if lengths.min(initial=2) > 1:
        return runs
    # One token is kept alone, and a text without tokens has no run at all.
    return _without_empty(runs[0], lengths > 1), _without_empty(runs[1], lengths > 0)


def _without_empty(runs: Runs, texts: Bools) -> Runs:
    filled = runs.lengths > 0
    return Runs(runs.begins[filled], runs.lengths[filled], runs.counts * texts)


@functools.lru_cache
def _solve_spans(density: float, mean_span: float, input_length: int) -> tuple[int, int]:
    """Raw and target length (preprocessors.py, random_spans_helper)."""

    def after(raw: int) -> tuple[int, int]:
        noise, spans = _noise_and_spans(raw, density, mean_span)
        return raw - noise + spans + 1, noise + spans + 1

    raw = 2
    while after(raw + 1)[0] <= input_length:
        raw += 1
    inputs, targets = after(raw)
    if density == 0.5 and targets > inputs:
        raw, targets = raw - 1, targets - 1
    return raw, targets


def _noise_and_spans(length: int, density: float, mean_span: float) -> tuple[int, int]:
    noise = min(max(round(length * density), 1), length - 1)
    # A run needs a kept token before it: only above a density of one half can they run out.
    return noise, min(max(round(noise / mean_span), 1), noise, length - noise)


def _random_parts(groups: Sequence[tuple[int, int, int]], rng: np.random.Generator) -> list[Ints]:
    """Cut tokens into parts of at least one, at random: lengths of parts, each [texts, parts].

    A group is so many texts, the tokens of each, and its parts. ``parts - 1`` of the ``tokens - 1``
    places between two tokens become cuts, every choice of them being equally likely: Floyd's
    sampling (Communications of the ACM 30(9), 1987), a step of which takes one more place in all
    texts of all groups at once.
    """
    counts, tokens, parts = np.array(groups, dtype=np.int64).reshape(-1, 3).T
    tokens_each, parts_each = np.repeat((tokens, parts), counts, axis=1)
    stops = np.cumsum(counts)
    blocks = [
        (slice(cuts), slice(start, stop))
        for cuts, start, stop in zip(parts - 1, stops - counts, stops, strict=True)
    ]
    # A row for each step, a column for each text. Behind its last step, a text is given its end.
    bounds = np.arange(max(parts, default=1) - 1)[:, np.newaxis] + (tokens_each - parts_each + 1)
    ends = np.cumsum(tokens_each) - 1
    begins = ends + 1 - tokens_each
    places = np.minimum(_drawn_below(bounds, blocks, rng) + begins, ends)
    newest = np.minimum(bounds - 1 + begins, ends)
    taken = np.zeros(int(tokens_each.sum()), dtype=np.bool_)
    for place, new in zip(places, newest, strict=True):
        np.putmask(place, taken.take(place), new)
        taken[place] = True
    lengths = []
    for block in blocks:
        chosen = places[block].T.copy()  # each text's side by side
        chosen.sort()
        before, end = begins[block[1], np.newaxis] - 1, ends[block[1], np.newaxis]
        lengths.append(np.diff(chosen, prepend=before, append=end))
    return lengths


def _drawn_below(
    bounds: Ints, blocks: Sequence[tuple[slice, slice]], rng: np.random.Generator
) -> Ints:
    """Return ``rng.integers(0, bounds)``, block by block, in half of the time.

    ``bounds``, int64 [rows, columns], are from 1 to 2**31; what is in no block has any value. By
    Lemire's multiplication ("Fast random integer generation in an interval", ACM TOMACS 29(1),
    2019), as in NumPy: it needs no second number where the low half of the product is not below
    the bound.
    """
    state = rng.bit_generator.state
    bits = np.full(bounds.shape, 2**32 - 1, dtype=np.uint32)
    for block in blocks:
        bits[block] = rng.integers(1 << 32, size=bits[block].shape, dtype=np.uint32)
    products = bits * bounds.view(np.uint64)
    drawn = (products >> np.uint64(32)).view(np.int64)
    if bool(((bounds == 1) | (products.astype(np.uint32) < bounds)).any()):
        rng.bit_generator.state = state  # NumPy takes no number for a bound of 1
        for block in blocks:
            drawn[block] = rng.integers(0, bounds[block])
    return drawn


def _shuffled(texts: Sequences, rng: np.random.Generator) -> Sequences:
    """Each text's tokens in a random order: sorted by text, then by 40 random bits."""
    keys = rng.integers(0, 1 << 40, size=len(texts.tokens)) | texts.owners << 40
    return Sequences(texts.tokens[np.argsort(keys, kind="stable")], texts.lengths)


def _without_short(texts: Sequences, least: int) -> Sequences:
    long = texts.lengths >= least
    if bool(long.all()):
        return texts
    return Sequences(texts.only(np.repeat(long, texts.lengths)).tokens, texts.lengths[long])


_BASELINE = Objective(
    name="iid",
    approach="bert-style",
    noise="iid",
    inputs="sentinels",
    targets="sentinels",
    noise_density=0.15,
    targets_at_512=192,
)
_CAUSAL = Objective(
    name="causal_lm",
    approach="language-modeling",
    noise="all",
    inputs="nothing",
    targets="whole",
)

#: Name to objective: tables 3, 6 and 7 of the paper. The baseline of section 3.1 is "iid"; the
#: released models were pre-trained with "span3" (section 3.7).
OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        each.name: each
        for each in (
            _CAUSAL,
            _CAUSAL.replace(
                name="prefix_lm", noise="suffix", inputs="kept", targets="noise", concatenate=False
            ),
            _BASELINE.replace(name="bert", inputs="mask-random", targets="whole"),
            _CAUSAL.replace(
                name="deshuffle", approach="deshuffling", inputs="shuffled", concatenate=False
            ),
            _BASELINE.replace(name="mass", inputs="mask", targets="whole"),
            _BASELINE,
            _BASELINE.replace(name="iid10", noise_density=0.10, targets_at_512=103),
            _BASELINE.replace(name="iid25", noise_density=0.25, targets_at_512=256),
            _BASELINE.replace(name="iid50", noise_density=0.50, targets_at_512=512),
            _BASELINE.replace(name="drop", inputs="kept", targets="noise", targets_at_512=104),
            *(
                _BASELINE.replace(name=f"span{mean}", noise="spans", mean_span=mean)
                for mean in (2, 3, 5, 10)
            ),
        )
    }
)


def objective(name: str, **changes: Any) -> Objective:
    """Return an objective of the paper by its name, with changes.

    >>> objective("span3", noise_density=0.25).lengths(512).targets
    206
    >>> objective("span4")
    Traceback (most recent call last):
        ...
    ValueError: no objective 'span4', perhaps 'span5'; objectives: causal_lm, prefix_lm, bert, \
deshuffle, mass, iid, iid10, iid25, iid50, drop, span2, span3, span5, span10 (--objective)
    """
    if name not in OBJECTIVES:
        near = difflib.get_close_matches(name, OBJECTIVES, 1, 0.4)
        hint = f", perhaps {near[0]!r}" if near else ""
        names = ", ".join(OBJECTIVES)
        raise ValueError(f"no objective {name!r}{hint}; objectives: {names} (--objective)")
    return OBJECTIVES[name].replace(**changes)
