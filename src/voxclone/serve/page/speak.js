// Speak: sentence by sentence, each with its own seed, so that one can be said again alone.

import { form, request, saveBlob, speak } from "./api.js";
import { Player, decode, join, wavBlob } from "./audio.js";
import { $, button, fileName, make, showError } from "./dom.js";

const PAUSE = 0.15; // seconds between sentences, as the server makes them
const COMPARED = 60; // seconds of speech that are compared with the reference
const KEPT = 20; // takes in the history

let shared, take, stopper;
const history = [];

export function setUpSpeak(given) {
  shared = given;
  shared.changed.push(showVoices);
  $("speak-form").onsubmit = (event) => { event.preventDefault(); start(); };
  $("stop-button").onclick = () => stopper?.abort();
  $("text").oninput = countText;
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("speak-form").requestSubmit();
  };
  $("download-take").onclick = () => save(take);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  countText();
}

function redraw() {
  const shown = [take?.player, take?.reference, ...(take?.sentences ?? []).map((each) => each.player)];
  [...shown, ...history.map((each) => each.player)].forEach((player) => player?.show());
}

function countText() {
  const sentences = split($("text").value).length;
  $("text-count").textContent =
    sentences > 1 ? `${sentences} sentences; each can be spoken again by itself.` : "Ctrl + Enter speaks.";
}

function showVoices() {
  const chosen = $("voice").value;
  const group = (label, names) =>
    make("optgroup", { label }, ...names.map((name) => make("option", { value: name, textContent: name })));
  const usable = shared.stored.filter((voice) => !voice.problem).map((voice) => voice.name);
  const groups = [group("Your voices", usable), group("Presets", shared.presets)];
  $("voice").replaceChildren(...groups.filter((each) => each.children.length));
  if ([...usable, ...shared.presets].includes(chosen)) $("voice").value = chosen;
}

function isOwn(name) {
  return shared.stored.some((voice) => voice.name === name);
}

/** Sentences, none longer than the server takes. */
export function split(text) {
  const cut = (part) =>
    window.Intl?.Segmenter
      ? [...new Intl.Segmenter(undefined, { granularity: "sentence" }).segment(part)].map((each) => each.segment)
      : part.split(/(?<=[.!?…])\s+/);
  const most = shared?.model?.max_characters ?? 4096;
  return text
    .split(/\n+/)
    .flatMap(cut)
    .map((each) => each.trim())
    .filter((each) => /[\p{L}\p{N}]/u.test(each))
    .flatMap((each) => each.match(new RegExp(`[^]{1,${most}}`, "g")));
}

async function start() {
  const texts = split($("text").value);
  showError($("speak-error"), texts.length ? null : new Error("Type at least one word."));
  if (!texts.length) return;
  const given = $("seed").value;
  const seed = given === "" ? Math.floor(Math.random() * 2 ** 31) : Number(given);
  forget(take);
  take = {
    voice: $("voice").value,
    cfg: Number($("cfg").value),
    seed,
    sentences: texts.map((text, i) => ({ text, seed: seed + i, parts: [], state: "waiting" })),
  };
  $("take").hidden = false;
  $("take-title").textContent = `${take.voice}, seed ${seed}`;
  $("pair").replaceChildren();
  $("scale").replaceChildren();
  $("download-take").hidden = true;
  take.sentences.forEach((sentence) => { sentence.row = make("li"); showSentence(sentence); });
  $("sentences").replaceChildren(...take.sentences.map((each) => each.row));
  await run(take.sentences);
}

/** Speaks sentences in their order; the first is heard as soon as it is there. */
async function run(sentences) {
  const own = take;
  stopper = new AbortController();
  $("speak-button").disabled = true;
  $("stop-button").hidden = false;
  showError($("speak-error"), null);
  try {
    for (const sentence of sentences) {
      await speakSentence(own, sentence, stopper.signal);
      if (own === take) autoplay(own, sentences);
    }
  } catch (error) {
    if (error.name !== "AbortError") showError($("speak-error"), error);
    for (const each of sentences.filter((one) => one.state !== "done")) {
      each.state = each.samples ? "done" : "stopped";
      showSentence(each);
    }
  } finally {
    $("speak-button").disabled = false;
    $("stop-button").hidden = true;
  }
  if (own === take && own.sentences.every((each) => each.samples)) await finish(own);
}

async function speakSentence(own, sentence, signal) {
  const rate = shared.model.sampling_rate;
  const parts = [];
  let count = 0;
  sentence.state = "speaking";
  showSentence(sentence, 0);
  const body = { model: shared.model.id, voice: own.voice, input: sentence.text, seed: sentence.seed, cfg: own.cfg };
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
  sentence.truncated = done.truncated > 0;
  sentence.state = "done";
  sentence.player = new Player(sentence.samples, rate, sentence.text.slice(0, 60));
  showSentence(sentence);
}

function showSentence(sentence, seconds = 0) {
  const state = {
    waiting: "waits",
    speaking: seconds ? `${seconds.toFixed(1)} s …` : "begins …",
    stopped: "stopped",
    done: `seed ${sentence.seed}`,
  }[sentence.state];
  const again = button("Again", () => redo(sentence), {
    "aria-label": `Say again: ${sentence.text}`,
    disabled: sentence.state === "speaking" || sentence.state === "waiting",
  });
  const children = [
    make("span", { className: "words", textContent: sentence.text }),
    make("span", { className: "state", textContent: state }),
    again,
  ];
  const single = take.sentences.length === 1;
  if (sentence.player && !single) {
    const full = make("div", {}, sentence.player.element);
    full.className = "words";
    children.push(full);
  }
  if (sentence.truncated) {
    const text = "The model did not end this by itself. Say it again for another try.";
    children.push(make("span", { className: "warning", textContent: text }));
  }
  sentence.row.replaceChildren(...children);
}

function redo(sentence) {
  if ($("speak-button").disabled) return;
  sentence.seed = Math.floor(Math.random() * 2 ** 31);
  sentence.truncated = false;
  run([sentence]);
}

/** Plays what is there, sentence after sentence, as far as it has been made. */
function autoplay(own, sentences) {
  const next = sentences.find((each) => each.player && !each.heard);
  const busy = sentences.some((each) => each.player && !each.player.audio.paused);
  if (!next || busy || own !== take) return;
  next.heard = true;
  next.player.audio.addEventListener("ended", () => autoplay(own, sentences), { once: true });
  next.player.play();
}

/** The whole of a take: its player, beside the reference of an own voice; similarity; history. */
async function finish(own) {
  const rate = shared.model.sampling_rate;
  own.player?.discard();
  own.samples = join(own.sentences.map((each) => each.samples), rate, PAUSE);
  own.player = new Player(own.samples, rate, "the speech");
  const sides = [make("div", {}, make("h3", { textContent: "Speech" }), own.player.element)];
  $("download-take").hidden = false;
  $("pair").classList.toggle("two", isOwn(own.voice));
  $("pair").replaceChildren(...sides);
  remember(own);
  if (!isOwn(own.voice)) {
    $("scale").replaceChildren();
    return;
  }
  try {
    const place = `v1/audio/voices/${encodeURIComponent(own.voice)}`;
    if (!own.reference) {
      const { samples, rate: found } = await decode(await (await request(`${place}/reference`)).blob());
      own.reference = new Player(samples, found, "the reference");
    }
    if (own !== take) return;
    $("pair").append(make("div", {}, make("h3", { textContent: "Reference, as the voice keeps it" }), own.reference.element));
    own.reference.show();
    const part = own.samples.subarray(0, COMPARED * rate);
    const file = new File([wavBlob(part, rate)], "speech.wav", { type: "audio/wav" });
    const options = { method: "POST", body: form({ audio_sample: file }) };
    const found = await (await request(`${place}/similarity`, options)).json();
    if (own === take) showScale(found);
  } catch (error) {
    showError($("speak-error"), error);
  }
}

function showScale({ similarity, same_speaker: same, strangers }) {
  const [low, high] = [strangers - 0.25, Math.min(1, same + 0.25)];
  const at = (value) => `${Math.max(0, Math.min(100, (100 * (value - low)) / (high - low)))}%`;
  const tick = (value, text) => {
    const element = make("span", { className: "tick", textContent: `${text} ${value.toFixed(2)}` });
    element.style.left = at(value);
    return element;
  };
  const pin = make("span", { className: "pin" });
  pin.style.left = at(similarity);
  const words =
    similarity >= same ? "as alike as one person's own recordings"
    : similarity <= strangers ? "no more alike than strangers"
    : "between strangers and one person's own recordings";
  const bar = make("div", { className: "bar", "aria-hidden": "true" }, pin, tick(strangers, "strangers"), tick(same, "one person's own"));
  $("scale").replaceChildren(
    make("div", { className: "scale" },
      make("p", {}, make("b", { textContent: `Similarity ${similarity.toFixed(2)}` }), `: ${words}.`), bar),
  );
}

function save(one) {
  const blob = wavBlob(one.samples, shared.model.sampling_rate);
  saveBlob(blob, `${one.voice}-${fileName(one.text ?? one.sentences[0].text)}.wav`);
}

function remember(own) {
  const known = history.find((each) => each.take === own);
  const entry = known ?? { take: own };
  entry.voice = own.voice;
  entry.seed = own.seed;
  entry.text = own.sentences.map((each) => each.text).join(" ");
  entry.samples = own.samples;
  entry.player?.discard();
  entry.player = new Player(own.samples, shared.model.sampling_rate, `${own.voice}: ${entry.text.slice(0, 60)}`);
  if (!known) history.unshift(entry);
  if (history.length > KEPT) history.pop().player.discard();
  $("history").hidden = false;
  $("history-list").replaceChildren(...history.map(historyItem));
}

function historyItem(entry) {
  const use = () => {
    $("text").value = entry.text;
    $("seed").value = entry.seed;
    $("voice").value = entry.voice;
    countText();
    $("text").focus();
  };
  return make(
    "li",
    {},
    make("div", { className: "title", textContent: entry.text.length > 120 ? `${entry.text.slice(0, 120)} …` : entry.text }),
    make("div", { className: "facts", textContent: `${entry.voice}, seed ${entry.seed}` }),
    entry.player.element,
    make("div", { className: "actions" }, button("Use again", use), button("Download", () => save(entry))),
  );
}

function forget(one) {
  one?.player?.discard();
  one?.reference?.discard();
  one?.sentences.forEach((each) => each.player?.discard());
}
