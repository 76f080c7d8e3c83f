"""What the rules of a recipe make of one page."""

from c4_filters.explain import ExplainedPage, explain_page
from c4_filters.pages import PageRules, RawPage, load_rules
from c4_filters.recipes import Recipe
from pipelines.corpus.formats.pages import Page


def explain(page: str | Page | RawPage, recipe: str | Recipe | PageRules = "en") -> ExplainedPage:
    r"""Judge a page as a build would, line by line, as if nothing of it were a duplicate.

    Args:
        page: A text, or a page with its url.
        recipe: The name of a recipe, a recipe, or its rules loaded with lists of your own.

    Raises:
        ValueError: No recipe has that name, or it needs a list of domains or urls.

    >>> explained = explain("The river rose during the night. We left.\nRead more", "en.paper_v3")
    >>> [str(line.verdict) for line in explained.lines]
    ['kept', 'no_end_mark']
    >>> str(explained.result.verdict), explained.note
    ('few_sentences', '2 sentences left, 5 wanted')
    """
    if isinstance(page, str):
        page = Page(page)
    raw = RawPage(
        url=page.url,
        text=page.text,
        timestamp=page.timestamp,
        content_type=page.content_type,
        content_length=page.content_length,
    )
    return explain_page(raw, recipe if isinstance(recipe, PageRules) else load_rules(recipe))
