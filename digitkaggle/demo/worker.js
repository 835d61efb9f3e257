// The worker: it gets the model first, then drawings, or pixels. The page adds network.js and
// drawing.js before it.

let model;

onmessage = ({ data }) => {
  if (data.model) {
    model = loadModel(data.model, data);
  } else if (data.drawing) {
    const found = findDigit(data.drawing);
    postMessage(found.image ? answer(found) : found);
  } else {
    postMessage(predict(model, data.pixels));
  }
};

// The probabilities of a digit; or the problem, if its halves are digits with more confidence.
function answer({ image, parts }) {
  const confidence = (one) => Math.max(...predict(model, one));
  const least = parts ? Math.min(...parts.map(confidence)) : 0;
  const probabilities = predict(model, image);
  if (least >= LEAST_PROBABILITY && least > Math.max(...probabilities)) return { problem: SEVERAL };
  return { image, probabilities };
}
