"""A worker process of a build on this machine: Beam's own, but quiet when it starts and ends.

Beam's default command imports Beam with the line about apitools that pipelines.quiet_beam keeps
off the terminal, once a process.
"""

import sys

__all__ = ["COMMAND"]

#: What a Python interpreter is to be given to become a worker.
COMMAND = "-m pipelines.local_worker"

if __name__ == "__main__":
    import pipelines.quiet_beam  # noqa: F401  before anything else of Beam

    from apache_beam.runners.worker import sdk_worker_main  # isort: skip

    sdk_worker_main.main(sys.argv)
