"""Beam's options, of which each view is made once.

Beam asks for the same few views at every transform of a graph, and makes a parser for each: more
than half of the time that our graph takes to be made.
"""

from typing import Any

from pipelines.quiet_beam import beam


class ViewedOptions(beam.options.pipeline_options.PipelineOptions):
    """Options that remember their views, all of which share the values."""

    def view_as(self, cls: Any) -> Any:
        """Return these options as those of another class."""
        views = vars(self).setdefault("_views", {})  # Beam's class refuses attributes
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]
