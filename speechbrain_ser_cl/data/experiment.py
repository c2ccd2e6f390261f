"""The corpora of an experiment and the parts of one of its folds."""

import inspect
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.protocols import Split, make_folds, read_split
from speechbrain_ser_cl.data.splits import Labelled, map_emotions
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import did_you_mean

logger = logging.getLogger(__name__)


def read_corpora(
    corpora: Mapping[str, str | Path | Mapping],
    emotion_map: Mapping,
    allow_missing: bool = False,
) -> list[Labelled]:
    """Read the corpora of an experiment and give their utterances classes.

    Audio is looked at but not converted: see ``convert_to_16k_mono``.

    Arguments
    ---------
    corpora : mapping
        Registered name of each corpus (``ser-cl list corpora``) to its folder; or, for
        a reader that takes more than a folder, a name of your choice to ``{reader:
        table, folder: ..., ...}``, see ``read_corpus``. One whose folder is None is
        not used.
    emotion_map : mapping
        Class to emotions, for all corpora; or, where their labels differ, name of the
        corpus to such a mapping.
    allow_missing : bool
        Whether to go on, with a warning, when files are missing.

    Returns
    -------
    list of Labelled
        Sorted by id. Utterances of other emotions are left out, with a count in the
        log.

    Raises
    ------
    ValueError
        As the corpora's readers and ``map_emotions`` do.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import write_synthetic
    >>> folder = write_synthetic(
    ...     getfixture("tmp_path"),
    ...     "synthetic_source",
    ...     n_speakers=2,
    ...     utterances_per_speaker=4,
    ... )
    >>> items = read_corpora({"synthetic": folder}, {"low": ["sad"], "high": ["angry"]})
    >>> [(item.utterance.id, item.label) for item in items][:2]
    [('synthetic_source_s00_u002_sad', 'low'), ('synthetic_source_s00_u003_angry', \
'high')]
    """
    used = used_corpora(corpora)
    unused = [name for name in corpora if name not in used]
    if unused:
        logger.info("Not used, no folder is given: %s", ", ".join(unused))
    utterances = {
        name: read_corpus(name, entry, allow_missing) for name, entry in used.items()
    }
    items, left_out = map_corpora(utterances, emotion_map)
    if left_out:
        counts = ", ".join(f"{n} {emotion}" for emotion, n in left_out.items())
        logger.info("Left out, in no class of emotion_map: %s", counts)
    return items


def map_corpora(
    utterances: Mapping[str, Sequence[Utterance]], emotion_map: Mapping
) -> tuple[list[Labelled], dict[str, int]]:
    """Give the utterances of several corpora classes.

    Arguments
    ---------
    utterances : mapping
        Name of each corpus to its utterances.
    emotion_map : mapping
        As ``read_corpora`` takes it.

    Returns
    -------
    items : list of Labelled
        Sorted by id.
    left_out : dict
        How many utterances of each emotion are in no class.

    Raises
    ------
    ValueError
        As ``map_emotions`` does, and for a corpus without a map where others have one.

    Example
    -------
    >>> from speechbrain_ser_cl.data.protocols import _toy_corpus
    >>> items, left_out = map_corpora({"toy": _toy_corpus()}, {"low": ["sad"]})
    >>> len(items), left_out
    (10, {'happy': 10})
    """
    own_maps = all(isinstance(value, Mapping) for value in emotion_map.values())
    without = sorted(set(utterances) - set(emotion_map)) if own_maps else []
    if without:
        raise ValueError(
            f"emotion_map has classes for {', '.join(emotion_map)}, but none for "
            f"{', '.join(without)}"
        )
    if own_maps:
        mapped = [
            map_emotions(some, emotion_map[name]) for name, some in utterances.items()
        ]
    else:
        mapped = [map_emotions(sum(map(list, utterances.values()), []), emotion_map)]
    left_out = sum((Counter(counts) for _, counts in mapped), Counter())
    items = [item for some, _ in mapped for item in some]
    return (
        sorted(items, key=lambda item: item.utterance.id),
        dict(sorted(left_out.items())),
    )


def used_corpora(corpora: Mapping) -> dict:
    """Those corpora that have a folder.

    Arguments
    ---------
    corpora : mapping
        As for ``read_corpora``.

    Returns
    -------
    dict
        In the same order.

    Raises
    ------
    ValueError
        If none has.

    Example
    -------
    >>> used_corpora({"emodb": "/data/EmoDB", "ravdess": None})
    {'emodb': '/data/EmoDB'}
    """
    used = {
        name: entry for name, entry in corpora.items() if _folder(entry) is not None
    }
    if not used:
        raise ValueError(
            "corpora: expected the folder of at least one corpus, such as "
            f"{{emodb: /data/EmoDB}}, found {json.dumps(dict(corpora))}"
        )
    return used


def _folder(entry: str | Path | Mapping | None) -> str | Path | None:
    return entry.get("folder") if isinstance(entry, Mapping) else entry


def read_corpus(
    name: str, entry: str | Path | Mapping, allow_missing: bool = False
) -> list[Utterance]:
    """Read one corpus of an experiment, as its YAML describes it.

    Arguments
    ---------
    name : str
        Registered name of the corpus, or any name where the entry has a ``reader``.
    entry : str or pathlib.Path or mapping
        The folder; or a mapping with ``folder``, ``reader`` (a registered name) and
        whatever else the reader takes: ``{reader: table, folder: /data/calls,
        columns: {emotion: mood}}``.
    allow_missing : bool
        Whether to go on, with a warning, when files are missing.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    ValueError
        If the folder is not given, for an option that the reader does not take, and as
        the reader does.

    Example
    -------
    >>> read_corpus("calls", {"reader": "table", "folder": "calls", "column": {}})
    Traceback (most recent call last):
    ValueError: corpora: calls: reader table takes no 'column'; did ...
    """
    options = dict(entry) if isinstance(entry, Mapping) else {"folder": entry}
    reader_name = options.pop("reader", name)
    if options.get("folder") is None:
        raise ValueError(f"corpora: no folder is given for {name}")
    folder = options.pop("folder")
    reader = CORPORA.get(reader_name)
    takes = list(inspect.signature(reader).parameters)
    own = [key for key in takes if key not in ("folder", "allow_missing", "corpus")]
    for key in options:
        if key not in own:
            raise ValueError(
                f"corpora: {name}: reader {reader_name} takes no {key!r}; "
                f"{did_you_mean(key, own)}it takes {', '.join(['folder', *own])}"
            )
    if "corpus" in takes:
        options["corpus"] = name
    elif name != reader_name:
        raise ValueError(
            f"corpora: the reader {reader_name} is for the corpus of this name; write "
            f"{reader_name}: {folder}"
        )
    return reader(folder, allow_missing=allow_missing, **options)


def fold_split(
    items: Sequence[Labelled],
    protocol: str | Mapping,
    fold: int,
    seed: int,
    split_file: str | Path | None = None,
) -> Split:
    """One fold: from a file, or else made.

    Arguments
    ---------
    items : sequence of Labelled
        All utterances of the experiment.
    protocol : str or mapping
        See ``speechbrain_ser_cl.data.protocols``.
    fold : int
        Which one, from 0 on.
    seed : int
        Of the folds.
    split_file : str or pathlib.Path, optional
        What ``write_split`` wrote; protocol and seed are then its own.

    Returns
    -------
    Split
        The fold.

    Raises
    ------
    ValueError
        If there is no such fold, or the file is of another one.

    Example
    -------
    >>> from speechbrain_ser_cl.data.protocols import _toy_corpus
    >>> items = [Labelled(u, u.emotion) for u in _toy_corpus()]
    >>> fold_split(items, "speaker_kfold", fold=5, seed=0)
    Traceback (most recent call last):
    ValueError: fold is 5, but the protocol makes 5 folds: 0 to 4
    """
    if split_file is not None:
        split = read_split(split_file)
        if split.fold != fold:
            raise ValueError(
                f"{split_file} is fold {split.fold}, but fold is {fold}; give them "
                "both alike"
            )
        return split
    folds = make_folds(items, protocol, seed)
    if not 0 <= fold < len(folds):
        raise ValueError(
            f"fold is {fold}, but the protocol makes {len(folds)} folds: 0 to "
            f"{len(folds) - 1}"
        )
    return folds[fold]
