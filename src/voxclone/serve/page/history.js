// The speech of this visit.

import { saveBlob } from "./api.js";
import { Player, wavBlob } from "./audio.js";
import { $, button, fileName, make } from "./dom.js";

const KEPT = 20;
const SHOWN = 120; // characters of a text

let shared, useAgain;
const entries = [];

export function setUpHistory(given, use) {
  shared = given;
  useAgain = use;
}

/** Adds a take, or replaces its samples after a redo. */
export function remember(take) {
  const known = entries.find((each) => each.take === take);
  const entry = known ?? { take };
  entry.player?.discard();
  const { voice, seed, text, samples } = take;
  entry.values = { voice, seed, text, samples };
  entry.player = new Player(samples, shared.model.sampling_rate, `${voice}: ${text.slice(0, 60)}`);
  if (!known) entries.unshift(entry);
  if (entries.length > KEPT) entries.pop().player.discard();
  $("history").hidden = false;
  $("history-list").replaceChildren(...entries.map(item));
}

export function saveTake({ voice, text, samples }) {
  saveBlob(wavBlob(samples, shared.model.sampling_rate), `${voice}-${fileName(text)}.wav`);
}

function item({ values, player }) {
  const { voice, seed, text } = values;
  return make(
    "li",
    {},
    make("div", { className: "title", textContent: text.length > SHOWN ? `${text.slice(0, SHOWN)} …` : text }),
    make("div", { className: "facts", textContent: `${voice}, seed ${seed}` }),
    player.element,
    make(
      "div",
      { className: "actions" },
      button("Use again", () => useAgain(values)),
      button("Download", () => saveTake(values)),
    ),
  );
}
