"""The packages that workers need; everything else about the project is in pyproject.toml.

Beam's ``--setup_file=./setup.py`` (with the ``./``: Beam changes into its folder) makes a source
distribution of this and installs it on every worker. The list is explicit, so that tests and
benchmarks never travel; ``tests/test_packaging.py`` fails when a package of the tree is missing.
"""

from setuptools import setup

setup(
    packages=[
        "c4_filters",
        "model",
        "model.commands",
        "model.corpora",
        "model.data",
        "model.data.sources",
        "model.evaluation",
        "model.exchange",
        "model.pods",
        "model.studies",
        "model.t5",
        "model.tasks",
        "model.tasks.sources",
        "model.training",
        "model.tuning",
        "pipelines",
        "pipelines.commands",
        "pipelines.corpus",
        "pipelines.corpus.card",
        "pipelines.corpus.formats",
        "pipelines.crawl",
        "pipelines.engines",
        "pipelines.imports",
        "pipelines.provenance",
        "pipelines.report",
        "pipelines.stages",
        "pipelines.storage",
        "pipelines.wet",
    ],
    package_data={"": ["py.typed", "*.csv", "*.toml", "*.css", "*.html", "*.js"]},
)
