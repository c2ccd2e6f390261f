"""Batches depend only on seed and position."""

import itertools
from collections import Counter

import numpy as np
import pytest
import soundfile

from speechbrain_ser_cl.data.samplers import (
    AlternatingBatchSampler,
    LengthBucketedStream,
    LengthSortedBatches,
    Phase,
)


def log_normal(count, seed=0):
    """Draws durations as in IEMOCAP: median 3.6 s, a long tail, at most 34 s."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(3.6), 0.7, count), 0.6, 34.0)


def useful_share(durations, batches):
    """Computes the valid fraction of padded batches."""
    durations = np.asarray(durations)
    speech = sum(durations[batch].sum() for batch in batches)
    return speech / sum(len(batch) * durations[batch].max() for batch in batches)


def one_pass(stream, number=0):
    first = number * stream.batches_per_pass
    return [stream.batch(first + k) for k in range(stream.batches_per_pass)]


@pytest.mark.parametrize("count", [1, 2, 5, 16, 17, 31, 32, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_every_pass_reaches_every_utterance_in_full_batches(count, batch_size):
    stream = LengthBucketedStream(log_normal(count), batch_size, seed=3)
    for number in range(3):
        batches = one_pass(stream, number)
        assert all(len(batch) == min(batch_size, count) for batch in batches)
        assert all(len(set(batch)) == len(batch) for batch in batches)
        times = Counter(itertools.chain.from_iterable(batches))
        assert set(times) == set(range(count))
        # Only utterances that fill the last batch are repeated.
        assert sum(times.values()) - count < min(batch_size, count)
        assert max(times.values()) <= 2


def test_a_stream_can_be_entered_anywhere():
    durations = log_normal(50)
    read = LengthBucketedStream(durations, 8, seed=5)
    in_order = [read.batch(k) for k in range(40)]
    for k in (39, 0, 13, 7, 14, 6):
        assert LengthBucketedStream(durations, 8, seed=5).batch(k) == in_order[k]
        assert read.batch(k) == in_order[k]


def test_seed_and_pass_change_the_batches():
    durations = log_normal(50)
    stream = LengthBucketedStream(durations, 8, seed=5)
    assert one_pass(stream, 0) != one_pass(stream, 1)
    assert one_pass(stream) != one_pass(LengthBucketedStream(durations, 8, seed=6))
    # Not only the order of the batches, but their contents change.
    together = [{frozenset(batch) for batch in one_pass(stream, n)} for n in (0, 1)]
    assert len(together[0] & together[1]) < len(together[0]) / 2


def test_useful_frames_of_log_normal_durations():
    durations = log_normal(5531)
    stream = LengthBucketedStream(durations, 16, seed=0)
    batches = one_pass(stream) + one_pass(stream, 1)
    assert useful_share(durations, batches) >= 0.95
    shuffled = np.random.default_rng(0).permutation(5520).reshape(-1, 16).tolist()
    assert useful_share(durations, shuffled) < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_useful_frames_of_emodb(shared, seed):
    files = sorted((shared / "corpora" / "EmoDB" / "wav").glob("*.wav"))
    durations = [soundfile.info(file).duration for file in files]
    assert len(durations) == 535
    stream = LengthBucketedStream(durations, 16, seed)
    batches = [batch for number in range(5) for batch in one_pass(stream, number)]
    assert useful_share(durations, batches) >= 0.95


@pytest.mark.parametrize(
    ("durations", "batch_size", "says"),
    [([], 4, "at least one utterance"), ([1.0], 0, "batch_size")],
)
def test_nothing_to_draw_is_an_error(durations, batch_size, says):
    with pytest.raises(ValueError, match=says):
        LengthBucketedStream(durations, batch_size, seed=0)


def make_sampler(rank=0, world_size=1, source=40, target=7):
    """Makes a source of 40 in batches of 4, five per phase; a target of 7, three."""
    return AlternatingBatchSampler(
        [
            Phase(
                "source",
                range(source),
                LengthBucketedStream(log_normal(source), 4, seed=1),
                5,
            ),
            Phase(
                "target",
                range(source, source + target),
                LengthBucketedStream(log_normal(target), 4, seed=2),
                3,
            ),
        ],
        rank,
        world_size,
    )


def epoch_of(sampler, epoch, first_batch=0):
    sampler.first_batch = first_batch
    sampler.set_epoch(epoch)
    return list(sampler)


def test_phases_alternate_and_their_streams_go_on():
    sampler = make_sampler()
    names, read = [], {"source": [], "target": []}
    for epoch in range(1, 9):
        batches = epoch_of(sampler, epoch)
        names.append(sampler.phase_name)
        assert len(batches) == len(sampler)
        read[sampler.phase_name] += [[d.index for d in batch] for batch in batches]
    assert names == ["source", "target"] * 4
    for phase in sampler.phases:
        expected = [phase.stream.batch(k) for k in range(4 * phase.n_batches)]
        assert read[phase.name] == [[phase.indices[i] for i in b] for b in expected]


@pytest.mark.parametrize("epoch", [1, 2, 5, 6])
def test_an_epoch_entered_in_the_middle_goes_on_like_one_read_from_the_start(epoch):
    whole = epoch_of(make_sampler(), epoch)
    for k in range(len(whole) + 1):
        assert epoch_of(make_sampler(), epoch, first_batch=k) == whole[k:]


def test_only_the_entered_epoch_is_shortened():
    sampler = make_sampler()
    assert len(epoch_of(sampler, 1, first_batch=2)) == 3
    sampler.set_epoch(3)
    assert len(list(sampler)) == 5


def test_numbers_of_draws_are_unique_over_run_and_ranks():
    numbers = [
        draw.number
        for rank in range(3)
        for epoch in range(1, 13)
        for batch in epoch_of(make_sampler(rank, 3), epoch)
        for draw in batch
    ]
    assert len(set(numbers)) == len(numbers)


def test_ranks_share_out_what_one_process_would_read():
    for epoch in (1, 2, 3, 4):
        ranks = [epoch_of(make_sampler(rank, 2), epoch) for rank in (0, 1)]
        assert len(ranks[0]) == len(ranks[1]) == (5, 3)[(epoch - 1) % 2]
        sampler = make_sampler()
        sampler.set_epoch(epoch)
        phase = sampler.phases[sampler.phase_index]
        first = (epoch - 1) // 2 * phase.n_batches * 2
        taken = [batch for pair in zip(*ranks, strict=True) for batch in pair]
        assert [[d.index for d in batch] for batch in taken] == [
            [phase.indices[i] for i in phase.stream.batch(first + k)]
            for k in range(2 * phase.n_batches)
        ]


def test_ranks_take_other_utterances_within_a_pass():
    # 40 utterances in 10 batches of 4: one epoch of 5 batches on 2 ranks is a pass.
    drawn = [
        {draw.index for batch in epoch_of(make_sampler(rank, 2), 1) for draw in batch}
        for rank in (0, 1)
    ]
    assert not drawn[0] & drawn[1]
    assert drawn[0] | drawn[1] == set(range(40))


def test_a_sampler_needs_a_phase():
    with pytest.raises(ValueError, match="at least one phase"):
        AlternatingBatchSampler([])


@pytest.mark.parametrize("count", [1, 9, 10])
def test_evaluation_reads_every_utterance_once_shortest_first(count):
    durations = log_normal(count)
    batches = list(LengthSortedBatches(durations, 5))
    assert len(batches) == len(LengthSortedBatches(durations, 5))
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(count))
    assert (np.diff(durations[order]) >= 0).all()
