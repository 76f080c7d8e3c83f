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

_NAMES = {
    "explain": ("ExplainedLine", "ExplainedPage", "explain_page"),
    "pages": ("CleanPage", "PageRules", "RawPage", "load_rules"),
    "recipes": ("RECIPES", "NearDedup", "Recipe", "load_recipe"),
    "urls": ("normalize_url",),
    "verdicts": ("LineVerdict", "PageVerdict", "RejectReason"),
}
__getattr__, __dir__, __all__ = lazy_names(__name__, _NAMES)
