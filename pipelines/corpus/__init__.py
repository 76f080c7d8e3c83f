"""The corpus on disk: all that writes it or reads it goes through this package.

================  ==============================================================================
`layout`          the path of every file
`manifest`        ``manifest.json``: typed, versioned, checked when it is read
`formats`         shards: one table, and for each format one module that writes and reads it
`reading`         finished corpora: splits, pages, texts by number
`older`           the corpora that a build adds to
`root_digest`     the name of a corpus, by its pages and rules
`dataset_info`    the files by which other libraries open a corpus
`cleaned`         what one stage of a build passes to the next, and a later build uses again; also
                  `fingerprints` and `removals`; each file is a checked `container`
================  ==============================================================================

Nothing here imports Beam or JAX, or anything of `pipelines` but `pipelines.storage`.
"""
