// The worker: it gets the model first, then drawings, or pixels. The page adds network.js and
// drawing.js before it.

let model;

onmessage = ({ data }) => {
  if (data.model) {
    model = loadModel(data.model, data);
  } else if (data.drawing) {
    const found = findDigit(data.drawing);
    if (found.image) found.probabilities = predict(model, found.image);
    postMessage(found);
  } else {
    postMessage(predict(model, data.pixels));
  }
};
