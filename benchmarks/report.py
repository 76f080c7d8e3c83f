"""What `c4 report` takes of a corpus, and how fast its page opens in Chromium.

    python -m benchmarks.generate_wet --pages 1000000 --files 16 --seed 1 --out /data/synthetic
    c4 build --input '/data/synthetic/*.gz' --output /data/corpus
    python -m benchmarks.report /data/corpus

Prints pages, seconds of CPU, peak memory, the size of the page, and the seconds until its load
event. Bars (1,000,000 pages): 5 MB and 2 s.
"""

import argparse
import pathlib
import resource
import sys
import tempfile
import time

from pipelines import open_corpus
from pipelines.report import make_report
from testing.browser import Browser, find_chromium


def main() -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("corpus", help="folder of a finished corpus")
    folder = parser.parse_args().corpus
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "report.html"
        make_report([folder], str(path))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pages = sum(open_corpus(folder).splits.values())
        print(f"pages written      {pages:,}")
        print(f"CPU                {time.process_time():.1f} s")
        print(f"peak memory        {usage.ru_maxrss >> 10:,} MB")
        print(f"size of the page   {path.stat().st_size:,} bytes")
        if find_chromium() is None:
            print("opens in           (Chromium is not installed)")
            return 0
        with Browser(pathlib.Path(name) / "profile") as browser:
            for width in (1280, 390):
                browser.view(width, 900)
                print(f"opens in           {browser.open(path):.2f} s, {width} pixels wide")
    return 0


if __name__ == "__main__":
    sys.exit(main())
