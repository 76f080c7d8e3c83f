"""Made-up pages in four languages: enough different words for a small vocabulary of each."""

import random

from testing.corpora import make_corpus

_WORDS = {
    "en": (
        "the old baker, a young sailor, our neighbour, the river, every teacher, this gardener, "
        "nobody, her brother, the captain, that quiet village",
        "opens, remembers, carries, watches, repairs, follows, paints, forgets, describes, "
        "crosses, measures, borrows",
        "the wooden bridge, seven letters, a bright lantern, the northern harbour, fresh bread, "
        "his broken clock, the market square, twelve apples, an honest answer, the long winter",
        "before sunrise, without a word, near the mountains, on Thursday, since last autumn, "
        "with great patience, every evening, in heavy rain",
    ),
    "de": (
        "der alte Bäcker, eine junge Lehrerin, unser Nachbar, der Fluss, jeder Gärtner, niemand, "
        "ihre Schwester, der Kapitän, das stille Dorf, mein Großvater",
        "öffnet, vergisst, trägt, beobachtet, repariert, überquert, beschreibt, verkauft, misst, "
        "verfolgt, begrüßt, sucht",
        "die hölzerne Brücke, sieben Briefe, eine helle Laterne, den nördlichen Hafen, frisches "
        "Brot, seine kaputte Uhr, den Marktplatz, zwölf Äpfel, eine ehrliche Antwort, den Winter",
        "vor Sonnenaufgang, ohne ein Wort, nahe den Bergen, am Donnerstag, seit letztem Herbst, "
        "mit großer Geduld, jeden Abend, bei starkem Regen",
    ),
    "fr": (
        "le vieux boulanger, une jeune institutrice, notre voisin, la rivière, chaque jardinier, "
        "personne, son frère, le capitaine, ce village tranquille, ma grand-mère",
        "ouvre, oublie, porte, regarde, répare, traverse, décrit, vend, mesure, cherche, "
        "poursuit, rencontre",
        "le pont de bois, sept lettres, une lanterne claire, le port du nord, du pain frais, sa "
        "montre cassée, la place du marché, douze pommes, une réponse honnête, le long hiver",
        "avant l'aube, sans un mot, près des montagnes, jeudi, depuis l'automne dernier, avec "
        "beaucoup de patience, chaque soir, sous la pluie",
    ),
    "ro": (
        "bătrânul brutar, o tânără învățătoare, vecinul nostru, râul, fiecare grădinar, nimeni, "
        "fratele ei, căpitanul, satul liniștit, bunica mea",
        "deschide, uită, poartă, privește, repară, traversează, descrie, vinde, măsoară, caută, "
        "urmărește, întâlnește",
        "podul de lemn, șapte scrisori, un felinar luminos, portul din nord, pâine proaspătă, "
        "ceasul lui stricat, piața orașului, douăsprezece mere, un răspuns sincer, iarna lungă",
        "înainte de răsărit, fără un cuvânt, lângă munți, joi, din toamna trecută, cu multă "
        "răbdare, în fiecare seară, pe ploaie",
    ),
}


def pages(language, count, lines=6, seed=0):
    """Pages of a few lines, a sentence or three in each."""
    draw = random.Random(f"{language} {seed}")
    parts = [group.split(", ") for group in _WORDS[language]]

    def sentence():
        words = " ".join(draw.choice(part) for part in parts)
        return words[0].upper() + words[1:] + draw.choice([".", ".", "!", "?"])

    def line():
        return " ".join(sentence() for _ in range(draw.randint(1, 3)))

    return ["\n".join(line() for _ in range(lines)) for _ in range(count)]


def corpus(folder, language, count=300, shards=2, **options):
    """A finished corpus of such pages."""
    made = pages(language, count)
    size = -(-count // shards)
    groups = [made[start : start + size] for start in range(0, count, size)]
    return make_corpus(folder, {"train": groups}, **options)
