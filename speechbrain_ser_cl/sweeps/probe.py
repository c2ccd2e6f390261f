"""Cross-validates a linear probe in one process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_ser_cl.data.protocols import make_folds, select_parts, write_split
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.model_folder import write_model
from speechbrain_ser_cl.sweeps.crossval import aggregate
from speechbrain_ser_cl.sweeps.recipe import Recipe
from speechbrain_ser_cl.sweeps.runs import PlannedRun
from speechbrain_ser_cl.training.probe import LinearProbe, write_layer_curve
from speechbrain_ser_cl.training.record import write_run
from speechbrain_ser_cl.training.utterance_features import UtteranceFeatures

_RECIPE = Recipe(Path("probe.yaml"), Path("probe.py"), ())


def cross_validate(
    probe: LinearProbe,
    features: UtteranceFeatures,
    items: Sequence[Labelled],
    class_names: Sequence[str],
    protocol: str | Mapping[str, Any],
    seed: int,
    output: str | Path,
) -> str:
    """Tests a probe on each fold, and trains one on all the data.

    Arguments
    ---------
    probe : LinearProbe
        Options of the probe.
    features : UtteranceFeatures
        Features; missing ones are computed.
    items : sequence of Labelled
        All utterances of the experiment.
    class_names : sequence of str
        Names of the classes 0, 1, …
    protocol : str or mapping
        See ``speechbrain_ser_cl.data.protocols``.
    seed : int
        Seed of the folds.
    output : str or pathlib.Path
        Output folder: ``fold-<k>`` with the files of a recipe's run, ``crossval.json``
        and the table, ``layers.csv``, and ``model``.

    Returns
    -------
    str
        Table and paths, for the terminal.

    Raises
    ------
    ValueError
        From ``make_folds`` and ``LinearProbe.run``.
    """
    output = Path(output)
    folds = make_folds(items, protocol, seed)
    features.fill([item.utterance for item in items])
    runs, curves = [], []
    for split in tqdm(folds, "folds", leave=False, disable=None):
        parts = select_parts(items, split)
        found = probe.run(features, parts, class_names)
        curves.append(found.curve)
        split_file = output / "splits" / f"fold-{split.fold}.json"
        write_split(split, split_file)
        folder = output / f"fold-{split.fold}"
        folder.mkdir(parents=True, exist_ok=True)
        write_run(
            folder,
            probe.about(features)
            | {
                "recipe": "probe",
                "corpus": ", ".join(split.corpora),
                "seed": seed,
                "protocol": split.protocol,
                "fold": split.fold,
                "n_folds": split.n_folds,
                "data": {
                    "shared_between_parts": split.shared,
                    "fingerprint": split.fingerprint,
                },
            }
            | found.record(),
            found.predictions,
            parts,
            class_names,
            found.history(),
            figures=False,
        )
        runs.append(PlannedRun(_RECIPE, folder, seed, split, split_file))
    lines = [aggregate(runs, output)]
    if features.n_layers > 1:
        write_layer_curve(output / "layers.csv", curves)
    final = probe.run(features, {"train": items, "test": []}, class_names)
    model = final.model()
    if model is None:
        lines.append(
            "No model: it needs an encoder, and the standardisation of one corpus"
        )
    else:
        write_model(output / "model", model, class_names)
        lines.append(f"Model of all the data: {output / 'model'} ({final.choice})")
    lines.append(f"Results: {output}; features: {features.cache.folder}")
    lines.append(f"All results as one page: ser-cl report {output}")
    return "\n".join(lines)
