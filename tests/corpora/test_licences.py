"""Which corpora's audio may be shown to others."""

from speechbrain_ser_cl.corpora.licences import LICENCES, Licence, licence_of
from speechbrain_ser_cl.corpora.synthetic import STYLES
from speechbrain_ser_cl.registry import CORPORA


def test_every_corpus_of_the_package_declares_its_terms():
    names = set(CORPORA.names()) - {"synthetic"} | set(STYLES)
    assert names - {"folders", "table"} == set(LICENCES)


def test_the_terms_of_a_corpus_of_ones_own_are_not_known():
    for name in ("folders", "table", "a name of one's own"):
        assert licence_of(name) is None


def test_audio_that_is_had_by_agreement_is_not_shared():
    shared = {name for name in LICENCES if licence_of(name).share_audio}
    assert shared == {"crema_d", "emodb", "ravdess"} | set(STYLES)


def test_a_plug_in_declares_its_own_or_nothing(monkeypatch):
    def read_mine(folder, allow_missing=False):
        return []

    monkeypatch.setitem(CORPORA._entries, "mine", read_mine)
    assert licence_of("mine") is None
    read_mine.licence = Licence("CC BY 4.0", share_audio=True, source="me")
    assert licence_of("mine").share_audio
