"""The files beside the shards of a corpus: what other libraries and people read first."""

from pipelines.corpus.card.croissant import croissant
from pipelines.corpus.card.facts import Facts
from pipelines.corpus.card.hugging_face import dataset_card
from pipelines.corpus.dataset_info import dataset_info_files
from pipelines.corpus.manifest import Manifest

#: The card, and its name where the user has a README.md of their own.
CARD, OTHER_CARD = "README.md", "CARD.md"
CROISSANT = "croissant.json"

_DATASET_VERSION = "1.0.0"


def side_files(made: Manifest) -> dict[str, bytes]:
    """Return the content of the files beside the shards, by name."""
    facts = Facts.of(made)
    described = "tfrecord" if "tfrecord" in made.formats else made.formats[0]
    files = dataset_info_files(
        described, facts.splits, facts.description, facts.config_name, _DATASET_VERSION
    )
    return {**files, CROISSANT: croissant(facts), CARD: dataset_card(facts).encode()}
