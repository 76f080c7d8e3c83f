"""The paper's tasks and mixtures: text pairs, parsing and scores. Never imports JAX or Beam.

>>> from model.tasks import mixture, task
>>> task("glue_sst2").examples({"sentence": "a fine film", "label": 1})
[('sst2 sentence: a fine film', 'positive')]
>>> round(mixture("super_glue").rates()["super_glue_wsc"], 4)
0.0014
"""

from model.tasks.mixtures import Mixture, mixture
from model.tasks.registry import TASKS, Task, own_task, task

__all__ = ["TASKS", "Mixture", "Task", "mixture", "own_task", "task"]
