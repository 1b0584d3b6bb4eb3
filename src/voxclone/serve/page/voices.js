// The stored voices: play, rename, delete, download, export, import.

import { download, form, getJson, request, sendJson } from "./api.js";
import { Player, decode } from "./audio.js";
import { $, ask, button, make, showError } from "./dom.js";

const CONSENTS = {
  self: "own voice",
  written: "written permission",
  "public-domain": "public domain",
  synthetic: "synthetic",
};

const NAME = { label: "Name", name: "name", maxLength: 64, autocapitalize: "none", spellcheck: false };

let shared, runtimes;
const players = new Map();

export async function setUpVoices(given) {
  shared = given;
  shared.changed.push(show);
  $("import-button").onclick = () => $("import").click();
  $("import").onchange = () => importFile($("import").files[0]);
  runtimes = await getJson("v1/audio/runtimes");
  show();
}

const pathOf = (name) => `v1/audio/voices/${encodeURIComponent(name)}`;

/** Runs an action; an error of it is shown above the list. */
async function attempt(action) {
  showError($("voices-error"), null);
  try {
    await action();
  } catch (error) {
    showError($("voices-error"), error);
    $("voices-error").scrollIntoView({ block: "nearest" });
  }
}

function show() {
  if (!runtimes) return;
  $("no-voices").hidden = shared.stored.length > 0;
  $("voice-list").replaceChildren(...shared.stored.map(item));
}

function item(voice) {
  const { name } = voice;
  const title = make("div", { className: "title", textContent: name });
  const remove = button("Delete", () => erase(name), { "aria-label": `Delete ${name}` });
  if (voice.problem) {
    return make("li", {}, title, make("p", { className: "facts", textContent: voice.problem }), remove);
  }
  const date = new Date(voice.created_at * 1000).toLocaleDateString();
  const facts = [date, CONSENTS[voice.consent], voice.speaker_description].filter(Boolean).join(" · ");
  const sound = make("div");
  if (players.has(name)) sound.append(players.get(name).element);
  const buttons = [
    button("Speak with it", () => use(name), { "aria-label": `Speak with ${name}` }),
    button("Listen", () => listen(name, sound), { "aria-label": `Listen to the reference of ${name}` }),
    button("Rename", () => rename(name), { "aria-label": `Rename ${name}` }),
    button("Download", () => attempt(() => download(`${pathOf(name)}/file`)), { "aria-label": `Download ${name}` }),
    remove,
  ];
  return make(
    "li",
    {},
    title,
    make("div", { className: "facts", textContent: facts }),
    sound,
    make("div", { className: "actions" }, ...buttons),
    exporter(name),
    details(name),
  );
}

function use(name) {
  shared.open("speak");
  $("voice").value = name;
  $("text").focus();
}

function listen(name, sound) {
  return attempt(async () => {
    if (!players.has(name)) {
      const { samples, rate } = await decode(await (await request(`${pathOf(name)}/reference`)).blob());
      players.set(name, new Player(samples, rate, `the reference of ${name}`));
    }
    const player = players.get(name);
    sound.replaceChildren(player.element);
    player.show();
    player.play();
  });
}

async function rename(name) {
  const given = await ask("Rename", `A new name for ${name}:`, "Rename", [
    { ...NAME, value: name, required: true },
  ]);
  const wanted = given?.name.toLowerCase();
  if (!wanted || wanted === name) return;
  await attempt(async () => {
    await sendJson(pathOf(name), "PATCH", { name: wanted });
    forget(name);
    await shared.refresh();
  });
}

async function erase(name) {
  if (!(await ask("Delete", `Delete the voice ${name}? Nothing of it is kept.`, "Delete", [], true))) return;
  await attempt(async () => {
    await request(pathOf(name), { method: "DELETE" });
    forget(name);
    await shared.refresh();
  });
}

function forget(name) {
  players.get(name)?.discard();
  players.delete(name);
}

function exporter(name) {
  const choices = (values) => values.map((value) => make("option", { value, textContent: value }));
  const runtime = make("select", { id: `runtime-${name}` }, ...choices(runtimes.runtimes.map((each) => each.name)));
  const preset = make("select", { id: `preset-${name}` }, ...choices(runtimes.presets));
  const presetField = make("div", { className: "field" }, make("label", { htmlFor: preset.id, textContent: "Replaces the preset" }), preset);
  const about = make("p", { className: "hint" });
  const selected = () => runtimes.runtimes.find((each) => each.name === runtime.value);
  const explain = () => {
    const { download: suffix, use, presets_only: replaces } = selected();
    presetField.hidden = !replaces;
    const file = `${name}-${runtime.value}${suffix}`;
    const unpack = suffix === ".zip" ? "Unpack it as its README.txt says. " : "";
    const command = use.replaceAll("FILE", file).replaceAll("NAME", replaces ? preset.value : name);
    about.textContent = `You get ${file}. ${unpack}Then: ${command}`;
  };
  runtime.onchange = preset.onchange = explain;
  explain();
  const go = () =>
    attempt(() => {
      const query = new URLSearchParams({ runtime: runtime.value });
      if (selected().presets_only) query.set("replace_preset", preset.value);
      return download(`${pathOf(name)}/export?${query}`);
    });
  return make(
    "details",
    {},
    make("summary", { textContent: "Export to another program" }),
    make("div", { className: "field narrow" }, make("label", { htmlFor: runtime.id, textContent: "Program" }), runtime),
    presetField,
    about,
    button("Export", go, { "aria-label": `Export ${name}` }),
  );
}

/** Consent, similarity and reference of a voice, read when the element is opened. */
function details(name) {
  const element = make("details", {}, make("summary", { textContent: "About this voice" }));
  element.ontoggle = () => {
    if (!element.open || element.children.length > 1) return;
    attempt(async () => {
      const voice = await getJson(pathOf(name));
      const lines = [
        `Consent of ${voice.consent_record.date}: ${voice.consent_record.statement}`,
        ...Object.entries(voice.similarity).map(([network, value]) => `Similarity to the recording ${value.toFixed(2)} (${network})`),
        ...voice.reference,
        `License: ${voice.license}`,
        `Made by ${voice.tool}`,
      ];
      element.append(...lines.map((textContent) => make("p", { className: "hint", textContent })));
    });
  };
  return element;
}

function importFile(file) {
  $("import").value = "";
  if (file) importAs(file, `${file.name}: leave the name empty to keep that of the file.`);
}

/** Imports a file under a name that is asked for, again if it is taken. */
async function importAs(file, text, value = "") {
  const given = await ask("Import a voice file", text, "Import", [{ ...NAME, value }]);
  if (!given) return;
  const name = given.name.toLowerCase();
  await attempt(async () => {
    try {
      await request("v1/audio/voices", { method: "POST", body: form({ voice_file: file, name }) });
    } catch (error) {
      if (error.param !== "name") throw error;
      await importAs(file, error.message, name);
      return;
    }
    await shared.refresh();
  });
}
