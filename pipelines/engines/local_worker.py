"""A worker process of a build on this machine: Beam's own, but quiet.

Beam's default command prints a line about apitools when it starts and the traceback of every
failure when it happens. The launcher says what failed, once; C4_TRACEBACK=1 lets workers speak.
"""

import gc
import os
import signal
import sys

__all__ = ["COMMAND"]

#: What a Python interpreter is to be given to become a worker.
COMMAND = "-m pipelines.engines.local_worker"

if __name__ == "__main__":
    if not os.environ.get("C4_TRACEBACK"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher's to handle; it ends its workers
    import pipelines.quiet_beam  # noqa: F401  before anything else of Beam

    from apache_beam.runners.worker import sdk_worker_main  # isort: skip

    gc.freeze()  # what is imported stays: the collector need not walk it again and again
    sdk_worker_main.main(sys.argv)
