// The page: waits for the server, and switches views.

import { ApiError, getJson, setKey } from "./api.js";
import { $, ask } from "./dom.js";
import { setUpClone } from "./clone.js";
import { setUpSpeak } from "./speak.js";
import { setUpVoices } from "./voices.js";

const VIEWS = ["speak", "clone", "voices"];

/** State of all views: the model, the voices, and callbacks for changes. */
const shared = { model: null, presets: [], stored: [], refresh, open: openView, changed: [] };

function openView(name, focus = true) {
  for (const view of VIEWS) {
    const selected = view === name;
    $(view).hidden = !selected;
    $(`tab-${view}`).setAttribute("aria-selected", String(selected));
    $(`tab-${view}`).tabIndex = selected ? 0 : -1;
  }
  if (focus) $(`tab-${name}`).focus();
}

function setUpTabs() {
  for (const view of VIEWS) {
    $(`tab-${view}`).onclick = () => openView(view);
    $(`tab-${view}`).onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) openView(VIEWS[(VIEWS.indexOf(view) + step + VIEWS.length) % VIEWS.length]);
    };
  }
}

/** Reads the voices again and lets every view show them. */
async function refresh() {
  const { voices, uploaded_voices: uploaded } = await getJson("v1/audio/voices");
  shared.presets = voices.filter((voice) => voice.kind === "preset").map((voice) => voice.name);
  const known = Object.fromEntries(uploaded.map((voice) => [voice.name, voice]));
  shared.stored = voices
    .filter((voice) => voice.kind === "stored")
    .map((voice) => ({ ...voice, ...known[voice.name] }));
  shared.changed.forEach((show) => show());
}

function showStatus(text, kind = "") {
  $("status").textContent = text;
  $("status").className = `chip ${kind}`;
}

/** Waits for the model, asks for the key where one is needed, and fills the page. */
async function begin() {
  for (;;) {
    try {
      const ready = await fetch("ready");
      if (!ready.ok) {
        const { error } = await ready.json();
        if (error.code === "load_failed") return showStatus("The model could not be loaded", "off");
        showStatus("Loading the model …");
        await new Promise((resolve) => setTimeout(resolve, 1000));
        continue;
      }
      [shared.model] = (await getJson("v1/models")).data;
      break;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        const given = await ask("API key", "This server asks for its key. It is kept for this tab only.", "Use it", [
          { label: "Key", name: "key", type: "password", required: true },
        ]);
        if (!given) return showStatus("The server asks for a key: reload to enter it", "off");
        setKey(given.key);
      } else {
        showStatus("The server cannot be reached", "off");
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
  }
  showStatus(`Ready · ${shared.model.id}`, "ready");
  setUpSpeak(shared);
  setUpClone(shared);
  setUpVoices(shared);
  await refresh();
  if (!shared.stored.length && shared.model.can_clone) openView("clone", false);
}

setUpTabs();
begin();
