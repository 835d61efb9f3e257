// The network, as the worker computes it: an interpreter of a list of layers, which layers.py
// writes. Feature maps are { values, channels, height, width }: one Float32Array, channel by
// channel, row by row. Names and results are those of digitkaggle/core/prediction.py.

const SIDE = 28; // pixels along an image, IMAGE_SIZE in Python

const LAYERS = {
  Conv2d: convolve,
  BatchNorm2d: normalize,
  ReLU: (layer, maps) => ({ ...maps, values: maps.values.map((value) => Math.max(value, 0)) }),
  MaxPool2d: pool,
  GlobalMaxPool: (layer, maps) => reduceMaps(maps, (map) => Math.max(...map)),
  GlobalMeanPool: (layer, maps) =>
    reduceMaps(maps, (map) => map.reduce((sum, value) => sum + value, 0) / map.length),
  Flatten: (layer, maps) => ({ ...maps, channels: maps.values.length, height: 1, width: 1 }),
  Linear: (layer, maps) => ({ ...maps, values: multiply(layer, maps.values), channels: layer.outputs }),
};

// Convolution. All that an output pixel sees is gathered once, and then every channel's weights
// are multiplied with it: both lie in a row, which takes half the time of any other order.
function convolve(layer, { values, channels, height, width }) {
  const { kernel, stride, padding, outputs } = layer;
  const rows = Math.floor((height + 2 * padding - kernel) / stride) + 1;
  const columns = Math.floor((width + 2 * padding - kernel) / stride) + 1;
  const result = new Float32Array(outputs * rows * columns);
  const patch = new Float32Array(channels * kernel * kernel);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let place = 0;
      for (let channel = 0; channel < channels; channel++) {
        for (let down = 0; down < kernel; down++) {
          const y = row * stride + down - padding;
          for (let right = 0; right < kernel; right++) {
            const x = column * stride + right - padding;
            const inside = y >= 0 && y < height && x >= 0 && x < width;
            patch[place++] = inside ? values[(channel * height + y) * width + x] : 0;
          }
        }
      }
      const products = multiply(layer, patch);
      for (let output = 0; output < outputs; output++) {
        result[(output * rows + row) * columns + column] = products[output];
      }
    }
  }
  return { values: result, channels: outputs, height: rows, width: columns };
}

// A matrix, outputs x inputs, times a vector, plus the bias. Four outputs at once take a third of the
// time: alone, each addition would wait for the one before it.
function multiply({ weight, bias, outputs }, vector) {
  const inputs = vector.length;
  const result = Float32Array.from(bias);
  for (let output = 0; output < outputs; output += 4) {
    const start = output * inputs;
    let [first, second, third, fourth] = [0, 0, 0, 0];
    for (let input = 0; input < inputs; input++) {
      const value = vector[input];
      first += weight[start + input] * value;
      second += weight[start + inputs + input] * value;
      third += weight[start + 2 * inputs + input] * value;
      fourth += weight[start + 3 * inputs + input] * value;
    }
    result[output] += first;
    result[output + 1] += second;
    result[output + 2] += third;
    result[output + 3] += fourth;
  }
  return result.subarray(0, outputs);
}

function normalize({ scale, shift }, maps) {
  const area = maps.height * maps.width;
  const values = maps.values.map((value, place) => {
    const channel = Math.floor(place / area);
    return value * scale[channel] + shift[channel];
  });
  return { ...maps, values };
}

function pool({ kernel, stride }, { values, channels, height, width }) {
  const rows = Math.floor((height - kernel) / stride) + 1;
  const columns = Math.floor((width - kernel) / stride) + 1;
  const result = new Float32Array(channels * rows * columns).fill(-Infinity);
  for (let place = 0; place < result.length; place++) {
    const channel = Math.floor(place / (rows * columns));
    const top = (Math.floor(place / columns) % rows) * stride;
    const left = (place % columns) * stride;
    for (let y = top; y < top + kernel; y++) {
      for (let x = left; x < left + kernel; x++) {
        result[place] = Math.max(result[place], values[(channel * height + y) * width + x]);
      }
    }
  }
  return { values: result, channels, height: rows, width: columns };
}

// One number of each feature map.
function reduceMaps({ values, channels, height, width }, reduce) {
  const area = height * width;
  const result = Float32Array.from({ length: channels }, (_, channel) =>
    reduce(values.subarray(channel * area, (channel + 1) * area)),
  );
  return { values: result, channels, height: 1, width: 1 };
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

// One network's probabilities for pixels from 0 to 1.
function predictView(layers, values) {
  let maps = { values, channels: 1, height: SIDE, width: SIDE };
  for (const layer of layers) maps = LAYERS[layer.name](layer, maps);
  return softmax(maps.values);
}

// Averaged over the views where the network is not confident.
function predictWithTta(layers, values, { views, confidentMargin }) {
  const plain = predictView(layers, values);
  const [first, second] = [...plain].sort((a, b) => b - a);
  if (first - second >= confidentMargin) return plain;
  const others = views.map((matrix) => predictView(layers, applyAffine(values, matrix)));
  return average([plain, ...others]);
}

function average(probabilities) {
  return probabilities[0].map(
    (_, digit) => probabilities.reduce((sum, one) => sum + one[digit], 0) / probabilities.length,
  );
}

// An image in another view: bilinear, zeros outside. The matrix leads from a place in the result to
// that in the source, in coordinates from -1 to 1.
function applyAffine(values, [[xx, xy, xShift], [yx, yy, yShift]]) {
  const at = (y, x) => (y >= 0 && y < SIDE && x >= 0 && x < SIDE ? values[y * SIDE + x] : 0);
  const center = (place) => (2 * place + 1) / SIDE - 1;
  const toPixel = (coordinate) => ((coordinate + 1) * SIDE - 1) / 2;
  return Float32Array.from(values, (_, place) => {
    const [across, down] = [center(place % SIDE), center(Math.floor(place / SIDE))];
    const x = toPixel(xx * across + xy * down + xShift);
    const y = toPixel(yx * across + yy * down + yShift);
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const upper = at(top, left) * (left + 1 - x) + at(top, left + 1) * (x - left);
    const lower = at(top + 1, left) * (left + 1 - x) + at(top + 1, left + 1) * (x - left);
    return upper * (top + 1 - y) + lower * (y - top);
  });
}

// The model's probabilities, averaged over its members, for 784 pixels from 0 to 255.
function predict(model, pixels) {
  const values = Float32Array.from(pixels, (pixel) => pixel / 255);
  return average(model.members.map((layers) => predictWithTta(layers, values, model)));
}

// A model from the page's JSON; only its first members and views, if so many are asked for.
function loadModel(text, { members = Infinity, views = Infinity } = {}) {
  const model = JSON.parse(text);
  model.views = model.views.slice(0, views);
  model.members = model.members.slice(0, members);
  for (const layer of model.members.flat()) {
    for (const name of ["weight", "bias", "scale", "shift"]) {
      if (name in layer) layer[name] = decodeHalves(layer[name]);
    }
    if ("weight" in layer) addRows(layer);
  }
  return model;
}

// Three more outputs of zeros, so that `multiply` can always take four.
function addRows(layer) {
  const { weight, outputs, bias = [] } = layer;
  layer.weight = new Float32Array((weight.length / outputs) * (outputs + 3));
  layer.weight.set(weight);
  layer.bias = new Float32Array(outputs + 3);
  layer.bias.set(bias);
}

// Half-precision numbers, little-endian, in base64.
function decodeHalves(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return Float32Array.from({ length: bytes.length / 2 }, (_, place) => {
    const bits = bytes[2 * place] | (bytes[2 * place + 1] << 8);
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    return bits >> 15 ? -size : size;
  });
}
