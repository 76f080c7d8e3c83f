"""A small SentencePiece vocabulary."""

import io

import sentencepiece

SENTENCES = [
    "The baker opens her shop before sunrise and sells out by noon.",
    "A narrow path leads from the harbour up to the old lighthouse.",
    "Nobody in the village remembers a winter as long as this one.",
    "Der Bäcker öffnet seinen Laden früh und schließt ihn gegen Mittag.",
    "Un chemin étroit mène du port jusqu'au vieux phare.",
    "Nimeni din sat nu își amintește o iarnă atât de lungă.",
    "Prices rose by 12% in 2019, then fell again (see below).",
]


def train(path, texts=SENTENCES * 3, **options):
    model = io.BytesIO()
    settings = {"vocab_size": 100, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, minloglevel=2, **settings
    )
    path.write_bytes(model.getvalue())
    return path
