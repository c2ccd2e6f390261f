"""Choose training data with few labels, and without labels."""

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
    """Draw a random fraction of each class.

    Khaertdinov et al. 2024, section 4.2. Draws with the same number and seed are
    nested: what is in a smaller fraction is in a larger one too. They depend on ids
    alone, not on the order of the items.

    Arguments
    ---------
    items : iterable of Labelled
        The training part.
    fraction : float
        Above 0, at most 1. Of each class so much, rounded to whole utterances, and at
        least one.
    draw : int
        Another number is another draw.
    seed : int
        Another seed gives other draws.

    Returns
    -------
    list of Labelled
        Sorted by id.

    Raises
    ------
    ValueError
        For another fraction.

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
        # Halves are rounded up, and not to the nearest even number.
        drawn += members[: max(1, math.floor(fraction * len(members) + 0.5))]
    return sorted(drawn, key=lambda item: item.utterance.id)


def add_unlabelled(
    split: Split, items: Sequence[Labelled], utterances: Sequence[Utterance]
) -> dict[str, list[Utterance]]:
    """Add utterances without a class to the parts of a split, by speaker.

    For training without labels on more emotions than there are classes, and on nobody
    who is tested. An utterance without a class goes where its speaker's labelled ones
    are; that of a speaker without any, where those of its session are. Where that is
    more than one part, the protocol does not mind, and it goes to training, as what
    nothing is known of does; what a protocol does mind is an error.

    Arguments
    ---------
    split : Split
        Of the labelled utterances.
    items : sequence of Labelled
        At least those of the split.
    utterances : sequence of Utterance
        All there are, the labelled ones among them.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``, sorted by id. Labelled utterances that are
        not in the split are in no part.

    Raises
    ------
    LeakError
        If parts share what the split's protocol does not declare.

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
