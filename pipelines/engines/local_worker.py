"""A worker process of a build on this machine: Beam's own, but quiet.

Beam's default command prints a line about apitools when it starts and the traceback of every
failure when it happens. The launcher says what failed, once; C4_TRACEBACK=1 lets workers speak.
"""

import gc
import os
import shutil
import signal
import sys
import threading
import time

__all__ = ["COMMAND"]

#: What a Python interpreter is given to become a worker, followed by the launcher's process id
#: and the folder that exists for as long as workers are wanted.
COMMAND = "-m pipelines.engines.local_worker"

_POLL_S = 0.5


def _end_with_launcher(launcher: int, folder: str) -> None:
    """End this process when the launcher has ended, or has removed the folder."""
    while os.getppid() == launcher and os.path.isdir(folder):
        time.sleep(_POLL_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # nobody waits for this worker any more


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher's to handle; it ends its workers
    threading.Thread(
        target=_end_with_launcher, args=(int(sys.argv[1]), sys.argv[2]), daemon=True
    ).start()
    import pipelines.quiet_beam  # noqa: F401  before anything else of Beam

    from apache_beam.runners.worker import sdk_worker_main  # isort: skip

    gc.freeze()  # what is imported stays: the collector need not walk it again and again
    read_by_launcher = os.dup(2)
    if not os.environ.get("C4_TRACEBACK"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        sdk_worker_main.main(sys.argv)
    except BaseException:
        os.dup2(read_by_launcher, 2)
        raise
