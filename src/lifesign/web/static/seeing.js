// What is read out of an image: where a face is, and the mean colours of three places of it. Knows no page and no network.

export const WIDTH = 640;
export const HEIGHT = 480;
export const REGIONS = ["forehead", "cheek_l", "cheek_r"];
export const LOST = 0.4;
const FOUND = 0.6;
const DETECT_EVERY = 5;
const LOST_MS = 500;
const SMOOTH = 0.2;
const DARK = 15;
const BRIGHT = 250;
const MIN_PIXELS = 400;
const MAX_CLIPPED = 0.2;
const MEAN_MS = 1600;

export const rounded = (value, digits) => Number(value.toFixed(digits));

// The part of an image that is shown and read: as wide and high as fits, from the middle. Phones that are held upright
// give images that are higher than wide.
export function shownPart({ videoWidth: wide, videoHeight: high }) {
  const scale = Math.min(wide / WIDTH, high / HEIGHT);
  const [across, down] = [WIDTH * scale, HEIGHT * scale];
  return [(wide - across) / 2, (high - down) / 2, across, down];
}

// The face -----------------------------------------------------------------------------------------------------------
// Follows the largest face: where it was found last, smoothed from image to image.
export class Face {
  constructor(finder) {
    this.finder = finder;
    this.target = null;
    this.shown = null;
    this.seenAt = -Infinity;
    this.count = 0;
  }

  read(image, t) {
    if (this.count++ % DETECT_EVERY === 0 || !this.target) this.detect(image, t);
    if (this.target && t - this.seenAt > LOST_MS) this.target = this.shown = null;
    if (!this.target) return null;
    this.shown = this.shown ? mixed(this.shown, this.target) : this.target;
    return this.shown;
  }

  detect(image, t) {
    const { detections } = this.finder.detectForVideo(image, t);
    const threshold = this.target ? LOST : FOUND;
    const faces = detections.filter((each) => each.categories[0].score >= threshold);
    if (!faces.length) return;
    const face = faces.reduce((a, b) => (a.boundingBox.width >= b.boundingBox.width ? a : b));
    const points = face.keypoints.slice(0, 4).map(({ x, y }) => [x * WIDTH, y * HEIGHT]);
    const box = face.boundingBox;
    const found = [...points.flat(), box.originX + box.width / 2, box.originY + box.height / 2, box.width];
    this.target = { numbers: found, score: face.categories[0].score };
    this.seenAt = t;
  }
}

function mixed(from, to) {
  const numbers = from.numbers.map((each, index) => each + SMOOTH * (to.numbers[index] - each));
  return { numbers, score: to.score };
}

// Centre and width.
export const boxOf = ({ numbers }) => numbers.slice(8);

// Forehead and cheeks as rectangles [left, top, width, height], from the eyes and the mouth.
export function regionsOf({ numbers: [ax, ay, bx, by, , , mx, my] }) {
  const [leftX, rightX] = ax < bx ? [ax, bx] : [bx, ax];
  const eyesX = (ax + bx) / 2;
  const eyesY = (ay + by) / 2;
  const wide = rightX - leftX;
  const high = Math.max(my - eyesY, wide * 0.6);
  const lean = (mx - eyesX) * 0.5;
  const square = wide * 0.46;
  const cheekY = eyesY + high * 0.34;
  return [
    [eyesX - wide * 0.5, eyesY - high * 0.75, wide, high * 0.38],
    [leftX - square * 0.62 + lean, cheekY, square, high * 0.42],
    [rightX - square * 0.38 + lean, cheekY, square, high * 0.42],
  ];
}

// Where to hold the face when nothing finds it: an oval, and the same places in it.
export const OVAL = { x: WIDTH / 2, y: HEIGHT / 2, wide: WIDTH * 0.17, high: HEIGHT * 0.36 };
export const OVAL_REGIONS = [
  [OVAL.x - OVAL.wide * 0.5, OVAL.y - OVAL.high * 0.72, OVAL.wide, OVAL.high * 0.3],
  [OVAL.x - OVAL.wide * 0.72, OVAL.y + OVAL.high * 0.1, OVAL.wide * 0.42, OVAL.high * 0.3],
  [OVAL.x + OVAL.wide * 0.3, OVAL.y + OVAL.high * 0.1, OVAL.wide * 0.42, OVAL.high * 0.3],
];

// The mean colour of a rectangle, or null where too little of it can be used; and how much of it cannot.
export function colourOf(pixels, [left, top, wide, high]) {
  const x0 = Math.max(0, Math.round(left));
  const y0 = Math.max(0, Math.round(top));
  const x1 = Math.min(WIDTH, Math.round(left + wide));
  const y1 = Math.min(HEIGHT, Math.round(top + high));
  let red = 0;
  let green = 0;
  let blue = 0;
  let used = 0;
  let all = 0;
  for (let y = y0; y < y1; y++) {
    for (let at = (y * WIDTH + x0) * 4, end = (y * WIDTH + x1) * 4; at < end; at += 4) {
      const r = pixels[at];
      const g = pixels[at + 1];
      const b = pixels[at + 2];
      const most = Math.max(r, g, b);
      all++;
      if (most <= DARK || most >= BRIGHT) continue;
      red += r;
      green += g;
      blue += b;
      used++;
    }
  }
  const clipped = all ? 1 - used / all : 1;
  if (used < MIN_PIXELS || clipped > MAX_CLIPPED) return { clipped, colour: null };
  return { clipped, colour: [red / used, green / used, blue / used] };
}

// The wave, for people to look at --------------------------------------------------------------------------------------
export class Wave {
  constructor(seconds) {
    this.keptMs = seconds * 1000 + MEAN_MS;
    this.points = [];
  }

  add(t, colours) {
    const seen = colours.filter(Boolean);
    if (!seen.length) return;
    const [r, g, b] = [0, 1, 2].map((channel) => seen.reduce((sum, each) => sum + each[channel], 0) / seen.length);
    this.points.push({ t, r, g, b });
    while (this.points[0].t < t - this.keptMs) this.points.shift();
  }

  // Green against red and blue, each in shares of its own mean of the last 1.6 s: light that changes falls out. The first
  // 1.6 s have no such mean yet, and are left out.
  values() {
    const { points } = this;
    const values = [];
    let first = 0;
    const sums = [0, 0, 0];
    points.forEach((point, index) => {
      sums[0] += point.r;
      sums[1] += point.g;
      sums[2] += point.b;
      while (points[first].t < point.t - MEAN_MS) {
        sums[0] -= points[first].r;
        sums[1] -= points[first].g;
        sums[2] -= points[first].b;
        first++;
      }
      const count = index - first + 1;
      const [r, g, b] = sums.map((each) => each / count);
      values.push({ t: point.t, value: (point.r / r + point.b / b) / 2 - point.g / g });
    });
    const smooth = values.map(({ t }, index) => {
      const near = values.slice(Math.max(0, index - 2), index + 3);
      return { t, value: near.reduce((sum, each) => sum + each.value, 0) / near.length };
    });
    return smooth.filter(({ t }) => t >= values[0].t + MEAN_MS);
  }
}
