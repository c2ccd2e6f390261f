"use strict";

// Sends the microphone's samples to the page, unchanged.
registerProcessor(
  "recorder",
  class extends AudioWorkletProcessor {
    process([channels]) {
      if (channels.length) this.port.postMessage(channels[0].slice());
      return true;
    }
  }
);
