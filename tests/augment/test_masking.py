import pytest
import torch

from speechbrain_ser_cl.augment import SpectrogramMasking


def test_one_stretch_and_one_band_are_zero_and_the_rest_is_as_it_was():
    masking = SpectrogramMasking(time_share=0.05, frequency_bins=10)
    spectrogram = torch.rand(200, 257) + 1
    longest = widest = 0
    for seed in range(200):
        masked = masking(spectrogram, seed)
        frames = (masked == 0).all(dim=1).nonzero().flatten()
        bins = (masked == 0).all(dim=0).nonzero().flatten()
        for places in (frames, bins):
            if len(places):
                assert places[-1] - places[0] + 1 == len(places)
        longest, widest = max(longest, len(frames)), max(widest, len(bins))
        expected = spectrogram.clone()
        expected[frames] = 0
        expected[:, bins] = 0
        assert torch.equal(masked, expected)
    assert (longest, widest) == (10, 10)  # 5 % of 200
    assert (spectrogram > 0).all()


def test_the_same_draw_gives_the_same_mask():
    masking, spectrogram = SpectrogramMasking(0.5, 100), torch.ones(30, 257)
    one, same, other = (masking(spectrogram, seed) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("size", [{"time_share": 1.5}, {"frequency_bins": -1}])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(ValueError, match=next(iter(size))):
        SpectrogramMasking(**size)
