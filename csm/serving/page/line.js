"use strict";
// What is on the wire: PCM16 at the voice's rate, or Opus packets of 20 ms where the browser codes them.
const OPUS_RATE = 48000;
const OPUS = { codec: "opus", sampleRate: OPUS_RATE, numberOfChannels: 1 };
const OPUS_ENCODER = { ...OPUS, bitrate: 32000, opus: { frameDuration: 20000 } };
const LOOKAHEAD = 312; // samples of silence that libopus begins with

const pcm = (samples) => Int16Array.from(samples, (x) => Math.round(Math.max(-1, Math.min(1, x)) * 32767));

// Why audio is not sent as Opus; empty where it is.
async function no_opus(codecs) {
  if (!codecs.includes("opus")) return "this server codes no Opus";
  const missing = "this browser codes no Opus";
  if (!("AudioEncoder" in window && "AudioDecoder" in window)) return missing;
  try {
    const found = [AudioEncoder.isConfigSupported(OPUS_ENCODER), AudioDecoder.isConfigSupported(OPUS)];
    return (await Promise.all(found)).every(({ supported }) => supported) ? "" : missing;
  } catch {
    return missing;
  }
}

class PcmLine {
  constructor(rate, { send, play }) {
    Object.assign(this, { rate, send, play });
    this.opening = { rate };
  }

  push(samples) { this.send(pcm(samples).buffer); }

  receive(buffer) { this.play(Float32Array.from(new Int16Array(buffer), (x) => x / 32767)); }

  close() {}
}

class OpusLine {
  constructor({ send, play, fail }) {
    this.rate = OPUS_RATE;
    this.opening = { codec: "opus" };
    this.sent = this.received = 0;
    this.skipped = LOOKAHEAD;
    const error = (reason) => fail(`Opus: ${reason.message}`);
    this.encoder = new AudioEncoder({
      error,
      output: (chunk) => {
        const packet = new Uint8Array(chunk.byteLength);
        chunk.copyTo(packet);
        send(packet.buffer);
      },
    });
    this.encoder.configure(OPUS_ENCODER);
    this.decoder = new AudioDecoder({ error, output: (data) => play(this.samples(data)) });
    this.decoder.configure(OPUS);
  }

  push(samples) {
    if (this.encoder.state !== "configured") return;
    const data = new AudioData({
      format: "f32-planar",
      sampleRate: OPUS_RATE,
      numberOfFrames: samples.length,
      numberOfChannels: 1,
      timestamp: (1e6 * this.sent) / OPUS_RATE,
      data: samples,
    });
    this.sent += samples.length;
    this.encoder.encode(data);
    data.close();
  }

  receive(buffer) {
    if (this.decoder.state !== "configured") return;
    this.decoder.decode(new EncodedAudioChunk({ type: "key", timestamp: this.received, data: buffer }));
    this.received += 20000;
  }

  samples(data) {
    const samples = new Float32Array(data.numberOfFrames);
    data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
    data.close();
    const skipped = Math.min(this.skipped, samples.length);
    this.skipped -= skipped;
    return samples.subarray(skipped);
  }

  close() {
    for (const coder of [this.encoder, this.decoder]) if (coder.state !== "closed") coder.close();
  }
}
