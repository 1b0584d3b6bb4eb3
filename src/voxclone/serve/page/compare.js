// Speech beside the reference of its voice: both players, and their similarity on a scale.

import { form, request } from "./api.js";
import { Player, decode, wavBlob } from "./audio.js";
import { $, make } from "./dom.js";

const COMPARED_SECONDS = 60;

export function clearComparison() {
  $("comparison").hidden = true;
  $("scale").replaceChildren();
}

/** Reads the reference and the similarity; shows both while `isCurrent()`. Throws ApiError. */
export async function showComparison(take, rate, isCurrent) {
  const path = `v1/audio/voices/${encodeURIComponent(take.voice)}`;
  if (!take.reference) {
    const decoded = await decode(await (await request(`${path}/reference`)).blob());
    take.reference = new Player(decoded.samples, decoded.rate, "the reference");
  }
  if (!isCurrent()) return discardReference(take);
  $("reference-player").replaceChildren(take.reference.element);
  $("comparison").hidden = false;
  take.reference.show();
  const part = take.samples.subarray(0, COMPARED_SECONDS * rate);
  const file = new File([wavBlob(part, rate)], "speech.wav", { type: "audio/wav" });
  const response = await request(`${path}/similarity`, { method: "POST", body: form({ audio_sample: file }) });
  const result = await response.json();
  if (isCurrent()) showScale(result);
}

export function discardReference(take) {
  take.reference?.discard();
  take.reference = null;
}

function showScale({ similarity, same_speaker: same, other_speakers: other }) {
  const [low, high] = [other - 0.25, Math.min(1, same + 0.25)];
  const left = (value) => `${Math.max(0, Math.min(100, (100 * (value - low)) / (high - low)))}%`;
  const tick = (value, text) => {
    const element = make("span", { className: "tick", textContent: `${text} ${value.toFixed(2)}` });
    element.style.left = left(value);
    return element;
  };
  const pin = make("span", { className: "pin" });
  pin.style.left = left(similarity);
  const words =
    similarity >= same ? "as similar as two recordings of one person"
    : similarity <= other ? "no more similar than two people"
    : "between two people and two recordings of one person";
  const bar = make("div", { className: "bar", "aria-hidden": "true" }, pin, tick(other, "two people"), tick(same, "one person"));
  const value = make("b", { textContent: `Similarity ${similarity.toFixed(2)}` });
  $("scale").replaceChildren(make("div", { className: "scale" }, make("p", {}, value, `: ${words}.`), bar));
}
