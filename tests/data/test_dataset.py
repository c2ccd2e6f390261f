"""Whole utterances, parts, views and batches depend only on seed and draw."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from speechbrain_ser_cl.augment import AugmentationPipelines
from speechbrain_ser_cl.corpora import Utterance, read_synthetic, write_synthetic
from speechbrain_ser_cl.data.dataset import (
    UNLABELLED,
    SpeechDataset,
    crop_or_pad_to_mean,
    pad_to_longest,
    steps_of,
    waveform,
    without_labels,
)
from speechbrain_ser_cl.data.loaders import (
    fixed_loader,
    make_phase,
    training_loader,
    whole_loader,
)
from speechbrain_ser_cl.data.samplers import Draw
from speechbrain_ser_cl.data.splits import Labelled, map_emotions
from speechbrain_ser_cl.utils.audio import load_audio

CLASSES = {"low": ["sad", "neutral"], "high": ["angry", "happy"]}
LENGTHS = (10, 30, 80)
NAMES = ("as_it_is", "reversed", "flipped", "halved")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = write_synthetic(
        tmp_path_factory.mktemp("corpus"),
        "synthetic_source",
        n_speakers=2,
        utterances_per_speaker=4,
    )
    return map_emotions(read_synthetic(folder), CLASSES)[0]


def toys(lengths=LENGTHS, corpus="toy"):
    """Makes items without audio."""
    return [
        Labelled(
            Utterance(
                id=f"u{n}",
                path=f"{n}.wav",
                duration=n / 16000,
                corpus=corpus,
                speaker="s",
                session=None,
                gender=None,
                language="en",
                text_id=None,
                emotion="sad",
            ),
            "sad",
        )
        for n in lengths
    ]


def ramp(utterance):
    """Makes float16 frames (n, 2) whose values show which part they are."""
    n = int(utterance.id[1:])
    return torch.arange(1.0, n + 1)[:, None].expand(n, 2).half()


def samples(utterance):
    """Makes a waveform whose values show which part it is."""
    n = int(utterance.id[1:])
    return 1 + torch.arange(n) / 2**17


def draws(count=3, first=0):
    return [Draw(i, first + i) for i in range(count)]


def same(one, other):
    return all(
        torch.equal(a, b) for a, b in zip(one["views"], other["views"], strict=True)
    ) and (one["pipelines"], one["id"]) == (other["pipelines"], other["id"])


# ------------------------------------------------------------------ utterances


def test_an_index_gives_the_whole_utterance_and_what_is_known_of_it(items):
    blind = without_labels(items[:4])
    data = SpeechDataset(
        [*blind, *items[4:]],
        list(CLASSES),
        max_steps=8000,
        views=2,
        corpora=["a"] + ["synthetic_source"],
    )
    for i, (utterance, label) in enumerate(items):
        row = data[i]
        assert data.items[row["row"]].utterance is utterance
        assert (row["id"], row["domain"]) == (utterance.id, 1)
        assert row["label"] == (UNLABELLED if i < 4 else list(CLASSES).index(label))
        assert torch.equal(row["views"][0], load_audio(utterance.path))
        assert len(row["views"]) == 1
        assert data.durations[i] == len(row["views"][0]) / 16000


def test_a_class_or_corpus_that_is_not_there_is_an_error(items):
    with pytest.raises(ValueError, match="of class high, expected low"):
        SpeechDataset(items, ["low"])
    with pytest.raises(ValueError, match="of corpus synthetic_source, expected emodb"):
        SpeechDataset(items, list(CLASSES), corpora=["emodb"])
    assert Counter(i.label for i in items) == {"low": 4, "high": 4}


def test_a_draw_gives_a_part_that_depends_on_seed_and_draw_alone(items):
    def parts(seed):
        data = SpeechDataset(items, list(CLASSES), max_steps=8000, seed=seed)
        return [data[Draw(0, number)]["views"][0] for number in range(20)]

    whole = load_audio(items[0].utterance.path)
    starts = set()
    for number, (part, other) in enumerate(zip(parts(1), parts(2), strict=True)):
        # The rule of earlier versions.
        start = np.random.default_rng([1, number]).integers(len(whole) - 8000 + 1)
        assert torch.equal(part, whole[start : start + 8000])
        assert not torch.equal(part, other)
        starts.add(int(start))
    assert len(starts) == 20


def test_what_is_not_longer_is_not_cut(items):
    for limit in (None, 10**6):
        data = SpeechDataset(items, list(CLASSES), max_steps=limit)
        assert torch.equal(data[Draw(3, 5)]["views"][0], data[3]["views"][0])


# ------------------------------------------------------------------ views


@pytest.fixture(scope="module")
def pipelines():
    """Makes a pipeline for each of NAMES; each can be inverted exactly."""
    ta = pytest.importorskip("torch_audiomentations")
    always = {"p": 1.0, "output_type": "dict"}
    half = 20 * np.log10(0.5)
    return AugmentationPipelines(
        {
            "as_it_is": [],
            "reversed": [ta.TimeInversion(**always)],
            "flipped": [ta.PolarityInversion(**always)],
            "halved": [ta.Gain(half - 1e-6, half, **always)],
        }
    )


@pytest.fixture
def random_pipelines():
    """Makes pipelines with much randomness."""
    ta = pytest.importorskip("torch_audiomentations")
    return AugmentationPipelines(
        {
            "noise": [ta.AddColoredNoise(p=1.0, output_type="dict")],
            "shift": [ta.Shift(p=0.5, output_type="dict"), ta.Gain(output_type="dict")],
        }
    )


@pytest.fixture
def one_thread():
    """Uses as many threads as a worker; with more, torch sums in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def views_of(augment, lengths, seed=0, max_seconds=None):
    return SpeechDataset(
        toys(lengths),
        ["sad"],
        samples,
        views=2,
        augment=augment,
        max_steps=steps_of(max_seconds),
        seed=seed,
    )


WAVS = range(8000, 16000, 667)


@pytest.mark.usefixtures("one_thread")
def test_a_draw_gives_the_same_views_in_any_order_and_worker(random_pipelines):
    data = views_of(random_pipelines, WAVS, seed=1, max_seconds=0.4)
    order = [Draw(n % len(data), 1000 + n) for n in range(24)]
    in_order = [data[draw] for draw in order]
    torch.manual_seed(99)  # the global random state has no effect
    for n in np.random.default_rng(0).permutation(24):
        assert same(data[order[n]], in_order[n])
    # Seed, number and view change the result.
    one, other = data[Draw(3, 7)], data[Draw(3, 8)]
    assert not torch.equal(*one["views"])
    assert not same(one, other)
    assert not same(one, views_of(random_pipelines, WAVS, 2, 0.4)[Draw(3, 7)])

    loader = partial(DataLoader, data, collate_fn=pad_to_longest)
    batches = [order[:5], order[5:9]]
    for here, there in zip(
        loader(batch_sampler=batches),
        loader(batch_sampler=batches, num_workers=2),
        strict=True,
    ):
        assert here.id == there.id
        assert all(torch.equal(a, b) for a, b in zip(here[1:], there[1:], strict=True))


@pytest.mark.parametrize("max_seconds", [None, 0.25, 0.7, 5.0])
def test_a_view_is_its_pipeline_applied_to_a_part(pipelines, max_seconds):
    data = views_of(pipelines, WAVS, max_seconds=max_seconds)
    starts, seen = [], np.zeros((4, 4))
    for number in range(400):
        item = data[Draw(number % len(data), number)]
        wav = samples(data.items[item["row"]].utterance)
        longest = len(wav) if max_seconds is None else round(max_seconds * 16000)
        for view, pipeline in zip(item["views"], item["pipelines"], strict=True):
            undo = {
                "as_it_is": lambda x: x,
                "reversed": lambda x: x.flip(0),
                "flipped": lambda x: -x,
                "halved": lambda x: 2 * x,
            }[NAMES[pipeline]]
            part = undo(view)
            assert len(part) == min(len(wav), longest)
            start = round((float(part[0]) - float(wav[0])) * 2**17)
            torch.testing.assert_close(part, wav[start : start + len(part)])
            starts.append(start)
        seen[tuple(item["pipelines"])] += 1
    # 25 expected in each cell, standard deviation 5.
    assert seen.min() > 5 and seen.max() < 50
    assert (set(starts) == {0}) == (max_seconds in (None, 5.0))
    if max_seconds == 0.25:  # the ends are reached too
        assert min(starts) < 0.05 * 11000 and max(starts) > 0.8 * 11000


# ------------------------------------------------------------------ batches


def test_batches_of_the_mean_length(items):
    data = SpeechDataset(toys(), ["sad"], ramp, places=True)
    starts = set()
    for number in range(0, 300, 3):
        batch = crop_or_pad_to_mean([data[d] for d in draws(first=number)]).to("cpu")
        assert batch.speech.shape == (3, 40, 2)
        assert batch.speech.dtype == torch.float32
        for row, n, length in zip(batch.speech, LENGTHS, batch.lengths, strict=True):
            kept = min(n, 40)
            assert length * 40 == pytest.approx(kept)
            start = int(row[0, 0])  # utterances are numbered from 1
            assert row[:kept, 0].tolist() == list(range(start, start + kept))
            assert (row[kept:] == 0).all()
        starts.add(int(batch.speech[2, 0, 0]))
    assert min(starts) == 1 and max(starts) == 41  # all positions, including both ends
    short = crop_or_pad_to_mean([data[d] for d in draws()], max_steps=12)
    assert short.speech.shape[1] == 12


def test_views_stand_one_after_the_other_and_differ():
    data = SpeechDataset(
        toys(),
        ["sad"],
        ramp,
        views=2,
        augment=lambda x, seed: x + seed % 1000,
        places=True,
    )
    chosen = [data[d] for d in draws()]
    assert len(crop_or_pad_to_mean(chosen).speech) == 6
    whole = pad_to_longest(chosen)
    assert whole.id == ["u10", "u30", "u80"] and whole.row.tolist() == [0, 1, 2]
    for k, item in enumerate(chosen):
        for view, rows in zip(item["views"], whole.speech.chunk(2), strict=True):
            assert torch.equal(rows[k, : len(view)], view)
    assert not torch.equal(*whole.speech.chunk(2))
    for n, item in enumerate(chosen):  # the rule of earlier versions
        rng = np.random.default_rng([0, n])
        for view, place in zip(item["views"], item["places"], strict=True):
            seed = int(rng.integers(2**31))
            assert torch.equal(view, ramp(data.items[n].utterance) + seed % 1000)
            assert place == rng.random()


def test_an_index_gives_features_as_they_are():
    data = SpeechDataset(toys(), ["sad"], ramp, views=2, augment=lambda x, seed: 0 * x)
    batch = pad_to_longest([data[i] for i in range(3)])
    assert batch.speech.shape == (3, 80, 2)
    assert (batch.lengths * 80).round().tolist() == list(LENGTHS)
    assert batch.speech[0, :10, 0].tolist() == list(range(1, 11))


# ------------------------------------------------------------------ loaders


def test_loaders_say_what_a_recipe_needs(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    source, target = toys(range(10, 20), "a"), toys(range(20, 24), "b")
    data = SpeechDataset([*source, *without_labels(target)], ["sad"], ramp)
    options = {"num_workers": 0}
    phases = [
        make_phase(data, 3, 0, name="source", indices=range(10)),
        make_phase(data, 3, 1, 5, name="target", indices=range(10, 14), bucketing=True),
    ]
    train = training_loader(data, phases, options)
    assert len(train) == 4  # once through ten utterances
    assert all((b.domain == 0).all() and (b.label == 0).all() for b in train)
    train.batch_sampler.set_epoch(2)
    assert len(train) == 5
    assert all((b.domain == 1).all() and (b.label == -1).all() for b in train)
    found = [name for batch in whole_loader(data, 4, options) for name in batch.id]
    assert sorted(found) == sorted(item.utterance.id for item in data.items)
    # Two processes share an epoch.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert make_phase(data, 3, 0, indices=range(10)).n_batches == 2


def test_the_views_of_a_fixed_loader_are_the_same_in_each_epoch():
    data = SpeechDataset(toys(range(10, 20)), ["sad"], ramp, views=2, max_steps=5)
    loader = fixed_loader(data, 3, 0, {"num_workers": 0})
    one, other = list(loader), list(loader)
    assert [len(batch.id) for batch in one] == [4, 3, 3]
    assert sorted(row for batch in one for row in batch.row.tolist()) == [*range(10)]
    assert [row for batch in one for row in batch.row.tolist()] != [*range(10)]
    for ours, theirs in zip(one, other, strict=True):
        assert ours.id == theirs.id and torch.equal(ours.speech, theirs.speech)
    views = torch.cat([batch.speech.unflatten(0, (2, -1)) for batch in one], dim=1)
    assert not torch.equal(*views)


def test_without_read_the_collate_function_reads():
    data = SpeechDataset(toys(), ["sad"], None)
    assert data[Draw(1, 5)] == {"id": "u30", "row": 1, "label": 0, "domain": 0}


def test_a_waveform_is_read_by_default(items):
    assert torch.equal(
        SpeechDataset(items, list(CLASSES))[0]["views"][0], waveform(items[0].utterance)
    )
