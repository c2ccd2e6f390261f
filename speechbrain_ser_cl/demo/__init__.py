"""A page on this machine where a model listens: drop or record speech, see emotions."""

from speechbrain_ser_cl.demo.answers import RefusedAudio, answer
from speechbrain_ser_cl.demo.server import DemoServer

__all__ = ["DemoServer", "RefusedAudio", "answer"]
