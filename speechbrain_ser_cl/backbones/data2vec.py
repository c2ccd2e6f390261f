"""data2vec-audio."""

from torch import Tensor, nn
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import Packing
from speechbrain_ser_cl.backbones.wav2vec2 import WaveformEncoder


class Data2VecEncoder(WaveformEncoder):
    """data2vec for speech, whose position embedding is a stack of convolutions.

    Padding is set to 0 before each of them. In transformers what the first makes of the
    padding gets into the second.
    """

    @override
    def _positioned(self, x: Tensor, packing: Packing) -> tuple[Tensor, Packing]:
        positions = x
        for layer in self.model.encoder.pos_conv_embed.layers:

            def convolved(y: Tensor, layer: nn.Module = layer) -> Tensor:
                y = layer(y.transpose(1, 2))
                return y.transpose(1, 2)

            positions = packing.map_padded(convolved, positions)
        return x + positions, packing
