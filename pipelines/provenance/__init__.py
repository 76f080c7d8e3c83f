"""Where the pages of a finished corpus came from, and what the build made of each.

``kept_file`` reads the kept files of one WET file; ``kept`` finds pages in those of a corpus, and
``index`` makes that fast; ``built_with`` gives the settings to judge them again;
``explainer`` reads the records again and judges them, ``answers`` puts that into the answer to one
question, ``printed`` prints it, and ``differences`` compares two corpora.
"""
