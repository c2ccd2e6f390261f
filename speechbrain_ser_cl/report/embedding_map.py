"""A map of the test embeddings, and the agreement of neighbours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speechbrain_ser_cl.data.splits import random_rank

_MOST_POINTS = 1500
N_NEIGHBOURS = 10


@dataclass(frozen=True)
class EmbeddingMap:
    """Positions of utterances in a plane.

    Arguments
    ---------
    points : numpy.ndarray
        Shape (M, 2).
    chosen : list of int
        Indices of the embeddings on the map.
    agreement : dict
        Attribute to the fraction of nearest neighbours with the same value, and the
        fraction expected by chance; in [0, 1].

    Example
    -------
    >>> EmbeddingMap(np.zeros((1, 2)), [0], {"class": (0.7, 0.5)}).agreement["class"]
    (0.7, 0.5)
    """

    points: np.ndarray
    chosen: list[int]
    agreement: dict[str, tuple[float, float]]


def embedding_map(
    embeddings: np.ndarray,
    ids: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
    seed: int = 0,
) -> EmbeddingMap | None:
    """Computes t-SNE (van der Maaten & Hinton 2008) of at most 1500 embeddings.

    Neighbours are found among the embeddings, by cosine distance, not on the map.

    Arguments
    ---------
    embeddings : numpy.ndarray
        Shape (N, D).
    ids : sequence of str
        N names. The selection of embeddings depends only on them and the seed.
    attributes : mapping
        Name to N values; "" is unknown. Attributes with one value only, or with
        unknown ones, get no agreement.
    seed : int
        Seed of the selection and of t-SNE.

    Returns
    -------
    EmbeddingMap or None
        None for fewer than 5 embeddings.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> names = ["sad", "happy"] * 10
    >>> vectors = np.array([[9.0 * (name == "sad"), 1, 1] for name in names])
    >>> vectors += rng.normal(size=vectors.shape)
    >>> ids = [str(i) for i in range(20)]
    >>> embedding_map(vectors, ids, {"class": names}).points.shape
    (20, 2)
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    drawn = sorted(range(len(ids)), key=lambda i: random_rank(seed, ids[i]))
    chosen = sorted(drawn[:_MOST_POINTS])
    if len(chosen) < 5:
        return None
    vectors = embeddings[chosen].astype(np.float64)
    n_components = min(50, *vectors.shape)
    reduced = PCA(n_components, random_state=seed).fit_transform(vectors)
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    points = TSNE(
        perplexity=perplexity,
        init="pca" if n_components > 1 else "random",
        random_state=seed,
    ).fit_transform(reduced)
    values = {name: [text[i] for i in chosen] for name, text in attributes.items()}
    return EmbeddingMap(points, chosen, _agreement(vectors, values))


def _agreement(
    vectors: np.ndarray, values: Mapping[str, Sequence[str]]
) -> dict[str, tuple[float, float]]:
    """Computes how often neighbours share each attribute, and how often by chance."""
    from sklearn.neighbors import NearestNeighbors

    total = len(vectors)
    k = min(N_NEIGHBOURS, total - 1)
    search = NearestNeighbors(n_neighbors=k, metric="cosine").fit(vectors)
    near = search.kneighbors(return_distance=False)  # without the point itself
    agreement = {}
    for name, texts in values.items():
        of = np.asarray(texts)
        counts = Counter(texts).values()
        if len(counts) < 2 or "" in texts:  # "" means unknown
            continue
        by_chance = sum(n * (n - 1) for n in counts) / (total * (total - 1))
        agreement[name] = float((of[near] == of[:, None]).mean()), by_chance
    return agreement
