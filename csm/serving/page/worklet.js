// Sends the microphone in blocks of 20 ms and plays what comes back, after 60 ms have been collected.
class Line extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = Math.round(sampleRate / 50);
    this.input = new Float32Array(this.block);
    this.filled = 0;
    this.queue = [];
    this.waiting = 0;
    this.playing = false;
    this.port.onmessage = ({ data }) => { this.queue.push(data); this.waiting += data.length; };
  }

  process(inputs, outputs) {
    const out = outputs[0][0];
    const heard = inputs[0][0];
    for (let i = 0; i < out.length; i++) {
      this.input[this.filled++] = heard ? heard[i] : 0;
      if (this.filled === this.block) {
        this.port.postMessage(this.input.slice());
        this.filled = 0;
      }
    }
    if (!this.playing && this.waiting >= 3 * this.block) this.playing = true;
    for (let i = 0; i < out.length && this.playing; i++) {
      if (!this.queue.length) { this.playing = false; break; }
      out[i] = this.queue[0][0];
      this.waiting--;
      if (this.queue[0].length === 1) this.queue.shift();
      else this.queue[0] = this.queue[0].subarray(1);
    }
    // More than half a second late: the network stalled and came back; the oldest audio is dropped.
    while (this.waiting > sampleRate / 2 && this.queue.length > 1) this.waiting -= this.queue.shift().length;
    return true;
  }
}
registerProcessor("line", Line);
