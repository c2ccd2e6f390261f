"""Contrastive learning and domain adaptation for speech emotion recognition.

Importing the package imports neither its parts nor torch. Import a part (``from
speechbrain_ser_cl.losses import InfoNCELoss``), name it in a YAML file
(``!new:speechbrain_ser_cl.losses.InfoNCELoss``), or build it by its short name
(``speechbrain_ser_cl.build("loss", "infonce")``).
"""

from speechbrain_ser_cl.registry import build

__all__ = ["build"]
__version__ = "0.2.0"
