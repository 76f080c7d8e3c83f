"""The files that one stage of a build hands to the next, and keeps for a later build.

Nothing here imports Beam or JAX.
"""
