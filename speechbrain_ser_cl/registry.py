"""Names for the package's parts, open to other packages.

A dotted path in a YAML file (``!new:speechbrain_ser_cl.losses.InfoNCELoss``)
always works and needs no registration. A ``Registry`` adds short names on top.
"""

import importlib


class Registry:
    """Short lower-case names for the classes or functions of one kind."""

    def __init__(self, kind, builtin):
        self.kind = kind
        self.builtin = builtin
        self._entries = {}

    def register(self, name):
        """Decorator that registers a class or function under ``name``."""

        def decorate(obj):
            self._entries[name] = obj
            return obj

        return decorate

    def get(self, name):
        """The object registered under ``name``."""
        importlib.import_module(self.builtin)
        return self._entries[name]


LOSSES = Registry("loss", "speechbrain_ser_cl.losses")
BACKBONES = Registry("backbone", "speechbrain_ser_cl.backbones")
POOLINGS = Registry("pooling", "speechbrain_ser_cl.nnet.pooling")
HEADS = Registry("head", "speechbrain_ser_cl.nnet.heads")
CORPORA = Registry("corpus", "speechbrain_ser_cl.corpora")
