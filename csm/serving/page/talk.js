"use strict";
const id = (name) => document.getElementById(name);
const token = new URLSearchParams(location.search).get("token") || "";
const SECONDS_SHOWN = 30;
let context, player, line, socket, microphone, codecs = [], rate = 0;
const user = [], voice = [], turns = [];
const spans = { user: [], voice: [] };

const say = (text) => { id("status").textContent = text; };
const total = (blocks) => blocks.reduce((sum, block) => sum + block.length, 0);
// Events count samples at the voice's rate; the blocks that are kept have the line's.
const place = (at) => Math.round((at * line.rate) / rate);

async function describe() {
  const answer = await fetch("/health", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  const health = await answer.json();
  if (!answer.ok) { say(health.error.message); return; }
  [rate, codecs] = [health.rate, health.codecs];
  for (const name of health.voices) id("speaker").add(new Option(name));
  for (const name of health.styles) id("style").add(new Option(name));
  id("styles").hidden = !health.styles.length;
  for (const name of health.repliers) id("replier").add(new Option(name));
}

// One line to the server, opened once: it carries silence while the microphone is off.
let opening = null;
const open = () => (opening ??= begin());

async function begin() {
  const reason = await no_opus(codecs);
  const ends = { send, play: spoken, fail };
  line = reason ? new PcmLine(rate, ends) : new OpusLine(ends);
  coded = reason ? `PCM16: ${reason}` : "Opus";
  context = new AudioContext({ sampleRate: line.rate });
  await context.audioWorklet.addModule("/page/worklet.js");
  player = new AudioWorkletNode(context, "line", { numberOfInputs: 1, outputChannelCount: [1] });
  player.connect(context.destination);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/talk?token=${encodeURIComponent(token)}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => (typeof data === "string" ? received(JSON.parse(data)) : line.receive(data));
  socket.onclose = closed;
  await new Promise((resolve) => { socket.onopen = resolve; });
  const speaker = id("speaker").value || null;
  const style = id("style").value || null, replier = id("replier").value || null;
  socket.send(JSON.stringify({ ...line.opening, speaker, style, replier }));
  await new Promise((resolve) => { ready = resolve; });
  player.port.onmessage = ({ data }) => heard(data);
  for (const name of ["speaker", "style", "replier"]) id(name).disabled = true;
  id("interrupt").disabled = id("save").disabled = false;
}

let ready = () => {}, coded = "", failure = "";

// A coder that fails ends the conversation; the page says why instead of that it has ended.
function fail(text) {
  failure = text;
  say(text);
  if (socket) socket.close();
}

function send(message) {
  if (socket.readyState === WebSocket.OPEN) socket.send(message);
}

function heard(samples) {
  if (socket.readyState !== WebSocket.OPEN) return;
  user.push(pcm(samples));
  line.push(samples);
}

function spoken(samples) {
  voice.push(pcm(samples));
  player.port.postMessage(samples);
}

function received(message) {
  if (message.type === "ready") { say(`Talk: the voice answers when you pause. Audio is sent as ${coded}.`); ready(); }
  else if (message.type === "error") say(message.message);
  else if (message.type === "event") happened(message);
}

function happened({ kind, at, since, text }) {
  if (kind === "user_begins") { spans.user.push([since, null]); say("You have the floor."); }
  if (kind === "user_ends") close_span("user", since);
  if (kind === "voice_begins") { spans.voice.push([at, null]); say("The voice has the floor."); }
  if (kind === "voice_ends") { close_span("voice", since); say("The floor is free."); }
  if (kind === "backchannel") spans.user.push([since, at]);
  if (kind === "barge_in") say("Interrupted: the voice is silent.");
  if (kind === "failed") say(`No reply: ${text}.`);
  if (kind === "heard" && text) write({ who: "user", start: since, end: last_end("user", at), text });
  if (kind === "said") write({ who: "voice", start: since, end: last_end("voice", at), text });
}

function close_span(who, end) {
  const span = spans[who].at(-1);
  if (span && span[1] === null) span[1] = end;
}

function last_end(who, otherwise) {
  const span = spans[who].at(-1);
  return (span && span[1]) || otherwise;
}

function write(turn) {
  turns.push(turn);
  const item = document.createElement("li");
  item.className = turn.who;
  const time = document.createElement("time");
  time.textContent = `${(turn.start / rate).toFixed(1)} s`;
  const name = turn.who === "user" ? "you: " : `${id("speaker").value}: `;
  const replay = document.createElement("button");
  replay.textContent = "Replay";
  replay.setAttribute("aria-label", `Replay ${turn.text}`);
  replay.onclick = () => play(turn);
  item.append(time, name, turn.text, replay);
  id("transcript").append(item);
}

function joined(blocks) {
  const whole = new Int16Array(total(blocks));
  let first = 0;
  for (const block of blocks) { whole.set(block, first); first += block.length; }
  return whole;
}

function play(turn) {
  const samples = joined(turn.who === "user" ? user : voice).subarray(place(turn.start), place(turn.end));
  if (!samples.length) { say("This turn was typed: it has no audio."); return; }
  const buffer = context.createBuffer(1, samples.length, line.rate);
  buffer.copyToChannel(Float32Array.from(samples, (x) => x / 32767), 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
}

function draw() {
  if (!line) return;
  const now = (total(voice) * rate) / line.rate, first = Math.max(0, now - SECONDS_SHOWN * rate);
  for (const who of ["user", "voice"]) {
    const bars = spans[who].filter(([, end]) => end === null || end > first).map(([start, end]) => {
      const bar = document.createElement("i");
      const left = Math.max(0, start - first), right = (end === null ? now : end) - first;
      bar.style.left = `${(100 * left) / (SECONDS_SHOWN * rate)}%`;
      bar.style.width = `${(100 * Math.max(0, right - left)) / (SECONDS_SHOWN * rate)}%`;
      return bar;
    });
    id(`lane-${who}`).replaceChildren(...bars);
  }
}

function closed({ reason }) {
  say(failure || (reason ? `Ended: ${reason}.` : "The conversation has ended. Reload the page for another one."));
  id("talk").disabled = id("interrupt").disabled = true;
  line.close();
  if (microphone) microphone.getTracks().forEach((track) => track.stop());
}

async function toggle() {
  try {
    await open();
    if (microphone) {
      microphone.getTracks().forEach((track) => track.stop());
      microphone = null;
    } else {
      const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
      microphone = await navigator.mediaDevices.getUserMedia({ audio });
      context.createMediaStreamSource(microphone).connect(player);
    }
    await context.resume();
    id("talk").setAttribute("aria-pressed", String(Boolean(microphone)));
    id("talk").textContent = microphone ? "Mute" : "Talk";
  } catch (error) {
    say(`The microphone is not available (${error.message}): type instead.`);
  }
}

async function typed(event) {
  event.preventDefault();
  const text = id("text").value.trim();
  if (!text) return;
  await open();
  await context.resume();
  send(JSON.stringify({ type: "text", text }));
  id("text").value = "";
}

// Two channels, you left and the voice right, and a transcript: csm prepare --corpus folder reads both.
function wav() {
  const left = joined(user), right = joined(voice), length = Math.min(left.length, right.length);
  const view = new DataView(new ArrayBuffer(44 + 4 * length));
  const letters = (first, text) => [...text].forEach((c, i) => view.setUint8(first + i, c.charCodeAt(0)));
  letters(0, "RIFF"); view.setUint32(4, 36 + 4 * length, true); letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 2, true);
  view.setUint32(24, line.rate, true); view.setUint32(28, 4 * line.rate, true);
  view.setUint16(32, 4, true); view.setUint16(34, 16, true);
  letters(36, "data"); view.setUint32(40, 4 * length, true);
  for (let i = 0; i < length; i++) {
    view.setInt16(44 + 4 * i, left[i], true);
    view.setInt16(46 + 4 * i, right[i], true);
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}

function transcript() {
  const end = Math.min(total(user), total(voice));
  const rows = turns.filter((turn) => turn.start < turn.end && place(turn.end) <= end).map((turn) => ({
    speaker: turn.who === "user" ? "YOU" : id("speaker").value,
    channel: turn.who === "user" ? 0 : 1,
    start: turn.start / rate,
    end: turn.end / rate,
    text: turn.text,
  }));
  return new Blob([JSON.stringify({ turns: rows }, null, 1)], { type: "application/json" });
}

function save() {
  for (const [name, blob] of [["conversation.wav", wav()], ["conversation.json", transcript()]]) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
}

id("talk").onclick = toggle;
id("typed").onsubmit = typed;
id("interrupt").onclick = () => send(JSON.stringify({ type: "interrupt" }));
id("save").onclick = save;
setInterval(draw, 200);
describe();
