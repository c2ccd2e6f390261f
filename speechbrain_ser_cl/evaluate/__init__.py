"""Evaluates models from elsewhere on any corpus: ``ser-cl evaluate``."""

from speechbrain_ser_cl.evaluate.labels import map_labels
from speechbrain_ser_cl.evaluate.models import Classifier, load_classifier
from speechbrain_ser_cl.evaluate.run import evaluate, like

__all__ = ["Classifier", "evaluate", "like", "load_classifier", "map_labels"]
