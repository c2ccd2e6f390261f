"""Corpus readers: a folder on disk in, a list of ``Utterance`` out.

``CORPORA.get("emodb")(folder)`` of ``speechbrain_ser_cl.registry`` reads a corpus by
its name.
"""

from speechbrain_ser_cl.corpora.casia import read_casia
from speechbrain_ser_cl.corpora.checks import CorpusError
from speechbrain_ser_cl.corpora.crema_d import read_crema_d
from speechbrain_ser_cl.corpora.emodb import read_emodb
from speechbrain_ser_cl.corpora.folders import read_folders
from speechbrain_ser_cl.corpora.iemocap import read_iemocap
from speechbrain_ser_cl.corpora.msp_improv import read_msp_improv
from speechbrain_ser_cl.corpora.ravdess import read_ravdess
from speechbrain_ser_cl.corpora.synthetic import read_synthetic, write_synthetic
from speechbrain_ser_cl.corpora.table import read_table
from speechbrain_ser_cl.corpora.utterance import EMOTIONS, Utterance

__all__ = [
    "EMOTIONS",
    "CorpusError",
    "Utterance",
    "read_casia",
    "read_crema_d",
    "read_emodb",
    "read_folders",
    "read_iemocap",
    "read_msp_improv",
    "read_ravdess",
    "read_synthetic",
    "read_table",
    "write_synthetic",
]
