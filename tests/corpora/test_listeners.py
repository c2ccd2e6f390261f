"""Votes and levels of CREMA-D: the available part, and a damaged table."""

import shutil

import pytest

from speechbrain_ser_cl.corpora import CorpusError
from speechbrain_ser_cl.registry import CORPORA
from tests import hollow

HEADER = '"","A","D","F","H","N","S","fileName","numResponses","meanEmoResp"\n'


def small(folder, votes, table="processedResults/tabulatedVotes.csv"):
    """Makes two clips of CREMA-D, and a table."""
    root = folder / "CREMA-D"
    (root / "AudioWAV").mkdir(parents=True)
    for name in ("1001_IEO_HAP_LO", "1001_IEO_SAD_XX"):
        path = root / "AudioWAV" / f"{name}.wav"
        path.write_bytes(hollow.wav_bytes(160, 16000))
    path = root / table
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + votes, encoding="utf-8")
    return root


VOTES = "".join(
    f'"{digit}0000{n}",{n},0,0,0,{digit},0,"{name}",9,{10 * digit}.5\n'
    for digit in (1, 2, 3)
    for n, name in enumerate(("1001_IEO_HAP_LO", "1001_IEO_SAD_XX"))
)


@pytest.mark.filterwarnings("ignore:crema_d in")
@pytest.mark.parametrize("inside", [".", "AudioWAV"])
def test_each_modality_has_its_votes(tmp_path, inside):
    root = small(tmp_path, VOTES)
    for digit, modality in enumerate(("voice", "face", "both"), start=1):
        read = CORPORA.get("crema_d")
        happy, sad = read(root / inside, allow_missing=True, modality=modality)
        assert happy.votes == {"neutral": digit}
        assert sad.votes == {"angry": 1, "neutral": digit}
        assert happy.dimensions == sad.dimensions == {"level": 10 * digit + 0.5}


@pytest.mark.filterwarnings("ignore:crema_d in")
def test_a_copy_without_a_table_has_no_votes(tmp_path):
    root = small(tmp_path, VOTES)
    shutil.rmtree(root / "processedResults")
    found = CORPORA.get("crema_d")(root, allow_missing=True)
    assert [(u.votes, u.dimensions) for u in found] == [(None, None)] * 2


@pytest.mark.filterwarnings("ignore:crema_d in")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"100001"', '"200001"', r"no votes by voice for \(1: 1001_IEO_SAD_XX\)"),
        ("10.5", "much", "tabulatedVotes.csv: not the table of votes"),
        ("meanEmoResp", "mean", "expected columns A, D, F, H, N, S, fileName"),
    ],
)
def test_a_damaged_table_is_reported(tmp_path, old, new, message):
    root = small(tmp_path, VOTES)
    table = root / "processedResults" / "tabulatedVotes.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(CorpusError, match=message):
        CORPORA.get("crema_d")(root, allow_missing=True)


@pytest.mark.filterwarnings("ignore:crema_d in")
def test_the_voice_alone_is_mostly_heard_as_neutral(shared):
    """On the available part (happy and sad clips only)."""
    votes = [
        (u.emotion, u.votes, u.dimensions)
        for u in CORPORA.get("crema_d")(
            shared / "corpora" / "CREMA-D", allow_missing=True
        )
    ]
    assert len(votes) == 1999
    most = [[e for e, n in v.items() if n == max(v.values())] for _, v, _ in votes]
    alone = [len(names) == 1 for names in most]
    assert sum(alone) == 1999 - 205
    assert (
        sum(e == m[0] for (e, *_), m in zip(votes, most, strict=True) if len(m) == 1)
        == 417
    )
    assert sum(m == ["neutral"] for m in most) > 1000
    assert (
        28
        < min(d["level"] for *_, d in votes)
        < max(d["level"] for *_, d in votes)
        < 92
    )
