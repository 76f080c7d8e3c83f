"""T5 in JAX: trains on the shards that ``pipelines`` writes. Never imports Beam.

>>> from model import model_config
>>> model_config("small", vocab_size=32128).parameter_count()
60506624
"""

from typing import TYPE_CHECKING

from c4_filters.lazy import lazy_names

if TYPE_CHECKING:
    from model.corpora.head import make_head
    from model.corpora.mix import make_mixture
    from model.data.input_config import InputConfig
    from model.data.objectives import objective
    from model.data.vocabulary import Vocabulary
    from model.evaluation.evaluate import EvaluateConfig, evaluate
    from model.evaluation.predictor import Predictor
    from model.evaluation.trained import open_trained
    from model.exchange.loaded_model import LoadedModel, load_hf
    from model.t5.config import ModelConfig, model_config
    from model.t5.network import T5
    from model.training.train_config import TrainConfig
    from model.training.trainer import train as pretrain
    from model.tuning.finetune import finetune
    from model.tuning.finetune_config import FinetuneConfig

__all__ = [
    "T5",
    "EvaluateConfig",
    "FinetuneConfig",
    "InputConfig",
    "LoadedModel",
    "ModelConfig",
    "Predictor",
    "TrainConfig",
    "Vocabulary",
    "evaluate",
    "finetune",
    "load_hf",
    "make_head",
    "make_mixture",
    "model_config",
    "objective",
    "open_trained",
    "pretrain",
]

# JAX takes a second to import, and the processes that read data need none of it.
_PLACES = {
    "T5": "model.t5.network",
    "EvaluateConfig": "model.evaluation.evaluate",
    "FinetuneConfig": "model.tuning.finetune_config",
    "InputConfig": "model.data.input_config",
    "LoadedModel": "model.exchange.loaded_model",
    "ModelConfig": "model.t5.config",
    "Predictor": "model.evaluation.predictor",
    "TrainConfig": "model.training.train_config",
    "Vocabulary": "model.data.vocabulary",
    "evaluate": "model.evaluation.evaluate",
    "finetune": "model.tuning.finetune",
    "load_hf": "model.exchange.loaded_model",
    "make_head": "model.corpora.head",
    "make_mixture": "model.corpora.mix",
    "model_config": "model.t5.config",
    "objective": "model.data.objectives",
    "open_trained": "model.evaluation.trained",
    "pretrain": "model.training.trainer:train",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
