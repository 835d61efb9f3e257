// Runs when the page's desk is there: `element` holds it, `server.predict` asks the network.
const desk = element.querySelector(".desk");
const canvas = element.querySelector("canvas");
// Each request to the network reads the drawing back.
const pen = canvas.getContext("2d", { willReadFrequently: true });
const digit = element.querySelector(".digit");
const words = element.querySelector(".words");
const seen = element.querySelector(".seen");
const bars = element.querySelector(".bars");

for (let number = 0; number < 10; number++) {
  const bar = document.createElement("li");
  bar.innerHTML = `<span>${number}</span><div class="track"><div class="fill"></div></div>`;
  bar.innerHTML += '<span class="percent"></span>';
  bars.append(bar);
}

// The thickness of the strokes in training images, for a digit that fills most of the paper.
pen.lineWidth = canvas.width * 0.07;
pen.lineCap = pen.lineJoin = "round";

let last = null; // where the pen was; null while it is up
let drawing = 0; // grows with each mark, so that late predictions are recognized
let empty = true;
let asking = false;

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function draw(event) {
  // Fast pens report several places at once.
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) {
    const here = place(each);
    pen.beginPath();
    pen.moveTo(...last);
    pen.lineTo(...here);
    pen.stroke();
    last = here;
  }
  empty = false;
  drawing++;
  desk.dataset.state = "asking";
  ask();
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  draw(event);
});
canvas.addEventListener("pointermove", (event) => last && draw(event));
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => (last = null));
}

function clear() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  last = null;
  empty = true;
  drawing++;
  desk.dataset.state = "empty";
  show({ digit: null, problem: "Nothing is drawn yet.", probabilities: null, image: null });
}
element.querySelector(".clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => event.key === "Escape" && clear());

// One request at a time; whatever is drawn meanwhile is sent afterwards.
async function ask() {
  if (asking) return;
  asking = true;
  try {
    for (let asked = -1; asked !== drawing && !empty; ) {
      asked = drawing;
      const prediction = await server.predict(canvas.toDataURL("image/png"));
      if (!empty) show(prediction);
    }
    if (!empty) desk.dataset.state = "answered";
  } catch {
    words.textContent = "The server does not answer: is the command in the terminal still running?";
  } finally {
    asking = false;
  }
}

function show(prediction) {
  const known = prediction.digit !== null;
  if (digit.textContent !== (known ? String(prediction.digit) : "")) {
    digit.textContent = known ? prediction.digit : "";
  }
  const likely = prediction.probabilities;
  words.textContent = known ? `confidence ${percent(likely[prediction.digit])}` : prediction.problem;
  seen.hidden = !prediction.image;
  if (prediction.image) seen.src = prediction.image;
  else seen.removeAttribute("src");
  [...bars.children].forEach((bar, number) => {
    const probability = likely ? likely[number] : 0;
    bar.classList.toggle("most", known && number === prediction.digit);
    bar.querySelector(".fill").style.width = `${100 * probability}%`;
    bar.querySelector(".percent").textContent = likely ? percent(probability) : "";
  });
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}
