"""Predicting in two processes; as a program, one of them.

``python -m tests.model.evaluation.two_predictors COORDINATOR ID FOLDER VOCABULARY`` predicts from
the texts in FOLDER/texts.json and writes FOLDER/ID.json.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from model.data.vocabulary import Vocabulary
from model.evaluation.predictor import Predictor, place_params
from model.t5.config import model_config
from model.t5.network import T5
from model.training import distributed
from model.training.processes import Processes
from model.training.sharding import MeshShape
from testing.two_processes import run_two_processes


def config():
    return model_config(
        "tiny", vocab_size=128, d_model=16, d_ff=24, d_kv=4, num_layers=1,
        eos_ids=(1, 7, 9, 30),
    )  # fmt: skip


def placement(config, **mesh):
    shape = MeshShape(**mesh)
    return place_params(config, shape, jax.devices()[: shape.devices])


def params(config):
    random = np.random.default_rng(0)
    shapes = T5(config).param_shapes()
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)


def run(folder, vocabulary):
    """Return what both processes predict."""
    run_two_processes(
        __name__,
        lambda where, number: [where, str(number), str(folder), str(vocabulary)],
        devices=2,
        timeout_s=300,
    )
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]


def main(coordinator, number, folder, vocabulary):
    distributed.initialize(Processes(coordinator=coordinator, processes=2, process_id=int(number)))
    folder = pathlib.Path(folder)
    predictor = Predictor(
        config(), Vocabulary(vocabulary, extra_ids=10), batch_size=4, max_new_tokens=5,
        placement=placement(config(), data=2, fsdp=2),
    )  # fmt: skip
    texts = json.loads((folder / "texts.json").read_text())
    found = predictor(params(config()), texts)
    try:
        predictor(params(config()), [*texts, number])
    except ValueError as error:
        assert "the inputs to predict of process 1 differs" in str(error)  # noqa: PT017
    (folder / f"{number}.json").write_text(json.dumps(found))
    distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
