"""What a build does on the machine that starts it, before its graph runs and when it is done."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines import builders, corpus_folder, finish_corpus, storage, verify_corpus
from pipelines.config import KEEP, BuildConfig
from pipelines.corpus import layout
from pipelines.corpus.card.owner import read_owner
from pipelines.corpus.digests import sha256_of
from pipelines.corpus.errors import CorpusError
from pipelines.corpus.manifest import Manifest, read_manifest, write_manifest
from pipelines.corpus.root_digest import recompute
from pipelines.crawl.inputs import input_files
from pipelines.engines.local import cores
from pipelines.imports import sources
from pipelines.input_list import build_id, write_input_list
from pipelines.printing import counted, print_note
from pipelines.storage import FileInfo
from pipelines.storage.patterns import has_magic

Note = Callable[[str], None]


def prepare(
    config: BuildConfig, *, start_over: bool = False, note: Note = print_note
) -> "Prepared":
    """Check a build on the machine that starts it: lists, inputs and folder. Write nothing.

    Raises:
        ValueError: A list is damaged, a user's rule is not allowed or does not load, no
            input matches, or the folder holds something else.
        OSError: A list or the folder cannot be read.
    """
    config = config.absolute()
    config.require_rules_allowed()
    config.page_rules()  # a bad list stops here, not on a worker
    config.opt_out_list()
    if config.card is not None:
        read_owner(config.card)
    for option, path in config.empty_lists().items():
        note(f"c4: warning: the list {path} has no entries ({option})")
    if config.source == sources.WET:
        files = input_files(config.inputs, config.crawl, config.files, config.base_url, note)
    else:
        files = sources.input_files(config.source, config.inputs)
        if line := sources.note_on_sizes(config.source, files):
            note(f"c4: note: {line}")
    if config.recipe.dedup_urls:
        paths = [file.path for file in files]
        sources.require_distinct_names(config.source, paths, config.recipe.name)
    _require_utf8([file.path for file in files], "--input")
    _require_utf8([config.output], "--output")
    corpus_folder.require_own_folder(config.output, start_over)
    _refuse_own_output(config, files)
    return Prepared(config, files, start_over, note)


@dataclasses.dataclass
class Prepared:
    """A checked build, before it changes anything in its folder.

    Attributes:
        config: The build, with paths that mean the same from every folder.
        files: Its inputs.
        start_over: Whether to remove earlier builds first.
        note: Takes lines for the user.
        finished: The manifest of the same corpus, if it is there already.
    """

    config: BuildConfig
    files: Sequence[FileInfo]
    start_over: bool
    note: Note
    finished: Manifest | None = None
    _problems: Sequence[str] = ()

    def look_for_finished(self, digests: bool = False) -> None:
        """Look whether the folder holds this corpus; with ``digests``, check every checksum.

        Raises:
            CorpusError: The folder holds a build of other settings.
            OSError: Another build runs in the folder.
        """
        if self.start_over:
            return
        try:
            corpus_folder.require_same_build(self.config)
        except corpus_folder.FolderError:
            builders.require_not_running(self.config.output)  # which says more
            raise
        self.finished, self._problems = _finished(self.config, self.files, digests)

    @property
    def is_done(self) -> bool:
        """Whether the folder is as this build would leave it."""
        return self.finished is not None and not _needs_tidying(self.config, self.finished)

    @contextlib.contextmanager
    def claimed(self, kind: str, runner: str) -> Iterator[builders.Claim]:
        """Hold the folder, made ready for this build, while the block runs.

        If another build has finished the corpus by then, ``finished`` is its manifest and nothing
        was changed.

        Args:
            kind: Of the claim, see `pipelines.builders`.
            runner: Name of the runner, for messages.
        """
        config = self.config
        identity = build_id(config.identity, self.files)
        with builders.hold(
            config.output, kind=kind, runner=runner, build_id=identity, note=self.note
        ) as claim:
            corpus_folder.claim_folder(config, self.start_over)
            # Another build may have finished between the first look and this claim.
            self.finished = None
            if not self._problems and not self.start_over:
                self.finished, _ = _finished(config, self.files, digests=False)
            for problem in self._problems:
                self.note(f"c4: note: {config.output}: {problem}: rebuilding it")
            if self.finished is None:
                self._note_left_out_inputs()
                corpus_folder.begin(config.output)
                write_input_list(config.output, self.files, claim.run_id, identity)
            yield claim

    def tidy_up(self) -> None:
        """Bring what is around a finished corpus up to date. The folder must be claimed."""
        assert self.finished is not None
        self.finished = tidy(self.config, self.finished, self.note)

    def _note_left_out_inputs(self) -> None:
        try:
            made = read_manifest(self.config.output)
        except CorpusError:
            return  # no finished build
        left_out = {file.path for file in made.inputs} - {file.path for file in self.files}
        if left_out:
            self.note(
                f"c4: note: {counted(len(left_out), 'file')} of the previous build not in --input: "
                "rebuilding without them"
            )


def require_readable(config: BuildConfig, made: Manifest) -> None:
    """Raise OSError if more inputs could not be read than ``config`` allows, or none could."""
    unreadable = made.unreadable_inputs
    if not made.inputs:
        what = unreadable[0]
        raise OSError(
            f"no input file could be read, so the corpus in {config.output} has no pages: "
            f"{what.path}: {what.error}; repair or remove what is damaged and run again"
        )
    if len(unreadable) > config.allow_unreadable_files:
        raise OSError(
            f"{len(unreadable)} of {len(unreadable) + len(made.inputs)} files could not be read, "
            f"such as {unreadable[0].path}: {unreadable[0].error}; the corpus in {config.output} "
            "is built from the others; repair or remove them and run again, or accept with "
            f"--allow-unreadable-files {len(unreadable)}"
        )


def kept_folders(config: BuildConfig, made: Manifest) -> str:
    """Return which kept folders stay: those of ``--keep``, without those removed earlier."""
    before = made.keep if made.keep in KEEP else "all"
    return max(config.keep, before, key=list(KEEP).index)


def _refuse_own_output(config: BuildConfig, files: Sequence[FileInfo]) -> None:
    """Raise ValueError if an input, now or at the next run, is a file of the output folder."""
    output = _real(config.output).rstrip("/") + "/"
    folders: dict[str, str] = {}
    for file in files:
        folder, name = os.path.split(file.path)
        if folder not in folders:
            folders[folder] = _real(folder)
        link = storage.is_local(file.path) and os.path.islink(file.path)
        path = _real(file.path) if link else storage.join(folders[folder], name)
        if path.startswith(output):
            raise ValueError(
                f"the input {file.path} lies in the output folder {config.output}: give an "
                "--output elsewhere, or an --input that does not match what is in it"
            )
    folders_of_ours = {config.output, _real(config.output)}
    ours = [storage.join(folder, name) for folder in folders_of_ours for name in _OUTPUTS]
    literal = {file.path for file in files}
    for pattern in config.inputs:
        if pattern in literal or not has_magic(pattern):
            continue
        forms = (pattern, _real_pattern(pattern))
        found = next((p for p in ours if any(storage.matches(form, p) for form in forms)), None)
        if found:
            raise ValueError(
                f"--input {pattern!r} matches files that the build itself writes, such as {found}: "
                "give an --output elsewhere, or a pattern such as '*.warc.wet.gz'"
            )


#: Examples of what a build writes. A pattern that matches one would match its own output.
_OUTPUTS = (
    layout.MANIFEST,
    "train-00000-of-00001.parquet",
    "train-00000-of-00001.json.gz",
    "train-00000-of-00001.tfrecord",
    "cleaned/CC-MAIN-20190418101243-20190418122248-00000-0123456789abcdef.arrow",
)


def _real_pattern(pattern: str) -> str:
    """Return a pattern with the links resolved in the folders before its first wildcard."""
    folders = pattern.split("/")
    plain = next(number for number, folder in enumerate(folders) if has_magic(folder))
    return "/".join([_real("/".join(folders[:plain])), *folders[plain:]])


def _real(path: str) -> str:
    return os.path.realpath(path) if storage.is_local(path) else path


def _require_utf8(paths: Sequence[str], option: str) -> None:
    """Raise ValueError for a name that neither Beam nor the manifest can hold."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode("utf-8", "surrogateescape")
            raise ValueError(f"{shown!r} is not UTF-8: give it another name ({option})") from None


def _finished(
    config: BuildConfig, files: Sequence[FileInfo], digests: bool
) -> tuple[Manifest | None, list[str]]:
    """Return the manifest of a finished build of these files, or None and the problems."""
    if not storage.exists(storage.join(config.output, layout.MANIFEST)):
        return None, []
    made = verify_corpus.manifest_problem(config.output)
    if isinstance(made, verify_corpus.Problem):
        return None, [str(made)]
    if set(made.formats) != set(config.formats):
        return None, [f"{layout.MANIFEST} is damaged: other formats"]
    if not _same_inputs(config, made, files) or made.settings.lists != config.identity["lists"]:
        return None, []
    if digests:
        problems = verify_corpus.content_problems(config.output, made)
        problems += verify_corpus.kept_problems(config.output, made)[0]
    else:
        problems = verify_corpus.shard_problems(config.output, made)
    more = [f"{len(problems) - 10} more files are damaged"] if len(problems) > 10 else []
    return None if problems else made, [*map(str, problems[:10]), *more]


def _same_inputs(config: BuildConfig, made: Manifest, files: Sequence[FileInfo]) -> bool:
    """Return whether a corpus was built from these files, by what is known of their content."""
    before = {file.path: file for file in made.inputs}  # without those to be tried again
    if before.keys() != {file.path for file in files}:
        return False
    if not all(before[file.path].may_be(file) for file in files):
        return False
    if not config.verify_inputs:
        return True
    wanted = {path: entry.sha256 for path, entry in before.items()}
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
        return all(map(str.__eq__, pool.map(sha256_of, wanted), wanted.values()))


def _needs_tidying(config: BuildConfig, made: Manifest) -> bool:
    """Return whether `tidy` would change anything around a finished corpus."""
    merged = storage.listdir(storage.join(config.output, layout.MERGED))
    keep = kept_folders(config, made)
    return (
        _card(config, made) != made.card
        or bool(verify_corpus.side_file_problems(config.output, made))
        or keep != made.keep
        or not made.root_digest
        or bool(corpus_folder.kept_to_drop(config.output, keep))
        or any(map(layout.pieces_like, merged))
    )


def tidy(config: BuildConfig, made: Manifest, note: Note) -> Manifest:
    """Bring side files, kept folders and the manifest of a finished corpus up to date."""
    output = config.output
    keep = kept_folders(config, made)
    missing = verify_corpus.side_file_problems(output, made)
    named = bool(made.root_digest)  # not if it is of an earlier version
    card = _card(config, made)
    rewritten = card != made.card
    if missing or rewritten or not named:
        made = dataclasses.replace(made, card=card)
        made = finish_corpus.write_side_files(output, made)
        written = {file.name for file in made.side_files or ()}
        for problem in missing:
            if problem.file in written:
                note(f"c4: note: {output}: {problem}: written again")
    if not named:
        made = dataclasses.replace(made, root_digest=recompute(output, made))
    if missing or rewritten or keep != made.keep or not named:
        made = write_manifest(output, dataclasses.replace(made, keep=keep))
    storage.remove(corpus_folder.kept_to_drop(output, keep))
    corpus_folder.drop_pieces(output)
    return made


def _card(config: BuildConfig, made: Manifest) -> dict[str, Any]:
    """Return what the owner says of a finished corpus: now, or else when it was built."""
    return made.card if config.card is None else read_owner(config.card).as_dict()
