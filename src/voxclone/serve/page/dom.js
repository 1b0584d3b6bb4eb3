// Small helpers for the page.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; text is never taken for markup. */
export function make(kind, properties = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

export function button(text, onclick, properties = {}) {
  return make("button", { type: "button", className: "small", textContent: text, onclick, ...properties });
}

/** Shows an error in its place, or hides it. */
export function showError(element, error) {
  element.hidden = !error;
  if (!error) return;
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  element.textContent = error.message + wait;
}

let asked = Promise.resolve();

/**
 * Asks in a dialog: resolves to the values of its fields, or null. `danger` marks what cannot be undone.
 * There is one dialog, and browsers tell late that it has closed: a further question waits for that.
 */
export function ask(title, text, yes, fields = [], danger = false) {
  asked = asked.then(() => open(title, text, yes, fields, danger));
  return asked;
}

function open(title, text, yes, fields, danger) {
  const dialog = $("ask");
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-yes").textContent = yes;
  $("ask-yes").classList.toggle("danger", danger);
  $("ask-fields").replaceChildren(
    ...fields.map(({ label, ...properties }) => {
      const input = make("input", { autocomplete: "off", ...properties, id: `ask-${properties.name}` });
      return make("div", { className: "field" }, make("label", { htmlFor: input.id, textContent: label }), input);
    }),
  );
  const before = document.activeElement;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const values = Object.fromEntries(fields.map(({ name }) => [name, $(`ask-${name}`).value.trim()]));
      before?.focus();
      resolve(dialog.returnValue === "yes" ? values : null);
    };
  });
}

export function fileName(text) {
  const words = text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  return words.slice(0, 40) || "speech";
}
