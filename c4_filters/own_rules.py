"""The user's own rules: Python functions that a recipe names and that the command line allows.

A recipe has ``rules = ["my_rules:no_recipes"]``. Such a rule is a pure function of a `RulePage`: it
returns None to keep the page, or the verdict to drop it, a word of ``a`` to ``z`` and ``_``. A
recipe is data and may come from anywhere, so naming a module imports nothing: `load_own_rules` is
given the modules that the user allows.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from c4_filters.verdicts import RESERVED

_VERDICT = re.compile(r"[a-z_]{1,64}")
_RULE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)", re.ASCII)
_SHOWN_CHARS = 200


class RulePage(NamedTuple):
    """What a user's rule sees of a page."""

    url: str  # as written
    timestamp: str  # WARC-Date, as written
    text: str  # the lines that the other rules kept, joined by newlines
    language: str | None  # langdetect's code; None where the recipe detects it after deduplication
    language_probability: float | None


class OwnRuleError(ValueError):
    """A rule raised an exception, or returned something that is not a verdict.

    Attributes:
        at: The position of the page among those that were judged together.
    """

    def __init__(self, rule: str, url: str, what: str, at: int = 0) -> None:
        super().__init__(rule, url, what, at)
        self.rule, self.url, self.what, self.at = rule, url, what, at

    def __str__(self) -> str:
        return self.located("")

    def located(self, where: str) -> str:
        """Return the message; ``where`` says in which file the page is, and at which offset."""
        return f"rule {self.rule} {self.what} for the page {self.url}{where and f' ({where})'}"


class OwnRules:
    """The rules of a recipe, loaded.

    Attributes:
        sources: The source text of each module. It is the text that was run.
    """

    def __init__(
        self, rules: Iterable[tuple[str, Callable[[RulePage], Any]]], sources: dict[str, str]
    ) -> None:
        self._rules = tuple(rules)
        self.sources = sources

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each module's source text, in UTF-8."""
        return {
            name: hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
            for name, text in sorted(self.sources.items())
        }

    def judge(self, page: RulePage, at: int = 0) -> tuple[str, str] | None:
        """Return the verdict of the first rule that drops a page and the rule's name, or None.

        Raises:
            OwnRuleError: The rule raised an exception or returned no verdict; ``at`` is kept.
        """
        for name, rule in self._rules:
            try:
                verdict = rule(page)
            except (Exception, SystemExit) as error:
                raise OwnRuleError(name, page.url, f"raised {_shown(error)}", at) from error
            if verdict is None:
                continue
            if not isinstance(verdict, str) or not is_verdict(verdict):
                what = f"returned {verdict!r:.{_SHOWN_CHARS}}, and not None or a verdict [a-z_]+"
                if isinstance(verdict, str) and verdict in RESERVED:
                    what = f"returned {verdict!r}, which is a verdict of c4 itself: use another"
                raise OwnRuleError(name, page.url, what, at)
            return str(verdict), name
        return None


def is_verdict(name: str) -> bool:
    """Return whether a user's rule may return this verdict.

    >>> is_verdict("a_recipe"), is_verdict("bad_words"), is_verdict("A recipe")
    (True, False, False)
    """
    return _VERDICT.fullmatch(name) is not None and name not in RESERVED


def modules_of(rules: Iterable[str]) -> tuple[str, ...]:
    """Return the modules of rules such as ``my_rules:no_recipes``, each once.

    Raises:
        ValueError: A rule has another form.

    >>> modules_of(["my_rules:no_recipes", "my_rules:no_poems"])
    ('my_rules',)
    """
    modules = []
    for rule in rules:
        found = _RULE.fullmatch(rule)
        if found is None:
            raise ValueError(f'must be rules such as "my_rules:no_recipes", got {rule!r}')
        modules.append(found[1])
    return tuple(dict.fromkeys(modules))


def load_own_rules(rules: Collection[str], allowed: Collection[str]) -> OwnRules:
    """Load rules. The code of their modules runs.

    A module is looked for where Python looks, then in the current folder.

    Args:
        rules: Names such as ``my_rules:no_recipes``.
        allowed: The modules that may be loaded.

    Raises:
        ValueError: A module is not allowed, is not found, has no source text, fails, or lacks the
            function; the message is one line and names the option.
    """
    modules = modules_of(rules)
    for module in modules:
        if module not in allowed:
            raise ValueError(
                f"the rules of {module} are Python code, which runs only if you allow it "
                f"(--allow-rules {module})"
            )
    loaded = {module: _load(module) for module in modules}
    functions = []
    for rule in rules:
        module, _, name = rule.partition(":")
        function = getattr(loaded[module][0], name, None)
        if not callable(function):
            raise ValueError(f"the module {module} has no function {name} (--allow-rules {module})")
        functions.append((rule, function))
    return OwnRules(functions, {module: source for module, (_, source) in loaded.items()})


def _load(name: str) -> tuple[Any, str]:
    """Return a module, made from its source text as it is now, and that text."""
    spec = _find(name)
    source = None
    if spec is not None and spec.loader is not None and hasattr(spec.loader, "get_source"):
        try:
            source = spec.loader.get_source(name)
        except (ImportError, OSError, SyntaxError, ValueError) as error:
            raise _problem(name, error) from None
    if spec is None or source is None:
        what = "was not found" if spec is None else "has no Python source"
        raise ValueError(
            f"the module {name} {what}: put {name.replace('.', '/')}.py into the current folder, "
            f"or install it, on every worker (--allow-rules {name})"
        )
    # Not by an import: what runs must be what the digest is of, also after the file has changed.
    # While it runs it must be among the imported ones, for decorators such as dataclass.
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        exec(compile(source, spec.origin or name, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _problem(name, error) from error
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
    return module, source


def _find(name: str) -> Any:
    importlib.invalidate_caches()
    for folder in ("", os.getcwd()):
        if folder and folder not in sys.path:
            sys.path.append(folder)  # last: it hides nothing; and it stays, for what rules import
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:  # of the package that it is in
            spec = None
        except (Exception, SystemExit) as error:
            raise _problem(name, error) from error
        if spec is not None and spec.origin is not None:
            return spec
    return None


def _problem(name: str, error: BaseException) -> ValueError:
    return ValueError(f"the module {name} cannot be loaded: {_shown(error)} (--allow-rules {name})")


def _shown(error: BaseException) -> str:
    what = " ".join(str(error).split())[:_SHOWN_CHARS]
    return f"{type(error).__name__}{what and f' ({what})'}"
