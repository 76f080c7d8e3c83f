import subprocess
import sys

from benchmarks import measure


def test_children_of_whoever_measures_are_not_waited_for():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as own:
        cost = measure.run([sys.executable, "-c", "print('done')"])
        assert cost.output == "done\n"
        assert own.poll() is None
        own.communicate(b"\n")
