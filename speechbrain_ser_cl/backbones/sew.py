"""SEW: squeezed and efficient wav2vec."""

from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from speechbrain_ser_cl.backbones.packing import Packing
from speechbrain_ser_cl.backbones.speech_encoder import at_least_one, run_dropout
from speechbrain_ser_cl.backbones.wav2vec2 import WaveformEncoder


class SEWEncoder(WaveformEncoder):
    """SEW, whose transformer layers run on a fraction of the frames.

    Frames are those of the layers, half as many as wav2vec 2.0's: ``hop`` is 640 for
    the published models. The up-sampling after the last layer, which only restores the
    number of frames, is left out. Wu et al., "Performance-efficiency trade-offs in
    unsupervised pre-training for speech recognition", ICASSP 2022, section 4.4.
    """

    def __init__(self, model: nn.Module, normalize: bool) -> None:
        super().__init__(model, normalize)
        self._convolved_hop, self._convolved_field = self.hop, self.receptive_field
        self.squeeze = self.model.config.squeeze_factor
        self.receptive_field += (self.squeeze - 1) * self.hop
        self.hop *= self.squeeze

    @override
    def _front_end(self) -> list[nn.Module]:
        model = self.model
        parts = [model.feature_extractor, model.layer_norm, model.feature_dropout]
        return [*parts, model.feature_projection] if model.project_features else parts

    @override
    def n_frames(self, n_samples: Any) -> Any:
        return at_least_one(self._n_convolved(n_samples) // self.squeeze)

    @override
    def _n_convolved(self, n_samples: Any) -> Any:
        steps = (n_samples - self._convolved_field) // self._convolved_hop + 1
        return at_least_one(steps)

    @override
    def _projected(self, x: Tensor) -> Tensor:
        x = self.model.layer_norm(x)
        if self.model.project_features:
            x = self.model.feature_projection(x)
        return run_dropout(self.model.feature_dropout, x)

    @override
    def _positioned(self, x: Tensor, packing: Packing) -> tuple[Tensor, Packing]:
        """Adds the mean of several frames and a convolution with that stride."""
        body = self.model.encoder
        frames = packing.unpack(x).transpose(1, 2)
        pooled, positions = body.pool(frames), body.pos_conv_embed(frames)
        counts = [count // self.squeeze for count in packing.counts]
        squeezed = Packing(counts, pooled.shape[2], x.device)
        x = pooled + positions[..., : pooled.shape[2]]
        return squeezed.pack(x.transpose(1, 2)), squeezed
