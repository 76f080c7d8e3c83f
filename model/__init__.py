"""T5 in JAX: trains on the shards that ``pipelines`` writes. Never imports Beam.

>>> from model import model_config
>>> model_config("small", vocab_size=32128).parameter_count()
60506624
"""

from typing import TYPE_CHECKING

from c4_filters.lazy import lazy_names

if TYPE_CHECKING:
    from model.corpora.head import make_head as make_head
    from model.corpora.mix import make_mixture as make_mixture
    from model.data.input_config import InputConfig as InputConfig
    from model.data.objectives import objective as objective
    from model.data.vocabulary import Vocabulary as Vocabulary
    from model.evaluation.evaluate import EvaluateConfig as EvaluateConfig
    from model.evaluation.evaluate import evaluate as evaluate
    from model.evaluation.predictor import Predictor as Predictor
    from model.evaluation.trained import open_trained as open_trained
    from model.exchange.loaded_model import LoadedModel as LoadedModel
    from model.exchange.loaded_model import load_hf as load_hf
    from model.t5.config import ModelConfig as ModelConfig
    from model.t5.config import model_config as model_config
    from model.t5.network import T5 as T5
    from model.training.train_config import TrainConfig as TrainConfig
    from model.training.trainer import train
    from model.tuning.finetune import finetune as finetune
    from model.tuning.finetune_config import FinetuneConfig as FinetuneConfig

    pretrain = train

# JAX takes a second to import, and the processes that read data need none of it.
_NAMES = {
    "corpora.head": ("make_head",),
    "corpora.mix": ("make_mixture",),
    "data.input_config": ("InputConfig",),
    "data.objectives": ("objective",),
    "data.vocabulary": ("Vocabulary",),
    "evaluation.evaluate": ("EvaluateConfig", "evaluate"),
    "evaluation.predictor": ("Predictor",),
    "evaluation.trained": ("open_trained",),
    "exchange.loaded_model": ("LoadedModel", "load_hf"),
    "t5.config": ("ModelConfig", "model_config"),
    "t5.network": ("T5",),
    "training.train_config": ("TrainConfig",),
    "training.trainer": ("train:pretrain",),
    "tuning.finetune": ("finetune",),
    "tuning.finetune_config": ("FinetuneConfig",),
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
