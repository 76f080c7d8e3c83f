"""The files that one stage of a build passes to the next, and that a later build uses again.

Nothing here imports Beam or JAX.
"""
