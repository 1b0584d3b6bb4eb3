// The server's API: requests with the key, errors as sentences, events as they come.

const KEY = "voxclone-key";

export class ApiError extends Error {
  constructor(status, error, retryAfter) {
    super(error?.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = error?.code ?? "";
    this.param = error?.param ?? "";
    this.retryAfter = Number(retryAfter) || 0;
  }
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

/** A response, or an ApiError with the server's own sentence. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "The server cannot be reached. Is it still running?" });
  }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new ApiError(response.status, body.error, response.headers.get("Retry-After"));
  }
  return response;
}

export async function getJson(path) {
  return (await request(path)).json();
}

export function sendJson(path, method, body, signal) {
  return request(path, {
    method,
    signal,
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
}

export function form(values) {
  const data = new FormData();
  for (const [name, value] of Object.entries(values)) {
    if (value instanceof File) data.append(name, value, value.name);
    else if (value) data.append(name, value);
  }
  return data;
}

/** The complete events at the beginning of a text, and what is left of it. */
function parseEvents(text) {
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const events = blocks.map((block) => {
    const line = block.split("\n").find((each) => each.startsWith("data: "));
    return JSON.parse(line.slice(6));
  });
  return [events, rest];
}

/** Speaks a text: calls onSamples with Float32Arrays as they come, resolves to the last event. */
export async function speak(body, onSamples, signal) {
  const wanted = { ...body, response_format: "pcm", stream_format: "sse" };
  const response = await sendJson("v1/audio/speech", "POST", wanted, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new ApiError(0, { message: "The server ended before the speech did." });
    const [events, rest] = parseEvents(text + value);
    text = rest;
    for (const event of events) {
      if (event.error) throw new ApiError(500, event.error);
      if (event.type === "speech.audio.done") return event;
      onSamples(samplesOf(event.audio));
    }
  }
}

function samplesOf(base64) {
  const raw = atob(base64);
  const bytes = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}

/** Makes a voice: calls onUpload with the uploaded share and onStage with each stage of the server. */
export function makeVoice(fields, onUpload, onStage) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    let read = 0;
    let result = null;
    const take = () => {
      const [events, rest] = parseEvents(call.responseText.slice(read));
      read = call.responseText.length - rest.length;
      for (const event of events) {
        if (event.type === "voice.progress") onStage(event.stage);
        else result = event;
      }
    };
    call.open("POST", "v1/audio/voices");
    for (const [name, value] of Object.entries(headers())) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => onUpload(event.loaded / event.total);
    call.onprogress = () => call.status === 200 && take();
    call.onerror = () => reject(new ApiError(0, { message: "The server cannot be reached." }));
    call.onload = () => {
      if (call.status !== 200) {
        let error = {};
        try { error = JSON.parse(call.responseText).error; } catch { /* no JSON: the status has to do */ }
        reject(new ApiError(call.status, error, call.getResponseHeader("Retry-After")));
        return;
      }
      take();
      if (result?.type === "voice.done") resolve(result.made);
      else reject(new ApiError(500, result?.error));
    };
    call.send(form({ ...fields, stream_format: "sse" }));
  });
}

/** Saves a file that the server gives, under the name that it gives. */
export async function download(path) {
  const response = await request(path);
  const named = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
  saveBlob(await response.blob(), named ? named[1] : "voice");
}

export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
