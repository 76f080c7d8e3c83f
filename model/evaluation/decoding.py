"""How a command is asked to decode. Imports no JAX."""

import dataclasses
from typing import TYPE_CHECKING

from model.t5.strategies import Beam, Greedy, How, Sample
from pipelines.options import check_bounds, option

if TYPE_CHECKING:
    from model.evaluation.predictor import Predictor
    from model.evaluation.trained import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """Options of decoding, checked when made; greedy without any.

    Raises ValueError, naming the option, for a value out of range, and for options that belong to
    different ways of decoding.
    """

    beams: int | None = option(
        "beam search with K beams (default: greedy)", default=None, least=1, metavar="K"
    )
    length_penalty: float | None = option(
        "exponent of the length penalty ((5 + n) / 6)^A of --beams (default: 0.6)",
        default=None, least=0, metavar="A",
    )  # fmt: skip
    sample: bool = option("draw tokens from the model's distribution", default=False)
    temperature: float | None = option(
        "what --sample divides logits by (default: 1)", default=None, metavar="T"
    )
    top_p: float | None = option(
        "draw from the likeliest tokens whose probabilities add up to P alone (default: 1, all)",
        default=None, metavar="P",
    )  # fmt: skip
    seed: int | None = option("seed of --sample (default: 0)", default=None, metavar="N")
    batch_size: int = option("inputs at a time", default=32, least=1, most=2**16, metavar="N")
    input_length: int = option(
        "longest input in tokens, the end of sequence included; more is cut off",
        default=512, least=2, most=2**20, metavar="N",
    )  # fmt: skip
    max_new_tokens: int | None = option(
        "longest output in tokens (default: 128); with --beams at most 1.5 times the length that "
        "the input is padded to, and 10 more",
        default=None, least=1, most=2**20, metavar="N",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.sample and self.beams is not None:
            raise ValueError("--beams and --sample are two ways of decoding: give one of them")
        if self.length_penalty is not None and self.beams is None:
            raise ValueError("--length-penalty belongs to --beams")
        for name in ("temperature", "top_p", "seed"):
            if getattr(self, name) is not None and not self.sample:
                raise ValueError(f"--{name.replace('_', '-')} belongs to --sample")
        self.how()  # checks the values

    def how(self) -> How:
        """Return the way to choose tokens."""
        if self.beams is not None:
            penalty = self.length_penalty
            return Beam(self.beams) if penalty is None else Beam(self.beams, penalty)
        if self.sample:
            given = {name: getattr(self, name) for name in ("temperature", "top_p", "seed")}
            return Sample(**{name: value for name, value in given.items() if value is not None})
        return Greedy()

    def predictor(self, trained: "Trained", *, parse_sentinels: bool = False) -> "Predictor":
        """Return what predicts with a model on all devices of this machine.

        Raises ValueError as `model.evaluation.predictor.Predictor` does.
        """
        from model.evaluation.predictor import Predictor, place_on_all_devices

        return Predictor(
            trained.config,
            trained.vocabulary,
            how=self.how(),
            batch_size=self.batch_size,
            input_length=self.input_length,
            max_new_tokens=self.max_new_tokens,
            placement=place_on_all_devices(trained.config),
            parse_sentinels=parse_sentinels,
        )
