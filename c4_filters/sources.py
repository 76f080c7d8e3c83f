"""Where a recipe's rules and lists come from: the paper's sections, and the lists it names."""

from typing import NamedTuple

from c4_filters.recipes import RECIPES, Recipe

_PAPER = "Raffel et al., JMLR 21 (140), 2020"
_PAPER_URL = "https://jmlr.org/papers/v21/20-074.html"
_TF_URL = "https://github.com/tensorflow/datasets/blob/master/tensorflow_datasets/text/c4.py"


class Citation(NamedTuple):
    """What to cite for a rule or a list.

    Attributes:
        of: What it is the source of: "rules", or the option of a list.
        name: What to cite.
        url: Where it is.
    """

    of: str
    name: str
    url: str


#: Recipe -> name and url of what its rules are from.
_RULES = {
    "en": (f"{_PAPER}, section 2.2", _PAPER_URL),
    "en.noblocklist": (
        "C4, variant en.noblocklist of AllenAI",
        "https://huggingface.co/datasets/allenai/c4",
    ),
    "en.noclean": (f"{_PAPER}, section 3.4.1 (unfiltered C4)", _PAPER_URL),
    "en.paper_v3": (f"{_PAPER}, section 2.2, numbers as printed", _PAPER_URL),
    "realnewslike": (f"{_PAPER}, section 3.4.1 (RealNews-like)", _PAPER_URL),
    "webtextlike": (
        f"{_PAPER}, section 3.4.1 (WebText-like, crawls 2018-34 to 2019-30)",
        _PAPER_URL,
    ),
    "multilingual": (
        "mC4: Xue et al., mT5, NAACL 2021, section 3.1",
        "https://aclanthology.org/2021.naacl-main.41",
    ),
    "tfds": ("TensorFlow Datasets, c4/en 3.1.0", _TF_URL),
    **dict.fromkeys(
        ("de", "fr", "ro"),
        (f"{_PAPER}, section 2.2, in a language of section 3.1.3", _PAPER_URL),
    ),
}

_BAD_WORDS = Citation(
    "--badwords",
    "List of Dirty, Naughty, Obscene and Otherwise Bad Words",
    "https://github.com/LDNOOBW/List-of-Dirty-Naughty-Obscene-and-Otherwise-Bad-Words",
)
_DOMAINS = Citation(
    "--domain-list",
    "RealNews: Zellers et al., Defending Against Neural Fake News, NeurIPS 2019",
    "https://github.com/rowanz/grover/blob/master/realnews/domain_to_allowed_subdomains.json",
)
_URLS = Citation(
    "--url-list",
    "OpenWebText: Gokaslan and Cohen, OpenWebText Corpus, 2019",
    "https://skylion007.github.io/OpenWebTextCorpus/",
)


def sources_of(recipe: Recipe) -> tuple[Citation, ...]:
    """Return the sources of a recipe: of its rules, if they are ours unchanged, and of its lists.

    A list that the user gives is what the recipe calls for, or a replacement: its digest, in the
    manifest, says which.

    >>> [source.of for source in sources_of(RECIPES["realnewslike"])]
    ['rules', '--badwords', '--domain-list']
    """
    found = []
    if RECIPES.get(recipe.name) == recipe and recipe.name in _RULES:
        found.append(Citation("rules", *_RULES[recipe.name]))
    for wanted, source in (
        (recipe.bad_words, _BAD_WORDS),
        (recipe.domain_list, _DOMAINS),
        (recipe.url_list, _URLS),
    ):
        if wanted:
            found.append(source)
    return tuple(found)
