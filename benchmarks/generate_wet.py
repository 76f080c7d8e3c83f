"""Write large WET files of generated English pages, to measure the pipeline without a crawl.

    python -m benchmarks.generate_wet --pages 1000000 --files 16 --seed 1 --out /data/synthetic

A page is a menu, paragraphs of generated sentences, and a footer; the menu and the footer have no
end marks, so the line rules have something to drop. A share of the sentences is in boilerplate
paragraphs that many pages share, a few of them extremely popular, and a tenth of that
share of the pages is a visit to the url of an earlier page. Sentences are put together from four
pools of phrases and practically never repeat outside the boilerplate.

The bytes depend on the arguments alone (and on the zlib in use): page ``i`` is drawn from the seed
and from ``i``, whatever the number of pages and files. Only raw bits of NumPy's Philox generator
are used, whose stream NumPy keeps stable, never its distributions, which may change.
"""

import argparse
import base64
import dataclasses
import functools
import hashlib
import itertools
import math
import pathlib
import re
import time
import tomllib
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from testing.warc import warc_record

_BLOCK_PAGES = 256  # pages drawn at once; part of the definition of page i
_POOL = 4096  # phrases in each pool, so 12 random bits choose one
_BOILERPLATES = 512  # boilerplate paragraphs
_BOILERPLATE_SENTENCES = (3, 6)  # fewest and most sentences of one, all lengths equally likely
_JUNK = 256  # menus, and footers
_SENTENCES_PER_LINE = 2.0
_REVISITS_PER_DUPLICATE = 0.1  # duplicate urls for each duplicate sentence, as shares
_FIRST_FETCH = np.datetime64("2019-04-18T00:00:00")  # crawl CC-MAIN-2019-18 ran from here
_CRAWL_S = 10 * 24 * 3600

# A window of 4 KiB holds a page, and setting up a larger one costs more than compressing the page.
_GZIP_WINDOW_4K = 16 + 12
_GZIP_MEM_LEVEL = 6


def _read_words() -> dict[str, list[str]]:
    text = pathlib.Path(__file__).with_name("words.toml").read_text(encoding="utf-8")
    lists = tomllib.loads(text).items()
    found = {name: words.split() if isinstance(words, str) else words for name, words in lists}
    years = [str(year) for year in range(1850, 2010)]
    return {**found, "years": years, "few_verbs": found["verbs"][:8]}


_WORDS = types.SimpleNamespace(**_read_words())


class SyntheticPage(NamedTuple):
    """One made-up page: its address, time of fetching (ISO 8601, UTC) and text in UTF-8."""

    url: str
    date: str
    text: bytes


class _Chooser:
    """Picks words by the raw bits of a Philox stream of its own."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.Philox(key=np.array(key, dtype=np.uint64))

    def below(self, n: int) -> int:
        return int(self._bits.random_raw()) % n

    def pick(self, words: Sequence[str]) -> str:
        return words[self.below(len(words))]


def _phrase(c: _Chooser, templates: Sequence[str]) -> str:
    """Return one of the templates, with words of the lists that it names, drawn from the left."""
    return _filled(c, c.pick(templates))


def _filled(c: _Chooser, template: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: c.pick(getattr(_WORDS, found[1])), template)


def _noun_phrase(c: _Chooser) -> str:
    """Return a thing, or several: "the rusty kettle", "nine umbrellas", "a map of Dunmere"."""
    template, thing = c.pick(_WORDS.noun_phrases), c.pick(_WORDS.things)
    return _filled(c, template.replace("{thing}", thing))


def _subject(c: _Chooser) -> str:
    """Start of a sentence: an optional adverbial and somebody who did something."""
    start = _phrase(c, _WORDS.leads) + _phrase(c, _WORDS.people)
    return start[0].upper() + start[1:]


def _action(c: _Chooser) -> str:
    return f" {c.pick(_WORDS.verbs)} {_noun_phrase(c)}"


def _further_action(c: _Chooser) -> str:
    joint = c.pick([" and", " and then", " and later", ", and also"])
    return f"{joint} {c.pick(_WORDS.verbs)} {_noun_phrase(c)}"


def _ending(c: _Chooser) -> str:
    kind = c.below(4)
    mark = "!" if c.below(16) == 0 else "."
    if kind == 0:
        return f" {c.pick(_WORDS.places)}{mark}"
    joint = c.pick([" because", " while", " before anybody knew that", ", although", " as if"])
    return f"{joint} {_phrase(c, _WORDS.clauses)}{mark}"


def _menu(c: _Chooser) -> str:
    lines = [f"{c.pick(_WORDS.towns)} {c.pick(_WORDS.things).title()} Society", *_menu_words(c)]
    return "\n".join([*lines, f"The {c.pick(_WORDS.adjectives)} {c.pick(_WORDS.things)}", ""])


def _menu_words(c: _Chooser) -> list[str]:
    return [c.pick(_WORDS.menu) for _ in range(3 + c.below(5))]


def _footer(c: _Chooser) -> str:
    last = f"© {2005 + c.below(15)} {c.pick(_WORDS.names)} and friends, {c.pick(_WORDS.towns)}"
    return "\n".join([*_menu_words(c)[:4], last])


@functools.cache
def _pool(make: Callable[[_Chooser], str], size: int) -> tuple[bytes, ...]:
    """``size`` different phrases in UTF-8, the same in every run."""
    chooser = _Chooser(0, zlib.crc32(make.__name__.encode()))
    phrases: dict[bytes, None] = {}
    while len(phrases) < size:
        phrases[make(chooser).encode()] = None
    return tuple(phrases)


def _mean_bytes(pieces: Sequence[bytes]) -> float:
    return sum(map(len, pieces)) / len(pieces)


def _spread(words: npt.NDArray[np.uint64], shift: int, bits: int) -> npt.NDArray[np.int64]:
    """``bits`` bits of each random word, from bit ``shift`` on."""
    return ((words >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class SyntheticCrawl:
    """An endless made-up crawl, of which any stretch of pages can be asked for.

    Attributes:
      seed: 0 to 2**64 - 1.
      page_bytes: mean size of a page's text in bytes of UTF-8, menu and footer included.
      sentences: mean number of sentences of a page; pages have half to one and a half times it.
      duplicate_share: share of all sentences that are in boilerplate, at least 0 and below 0.9.

    Raises:
      ValueError: a value out of its range, or sentences that cannot be made so short.
    """

    seed: int
    page_bytes: int = 2300
    sentences: int = 20
    duplicate_share: float = 0.27

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in 0 .. 2**64 - 1, got {self.seed} (--seed)")
        if self.sentences < 4:
            raise ValueError(f"sentences must be at least 4, got {self.sentences} (--sentences)")
        if not 0 <= self.duplicate_share < 0.9:
            raise ValueError(
                "duplicate_share must be at least 0 and below 0.9, "
                f"got {self.duplicate_share} (--duplicate-share)"
            )
        if self._sentence_bytes() < self._shortest_sentence_bytes():
            least = math.ceil(
                self._junk_bytes() + self.sentences * (self._shortest_sentence_bytes() + 1)
            )
            raise ValueError(
                f"page_bytes must be at least {least} for {self.sentences} sentences, "
                f"got {self.page_bytes} (--page-bytes, --sentences)"
            )

    @staticmethod
    def _junk_bytes() -> float:
        return _mean_bytes(_pool(_menu, _JUNK)) + _mean_bytes(_pool(_footer, _JUNK))

    @staticmethod
    def _shortest_sentence_bytes() -> float:
        return _mean_bytes(_pool(_subject, _POOL)) + _mean_bytes(_pool(_action, _POOL)) + 1

    def _sentence_bytes(self) -> float:
        """Wanted mean bytes of a sentence, without the space or line break after it."""
        return (self.page_bytes - self._junk_bytes()) / self.sentences - 1

    @functools.cached_property
    def _ending_chance(self) -> float:
        """How likely a sentence has an ending phrase rather than a bare full stop."""
        spare = self._sentence_bytes() - self._shortest_sentence_bytes()
        return min(1.0, spare / (_mean_bytes(_pool(_ending, _POOL)) - 1))

    @functools.cached_property
    def _further_actions(self) -> float:
        """Mean number of further actions of a sentence."""
        if self._ending_chance < 1:
            return 0.0
        ending = _mean_bytes(_pool(_ending, _POOL)) - 1
        spare = self._sentence_bytes() - self._shortest_sentence_bytes() - ending
        return spare / _mean_bytes(_pool(_further_action, _POOL))

    @functools.cached_property
    def _boilerplate(self) -> tuple[list[bytes], npt.NDArray[np.int64]]:
        """Paragraphs that pages share, and the number of sentences of each.

        Their words come from a stream that no page uses: page blocks are keyed by their number.
        """
        fewest, most = _BOILERPLATE_SENTENCES
        counts = fewest + np.arange(_BOILERPLATES) % (most - fewest + 1)
        words = np.random.Philox(key=_key(self.seed, 2**64 - 1)).random_raw(int(counts.sum()))
        ends = np.zeros(int(counts.sum()), dtype=bool)
        ends[np.cumsum(counts) - 1] = True
        table = self._pieces
        pieces = table[self._sentence_pieces(words, ends)]
        starts = np.concatenate([[0], np.cumsum(counts)])
        paragraphs = [
            b"".join(pieces[start:stop].ravel().tolist())
            for start, stop in itertools.pairwise(starts.tolist())
        ]
        return paragraphs, counts

    @functools.cached_property
    def _pieces(self) -> npt.NDArray[np.object_]:
        """Every piece that sentences are made of, addressed by :meth:`_sentence_pieces`."""
        endings = _pool(_ending, _POOL)
        return np.array(
            [
                *_pool(_subject, _POOL),
                *_pool(_action, _POOL),
                *_pool(_further_action, _POOL),
                *(ending + b" " for ending in endings),
                *(ending + b"\n" for ending in endings),
                b". ",
                b".\n",
                b"",
            ],
            dtype=object,
        )

    def _sentence_pieces(
        self, words: npt.NDArray[np.uint64], line_ends: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """Numbers of the pieces of sentences, ``[sentence, piece]``, one random word a sentence."""
        stop = 5 * _POOL
        nothing = stop + 2
        slots = math.ceil(self._further_actions)
        # 12 bits each for the four pools; the further actions after the first reuse the bits of
        # the third pool, moved along by a stride that shares no factor with the pool's size.
        subject = _spread(words, 0, 12)
        action = _POOL + _spread(words, 12, 12)
        further = _spread(words, 24, 12)
        ending = 3 * _POOL + _spread(words, 36, 12) + _POOL * line_ends
        chance = (_spread(words, 48, 16) + 0.5) / 65536
        ending = np.where(chance < self._ending_chance, ending, stop + line_ends)
        columns = [subject, action]
        for slot in range(slots):
            wanted = chance < self._further_actions - slot
            piece = 2 * _POOL + (further + 1365 * slot) % _POOL
            columns.append(np.where(wanted, piece, nothing))
        return np.stack([*columns, ending], axis=1)

    def _block(self, number: int) -> list[SyntheticPage]:
        """Return the :data:`_BLOCK_PAGES` pages from ``number * _BLOCK_PAGES`` on."""
        n = _BLOCK_PAGES
        bits = np.random.Philox(key=_key(self.seed, number))
        head = bits.random_raw(4 * n).reshape(4, n)
        first = number * n

        fewest = math.ceil(self.sentences / 2)
        spread = 2 * (self.sentences - fewest) + 1
        total = fewest + _spread(head[0], 0, 20) * spread // 2**20
        paragraphs, lengths = self._boilerplate
        popularity = np.diff(np.cbrt(np.arange(_BOILERPLATES + 1) / _BOILERPLATES))
        wanted = total * self.duplicate_share / float(popularity @ lengths)
        copies = np.floor(wanted + _spread(head[0], 20, 20) / 2**20).astype(np.int64)
        # The third power makes a few paragraphs extremely popular: one copy in eight is of the
        # first. `popularity` above is the resulting share of each paragraph.
        most = int(copies.max(initial=0))
        uniform = _spread(bits.random_raw(n * most), 0, 32).reshape(n, most) / 2**32
        chosen = np.floor(_BOILERPLATES * uniform**3).astype(np.int64)
        copied = np.where(np.arange(most) < copies[:, None], lengths[chosen], 0).sum(axis=1)
        fresh = np.maximum(total - copied, 0)

        words = bits.random_raw(int(fresh.sum()))
        stops = np.cumsum(fresh)
        breaks = bits.random_raw(len(words)) % np.uint64(1000)
        line_ends = breaks < np.uint64(round(1000 / _SENTENCES_PER_LINE))
        line_ends[stops[fresh > 0] - 1] = True
        pieces = self._pieces[self._sentence_pieces(words, line_ends)]
        per_sentence = pieces.shape[1]
        flat: list[bytes] = pieces.ravel().tolist()

        menus = _pool(_menu, _JUNK)
        footers = _pool(_footer, _JUNK)
        dates = _FIRST_FETCH + (_spread(head[1], 0, 40) % _CRAWL_S).astype("timedelta64[s]")
        addresses = self._addresses(first, head[2], head[3])
        pages = []
        start = 0
        for url, date, menu, footer, stop, copy_count, copy_row in zip(
            addresses,
            np.datetime_as_string(dates, timezone="UTC").tolist(),
            _spread(head[1], 48, 8).tolist(),
            _spread(head[1], 56, 8).tolist(),
            (stops * per_sentence).tolist(),
            copies.tolist(),
            chosen.tolist(),
            strict=True,
        ):
            shared = [paragraphs[k] for k in copy_row[:copy_count]]
            text = b"".join([menus[menu], *flat[start:stop], *shared, footers[footer]])
            pages.append(SyntheticPage(url, date, text))
            start = stop
        return pages

    def _addresses(
        self, first: int, chances: npt.NDArray[np.uint64], earlier: npt.NDArray[np.uint64]
    ) -> list[str]:
        """Urls of a block: a page's own, or that of an earlier page in another spelling."""
        share = _REVISITS_PER_DUPLICATE * self.duplicate_share
        revisits = (_spread(chances, 0, 32) < share * 2**32).tolist()
        targets = (earlier >> np.uint64(11)).tolist()
        spellings = _spread(chances, 32, 2).tolist()
        urls = []
        for i, (revisit, target, spelling) in enumerate(
            zip(revisits, targets, spellings, strict=True), start=first
        ):
            if revisit and i:
                path = self._address(target % i)
                urls.append(
                    (
                        f"http://{path}",
                        f"https://{path}?utm_source=feed",
                        f"https://{path}/",
                        f"http://www.{path}?ref={i}",
                    )[spelling]
                )
            else:
                urls.append(f"https://www.{self._address(i)}")
        return urls

    def _address(self, i: int) -> str:
        """Return the address of page ``i`` without scheme."""
        k = (i * 2654435761 + self.seed) & 0xFFFFFFFF  # Knuth's multiplicative hash
        town = _WORDS.towns[k % len(_WORDS.towns)].lower()
        thing = _WORDS.things[k // 31 % len(_WORDS.things)]
        topic = _WORDS.events[k // 1009 % len(_WORDS.events)]
        return f"{town}-{thing}{k % 97}.example/{topic}/{i}"

    def pages(self, start: int, stop: int) -> Iterator[SyntheticPage]:
        """Pages ``start`` to ``stop - 1``.

        >>> crawl = SyntheticCrawl(seed=1)
        >>> list(crawl.pages(0, 5))[3] == next(crawl.pages(3, 4))
        True
        """
        for number in range(start // _BLOCK_PAGES, -(-stop // _BLOCK_PAGES)):
            first = number * _BLOCK_PAGES
            yield from self._block(number)[max(start - first, 0) : stop - first]


def _key(seed: int, number: int) -> npt.NDArray[np.uint64]:
    return np.array([seed, number], dtype=np.uint64)


def _urn(number: int, digits: str) -> str:
    """Return a version 4 UUID of 32 bits of ``number`` and 22 of the given hexadecimal digits."""
    groups = f"{digits[:4]}-4{digits[4:7]}-8{digits[7:10]}-{digits[10:22]}"
    return f"<urn:uuid:{number:08x}-{groups}>"


def record_bytes(page: SyntheticPage) -> bytes:
    """Return the uncompressed WARC record of ``page``, header fields in Common Crawl's order."""
    digest = hashlib.sha1(page.text, usedforsecurity=False)
    sha = digest.hexdigest()
    visit = zlib.crc32(f"{page.url} {page.date}".encode())
    fields = (
        ("WARC-Type", "conversion"),
        ("WARC-Target-URI", page.url),
        ("WARC-Date", page.date),
        ("WARC-Record-ID", _urn(visit, sha)),
        ("WARC-Refers-To", _urn(visit, sha[20:] + sha[:20])),
        ("WARC-Block-Digest", f"sha1:{base64.b32encode(digest.digest()).decode()}"),
        ("WARC-Identified-Content-Language", "eng"),
        ("Content-Type", "text/plain"),
        ("Content-Length", len(page.text)),
    )
    return warc_record(fields, page.text)


def _warcinfo(name: str) -> bytes:
    body = b"Software-Info: benchmarks/generate_wet.py\r\nisPartOf: SYNTHETIC\r\n"
    fields = (
        ("WARC-Type", "warcinfo"),
        ("WARC-Date", f"{_FIRST_FETCH}Z"),
        ("WARC-Filename", name),
        ("WARC-Record-ID", _urn(zlib.crc32(name.encode()), "0" * 22)),
        ("Content-Type", "application/warc-fields"),
        ("Content-Length", len(body)),
    )
    return warc_record(fields, body)


def _gzip_member(data: bytes) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW_4K, _GZIP_MEM_LEVEL)
    return deflate.compress(data) + deflate.flush()


def generate(
    folder: pathlib.Path, *, pages: int, files: int, crawl: SyntheticCrawl
) -> list[pathlib.Path]:
    """Write the first ``pages`` pages of ``crawl`` into ``files`` WET files, one after the other.

    Files are ``synthetic-00000.warc.wet.gz`` and so on, gzip level 1, one member a record. File k
    holds the pages from ``k * pages // files`` to ``(k + 1) * pages // files - 1``.

    Raises:
      ValueError: ``pages`` or ``files`` is not positive, or there are more files than pages.
    """
    if not 1 <= files <= pages:
        raise ValueError(
            f"files must be between 1 and the number of pages, got {files} files and {pages} pages "
            "(--files, --pages)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(files):
        path = folder / f"synthetic-{k:05d}.warc.wet.gz"
        with path.open("wb") as file:
            file.write(_gzip_member(_warcinfo(path.name)))
            for page in crawl.pages(k * pages // files, (k + 1) * pages // files):
                file.write(_gzip_member(record_bytes(page)))
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes WET files of made-up English pages.")
    parser.add_argument("--pages", type=int, required=True, metavar="N")
    parser.add_argument("--files", type=int, required=True, metavar="F")
    parser.add_argument("--seed", type=int, required=True, metavar="S")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FOLDER")
    parser.add_argument("--page-bytes", type=int, default=2300, help="mean text bytes of a page")
    parser.add_argument("--sentences", type=int, default=20, help="mean sentences of a page")
    parser.add_argument(
        "--duplicate-share", type=float, default=0.27, help="share of sentences in boilerplate"
    )
    args = parser.parse_args()
    try:
        crawl = SyntheticCrawl(args.seed, args.page_bytes, args.sentences, args.duplicate_share)
        start = time.perf_counter()
        paths = generate(args.out, pages=args.pages, files=args.files, crawl=crawl)
    except ValueError as error:
        parser.error(str(error))
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in paths)
    print(
        f"{args.pages:,} pages, {len(paths)} files, {size:,} bytes "
        f"in {seconds:.1f} s ({args.pages / seconds:,.0f} pages/s)"
    )


if __name__ == "__main__":
    main()
