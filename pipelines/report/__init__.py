"""The report on a corpus, as one page to open in a browser, and the EU's summary of its content.

::

    pages ─▶ written ─┐                    ┌─▶ charts ─┐
    kept files ─▶ dropped, repeated ─▶ gathered        ├─▶ page (HTML)
                                           └─▶ samples ┘

Everything is read as a stream, with memory that does not grow with the corpus.
"""

from pipelines.report.make import make_report, make_summary

__all__ = ["make_report", "make_summary"]
