"use strict";

// Hands on what the microphone gives, as it is.
registerProcessor(
  "recorder",
  class extends AudioWorkletProcessor {
    process([channels]) {
      if (channels.length) this.port.postMessage(channels[0].slice());
      return true;
    }
  }
);
