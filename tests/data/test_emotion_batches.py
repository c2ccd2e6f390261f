"""Statistics of the batches around one emotion."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from speechbrain_ser_cl.data.emotion_batches import EmotionBatchSampler

# Corpora of different size and with different labels: bored in one, calm and surprised
# in the other.
GERMAN = {"angry": 60, "bored": 40, "sad": 30, "neutral": 50}
ENGLISH = {"angry": 90, "calm": 80, "sad": 90, "neutral": 45, "surprised": 70}
MANDARIN = {"angry": 50, "sad": 50, "surprised": 50}


def utterances(**corpora):
    """Returns emotion and corpus of each utterance, shuffled."""
    rows = [
        (emotion, corpus)
        for corpus, counts in corpora.items()
        for emotion, count in counts.items()
        for _ in range(count)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return {
        "emotions": [rows[i][0] for i in order],
        "corpora": [rows[i][1] for i in order],
    }


TWO = utterances(german=GERMAN, english=ENGLISH)
THREE = utterances(german=GERMAN, english=ENGLISH, mandarin=MANDARIN)


def make(data=TWO, batch_size=16, n_batches=10, seed=3, **options):
    return EmotionBatchSampler(**data, **options | {
        "batch_size": batch_size, "n_batches": n_batches, "seed": seed
    })  # fmt: skip


def epoch_of(sampler, epoch, first_batch=0):
    sampler.first_batch = first_batch
    sampler.set_epoch(epoch)
    return list(sampler)


def indices(batches):
    return [[draw.index for draw in batch] for batch in batches]


def composition(data, batch):
    """Returns the drawn emotion, and positives and negatives by corpus."""
    half = len(batch) // 2
    emotions = [data["emotions"][i] for i in batch]
    assert len(set(emotions[:half])) == 1
    assert emotions[0] not in emotions[half:]
    corpora = [data["corpora"][i] for i in batch]
    return emotions[0], Counter(corpora[:half]), Counter(corpora[half:])


@pytest.mark.parametrize("batch_size", [4, 16, 32])
def test_each_batch_is_composed_as_in_the_paper(batch_size):
    quarter = batch_size // 4
    drawn = set()
    for batch in indices(epoch_of(make(batch_size=batch_size, n_batches=200), 1)):
        assert len(set(batch)) == len(batch) == batch_size
        emotion, positives, negatives = composition(TWO, batch)
        if emotion == "bored":
            assert positives == {"german": 2 * quarter}
        elif emotion in ("calm", "surprised"):
            assert positives == {"english": 2 * quarter}
        else:
            assert positives == {"german": quarter, "english": quarter}
        assert negatives == {"german": quarter, "english": quarter}
        drawn.add(emotion)
    assert drawn == {*GERMAN, *ENGLISH}


def test_one_corpus_gives_both_halves():
    data = utterances(english=ENGLISH)
    for batch in indices(epoch_of(make(data), 1)):
        assert composition(data, batch)[1:] == ({"english": 8}, {"english": 8})


def test_what_three_corpora_cannot_share_equally_goes_to_each_in_turn():
    extra = Counter()
    for batch in indices(epoch_of(make(THREE, n_batches=600), 1)):
        emotion, positives, negatives = composition(THREE, batch)
        having = [
            corpus
            for corpus, counts in (
                ("german", GERMAN),
                ("english", ENGLISH),
                ("mandarin", MANDARIN),
            )
            if emotion in counts
        ]
        assert set(positives) == set(having)
        assert max(positives.values()) - min(positives.values()) <= 1
        assert sorted(negatives.values()) == [2, 3, 3]
        extra.update(corpus for corpus, n in negatives.items() if n == 2)
    assert chisquare(list(extra.values())).pvalue > 1e-3


def test_a_corpus_of_one_emotion_gives_no_negatives_against_it():
    data = utterances(german=GERMAN, laughter={"happy": 40})
    for batch in indices(epoch_of(make(data, n_batches=60), 1)):
        emotion, positives, negatives = composition(data, batch)
        if emotion == "happy":
            assert (positives, negatives) == ({"laughter": 8}, {"german": 8})
        else:
            assert (positives, negatives) == (
                {"german": 8},
                {"german": 4, "laughter": 4},
            )


def test_all_emotions_are_drawn_alike():
    drawn = Counter(
        composition(TWO, batch)[0]
        for epoch in range(1, 11)
        for batch in indices(epoch_of(make(n_batches=60), epoch))
    )
    assert len(drawn) == 6
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_all_utterances_come_up_as_positives_and_as_negatives_in_turn():
    """Over epochs much shorter than a corpus."""
    sampler = make(n_batches=10)
    batches = list(
        itertools.chain.from_iterable(
            indices(epoch_of(sampler, epoch)) for epoch in range(1, 81)
        )
    )
    everyone = set(range(len(TWO["emotions"])))
    for half in (slice(0, 8), slice(8, 16)):
        times = Counter(itertools.chain.from_iterable(b[half] for b in batches))
        assert set(times) == everyone
        if half.start == 0:
            pools = list(zip(TWO["corpora"], TWO["emotions"], strict=True))
            for pool in set(pools):
                counts = [times[i] for i in everyone if pools[i] == pool]
                assert max(counts) - min(counts) <= 1
        else:
            for corpus in ("german", "english"):
                counts = [times[i] for i in everyone if TWO["corpora"][i] == corpus]
                # 3200 negatives of a corpus, in turn, not by chance.
                assert np.std(counts) < 0.5 * np.sqrt(np.mean(counts))


def test_the_same_arguments_give_the_same_epoch_and_others_another():
    first = epoch_of(make(), 2)
    assert epoch_of(make(), 2) == first
    sampler = make()
    forward = [epoch_of(sampler, epoch) for epoch in (1, 2, 3)]
    assert forward[1] == first
    assert epoch_of(sampler, 1) == forward[0]  # backwards, too
    assert indices(forward[0]) != indices(forward[1])
    assert indices(epoch_of(make(seed=4), 2)) != indices(first)


def test_an_epoch_entered_in_the_middle_goes_on_like_one_read_from_the_start():
    for epoch in (1, 3):
        whole = epoch_of(make(), epoch)
        assert len(whole) == len(make()) == 10
        for k in range(11):
            assert epoch_of(make(), epoch, first_batch=k) == whole[k:]
    sampler = make()
    assert len(epoch_of(sampler, 1, first_batch=8)) == 2
    sampler.set_epoch(2)
    assert len(list(sampler)) == 10  # only the resumed epoch is shorter


@pytest.mark.parametrize("data", [TWO, THREE], ids=["two corpora", "three"])
def test_ranks_have_no_utterance_in_common_in_a_step(data):
    size = 8
    ranks = [
        [
            batch
            for epoch in range(1, 6)
            for batch in epoch_of(
                make(data, size, n_batches=40, rank=rank, world_size=3), epoch
            )
        ]
        for rank in range(3)
    ]
    numbers = [draw.number for rank in ranks for batch in rank for draw in batch]
    assert len(set(numbers)) == len(numbers) == 3 * 200 * size
    emotions = []
    for step in zip(*map(indices, ranks), strict=True):
        assert len(set(itertools.chain(*step))) == 3 * size
        emotions.append([composition(data, batch)[0] for batch in step])
    assert sum(len(set(step)) > 1 for step in emotions) > 100  # each draws its own


def test_too_few_utterances_are_an_error_that_says_which():
    data = utterances(german=GERMAN | {"sad": 7}, english=ENGLISH)
    make(data, batch_size=28)
    with pytest.raises(ValueError, match="german has 7 that are sad, .* take 8") as e:
        make(data, batch_size=32)
    assert "replacement: True" in str(e.value)
    with pytest.raises(ValueError, match="bored.*take 60"):
        make(batch_size=120)
    with pytest.raises(ValueError, match="on 4 processes.*7 that are sad.*take 16"):
        make(data, batch_size=16, world_size=4)
    # One that lacks sad only.
    data = utterances(german={"sad": 40, "angry": 3}, english=ENGLISH)
    with pytest.raises(ValueError, match="german has 3 that are not sad"):
        make(data, batch_size=16)


def test_with_replacement_only_the_scarce_ones_come_more_than_once():
    data = utterances(german=GERMAN | {"sad": 3}, english=ENGLISH)
    with pytest.raises(ValueError):
        make(data, batch_size=32)
    times = Counter()
    for batch in indices(epoch_of(make(data, 32, 100, replacement=True), 1)):
        emotion, positives, _ = composition(data, batch)
        counts = Counter(batch)
        if emotion != "sad":
            assert set(counts.values()) == {1}
            continue
        assert positives == {"german": 8, "english": 8}
        german = {i: n for i, n in counts.items() if data["corpora"][i] == "german"}
        sad = [n for i, n in german.items() if data["emotions"][i] == "sad"]
        assert sorted(sad) in ([2, 3, 3], [2, 2, 4])
        times.update(counts)
        assert sum(counts.values()) - len(counts) == 5
    assert times


def test_replacement_changes_nothing_where_there_are_enough():
    assert epoch_of(make(replacement=True), 2) == epoch_of(make(), 2)


@pytest.mark.parametrize("batch_size", [0, 2, 6, 30])
def test_batch_size_must_be_a_multiple_of_four(batch_size):
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}.*multiple of 4"):
        make(batch_size=batch_size)


def test_one_emotion_is_not_enough():
    with pytest.raises(ValueError, match="at least two emotions, found sad"):
        make(utterances(german={"sad": 40}))
    with pytest.raises(ValueError, match="found no utterance"):
        make({"emotions": [], "corpora": []})
