"""Views that are kept are as good as Beam's own, which are made anew."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from pipelines.engines.viewed_options import ViewedOptions
from pipelines.quiet_beam import beam

OPTIONS = beam.options.pipeline_options
WORDS = ["--runner=FnApiRunner", "--direct_num_workers=2", "--experiments=a"]


@pytest.mark.parametrize(
    "copied", [lambda options: options, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_what_is_set_in_one_view_is_seen_in_all(copied: Callable[[Any], Any]) -> None:
    made = {}
    for kind in (OPTIONS.PipelineOptions, ViewedOptions):
        options = kind(WORDS)
        assert options.view_as(OPTIONS.StandardOptions).runner == "FnApiRunner"
        options.view_as(OPTIONS.DebugOptions).experiments.append("b")
        options = copied(options)
        options.view_as(OPTIONS.StandardOptions).streaming = True
        options.view_as(OPTIONS.DebugOptions).experiments.append("c")
        seen = options.view_as(OPTIONS.DirectOptions).view_as(OPTIONS.StandardOptions)
        assert seen.streaming
        made[kind] = options.get_all_options(), options.get_all_options(drop_default=True)
    assert made[ViewedOptions] == made[OPTIONS.PipelineOptions]
    assert made[ViewedOptions][0]["experiments"] == ["a", "b", "c"]


def test_a_view_is_made_once() -> None:
    options = ViewedOptions(WORDS)
    kinds = [OPTIONS.StandardOptions, OPTIONS.TypeOptions]
    assert [options.view_as(kind) is options.view_as(kind) for kind in kinds] == [True, True]
    assert ViewedOptions(WORDS).view_as(kinds[0]) is not options.view_as(kinds[0])
