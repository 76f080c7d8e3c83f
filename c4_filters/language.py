"""Language of a page: langdetect's answer, seed 0 for every page, the same on every machine."""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

#: Every code that langdetect 1.0.9 can answer with.
LANGUAGES = frozenset(
    (
        *("af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi"),
        *("fr", "gu", "he", "hi", "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml"),
        *("mr", "ne", "nl", "no", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "so", "sq", "sv", "sw"),
        *("ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh-cn", "zh-tw"),
    )
)


class Language(NamedTuple):
    """The best language of a text: a langdetect code and its probability."""

    code: str
    probability: float


def detect_language(text: str) -> Language | None:
    """Return the most probable language of ``text``; None if it has no features (digits, say).

    langdetect draws at random; the seed is 0 for every page (TF: detect_english). The order in
    which language profiles are loaded changes the last bits of a probability, and both libraries
    take it from the order of a folder's files, so it is fixed here: by name.

    >>> detect_language("The quick brown fox jumps over the lazy dog.").code
    'en'
    >>> detect_language("12345 67890.") is None
    True
    """
    return _detector()(text)


@functools.cache
def detector_name() -> str:
    """Return the detector's name and version: part of a corpus' identity."""
    from importlib.metadata import version

    name = "langdetect-rs" if _rust_available() else "langdetect"
    return f"{name} {version(name)}"


def _rust_available() -> bool:
    try:
        import langdetect_rs  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def _detector() -> Callable[[str], Language | None]:
    return rust_detector() if _rust_available() else python_detector()


def rust_detector() -> Callable[[str], Language | None]:
    """Return langdetect-rs, with the same numbers as langdetect, some 40 times faster."""
    from langdetect_rs import DetectorFactory, _core
    from langdetect_rs._seed import seed_state

    factory = DetectorFactory()
    # Not load_profile(): that copies the directory order of langdetect where it is installed.
    factory._core.load_builtin(_core.builtin_files())
    detect_langs, state = factory._core.detect_langs, seed_state(0)

    def detect(text: str) -> Language | None:
        best = detect_langs(text, state)
        return Language(*best[0]) if best else None

    return detect


def python_detector() -> Callable[[str], Language | None]:
    """Return langdetect itself, for platforms without the Rust wheel and for tests."""
    import langdetect
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    from langdetect.lang_detect_exception import LangDetectException

    del langdetect
    profiles = []
    for name in sorted(os.listdir(PROFILES_DIRECTORY)):
        with open(os.path.join(PROFILES_DIRECTORY, name), encoding="utf-8") as file:
            profiles.append(file.read())
    factory = DetectorFactory()
    factory.load_json_profile(profiles)
    factory.set_seed(0)

    def detect(text: str) -> Language | None:
        detector = factory.create()
        detector.append(text)
        try:
            best = detector.get_probabilities()
        except LangDetectException:
            return None
        return Language(best[0].lang, best[0].prob) if best else None

    return detect
