"""Finished runs on synthetic speech."""

import pytest

from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.protocols import make_folds, select_parts
from speechbrain_ser_cl.data.splits import Labelled
from tests.finished_run import write_trained


@pytest.fixture(scope="session")
def items(tmp_path_factory):
    """Makes synthetic speech of 10 speakers, with its four emotions as classes."""
    folder = tmp_path_factory.mktemp("corpus")
    write_synthetic(folder, "synthetic_target", utterances_per_speaker=8, n_speakers=10)
    return [Labelled(u, u.emotion) for u in read_synthetic(folder)]


@pytest.fixture(scope="session")
def class_names(items):
    return sorted({item.label for item in items})


@pytest.fixture(scope="session")
def folds(items):
    """Returns the parts of each of five folds over speakers."""
    return [select_parts(items, split) for split in make_folds(items, "session_kfold")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, folds, class_names):
    """Returns the folder of one finished run."""
    folder = tmp_path_factory.mktemp("one") / "run"
    return write_trained(folder, folds[0], class_names, demo=True)
