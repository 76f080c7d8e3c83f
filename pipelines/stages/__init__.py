"""The stages of a build as Beam transforms, and the graph that joins them."""
