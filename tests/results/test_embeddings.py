"""embeddings.npz: written and read, also by numpy alone."""

import numpy as np
import pytest

from speechbrain_ser_cl.results import read_embeddings, write_embeddings


def columns(n):
    return [f"u{i}" for i in range(n)], ["sad"] * n, ["s1"] * n, ["café"] * n


def test_numpy_alone_reads_what_was_written(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 3))
    path = tmp_path / "run" / "embeddings.npz"
    write_embeddings(path, values, *columns(5))
    with np.load(path, allow_pickle=False) as file:
        assert file["ids"].tolist() == ["u0", "u1", "u2", "u3", "u4"]
        np.testing.assert_allclose(file["embeddings"], values, rtol=1e-3)
    found = read_embeddings(path)
    assert found.embeddings.dtype == np.float32
    assert (found.ids, found.labels, found.speakers, found.corpora) == columns(5)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 3)), "5 ids"),
        (np.zeros(5), "shape"),
        (np.full((5, 3), np.nan), "not finite"),
        (np.full((5, 3), 1e6), "half precision"),
    ],
)
def test_what_does_not_fit_is_not_written(values, message, tmp_path):
    path = tmp_path / "embeddings.npz"
    with pytest.raises(ValueError, match=message):
        write_embeddings(path, values, *columns(5))
    assert not path.exists()


def test_other_files_are_refused_by_name(tmp_path):
    path = tmp_path / "embeddings.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"embeddings\.npz"):
        read_embeddings(path)
    pickled = np.array([{"a": 1}], dtype=object)
    np.savez(path, embeddings=np.zeros((1, 2)), ids=pickled, labels=pickled)
    with pytest.raises(ValueError, match=r"embeddings\.npz"):
        read_embeddings(path)
