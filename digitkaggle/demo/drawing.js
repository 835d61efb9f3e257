// From a drawing to an image of MNIST's form, as the worker does it: 28 x 28, light ink on black.
// These are the rules of digitkaggle/demo/digits.py from its `group_marks` on, with the same numbers:
// a drawing has no paper, light or printed lines. tests/demo/test_browser.py compares the two.
//
// A grid is { values, width, height }, row by row; ink is a grid of numbers from 0 to 1.

const INK_BOX = 20;
// What is smaller is dirt.
const [LEAST_AREA, LEAST_HEIGHT, LEAST_CUT_HEIGHT] = [0.04, 0.4, 0.6];
// What is near a larger mark, and small or flat, is a part of it, as the bar of a 5 is.
const [PART_GAP_STROKES, PART_GAP_SIZES, PART_SIZE, PART_FLAT] = [1.25, 0.15, 0.65, 0.35];
const STACK_WIDTH = [0.45, 1];
const [MOST_HOLES, LEAST_HOLE] = [3, 0.004];
const [MAYBE_TWO, WIDEST] = [0.85, 1.8];
const [BLOCK_WIDTH, BLOCK_INK] = [0.4, 0.92];
const LEAST_PROBABILITY = 0.7; // of each half of a wide shape, to be two digits
const LEAST_STROKE = 0.085; // of the digit's height; thinner strokes fade when it is scaled down

const SEVERAL = "several digits or marks: one digit a picture";
const NO_DIGIT = "no digit: digits do not have this shape";

// The one digit in a drawing: { image }, 784 bytes, with the halves of a wide one as `parts`; or
// { problem }.
function findDigit(drawing) {
  const mask = mapGrid(drawing, (value) => value > 0.3); // the weak parts, too
  const groups = groupMarks(mask);
  const [box, ...others] = selectGroups(groups);
  if (!box) return { problem: NO_DIGIT };
  if (others.length) return { problem: SEVERAL };
  const image = cutOut(drawing, mask, groups, box.number);
  if (box.right - box.left <= MAYBE_TWO * (box.bottom - box.top)) return { image };
  const halves = splitGroup(drawing, groups, box);
  return { image, parts: [1, 2].map((half) => cutOut(drawing, mask, halves, half)) };
}

// A group of the mask's marks in MNIST's form.
function cutOut(drawing, mask, groups, number) {
  const group = mapGrid(groups, (other) => other === number);
  // The soft edges of the strokes belong to the ink, the dirt around it does not.
  const near = dilate(group, Math.max(1, round(Math.max(drawing.width, drawing.height) / 80)));
  const ink = mapGrid(drawing, (value, place) =>
    near.values[place] && (group.values[place] || !mask.values[place]) ? value : 0,
  );
  const [box] = findBoxes(mapGrid(ink, (value) => value > 0.1));
  return bringToMnistForm(thicken(crop(ink, box), crop(group, box)));
}

// Numbers for the marks of a mask: the parts of a broken digit share theirs. From the smallest on,
// each joins the nearest larger one that it may be a part of.
function groupMarks(mask) {
  const marks = labelMarks(mask, AROUND);
  const width = Math.max(measureStrokeWidth(mask), 1);
  const size = (box) => Math.max(box.right - box.left, box.bottom - box.top);
  const order = marks.list.filter((box) => box.area >= 0.05 * width ** 2);
  order.sort((one, other) => size(one) - size(other));
  const owners = new Map(order.map((box) => [box.number, box.number]));
  while (order.length) {
    const box = order.shift();
    const gaps = order.map((other) => measureGap(box, other, width));
    const least = Math.min(...gaps);
    if (least === Infinity) continue;
    const joined = order[gaps.indexOf(least)];
    for (const [mark, owner] of owners) if (owner === box.number) owners.set(mark, joined.number);
    joined.top = Math.min(joined.top, box.top);
    joined.left = Math.min(joined.left, box.left);
    joined.bottom = Math.max(joined.bottom, box.bottom);
    joined.right = Math.max(joined.right, box.right);
  }
  return mapGrid(marks, (number) => owners.get(number) ?? 0);
}

// How far two boxes are from each other if the first may be a part of the second, else infinite.
function measureGap(box, other, width) {
  const overlap = (start, stop) => Math.min(box[stop], other[stop]) - Math.max(box[start], other[start]);
  const whole = (start, stop) => Math.max(box[stop], other[stop]) - Math.min(box[start], other[start]);
  const lengths = (start, stop) => [box[stop] - box[start], other[stop] - other[start]];
  const [across, down] = [overlap("left", "right"), overlap("top", "bottom")];
  const [wide, high] = [whole("left", "right"), whole("top", "bottom")];
  const narrow = Math.min(...lengths("left", "right"));
  const flat = Math.min(...lengths("top", "bottom"));
  const [small, large] = [0, 1].map((which) =>
    Math.max(lengths("left", "right")[which], lengths("top", "bottom")[which]),
  );
  const gap = Math.max(-across, -down);
  const near = gap <= Math.max(PART_GAP_STROKES * width, PART_GAP_SIZES * large);
  const beside = across < 0.3 * narrow && flat >= PART_SIZE * high;
  const isFlat = flat <= PART_FLAT * high && across > 0;
  const [least, most] = STACK_WIDTH;
  const stacked = across >= 0.5 * narrow && least <= wide / high && wide / high <= most;
  const isPart = small <= PART_SIZE * large || isFlat || stacked;
  return near && !beside && isPart ? gap : Infinity;
}

// The boxes of the groups that may be digits: neither dirt nor things nor bits.
function selectGroups(groups) {
  const { width, height } = groups;
  const all = findBoxes(groups).filter((box) =>
    isShapedLikeADigit(mapGrid(crop(groups, box), (number) => number === box.number)),
  );
  const largest = Math.max(...all.map((box) => box.area));
  const large = all.filter((box) => box.area >= LEAST_AREA * largest);
  const isCut = (box) =>
    !box.top || !box.left || box.bottom === height || box.right === width;
  const measureTallest = (boxes) => Math.max(0, ...boxes.map((box) => box.bottom - box.top));
  const tallest = measureTallest(large.filter((box) => !isCut(box))) || measureTallest(large);
  return large.filter(
    (box) => box.bottom - box.top >= (isCut(box) ? LEAST_CUT_HEIGHT : LEAST_HEIGHT) * tallest,
  );
}

// Numbers for the halves of a group, left and right of where its ink is least.
function splitGroup(drawing, groups, { number, left, right, top, bottom }) {
  const low = left + round(0.3 * (right - left));
  const high = left + round(0.7 * (right - left));
  let [cut, least] = [low, Infinity];
  for (let x = low; x <= high; x++) {
    let sum = 0;
    for (let y = top; y < bottom; y++) {
      const place = y * groups.width + x;
      if (groups.values[place] === number) sum += drawing.values[place];
    }
    if (sum < least) [cut, least] = [x, sum];
  }
  return mapGrid(groups, (other, place) =>
    other !== number ? 0 : place % groups.width < cut ? 1 : 2,
  );
}

const STRAIGHT = [[0, -1], [-1, 0], [1, 0], [0, 1]]; // to the neighbors: right, down
const AROUND = [...STRAIGHT, [-1, -1], [1, -1], [-1, 1], [1, 1]];

// Numbers for the connected parts of a mask, from 1, with each one's area and box.
function labelMarks({ values: mask, width, height }, neighbors) {
  const values = new Int32Array(mask.length);
  const waiting = new Int32Array(mask.length); // places whose neighbors are still to be visited
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || values[start]) continue;
    values[start] = ++count;
    waiting[0] = start;
    for (let length = 1; length > 0; ) {
      const place = waiting[--length];
      const x = place % width;
      for (let step = 0; step < neighbors.length; step++) {
        const [right, down] = neighbors[step];
        const next = place + down * width + right;
        const inside = x + right >= 0 && x + right < width && next >= 0 && next < mask.length;
        if (!inside || !mask[next] || values[next]) continue;
        values[next] = count;
        waiting[length++] = next;
      }
    }
  }
  const list = findBoxes({ values, width, height });
  return { values, width, height, list };
}

// The area and box of each number above 0 in a grid: the first row and column, and those after it.
function findBoxes({ values, width }) {
  const boxes = [];
  values.forEach((number, place) => {
    if (!number) return;
    const [x, y] = [place % width, Math.floor(place / width)];
    const empty = { number, area: 0, top: y, left: x, bottom: y, right: x };
    const box = (boxes[number - 1] ??= empty);
    box.area++;
    box.bottom = y + 1;
    box.left = Math.min(box.left, x);
    box.right = Math.max(box.right, x + 1);
  });
  return boxes;
}

// Whether ink is neither a dash nor a block, and encloses few holes.
function isShapedLikeADigit(mask) {
  const { width, height } = mask;
  const share = mask.values.reduce((sum, value) => sum + value, 0) / mask.values.length;
  if (width > WIDEST * height || (width > BLOCK_WIDTH * height && share > BLOCK_INK)) return false;
  const paper = mapGrid(pad(mask, 1), (value) => !value);
  const [, ...holes] = labelMarks(paper, STRAIGHT).list; // the first begins in the corner: outside
  const large = holes.filter((hole) => hole.area >= LEAST_HOLE * width * height);
  return large.length <= MOST_HOLES;
}

// The ink with strokes that survive scaling down.
function thicken(ink, mask) {
  const missing = LEAST_STROKE * Math.max(ink.width, ink.height) - measureStrokeWidth(mask);
  const radius = Math.max(0, round(missing / 2));
  return dilate(pad(ink, radius), radius);
}

// The mean width of a mask's strokes: a strip is four mean distances wide.
function measureStrokeWidth(mask) {
  const distances = measureDistances(pad(mask, 1)).filter((distance) => distance > 0);
  return (4 * distances.reduce((sum, distance) => sum + distance, 0)) / distances.length - 1;
}

// From each pixel of a mask to the nearest one outside it; 0 outside.
function measureDistances({ values: mask, width, height }) {
  const above = new Float64Array(mask.length); // squared, to the nearest within the column
  for (let x = 0; x < width; x++) {
    let last = -Infinity;
    for (let y = 0; y < height; y++) {
      if (!mask[y * width + x]) last = y;
      above[y * width + x] = (y - last) ** 2;
    }
    last = Infinity;
    for (let y = height - 1; y >= 0; y--) {
      if (!mask[y * width + x]) last = y;
      above[y * width + x] = Math.min(above[y * width + x], (last - y) ** 2);
    }
  }
  return mask.map((inside, place) => {
    if (!inside) return 0;
    const x = place % width;
    let best = above[place];
    for (let step = 1; step ** 2 < best && step < width; step++) {
      if (x >= step) best = Math.min(best, step ** 2 + above[place - step]);
      if (x + step < width) best = Math.min(best, step ** 2 + above[place + step]);
    }
    return Math.sqrt(best);
  });
}

// An ink's box as 28 x 28 bytes: 20 x 20 at most, its center of mass in the middle.
function bringToMnistForm(ink) {
  const scale = INK_BOX / Math.max(ink.width, ink.height);
  const [width, height] = [ink.width, ink.height].map((side) => Math.max(1, round(side * scale)));
  const small = transpose(resizeRows(transpose(resizeRows(ink, width)), height));
  let [mass, across, down] = [0, 0, 0];
  small.values.forEach((value, place) => {
    const weight = Math.min(Math.max(value, 0), 1);
    mass += weight;
    across += weight * (place % width);
    down += weight * Math.floor(place / width);
  });
  const left = round(SIDE / 2 - across / mass);
  const top = round(SIDE / 2 - down / mass);
  const image = new Uint8ClampedArray(SIDE * SIDE); // which rounds, and keeps to 0 and 255
  small.values.forEach((value, place) => {
    const [x, y] = [left + (place % width), top + Math.floor(place / width)];
    if (x >= 0 && x < SIDE && y >= 0 && y < SIDE) image[y * SIDE + x] = 255 * value;
  });
  return image;
}

// Each row resampled to another width: bicubic, antialiased, as Pillow does it.
function resizeRows({ values, width, height }, newWidth) {
  const scale = width / newWidth;
  const spread = Math.max(scale, 1); // where rows shrink, a new pixel takes in several old ones
  const result = new Float64Array(newWidth * height);
  for (let column = 0; column < newWidth; column++) {
    const center = (column + 0.5) * scale;
    const start = Math.max(0, Math.floor(center - 2 * spread + 0.5));
    const stop = Math.min(width, Math.floor(center + 2 * spread + 0.5));
    const weights = [];
    for (let x = start; x < stop; x++) weights.push(weighCubic((x + 0.5 - center) / spread));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    for (let y = 0; y < height; y++) {
      let value = 0;
      weights.forEach((weight, place) => (value += weight * values[y * width + start + place]));
      result[y * newWidth + column] = value / sum;
    }
  }
  return { values: result, width: newWidth, height };
}

// Keys's cubic kernel with a = -0.5.
function weighCubic(distance) {
  const x = Math.abs(distance);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// The maximum over a square around each pixel.
function dilate(grid, radius) {
  return transpose(dilateRows(transpose(dilateRows(grid, radius)), radius));
}

function dilateRows({ values, width, height }, radius) {
  const result = new Float64Array(values.length);
  for (let y = 0; y < height; y++) {
    const [start, stop] = [y * width, (y + 1) * width];
    for (let place = start; place < stop; place++) {
      let largest = 0;
      const last = Math.min(place + radius, stop - 1);
      for (let near = Math.max(place - radius, start); near <= last; near++) {
        if (values[near] > largest) largest = values[near];
      }
      result[place] = largest;
    }
  }
  return { values: result, width, height };
}

// Plain loops here and below: `from` and its like take ten times as long.
function mapGrid({ values, width, height }, map) {
  const result = new Float64Array(values.length);
  for (let place = 0; place < result.length; place++) result[place] = map(values[place], place);
  return { values: result, width, height };
}

function transpose({ values, width, height }) {
  const result = new Float64Array(values.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) result[x * height + y] = values[y * width + x];
  }
  return { values: result, width: height, height: width };
}

function crop({ values, width }, { top, left, bottom, right }) {
  const result = new Float64Array((bottom - top) * (right - left));
  for (let y = top; y < bottom; y++) {
    const row = values.subarray(y * width + left, y * width + right);
    result.set(row, (y - top) * row.length);
  }
  return { values: result, width: right - left, height: bottom - top };
}

function pad({ values, width, height }, margin) {
  const [wide, high] = [width + 2 * margin, height + 2 * margin];
  const result = new Float64Array(wide * high);
  for (let y = 0; y < height; y++) {
    const row = values.subarray(y * width, (y + 1) * width);
    result.set(row, (y + margin) * wide + margin);
  }
  return { values: result, width: wide, height: high };
}

// As Python and numpy round: halves to the even number.
function round(number) {
  const below = Math.floor(number);
  if (number - below !== 0.5) return Math.round(number);
  return below % 2 ? below + 1 : below;
}
