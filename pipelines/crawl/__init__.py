"""WET files of Common Crawl: lists of their paths, and fetching them.

Nothing here imports Beam.
"""
