"""Cross-validation protocols as data, and the folds that they make.

A protocol is the name of one of ``PROTOCOLS``, or a mapping with that name as ``kind``
and changed entries, as in a recipe's YAML::

    protocol: leave_one_session_out
    protocol: {kind: speaker_kfold, n_folds: 5, valid: swap}

or, if corpora need different protocols with equally many folds::

    protocol:
        per_corpus:
            iemocap: {kind: session_kfold, n_folds: 4}
            casia: {kind: speaker_kfold, n_folds: 4}

Its entries:

- ``group``: what is never divided between training and the other parts: ``session``,
  ``speaker``, ``text_id``, ``recording`` or ``utterance`` (nothing is kept together);
  ``split``: the corpus defines training, validation and test; ``published``: published
  lists define them.
- ``folder``: folder of these lists, ``data`` in a clone of EmoBox or EMO-SUPERB.
- ``n_folds``: number of folds to which the groups are assigned; null: each group is a
  fold.
- ``text_folds``: number of folds to which also the texts are assigned. A fold tests
  some speakers on some texts, and neither is in training. An utterance of which only
  the speaker or only the text is tested is not used.
- ``deal``: how groups are assigned. ``fair``: folds are as similar as possible in
  classes, size and gender (``deal_fairly``). ``cards``: in turn, women first
  (utterances: by class), as in split files without a ``rule``.
- ``valid``: the validation part. ``next``: fold k is tested and fold k + 1 validates.
  ``swap``: the speakers of fold k are halved (utterances: at random); one half
  validates and the other is tested, then the reverse, which gives twice as many folds.
  ``utterances``: a fifth of the training utterances of each class validates, so
  speakers are shared. ``none``: no validation part. ``given``: as the corpus defines;
  if it has no validation part, a fifth of the training speakers (of the training
  utterances, if speakers are unknown, or too few in published lists).
- ``unknown``: utterances whose group is unknown: ``error``; ``leave_out``; or
  ``alone``: each is its own group.
- ``leaks``: which of ``speaker``, ``session`` and ``text_id`` training may share with
  validation and test. Any other leak is an error. Recordings from which utterances are
  cut may be shared and are counted; overlapping times of a recording may not.

Folds depend only on the protocol, the seed and the utterances' ids: not on the order of
the input, nor on the version of a random number generator.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.corpora.utterance import PARTS, Utterance
from speechbrain_ser_cl.data.dealing import deal_cards, deal_fairly
from speechbrain_ser_cl.data.published_folds import published_folds
from speechbrain_ser_cl.data.splits import (
    LEAK_KEYS,
    Labelled,
    LeakError,
    Leaks,
    fingerprint,
)
from speechbrain_ser_cl.utils.errors import offenders, repeated
from speechbrain_ser_cl.utils.records import read, write
from speechbrain_ser_cl.utils.schemas import SPLIT

logger = logging.getLogger(__name__)

TRAIN, VALID, TEST = range(len(PARTS))
UNUSED = -1
SEEDS = "seeds"
DOMAINS = "domain_adaptation"
# Kinds without folds: each run draws its parts by its seed.
DRAWN = (SEEDS, DOMAINS)
# Groups of protocols with given parts.
_SAID = ("split", "published")
# Version of the rule by which groups are assigned; split files without one have version
# 1.
RULE = 2


def _kind(
    group: str,
    n_folds: int | None,
    leaks: list[str],
    valid: str = "next",
    **more: object,
) -> dict[str, Any]:
    """Makes the default entries of a kind of protocol."""
    deal = "fair" if n_folds or group in _SAID else None
    entries = {"group": group, "n_folds": n_folds, "deal": deal, "valid": valid}
    return entries | {"unknown": "error", "leaks": leaks} | more


PROTOCOLS: dict[str, dict[str, Any]] = {
    # 5 folds on IEMOCAP: one session tests, one validates, three train.
    "leave_one_session_out": _kind("session", None, ["text_id"]),
    # 10 folds on IEMOCAP: one speaker of the left-out session tests, the other
    # validates.
    "session_speaker_swap": _kind("session", None, ["text_id"], "swap"),
    "session_kfold": _kind("session", 5, ["text_id"]),
    # The dialogue partner, and so the session, stays in training.
    "leave_one_speaker_out": _kind("speaker", None, ["session", "text_id"]),
    "speaker_kfold": _kind("speaker", 5, ["text_id"]),
    "text_kfold": _kind("text_id", 5, ["speaker", "session"]),
    # 5 x 2 folds: new speakers say new texts.
    "speaker_text_kfold": _kind("speaker", 5, ["session"], text_folds=2),
    # An utterance that is not cut from a recording is its own recording.
    "recording_kfold": _kind(
        "recording", 5, ["speaker", "session", "text_id"], unknown="alone"
    ),
    "random_kfold": _kind("utterance", 5, ["speaker", "session", "text_id"]),
    # One fold, defined by the corpus.
    "given": _kind("split", None, ["session", "text_id"], "given"),
    # Published folds, from the user's copy; most share speakers and texts.
    "emobox": _kind(
        "published", None, ["speaker", "session", "text_id"], "given", folder=None
    ),
    "emo_superb": _kind(
        "published", None, ["speaker", "session", "text_id"], "given", folder=None
    ),
    # No folds: the recipe splits by its seed, and seeds are repeated.
    SEEDS: {},
    # Same, from one corpus to another: see `data.domains.split_domains`. Source and
    # target are keys of the recipe's corpora.
    DOMAINS: {
        "source": "source",
        "target": "target",
        "source_valid": 0.1,
        "target_train": 0.05,
        "target_train_unlabelled": 0.3,
        "by": "utterance",
        "labels": True,
        "both": False,
        "shared_emotions": False,
    },
}

# One in this many utterances is for validation, by kind of group.
_FIFTH = 5
# Most ids in all folds together.
_MOST_IDS = 100_000_000

Codes = NDArray[np.int8]


@dataclass(frozen=True)
class Split:
    """The utterance ids of one fold, and how it was made.

    Arguments
    ---------
    train, valid, test : list of str
        Ids, sorted.
    fold : int
        Number of the fold, in [0, n_folds).
    n_folds : int
        Number of folds that the protocol makes.
    protocol : dict
        From ``resolve_protocol``.
    seed : int
        Seed of the folds.
    corpora : list of str
        Corpus names, sorted.
    shared : dict
        For speakers, sessions, texts and (if known) recordings: number of values that
        each two parts share.
    fingerprint : str
        Hash of the three lists; equal lists have equal hashes.
    absent : dict
        Part to the classes that it lacks.
    unused : int
        Number of utterances in no part of the fold.
    rule : int
        Version of the rule by which groups are assigned.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> split = make_folds(read_synthetic(folder), "leave_one_session_out")[0]
    >>> split.fold, len(split.train), len(split.valid), len(split.test)
    (0, 80, 40, 40)
    """

    train: list[str]
    valid: list[str]
    test: list[str]
    fold: int
    n_folds: int
    protocol: dict[str, Any]
    seed: int
    corpora: list[str]
    shared: dict[str, dict[str, int]]
    fingerprint: str
    absent: dict[str, list[str]] = field(default_factory=dict)
    unused: int = 0
    rule: int = RULE

    def parts(self) -> dict[str, list[str]]:
        """The three lists by name: ``train``, ``valid``, ``test``."""
        return {name: getattr(self, name) for name in PARTS}


def resolve_protocol(protocol: str | Mapping[str, Any]) -> dict[str, Any]:
    """Completes the entries of a protocol.

    Arguments
    ---------
    protocol : str or mapping
        See the module's docstring.

    Returns
    -------
    dict
        ``kind`` and its entries; only ``kind`` for ``seeds``; or ``{"per_corpus":
        {corpus: ...}}``.

    Raises
    ------
    ValueError
        For an unknown kind, entry or value; the message lists the known ones.

    Example
    -------
    >>> resolve_protocol("speaker_kfold")["n_folds"]
    5
    >>> resolve_protocol({"kind": "leave_one_speaker_out", "n_folds": 5})
    Traceback (most recent call last):
    ValueError: protocol leave_one_speaker_out: n_folds is 5, but there each speaker \
is a fold; use speaker_kfold
    """
    entries = dict(protocol) if isinstance(protocol, Mapping) else {"kind": protocol}
    if "per_corpus" in entries:
        if set(entries) != {"per_corpus"} or not isinstance(
            entries["per_corpus"], Mapping
        ):
            raise ValueError(
                "protocol: per_corpus stands alone and maps the name of each corpus "
                f"to its protocol; found {entries}"
            )
        each = {
            str(name): resolve_protocol(one)
            for name, one in sorted(entries["per_corpus"].items())
        }
        if any(
            one.get("kind") in DRAWN or "per_corpus" in one for one in each.values()
        ):
            raise ValueError(f"protocol: not possible within per_corpus: {entries}")
        return {"per_corpus": each}
    kind = entries.pop("kind", None)
    if kind not in PROTOCOLS:
        raise ValueError(
            f"protocol: found kind {kind!r}, expected one of {', '.join(PROTOCOLS)}"
        )
    usual = PROTOCOLS[kind]
    unknown = sorted(set(entries) - set(usual))
    if unknown:
        raise ValueError(
            f"protocol {kind}: unknown {', '.join(map(str, unknown))}; it has "
            f"{', '.join(usual) or 'no further entries'}"
        )
    if kind in DRAWN:
        return {"kind": kind} | usual | entries
    full = usual | entries
    if usual["deal"] is None:  # each group is a fold: nothing is assigned
        full["deal"] = None
    choices = {
        "group": [usual["group"]],
        "deal": ["fair", "cards", None],
        "valid": [usual["valid"], "next", "swap", "utterances", "none"],
        "unknown": ["error", "leave_out", "alone"],
    }
    if usual["group"] in _SAID:
        choices["valid"] = ["given", "utterances", "none"]
    elif "text_folds" in usual:
        choices["valid"].remove("swap")
    wrong = next(
        (
            f"{key} is {full[key]!r}, expected {' or '.join(map(repr, known))}"
            for key, known in choices.items()
            if full[key] not in known
        ),
        None,
    )
    if "folder" in usual and not isinstance(full["folder"], str | Path):
        wrong = wrong or (
            f"folder is {full['folder']!r}, expected the folder `data` of your own "
            f"clone of it: {{kind: {kind}, folder: /path/to/its/data}}"
        )
    least = {"n_folds": 3 if full["valid"] == "next" else 2, "text_folds": 2}
    for key, lowest in least.items():
        number = full.get(key)
        if wrong or key not in usual:
            continue
        if usual[key] is None and number is not None and usual["group"] in _SAID:
            wrong = f"{key} is {number}, but the folds are given; leave it out"
        elif usual[key] is None and number is not None:
            wrong = (
                f"{key} is {number}, but there each {full['group']} is a fold; use "
                f"{full['group']}_kfold"
            )
        elif usual[key] and (
            isinstance(number, bool) or not isinstance(number, int) or number < lowest
        ):
            wrong = f"{key} is {number!r}, expected a whole number from {lowest} on"
            if lowest == 3:
                wrong += ", since valid is next; with valid: utterances 2 will do"
    leaks = full["leaks"]
    if not isinstance(leaks, Sequence) or not set(leaks) <= set(LEAK_KEYS):
        wrong = wrong or f"leaks is {leaks}, expected some of {', '.join(LEAK_KEYS)}"
    if wrong:
        raise ValueError(f"protocol {kind}: {wrong}")
    return {"kind": kind} | full | {"leaks": sorted(leaks)}


def make_folds(
    utterances: Iterable[Utterance | Labelled],
    protocol: str | Mapping[str, Any],
    seed: int = 0,
) -> list[Split]:
    """Makes all folds of a protocol and checks them for leaks.

    Several corpora are split separately; fold k contains fold k of each.
    ``Split.absent`` and a warning name parts that lack a class.

    Arguments
    ---------
    utterances : iterable of Utterance or Labelled
        Utterances of the experiment's classes, in any order. Folds are balanced by
        labels if given, else by emotions.
    protocol : str or mapping
        See the module's docstring.
    seed : int
        Seed of the assignment; no effect if each group is a fold.

    Returns
    -------
    list of Split
        Fold 0, 1, … Every utterance, except those left out as ``unknown``, is tested in
        exactly one fold (``given``: only the test part).

    Raises
    ------
    LeakError
        If parts share what the protocol does not allow.
    ValueError
        For an unknown protocol, one without folds, too few groups, or utterances whose
        group is unknown.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> folds = make_folds(read_synthetic(folder), "session_speaker_swap")
    >>> len(folds), folds[0].valid == folds[1].test, folds[0].test == folds[1].valid
    (8, True, True)
    >>> folds[0].shared["speaker"]
    {'train/valid': 0, 'train/test': 0, 'valid/test': 0}
    """
    protocol = resolve_protocol(protocol)
    if protocol.get("kind") in DRAWN:
        raise ValueError(
            f"protocol {protocol['kind']} has no folds; the recipe splits by its own "
            "seed"
        )
    items = sorted(map(_labelled, utterances), key=lambda item: item.utterance.id)
    ids = [item.utterance.id for item in items]
    if not items:
        raise ValueError("no utterances to make folds of")
    if twice := repeated(ids):
        raise ValueError(f"ids that occur more than once ({offenders(twice)})")
    places = defaultdict(list)
    for place, item in enumerate(items):
        places[item.utterance.corpus].append(place)
    each = protocol.get("per_corpus", dict.fromkeys(places, protocol))
    without = sorted(set(places) - set(each))
    if without:
        raise ValueError(
            f"protocol: per_corpus names {', '.join(sorted(each))}, but not "
            f"{', '.join(without)}"
        )
    if "per_corpus" in protocol:  # of the existing corpora
        protocol = {"per_corpus": {name: each[name] for name in sorted(places)}}
    codes_of = {
        name: _one_corpus([items[place] for place in places[name]], each[name], seed)
        for name in sorted(places)
    }
    numbers = {name: len(folds) for name, folds in codes_of.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(
            "corpora with different numbers of folds cannot be used together: "
            + ", ".join(f"{name} {n}" for name, n in numbers.items())
            + ". Choose a protocol with n_folds, or one per corpus with per_corpus"
        )
    n_folds = numbers.popitem()[1]
    protocol = _without_folder(protocol)
    leaks = Leaks([item.utterance for item in items])
    corpora = np.array([item.utterance.corpus for item in items], dtype=object)
    labels = np.array([item.label for item in items], dtype=object)
    classes = set(labels)
    splits = []
    for k in range(n_folds):
        part_of = np.full(len(items), UNUSED, dtype=np.int8)
        for name, folds in codes_of.items():
            part_of[places[name]] = folds[k]
        found = [np.flatnonzero(part_of == code) for code in range(len(PARTS))]
        lists = {
            name: [ids[n] for n in some.tolist()]
            for name, some in zip(PARTS, found, strict=True)
        }
        lacking = {
            name: sorted(classes - set(labels[some]))
            for name, some in zip(PARTS, found, strict=True)
            if len(some)
        }
        splits.append(
            Split(
                train=lists["train"],
                valid=lists["valid"],
                test=lists["test"],
                fold=k,
                n_folds=n_folds,
                protocol=protocol,
                seed=seed,
                corpora=list(codes_of),
                shared=_checked(leaks, part_of, corpora, protocol),
                fingerprint=fingerprint(lists),
                absent={name: some for name, some in lacking.items() if some},
                unused=int((part_of == UNUSED).sum()),
            )
        )
    if any("folder" in one for one in each.values()):
        _tell_shared(splits)
    return splits


def select_parts(items: Iterable[Labelled], split: Split) -> dict[str, list[Labelled]]:
    """Selects the utterances of a split and checks them for leaks again.

    Arguments
    ---------
    items : iterable of Labelled
        At least the utterances of the split; others are left out.
    split : Split
        From this package, or read from a file.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``, each in the split's order. If a split has no
        test part, as in a search, ``test`` is the validation part.

    Raises
    ------
    LeakError
        If parts share what the split's protocol does not allow.
    ValueError
        If utterances of the split are missing (the message names the first ten), or a
        class is in validation or test but not in training.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> items = [Labelled(u, u.emotion) for u in read_synthetic(folder)]
    >>> split = make_folds(items, "leave_one_session_out")[0]
    >>> {name: len(part) for name, part in select_parts(items, split).items()}
    {'train': 80, 'valid': 40, 'test': 40}
    """
    by_id = {item.utterance.id: item for item in items}
    lists = split.parts()
    missing = {name for part in lists.values() for name in part if name not in by_id}
    if missing:
        raise ValueError(
            f"fold {split.fold}: utterances of the split that are not there "
            f"({offenders(missing)}); the split was made of other corpora or classes"
        )
    parts = {name: [by_id[key] for key in part] for name, part in lists.items()}
    plain = [item.utterance for part in parts.values() for item in part]
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
    corpora = np.array([utterance.corpus for utterance in plain], dtype=object)
    _checked(Leaks(plain), part_of, corpora, split.protocol)
    held_out = {item.label for name in PARTS[1:] for item in parts[name]}
    # Without labels no class is lacking.
    absent = held_out - {item.label for item in parts["train"]} - {""}
    if absent:
        raise ValueError(
            f"fold {split.fold}: no training utterance of class "
            f"{', '.join(sorted(absent))}; choose another protocol or fewer folds, or "
            "leave the class out of emotion_map"
        )
    if not split.test:
        parts["test"] = parts["valid"]
    return parts


def write_split(split: Split, path: str | Path) -> None:
    """Writes a split as JSON: ids, protocol, seed, fingerprint.

    Arguments
    ---------
    split : Split
        The fold to write.
    path : str or pathlib.Path
        Output file, written whole or not at all.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> split = make_folds(read_synthetic(folder), "random_kfold")[0]
    >>> path = folder / "fold-0.json"
    >>> write_split(split, path)
    >>> read_split(path) == split
    True
    """
    lists = split.parts()  # written last, because they are long
    about = {key: value for key, value in asdict(split).items() if key not in lists}
    write(path, SPLIT, about | lists)


def read_split(path: str | Path) -> Split:
    """Reads a file that ``write_split`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path
        Split file.

    Returns
    -------
    Split
        The fold.

    Raises
    ------
    ValueError
        If the file is not a split, or its lists do not have its fingerprint.

    Example
    -------
    >>> path = getfixture("tmp_path") / "fold-0.json"
    >>> _ = path.write_text("{}")
    >>> read_split(path)
    Traceback (most recent call last):
    speechbrain_ser_cl.utils.records.RecordError: ...fold-0.json: no train, ...
    """
    contents: dict[str, Any] = {"rule": 1, **read(path, SPLIT)}
    contents.pop("format", None)
    split = Split(**contents)
    if fingerprint(split.parts()) != split.fingerprint:
        raise ValueError(
            f"{path}: the ids are not those that its fingerprint {split.fingerprint} "
            "was made of: the file was changed by hand or damaged. Make it again"
        )
    return split


def _labelled(item: Utterance | Labelled) -> Labelled:
    return item if isinstance(item, Labelled) else Labelled(item, item.emotion)


def _without_folder(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Removes the folder of the lists, so that records are equal on every machine."""
    return {
        key: _without_folder(value) if isinstance(value, Mapping) else value
        for key, value in protocol.items()
        if key != "folder"
    }


def _tell_shared(splits: Sequence[Split]) -> None:
    """Warns of what training and test share in published folds."""
    most = {
        key: max(split.shared[key]["train/test"] for split in splits)
        for key in LEAK_KEYS
    }
    told = ", ".join(f"{count} {key}s" for key, count in most.items() if count)
    if told:
        logger.warning(
            "protocol: the folds are not free of leaks: training and test share up to "
            "%s a fold; this is allowed by `leaks`, and counted in the report",
            told,
        )


def _checked(
    leaks: Leaks,
    part_of: NDArray[np.integer[Any]],
    corpora: NDArray[np.object_],
    protocol: Mapping[str, Any],
) -> dict[str, dict[str, int]]:
    """Checks what the parts share; refuses what the protocol does not allow."""
    for corpus, one in protocol.get("per_corpus", {"": protocol}).items():
        own = part_of if not corpus else np.where(corpora == corpus, part_of, UNUSED)
        # Validation comes from the groups of the test or of the training.
        if one["valid"] == "utterances":
            both, names = np.where(own == VALID, TRAIN, own), ("train", "", "test")
        else:
            both = np.where(own == TEST, VALID, own)
            names = ("train", "held out", "")
        # A group that is halved by speaker, or texts of both halves.
        between = set(one["leaks"])
        if one["valid"] == "swap" and one["group"] != "utterance":
            between |= {one["group"]} - {"speaker"}
        between |= {"text_id"} if "text_folds" in one else set()
        try:
            leaks.check(both, names, one["leaks"], "leaks")
            if one["valid"] != "utterances":
                leaks.check(own, PARTS, sorted(between), "leaks")
        except LeakError as error:
            raise LeakError(
                f"protocol {one['kind']}, leaks: {one['leaks']}: {error}"
            ) from None
    return leaks.check(part_of, PARTS, LEAK_KEYS)


def _one_corpus(
    items: list[Labelled], protocol: Mapping[str, Any], seed: int
) -> list[Codes]:
    """Computes the part of each utterance in each fold of one corpus."""
    if protocol["group"] == "split":
        return [_given(items, protocol, seed)]
    if protocol["group"] == "published":
        return _published(items, protocol, seed)
    hand, n_folds = _hands(items, protocol["group"], protocol, seed)
    valid = protocol["valid"]
    if n_folds * len(items) > _MOST_IDS:
        raise ValueError(
            f"protocol {protocol['kind']}: {n_folds} folds of {len(items)} utterances "
            "are too many to keep; ask for fewer (n_folds)"
        )
    if valid == "swap":
        return _swapped(items, hand, n_folds, protocol, seed)
    tested, validates = hand, (hand - 1) % n_folds
    if valid != "next":
        validates = np.full_like(hand, UNUSED)
    folds = []
    if "text_folds" in protocol:
        texts, n_texts = _hands(items, "text_id", protocol, seed)
        known = (hand != UNUSED) & (texts != UNUSED)
    for k in range(n_folds):
        part_of = np.select([tested == k, validates == k], [TEST, VALID], TRAIN)
        part_of[hand == UNUSED] = UNUSED
        if "text_folds" not in protocol:
            folds.append(part_of)
            continue
        for text in range(n_texts):
            kept = known & ((texts == text) == (part_of != TRAIN))
            folds.append(np.where(kept, part_of, UNUSED))
    if valid == "utterances":
        for part_of in folds:
            _validate_utterances(items, part_of, seed)
    return [part_of.astype(np.int8) for part_of in folds]


def _hands(
    items: list[Labelled], group: str, protocol: Mapping[str, Any], seed: int
) -> tuple[NDArray[np.int64], int]:
    """Returns the fold of each utterance's group, and the number of folds."""
    kind, corpus = protocol["kind"], items[0].utterance.corpus
    attribute = "id" if group == "utterance" else group
    names: list[str | None] = [getattr(item.utterance, attribute) for item in items]
    unknown = [i for i, name in zip(items, names, strict=True) if name is None]
    if unknown and protocol["unknown"] == "error":
        raise ValueError(
            f"protocol {kind}: utterances of {corpus} without a {group} "
            f"({offenders(item.utterance.id for item in unknown)}). With unknown: "
            "leave_out they are not used, with unknown: alone each is a group of its "
            f"own; or choose a protocol that groups by something else: random_kfold "
            f"needs none, but its results do not apply to a new {group}"
        )
    if protocol["unknown"] == "alone":  # no name starts with a zero byte
        names = [
            f"\0{item.utterance.id}" if name is None else name
            for name, item in zip(names, items, strict=True)
        ]
    groups = defaultdict(list)
    for name, item in zip(names, items, strict=True):
        if name is not None:
            groups[name].append(item)
    entry = (
        "text_folds" if "text_folds" in protocol and group == "text_id" else "n_folds"
    )
    wanted = protocol[entry]
    n_folds = len(groups) if wanted is None else wanted
    least = 3 if protocol["valid"] == "next" and entry == "n_folds" else 2
    if len(groups) < max(n_folds, least):
        cure = f"Set {entry}: {len(groups)}" if wanted else "Use random_kfold"
        if len(groups) == 2 and least == 3:
            fewer = "n_folds: 2 and " if wanted else ""
            cure = (
                f"Set {fewer}valid: utterances, so that a fifth of the training "
                "utterances validates, or valid: none"
            )
        elif len(groups) < least:
            cure = f"Choose a protocol that groups by something else than {group}"
        raise ValueError(
            f"protocol {kind}: {corpus} has {len(groups)} {group}s, expected at least "
            f"{wanted or least}. {cure}"
        )
    fold_of = _dealt(groups, wanted, protocol["deal"], seed, group)
    if wanted and protocol["deal"] == "fair":
        _tell_absent(groups, fold_of, wanted, least, protocol, seed, entry)
    hand = [UNUSED if name is None else fold_of[name] for name in names]
    return np.array(hand, dtype=np.int64), n_folds


def _dealt(
    groups: Mapping[str, list[Labelled]],
    n_folds: int | None,
    deal: str | None,
    seed: int,
    group: str,
) -> dict[str, int]:
    """Assigns the groups to folds."""
    if n_folds is None:
        return {name: k for k, name in enumerate(sorted(groups))}

    def stratum(name: str) -> tuple[str, str]:
        (utterance, label), *_ = groups[name]
        if group != "utterance":
            return "", _gender(groups[name])
        return label, (utterance.gender or "") if deal == "fair" else ""

    # Single utterances are balanced also when they are assigned in turn.
    if deal == "cards" or group == "utterance":
        return deal_cards(groups, n_folds, seed, stratum)
    return deal_fairly(groups, n_folds, seed)


def _tell_absent(
    groups: Mapping[str, list[Labelled]],
    fold_of: Mapping[str, int],
    n_folds: int,
    least: int,
    protocol: Mapping[str, Any],
    seed: int,
    entry: str,
) -> None:
    """Warns of folds that lack a class, and says with how many folds none does."""
    classes_of = {name: {i.label for i in group} for name, group in groups.items()}
    classes = set().union(*classes_of.values())

    def lacking(folds: Mapping[str, int], number: int) -> list[set[str]]:
        there: list[set[str]] = [set() for _ in range(number)]
        for name, fold in folds.items():
            there[fold] |= classes_of[name]
        return [classes - some for some in there]

    absent = lacking(fold_of, n_folds)
    if not any(absent):
        return
    most = min(sum(c in some for some in classes_of.values()) for c in classes)
    possible = (
        n
        for n in range(min(most, n_folds - 1), least - 1, -1)
        if not any(lacking(_dealt(groups, n, "fair", seed, protocol["group"]), n))
    )
    fewer = next(possible, None)
    told = "; ".join(
        f"fold {k} lacks {', '.join(sorted(some))}"
        for k, some in enumerate(absent)
        if some
    )
    cure = (
        f"Each class is in each fold with {entry}: {fewer}"
        if fewer
        else "No number of folds gives each class to each fold; join classes in "
        "emotion_map, or leave one out"
    )
    logger.warning("protocol %s: %s. %s", protocol["kind"], told, cure)


def _validate_utterances(
    items: list[Labelled], part_of: NDArray[np.integer[Any]], seed: int
) -> None:
    """Moves a fifth of the training utterances of each class to validation."""
    place = {
        items[n].utterance.id: n for n in np.flatnonzero(part_of == TRAIN).tolist()
    }
    dealt = deal_cards(place, _FIFTH, seed, lambda name: items[place[name]].label)
    part_of[[place[name] for name, fold in dealt.items() if fold == 0]] = VALID


def _given(items: list[Labelled], protocol: Mapping[str, Any], seed: int) -> Codes:
    """Returns the parts that the corpus defines."""
    kind, corpus = protocol["kind"], items[0].utterance.corpus
    unknown = [i.utterance.id for i in items if i.utterance.split is None]
    if unknown and protocol["unknown"] != "leave_out":
        raise ValueError(
            f"protocol {kind}: utterances of {corpus} have no part "
            f"({', '.join(PARTS)}): {offenders(unknown)}. Name the column of parts, "
            "leave them out (unknown: leave_out), or choose another protocol"
        )
    number: dict[str | None, int] = {name: code for code, name in enumerate(PARTS)}
    codes = [number.get(item.utterance.split, UNUSED) for item in items]
    part_of = np.array(codes, dtype=np.int8)
    absent = [name for name in ("train", "test") if number[name] not in codes]
    if absent:
        raise ValueError(
            f"protocol {kind}: {corpus} has nothing for {' and '.join(absent)}"
        )
    if VALID in codes or protocol["valid"] == "none":
        return part_of
    if protocol["valid"] == "utterances" or not _validate_speakers(
        items, part_of, protocol, seed
    ):
        _validate_utterances(items, part_of, seed)
    return part_of


def _published(
    items: list[Labelled], protocol: Mapping[str, Any], seed: int
) -> list[Codes]:
    """Returns the parts of published lists."""
    kind, utterances = protocol["kind"], [item.utterance for item in items]
    if protocol["unknown"] == "alone":
        raise ValueError(
            f"protocol {kind}: unknown is 'alone', expected 'error' or 'leave_out'"
        )
    folds = published_folds(
        utterances, kind, protocol["folder"], protocol["unknown"] == "leave_out"
    )
    cut = Counter[str]()
    for k, part_of in enumerate(folds):
        absent = [n for n, c in (("train", TRAIN), ("test", TEST)) if c not in part_of]
        if absent:
            raise ValueError(
                f"protocol {kind}: fold {k} of {utterances[0].corpus} has nothing for "
                f"{' and '.join(absent)}"
            )
        if VALID in part_of or protocol["valid"] == "none":
            continue
        if protocol["valid"] == "given" and _validate_speakers(
            items, part_of, protocol, seed, strict=False
        ):
            cut["speakers"] += 1
        else:
            _validate_utterances(items, part_of, seed)
            cut["utterances"] += 1
    for what, count in cut.items():
        logger.info(
            "protocol %s: %d of %d folds of %s name no validation part: there, a "
            "fifth of the training %s validates",
            *(kind, count, len(folds), utterances[0].corpus, what),
        )
    return folds


def _validate_speakers(
    items: list[Labelled],
    part_of: NDArray[np.integer[Any]],
    protocol: Mapping[str, Any],
    seed: int,
    strict: bool = True,
) -> bool:
    """Moves a fifth of the training speakers to validation, if speakers are known."""
    groups = defaultdict(list)
    for place in np.flatnonzero(part_of == TRAIN).tolist():
        groups[items[place].utterance.speaker].append(place)
    if None in groups:
        return False
    train = {str(name): [items[n] for n in places] for name, places in groups.items()}
    n_folds = min(_FIFTH, len(train))
    fold_of = _dealt(train, n_folds, protocol["deal"], seed, "speaker")
    chosen = [n for name, p in groups.items() if not fold_of[str(name)] for n in p]
    # A fifth of few speakers is an inexact share.
    if 5 * len(chosen) > 2 * sum(map(len, train.values())):
        if not strict:
            return False
        raise ValueError(
            f"protocol {protocol['kind']}: {items[0].utterance.corpus} has no part "
            f"valid, and {len(train)} training speaker"
            f"{'s are' if len(train) > 1 else ' is'} too few to take a fifth "
            "from. Name a part for validation, or set valid: utterances, so that a "
            "fifth of the training utterances validates, or valid: none"
        )
    part_of[chosen] = VALID
    return True


def _swapped(
    items: list[Labelled],
    hand: NDArray[np.int64],
    n_folds: int,
    protocol: Mapping[str, Any],
    seed: int,
) -> list[Codes]:
    """Makes two folds of each from its halves, by speaker if groups stay together."""
    by_speaker = protocol["group"] != "utterance"
    folds = []
    for k in range(n_folds):
        places = np.flatnonzero(hand == k).tolist()
        groups = defaultdict(list)
        for n in places:
            utterance = items[n].utterance
            groups[utterance.speaker if by_speaker else utterance.id].append(items[n])
        if None in groups:
            unknown = offenders(item.utterance.id for item in groups[None])
            raise ValueError(
                "valid: swap halves a fold by speaker, but these are not known "
                f"({unknown}); use valid: next"
            )
        if len(groups) < 2:
            raise ValueError(
                "valid: swap halves a fold by speaker, but one has "
                f"{', '.join(map(str, groups))} alone; use valid: next, or fewer folds"
            )
        named = {str(name): group for name, group in groups.items()}
        if by_speaker and protocol["deal"] != "fair":
            names = sorted(named, key=lambda name: (_gender(named[name]), name))
            half = {name: place % 2 for place, name in enumerate(names)}
        else:
            half = _dealt(named, 2, protocol["deal"], seed, protocol["group"])
        one = [
            half[str(u.speaker if by_speaker else u.id)] == 0
            for u in (items[n].utterance for n in places)
        ]
        for valid in (np.array(one), ~np.array(one)):
            part_of = np.where(hand == UNUSED, UNUSED, TRAIN).astype(np.int8)
            part_of[places] = np.where(valid, VALID, TEST)
            folds.append(part_of)
    return folds


def _gender(items: Sequence[Labelled]) -> str:
    """Returns a group's gender; empty if unknown or mixed."""
    genders = {item.utterance.gender for item in items}
    return genders.pop() or "" if len(genders) == 1 else ""
