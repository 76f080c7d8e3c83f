"""Launching the build on Dataflow: a Flex Template, its image, and what makes them."""
