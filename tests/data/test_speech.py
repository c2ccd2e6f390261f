"""Utterances as a dataset, whole and in parts."""

import itertools
from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader

from speechbrain_ser_cl.corpora import read_synthetic, write_synthetic
from speechbrain_ser_cl.data.samplers import Draw
from speechbrain_ser_cl.data.speech import LabelledSpeech
from speechbrain_ser_cl.data.splits import map_emotions
from speechbrain_ser_cl.utils.audio import load_audio

CLASSES = {"low": ["sad", "neutral"], "high": ["angry", "happy"]}


def waveform(utterance):
    return load_audio(utterance.path)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = write_synthetic(
        tmp_path_factory.mktemp("corpus"),
        "synthetic_source",
        n_speakers=2,
        utterances_per_speaker=4,
    )
    return map_emotions(read_synthetic(folder), CLASSES)[0]


def test_an_index_gives_the_whole_utterance_and_its_class(items):
    dataset = LabelledSpeech(items, list(CLASSES), waveform, max_steps=8000)
    assert len(dataset) == 8
    for i, (utterance, label) in enumerate(items):
        row = dataset[i]
        assert row["id"] == utterance.id
        assert list(CLASSES)[row["label"]] == label
        assert torch.equal(row["speech"], load_audio(utterance.path))
        assert dataset.durations[i] == len(row["speech"]) / 16000


def test_a_draw_gives_a_part_that_depends_on_seed_and_draw_alone(items):
    def parts(seed):
        dataset = LabelledSpeech(items, list(CLASSES), waveform, 8000, seed)
        return [dataset[Draw(0, number)]["speech"] for number in range(20)]

    whole = load_audio(items[0].utterance.path)
    starts = set()
    for part, again, other in zip(parts(1), parts(1), parts(2), strict=True):
        assert part.shape == (8000,)
        assert torch.equal(part, again)
        assert not torch.equal(part, other)
        windows = whole.unfold(0, 8000, 1)
        (start,) = (windows == part).all(dim=1).nonzero().flatten().tolist()
        starts.add(start)
    assert len(starts) == 20


def test_what_is_not_longer_is_not_cut(items):
    for limit in (None, 10**6):
        dataset = LabelledSpeech(items, list(CLASSES), waveform, limit)
        assert torch.equal(dataset[Draw(3, 5)]["speech"], dataset[3]["speech"])


def test_parts_of_features_are_in_time(items):
    features = torch.arange(60).reshape(20, 3)
    dataset = LabelledSpeech(items, list(CLASSES), lambda u: features, 6)
    for number in range(10):
        part = dataset[Draw(1, number)]["speech"]
        assert torch.equal(part, features[part[0, 0] // 3 :][:6])


def test_workers_make_no_difference(items):
    dataset = LabelledSpeech(items, list(CLASSES), waveform, 8000)
    draws = [[Draw(i, i + 7)] for i in range(len(items))]
    ways = [
        [row[0]["speech"] for row in DataLoader(
            dataset, batch_sampler=draws, num_workers=n, collate_fn=list
        )]
        for n in (0, 2)
    ]  # fmt: skip
    assert all(itertools.starmap(torch.equal, zip(*ways, strict=True)))


def test_labels_of_a_class_that_is_not_there(items):
    with pytest.raises(ValueError):
        LabelledSpeech(items, ["low"], waveform)
    assert Counter(i.label for i in items) == {"low": 4, "high": 4}
