"""WavLM."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import Packing
from speechbrain_ser_cl.backbones.speech_encoder import Bias
from speechbrain_ser_cl.backbones.wav2vec2 import WaveformEncoder


class WavLMEncoder(WaveformEncoder):
    r"""WavLM, whose attention scores have a gated bias of relative positions.

    .. math::
        s_{ij} = \frac{q_i \cdot k_j}{\sqrt{d}} + g_i \, b_{j - i}

    b is shared by all layers, the gates are per layer. Chen et al., "WavLM", IEEE JSTSP
    2022, section III-A. transformers stores all scores; here the bias is added in a
    fused kernel.
    """

    @override
    def _position_biases(self, packing: Packing) -> Sequence[Bias]:
        compute = self.layers[0].attention.compute_bias
        return [
            partial(_gated, compute(group.n_steps, group.n_steps))
            for group in packing.groups
        ]

    @override
    def _gates(self, attention: Any, x: Tensor) -> Tensor:
        """Computes the gates, one per frame and head (N, H)."""
        x = attention.gru_rel_pos_linear(x.unflatten(-1, (attention.num_heads, -1)))
        first: Tensor
        second: Tensor
        first, second = x.unflatten(-1, (2, 4)).sum(-1).sigmoid().unbind(-1)
        scale: Tensor = attention.gru_rel_pos_const.flatten()
        return first * (second * scale - 1) + 2


def _gated(bias: Tensor, gates: Tensor) -> Tensor:
    """Multiplies biases (H, t, t) by gates (n, t, H): (n, H, t, t)."""
    return gates.transpose(1, 2).unsqueeze(-1) * bias
