"""The option of ``c4 pretrain`` that sets each field, for error messages."""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["option_of"]

#: Fields whose option is not ``--`` and the name of the field. The configurations nest, so a name
#: may have a prefix (``model.d_model``, ``input.objective noise_density``). An empty string marks a
#: field that no option sets.
_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "profile_steps": "--profile",
        "schedule": "--learning-rate-schedule",
        "peak_flops": "--peak-tflops",
        "defaults": "",
        "loss_on_inputs": "",
        "separator": "",
        "split": "",
        "vocabulary": "--vocab",
        # Fields of the model. Sizes that are not listed are set by --size and --set.
        "model.architecture": "--architecture",
        "model.num_layers": "--size, --architecture, --set num_layers",
        "model.vocab_size": "--vocab",
        "model.dropout_rate": "--dropout",
        "model.dtype": "--dtype",
        "model.remat": "--remat",
        "model.attention": "--attention",
        "model.pad_id": "--init-from",
        "model.start_id": "--init-from",
        "model.eos_ids": "--init-from",
        # Fields of the input's identity in run.json. The corpus is a digest of the data.
        "input.corpus": "--corpus, --max-pages",
        "input.rows": "--architecture",
        "input.objective noise_density": "--noise-density",
    }
)


def option_of(field: str) -> str:
    """Return the option of ``c4 pretrain`` that sets a field, such as ``--seed`` for ``seed``.

    A field of the model that only ``--size`` and ``--set`` can set gives both. An empty string
    means that no option sets the field.

    Args:
      field: name of a field, with dots if it is nested in the settings of a run.

    >>> option_of("input.seed"), option_of("model.d_model"), option_of("model.vocab_size")
    ('--seed', '--size, --set d_model', '--vocab')
    """
    if field in _OPTIONS:
        return _OPTIONS[field]
    group, dot, name = field.rpartition(".")
    if group == "model":
        return f"--size, --set {name}"
    if name.startswith("objective "):
        return "--objective"
    if dot and name in _OPTIONS:
        return _OPTIONS[name]
    return "--" + name.replace("_", "-")
