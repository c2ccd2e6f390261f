"""Compares the encoders of several views, before and after each stage of training."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechbrain_ser_cl.data.experiment import Experiment
from speechbrain_ser_cl.nnet import UtteranceEncoder
from speechbrain_ser_cl.report.figures import plot_tsne
from speechbrain_ser_cl.results.alignment import FILE, view_alignment, write_alignment
from speechbrain_ser_cl.training.views import Read, embed
from speechbrain_ser_cl.utils.files import replacing

logger = logging.getLogger(__name__)


class ViewComparison:
    """Compares encoders on the utterances of the validation and test parts.

    Utterances without a class are included. Embeddings are computed once and saved, so
    that a killed run can continue.

    Arguments
    ---------
    folder : str or pathlib.Path
        Folder of the run: gets ``embeddings``, ``alignment.json`` and ``tsne``.
    titles : mapping
        Name of each stage of training to its name in tables.
    reads : mapping
        Name of each view to a function that returns its encoders' input.
    experiment : Experiment
        Data with the unlabelled utterances.
    enabled : bool
        False: compute nothing.
    """

    def __init__(
        self,
        folder: str | Path,
        titles: Mapping[str, str],
        reads: Mapping[str, Read],
        experiment: Experiment,
        enabled: bool = True,
    ) -> None:
        self.folder, self.titles, self.reads = Path(folder), titles, reads
        self.experiment, self.enabled = experiment, enabled
        parts = (experiment.unlabelled[part] for part in ("valid", "test"))
        self.ids = [utterance.id for part in parts for utterance in part]

    def keep(self, stage: str, view: str, encoder: UtteranceEncoder) -> None:
        """Embeds the utterances and saves the result, unless it exists.

        Arguments
        ---------
        stage : str
            A key of ``titles``.
        view : str
            A key of ``reads``.
        encoder : UtteranceEncoder
            Encoder after that stage.
        """
        path = self._path(stage, view)
        if self.enabled and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part, open(part, "wb") as file:
                np.save(file, embed(encoder, self.reads[view], self.ids).numpy())

    def write(
        self, about: Mapping[str, Any], fold: int, tsne: bool
    ) -> dict[str, dict[str, float | None]]:
        """Writes ``alignment.json``, and figures of the test part.

        Arguments
        ---------
        about, fold
            As for ``write_alignment``.
        tsne : bool
            Whether to draw figures, ``tsne/<view>-<stage>.png``, with matplotlib.

        Returns
        -------
        dict
            From ``view_alignment``; empty if nothing is compared.
        """
        if not self.enabled:
            return {}
        kept = self._kept()
        found = view_alignment(kept)
        write_alignment(self.folder / FILE, about, fold, len(self.ids), found)
        try:
            for stage, views in kept.items() if tsne else ():
                self._plot(stage, views)
        except ImportError as error:
            logger.warning("No figures: %s", error)
        return found

    def _path(self, stage: str, view: str) -> Path:
        return self.folder / "embeddings" / f"{stage}-{view}.npy"

    def _kept(self) -> dict[str, dict[str, NDArray[np.floating]]]:
        """Loads the embeddings of the stages for which all views exist."""
        found = {}
        for stage, title in self.titles.items():
            paths = {view: self._path(stage, view) for view in self.reads}
            if all(path.exists() for path in paths.values()):
                found[title] = {view: np.load(path) for view, path in paths.items()}
        return found

    def _plot(self, stage: str, views: Mapping[str, NDArray[np.floating]]) -> None:
        items = self.experiment.parts["test"]
        rows = {name: row for row, name in enumerate(self.ids)}
        chosen = [rows[item.utterance.id] for item in items]
        colourings = {
            "emotion": [item.label for item in items],
            "speaker": [item.utterance.speaker or "unknown" for item in items],
        }
        name = stage.replace(", ", "_").replace(" ", "_").lower()
        for view, x in views.items():
            path = self.folder / "tsne" / f"{view}-{name}.png"
            if not path.exists():
                plot_tsne(x[chosen], colourings, path, f"{view} view, {stage}")
