"""Prepares the data of an experiment: corpora, classes and parts.

The YAML keys are ``corpora``, ``emotion_map``, ``protocol``, ``fold``, ``split_file``,
``seed``, ``data_folder``, ``allow_missing`` and ``exclude``. :func:`prepare` reads the
data that they describe.
"""

import inspect
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from speechbrain_ser_cl.corpora.card import load_card
from speechbrain_ser_cl.corpora.cards import CardReader
from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.conversion import convert_to_16k_mono
from speechbrain_ser_cl.data.domains import DomainSplits, split_domains
from speechbrain_ser_cl.data.features.place import (
    Estimate,
    describe_kept,
    estimate_features,
)
from speechbrain_ser_cl.data.few_labels import add_unlabelled
from speechbrain_ser_cl.data.protocols import (
    DOMAINS,
    Split,
    make_folds,
    read_split,
    resolve_protocol,
    select_parts,
)
from speechbrain_ser_cl.data.quality.audio_facts import FACTS_FILE, audio_facts
from speechbrain_ser_cl.data.quality.report import DataReport, data_report
from speechbrain_ser_cl.data.splits import Labelled, describe_part, map_emotions
from speechbrain_ser_cl.data.targets import Target, label_by_votes, resolve_target
from speechbrain_ser_cl.registry import CORPORA
from speechbrain_ser_cl.utils.errors import did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experiment:
    """Data for training and test.

    Arguments
    ---------
    parts : dict
        Name of each part (``train``, ``valid``, ``test``; for domain adaptation
        ``source_train``, ``source_valid``, ``target_train``, ``target_test``) to its
        utterances, 16 kHz mono.
    class_names : list of str
        Name of class k is ``class_names[k]``.
    corpora : list of str
        Corpus names as in ``Utterance.corpus``: source and target for domain
        adaptation, else sorted.
    split : Split or DomainSplits
        Split from which the parts were made.
    protocol : dict
        As ``resolve_protocol`` returns it.
    left_out : dict
        Emotion without a class to its number of utterances.
    unlabelled : dict
        Utterances of each part, including those without a class. Empty unless
        requested.
    report : DataReport, optional
        Counts and problems of the data.
    unused : dict
        Id of each utterance that was removed from the parts to the reason.
    licences : dict
        Licences of corpora with a card of the user's.

    Example
    -------
    >>> Experiment({"test": []}, ["low"], ["toy"], None, {}).parts
    {'test': []}
    """

    parts: dict[str, list[Labelled]]
    class_names: list[str]
    corpora: list[str]
    split: Split | DomainSplits
    protocol: dict[str, Any]
    left_out: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, list[Utterance]] = field(default_factory=dict)
    report: DataReport | None = None
    unused: dict[str, str] = field(default_factory=dict)
    licences: dict[str, dict[str, Any]] = field(default_factory=dict)

    def without(self, unused: Mapping[str, str]) -> "Experiment":
        """Returns the experiment without some utterances.

        Arguments
        ---------
        unused : mapping
            Id to the reason, which ``results.json`` counts.

        Returns
        -------
        Experiment
            With these utterances in ``unused``.
        """
        return replace(
            self,
            parts={
                name: [item for item in part if item.utterance.id not in unused]
                for name, part in self.parts.items()
            },
            unlabelled={
                name: [one for one in part if one.id not in unused]
                for name, part in self.unlabelled.items()
            },
            unused=self.unused | dict(unused),
        )

    def record(
        self, parts: Mapping[str, Sequence[Labelled]] | None = None
    ) -> dict[str, Any]:
        """Describes the split for ``results.json``.

        Arguments
        ---------
        parts : mapping, optional
            The parts that were used, if different.

        Returns
        -------
        dict
            ``protocol``, ``data``; with folds also ``fold``, ``n_folds``; ``licences``
            if a corpus has a card of the user's.
        """
        told: dict[str, Any] = {"protocol": self.protocol}
        if self.licences:
            told["licences"] = self.licences
        if isinstance(self.split, DomainSplits):
            return told | {"data": self.split.describe()}
        used = self.parts if parts is None else parts
        counts = {name: describe_part(part) for name, part in used.items()}
        data: dict[str, Any] = {
            "parts": counts,
            "shared_between_parts": self.split.shared,
            "fingerprint": self.split.fingerprint,
        }
        if self.report is not None:
            data["parts"] = {
                name: self.report.parts.get(name, counts[name]) for name in used
            }
            found = self.report.findings
            data["findings"] = {one.check: len(one.names) for one in found}
        if self.unused:
            data["left_out"] = dict(sorted(Counter(self.unused.values()).items()))
        return told | {
            "fold": self.split.fold,
            "n_folds": self.split.n_folds,
            "data": data,
        }


def prepare(
    values: Mapping[str, Any], *, report: bool = False, unlabelled: bool = False
) -> Experiment:
    """Reads the data of an experiment, as the YAML describes them.

    Reads the corpora, assigns classes, makes the fold or the domain split, checks it
    for leaks and converts audio to 16 kHz mono (once, in the main process, into
    ``data_folder``).

    Arguments
    ---------
    values : mapping
        Values of the YAML: ``corpora``, ``emotion_map``, ``protocol``, ``seed``,
        ``data_folder``; optionally ``fold``, ``split_file``, ``allow_missing``,
        ``target`` (see :func:`~.targets.resolve_target`) and ``exclude``: ids, or
        patterns of ids with ``*``, of utterances that are removed from the parts.
    report : bool
        Whether to decode every file, print the data report and raise its errors.
    unlabelled : bool
        Whether to return also the utterances without a class.

    Returns
    -------
    Experiment
        Parts, classes and facts about them.

    Raises
    ------
    ValueError
        From the corpus readers, the protocol and the checks; ``LeakError`` if parts
        share what the protocol does not allow.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import write_synthetic
    >>> folder = getfixture("tmp_path")
    >>> values = {
    ...     "corpora": {"synthetic": str(write_synthetic(
    ...         folder, "synthetic_source", n_speakers=5, utterances_per_speaker=4
    ...     ))},
    ...     "emotion_map": {"low": ["sad"], "high": ["angry"]},
    ...     "protocol": "random_kfold", "fold": 1, "seed": 0, "data_folder": folder,
    ... }
    >>> experiment = prepare(values)
    >>> experiment.class_names, [len(part) for part in experiment.parts.values()]
    (['low', 'high'], [6, 2, 2])
    """
    emotion_map = values["emotion_map"]
    allow_missing = bool(values.get("allow_missing", False))
    entries = used_corpora(values["corpora"])
    classes = class_names(emotion_map, list(entries))
    target = resolve_target(values.get("target"))
    protocol = resolve_protocol(values["protocol"])
    corpora = {
        name: read_corpus(name, entry, allow_missing) for name, entry in entries.items()
    }
    everything = [utterance for corpus in corpora.values() for utterance in corpus]
    names = sorted({utterance.corpus for utterance in everything})
    split: Split | DomainSplits
    if protocol.get("kind") == DOMAINS:
        if values.get("split_file") is not None:
            raise ValueError(
                f"split_file: protocol {DOMAINS} draws its parts by the seed; expected "
                "null"
            )
        labelled, left_out = _each_with_classes(corpora, emotion_map, target)
        domains = split_domains(labelled, protocol, values["seed"])
        names = [
            labelled[protocol[role]][0].utterance.corpus
            for role in ("source", "target")
        ]
        split, parts, shared = domains, domains.parts(), None
        items = [item for part in parts.values() for item in part]
    else:
        items, left_out = map_corpora(corpora, emotion_map, target)
        fold = fold_split(
            items,
            values["protocol"],
            values.get("fold", 0),
            values["seed"],
            values.get("split_file"),
        )
        parts, shared = select_parts(items, fold), fold.shared
        if not fold.test:  # no other corpus is needed
            used = {*fold.train, *fold.valid}
            items = [item for item in items if item.utterance.id in used]
        split, protocol = fold, fold.protocol
    _tell_left_out(left_out)
    told = None
    excluded = _excluded(values.get("exclude"))
    if report:
        from speechbrain.utils.distributed import if_main_process

        facts = _once(
            audio_facts,
            [item.utterance for item in items],
            Path(values["data_folder"]) / FACTS_FILE,
        )
        kept = [item for item in items if not excluded(item.utterance.id)]
        of_parts = {
            name: [item for item in part if not excluded(item.utterance.id)]
            for name, part in parts.items()
        }
        told = data_report(
            *(kept, facts, classes, of_parts, shared, left_out, allow_missing, corpora),
            recipe_estimate(kept, values),
        )
        if if_main_process():
            number = getattr(split, "fold", None)
            print(f"\nDATA of {', '.join(names)}, fold {number}\n")
            print(told.text(), end="\n\n", flush=True)
            if "features_folder" in values:
                print(describe_kept(values["features_folder"]), end="\n\n", flush=True)
        told.refuse_errors()
    if not unlabelled:
        everything = [item.utterance for part in parts.values() for item in part]
    folder = Path(values["data_folder"]) / "converted"
    by_id = {u.id: u for u in _once(convert_to_16k_mono, everything, folder)}
    parts = {
        name: [item._replace(utterance=by_id[item.utterance.id]) for item in part]
        for name, part in parts.items()
    }
    more = {}
    if isinstance(split, Split) and unlabelled:
        items = [i._replace(utterance=by_id[i.utterance.id]) for i in items]
        more = add_unlabelled(split, items, list(by_id.values()))
    terms = {
        name: asdict(load_card(entry["card"], name).terms)
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and "card" in entry
    }
    experiment = Experiment(
        *(parts, classes, names, split, protocol, dict(left_out), more, told),
        licences=terms,
    )
    return experiment.without({name: "exclude" for name in by_id if excluded(name)})


def recipe_estimate(
    items: Sequence[Labelled], values: Mapping[str, Any]
) -> Estimate | None:
    """Estimates the size of a recipe's features.

    Arguments
    ---------
    items : sequence of Labelled
        All utterances.
    values : mapping
        Keys of the recipe's YAML.

    Returns
    -------
    Estimate or None
        None if the recipe has no ``features_folder``, that is, keeps no features.

    Example
    -------
    >>> recipe_estimate([], {"seed": 1}) is None
    True
    """
    if "features_folder" not in values:
        return None
    seconds = [item.utterance.duration for item in items]
    source = values.get("ssl_source")
    return estimate_features(seconds, source, values["features_folder"])


def _excluded(patterns: str | Sequence[object] | None) -> Callable[[str], bool]:
    """Returns a function that tests whether an id is one of ``exclude``."""
    every = [patterns] if isinstance(patterns, str) else patterns or []
    return lambda name: any(fnmatchcase(name, str(pattern)) for pattern in every)


def _each_with_classes(
    corpora: Mapping[str, Sequence[Utterance]],
    emotion_map: Mapping[str, Any],
    target: Target,
) -> tuple[dict[str, list[Labelled]], dict[str, int]]:
    """Assigns classes to each corpus alone, so that each must have all its classes."""
    own = _has_own_maps(emotion_map)
    labelled, left_out = {}, Counter[str]()
    for name, some in corpora.items():
        one = emotion_map if not own else {name: emotion_map[name]}
        labelled[name], counts = map_corpora({name: some}, one, target)
        left_out.update(counts)
    return labelled, dict(left_out)


def _once(function: Callable[..., Any], *args: Any) -> Any:
    """Runs a function in the main process only; the other processes read its result."""
    # Imported here, because the import takes three seconds.
    from speechbrain.utils.distributed import run_on_main

    run_on_main(function, args=args)
    return function(*args)


def class_names(
    emotion_map: Mapping[Any, Any], corpora: Sequence[str] | None = None
) -> list[str]:
    """Returns the names of an experiment's classes in order.

    The order of ``emotion_map``; if each corpus has its own map, the order in which
    classes first occur over the corpora.

    Arguments
    ---------
    emotion_map : mapping
        As for ``read_corpora``.
    corpora : sequence of str, optional
        Only these corpora, in this order. None: all in the map.

    Returns
    -------
    list of str
        Name of class k.

    Raises
    ------
    ValueError
        For a class name that is not text, or fewer than two classes.

    Example
    -------
    >>> class_names({"low": ["sad"], "high": ["happy", "angry"]})
    ['low', 'high']
    >>> class_names({"a": {"sad": ["sad"]}, "b": {"happy": ["happy"], "sad": ["sad"]}})
    ['sad', 'happy']
    """
    maps = [emotion_map]
    if _has_own_maps(emotion_map):
        chosen = emotion_map if corpora is None else corpora
        maps = [emotion_map[name] for name in chosen if name in emotion_map]
    names = list(dict.fromkeys(name for one in maps for name in one))
    for name in names:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ValueError(
                f"emotion_map: the class {name!r} ({type(name).__name__}): expected a "
                f"name, a text in one line; write it in quotes: '{name}'"
            )
    if len(names) < 2:
        raise ValueError(
            f"emotion_map: found the classes {', '.join(names) or 'none'}, expected "
            "two or more"
        )
    return names


def count_classes(emotion_map: Mapping[Any, Any]) -> int:
    """Counts the classes, for ``n_classes`` in a YAML.

    Example
    -------
    >>> count_classes({"low": ["sad"], "high": ["happy", "angry"]})
    2
    """
    return len(class_names(emotion_map))


def _has_own_maps(emotion_map: Mapping[Any, Any]) -> bool:
    """Returns whether each corpus has its own map."""
    return all(isinstance(value, Mapping) for value in emotion_map.values())


def read_corpora(
    corpora: Mapping[str, str | Path | Mapping[str, Any]],
    emotion_map: Mapping[str, Any],
    allow_missing: bool = False,
    target: str | Mapping[str, Any] | None = None,
) -> list[Labelled]:
    """Reads the corpora of an experiment and assigns classes to their utterances.

    Checks the audio files but does not convert them; see ``convert_to_16k_mono``.

    Arguments
    ---------
    corpora : mapping
        Registered name of each corpus (``ser-cl list corpora``) to its folder. For
        readers with more options, any name to ``{reader: table, folder: ..., ...}``;
        see ``read_corpus``. A corpus whose folder is None is not used.
    emotion_map : mapping
        Class to emotions, for all corpora; or corpus name to such a mapping, if the
        corpora have different labels.
    allow_missing : bool
        Whether missing files give a warning instead of an error.
    target : str or mapping, optional
        See :func:`~.targets.resolve_target`.

    Returns
    -------
    list of Labelled
        Sorted by id. Utterances without a class are left out; the log has their number.

    Raises
    ------
    ValueError
        From the corpus readers and ``map_emotions``.

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
    items, left_out = map_corpora(utterances, emotion_map, resolve_target(target))
    _tell_left_out(left_out)
    return items


def _tell_left_out(left_out: Mapping[str, int]) -> None:
    if left_out:
        counts = ", ".join(f"{n} {emotion}" for emotion, n in sorted(left_out.items()))
        logger.info("Left out, in no class of emotion_map: %s", counts)


def map_corpora(
    utterances: Mapping[str, Sequence[Utterance]],
    emotion_map: Mapping[str, Any],
    target: Target | None = None,
) -> tuple[list[Labelled], dict[str, int]]:
    """Assigns classes to the utterances of several corpora.

    Arguments
    ---------
    utterances : mapping
        Corpus name to utterances.
    emotion_map : mapping
        As for ``read_corpora``.
    target : Target, optional
        Which labels are used: the corpora's (default) or the listeners' votes.

    Returns
    -------
    items : list of Labelled
        Sorted by id.
    left_out : dict
        Emotion without a class to its number of utterances.

    Raises
    ------
    ValueError
        From ``map_emotions`` or ``label_by_votes``, and if some corpora have a map and
        this one has none.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> utterances = {"synthetic_source": read_synthetic(folder)}
    >>> items, left_out = map_corpora(utterances, {"low": ["sad", "neutral"]})
    >>> len(items), left_out
    (80, {'angry': 40, 'happy': 40})
    """
    own_maps = _has_own_maps(emotion_map)
    without = sorted(set(utterances) - set(emotion_map)) if own_maps else []
    if without:
        raise ValueError(
            f"emotion_map has classes for {', '.join(emotion_map)}, but none for "
            f"{', '.join(without)}"
        )
    groups = (
        [(some, emotion_map[name]) for name, some in utterances.items()]
        if own_maps
        else [(sum(map(list, utterances.values()), []), emotion_map)]
    )
    if target is None or target.kind == "emotion":
        mapped = [map_emotions(some, one) for some, one in groups]
    else:
        mapped = [label_by_votes(some, one, target) for some, one in groups]
    left_out = sum((Counter(counts) for _, counts in mapped), Counter())
    items = [item for some, _ in mapped for item in some]
    return (
        sorted(items, key=lambda item: item.utterance.id),
        dict(sorted(left_out.items())),
    )


def used_corpora(corpora: Mapping[str, Any]) -> dict[str, Any]:
    """Selects the corpora whose folder is given.

    Arguments
    ---------
    corpora : mapping
        As for ``read_corpora``.

    Returns
    -------
    dict
        In the given order.

    Raises
    ------
    ValueError
        If no corpus has a folder.

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


def look_up_folders(
    corpora: Mapping[str, Any], hparams_file: str | Path
) -> dict[str, Any]:
    """Finds relative folders and cards in the working folder, or beside the YAML.

    Arguments
    ---------
    corpora : mapping
        As for ``read_corpora``.
    hparams_file : str or pathlib.Path
        The YAML with the corpora.

    Returns
    -------
    dict
        The corpora with absolute paths of what was found beside the YAML. A warning
        names the path that is used.

    Raises
    ------
    ValueError
        If a relative folder or card is in neither place.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "calls").mkdir()
    >>> found = look_up_folders({"calls": "calls"}, folder / "my.yaml")
    >>> found == {"calls": str(folder / "calls")}
    True
    """
    home = Path(hparams_file).absolute().parent
    found: dict[str, Any] = dict(corpora)
    for name, entry in corpora.items():
        said = entry if isinstance(entry, Mapping) else {"folder": entry}
        for key in ("folder", "exclude", "card"):
            value = said.get(key)
            if not isinstance(value, str | Path) or Path(value).is_absolute():
                continue
            here, beside = Path.cwd() / value, home / value
            if here.exists() and beside.exists() and not here.samefile(beside):
                logger.warning("%s: %s is %s, not %s", name, key, here, beside)
            elif not here.exists() and beside.exists():
                logger.warning("%s: %s is %s, beside the YAML", name, key, beside)
                said = {**said, key: str(beside)}
            elif not here.exists() and key != "exclude":
                places = " nor in ".join(map(str, dict.fromkeys((Path.cwd(), home))))
                raise ValueError(
                    f"corpora: {name}: there is no {key} {value}, neither in "
                    f"{places}. Correct it, or give its whole path"
                )
        found[name] = dict(said) if isinstance(entry, Mapping) else said["folder"]
    return found


def _folder(entry: str | Path | Mapping[str, Any] | None) -> str | Path | None:
    return entry.get("folder") if isinstance(entry, Mapping) else entry


def read_corpus(
    name: str, entry: str | Path | Mapping[str, Any], allow_missing: bool = False
) -> list[Utterance]:
    """Reads one corpus of an experiment, as its YAML describes it.

    Arguments
    ---------
    name : str
        Registered name of the corpus; or any name, if the entry has a ``reader``.
        Readers of user corpora take this name as corpus name.
    entry : str or pathlib.Path or mapping
        The folder; or a mapping with ``folder``, ``reader`` (a registered name) and the
        reader's options: ``{reader: table, folder: /data/calls, columns: {emotion:
        mood}}``; or a mapping with ``card``, a YAML like those in ``corpora/cards``:
        ``{card: my_card.yaml, folder: /data/mine}``.
    allow_missing : bool
        Whether missing files give a warning instead of an error.

    Returns
    -------
    list of Utterance
        Sorted by id.

    Raises
    ------
    ValueError
        If the folder is missing, for an option that the reader does not have, and from
        the reader.

    Example
    -------
    >>> read_corpus("calls", {"reader": "table", "folder": "calls", "column": {}})
    Traceback (most recent call last):
    ValueError: corpora: calls: reader table takes no 'column'; did ...
    """
    options: dict[str, Any]
    options = dict(entry) if isinstance(entry, Mapping) else {"folder": entry}
    reader_name = str(options.pop("reader", name))
    if options.get("folder") is None:
        raise ValueError(f"corpora: no folder is given for {name}")
    folder = options.pop("folder")
    card = options.pop("card", None)
    reader = CardReader(load_card(card, name)) if card else CORPORA.get(reader_name)
    takes = list(inspect.signature(reader).parameters)
    own = [key for key in takes if key not in ("folder", "allow_missing", "corpus")]
    for key in options:
        if key not in own:
            tables = inspect.signature(CORPORA.get("table")).parameters
            raise ValueError(
                f"corpora: {name}: reader {reader_name} takes no {key!r}; "
                f"{did_you_mean(key, own)}it takes {', '.join(['folder', *own])}"
                + ("; only a table (reader: table) takes that" * (key in tables))
            )
    if "corpus" in takes:
        options["corpus"] = name
    found: list[Utterance] = reader(folder, allow_missing=allow_missing, **options)
    return found


def fold_split(
    items: Sequence[Labelled],
    protocol: str | Mapping[str, Any],
    fold: int,
    seed: int,
    split_file: str | Path | None = None,
) -> Split:
    """Reads one fold from a file, or makes it.

    Arguments
    ---------
    items : sequence of Labelled
        All utterances of the experiment.
    protocol : str or mapping
        See ``speechbrain_ser_cl.data.protocols``.
    fold : int
        Number of the fold, from 0.
    seed : int
        Seed of the folds.
    split_file : str or pathlib.Path, optional
        File from ``write_split``; its protocol and seed are used.

    Returns
    -------
    Split
        The fold.

    Raises
    ------
    ValueError
        If the fold does not exist, or the file has another fold.

    Example
    -------
    >>> from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
    >>> folder = write_synthetic(getfixture("tmp_path"), "synthetic_source")
    >>> items = [Labelled(u, u.emotion) for u in read_synthetic(folder)]
    >>> fold_split(items, "leave_one_session_out", fold=4, seed=0)
    Traceback (most recent call last):
    ValueError: fold is 4, but the protocol makes 4 folds: 0 to 3
    """
    if split_file is not None:
        split = read_split(split_file)
        if split.fold != fold:
            raise ValueError(
                f"{split_file} is fold {split.fold}, but fold is {fold}; "
                "expected the same number"
            )
        return split
    folds = make_folds(items, protocol, seed)
    if not 0 <= fold < len(folds):
        raise ValueError(
            f"fold is {fold}, but the protocol makes {len(folds)} folds: 0 to "
            f"{len(folds) - 1}"
        )
    return folds[fold]
