// The page: drawing, and what the workers answer. They compute, so that drawing never waits.

"use strict";

const find = (selector) => document.querySelector(selector);
const [desk, canvas, digit, words] = [".desk", ".drawing", ".digit", ".words"].map(find);
const page = JSON.parse(find("#page").textContent);
// Each drawing is read back.
const pen = canvas.getContext("2d", { willReadFrequently: true });
// The thickness of the strokes in training images, for a digit that fills most of the paper.
pen.lineWidth = canvas.width * 0.07;
pen.lineCap = pen.lineJoin = "round";

let strokes = []; // each a list of points
let pointer = null; // the mouse, pen or finger that draws
let version = 0; // grows with each change, so that late answers are recognized

// ---- Two workers: one for first answers, by one member and one view, one for the whole model.

const code = new Blob([find("#worker").textContent], { type: "text/javascript" });

// A function that asks a new worker, which has these members and views; the answers are promises.
function startWorker(parts) {
  const worker = new Worker(URL.createObjectURL(code));
  const waiting = []; // a worker answers in the order of the questions
  worker.onmessage = ({ data }) => waiting.shift()(data);
  worker.onerror = (event) => (words.textContent = `The network failed: ${event.message}`);
  worker.postMessage({ model: find("#model").textContent, ...parts });
  return (question) => {
    worker.postMessage(question);
    return new Promise((resolve) => waiting.push(resolve));
  };
}

const askFirst = startWorker({ members: 1, views: 0 });
const askWhole = startWorker({});

// The whole model's ten probabilities for 784 numbers from 0 to 255; for tests and other programs.
window.predict = async (pixels) => {
  const numbers = Array.from(pixels, Number);
  if (numbers.length !== 784 || !numbers.every((number) => number >= 0 && number <= 255)) {
    throw new RangeError("predict takes 784 numbers from 0 to 255");
  }
  return askWhole({ pixels: numbers });
};

// ---- Answers. One question at a time for each worker; the newest drawing is asked next.

let asking = false;
let unanswered = null; // the newest image that the whole model has not seen
let answering = false;

async function answerFirst() {
  if (asking) return;
  asking = true;
  for (let asked = -1; asked !== version && strokes.length; ) {
    asked = version;
    const found = await askFirst({ drawing: readDrawing() });
    if (!strokes.length) break;
    show(found);
    if (found.image) answerWhole({ ...found, version: asked });
    else if (asked === version) finish();
  }
  asking = false;
}

async function answerWhole(found) {
  unanswered = found;
  if (answering) return;
  answering = true;
  while (unanswered) {
    const asked = unanswered;
    unanswered = null;
    const probabilities = await askWhole({ pixels: asked.image });
    if (asked.version !== version) continue;
    show({ ...asked, probabilities });
    finish();
  }
  answering = false;
}

// What was drawn, as numbers from 0 to 1.
function readDrawing() {
  const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const values = new Float32Array(width * height);
  for (let place = 0; place < values.length; place++) values[place] = data[4 * place + 3] / 255;
  return { values, width, height };
}

// The whole answer: what a screen reader says once the pen rests.
function finish() {
  desk.dataset.state = "answered";
  find(".announcement").textContent = `${digit.textContent} ${words.textContent}`;
}

function show({ image, problem, probabilities, label }) {
  const most = probabilities ? probabilities.indexOf(Math.max(...probabilities)) : -1;
  const known = most >= 0 && probabilities[most] >= page.leastProbability;
  digit.textContent = known ? most : "";
  words.textContent = describe(problem, probabilities, most, known);
  if (label !== undefined) words.textContent += label === most ? ": correct" : `: it is a ${label}`;
  const seen = find(".seen");
  seen.parentElement.classList.toggle("unseen", !image);
  if (image) paint(seen, image);
  [...find(".bars").children].forEach((bar, number) => {
    const probability = probabilities ? probabilities[number] : 0;
    bar.classList.toggle("most", known && number === most);
    bar.querySelector(".fill").style.width = `${100 * probability}%`;
    bar.querySelector(".percent").textContent = probabilities ? percent(probability) : "";
  });
}

function describe(problem, probabilities, most, known) {
  if (!probabilities) return problem ? problem[0].toUpperCase() + problem.slice(1) : "";
  if (known) return `confidence ${percent(probabilities[most])}`;
  return `Not a clear digit: ${most} is the most likely, at ${percent(probabilities[most])}`;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

// 784 bytes as gray pixels.
function paint(target, image) {
  const colors = new Uint8ClampedArray(4 * image.length);
  image.forEach((value, place) => colors.set([value, value, value, 255], 4 * place));
  target.getContext("2d").putImageData(new ImageData(colors, 28, 28), 0, 0);
}

// ---- Drawing.

function locate(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function drawLine(start, end) {
  pen.beginPath();
  pen.moveTo(...start);
  pen.lineTo(...end);
  pen.stroke();
}

function extendStroke(event) {
  // Fast pens report several places at once.
  const events = event.getCoalescedEvents?.() ?? [];
  const stroke = strokes.at(-1);
  for (const one of events.length ? events : [event]) {
    const point = locate(one);
    drawLine(stroke.at(-1) ?? point, point);
    stroke.push(point);
  }
  change();
}

// After any change of the strokes.
function change() {
  version++;
  const empty = !strokes.length;
  desk.dataset.state = empty ? "empty" : "asking";
  releaseTrials();
  if (!empty) answerFirst();
  else {
    show({});
    find(".announcement").textContent = ""; // so that the same answer is said again
  }
}

function redraw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const stroke of strokes) {
    stroke.forEach((point, place) => drawLine(stroke[Math.max(place - 1, 0)], point));
  }
}

function replaceStrokes(remaining) {
  strokes = remaining;
  pointer = null;
  redraw();
  change();
}

const clear = () => replaceStrokes([]);
const undo = () => replaceStrokes(strokes.slice(0, -1));

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || pointer !== null) return;
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  strokes.push([]);
  extendStroke(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (event.pointerId === pointer) extendStroke(event);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    if (event.pointerId === pointer) pointer = null;
  });
}
find(".clear").addEventListener("click", clear);
find(".undo").addEventListener("click", undo);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") clear();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) undo();
});

// ---- Digits to click on, and those that were misclassified: one picture, one below the other.

function releaseTrials() {
  for (const button of document.querySelectorAll("[aria-pressed=true]")) {
    button.setAttribute("aria-pressed", "false");
  }
}

async function showDigits() {
  const picture = new Image();
  picture.src = page.digits;
  await picture.decode();
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [picture.width, picture.height];
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  for (const target of document.querySelectorAll("[data-digit]")) {
    const { data } = context.getImageData(0, 28 * target.dataset.digit, 28, 28);
    const image = data.filter((_, place) => place % 4 === 0);
    paint(target, image);
    const button = target.closest("button");
    button?.addEventListener("click", () => showTrial(button, image));
  }
}

function showTrial(button, image) {
  clear();
  button.setAttribute("aria-pressed", "true");
  desk.dataset.state = "asking";
  answerWhole({ image, version, label: Number(button.dataset.label) });
}

if (page.digits) showDigits();
