"""Examples of pages that are dropped, for people to look at."""

from c4_filters.pages import CleanPage

_MOST = 3  # of a verdict
_CHARS = 300


class Samples(dict[str, list[dict[str, str]]]):
    """The first pages of each verdict, as the manifest has them."""

    def add(self, result: CleanPage, url: str, text: str) -> None:
        """Take a page that is dropped, if there are few of its verdict yet."""
        of_verdict = self.setdefault(result.verdict, [])
        if len(of_verdict) < _MOST:
            sample = {"url": url, "evidence": result.reason(), "text": text[:_CHARS]}
            of_verdict.append(sample)
