"use strict";

// Passes on the microphone's samples unchanged.
registerProcessor(
  "recorder",
  class extends AudioWorkletProcessor {
    process([channels]) {
      if (channels.length) this.port.postMessage(channels[0].slice());
      return true;
    }
  }
);
