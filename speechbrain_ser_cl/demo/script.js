"use strict";

const $ = (id) => document.getElementById(id);
const mostBytes = Number(document.body.dataset.mostBytes);
const turnFiles = $("turns")?.accept.split(",");
const longestRecording = 120; // s
const percent = (share) => (100 * share).toFixed(1);
const seconds = (time) => time.toFixed(1) + " s";
// The values of a file or window: from 0 to 1, and as text; and its emotions.
const shares = (one) => one.shares ?? one.probabilities;
const shown = (one, name) => (one.values ? one.values[name].toFixed(2) : percent(shares(one)[name]));
const unit = document.body.dataset.unit;
const told = (one, name) => `${name} ${shown(one, name)}${unit}`;
const firsts = (one) => (one.values ? [] : one.emotions ?? [one.emotion]);
const speaker = (one) => one.speaker ?? "";
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
  $("status").classList.toggle("spoken", forEarsOnly); // hidden where the page shows it elsewhere
}

function complain(text) {
  say("");
  $("error").replaceChildren(...(text ? [make("p", "warning", text)] : []));
}

// Classify the given audio.

let given = null;
let turns = null; // a file with speaker turns, for the next recording
let asked = null;

function take(audio, name) {
  if (given?.turns) takeTurns(null); // they belong to the recording before
  given = { audio, name };
  classify();
}

function takeTurns(file) {
  turns = file;
  if (!file) $("turns").value = "";
  $("no-turns").hidden = !file;
  $("no-turns").textContent = file ? `Without ${file.name}` : "";
  $("activity").disabled = !!file;
}

async function classify() {
  const { audio, name } = given;
  given.turns = turns;
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  $("result").hidden = true;
  complain("");
  const bytes = audio.size + (turns?.size ?? 0);
  const size = bytes / 1e6;
  if (!audio.size) {
    complain(`${name}: the file is empty.`);
    return;
  }
  if (turns && !turns.size) {
    complain(`${turns.name}: the file is empty.`);
    return;
  }
  if (bytes > mostBytes) {
    const most = mostBytes / 1e6;
    complain(`${name}: it has ${size.toFixed(1)} MB, and this page takes up to ${most} MB. Cut it, or use “ser-cl predict”.`);
    return;
  }
  say(`Listening to ${name} …`);
  try {
    const query = new URLSearchParams({
      window: $("window").value,
      activity: $("activity")?.value ?? "none",
      ...(turns && { turns: turns.size, turns_name: turns.name, name }),
    });
    const answer = await fetch("/classify?" + query, {
      method: "POST",
      headers: { "Content-Type": document.body.dataset.uploadType },
      body: turns ? new Blob([turns, audio]) : audio,
      signal,
    });
    const found = await answer.json();
    if (answer.ok) show(found);
    else complain(`${turns && found.error.startsWith(turns.name) ? "" : `${name}: `}${found.error}.`);
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
  const activity = $("activity")?.value ?? "none";
  $("no-times").hidden = found.timeline.length > 0 || (activity === "none" && !given.turns);
  if (found.timeline.length) showTimes(found);
  $("result").hidden = false;
}

function showTimes({ timeline, end }) {
  const place = (element, from, to) => {
    element.style.left = (100 * from) / end + "%";
    element.style.width = (100 * (to - from)) / end + "%";
  };
  // Windows of a segment overlap: the border is the middle of the shared time. Turns of
  // several speakers may overlap, so each speaker has rows.
  const middle = (one, other) => one && other && one.segment === other.segment && (one.end + other.start) / 2;
  const from = (i) => middle(timeline[i - 1], timeline[i]) || timeline[i].start;
  const to = (i) => middle(timeline[i], timeline[i + 1]) || timeline[i].end;
  const parts = [];
  const put = (element, area) => {
    element.style.gridArea = area;
    parts.push(element);
  };
  const emotions = Object.keys(shares(timeline[0]));
  const speakers = [...new Set(timeline.map(speaker))];
  const named = speakers.length > 1 || speakers[0];
  const groups = new Map();
  let row = 1;
  for (const who of speakers) {
    if (named) put(make("div", "speaker", who || "unnamed speaker"), `${row++} / 1 / auto / 3`);
    const top = row;
    for (const emotion of emotions) {
      const cells = make("div", "cells");
      timeline.forEach((window, i) => {
        if (speaker(window) !== who) return;
        const cell = make("div", firsts(window).includes(emotion) ? "cell first" : "cell");
        cell.style.setProperty("--share", shares(window)[emotion].toFixed(3));
        place(cell, from(i), to(i));
        cells.append(cell);
      });
      put(make("div", "name", emotion), `${row} / 1`);
      put(cells, `${row++} / 2`);
    }
    groups.set(who, make("div", "over"));
    groups.get(who).append(make("div", "playhead"));
    put(groups.get(who), `${top} / 2 / ${row} / 3`);
  }
  const axis = make("div", "axis");
  const step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120].find((step) => end / step <= 8) ?? 300;
  for (let time = 0; time <= end; time += step) {
    const tick = make("span", "", time + (time ? "" : " s"));
    tick.style.left = (100 * time) / end + "%";
    axis.append(tick);
  }
  put(axis, `${row} / 2`);
  $("timeline").replaceChildren(...parts);
  boxes = { chosen: make("div", "chosen"), playheads: [...document.querySelectorAll(".playhead")], groups, place };
  for (const playhead of boxes.playheads) playhead.hidden = true;
  $("timeline").setAttribute("aria-valuemax", timeline.length);
  $("who").hidden = !named;
  const line = (window) => {
    const texts = (named ? [speaker(window)] : []).concat(window.values ? [] : names(window));
    const line = make("tr");
    line.append(
      ...[window.start, window.end].map((time) => make("td", "number", time.toFixed(2))),
      ...texts.map((text) => make("td", "", text)),
      ...emotions.map((emotion) => make("td", "number", shown(window, emotion))),
    );
    return line;
  };
  $("windows").replaceChildren(...timeline.map(line));
  choose(0);
}

function choose(i) {
  chosen = i;
  const window = heard.timeline[i];
  const sorted = Object.entries(shares(window)).sort((a, b) => b[1] - a[1]);
  const most = sorted.slice(0, 3).map(([emotion]) => told(window, emotion));
  const who = speaker(window) && `${speaker(window)}, `;
  const text = `${who}${window.start.toFixed(1)} to ${seconds(window.end)}: ${most.join(", ")}`;
  boxes.groups.get(speaker(window)).append(boxes.chosen);
  boxes.place(boxes.chosen, window.start, window.end);
  $("now").textContent = text;
  $("timeline").setAttribute("aria-valuenow", i + 1);
  $("timeline").setAttribute("aria-valuetext", text);
}

// Finds the window at the pointer: the nearest speaker, then the nearest middle.
function windowAt({ clientX, clientY }) {
  const places = [...boxes.groups].map(([who, over]) => ({ who, box: over.getBoundingClientRect() }));
  const above = places.filter(({ box }) => box.top <= clientY);
  const { who, box } = above.at(-1) ?? places[0];
  const time = ((clientX - box.left) / box.width) * heard.end;
  const away = heard.timeline.map((window) =>
    speaker(window) === who ? Math.abs((window.start + window.end) / 2 - time) : Infinity,
  );
  return away.indexOf(Math.min(...away));
}

function playFrom(i) {
  const player = $("player");
  if (player.hidden) return;
  player.currentTime = heard.timeline[i].start;
  player.play().catch(() => {}); // the player itself shows what it cannot play
}

$("timeline").addEventListener("pointermove", (event) => choose(windowAt(event)));
$("timeline").addEventListener("click", (event) => playFrom(windowAt(event)));
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
  for (const playhead of boxes.playheads ?? []) {
    playhead.hidden = false;
    playhead.style.left = (100 * $("player").currentTime) / heard.end + "%";
  }
});
// The model reads some formats that browsers do not.
$("player").addEventListener("error", () => ($("player").hidden = true));

// Chosen or dropped files.

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) take(file, file.name);
});
$("turns")?.addEventListener("change", () => {
  const [file] = $("turns").files;
  takeTurns(file ?? null);
  if (given) classify();
});
$("no-turns")?.addEventListener("click", () => {
  takeTurns(null);
  $("turns").focus(); // the button is gone
  if (given) classify();
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
    const [file] = files;
    if ($("turns") && turnFiles.some((suffix) => file.name.toLowerCase().endsWith(suffix))) {
      takeTurns(file);
      if (given) classify();
    } else {
      $("file").value = "";
      take(file, file.name);
    }
  } else {
    complain(files.length ? "One file at a time, please." : "That was no file.");
  }
});

// Record from the microphone, without the browser's filters, which change the loudness.

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
