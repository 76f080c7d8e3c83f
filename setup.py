"""The packages that workers need. Also what Beam's ``--setup_file`` installs on them."""

from setuptools import setup

setup(packages=["c4_filters", "pipelines", "model"])
