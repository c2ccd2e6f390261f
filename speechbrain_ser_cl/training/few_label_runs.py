"""Runs the trainings of a study with few labels and writes its files."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from speechbrain_ser_cl.data.experiment import Experiment
from speechbrain_ser_cl.metrics.classification import classification_metrics
from speechbrain_ser_cl.nnet import EmotionClassifier
from speechbrain_ser_cl.report.figures import plot_few_labels
from speechbrain_ser_cl.results.few_labels import (
    FILE,
    FewLabelPoint,
    few_label_points,
    few_label_table,
    write_few_label_points,
    write_few_labels,
)
from speechbrain_ser_cl.training.history import History
from speechbrain_ser_cl.training.launch import Launch
from speechbrain_ser_cl.training.record import read_results, write_run
from speechbrain_ser_cl.training.views import ViewFeatures

logger = logging.getLogger(__name__)

FullRun = tuple[EmotionClassifier, History, Mapping[str, Any], Mapping[str, Any]]
"""Model, history, predictions, and further entries of ``results.json``."""
_SCORES = ("uar", "wa")


class FewLabelRun(NamedTuple):
    """One training of a study.

    Arguments
    ---------
    view, method : str
        Names of the view and of the training method.
    fraction : float
        Fraction of the labels of each class, in (0, 1].
    draw : int
        Number of the draw of labels.
    """

    view: str
    method: str
    fraction: float
    draw: int


def list_few_label_runs(
    views: Sequence[str],
    methods: Sequence[str],
    fractions: Sequence[float],
    draws: int,
    full_draws: int,
) -> list[FewLabelRun]:
    """Lists the trainings of a study, draw by draw.

    Arguments
    ---------
    views, methods : sequence of str
        Names; each view is combined with each method.
    fractions : sequence of float
        Fractions of the labels.
    draws, full_draws : int
        Number of draws per fraction; number of repetitions with all labels.

    Returns
    -------
    list of FewLabelRun

    Raises
    ------
    ValueError
        For a fraction out of range.

    Example
    -------
    >>> list_few_label_runs(["mel"], ["frozen"], [0.1, 1.0], draws=2, full_draws=1)[1:]
    [FewLabelRun(view='mel', method='frozen', fraction=1.0, draw=0), \
FewLabelRun(view='mel', method='frozen', fraction=0.1, draw=1)]
    """
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong:
        raise ValueError(f"fractions: found {wrong}, expected above 0 and at most 1.")
    return [
        FewLabelRun(view, method, fraction, draw)
        for draw in range(max(draws, full_draws))
        for fraction in fractions
        if draw < (draws if fraction < 1 else full_draws)
        for view in views
        for method in methods
    ]


def few_label_row(
    run: FewLabelRun, title: str, seen: Mapping[str, Any], labelled: int
) -> dict[str, Any]:
    """Makes a row of ``few_labels.json`` from the test predictions.

    Arguments
    ---------
    run : FewLabelRun
        The training.
    title : str
        Name of its method in tables.
    seen : mapping
        ``"label"``, ``"prediction"`` (N,) and ``"probability"`` (N, C).
    labelled : int
        Number of training utterances.

    Returns
    -------
    dict
        Row of the file.
    """
    n_classes = seen["probability"].shape[1]
    found = classification_metrics(seen["label"], seen["prediction"], n_classes)
    scores = {name: round(found[name], 6) for name in _SCORES}
    return run._asdict() | {"method": title, "labelled": labelled} | scores


def do_full_runs(
    launch: Launch,
    experiment: Experiment,
    features: Mapping[str, ViewFeatures],
    runs: Iterable[FewLabelRun],
    train: Callable[[FewLabelRun], FullRun],
) -> list[dict[str, Any]]:
    """Trains with all labels, each run in its own folder; skips finished runs.

    The folders are ``<method>/<view>``, with the files that ``write_run`` writes.

    Arguments
    ---------
    launch : Launch
        What was asked for.
    experiment : Experiment
        Data of the runs.
    features : mapping
        View name to its features, for the exported model.
    runs : iterable of FewLabelRun
        The trainings.
    train : callable
        Trains, and returns the model, its history, its test predictions, and the
        recipe's entries of ``results.json``, with the method's name as ``setting``.

    Returns
    -------
    list of dict
        A row of ``few_labels.json`` per run.
    """
    rows = []
    for run in runs:
        folder = launch.folder / run.method / run.view
        if not (folder / "results.json").exists():
            model, history, seen, about = train(run)
            corpora = " + ".join(experiment.corpora)
            parameters = {
                name: sum(p.numel() for p in part.parameters())
                for name, part in model.named_children()
            }
            record = {
                **about,
                **{"view": run.view, "source": corpora, "target": corpora},
                "parameters": parameters,
                "seed": launch.values["seed"],
                **experiment.record(),
            }
            write_run(
                folder,
                record,
                predictions=seen,
                parts=experiment.parts,
                class_names=experiment.class_names,
                history=history,
                model=features[run.view].complete(model),
            )
        found = read_results(folder / "results.json")
        told = {
            "method": found["setting"],
            "labelled": found["data"]["parts"]["train"]["utterances"],
        }
        scores = {name: round(found["test"][name]["value"], 6) for name in _SCORES}
        rows.append(run._asdict() | told | scores)
    return rows


def do_few_label_runs(
    journal: str | Path,
    runs: Iterable[FewLabelRun],
    titles: Mapping[str, str],
    train: Callable[[FewLabelRun], dict[str, Any]],
    done: Sequence[dict[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Runs missing trainings with a progress bar.

    Arguments
    ---------
    journal : str or pathlib.Path
        File with one line per training. A killed study continues with the training that
        was interrupted.
    runs : iterable of FewLabelRun
        All trainings.
    titles : mapping
        Method to its name in rows.
    train : callable
        Trains, and returns a row of :func:`few_label_row`.
    done : sequence of dict
        Rows of trainings that were run elsewhere.

    Returns
    -------
    list of dict
        The rows of ``done`` and all other rows.

    Example
    -------
    >>> runs = list_few_label_runs(["mel"], ["base"], [0.1], draws=2, full_draws=1)
    >>> journal = getfixture("tmp_path") / "few_labels.jsonl"
    >>> titles = {"base": "base"}
    >>> for _ in range(2):
    ...     rows = do_few_label_runs(journal, runs, titles, FewLabelRun._asdict)
    >>> len(rows), journal.read_text().count("mel")
    (2, 2)
    """
    journal = Path(journal)
    rows = {_key(row): row for row in done}
    for line in journal.read_text("utf-8").splitlines() if journal.exists() else ():
        try:
            row = json.loads(line)
            rows[_key(row)] = row
        except (ValueError, TypeError, KeyError):  # cut off by a kill
            continue
    with open(journal, "a", encoding="utf-8") as file:
        file.write("\n")  # ends a line that was cut off
        for run in tqdm(list(runs), "few labels"):
            key = tuple(run._replace(method=titles[run.method]))
            if key not in rows:
                rows[key] = train(run)
                file.write(json.dumps(rows[key]) + "\n")
                file.flush()
    return list(rows.values())


def about_few_labels(
    launch: Launch,
    experiment: Experiment,
    *,
    recipe: str,
    views: Sequence[str],
    replaced_views: Mapping[str, str],
    baseline: str,
) -> dict[str, Any]:
    """Describes what the runs of a study have in common, for its files.

    Arguments
    ---------
    launch : Launch
        What was asked for.
    experiment : Experiment
        Data of the runs.
    recipe : str
        Name of the method.
    views : sequence of str
        Names of the views.
    replaced_views : mapping
        From :func:`~speechbrain_ser_cl.training.views.choose_views`.
    baseline : str
        Name of the method that others are compared with.

    Returns
    -------
    dict
        ``about`` of ``few_labels.json`` and ``alignment.json``.
    """
    return {
        "recipe": recipe,
        "encoder": Path(launch.values["ssl_source"]).name,
        "corpora": experiment.corpora,
        "classes": experiment.class_names,
        "views": list(views),
        "replaced_views": dict(replaced_views),
        "protocol": experiment.protocol,
        "chance": 1 / len(experiment.class_names),
        "baseline": baseline,
        "demo": launch.demo,
    }


def write_few_label_study(
    folder: str | Path,
    about: Mapping[str, Any],
    fold: int,
    seed: int,
    rows: Sequence[Mapping[str, Any]],
) -> list[FewLabelPoint]:
    """Writes ``few_labels.json``, ``.csv`` and, with matplotlib, ``.png``.

    Arguments
    ---------
    folder : str or pathlib.Path
        Output folder.
    about, fold, seed, rows
        As for ``write_few_labels``.

    Returns
    -------
    list of FewLabelPoint
        Entries of the table.
    """
    folder = Path(folder)
    write_few_labels(folder / FILE, about, fold, seed, rows)
    points = few_label_points(
        [{**row, "fold": fold} for row in rows], about["baseline"]
    )
    write_few_label_points(folder / "few_labels.csv", points)
    try:
        plot_few_labels(points, folder / "few_labels.png", about["chance"])
    except ImportError as error:
        logger.warning("No figure: %s", error)
    return points


def print_few_labels(studies: Iterable[Mapping[str, Any]]) -> None:
    """Prints the results of studies.

    Arguments
    ---------
    studies : iterable of mapping
        For each study ``about``, ``points`` from :func:`write_few_label_study`, and
        ``alignment`` from ``ViewComparison.write``.
    """
    for study in studies:
        print(f"\n{few_label_table(study['about'], study['points'])}")
        for view, reason in study["about"]["replaced_views"].items():
            print(f"View {view}: {reason}.")
        for model, pairs in study["alignment"].items():
            values = ", ".join(
                f"{pair} " + ("–, too few utterances" if v is None else f"{v:.3f}")
                for pair, v in pairs.items()
            )
            print(f"PWCCA, {model}: {values}")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in FewLabelRun._fields)
