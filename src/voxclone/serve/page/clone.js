// A new voice: record or choose a clip, check it at once, consent, name, make.

import { form, makeVoice, request } from "./api.js";
import { Player, decode, join, wavBlob } from "./audio.js";
import { $, make, showError } from "./dom.js";
import { MOST_SECONDS, Recorder, canRecord } from "./recorder.js";

const NAMES = {
  length: "Length",
  level: "Level",
  noise: "Background",
  clipping: "Clipping",
  bandwidth: "Sound quality",
  speakers: "Speakers",
};
const MARKS = { good: "✓", fair: "!", bad: "✗" };
const SPOKEN = { good: "good", fair: "could be better", bad: "not good" };
const VERDICTS = {
  good: "This clip is good. Go on with step 2.",
  fair: "This clip works. It could be better:",
  bad: "Better record this again:",
};
const STAGES = {
  reference: [40, "Choosing the best part of the recording …"],
  codes: [60, "Turning it into a voice …"],
  voice: [80, "Comparing the voice with the recording …"],
  saving: [95, "Saving …"],
};
const READABLE = /\.(wav|flac|ogg|oga|opus|mp3|aiff?)$/i;
const HINTS = { quiet: "Speak up, or come closer.", loud: "Too loud: move back a little.", fine: "Good level." };

let shared, recorder, clip, player;
let checks = 0; // started so far; the report of an older clip is dropped

export function setUpClone(given) {
  shared = given;
  $("cannot-clone").hidden = shared.model.can_clone;
  $("cannot-clone").textContent = shared.model.why_not ?? "";
  $("clone-form").hidden = !shared.model.can_clone;
  $("record").onclick = () => (recorder ? endRecording() : startRecording());
  $("file").onchange = () => $("file").files[0] && useFile($("file").files[0]);
  $("name").oninput = () => { $("name").value = $("name").value.toLowerCase().replace(/\s/g, "-"); };
  $("clone-form").onsubmit = (event) => { event.preventDefault(); makeIt(); };
  const drop = $("drop");
  drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) useFile(event.dataTransfer.files[0]);
  };
  if (!canRecord()) {
    $("record").disabled = true;
    $("record-label").textContent = "Recording needs https or localhost";
  }
}

async function startRecording() {
  showError($("clip-error"), null);
  const peaks = [];
  const started = new Recorder((peak, seconds) => showLevel(peaks, peak, seconds), endRecording);
  $("record").disabled = true;
  try {
    await started.start();
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    const message = refused
      ? "The browser may not use the microphone. Allow it in the address bar, or choose a file."
      : `There is no microphone that can be used (${error.name}). Choose a file instead.`;
    showError($("clip-error"), new Error(message));
    return;
  } finally {
    $("record").disabled = false;
  }
  recorder = started;
  $("record").classList.add("on");
  $("record-label").textContent = "Stop";
  $("meter").hidden = false;
}

async function endRecording() {
  const ended = recorder;
  recorder = null;
  if (!ended) return;
  $("record").classList.remove("on");
  $("record-label").textContent = "Record again";
  $("meter").hidden = true;
  const { parts, rate } = await ended.stop();
  const samples = join(parts, rate);
  await useClip(new File([wavBlob(samples, rate)], "recording.wav", { type: "audio/wav" }), { samples, rate });
}

function showLevel(peaks, peak, seconds) {
  peaks.push(peak);
  const canvas = $("meter-canvas");
  const paint = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  paint.clearRect(0, 0, canvas.width, canvas.height);
  peaks.slice(-150).forEach((value, i) => {
    const tall = Math.max(2, Math.sqrt(value) * canvas.height);
    paint.fillStyle = style.getPropertyValue(value > 0.98 ? "--bad" : "--accent");
    paint.fillRect(i * 4, (canvas.height - tall) / 2, 3, tall);
  });
  $("timer").textContent = `${seconds.toFixed(1)} s`;
  const recent = Math.max(...peaks.slice(-40));
  const hint = recent > 0.98 ? HINTS.loud : recent < 0.03 ? HINTS.quiet : HINTS.fine;
  const long = seconds >= 16 ? ` Long enough; it stops at ${MOST_SECONDS} s.` : "";
  if ($("meter-hint").textContent !== hint + long) $("meter-hint").textContent = hint + long;
}

/** Takes a file: as it is if the server reads its format, or else as the browser decodes it. */
async function useFile(file) {
  $("file").value = "";
  if (recorder) await endRecording();
  const sound = await decode(file).catch(() => null);
  if (READABLE.test(file.name) && file.size <= shared.model.max_upload_bytes) return useClip(file, sound);
  if (!sound) {
    showError($("clip-error"), new Error(`${file.name} holds no sound that this browser can read.`));
    return;
  }
  const most = Math.min(sound.samples.length, Math.floor(shared.model.max_upload_bytes / 2) - 64);
  const samples = sound.samples.subarray(0, most);
  const converted = new File([wavBlob(samples, sound.rate)], `${file.name}.wav`, { type: "audio/wav" });
  await useClip(converted, { samples, rate: sound.rate });
}

async function useClip(file, sound) {
  const check = ++checks;
  clip = null;
  player?.discard();
  player = sound && new Player(sound.samples, sound.rate, "your recording");
  $("clip-player").replaceChildren(...(player ? [player.element] : []));
  $("clip-report").replaceChildren(make("p", { className: "hint", textContent: "Checking the clip …" }));
  showError($("clip-error"), null);
  try {
    const options = { method: "POST", body: form({ audio_sample: file }) };
    const report = await (await request("v1/audio/voices/check", options)).json();
    if (check !== checks) return;
    showReport(report);
    clip = file;
  } catch (error) {
    if (check !== checks) return;
    $("clip-report").replaceChildren();
    showError($("clip-error"), error);
  }
}

function showReport(report) {
  const verdict = make("p", { className: `verdict ${report.verdict}`, textContent: VERDICTS[report.verdict] });
  const items = report.checks.map((check) =>
    make(
      "li",
      {},
      make("span", { className: `mark ${check.verdict}`, role: "img", "aria-label": SPOKEN[check.verdict], textContent: MARKS[check.verdict] }),
      make(
        "span",
        {},
        make("b", { textContent: NAMES[check.name] }),
        `: ${check.finding}`,
        ...(check.suggestion ? [make("span", { className: "suggestion", textContent: check.suggestion })] : []),
      ),
    ),
  );
  const all = make(
    "details",
    {},
    make("summary", { textContent: "Details of the clip" }),
    ...report.sentences.map((textContent) => make("p", { className: "hint", textContent })),
  );
  $("clip-report").replaceChildren(verdict, make("ul", { className: "checks" }, ...items), all);
}

/** The first missing field and a sentence for it. */
function missing(fields) {
  if (!clip) return ["record", "Record a clip, or choose a file."];
  if (!fields.consent) return [document.querySelector("[name=consent]"), "Choose whose voice it is."];
  if (!fields.statement) return ["statement", "Write in your own words who allows what."];
  if (!/^[a-z0-9][a-z0-9_-]*$/.test(fields.name)) {
    return ["name", "Give it a name of small letters, digits, - and _."];
  }
  return null;
}

async function makeIt() {
  const fields = {
    name: $("name").value.trim(),
    consent: document.querySelector("[name=consent]:checked")?.value,
    statement: $("statement").value.trim(),
    ref_text: $("transcript").value.trim(),
    speaker_description: $("description").value.trim(),
  };
  const lacks = missing(fields);
  const field = lacks ? (typeof lacks[0] === "string" ? $(lacks[0]) : lacks[0]) : $("make");
  field.closest(".card").append($("make-error")); // where the eye goes with the focus
  showError($("make-error"), lacks && new Error(lacks[1]));
  if (lacks) {
    field.focus();
    return;
  }
  const show = (share, text) => {
    $("making-bar").value = share;
    $("making-stage").textContent = text;
  };
  $("make").disabled = true;
  $("making").hidden = false;
  show(0, "Sending the recording …");
  try {
    const made = await makeVoice(
      { ...fields, audio_sample: clip },
      (share) => show(30 * share, share < 1 ? "Sending the recording …" : "Waiting for the server …"),
      (stage) => show(...STAGES[stage]),
    );
    show(100, `The voice ${made.name} is ready.`);
    await shared.refresh();
    reset();
    shared.open("speak");
    $("voice").value = made.name;
    if (!$("text").value) $("text").value = "The kids are talking by the door, and the dogs are sitting in the sun.";
    $("text").focus();
  } catch (error) {
    showError($("make-error"), error);
  } finally {
    $("make").disabled = false;
    $("making").hidden = true;
  }
}

function reset() {
  $("clone-form").reset();
  player?.discard();
  clip = player = null;
  $("clip-report").replaceChildren();
  $("record-label").textContent = "Record";
}
