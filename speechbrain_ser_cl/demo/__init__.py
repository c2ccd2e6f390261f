"""Serves a local page that shows the emotions of dropped or recorded speech."""

from speechbrain_ser_cl.demo.answers import RefusedAudio, answer
from speechbrain_ser_cl.demo.server import DemoServer

__all__ = ["DemoServer", "RefusedAudio", "answer"]
