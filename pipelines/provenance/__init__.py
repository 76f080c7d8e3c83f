"""Where the pages of a finished corpus came from, and what the build made of each.

``kept`` opens the kept files of a corpus and finds pages in them, ``index`` makes that fast,
``explainer`` reads the records again and judges them, ``answers`` puts that into the answer to one
question, ``printed`` prints it, and ``differences`` compares two corpora.
"""
