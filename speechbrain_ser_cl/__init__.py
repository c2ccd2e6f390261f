"""Contrastive learning and domain adaptation for speech emotion recognition."""

__version__ = "0.1.0"
