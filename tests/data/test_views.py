"""Views depend on seed and draw alone."""

import numpy as np
import pytest
import torch
from speechbrain.dataio.batch import PaddedBatch
from torch.utils.data import DataLoader

from speechbrain_ser_cl.augment import AugmentationPipelines
from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    Draw,
    LengthBucketedStream,
    Phase,
)
from speechbrain_ser_cl.data.views import AugmentedViews

NAMES = ("as_it_is", "reversed", "flipped", "halved")


def undone(view, pipeline):
    """The waveform before augmentation."""
    return {
        "as_it_is": lambda: view,
        "reversed": lambda: view.flip(0),
        "flipped": lambda: -view,
        "halved": lambda: 2 * view,
    }[NAMES[pipeline]]()


@pytest.fixture(scope="module")
def pipelines():
    """One pipeline for each of NAMES, all of which can be undone exactly."""
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
    """Pipelines with much randomness."""
    ta = pytest.importorskip("torch_audiomentations")
    return AugmentationPipelines(
        {
            "noise": [ta.AddColoredNoise(p=1.0, output_type="dict")],
            "shift": [ta.Shift(p=0.5, output_type="dict"), ta.Gain(output_type="dict")],
        }
    )


def waveforms(count=12, seconds=0.5):
    """Ramps: the values say which part of which waveform it is."""
    lengths = (seconds * 16000 * (1 + np.arange(count) / count)).astype(int)
    return [
        {"id": f"u{n}", "sig": n + 1 + torch.arange(length) / 2**17, "label": n % 2}
        for n, length in enumerate(lengths)
    ]


def same(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key]))
        for key in a.keys() - {"id"}
    )


def test_a_draw_gives_the_same_views_in_any_order(random_pipelines):
    draws = [Draw(n % 12, 1000 + n) for n in range(24)]
    views = AugmentedViews(waveforms(), random_pipelines, seed=1, max_seconds=0.4)
    in_order = [views[draw] for draw in draws]
    torch.manual_seed(99)  # nothing outside matters
    again = AugmentedViews(waveforms(), random_pipelines, seed=1, max_seconds=0.4)
    for n in np.random.default_rng(0).permutation(24):
        assert same(again[draws[n]], in_order[n])


def test_seed_number_and_view_make_a_difference(random_pipelines):
    views = AugmentedViews(waveforms(), random_pipelines, seed=1)
    item = views[Draw(3, 7)]
    assert not torch.equal(item["view_a"], item["view_b"])
    assert not same(views[Draw(3, 8)], item)
    other = AugmentedViews(waveforms(), random_pipelines, seed=2)
    assert not same(other[Draw(3, 7)], item)


@pytest.fixture
def one_thread():
    """As many threads as a worker has: torch sums in another order with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_workers_give_what_the_main_process_gives(random_pipelines):
    views = AugmentedViews(waveforms(), random_pipelines, seed=4, max_seconds=0.6)
    stream = LengthBucketedStream([len(w["sig"]) for w in waveforms()], 4, seed=0)
    sampler = AlternatingBatchSampler([Phase("only", range(12), stream, 6)])
    read = {}
    for workers in (0, 2):
        loader = DataLoader(
            views, batch_sampler=sampler, collate_fn=PaddedBatch, num_workers=workers
        )
        sampler.set_epoch(2)
        read[workers] = [
            (b.id, b.view_a.data, b.view_a.lengths, b.view_b.data, b.pipeline_a)
            for b in loader
        ]
    assert len(read[0]) == 6
    for here, there in zip(read[0], read[2], strict=True):
        assert here[0] == there[0]
        assert all(torch.equal(x, y) for x, y in zip(here[1:], there[1:], strict=True))


@pytest.mark.parametrize("max_seconds", [None, 0.25, 0.7, 5.0])
def test_a_view_is_its_pipeline_applied_to_a_part(pipelines, max_seconds):
    originals = waveforms()
    views = AugmentedViews(waveforms(), pipelines, seed=0, max_seconds=max_seconds)
    starts, labels = set(), set()
    for number in range(200):
        index = number % 12
        item, original = views[Draw(index, number)], originals[index]
        assert item["id"] == original["id"]
        assert item["label"] == original["label"]
        assert "sig" not in item
        wav = original["sig"]
        longest = len(wav) if max_seconds is None else round(max_seconds * 16000)
        for view in ("a", "b"):
            part = undone(item[f"view_{view}"], item[f"pipeline_{view}"])
            assert len(part) == min(len(wav), longest)
            start = round((float(part[0]) - float(wav[0])) * 2**17)
            torch.testing.assert_close(part, wav[start : start + len(part)])
            starts.add(start)
            labels.add(item[f"pipeline_{view}"])
        assert len(item["view_a"]) == len(item["view_b"])
    assert labels == set(range(4))
    if max_seconds in (None, 5.0):
        assert starts == {0}
    else:
        assert len(starts) > 100
    if max_seconds == 0.25:  # the ends are reached as well
        room = max(len(w["sig"]) for w in originals) - 4000
        assert min(starts) < 0.05 * room
        assert max(starts) > 0.8 * room


def test_pipelines_are_drawn_alike_often_and_independently(pipelines):
    views = AugmentedViews(waveforms(1), pipelines, seed=0)
    counts = np.zeros((4, 4))
    for number in range(1600):
        item = views[Draw(0, number)]
        counts[item["pipeline_a"], item["pipeline_b"]] += 1
    # 100 expected in each cell, standard deviation 10.
    assert counts.min() > 55
    assert counts.max() < 150


def test_the_dataset_is_left_as_it_was(pipelines, random_pipelines):
    data, before = waveforms(), waveforms()
    for augment in (pipelines, random_pipelines):
        views = AugmentedViews(data, augment, seed=0, max_seconds=0.6)
        assert len(views) == 12
        for number in range(100):
            item = views[Draw(number % 12, number)]
            item["label"] = "spoilt"
    assert all(same(a, b) for a, b in zip(data, before, strict=True))
