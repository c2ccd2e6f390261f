"""Named augmentation pipelines: reproducible, isolated, labelled, finite."""

import pickle
import random
import warnings

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from scipy.stats import chisquare
from torch_audiomentations import (
    AddColoredNoise,
    BandStopFilter,
    Compose,
    Gain,
    OneOf,
    PeakNormalization,
    PitchShift,
    PolarityInversion,
    Shift,
    TimeInversion,
)

from speechbrain_ser_cl.augment import AugmentationPipelines

SEVEN = {
    "gain": [Gain(p=1.0, output_type="dict")],
    "polarity": [PolarityInversion(p=1.0, output_type="dict")],
    "shift": [Shift(p=1.0, output_type="dict")],
    "reverse": [TimeInversion(p=1.0, output_type="dict")],
    "band_stop": [BandStopFilter(p=1.0, output_type="dict")],
    "peak": [PeakNormalization(p=1.0, output_type="dict")],
    "noise": [AddColoredNoise(p=1.0, output_type="dict")],
}


@pytest.fixture
def wav():
    return 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))


def seed_of(pipelines, name):
    """Returns a seed that draws the pipeline of this name."""
    wav = torch.ones(4)
    return next(s for s in range(1000) if pipelines.names[pipelines(wav, s)[1]] == name)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("polarity", lambda x: -x),
        ("reverse", lambda x: x.flip(0)),
        ("peak", lambda x: x / x.abs().max()),
    ],
)
def test_the_label_says_what_was_done(wav, name, expected):
    pipelines = AugmentationPipelines(SEVEN)
    view, label = pipelines(wav, seed_of(pipelines, name))
    assert pipelines.names[label] == name
    torch.testing.assert_close(view, expected(wav))


def test_transforms_are_applied_in_the_order_given(wav):
    ramp = Gain(6.0, 6.1, p=1.0, output_type="dict")
    peak = PeakNormalization(p=1.0, output_type="dict")
    last, _ = AugmentationPipelines({"a": [ramp, peak]})(wav, 0)
    first, _ = AugmentationPipelines({"a": [peak, ramp]})(wav, 0)
    assert last.abs().max() == pytest.approx(1.0)
    assert first.abs().max() == pytest.approx(10 ** (6.05 / 20), rel=0.01)


def test_the_same_seed_gives_the_same_view_whatever_came_before(wav):
    """Also for draws of Compose and OneOf, from Python's generator."""
    parts = [Gain(p=0.5, output_type="dict"), AddColoredNoise(output_type="dict")]
    pipelines = AugmentationPipelines(
        SEVEN | {"one": [OneOf(parts, output_type="dict")]}
    )
    for seed in range(40):
        view, label = pipelines(wav, seed)
        torch.rand(seed), random.random()
        pipelines(torch.rand(100 + seed), 7 * seed)
        again, label_again = pipelines(wav, seed)
        assert label == label_again
        assert torch.equal(view, again)


def test_different_seeds_give_different_noise(wav):
    pipelines = AugmentationPipelines({"noise": SEVEN["noise"]})
    assert not torch.equal(pipelines(wav, 0)[0], pipelines(wav, 1)[0])


def test_global_generators_are_left_alone(wav):
    pipelines = AugmentationPipelines(
        {"one": [OneOf([m for (m,) in SEVEN.values()], output_type="dict")]}
    )
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(3), random.random()
    torch.manual_seed(3)
    random.seed(3)
    pipelines(wav, 11)
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]


def test_global_generators_are_restored_after_an_error(wav):
    class Failing(Gain):
        def apply_transform(self, *args, **kwargs):
            raise RuntimeError("broken")

    pipelines = AugmentationPipelines({"a": [Failing(p=1.0, output_type="dict")]})
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(RuntimeError, match="broken"):
        pipelines(wav, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_generator_is_left_alone(wav):
    torch.cuda.manual_seed(3)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(3)
    AugmentationPipelines(SEVEN)(wav, 11)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


def test_pipelines_are_drawn_uniformly():
    pipelines = AugmentationPipelines({str(i): [] for i in range(5)})
    labels = [pipelines(torch.ones(1), seed)[1] for seed in range(2000)]
    counts = [labels.count(i) for i in range(5)]
    assert chisquare(counts).pvalue > 0.001


def test_a_transform_keeps_its_own_probability():
    flips = [PolarityInversion(p=0.3, output_type="dict")]
    pipelines = AugmentationPipelines({"a": flips, "b": flips})
    views = [pipelines(torch.ones(1), seed) for seed in range(2000)]
    for which in (0, 1):
        flipped = [view.item() < 0 for view, label in views if label == which]
        assert sum(flipped) / len(flipped) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("length", [1, 2, 31, 400, 20000])
@pytest.mark.parametrize("level", [0.0, 1e-42, 1e-20, 1e4])
def test_silent_short_and_extreme_utterances_stay_finite(length, level):
    pipelines = AugmentationPipelines(
        SEVEN | {"all": [transform for (transform,) in SEVEN.values()]}
    )
    wav = level * torch.linspace(-1, 1, length)
    for seed in range(30):
        view, _ = pipelines(wav, seed)
        assert view.shape == wav.shape
        assert view.dtype == torch.float32
        assert view.isfinite().all()


def test_the_input_is_not_changed(wav):
    before = wav.clone()
    pipelines = AugmentationPipelines(SEVEN)
    for seed in range(20):
        pipelines(wav, seed)
    assert torch.equal(wav, before)


def test_how_the_transforms_were_made_does_not_matter(wav):
    """Old-style output and compositions give equal views, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = [Gain(p=1.0), Compose([PolarityInversion(p=1.0)], output_type="tensor")]
    pipelines = AugmentationPipelines({"old": old})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view, _ = pipelines(wav, 0)
    assert torch.all(view * wav <= 0)


def test_from_yaml_and_through_pickle(wav):
    hparams = load_hyperpyyaml(
        """
        pipelines: !new:speechbrain_ser_cl.augment.AugmentationPipelines
            sample_rate: 16000
            pipelines:
                level: [!new:torch_audiomentations.Gain {p: 1.0, output_type: dict}]
                flip_and_noise:
                    - !new:torch_audiomentations.PolarityInversion
                        p: 1.0
                        output_type: dict
                    - !new:torch_audiomentations.AddColoredNoise
                        p: 1.0
                        output_type: dict
        """
    )
    pipelines = hparams["pipelines"]
    assert pipelines.names == ("level", "flip_and_noise")
    copy = pickle.loads(pickle.dumps(pipelines))
    for seed in range(5):
        assert torch.equal(pipelines(wav, seed)[0], copy(wav, seed)[0])


def test_bad_pipelines_are_refused():
    with pytest.raises(ValueError, match="empty"):
        AugmentationPipelines({})
    with pytest.raises(ValueError, match="'loud'.*not a transform"):
        AugmentationPipelines({"loud": [torch.nn.ReLU()]})
    band = BandStopFilter(max_center_frequency=4100, output_type="dict")
    with pytest.raises(ValueError, match="'cut'.*8180 Hz.*max_center_frequency"):
        AugmentationPipelines({"cut": [Compose([band], output_type="dict")]})


@pytest.mark.parametrize(
    "wav, message",
    [
        (torch.zeros(1, 100), r"shape \(T,\).*\(1, 100\)"),
        (torch.zeros(0), "non-empty"),
        (torch.tensor([0.0, float("nan")]), "NaN"),
    ],
)
def test_bad_utterances_are_refused(wav, message):
    with pytest.raises(ValueError, match=message):
        AugmentationPipelines(SEVEN)(wav, 0)


def test_a_transform_that_changes_the_length_is_named(wav):
    halve = Compose([torch.nn.AvgPool1d(2)], output_type="dict")
    with pytest.raises(ValueError, match="'halve'.*from 8000 to 4000"):
        AugmentationPipelines({"halve": [halve]})(wav, 0)


@pytest.mark.parametrize("length", [1, 50, 1599])
def test_pitch_is_shifted_in_the_shortest_of_utterances(length):
    shift = PitchShift(p=1.0, sample_rate=16000, output_type="dict")
    tone = torch.sin(torch.arange(length) * 0.3 + 1)
    view, _ = AugmentationPipelines({"pitch": [shift]})(tone, seed=0)
    assert view.shape == tone.shape
    assert view.isfinite().all() and not torch.equal(view, tone)
