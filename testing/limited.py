"""Code run in a process of its own that may hold no more memory than it is told."""

import json
import pathlib
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]

_AROUND = """\
import json, resource, sys, time
argument = json.loads(sys.argv[1])
{imports}
def now():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
def held():
    # The peak of getrusage is the parent's at first, which a child of fork begins with.
    with open("/proc/self/status") as file:
        return {{line.split(":")[0]: int(line.split()[1]) << 10 for line in file if "kB" in line}}
before, started = held(), now()
limit = before["VmData"] + argument["limit"]
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
{code}
print(json.dumps([result, max(0, held()["VmHWM"] - before["VmRSS"]), now() - started]))
"""


class Cost(NamedTuple):
    """What the code came to."""

    result: Any  # its variable ``result``
    peak_bytes: int  # held at once, beyond what the imports take
    cpu_s: float


def run_limited(imports: str, code: str, limit_bytes: int, **argument: Any) -> Cost:
    """Runs ``code``, which finds ``argument`` (JSON-ready) in a dict and leaves ``result``.

    The kernel refuses memory beyond ``limit_bytes`` more than after ``imports``: the code then
    fails, and so does this call.
    """
    program = _AROUND.format(imports=textwrap.dedent(imports), code=textwrap.dedent(code))
    ended = subprocess.run(
        [sys.executable, "-c", program, json.dumps({**argument, "limit": limit_bytes})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return Cost(*json.loads(ended.stdout.splitlines()[-1]))
