"""Which corpora's audio may be shared, and restrictions on their models."""

import json
from dataclasses import asdict

import pytest

from speechbrain_ser_cl.corpora import Licence, all_cards, load_card
from speechbrain_ser_cl.corpora.licences import licence_of
from speechbrain_ser_cl.corpora.synthetic import STYLES
from speechbrain_ser_cl.data.experiment import prepare
from speechbrain_ser_cl.export import model_card
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.records import read
from speechbrain_ser_cl.utils.schemas import RESULTS
from tests.finished_run import write_trained
from tests.hollow import wav_bytes


def test_every_corpus_of_the_package_declares_its_terms():
    for name in {*CORPORA.names(), *STYLES} - {"folders", "table", "synthetic"}:
        assert licence_of(name).source


def test_the_terms_of_a_corpus_of_the_user_are_not_known():
    for name in ("folders", "table", "a name of one's own"):
        assert licence_of(name) is None


def test_audio_is_shared_only_where_the_terms_are_clear():
    for card in all_cards():
        if card.licence.allows in ("agreement", "research", "disputed", "unknown"):
            assert not card.licence.share_audio, card.name
    shared = {name for name in ("crema_d", "emodb", "ravdess") if licence_of(name)}
    assert all(licence_of(name).share_audio for name in shared)
    assert not licence_of("iemocap").share_audio


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("emodb", None),
        ("crema_d", None),
        ("ravdess", "non-commercial use only"),
        ("savee", "research only"),
        ("meld", "sources disagree on its terms"),
    ],
)
def test_what_a_user_must_know(name, limit):
    assert licence_of(name).limits == limit


def test_a_plug_in_declares_its_own_or_nothing(monkeypatch):
    def read_mine(folder, allow_missing=False):
        return []

    monkeypatch.setitem(CORPORA._entries, "mine", read_mine)
    assert licence_of("mine") is None
    read_mine.licence = Licence("CC BY 4.0", share_audio=True, source="me")
    assert licence_of("mine").share_audio


CARD = """
title: Mine
languages: [en]
page: https://example.org
licence: {name: CC BY-NC 4.0, allows: non-commercial}
citation: Me 2026
counts: {utterances: 10}
checked: by me
path: (?P<speaker>\\w)_(?P<emotion>[a-z]+)_(?P<take>\\d)
"""


def test_the_terms_of_a_card_of_the_user_reach_the_model_card(tmp_path):
    (tmp_path / "mine.yaml").write_text(CARD)
    (tmp_path / "wav").mkdir()
    audio = wav_bytes(1600, 16000)
    for name in (f"{who}_{emotion}_1" for who in "abcde" for emotion in ("sad", "joy")):
        (tmp_path / "wav" / f"{name}.wav").write_bytes(audio)
    classes = {"low": ["sad"], "high": ["happy"]}
    values = {
        "corpora": {"mine": {"card": tmp_path / "mine.yaml", "folder": tmp_path}},
        "emotion_map": classes,
        "protocol": {"kind": "speaker_kfold", "n_folds": 5},
        "seed": 0,
        "data_folder": tmp_path / "data",
    }
    experiment = prepare(values)
    terms = experiment.record()["licences"]
    assert terms == {"mine": asdict(load_card(tmp_path / "mine.yaml").terms)}
    run = write_trained(
        tmp_path / "run", experiment.parts, list(classes), licences=terms
    )
    results = read(run / "results.json", RESULTS)
    ids = [item.utterance.id for item in experiment.parts["test"]]
    facts = {"format": "native", "folder": "f", "parameters": 1}
    text = model_card(results, experiment.parts, ids, list(classes), facts)
    assert "mine: non-commercial use only" in text
    assert "CC BY-NC 4.0" in text
    results["licences"]["mine"]["allows"] = "much"
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="licences"):
        read(run / "results.json", RESULTS)
