// In the audio thread: hands on the samples of the microphone, about 20 times a second.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.waiting = [];
    this.count = 0;
  }

  process([input]) {
    if (input.length) {
      this.waiting.push(input[0].slice());
      this.count += input[0].length;
    }
    if (this.count >= sampleRate / 20) {
      const samples = new Float32Array(this.count);
      let at = 0;
      for (const part of this.waiting) {
        samples.set(part, at);
        at += part.length;
      }
      this.port.postMessage(samples, [samples.buffer]);
      this.waiting = [];
      this.count = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);
