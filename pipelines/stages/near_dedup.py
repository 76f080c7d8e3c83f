"""Near duplicates as a part of the build's graph: the steps of `pipelines.stages.near_files`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from c4_filters.near import BAND_ROW, bands_for
from c4_filters.pages import PageRules
from pipelines.config import BuildConfig
from pipelines.quiet_beam import beam
from pipelines.stages import dedup, near_files

_Named = tuple[str, bytes]
Note = Callable[[str, str, int], None]


class NearDuplicates(beam.PTransform[Any, Any]):
    """Names of files whose removals are written -> the same, once near duplicates are in these.

    Attributes:
        config: The build; its recipe has ``near_dedup``.
        build_id: The build that the removals belong to.
        totals: A side input with the number of ``pages`` of all files.
        own: A transform that passes elements on, unless another build has taken the folder.
        note: Takes a stage, a part of it and the units of it that are done, for the progress.
    """

    def __init__(
        self, config: BuildConfig, build_id: str, totals: Any, own: Any, note: Note
    ) -> None:
        super().__init__()
        self.config = config
        self.build_id = build_id
        self.totals = totals
        self.own = own
        self.note = note

    def expand(self, names: Any) -> Any:
        """Add the steps."""
        files = names | "Files" >> beam.Map(lambda name: (name, b"")).with_output_types(_Named)
        asked = (
            files
            | "Numbers" >> beam.ParDo(_Numbers(self.config, self.build_id, self.note), self.totals)
            | "ByNumber" >> beam.GroupByKey()
            | "Candidates" >> beam.FlatMap(_candidates).with_output_types(tuple[str, Any])
        )
        hubs = (
            {"file": files, "asked": asked}
            | "AskedByFile" >> beam.CoGroupByKey()
            | "HubTexts"
            >> beam.ParDo(_HubTexts(self.config, self.build_id)).with_output_types(tuple[str, Any])
        )
        pairs = (
            {"file": files, "hubs": hubs}
            | "HubsByFile" >> beam.CoGroupByKey()
            | "SimilarPairs" >> beam.ParDo(_SimilarPairs(self.config, self.build_id))
        )
        lost = (
            pairs
            | "InOneGroup" >> beam.GroupByKey()
            | "DroppedPages" >> beam.FlatMap(_dropped_pages).with_output_types(_Named)
        )
        return (
            {"file": files, "lost": lost}
            | "LostByFile" >> beam.CoGroupByKey()
            | "OwnBefore" >> self.own
            | "WriteNearDuplicates"
            >> beam.Map(_write, self.config.output, self.build_id).with_output_types(str)
        )


class _Step(beam.DoFn):
    """A step that needs the rules."""

    def __init__(self, config: BuildConfig, build_id: str) -> None:
        self._config = config
        self._build_id = build_id
        self._rules: PageRules | None = None

    def setup(self) -> None:
        self._rules = self._config.page_rules()

    def _of_file(self, name: str) -> tuple[str, str, PageRules, str]:
        assert self._rules is not None
        return self._config.output, name, self._rules, self._build_id


class _Numbers(_Step):
    """(name, ...) -> (bucket, (name, packed numbers))."""

    def __init__(self, config: BuildConfig, build_id: str, note: Note) -> None:
        super().__init__(config, build_id)
        self._note = note

    def process(self, element: _Named, totals: Any) -> Iterator[tuple[int, _Named]]:
        name, _ = element
        recipe = self._config.recipe
        assert recipe.near_dedup is not None
        rows = totals.pages * bands_for(recipe.near_dedup.threshold).numbers
        buckets = dedup.bucket_count(rows, BAND_ROW.itemsize)
        for bucket, buffer in near_files.number_buffers(*self._of_file(name), buckets).items():
            yield bucket, (name, buffer)
        self._note("near", name, 1)


class _HubTexts(_Step):
    """(name, what is asked of it) -> (name of another file, what it is to compare with)."""

    def process(self, element: tuple[str, Any]) -> Iterator[tuple[str, Any]]:
        name, found = element
        for other, hub in near_files.hub_texts(*self._of_file(name), found["asked"]):
            yield other, tuple(hub)  # plain: every engine's coder knows it


class _SimilarPairs(_Step):
    """(name, hubs) -> (0, (name, packed pairs))."""

    def process(self, element: tuple[str, Any]) -> Iterator[tuple[int, _Named]]:
        name, found = element
        hubs = (near_files.HubText(*hub) for hub in found["hubs"])
        if pairs := near_files.similar_pairs(*self._of_file(name), hubs):
            yield 0, (name, pairs)


def _candidates(group: tuple[int, Iterable[_Named]]) -> Iterator[tuple[str, tuple[str, bytes]]]:
    return near_files.candidates(group[1])


def _dropped_pages(group: tuple[int, Iterable[_Named]]) -> Iterator[_Named]:
    return near_files.dropped_pages(group[1])


def _write(element: tuple[str, Any], output: str, build_id: str) -> str:
    name, found = element
    near_files.write_near_removals(output, name, found["lost"], build_id)
    return name
