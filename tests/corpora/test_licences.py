"""Which corpora's audio may be shown to others, and what a model's users must know."""

import pytest

from speechbrain_ser_cl.corpora import Licence, all_cards
from speechbrain_ser_cl.corpora.licences import licence_of
from speechbrain_ser_cl.corpora.synthetic import STYLES
from speechbrain_ser_cl.registry import CORPORA


def test_every_corpus_of_the_package_declares_its_terms():
    for name in {*CORPORA.names(), *STYLES} - {"folders", "table", "synthetic"}:
        assert licence_of(name).source


def test_the_terms_of_a_corpus_of_ones_own_are_not_known():
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
