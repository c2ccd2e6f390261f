"""Protocols of cross-validation as data, and the folds they make.

A protocol is the name of one of ``PROTOCOLS``, or a mapping with that name as ``kind``
and other values for its entries, as it stands in a recipe's YAML::

    protocol: leave_one_session_out
    protocol: {kind: speaker_kfold, n_folds: 5, valid: swap}

or, where corpora need different ones that make equally many folds::

    protocol:
        per_corpus:
            iemocap: {kind: session_kfold, n_folds: 4}
            casia: {kind: speaker_kfold, n_folds: 4}

Its entries:

- ``group``: what is never divided between training and the rest: ``session``,
  ``speaker``, ``text_id`` or ``utterance`` (nothing is kept together); ``split``: the
  corpus itself says what is training, validation and test.
- ``n_folds``: the groups are dealt to so many folds, balanced over women and men where
  that is known (utterances: over classes); null: each group is a fold.
- ``valid``: ``next``: fold k is tested and fold k + 1 validates. ``swap``: the
  speakers of fold k are halved (utterances: drawn by lot), one half validates and the
  other is tested, then the other way round, so that there are twice as many folds.
  ``given``: what the corpus says; where it names no validation part, that is a fifth of
  the training speakers (of the training utterances where speakers are not known).
- ``deal``: how groups are dealt to folds. ``cards``: one after the other, women first.
- ``leaks``: which of ``speaker``, ``session`` and ``text_id`` training may share with
  validation and test. Any other leak is an error.

Folds depend on the protocol, the seed and the utterances' ids alone: not on the order
of the input nor on the version of a random number generator.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.splits import (
    Labelled,
    LeakError,
    check_leaks,
    fingerprint,
    random_rank,
)
from speechbrain_ser_cl.utils.errors import offenders
from speechbrain_ser_cl.utils.files import replacing

PARTS = ("train", "valid", "test")
LEAK_KEYS = ("speaker", "session", "text_id")
SEEDS = "seeds"
DOMAINS = "domain_adaptation"
# Kinds without folds: each run draws its parts with its own seed.
DRAWN = (SEEDS, DOMAINS)

PROTOCOLS = {
    # 5 folds on IEMOCAP: one session tests, one validates, three train.
    "leave_one_session_out": {
        "group": "session",
        "n_folds": None,
        "deal": None,
        "valid": "next",
        "leaks": ["text_id"],
    },
    # 10 folds on IEMOCAP: one speaker of the session left out tests, one validates.
    "session_speaker_swap": {
        "group": "session",
        "n_folds": None,
        "deal": None,
        "valid": "swap",
        "leaks": ["text_id"],
    },
    "session_kfold": {
        "group": "session",
        "n_folds": 5,
        "deal": "cards",
        "valid": "next",
        "leaks": ["text_id"],
    },
    # The partner in a dialogue stays in training, and so does the session.
    "leave_one_speaker_out": {
        "group": "speaker",
        "n_folds": None,
        "deal": None,
        "valid": "next",
        "leaks": ["session", "text_id"],
    },
    "speaker_kfold": {
        "group": "speaker",
        "n_folds": 5,
        "deal": "cards",
        "valid": "next",
        "leaks": ["text_id"],
    },
    "random_kfold": {
        "group": "utterance",
        "n_folds": 5,
        "deal": "cards",
        "valid": "next",
        "leaks": ["speaker", "session", "text_id"],
    },
    # One fold: the corpus' own.
    "given": {
        "group": "split",
        "n_folds": None,
        "deal": "cards",
        "valid": "given",
        "leaks": ["session", "text_id"],
    },
    # No folds: the recipe splits by its own seed, and seeds are repeated.
    SEEDS: {},
    # As above, from one corpus to another: see `data.domains.split_domains`. Source and
    # target are keys of the recipe's corpora.
    DOMAINS: {
        "source": "source",
        "target": "target",
        "source_valid": 0.1,
        "target_train": 0.05,
        "target_train_unlabelled": 0.3,
        "by": "utterance",
        "labels": True,
        "shared_emotions": False,
    },
}

_VALUE_OF = {
    "session": lambda u: u.session,
    "speaker": lambda u: u.speaker,
    "text_id": lambda u: u.text_id,
    "utterance": lambda u: u.id,
    "split": lambda u: u.split,
}
# Where a corpus' own split has no validation part, one of so many.
_VALID_OF_GIVEN = 5


@dataclass(frozen=True)
class Split:
    """The utterances of one fold, by their ids, and where they come from.

    Arguments
    ---------
    train, valid, test : list of str
        Ids, sorted.
    fold : int
        Which fold it is, in [0, n_folds).
    n_folds : int
        How many folds the protocol makes.
    protocol : dict
        As ``resolve_protocol`` returns it.
    seed : int
        Of the folds.
    corpora : list of str
        Names of the corpora, sorted.
    shared : dict
        For speakers, sessions and texts, how many each two parts share.
    fingerprint : str
        Of the three lists; two splits with the same lists have the same.

    Example
    -------
    >>> split = make_folds(_toy_corpus(), "speaker_kfold")[0]
    >>> split.fold, len(split.train), len(split.valid), len(split.test)
    (0, 12, 4, 4)
    """

    train: list[str]
    valid: list[str]
    test: list[str]
    fold: int
    n_folds: int
    protocol: dict
    seed: int
    corpora: list[str]
    shared: dict[str, dict[str, int]]
    fingerprint: str

    def parts(self) -> dict[str, list[str]]:
        """The three lists by name: ``train``, ``valid``, ``test``."""
        return {name: getattr(self, name) for name in PARTS}


def resolve_protocol(protocol: str | Mapping) -> dict:
    """A protocol with all its entries.

    Arguments
    ---------
    protocol : str or mapping
        See the module's docstring.

    Returns
    -------
    dict
        With ``kind``, ``group``, ``n_folds``, ``valid`` and ``leaks``; with ``kind``
        alone for ``seeds``; or ``{"per_corpus": {corpus: ...}}``.

    Raises
    ------
    ValueError
        For an unknown kind, entry or value; says what there is.

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
    full["leaks"] = sorted(full["leaks"])
    if usual["deal"] is None:  # where each group is a fold nothing is dealt
        full["deal"] = None
    n_folds, least = full["n_folds"], 3 if full["valid"] == "next" else 2
    wrong = None
    if full["group"] != usual["group"]:
        wrong = f"group is {full['group']!r}, expected {usual['group']!r}"
    elif "given" in (full["valid"], usual["valid"]) and full["valid"] != usual["valid"]:
        wrong = f"valid is {full['valid']!r}, which is not possible there"
    elif full["valid"] not in ("next", "swap", "given"):
        wrong = f"valid is {full['valid']!r}, expected 'next' or 'swap'"
    elif usual["n_folds"] is None and n_folds is not None:
        wrong = (
            f"n_folds is {n_folds}, but there each {full['group']} is a fold; use "
            f"{full['group']}_kfold"
        )
    elif usual["n_folds"] is not None and (
        isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < least
    ):
        wrong = (
            f"n_folds is {n_folds!r}, expected a whole number from {least} on, since "
            f"valid is {full['valid']}"
        )
    elif full["deal"] not in ("cards", None):
        wrong = f"deal is {full['deal']!r}, expected 'cards'"
    elif not set(full["leaks"]) <= set(LEAK_KEYS):
        wrong = f"leaks is {full['leaks']}, expected some of {', '.join(LEAK_KEYS)}"
    if wrong:
        raise ValueError(f"protocol {kind}: {wrong}")
    return {"kind": kind} | full


def make_folds(
    utterances: Iterable[Utterance | Labelled], protocol: str | Mapping, seed: int = 0
) -> list[Split]:
    """All folds of a protocol, checked for leaks.

    Of several corpora each is split on its own, and fold k holds fold k of each.

    Arguments
    ---------
    utterances : iterable of Utterance or Labelled
        Those of the experiment's classes, in any order. Labels, where given, are what
        random folds are stratified by; else emotions are.
    protocol : str or mapping
        See the module's docstring.
    seed : int
        Another seed deals groups to other folds; where each group is a fold it changes
        nothing.

    Returns
    -------
    list of Split
        Fold 0, 1, … Every utterance is tested in exactly one of them.

    Raises
    ------
    LeakError
        If parts share what the protocol does not declare.
    ValueError
        For an unknown protocol, one without folds, too few groups, utterances whose
        group is not known, or a class that is missing in a training part.

    Example
    -------
    >>> folds = make_folds(_toy_corpus(), {"kind": "speaker_kfold", "valid": "swap"})
    >>> len(folds), folds[0].valid == folds[1].test, folds[0].test == folds[1].valid
    (10, True, True)
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
    of_corpus = defaultdict(list)
    for item in items:
        of_corpus[item.utterance.corpus].append(item)
    if not of_corpus:
        raise ValueError("no utterances to make folds of")
    each = protocol.get("per_corpus", dict.fromkeys(of_corpus, protocol))
    without = sorted(set(of_corpus) - set(each))
    if without:
        raise ValueError(
            f"protocol: per_corpus names {', '.join(sorted(each))}, but not "
            f"{', '.join(without)}"
        )
    if "per_corpus" in protocol:  # of those that there are
        protocol = {"per_corpus": {name: each[name] for name in sorted(of_corpus)}}
    folds_of = {
        name: _one_corpus(of_corpus[name], each[name], seed)
        for name in sorted(of_corpus)
    }
    numbers = {name: len(folds) for name, folds in folds_of.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(
            "corpora with different numbers of folds cannot be used together: "
            + ", ".join(f"{name} {n}" for name, n in numbers.items())
            + ". Choose a protocol with n_folds, or one per corpus with per_corpus"
        )
    n_folds = numbers.popitem()[1]
    splits = []
    for k in range(n_folds):
        parts = {
            part: sorted(
                (item for folds in folds_of.values() for item in folds[k][part]),
                key=lambda item: item.utterance.id,
            )
            for part in PARTS
        }
        absent = {i.label for i in items} - {i.label for i in parts["train"]}
        if absent:
            raise ValueError(
                f"fold {k}: no training utterance of class {', '.join(sorted(absent))}"
                "; choose another protocol, or leave the class out of emotion_map"
            )
        splits.append(
            Split(
                **{name: [i.utterance.id for i in parts[name]] for name in PARTS},
                fold=k,
                n_folds=n_folds,
                protocol=protocol,
                seed=seed,
                corpora=list(folds_of),
                shared=_checked(parts, protocol),
                fingerprint=fingerprint(parts),
            )
        )
    return splits


def select_parts(items: Iterable[Labelled], split: Split) -> dict[str, list[Labelled]]:
    """The utterances of a split, checked for leaks once more.

    Arguments
    ---------
    items : iterable of Labelled
        At least those of the split; others are left out.
    split : Split
        Made here, or read from somebody's file.

    Returns
    -------
    dict
        ``train``, ``valid`` and ``test``, each in the split's order.

    Raises
    ------
    LeakError
        If parts share what the split's protocol does not declare.
    ValueError
        If utterances of the split are not there; names the first ten.

    Example
    -------
    >>> items = [Labelled(u, u.emotion) for u in _toy_corpus()]
    >>> split = make_folds(items, "speaker_kfold")[0]
    >>> {name: len(part) for name, part in select_parts(items, split).items()}
    {'train': 12, 'valid': 4, 'test': 4}
    """
    by_id = {item.utterance.id: item for item in items}
    missing = {name for part in split.parts().values() for name in part} - set(by_id)
    if missing:
        raise ValueError(
            f"fold {split.fold}: utterances of the split that are not there "
            f"({offenders(missing)}); the split was made of other corpora or classes"
        )
    parts = {name: [by_id[key] for key in part] for name, part in split.parts().items()}
    _checked(parts, split.protocol)
    return parts


def write_split(split: Split, path: str | Path) -> None:
    """Write a split as JSON: ids without audio, protocol, seed, fingerprint.

    Arguments
    ---------
    split : Split
        One fold.
    path : str or pathlib.Path
        The file; it appears whole or not at all.

    Example
    -------
    >>> path = getfixture("tmp_path") / "splits" / "fold-0.json"
    >>> split = make_folds(_toy_corpus(), "random_kfold")[0]
    >>> write_split(split, path)
    >>> read_split(path) == split
    True
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lists = split.parts()
    contents = {k: v for k, v in asdict(split).items() if k not in lists} | lists
    with replacing(path) as part:
        part.write_text(
            json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_split(path: str | Path) -> Split:
    """Read what ``write_split`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path
        The file.

    Returns
    -------
    Split
        The fold.

    Raises
    ------
    ValueError
        If it is no such file, or its lists are not those of its fingerprint.

    Example
    -------
    >>> path = getfixture("tmp_path") / "fold-0.json"
    >>> _ = path.write_text("{}")
    >>> read_split(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...fold-0.json: not a split file, it lacks corpora, fingerprint, ...
    """
    try:
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a split file ({error})") from error
    if not isinstance(contents, dict):
        raise ValueError(f"{path}: not a split file, expected a JSON object")
    fields = set(Split.__dataclass_fields__)
    if fields != set(contents):
        lacks, more = fields - set(contents), set(contents) - fields
        what = [f"lacks {', '.join(sorted(lacks))}"] if lacks else []
        what += [f"has the unknown {', '.join(sorted(more))}"] if more else []
        raise ValueError(f"{path}: not a split file, it {' and '.join(what)}")
    split = Split(**contents)
    if fingerprint(split.parts()) != split.fingerprint:
        raise ValueError(
            f"{path}: the ids are not those that its fingerprint {split.fingerprint} "
            "was made of: the file was changed by hand or damaged. Make it again"
        )
    return split


def _labelled(item: Utterance | Labelled) -> Labelled:
    return item if isinstance(item, Labelled) else Labelled(item, item.emotion)


def _checked(
    parts: Mapping[str, Sequence[Labelled]], protocol: Mapping
) -> dict[str, dict[str, int]]:
    """What the parts share; an error where the protocol does not declare it."""
    each = protocol.get("per_corpus", {"": protocol})
    for corpus, one in each.items():
        own = {
            name: [i for i in part if corpus in ("", i.utterance.corpus)]
            for name, part in parts.items()
        }
        # A group that is halved by speaker is in both halves.
        halved = one["valid"] == "swap" and one["group"] in ("session", "text_id")
        between = [*one["leaks"], one["group"]] if halved else one["leaks"]
        held_out = {"held out": [*own["valid"], *own["test"]]}
        try:
            check_leaks({"train": own["train"]} | held_out, LEAK_KEYS, one["leaks"])
            check_leaks(own, LEAK_KEYS, between)
        except LeakError as error:
            raise LeakError(
                f"protocol {one['kind']}, leaks: {one['leaks']}: {error}"
            ) from None
    return check_leaks(parts, LEAK_KEYS, LEAK_KEYS)


def _one_corpus(
    items: list[Labelled], protocol: Mapping, seed: int
) -> list[dict[str, list[Labelled]]]:
    """The parts of each fold of one corpus."""
    if protocol["group"] == "split":
        return [_given(items, protocol, seed)]
    group, corpus = protocol["group"], items[0].utterance.corpus
    members = defaultdict(list)
    for item in items:
        members[_VALUE_OF[group](item.utterance)].append(item)
    unknown = members.get(None)
    if unknown:
        raise ValueError(
            f"protocol {protocol['kind']}: utterances of {corpus} without a {group} "
            f"({offenders(item.utterance.id for item in unknown)}). Choose a protocol "
            f"that groups by something else: random_kfold needs nothing, and says "
            f"nothing about a new {group}"
        )
    if protocol["n_folds"] is None:
        held_out = [members[name] for name in sorted(members)]
    else:
        held_out = _deal(members, protocol["n_folds"], seed, group)
    least = 3 if protocol["valid"] == "next" else 2
    if len(held_out) < least or not all(held_out):
        raise ValueError(
            f"protocol {protocol['kind']}: {corpus} has {len(members)} {group}s, "
            f"expected at least {protocol['n_folds'] or least}; ask for fewer folds "
            f"(n_folds, from {least} on)"
        )
    if protocol["valid"] == "next":
        pairs = list(zip(held_out[1:] + held_out[:1], held_out, strict=True))
    else:
        halves = [_halves(fold, group, seed) for fold in held_out]
        pairs = [pair for one, other in halves for pair in ((one, other), (other, one))]
    folds = []
    for valid, test in pairs:
        out = {item.utterance.id for item in (*valid, *test)}
        train = [item for item in items if item.utterance.id not in out]
        folds.append({"train": train, "valid": valid, "test": test})
    return folds


def _given(
    items: list[Labelled], protocol: Mapping, seed: int
) -> dict[str, list[Labelled]]:
    """The parts that the corpus itself names."""
    corpus = items[0].utterance.corpus
    parts = {
        part: [item for item in items if item.utterance.split == part] for part in PARTS
    }
    unknown = [i.utterance.id for i in items if i.utterance.split is None]
    if unknown:
        raise ValueError(
            f"protocol {protocol['kind']}: utterances of {corpus} of which the corpus "
            f"does not say whether they are for {', '.join(PARTS)} "
            f"({offenders(unknown)}). Name the column that says so, or choose another "
            "protocol"
        )
    if not (parts["train"] and parts["test"]):
        absent = " and ".join(name for name in ("train", "test") if not parts[name])
        raise ValueError(
            f"protocol {protocol['kind']}: {corpus} has nothing for {absent}"
        )
    if not parts["valid"]:
        group = "speaker"
        if any(item.utterance.speaker is None for item in parts["train"]):
            group = "utterance"
        members = defaultdict(list)
        for item in parts["train"]:
            members[_VALUE_OF[group](item.utterance)].append(item)
        if len(members) < 2:
            raise ValueError(
                f"protocol {protocol['kind']}: {corpus} has no part valid, and only "
                f"one {group} to take one from; name its validation part"
            )
        n_folds = min(_VALID_OF_GIVEN, len(members))
        valid, *train = _deal(members, n_folds, seed, group)
        parts |= {"train": [i for fold in train for i in fold], "valid": valid}
    return parts


def _deal(
    members: Mapping[str, list[Labelled]], n_folds: int, seed: int, group: str
) -> list[list[Labelled]]:
    """Deals groups to folds like cards, one stratum after the other."""

    def stratum(name: str) -> str:
        if group == "utterance":
            return members[name][0].label
        return _gender(members[name])

    names = sorted(members, key=lambda name: (stratum(name), random_rank(seed, name)))
    return [
        [item for name in names[k::n_folds] for item in members[name]]
        for k in range(n_folds)
    ]


def _halves(
    fold: list[Labelled], group: str, seed: int
) -> tuple[list[Labelled], list[Labelled]]:
    """The two halves of a fold, by speaker if speakers are kept together."""
    members = defaultdict(list)
    for item in fold:
        unit = item.utterance.id if group == "utterance" else item.utterance.speaker
        members[unit].append(item)
    if group == "utterance":
        one, other = _deal(members, 2, seed, group)
        return one, other
    if None in members:
        unknown = offenders(item.utterance.id for item in members[None])
        raise ValueError(
            f"valid: swap halves a fold by speaker, but these are not known ({unknown})"
            "; use valid: next"
        )
    if len(members) < 2:
        raise ValueError(
            f"valid: swap halves a fold by speaker, but one has {', '.join(members)} "
            "alone; use valid: next, or fewer folds"
        )
    names = sorted(members, key=lambda name: (_gender(members[name]), name))
    one, other = (
        [item for name in names[half::2] for item in members[name]] for half in (0, 1)
    )
    return one, other


def _gender(items: Sequence[Labelled]) -> str:
    """Of a group of one gender; empty where it is unknown or mixed."""
    genders = {item.utterance.gender for item in items}
    return genders.pop() or "" if len(genders) == 1 else ""


def _toy_corpus() -> list[Utterance]:
    """20 utterances of 10 speakers, for examples."""
    return [
        Utterance(
            id=f"toy_{n:02d}",
            path=Path(f"{n:02d}.wav"),
            duration=1.0,
            corpus="toy",
            speaker=f"toy_s{n // 2}",
            session=None,
            gender=("female", "male")[n // 2 % 2],
            language="en",
            text_id=f"toy_t{n % 2}",
            emotion=("happy", "sad")[n % 2],
        )
        for n in range(20)
    ]
