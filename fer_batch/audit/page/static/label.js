// Shows one face at a time and sends each label. The next face is fetched ahead, into memory only.
// A label counts when the server has confirmed it; until then, the face stays and no key acts.
"use strict";

const NAMES = { happy: "happy", sad: "sad", neither: "neither", cannot_tell: "can’t tell" };
const CLOSING = "No face is left to label. End the command with Ctrl-C: it says what to do next";
const DIGITS = { 1: "happy", 2: "sad", 3: "neither", 0: "cannot_tell" };
// Fetching and decoding a face may take long; storing a label may not.
const FACE_TIMEOUT_MS = 90_000;
const LABEL_TIMEOUT_MS = 15_000;

const byId = (id) => document.getElementById(id);
const canvas = byId("face");
const labelButtons = [...document.querySelectorAll("[data-label]")];

let state = null; // what the server said last
let isShown = false; // whether the face of `state` is on the canvas
let isBusy = false; // whether a request for a label, for Back or for the face runs
let ahead = null; // { number, picture: a promise of a bitmap or null }

class Refused extends Error {}

async function request(path, body) {
  const timeout = body === undefined ? FACE_TIMEOUT_MS : LABEL_TIMEOUT_MS;
  const options = { cache: "no-store", signal: AbortSignal.timeout(timeout) };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refused("The server does not answer. Is the command, or the tunnel to it, still running?");
  }
  if (response.ok || response.status === 410) return response;
  let text = `The server answers ${response.status}.`;
  try {
    text = (await response.json()).error;
  } catch { /* no text of ours */ }
  throw new Refused(text);
}

async function fetchPicture(number) {
  const response = await request(`face/${number}`);
  if (response.status === 410) return null; // it cannot be shown
  return createImageBitmap(await response.blob());
}

function fetchAhead(number) {
  drop();
  if (number === null) return;
  // A failure shows when it is this face's turn.
  ahead = { number, picture: fetchPicture(number).catch(() => undefined) };
}

function drop() {
  const old = ahead;
  ahead = null;
  if (old) old.picture.then((picture) => picture?.close());
}

async function takePicture(number) {
  if (ahead?.number === number) {
    const taken = ahead;
    ahead = null;
    const picture = await taken.picture;
    if (picture !== undefined) return picture;
  }
  return fetchPicture(number);
}

function clear(text) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  canvas.setAttribute("aria-label", text);
  isShown = false;
}

// What the server says becomes what the page shows.
async function show(next, text) {
  state = next;
  describe();
  if (state.number === null) {
    clear("No face");
    canvas.hidden = true;
    byId("status").textContent = CLOSING;
    return;
  }
  canvas.hidden = false;
  const picture = await takePicture(state.number);
  if (picture === null) {
    await show(await (await request("state")).json(), text);
    return;
  }
  clear("");
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  canvas.setAttribute("aria-label", `Face ${state.position} of ${state.total}`);
  isShown = true;
  byId("status").textContent = text;
  fetchAhead(state.next);
}

function describe() {
  byId("audit").textContent = state.title;
  byId("count").textContent = `${state.labeled} of ${state.total} faces labeled`;
  byId("progress").value = state.labeled;
  byId("progress").max = state.total;
  byId("hidden").textContent = state.hidden;
}

// Not by `disabled`, which would take the focus from a button that is used by the keyboard.
function enable() {
  for (const button of labelButtons) button.setAttribute("aria-disabled", isBusy || !isShown);
  byId("back").setAttribute("aria-disabled", isBusy || !state?.can_go_back);
}

// Runs a step alone. If it fails, the page says so, and the face that was shown stays.
async function run(step) {
  if (isBusy) return;
  isBusy = true;
  byId("message").hidden = byId("retry-row").hidden = true;
  enable();
  try {
    await step();
  } catch (error) {
    byId("message").textContent = error.message;
    byId("message").hidden = false;
    byId("status").textContent = "";
    byId("retry-row").hidden = isShown;
  }
  isBusy = false;
  for (const button of labelButtons) button.classList.remove("chosen");
  enable();
}

async function load() {
  byId("status").textContent = "Loading …";
  await show(await (await request("state")).json(), "");
}

function save(label) {
  if (!isShown || isBusy) return;
  labelButtons.find((button) => button.dataset.label === label).classList.add("chosen");
  run(async () => {
    let response;
    try {
      response = await request("label", { number: state.number, label });
    } catch (error) {
      throw new Refused(`Not saved: choose the label again. ${error.message}`);
    }
    const next = await response.json();
    clear("Loading the next face");
    await show(next, next.problem ? "" : `Saved for the last face: ${NAMES[label]}`);
    if (next.problem) throw new Refused(`Not saved: ${next.problem}`);
  });
}

function goBack() {
  if (isBusy || !state?.can_go_back) return;
  run(async () => {
    const next = await (await request("back", {})).json();
    clear("Loading the face");
    await show(next, "The last label is removed. Label this face again");
  });
}

function pressKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat) {
    // A key that is held down labels one face; Enter would press a button again and again.
    if (event.target.closest("button")) event.preventDefault();
    return;
  }
  if (event.key === "Backspace") {
    event.preventDefault();
    goBack();
    return;
  }
  // By the place of the key too: some layouts need Shift for digits.
  const digit = /^(?:Digit|Numpad)([0-3])$/.exec(event.code)?.[1] ?? event.key;
  if (Object.hasOwn(DIGITS, digit)) {
    event.preventDefault();
    save(DIGITS[digit]);
  }
}

for (const button of labelButtons) button.addEventListener("click", () => save(button.dataset.label));
byId("back").addEventListener("click", goBack);
byId("retry").addEventListener("click", () => run(load));
document.addEventListener("keydown", pressKey);
window.addEventListener("pagehide", () => { drop(); clear(""); });
window.addEventListener("pageshow", (event) => { if (event.persisted) run(load); });
run(load);
