import pytest
import torch

from speechbrain_ser_cl.corpora import Utterance
from speechbrain_ser_cl.data.feature_views import (
    FeatureViews,
    crop_or_pad_to_mean,
    pad_to_longest,
)
from speechbrain_ser_cl.data.samplers import Draw
from speechbrain_ser_cl.data.splits import Labelled

LENGTHS = (10, 30, 80)


@pytest.fixture
def items():
    return [
        Labelled(
            Utterance(
                id=f"u{n}",
                path=f"{n}.wav",
                duration=n / 100,
                corpus="toy",
                speaker="s",
                session=None,
                gender=None,
                language="en",
                text_id=None,
                emotion="sad",
            ),
            "sad",
        )
        for n in LENGTHS
    ]


def read(utterance):
    n = int(utterance.id[1:])
    return torch.arange(1.0, n + 1)[:, None].expand(n, 2).half()


def draws(count=3, first=0):
    return [Draw(i, first + i) for i in range(count)]


def test_batches_have_the_mean_length(items):
    dataset = FeatureViews(items, ["sad"], read)
    starts = set()
    for number in range(0, 300, 3):
        batch = crop_or_pad_to_mean([dataset[d] for d in draws(first=number)])
        assert batch.features.shape == (3, 40, 2)
        assert batch.features.dtype == torch.float32
        for row, n, length in zip(batch.features, LENGTHS, batch.lengths, strict=True):
            kept = min(n, 40)
            assert length * 40 == pytest.approx(kept)
            start = int(row[0, 0])  # utterances count from 1
            assert row[:kept, 0].tolist() == list(range(start, start + kept))
            assert (row[kept:] == 0).all()
        starts.add(int(batch.features[2, 0, 0]))
    assert min(starts) == 1 and max(starts) == 41  # all places, both ends included


def test_a_longest_batch_can_be_set(items):
    dataset = FeatureViews(items, ["sad"], read)
    batch = crop_or_pad_to_mean([dataset[d] for d in draws()], max_steps=12)
    assert batch.features.shape[1] == 12


def test_views_stand_one_after_the_other_and_differ(items):
    dataset = FeatureViews(
        items, ["sad"], read, views=2, augment=lambda x, seed: x + seed % 1000
    )
    chosen = [dataset[d] for d in draws()]
    batch = crop_or_pad_to_mean(chosen)
    assert batch.id == ["u10", "u30", "u80"] and len(batch.features) == 6
    whole = pad_to_longest(chosen)
    for k, item in enumerate(chosen):
        for view, rows in zip(item["views"], whole.features.chunk(2), strict=True):
            assert torch.equal(rows[k, : len(view)], view.float())
    assert not torch.equal(whole.features[:3], whole.features[3:])
    again = crop_or_pad_to_mean([dataset[d] for d in draws()])
    assert torch.equal(batch.features, again.features)


def test_an_index_gives_the_utterance_as_it_is(items):
    dataset = FeatureViews(items, ["sad"], read, views=2, augment=lambda x, seed: 0 * x)
    batch = pad_to_longest([dataset[i] for i in range(3)])
    assert batch.features.shape == (3, 80, 2)
    assert (batch.lengths * 80).round().tolist() == list(LENGTHS)
    assert batch.features[0, :10, 0].tolist() == list(range(1, 11))
