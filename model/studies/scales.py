"""How large the runs of a study are: as in the paper, or minutes on two cores."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from model.small_files import packaged_toml
from model.studies.experiments import FineTune, Pretrain


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the sizes of the paper become.

    Attributes:
        name: as ``--scale`` names it.
        steps: steps of pre-training and of fine-tuning in the place of 2^19 and 2^18; those of
            other rows keep their ratio.
        batch_size: sequences in the place of 128.
        input_length: tokens of the inputs.
        adapter: width of adapter layers in the place of 2,048.
        sizes: options in the place of ``--size``; a size that is missing is kept.
        pretrain: further options of pre-training.
        finetune: further options of fine-tuning.
        evaluate: further options of evaluation.
        vocabulary_size: pieces of a vocabulary that is made; None: one must be given.
    """

    name: str
    steps: Sequence[int]
    batch_size: int
    input_length: int
    adapter: int
    sizes: Mapping[str, Sequence[str]]
    pretrain: Sequence[str]
    finetune: Sequence[str]
    evaluate: Sequence[str]
    vocabulary_size: int | None = None

    def pretrain_options(self, pretrain: Pretrain) -> list[str]:
        """Return the options of ``c4 pretrain`` that say what is trained and for how long."""
        size = self.sizes.get(pretrain.size, ("--size", pretrain.size))
        return [
            *size, "--architecture", pretrain.architecture, "--objective", pretrain.objective,
            "--steps", str(self.pretrain_steps(pretrain)),
            "--batch-size", str(self._batch(pretrain.batch_size)),
            "--input-length", str(self.input_length), *self.pretrain,
        ]  # fmt: skip

    def pretrain_steps(self, pretrain: Pretrain) -> int:
        """Return the steps of a pre-training."""
        return max(1, pretrain.steps * self.steps[0] // 2**19)

    def tokens(self, pretrain: Pretrain) -> int:
        """Return the tokens that a pre-training reads."""
        rows = self.pretrain_steps(pretrain) * self._batch(pretrain.batch_size)
        return rows * self.input_length

    def finetune_options(self, finetune: FineTune, glue: bool) -> list[str]:
        """Return the options of ``c4 finetune``, for tasks of GLUE and SuperGLUE or others."""
        batch = finetune.batch_size
        if glue and finetune.glue_batch_size is not None:
            batch = finetune.glue_batch_size
        found = [
            "--steps", str(max(1, finetune.steps * self.steps[1] // 2**18)),
            "--batch-size", str(self._batch(batch)), "--input-length", str(self.input_length),
            *self.finetune,
        ]  # fmt: skip
        if finetune.adapter is not None:
            width = max(1, finetune.adapter * self.adapter // 2048)
            found += ["--adapter", str(width), "--adapter-norms", "all"]
        if finetune.trained == "unfreezing":
            found.append("--unfreeze")
        return found

    def _batch(self, rows: int) -> int:
        return max(2, rows * self.batch_size // 128)


_DESCRIBED = packaged_toml(__name__, "scales.toml")
#: By name. ``tiny`` shows that an experiment runs, and nothing about what it finds.
SCALES: Mapping[str, Scale] = MappingProxyType(
    {name: Scale(name, **values) for name, values in _DESCRIBED.items()}
)
