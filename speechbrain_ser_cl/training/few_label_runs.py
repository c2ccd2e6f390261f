"""Run the trainings of a study of few labels and write its files."""

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
"""Model, history, predictions, and what there is to say."""
_SCORES = ("uar", "wa")


class FewLabelRun(NamedTuple):
    """One training of a study.

    Arguments
    ---------
    view, method : str
        What is trained, and how.
    fraction : float
        Share of the labels of each class, in (0, 1].
    draw : int
        Which draw of the labels.
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
        Each view with each method.
    fractions : sequence of float
        Shares of the labels.
    draws, full_draws : int
        How often a share is drawn; how often all labels are trained on.

    Returns
    -------
    list of FewLabelRun

    Raises
    ------
    ValueError
        For a share that is none.

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
    """Makes a row of ``few_labels.json`` of what was predicted for the test part.

    Arguments
    ---------
    run : FewLabelRun
        The training.
    title : str
        Its method's name in tables.
    seen : mapping
        ``"label"``, ``"prediction"`` (N,) and ``"probability"`` (N, C).
    labelled : int
        Utterances that were trained on.

    Returns
    -------
    dict
        The row.
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
    """Trains with all labels, each run in a folder of its own, unless that is done.

    The folders are ``<method>/<view>``; each has what ``write_run`` writes.

    Arguments
    ---------
    launch : Launch
        What was asked for.
    experiment : Experiment
        What is trained and tested on.
    features : mapping
        Name of the view to its features, for the model that is exported.
    runs : iterable of FewLabelRun
        The trainings.
    train : callable
        Trains, and returns the model, its history, what it predicts for the test part,
        and what the recipe has to say in ``results.json``, with the method's name in
        rows as ``setting``.

    Returns
    -------
    list of dict
        A row of ``few_labels.json`` for each.
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
    """Trains what is not done yet, with a progress bar.

    Arguments
    ---------
    journal : str or pathlib.Path
        Gets a line for each training. A study that is killed goes on with the
        training that it was in.
    runs : iterable of FewLabelRun
        All trainings.
    titles : mapping
        Method to its name in rows.
    train : callable
        Trains, and returns a row of :func:`few_label_row`.
    done : sequence of dict
        Rows of trainings that were done elsewhere.

    Returns
    -------
    list of dict
        The rows of ``done`` and all others.

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
        except (ValueError, TypeError, KeyError):  # left by a killed run
            continue
    with open(journal, "a", encoding="utf-8") as file:
        file.write("\n")  # a killed run may have left an unfinished line
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
    """Tells what the runs of a study have in common, for its files.

    Arguments
    ---------
    launch : Launch
        What was asked for.
    experiment : Experiment
        What is trained and tested on.
    recipe : str
        Name of the method.
    views : sequence of str
        Names of the views.
    replaced_views : mapping
        Of :func:`~speechbrain_ser_cl.training.views.choose_views`.
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
        Where to.
    about, fold, seed, rows
        As ``write_few_labels`` takes them.

    Returns
    -------
    list of FewLabelPoint
        What the table says.
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
        Of each ``about``, ``points`` of :func:`write_few_label_study`, and
        ``alignment`` of ``ViewComparison.write``.
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
