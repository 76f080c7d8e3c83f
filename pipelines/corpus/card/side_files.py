"""The files beside the shards of a corpus: what other libraries and people read first."""

from pipelines.corpus.card.croissant import croissant
from pipelines.corpus.card.facts import Facts
from pipelines.corpus.card.hugging_face import dataset_card
from pipelines.corpus.dataset_info import dataset_info_files, described_format
from pipelines.corpus.manifest import Manifest

#: The card, and its name where the user has a README.md of their own.
CARD, OTHER_CARD = "README.md", "CARD.md"
CROISSANT = "croissant.json"


def side_files(made: Manifest) -> dict[str, bytes]:
    """Return the content of the files beside the shards, by name."""
    facts = Facts.of(made)
    files = dataset_info_files(
        described_format(made), facts.splits, facts.description, facts.config_name
    )
    return {**files, CROISSANT: croissant(facts), CARD: dataset_card(facts).encode()}
