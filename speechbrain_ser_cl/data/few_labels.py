"""Selects training data with few labels, and adds unlabelled data."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from speechbrain_ser_cl.corpora.utterance import PARTS, Utterance
from speechbrain_ser_cl.data.protocols import Split, select_parts
from speechbrain_ser_cl.data.splits import Labelled, random_rank


def draw_labels(
    items: Iterable[Labelled], fraction: float, draw: int, seed: int = 0
) -> list[Labelled]:
    """Draws a random fraction of each class.

    Khaertdinov et al. 2024, section 4.2. Draws with the same number and seed are
    nested: a larger fraction contains the smaller ones. Draws depend on the ids, not on
    the order of the items.

    Arguments
    ---------
    items : iterable of Labelled
        Training part.
    fraction : float
        In (0, 1]. Fraction of each class, rounded to whole utterances, at least one.
    draw : int
        Number of the draw.
    seed : int
        Seed of the draws.

    Returns
    -------
    list of Labelled
        Sorted by id.

    Raises
    ------
    ValueError
        If the fraction is out of range.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> items = [Labelled(u, u.emotion) for u in read_synthetic(folder)]
    >>> len(items), len(draw_labels(items, 0.1, draw=0))
    (160, 16)
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}, expected above 0 and at most 1")
    classes = defaultdict(list)
    for item in items:
        classes[item.label].append(item)
    drawn = []
    for members in classes.values():
        members.sort(key=lambda i: random_rank(seed, f"{draw}/{i.utterance.id}"))
        # Round half up, not half to even.
        drawn += members[: max(1, math.floor(fraction * len(members) + 0.5))]
    return sorted(drawn, key=lambda item: item.utterance.id)


def add_unlabelled(
    split: Split, items: Sequence[Labelled], utterances: Sequence[Utterance]
) -> dict[str, list[Utterance]]:
    """Adds utterances without a class to the parts of a split, by speaker.

    For training without labels on more emotions than the classes contain, without using
    test speakers. An utterance without a class goes to the part with its speaker's
    labelled utterances; without such, to the part with its session's. If several parts
    qualify, or none, the protocol allows it and the utterance goes to training;
    otherwise it is an error.

    Arguments
    ---------
    split : Split
        Split of the labelled utterances.
    items : sequence of Labelled
        At least the utterances of the split.
    utterances : sequence of Utterance
        All utterances, labelled ones included.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``, sorted by id. Labelled utterances outside the
        split are in no part.

    Raises
    ------
    LeakError
        If parts share what the split's protocol does not allow.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> from speechbrain_ser_cl.data.protocols import make_folds
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> utterances = read_synthetic(folder)
    >>> sad = [Labelled(u, "sad") for u in utterances if u.emotion == "sad"]
    >>> split = make_folds(sad, "leave_one_session_out")[0]
    >>> parts = add_unlabelled(split, sad, utterances)
    >>> {name: (len(ids), len(parts[name])) for name, ids in split.parts().items()}
    {'train': (20, 80), 'valid': (10, 40), 'test': (10, 40)}
    """
    labelled = {item.utterance.id: item for item in items}
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    homes: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for name, part in part_of.items():
        utterance = labelled[name].utterance
        homes["speaker", utterance.speaker].add(part)
        homes["session", utterance.session].add(part)
    for utterance in utterances:
        if utterance.id in labelled:
            continue
        known = [("speaker", utterance.speaker), ("session", utterance.session)]
        found = next((homes[k] for k in known if k[1] and k in homes), set())
        part_of[utterance.id] = min(found) if len(found) == 1 else "train"
    ids = {part: sorted(n for n in part_of if part_of[n] == part) for part in PARTS}
    everybody = [labelled.get(u.id) or Labelled(u, "") for u in utterances]
    whole = replace(split, train=ids["train"], valid=ids["valid"], test=ids["test"])
    parts = select_parts(everybody, whole)
    return {name: [item.utterance for item in part] for name, part in parts.items()}
