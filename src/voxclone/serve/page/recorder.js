// The microphone: raw samples through a worklet, so that nothing is coded or "improved" on the way.

export const MOST_SECONDS = 30;

export function canRecord() {
  return Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);
}

export class Recorder {
  /** Calls `onLevel(peak, seconds)` while it records, and `onFull()` at the longest length. */
  constructor(onLevel, onFull) {
    this.onLevel = onLevel;
    this.onFull = onFull;
    this.parts = [];
    this.count = 0;
  }

  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("page/capture.js");
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
    await this.context.resume();
  }

  take(samples) {
    this.parts.push(samples);
    this.count += samples.length;
    const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    this.onLevel(peak, this.count / this.context.sampleRate);
    if (this.count >= MOST_SECONDS * this.context.sampleRate) this.onFull();
  }

  /** Ends the recording: its parts and their rate. The microphone is free afterwards. */
  async stop() {
    const rate = this.context.sampleRate;
    this.stream.getTracks().forEach((track) => track.stop());
    this.node.port.onmessage = null;
    await this.context.close();
    return { parts: this.parts, rate };
  }
}
