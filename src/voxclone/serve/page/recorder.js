// The microphone: raw samples through a worklet, without compression or noise suppression.

export const MOST_SECONDS = 30;
const RESUME_MS = 5000;

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
    try {
      await this.context.audioWorklet.addModule("page/capture.js");
      await this.resume();
    } catch (error) {
      this.release();
      throw error;
    }
    this.node = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => this.take(data);
    this.context.createMediaStreamSource(this.stream).connect(this.node);
  }

  /** Starts the audio clock. Firefox waits for ever where the computer has no sound output. */
  async resume() {
    const late = new Promise((resolve) => setTimeout(() => resolve("late"), RESUME_MS));
    if ((await Promise.race([this.context.resume(), late])) === "late") {
      throw new DOMException("The audio clock does not start.", "NotReadableError");
    }
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
    this.node.port.onmessage = null;
    await this.release();
    return { parts: this.parts, rate };
  }

  release() {
    this.stream.getTracks().forEach((track) => track.stop());
    return this.context.close();
  }
}
