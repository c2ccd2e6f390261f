"""Targets from votes: classes, distributions, several emotions, dimensions."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from speechbrain_ser_cl.corpora.utterance import Utterance
from speechbrain_ser_cl.data.manifest import read_manifest, write_manifest
from speechbrain_ser_cl.data.quality.agreement import krippendorff_alpha
from speechbrain_ser_cl.data.splits import Labelled
from speechbrain_ser_cl.data.targets import (
    Target,
    dimension_table,
    label_by_votes,
    resolve_target,
    target_table,
)
from speechbrain_ser_cl.results.sums import group_columns
from speechbrain_ser_cl.results.utterances import read_parts, write_parts

MAP = {"low": ["sad", "bored"], "high": ["happy"], "mid": ["neutral"]}
VOTES = {
    "a": {"sad": 2, "bored": 2, "happy": 1},  # low has the majority
    "b": {"happy": 2, "neutral": 2, "sad": 1},  # two classes have most votes
    "c": {"happy": 3, "neutral": 2, "angry": 3},  # angry has no class
    "d": {"neutral": 3, "sad": 1, "happy": 2},  # most votes, but only half
    "e": {"angry": 4},
}


def utterance(name, **more):
    return Utterance(
        *(name, Path(f"{name}.wav"), 1.0, "toy", None, None, None, "en", None),
        **{"emotion": "sad"} | more,
    )


UTTERANCES = [utterance(name, votes=votes) for name, votes in VOTES.items()]


def labels(utterances, target):
    # A third class, so that no class is empty.
    more = [
        utterance("x", votes={"happy": 5}),
        utterance("y", votes={"neutral": 5}),
        utterance("z", votes={"sad": 5}),
    ]
    items, left_out = label_by_votes([*utterances, *more], MAP, target)
    return {i.utterance.id: i.label for i in items if i.utterance.id < "x"}, left_out


@pytest.mark.parametrize(
    ("target", "expected", "left_out"),
    [
        (Target("majority"), {"a": "low"}, 4),
        (Target("plurality"), {"a": "low", "d": "mid"}, 3),
        (
            Target("distribution"),
            {"a": "low", "b": "high", "c": "high", "d": "mid"},
            1,
        ),
        (
            Target("majority", no_agreement="distribution"),
            {"a": "low", "b": "high", "c": "high", "d": "mid"},
            1,
        ),
        (
            Target("majority", no_agreement="mid"),
            {"a": "low", "b": "mid", "c": "mid", "d": "mid", "e": "mid"},
            0,
        ),
        (
            Target("plurality", others="mid"),
            {"a": "low", "c": "mid", "d": "mid", "e": "mid"},
            1,
        ),
    ],
)
def test_classes_from_votes(target, expected, left_out):
    found, why = labels(UTTERANCES, target)
    assert found == expected
    assert why.get("without agreement", 0) == left_out


def test_distributions_and_several_emotions():
    items = UTTERANCES[:4]
    shares = [[4 / 5, 1 / 5, 0], [1 / 5, 2 / 5, 2 / 5], [0, 3 / 5, 2 / 5]]
    shares += [[1 / 6, 2 / 6, 3 / 6]]
    np.testing.assert_allclose(target_table(items, MAP, Target("distribution")), shares)
    smooth = target_table(items, MAP, Target("distribution", smoothing=0.3))
    np.testing.assert_allclose(smooth, 0.7 * np.array(shares) + 0.1)
    several = target_table(items, MAP, Target("all_inclusive"))
    np.testing.assert_array_equal(several, np.array(shares) > 1 / 3)
    one = target_table(items, MAP, Target("all_inclusive", threshold=0.0))
    np.testing.assert_array_equal(one, np.array(shares) > 0)
    kept = target_table(items, MAP, Target("majority", no_agreement="distribution"))
    np.testing.assert_allclose(kept, [[1, 0, 0], *shares[1:]])
    left_out = target_table(UTTERANCES, MAP, Target("majority"))
    np.testing.assert_array_equal(left_out, [[1, 0, 0], *[[np.nan] * 3] * 4])
    own = [
        utterance("o"),
        utterance("p", emotion="happy"),
        utterance("q", emotion="calm"),
    ]
    np.testing.assert_array_equal(
        target_table(own, MAP, Target()), [[1, 0, 0], [0, 1, 0], [np.nan] * 3]
    )


def test_dimensions_that_are_not_known_are_nan():
    some = [{"arousal": 2, "valence": 1.5}, {"valence": 4}, None]
    items = [Labelled(utterance("u", dimensions=one), "low") for one in some]
    table = dimension_table(items, ["valence", "arousal"])
    np.testing.assert_array_equal(table, [[1.5, 2], [4, np.nan], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="no utterance has 'arousl'; did you mean"):
        dimension_table(items, ["arousl"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("majorty", "did you mean 'majority'"),
        ({"kind": "majority", "smothing": 0.1}, "did you mean 'smoothing'"),
        ({"kind": "distribution", "smoothing": 1.0}, r"number in \[0, 1\)"),
        ({"kind": "majority", "no_agreement": "medium"}, "no_agreement is 'medium'"),
        ({"kind": "majority", "others": "medium"}, "others is 'medium'"),
    ],
)
def test_a_target_that_does_not_work_is_reported(target, message):
    with pytest.raises(ValueError, match=message):
        label_by_votes(UTTERANCES, MAP, resolve_target(target))


def test_votes_are_needed_where_they_count():
    with pytest.raises(ValueError, match="majority: utterances without votes .*: toy"):
        label_by_votes([utterance("toy")], MAP, Target("majority"))
    for bad in ({"sad": -1}, {"sad": float("nan")}, {"": 1}):
        with pytest.raises(ValueError, match="toy: votes has"):
            utterance("toy", votes=bad)
    assert utterance("toy", votes={"sad": 0}).votes is None


def test_votes_and_dimensions_are_kept(tmp_path):
    some = [
        utterance("a", votes={"sad": 2}, dimensions={"arousal": 2.5}),
        utterance("b", dimensions={"é": -1.0}, recording="r", start=0.0),
        utterance("c"),
    ]
    write_manifest(some, tmp_path / "m.json", tmp_path)
    read = read_manifest(tmp_path / "m.json", tmp_path)
    assert [(u.votes, u.dimensions) for u in read] == [
        (u.votes, u.dimensions) for u in some
    ]
    path = tmp_path / "utterances.csv"
    write_parts(path, {"test": [Labelled(u, "low") for u in some]})
    parts = read_parts(path)["test"]
    assert [(i.utterance.votes, i.utterance.dimensions) for i in parts] == [
        (u.votes, u.dimensions) for u in some
    ]
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("2.5", "x"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"utterances.csv, line \d"):
        read_parts(path)


def test_alpha_is_that_of_the_coincidence_matrix():
    rng = np.random.default_rng(0)
    votes = [dict(zip("abc", rng.integers(0, 4, 3), strict=True)) for _ in range(40)]
    units = [[c for c, n in one.items() for _ in range(n)] for one in votes]
    # All pairs within an utterance, weighted, against all pairs.
    within = sum(
        2 * sum(x != y for x, y in combinations(unit, 2)) / (len(unit) - 1)
        for unit in units
        if len(unit) > 1
    )
    every = sum((unit for unit in units if len(unit) > 1), [])
    between = 2 * sum(x != y for x, y in combinations(every, 2)) / (len(every) - 1)
    found = krippendorff_alpha(votes)
    assert found == pytest.approx(1 - within / between)
    assert krippendorff_alpha([{"a": 1}, {"b": 1}]) is None


def test_each_corpus_may_have_a_map_of_its_own():
    maps = {"toy": MAP, "other": {"high": ["angry"], "new": ["happy", "calm"]}}
    both = [*UTTERANCES, replace(UTTERANCES[2], id="o", corpus="other")]
    table = target_table(both, maps, Target("distribution"))
    # Classes low, high, mid, new, in order of first occurrence.
    expected = target_table(UTTERANCES, MAP, Target("distribution"))
    np.testing.assert_allclose(table[:-1, :3], expected)
    assert (table[:4, 3] == 0).all()
    np.testing.assert_allclose(table[-1], [0, 0.5, 0, 0.5])
    with pytest.raises(ValueError, match="none for other"):
        target_table(both, {"toy": MAP}, Target("distribution"))


def test_groups_are_kept_in_manifests_and_records(tmp_path):
    one = utterance("a", groups={"age": "34"})
    write_parts(tmp_path / "utterances.csv", {"test": [Labelled(one, "low")]})
    (read,) = read_parts(tmp_path / "utterances.csv")["test"]
    assert read.utterance.groups == {"age": "34"}
    write_manifest([one], tmp_path / "toy.json", tmp_path)
    (again,) = read_manifest(tmp_path / "toy.json", tmp_path)
    assert again.groups == {"age": "34"}


def test_many_numbers_become_bands_of_ten():
    ages = [20, 29, 30, 34, 38, 45, 51, 58]
    some = [utterance(f"u{age}", groups={"age": str(age)}) for age in ages]
    found = group_columns([*some, utterance("unknown")])["age"]
    assert found == {f"u{a}": f"{a // 10 * 10} to {a // 10 * 10 + 9}" for a in ages}
