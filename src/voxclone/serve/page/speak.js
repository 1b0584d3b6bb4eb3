// Speak: sentence by sentence. Each sentence has its own seed, so that one can be redone alone.

import { speak } from "./api.js";
import { Player, join } from "./audio.js";
import { clearComparison, discardReference, showComparison } from "./compare.js";
import { $, button, make, showError } from "./dom.js";
import { remember, saveTake, setUpHistory } from "./history.js";

const PAUSE = 0.15; // seconds between sentences, as on the server

let shared, take, stopper;

export function setUpSpeak(given) {
  shared = given;
  shared.changed.push(showVoices);
  setUpHistory(shared, useAgain);
  $("speak-form").onsubmit = (event) => { event.preventDefault(); start(); };
  $("stop-button").onclick = () => stopper?.abort();
  $("continue-button").onclick = () => run(missing(), take.sentences);
  $("text").oninput = countText;
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("speak-form").requestSubmit();
  };
  $("download-take").onclick = () => saveTake(take);
  countText();
}

function countText() {
  const count = split($("text").value).length;
  const keys = matchMedia("(pointer: coarse)").matches ? "" : "Ctrl + Enter speaks."; // phones have none
  $("text-count").textContent = count > 1 ? `${count} sentences. You can redo each one alone.` : keys;
}

function showVoices() {
  const selected = $("voice").value;
  const group = (label, names) =>
    make("optgroup", { label }, ...names.map((name) => make("option", { value: name, textContent: name })));
  const usable = shared.stored.filter((voice) => !voice.problem).map((voice) => voice.name);
  const groups = [group("Your voices", usable), group("Presets", shared.presets)];
  $("voice").replaceChildren(...groups.filter((each) => each.children.length));
  if ([...usable, ...shared.presets].includes(selected)) $("voice").value = selected;
}

function useAgain({ text, seed, voice }) {
  $("text").value = text;
  $("seed").value = seed;
  $("voice").value = voice;
  countText();
  $("text").focus();
}

/** Sentences, none longer than the server takes. */
function split(text) {
  const cut = (part) =>
    window.Intl?.Segmenter
      ? [...new Intl.Segmenter(undefined, { granularity: "sentence" }).segment(part)].map((each) => each.segment)
      : part.split(/(?<=[.!?…])\s+/);
  const most = shared.model.max_characters;
  return text
    .split(/\n+/)
    .flatMap(cut)
    .map((each) => each.trim())
    .filter((each) => /[\p{L}\p{N}]/u.test(each))
    .flatMap((each) => each.match(new RegExp(`[^]{1,${most}}`, "g")));
}

/** What of the take was never spoken to its end. */
const missing = () => take.sentences.filter((each) => !each.samples);

const randomSeed = () => Math.floor(Math.random() * 2 ** 31);

async function start() {
  if ($("speak-button").disabled) return;
  const texts = split($("text").value);
  showError($("speak-error"), texts.length ? null : new Error("Type at least one word."));
  if (!texts.length) return;
  const seed = $("seed").value === "" ? randomSeed() : Number($("seed").value);
  discard(take);
  take = {
    voice: $("voice").value,
    cfg: Number($("cfg").value),
    seed,
    sentences: texts.map((text, i) => ({ text, planned: seed + i, state: "waiting", row: make("li") })),
  };
  take.sentences.forEach((sentence) => showSentence(sentence));
  $("sentences").replaceChildren(...take.sentences.map((each) => each.row));
  $("take").hidden = false;
  $("take-title").textContent = `${take.voice}, seed ${seed}`;
  $("take-player").replaceChildren();
  $("download-take").hidden = true;
  clearComparison();
  await run(take.sentences, take.sentences);
}

/** Generates sentences in their order, by their own seeds or by `seed`, and plays those of `played` one by one as soon
 * as they are complete. */
async function run(sentences, played, seed) {
  const continued = document.activeElement === $("continue-button");
  stopper = new AbortController();
  $("speak-button").disabled = true;
  $("stop-button").hidden = false;
  if (continued) $("stop-button").focus();
  $("continue-button").hidden = true;
  showError($("speak-error"), null);
  let spoken = 0;
  try {
    for (const sentence of sentences) {
      await generate(sentence, seed ?? sentence.planned, stopper.signal);
      spoken++;
      if (take.sentences.length > 1) playNext(played);
    }
  } catch (error) {
    if (error.name !== "AbortError") showError($("speak-error"), error);
    for (const each of sentences.filter((one) => one.state !== "done")) {
      each.state = each.samples ? "done" : "stopped";
      showSentence(each);
    }
  } finally {
    const stopped = document.activeElement === $("stop-button");
    $("speak-button").disabled = false;
    $("continue-button").hidden = !missing().length;
    if (stopped) $(missing().length ? "continue-button" : "speak-button").focus();
    $("stop-button").hidden = true;
  }
  if (spoken) await finish();
}

async function generate(sentence, seed, signal) {
  const rate = shared.model.sampling_rate;
  const parts = [];
  let count = 0;
  sentence.state = "speaking";
  showSentence(sentence);
  const body = { model: shared.model.id, voice: take.voice, input: sentence.text, seed, cfg: take.cfg };
  const done = await speak(
    body,
    (samples) => {
      parts.push(samples);
      count += samples.length;
      showSentence(sentence, count / rate);
    },
    signal,
  );
  sentence.player?.discard();
  sentence.samples = join(parts, rate);
  sentence.seed = seed;
  sentence.truncated = done.truncated > 0;
  sentence.played = false;
  sentence.state = "done";
  sentence.player = new Player(sentence.samples, rate, sentence.text.slice(0, 60));
  showSentence(sentence);
}

function showSentence(sentence, seconds = 0) {
  const state = {
    waiting: "waiting",
    speaking: seconds ? `${seconds.toFixed(1)} s …` : "starting …",
    stopped: "stopped",
    done: `seed ${sentence.seed}`,
  }[sentence.state];
  const again = button("Redo", () => redo(sentence), {
    "aria-label": `Redo: ${sentence.text}`,
    disabled: sentence.state === "speaking" || sentence.state === "waiting",
  });
  const children = [
    make("span", { className: "words", textContent: sentence.text }),
    make("span", { className: "state", textContent: state }),
    again,
  ];
  // The player of a single sentence would repeat that of the whole.
  if (sentence.player && take.sentences.length > 1) children.push(sentence.player.element);
  if (sentence.truncated) {
    const text = "The model did not end this sentence. Redo it with another seed.";
    children.push(make("span", { className: "warning", textContent: text }));
  }
  sentence.row.replaceChildren(...children);
}

function redo(sentence) {
  if ($("speak-button").disabled) return;
  run([sentence], [sentence], randomSeed());
}

/** Plays the complete sentences one after the other. */
function playNext(sentences) {
  const next = sentences.find((each) => each.player && !each.played);
  const busy = sentences.some((each) => each.player && !each.player.audio.paused);
  if (!next || busy) return;
  next.played = true;
  next.player.audio.addEventListener("ended", () => playNext(sentences), { once: true });
  next.player.play();
}

/** Shows the speech as far as there is any; the whole is compared with the reference of a stored voice. */
async function finish() {
  const own = take;
  const rate = shared.model.sampling_rate;
  own.player?.discard();
  const spoken = own.sentences.filter((each) => each.samples);
  own.text = spoken.map((each) => each.text).join(" ");
  own.samples = join(spoken.map((each) => each.samples), rate, PAUSE);
  own.player = new Player(own.samples, rate, "the speech");
  $("take-player").replaceChildren(own.player.element);
  $("download-take").hidden = false;
  if (own.sentences.length === 1) own.player.play();
  remember(own);
  clearComparison();
  if (spoken.length < own.sentences.length) return;
  if (!shared.stored.some((voice) => voice.name === own.voice)) return;
  try {
    await showComparison(own, rate, () => own === take);
  } catch (error) {
    if (own === take) showError($("speak-error"), error);
  }
}

function discard(old) {
  if (!old) return;
  discardReference(old);
  old.player?.discard();
  old.sentences.forEach((each) => each.player?.discard());
}
