"""One list of emotion words for tables, folders, cards and ``emotion_map``."""

import warnings
from dataclasses import replace

import pytest

from speechbrain_ser_cl.corpora import CorpusError, Utterance
from speechbrain_ser_cl.corpora.emotion_words import (
    EMOTION_WORDS,
    translate,
)
from speechbrain_ser_cl.corpora.utterance import EMOTIONS
from speechbrain_ser_cl.data.splits import map_emotions


def meaning(*words, labels=None):
    return translate(
        words, labels, EMOTION_WORDS, what="emotion", key="labels", where="calls.csv"
    )


@pytest.mark.parametrize(
    ("word", "name"),
    [
        *(("hap", "happy"), ("exc", "excited"), ("ang", "angry"), ("neu", "neutral")),
        *(("fru", "frustrated"), ("xxx", "other"), ("Pleasant Surprise", "surprised")),
        *(("Happiness", "happy"), ("JOY", "happy"), ("Wut", "angry")),
        *(("colère", "angry"), ("alegría", "happy"), ("Paura", "fearful")),
        *(
            ("Pleasant-surprised", "surprised"),
            ("Aerger", "angry"),
            ("degoute", "disgusted"),
        ),
        *(("en_colere", "angry"), ("arrabbiata", "angry"), ("Enojado", "angry")),
    ],
)
def test_usual_words(word, name):
    assert meaning(word) == {word: name}


def test_every_word_means_an_emotion_and_no_letter_does():
    assert set(EMOTION_WORDS.values()) == set(EMOTIONS)
    assert min(map(len, EMOTION_WORDS)) > 2
    assert all(word == word.lower() for word in EMOTION_WORDS)


def test_no_label_is_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="calls.csv: 5 of 7 have no label"):
        found = meaning("sad", "", "nan", "<unk>", "-", "?", "happy")
    assert found == {
        **{"sad": "sad", "happy": "happy"},
        **dict.fromkeys(["", "nan", "<unk>", "-", "?"]),
    }


def test_numbers_by_a_map():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = meaning("0", "1", labels={0: "sad", 1: "happy"})
    assert found == {"0": "sad", "1": "happy"}
    with pytest.raises(CorpusError, match="words that are not known"):
        meaning("0")


def test_emotion_map_knows_the_same_words(tmp_path):
    utterance = Utterance(
        *("a", tmp_path, 1.0, "mine", None, None, None, "en", None, "disgusted")
    )
    (item,), _ = map_emotions([utterance], {"bad": ["disgust"]})
    assert item.label == "bad"
    # Result of labels: {"0": joy, "1": Freude} for numbers.
    joy, fun = (replace(utterance, id=word, emotion=word) for word in ("joy", "freude"))
    items, left_out = map_emotions([utterance, joy, fun], {"good": ["happy"]})
    assert [item.utterance.id for item in items] == ["joy", "freude"]
    items, left_out = map_emotions([joy, fun], {"good": ["happy"], "fun": ["freude"]})
    assert [item.label for item in items] == ["good", "fun"]
    assert map_emotions([utterance, joy], {"b": ["disgust"]})[1] == {"joy": 1}
