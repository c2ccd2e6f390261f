"""Convolutions by Fourier transforms, against PyTorch's."""

import pytest
import torch
from torch.nn import functional as F

from speechbrain_ser_cl.backbones import SpectrogramCRNN
from speechbrain_ser_cl.backbones.spectral_conv import strided_conv


def pair(frequencies, times, kernel, dtype=torch.float64, channels=3, outputs=4):
    """Makes a batch and a kernel."""
    torch.manual_seed(0)
    x = torch.randn(frequencies, times, 2, channels, dtype=dtype)
    return x, torch.randn(outputs, channels, *kernel, dtype=dtype)


def direct(x, weight):
    return F.conv2d(x.permute(2, 3, 0, 1), weight, stride=2).permute(2, 3, 0, 1)


@pytest.mark.parametrize("frequencies", [11, 12, 30, 31])
@pytest.mark.parametrize("times", [6, 7, 16, 17])
@pytest.mark.parametrize("kernel", [(9, 5), (8, 6), (11, 3), (1, 1)])
def test_it_is_a_convolution_of_stride_two(frequencies, times, kernel):
    x, weight = pair(frequencies, times, kernel)
    torch.testing.assert_close(strided_conv(x, weight), direct(x, weight))


@pytest.mark.parametrize("sizes", [(9, 6), (10, 7)])
def test_gradients(sizes):
    x, weight = pair(*sizes, (5, 3), channels=2, outputs=2)
    tensors = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(strided_conv, tensors)


def test_bfloat16_errs_little_more_than_a_direct_convolution_does():
    x, weight = pair(109, 40, (21, 11), torch.float32, channels=16, outputs=16)
    exact = direct(x, weight)

    def error(found):
        return ((found.float() - exact).norm() / exact.norm()).item()

    half = x.bfloat16(), weight.bfloat16()
    assert error(strided_conv(half[0], weight)) < 4 * error(direct(*half))


def test_a_kernel_that_does_not_fit_is_refused():
    x, weight = pair(8, 8, (9, 3))
    with pytest.raises(ValueError, match=r"\(8, 8, 2, 3\).*\(4, 3, 9, 3\)"):
        strided_conv(x, weight)


@pytest.mark.parametrize("shortest", [1.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_the_same_either_way(shortest, training):
    torch.manual_seed(0)
    encoder = SpectrogramCRNN(dropout=0.0, transformer_dropout=0.0)
    other = SpectrogramCRNN(dropout=0.0, transformer_dropout=0.0)
    other.load_state_dict(encoder.state_dict())
    other._convolutions_on_cpu = other._convolutions
    spectrograms, lengths = torch.randn(3, 60, 257), torch.tensor([1.0, shortest, 1.0])
    frames = []
    for model in (encoder, other):
        model.train(training)
        frames.append(model.encode(spectrograms, lengths))
        frames[-1][:, 0].square().sum().backward()
    torch.testing.assert_close(*frames, atol=1e-4, rtol=1e-3)
    for name, buffer in encoder.named_buffers():
        torch.testing.assert_close(buffer, other.get_buffer(name), msg=name)
    for ours, theirs in zip(encoder.parameters(), other.parameters(), strict=True):
        gap = (ours.grad - theirs.grad).norm()
        # The bias of a normalised convolution has a gradient of rounding errors only.
        assert gap <= 0.01 * theirs.grad.norm() + 1e-2
