// Samples, WAV files, and a player with a waveform.

/** A mono WAV of 16 bits. */
export function wavBlob(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => {
    view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true);
  });
  return new Blob([view], { type: "audio/wav" });
}

export function join(parts, rate, pause = 0) {
  const gap = Math.round(pause * rate);
  const total = parts.reduce((sum, part) => sum + part.length + gap, -gap);
  const joined = new Float32Array(Math.max(0, total));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length + gap;
  }
  return joined;
}

/** Whatever the browser can decode, as mono samples. */
export async function decode(blob) {
  const context = new OfflineAudioContext(1, 1, 48000);
  const buffer = await context.decodeAudioData(await blob.arrayBuffer());
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / buffer.numberOfChannels;
  }
  return { samples: mono, rate: buffer.sampleRate };
}

const players = new Set();
let playing = null;

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => players.forEach((each) => each.show()));

/** A button, a waveform to seek in, and the time. `label` names the sound for screen readers. */
export class Player {
  constructor(samples, rate, label) {
    this.samples = samples;
    this.seconds = samples.length / rate;
    this.audio = new Audio(URL.createObjectURL(wavBlob(samples, rate)));
    this.element = document.createElement("div");
    this.element.className = "player";
    this.button = document.createElement("button");
    this.button.type = "button";
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "slider");
    this.canvas.setAttribute("aria-label", `Position in ${label}`);
    this.canvas.setAttribute("aria-valuemin", "0");
    this.canvas.setAttribute("aria-valuemax", this.seconds.toFixed(1));
    this.time = document.createElement("span");
    this.time.className = "time";
    this.element.append(this.button, this.canvas, this.time);
    this.label = label;
    this.button.onclick = () => this.toggle();
    this.canvas.onclick = (event) => this.seek((event.offsetX / this.canvas.clientWidth) * this.seconds);
    this.canvas.onkeydown = (event) => this.key(event);
    for (const kind of ["play", "pause", "ended", "timeupdate", "seeked"]) {
      this.audio.addEventListener(kind, () => this.show());
    }
    this.watch = new ResizeObserver(() => this.show());
    this.watch.observe(this.canvas);
    players.add(this);
    this.show();
  }

  toggle() {
    if (this.audio.paused) this.play();
    else this.audio.pause();
  }

  play() {
    if (playing !== this) playing?.audio.pause();
    playing = this;
    return this.audio.play().catch(() => this.show());
  }

  seek(seconds) {
    this.audio.currentTime = Math.max(0, Math.min(this.seconds, seconds));
    this.show();
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
    if (event.key in steps) this.seek(this.audio.currentTime + steps[event.key]);
    else if (event.key === "Home") this.seek(0);
    else if (event.key === "End") this.seek(this.seconds);
    else if (event.key === " " || event.key === "Enter") this.toggle();
    else return;
    event.preventDefault();
  }

  show() {
    const at = this.audio.currentTime;
    const on = !this.audio.paused && !this.audio.ended;
    this.button.textContent = on ? "❚❚" : "▶";
    this.button.setAttribute("aria-label", `${on ? "Pause" : "Play"} ${this.label}`);
    this.time.textContent = `${at.toFixed(1)} / ${this.seconds.toFixed(1)} s`;
    this.canvas.setAttribute("aria-valuenow", at.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", `${at.toFixed(1)} of ${this.seconds.toFixed(1)} seconds`);
    drawWave(this.canvas, this.samples, this.seconds ? at / this.seconds : 0);
  }

  /** Frees the sound; the player must not be used any more. */
  discard() {
    this.audio.pause();
    this.watch.disconnect();
    players.delete(this);
    URL.revokeObjectURL(this.audio.src);
    this.element.remove();
  }
}

/** Bars of the peaks; those before `share` in the accent. */
function drawWave(canvas, samples, share) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth * scale;
  const height = canvas.clientHeight * scale;
  if (!width || !height) return;
  canvas.width = width;
  canvas.height = height;
  const style = getComputedStyle(document.documentElement);
  const paint = canvas.getContext("2d");
  const step = 4 * scale;
  const bars = Math.max(1, Math.floor(width / step));
  const each = samples.length / bars;
  const loudest = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3);
  for (let bar = 0; bar < bars; bar++) {
    let peak = 0;
    const end = Math.min(samples.length, Math.ceil((bar + 1) * each));
    for (let i = Math.floor(bar * each); i < end; i++) peak = Math.max(peak, Math.abs(samples[i]));
    const tall = Math.max(2 * scale, (peak / loudest) * height * 0.94);
    paint.fillStyle = style.getPropertyValue(bar / bars < share ? "--accent" : "--wave");
    paint.fillRect(bar * step, (height - tall) / 2, 2.5 * scale, tall);
  }
}
