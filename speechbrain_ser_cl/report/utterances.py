"""Sections on single utterances: a map of all, and the worst mistakes."""

import base64
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speechbrain_ser_cl.corpora.card import Licence
from speechbrain_ser_cl.corpora.licences import licence_of
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.report.blocks import (
    Block,
    Map,
    Mistakes,
    Note,
    Section,
    Table,
)
from speechbrain_ser_cl.report.charts import scatter
from speechbrain_ser_cl.report.embedding_map import (
    N_NEIGHBOURS,
    embedding_map,
)
from speechbrain_ser_cl.report.provenance import without_places
from speechbrain_ser_cl.report.runs import FinishedRun, Series
from speechbrain_ser_cl.results.embeddings import Embeddings, read_embeddings
from speechbrain_ser_cl.results.text import NONE, percent
from speechbrain_ser_cl.utils.audio import SAMPLE_RATE, AudioError, load_audio

_MOST_MISTAKES = 20
_MOST_SECONDS = 8.0
_OWN = Licence(
    "shared with its owner's permission", share_audio=True, source="own corpus"
)


def embeddings(series: Series) -> Section | None:
    """Draws a map of the test embeddings of the first run that has any."""
    run = next((run for run in series.runs if run.embeddings), None)
    if run is None or run.embeddings is None:
        return None
    found = read_embeddings(run.embeddings)
    attributes = _attributes(run, found)
    made = embedding_map(found.embeddings, found.ids, attributes)
    if made is None:
        return None
    fields = {"utterance": found.ids, **attributes, "prediction": _said(run, found.ids)}
    fields = {key: [texts[i] for i in made.chosen] for key, texts in fields.items()}
    legends = {
        key: sorted(set(fields[key]))
        for key in attributes
        if key == "class" or len(set(fields[key])) > 1
    }
    shapes = [legends["class"].index(label) for label in fields["class"]]
    rows = [
        [key, percent(share), percent(by_chance)]
        for key, (share, by_chance) in made.agreement.items()
    ]
    table = Table(
        f"How many of the {N_NEIGHBOURS} nearest neighbours (cosine, in the embeddings "
        "themselves) have the same, %",
        ["attribute", "the same", "if unrelated"],
        rows,
    )
    total, points = len(found.ids), len(made.chosen)
    of = f"{points} of {total}" if points < total else f"{total}"
    what = f" of {run.name}" if series.several else ""
    caption = (
        f"t-SNE map of {of} test embeddings{what}: near points are alike; distances "
        "between groups and their sizes have no meaning. Symbols: true class."
    )
    described = "; ".join(f"{a}: {s} % of neighbours alike" for a, s, _ in rows)
    chart = scatter(
        made.points.tolist(),
        shapes,
        "Map of the test embeddings",
        f"{points} points. {described or 'One class and speaker only'}.",
    )
    drawn = Map(
        chart,
        caption,
        list(fields),
        list(map(list, zip(*fields.values(), strict=True))),
        legends,
        table,
    )
    return Section("map", "Embeddings", [drawn])


def _attributes(run: FinishedRun, found: Embeddings) -> dict[str, list[str]]:
    """Collects the attributes of each embedded utterance; "" means unknown."""
    items = [run.utterances.get(name) for name in found.ids]
    known = [item.utterance if item else None for item in items]
    attributes = {
        "class": found.labels,
        "emotion": [u.emotion if u else "" for u in known],
        "speaker": found.speakers,
        "gender": [(u.gender if u else None) or "" for u in known],
        "corpus": found.corpora,
        "text": [(u.text_id if u else None) or "" for u in known],
    }
    if attributes["emotion"] == attributes["class"]:
        del attributes["emotion"]
    return attributes


def _said(run: FinishedRun, ids: Sequence[str]) -> list[str]:
    """Collects the predictions; "" means unknown."""
    if run.predictions is None:
        return [""] * len(ids)
    names = run.predictions.class_names
    answers = [names[k] for k in run.predictions.predictions]
    said = dict(zip(run.predictions.ids, answers, strict=True))
    return [said.get(name, "") for name in ids]


def mistakes(
    series: Series, corpus: str, own_corpora: Collection[str] | None = None
) -> list[Block]:
    """Lists the most confident wrong predictions; ``own_corpora`` None: no audio."""
    found = _worst(series.runs, corpus)
    if not any(run.predictions for run in series.runs):
        return [Note("There is no predictions.csv beside the results.")]
    if not found:
        return [Note("The model made no mistake on the test set.")]
    known = [one["item"].utterance if one["item"] else None for one in found]
    columns = {
        "utterance": [one["id"] for one in found],
        "speaker": [u.speaker if u else NONE for u in known],
        "emotion": [u.emotion if u else NONE for u in known],
        "true class": [one["label"] for one in found],
        "prediction": [one["prediction"] for one in found],
        "p of the true class": [percent(one["p_label"]) for one in found],
        "p of the prediction": [percent(one["p_prediction"]) for one in found],
        "seconds": [f"{u.duration:.1f}" if u else NONE for u in known],
        "wrong in runs": [f"{one['wrong']} of {one['tested']}" for one in found],
    }
    if columns["emotion"] == columns["true class"]:
        del columns["emotion"]
    if all(one["tested"] == 1 for one in found):
        del columns["wrong in runs"]
    texts = list(columns).index("p of the true class")
    rows = list(zip(*columns.values(), strict=True))
    caption = (
        f"The {len(found)} mistakes whose true class the model thought least likely; "
        "p: the probability that it gave, %"
    )
    if own_corpora is None:
        return [Mistakes(caption, list(columns), rows, texts)]
    sounds, notes = _sounds(found, own_corpora)
    return [*notes, Mistakes(caption, list(columns), rows, texts, sounds)]


def _worst(runs: Iterable[FinishedRun], corpus: str) -> list[dict[str, Any]]:
    """Finds the wrong utterances with the lowest mean probability of the true class."""
    of_id: dict[str, list[Any]] = {}
    known: dict[str, Labelled] = {}
    for run in runs:
        found = run.predictions
        if found is None:
            continue
        known |= run.utterances
        for i, name in enumerate(found.ids):
            of_id.setdefault(name, []).append((found, i))
    mistakes = []
    for name, seen in of_id.items():
        item = known.get(name)
        wrong = [(f, i) for f, i in seen if f.labels[i] != f.predictions[i]]
        if not wrong or (item is not None and item.utterance.corpus != corpus):
            continue
        said = [f.class_names[f.predictions[i]] for f, i in wrong]
        answer = max(sorted(set(said)), key=said.count)
        found, first = seen[0]
        mistakes.append(
            {
                "id": name,
                "item": item,
                "label": found.class_names[found.labels[first]],
                "prediction": answer,
                "p_label": np.mean([f.probabilities[i, f.labels[i]] for f, i in seen]),
                "p_prediction": np.mean(
                    [f.probabilities[i, f.class_names.index(answer)] for f, i in seen]
                ),
                "wrong": len(wrong),
                "tested": len(seen),
            }
        )
    mistakes.sort(key=lambda m: (m["p_label"], m["id"]))
    return mistakes[:_MOST_MISTAKES]


def _sounds(
    found: Sequence[Mapping[str, Any]], own_corpora: Collection[str]
) -> tuple[list[str | None], list[Note]]:
    """Returns a data URI for each mistake, and notes on the corpora's licences."""
    sounds: list[str | None] = []
    terms, lost = {}, []
    for one in found:
        if one["item"] is None:
            sounds.append(None)
            continue
        utterance = one["item"].utterance
        licence = licence_of(utterance.corpus)
        if licence is None and utterance.corpus in own_corpora:
            licence = _OWN
        terms[utterance.corpus] = licence
        sound = None
        if licence is not None and licence.share_audio:
            try:
                sound = _data_uri(utterance.path)
            except AudioError as error:
                lost.append(without_places(str(error)))
        sounds.append(sound)
    notes = []
    for corpus, licence in terms.items():
        if licence is None:
            text = (
                f"No audio of {corpus}: no declared licence allows it; "
                f"if you may share it: --own-corpus {corpus}"
            )
        elif not licence.share_audio:
            text = f"No audio of {corpus}: its terms ({licence.name}) do not allow it."
        else:
            text = (
                f"Audio of {corpus}: {licence.source}; {licence.name}; at most the "
                f"first {_MOST_SECONDS:g} s, 16 kHz."
            )
        notes.append(Note(text))
    if not terms:
        text = "No audio: without utterances.csv its location is unknown."
        notes.append(Note(text, warning=True))
    if lost:
        text = f"Audio that could not be read: {len(lost)} files; the first: {lost[0]}"
        notes.append(Note(text, warning=True))
    return sounds, notes


def _data_uri(path: Path) -> str:
    """Encodes the beginning of an audio file as FLAC, which every browser plays."""
    samples = load_audio(path).numpy()[: int(_MOST_SECONDS * SAMPLE_RATE)]
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:audio/flac;base64,{encoded}"
