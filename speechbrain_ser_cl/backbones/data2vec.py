"""data2vec-audio."""

from torch import Tensor, nn
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import Packing
from speechbrain_ser_cl.backbones.wav2vec2 import WaveformEncoder


class Data2VecEncoder(WaveformEncoder):
    """data2vec for speech, with a stack of convolutions as position embedding.

    Padding is set to 0 before each of them. In transformers the first convolution
    writes into the padding, and the second reads it.
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
