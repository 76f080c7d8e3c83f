"""The rules of C4 as pure functions: no Beam, no JAX, no TensorFlow, no network.

>>> from c4_filters import RawPage, explain_page, load_rules
>>> page = RawPage("http://a.example/", "", "", "", text="Read more")
>>> explain_page(page, load_rules("en")).lines[0].verdict
<LineVerdict.NO_END_MARK: 'no_end_mark'>
"""

from typing import TYPE_CHECKING

from c4_filters.lazy import lazy_names

if TYPE_CHECKING:
    from c4_filters.explain import ExplainedLine as ExplainedLine
    from c4_filters.explain import ExplainedPage as ExplainedPage
    from c4_filters.explain import explain_page as explain_page
    from c4_filters.pages import CleanPage as CleanPage
    from c4_filters.pages import PageRules as PageRules
    from c4_filters.pages import RawPage as RawPage
    from c4_filters.pages import load_rules as load_rules
    from c4_filters.recipes import RECIPES as RECIPES
    from c4_filters.recipes import NearDedup as NearDedup
    from c4_filters.recipes import Recipe as Recipe
    from c4_filters.recipes import load_recipe as load_recipe
    from c4_filters.urls import normalize_url as normalize_url
    from c4_filters.verdicts import LineVerdict as LineVerdict
    from c4_filters.verdicts import PageVerdict as PageVerdict
    from c4_filters.verdicts import RejectReason as RejectReason

_PLACES = {
    "RECIPES": "c4_filters.recipes",
    "CleanPage": "c4_filters.pages",
    "ExplainedLine": "c4_filters.explain",
    "ExplainedPage": "c4_filters.explain",
    "LineVerdict": "c4_filters.verdicts",
    "NearDedup": "c4_filters.recipes",
    "PageRules": "c4_filters.pages",
    "PageVerdict": "c4_filters.verdicts",
    "RawPage": "c4_filters.pages",
    "Recipe": "c4_filters.recipes",
    "RejectReason": "c4_filters.verdicts",
    "explain_page": "c4_filters.explain",
    "load_recipe": "c4_filters.recipes",
    "load_rules": "c4_filters.pages",
    "normalize_url": "c4_filters.urls",
}
__getattr__, __dir__ = lazy_names(__name__, _PLACES)
__all__ = list(_PLACES)
