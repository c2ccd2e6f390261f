"use strict";

const $ = (id) => document.getElementById(id);
const mostBytes = Number(document.body.dataset.mostBytes);
const longestRecording = 120; // s
const percent = (share) => (100 * share).toFixed(1);
const seconds = (time) => time.toFixed(1) + " s";
// Of a file or window: how strong each name is, as text and from 0 to 1; what it comes to.
const shares = (one) => one.shares ?? one.probabilities;
const shown = (one, name) => (one.values ? one.values[name].toFixed(2) : percent(shares(one)[name]));
const unit = document.body.dataset.unit;
const told = (one, name) => `${name} ${shown(one, name)}${unit}`;
const firsts = (one) => (one.values ? [] : one.emotions ?? [one.emotion]);
const names = (one) => firsts(one).join(", ") || (one.values ? "" : "none");

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Screen readers announce these at once: progress and errors.

function say(text, forEarsOnly = false) {
  $("status").textContent = text;
  $("status").classList.toggle("spoken", forEarsOnly); // what can be seen elsewhere
}

function complain(text) {
  say("");
  $("error").replaceChildren(...(text ? [make("p", "warning", text)] : []));
}

// Classify the given audio.

let given = null;
let asked = null;

function take(audio, name) {
  given = { audio, name };
  classify();
}

async function classify() {
  const { audio, name } = given;
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  $("result").hidden = true;
  complain("");
  const size = audio.size / 1e6;
  if (!audio.size) {
    complain(`${name}: the file is empty.`);
    return;
  }
  if (audio.size > mostBytes) {
    const most = mostBytes / 1e6;
    complain(`${name}: it has ${size.toFixed(1)} MB, and this page takes up to ${most} MB. Cut it, or use “ser-cl predict”.`);
    return;
  }
  say(`Listening to ${name} …`);
  try {
    const query = `window=${$("window").value}&activity=${$("activity")?.value ?? "none"}`;
    const answer = await fetch("/classify?" + query, {
      method: "POST",
      headers: { "Content-Type": document.body.dataset.uploadType },
      body: audio,
      signal,
    });
    const found = await answer.json();
    if (answer.ok) show(found);
    else complain(`${name}: ${found.error}.`);
  } catch (error) {
    if (signal.aborted) return; // something else was given meanwhile
    if (error instanceof TypeError) {
      complain(`${name}: there was no answer. Does “ser-cl demo” still run in its terminal, and can the file be read?`);
    } else {
      complain(`${name}: ${error.message}`);
    }
  }
}

// Show the result.

let heard = null;
let chosen = -1;
let boxes = {};

function show(found) {
  heard = found;
  chosen = -1;
  const { name, audio } = given;
  const share = found.emotions || found.values ? "" : `, ${shown(found, found.emotion)} %`;
  const verdict = names(found) || Object.keys(found.values).map((each) => told(found, each)).join(", ");
  $("verdict").replaceChildren(`${name}, ${seconds(found.end)}: `, make("strong", "", verdict), share);
  say(`Heard ${name}: ${verdict}${share}.`, true);
  const rows = Object.entries(shares(found)).map(([emotion, share]) => {
    const row = make("tr");
    const head = make("th", "", emotion);
    head.scope = "row";
    const bar = make("td", "share");
    const ink = bar.appendChild(make("div"));
    ink.style.width = percent(share) + "%";
    row.append(head, bar, make("td", "number", shown(found, emotion)));
    return row;
  });
  $("classes").replaceChildren(...rows);
  const player = $("player");
  URL.revokeObjectURL(player.src);
  player.hidden = false;
  player.src = URL.createObjectURL(audio);
  $("times").hidden = found.timeline.length === 0;
  if (found.timeline.length) showTimes(found);
  $("result").hidden = false;
}

function showTimes({ timeline, end }) {
  const place = (element, from, to) => {
    element.style.left = (100 * from) / end + "%";
    element.style.width = (100 * (to - from)) / end + "%";
  };
  // Windows overlap: each is drawn up to the middle of what it shares with the next of
  // its segment.
  const middle = (one, other) => one && other && one.segment === other.segment && (one.end + other.start) / 2;
  const from = (i) => middle(timeline[i - 1], timeline[i]) || timeline[i].start;
  const to = (i) => middle(timeline[i], timeline[i + 1]) || timeline[i].end;
  const parts = [];
  const put = (element, area) => {
    element.style.gridArea = area;
    parts.push(element);
  };
  const emotions = Object.keys(shares(timeline[0]));
  for (const [row, emotion] of emotions.entries()) {
    const cells = make("div", "cells");
    timeline.forEach((window, i) => {
      const cell = make("div", firsts(window).includes(emotion) ? "cell first" : "cell");
      cell.style.setProperty("--share", shares(window)[emotion].toFixed(3));
      place(cell, from(i), to(i));
      cells.append(cell);
    });
    put(make("div", "name", emotion), `${row + 1} / 1`);
    put(cells, `${row + 1} / 2`);
  }
  const axis = make("div", "axis");
  const step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120].find((step) => end / step <= 8) ?? 300;
  for (let time = 0; time <= end; time += step) {
    const tick = make("span", "", time + (time ? "" : " s"));
    tick.style.left = (100 * time) / end + "%";
    axis.append(tick);
  }
  const over = make("div", "over");
  boxes = { chosen: make("div", "chosen"), playhead: make("div", "playhead"), over, place };
  boxes.chosen.hidden = boxes.playhead.hidden = true;
  over.append(boxes.chosen, boxes.playhead);
  put(axis, `${emotions.length + 1} / 2`);
  put(over, `1 / 2 / ${emotions.length + 1} / 3`);
  $("timeline").replaceChildren(...parts);
  $("timeline").setAttribute("aria-valuemax", timeline.length);
  const row = (window) => {
    const cells = [window.start.toFixed(2), window.end.toFixed(2)];
    if (!window.values) cells.push(names(window));
    cells.push(...emotions.map((emotion) => shown(window, emotion)));
    const line = make("tr");
    line.append(...cells.map((text, i) => make("td", i === 2 && !window.values ? "" : "number", text)));
    return line;
  };
  $("windows").replaceChildren(...timeline.map(row));
  choose(0);
}

function choose(i) {
  chosen = i;
  const window = heard.timeline[i];
  const sorted = Object.entries(shares(window)).sort((a, b) => b[1] - a[1]);
  const most = sorted.slice(0, 3).map(([emotion]) => told(window, emotion));
  const text = `${window.start.toFixed(1)} to ${seconds(window.end)}: ${most.join(", ")}`;
  boxes.chosen.hidden = false;
  boxes.place(boxes.chosen, window.start, window.end);
  $("now").textContent = text;
  $("timeline").setAttribute("aria-valuenow", i + 1);
  $("timeline").setAttribute("aria-valuetext", text);
}

function windowAt(clientX) {
  const box = boxes.over.getBoundingClientRect();
  const time = ((clientX - box.left) / box.width) * heard.end;
  const away = heard.timeline.map(({ start, end }) => Math.abs((start + end) / 2 - time));
  return away.indexOf(Math.min(...away));
}

function playFrom(i) {
  const player = $("player");
  if (player.hidden) return;
  player.currentTime = heard.timeline[i].start;
  player.play().catch(() => {}); // the player itself shows what it cannot play
}

$("timeline").addEventListener("pointermove", (event) => choose(windowAt(event.clientX)));
$("timeline").addEventListener("click", (event) => playFrom(windowAt(event.clientX)));
$("timeline").addEventListener("keydown", (event) => {
  const last = heard.timeline.length - 1;
  const keys = { ArrowLeft: chosen - 1, ArrowDown: chosen - 1, ArrowRight: chosen + 1, ArrowUp: chosen + 1 };
  Object.assign(keys, { PageDown: chosen - 10, PageUp: chosen + 10, Home: 0, End: last });
  if (event.key in keys) {
    event.preventDefault();
    choose(Math.min(Math.max(keys[event.key], 0), last));
  } else if (event.key === "Enter") {
    playFrom(chosen);
  }
});
$("player").addEventListener("timeupdate", () => {
  if (!boxes.playhead) return;
  boxes.playhead.hidden = false;
  boxes.playhead.style.left = (100 * $("player").currentTime) / heard.end + "%";
});
// The model reads some formats that browsers do not.
$("player").addEventListener("error", () => ($("player").hidden = true));

// Chosen or dropped files.

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) take(file, file.name);
});
for (const id of ["window", "activity"]) {
  $(id)?.addEventListener("change", () => given && classify());
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const { files } = event.dataTransfer;
  if (files.length === 1) {
    $("file").value = "";
    take(files[0], files[0].name);
  } else {
    complain(files.length ? "One file at a time, please." : "That was no file.");
  }
});

// The microphone, without the browser's filters for calls: loudness matters.

let recording = null;

async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  const chunks = [];
  recording = { stream, context, chunks };
  await context.audioWorklet.addModule("/recorder.js");
  const node = new AudioWorkletNode(context, "recorder", {
    channelCount: 1,
    channelCountMode: "explicit",
  });
  let peak = 0;
  node.port.onmessage = ({ data }) => {
    if (recording?.chunks !== chunks) return;
    chunks.push(data);
    peak = Math.max(0.95 * peak, ...data.map(Math.abs));
    if (chunks.length % 16) return;
    const time = (chunks.length * data.length) / context.sampleRate;
    $("level").value = peak;
    $("recorded").textContent = `${seconds(time)} of at most ${longestRecording} s`;
    if (time >= longestRecording) stop();
  };
  context.createMediaStreamSource(stream).connect(node).connect(context.destination);
  stream.getTracks()[0].addEventListener("ended", stop); // unplugged
  showRecording(true);
}

async function stop() {
  if (!recording) return;
  const { chunks } = recording;
  const rate = recording.context.sampleRate;
  await release();
  take(wav(chunks, rate), "your recording");
}

async function release() {
  const { stream, context } = recording ?? {};
  recording = null;
  showRecording(false);
  stream?.getTracks().forEach((track) => track.stop());
  await context?.close();
}

function showRecording(on) {
  $("record").textContent = on ? "Stop and classify" : "Record";
  $("record").classList.toggle("recording", on);
  $("level").hidden = !on;
  $("level").value = 0;
  $("recorded").textContent = on ? seconds(0) : "or say something yourself";
}

// 16-bit mono wav: a header of 44 bytes, then samples, all little-endian.
function wav(chunks, rate) {
  const samples = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  if (!samples) return new Blob([]);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // length of what follows up to "data"
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples, true);
  let at = 44;
  for (const chunk of chunks) {
    for (const sample of chunk) {
      view.setInt16(at, Math.round(32767 * Math.min(Math.max(sample, -1), 1)), true);
      at += 2;
    }
  }
  return new Blob([view], { type: "audio/wav" });
}

const whyNot = {
  NotAllowedError: "the browser was not allowed to use the microphone; its settings for this page say so",
  NotFoundError: "no microphone was found",
  NotReadableError: "the microphone is used by another program",
};

$("record").addEventListener("click", async () => {
  if (recording) {
    await stop();
    return;
  }
  complain("");
  $("record").disabled = true; // while the browser asks
  try {
    await record();
  } catch (error) {
    await release();
    complain(`Recording: ${whyNot[error.name] ?? error.message}.`);
  }
  $("record").disabled = false;
  $("record").focus();
});

if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
  $("record").disabled = true;
  $("recorded").textContent = "This browser records nothing from this page.";
}
