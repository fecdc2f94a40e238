// Sees a pulse: reads mean colours out of the images of a camera and sends those, never an image.

const WIDTH = 640;
const HEIGHT = 480;
const BATCH = 15;
const DETECT_EVERY = 5;
const LOAD_MS = 5000;
const LOCK_AFTER_MS = 2000;
const LOST_MS = 500;
const COMING_MS = 3000;
const FOUND = 0.6;
const LOST = 0.4;
const SMOOTH = 0.2;
const DARK = 15;
const BRIGHT = 250;
const MIN_PIXELS = 400;
const MAX_CLIPPED = 0.2;
const WAVE_S = 8;
const REGIONS = ["forehead", "cheek_l", "cheek_r"];

const REASONS = {
  no_face: "No face is seen: come into the picture",
  multiple_faces: "There are several faces: one at a time",
  frame_rate: "The camera gives too few images per second",
  gap: "Images were missing: wait a moment",
  too_short: "Hold still: a first value takes eight seconds",
  overexposed: "Less light: the face is too bright",
  low_light: "More light",
  motion: "Hold still",
  flicker: "The light flickers: try daylight or another lamp",
  low_snr: "No clear pulse: hold still, with even light on your face",
  unstable: "The pulse is not steady yet: hold still",
  jitter: "the beats cannot be timed well enough",
  artefacts: "too many beats are unclear",
  disagreement: "the signs of breathing disagree",
  not_calibrated: "not calibrated",
};

const byId = (id) => document.getElementById(id);

// The key, which is copied and goes nowhere else.
for (const button of document.querySelectorAll("[data-copy]")) {
  const field = byId(button.dataset.copy);
  button.hidden = false;
  field.addEventListener("focus", () => field.select());
  button.addEventListener("click", async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      byId("copied").textContent = "Copied.";
    } catch {
      byId("copied").textContent = "Your browser does not let pages copy: press Ctrl+C.";
    }
  });
}

// The face -----------------------------------------------------------------------------------------------------------
// Resolves to something that finds faces, or to nothing when that cannot be had soon enough.
async function finderAt(place) {
  const loading = (async () => {
    const { FaceDetector } = await import(`${place}/vision_bundle.mjs`);
    const parts = {
      wasmLoaderPath: `${place}/vision_wasm_internal.js`,
      wasmBinaryPath: `${place}/vision_wasm_internal.wasm`,
    };
    return FaceDetector.createFromOptions(parts, {
      baseOptions: { modelAssetPath: `${place}/blaze_face_short_range.tflite`, delegate: "CPU" },
      runningMode: "VIDEO",
      minDetectionConfidence: LOST,
    });
  })();
  const late = new Promise((resolve) => setTimeout(resolve, LOAD_MS, null));
  return Promise.race([loading.catch(() => null), late]);
}

// Follows the largest face: where it was found last, smoothed from image to image.
class Face {
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

// Forehead and cheeks as rectangles [left, top, width, height], from the eyes and the mouth.
function regionsOf({ numbers: [ax, ay, bx, by, , , mx, my] }) {
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
const OVAL = { x: WIDTH / 2, y: HEIGHT / 2, wide: WIDTH * 0.17, high: HEIGHT * 0.36 };
const OVAL_REGIONS = [
  [OVAL.x - OVAL.wide * 0.5, OVAL.y - OVAL.high * 0.72, OVAL.wide, OVAL.high * 0.3],
  [OVAL.x - OVAL.wide * 0.72, OVAL.y + OVAL.high * 0.1, OVAL.wide * 0.42, OVAL.high * 0.3],
  [OVAL.x + OVAL.wide * 0.3, OVAL.y + OVAL.high * 0.1, OVAL.wide * 0.42, OVAL.high * 0.3],
];

// The mean colour of a rectangle, or null where too little of it can be used; and how much of it cannot.
function colourOf(pixels, [left, top, wide, high]) {
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

const rounded = (value, digits) => Number(value.toFixed(digits));

// The wave -----------------------------------------------------------------------------------------------------------
class Wave {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = [];
  }

  add(t, colours) {
    const seen = colours.filter(Boolean);
    if (!seen.length) return;
    const [r, g, b] = [0, 1, 2].map((channel) => seen.reduce((sum, each) => sum + each[channel], 0) / seen.length);
    this.points.push({ t, r, g, b });
    while (this.points[0].t < t - (WAVE_S + 2) * 1000) this.points.shift();
  }

  // Green against red and blue, each in shares of its own mean of the last 1.6 s: light that changes falls out.
  values() {
    const { points } = this;
    const values = [];
    let first = 0;
    const sums = [0, 0, 0];
    points.forEach((point, index) => {
      sums[0] += point.r;
      sums[1] += point.g;
      sums[2] += point.b;
      while (points[first].t < point.t - 1600) {
        sums[0] -= points[first].r;
        sums[1] -= points[first].g;
        sums[2] -= points[first].b;
        first++;
      }
      const count = index - first + 1;
      const [r, g, b] = sums.map((each) => each / count);
      values.push({ t: point.t, value: (point.r / r + point.b / b) / 2 - point.g / g });
    });
    return values.map(({ t }, index) => {
      const near = values.slice(Math.max(0, index - 2), index + 3);
      return { t, value: near.reduce((sum, each) => sum + each.value, 0) / near.length };
    });
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.round(canvas.clientWidth * ratio);
    const high = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    const brush = canvas.getContext("2d");
    brush.clearRect(0, 0, wide, high);
    const values = this.values();
    if (values.length < 10) return;
    const end = values[values.length - 1].t;
    const shown = values.filter(({ t }) => t >= Math.max(end - WAVE_S * 1000, values[0].t + 1600));
    if (shown.length < 2) return;
    const largest = Math.max(1e-4, ...shown.map(({ value }) => Math.abs(value)));
    brush.beginPath();
    for (const { t, value } of shown) {
      brush.lineTo(wide * (1 - (end - t) / (WAVE_S * 1000)), high / 2 - (value / largest) * high * 0.42);
    }
    brush.lineWidth = 2 * ratio;
    brush.lineJoin = "round";
    brush.strokeStyle = getComputedStyle(canvas).color;
    brush.stroke();
  }
}

// A measurement ------------------------------------------------------------------------------------------------------
class Measurement {
  constructor(view, place) {
    this.view = view;
    this.place = place;
    this.seq = 0;
    this.dropped = 0;
    this.isOver = false;
    this.clear();
    this.wave = new Wave(byId("wave"));
    this.pixels = new OffscreenCanvas(WIDTH, HEIGHT).getContext("2d", { willReadFrequently: true });
  }

  clear() {
    this.batch = { t: [], rgb: [], face: [], box: [], clipped: [] };
  }

  async run() {
    const { view } = this;
    if (!navigator.mediaDevices?.getUserMedia) throw new Error("This browser gives pages no camera, or only over https.");
    view.say("Asking for the camera…");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: WIDTH }, height: { ideal: HEIGHT }, frameRate: { ideal: 30 }, facingMode: "user" },
      });
    } catch (error) {
      throw new Error(
        error.name === "NotAllowedError"
          ? "The camera was refused, so nothing is measured. Your browser's settings let you allow it."
          : "There is no camera that can be used, so nothing is measured.",
      );
    }
    if (this.isOver) return this.release();
    [this.track] = this.stream.getVideoTracks();
    this.track.addEventListener("ended", () => this.fail("The camera is gone."));
    const { video } = view;
    video.srcObject = this.stream;
    view.showScene(true);
    await video.play();
    view.say("Loading what finds a face…");
    const finder = await finderAt(this.place);
    if (this.isOver) return this.release();
    this.face = finder && new Face(finder);
    const session = await this.session();
    if (this.isOver) return this.release();
    await this.connect(session);
    setTimeout(() => this.lock(), LOCK_AFTER_MS);
    view.say(this.face ? "Look into the camera and hold still." : "Fill the oval with your face and hold still.");
    this.watch();
  }

  async session() {
    const { session, csrf } = this.view.section.dataset;
    const fields = new URLSearchParams(csrf ? { csrf, heartbeat: byId("heartbeat")?.value.trim() ?? "" } : {});
    this.isKept = csrf !== undefined && byId("keep")?.checked === true;
    if (this.isKept) fields.set("keep", "on");
    const answer = await fetch(session, { method: "POST", body: fields });
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told.message ?? "The server makes no session now; reload the page and try again.");
    return told.session;
  }

  connect({ token, ws_url: path }) {
    const address = new URL(path, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    return new Promise((resolve, reject) => {
      this.socket.addEventListener("open", () => {
        this.send({ type: "start", token, fps: 30, rois: REGIONS, client: "web/1.0" });
      });
      this.socket.addEventListener("message", ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "ready") resolve();
        else this.hear(message);
      });
      this.socket.addEventListener("close", () => {
        reject(new Error("The server does not take the stream."));
        this.fail("The connection ended.");
      });
    });
  }

  hear(message) {
    const { view } = this;
    if (message.type === "update") view.showUpdate(message.vitals.heart_rate);
    if (message.type === "warning" && message.code === "checkin_failed") view.say("The heartbeat could not be checked in.");
    if (message.type === "error") this.fail(message.message || "Something went wrong.");
    if (message.type === "final") {
      view.showResult(message.report);
      if (this.isKept) view.renewHistory();
      this.end("Done.");
    }
  }

  // What the camera does by itself would drown the pulse.
  async lock() {
    if (this.isOver) return;
    const known = this.track.getCapabilities?.() ?? {};
    const wanted = {};
    for (const name of ["exposureMode", "whiteBalanceMode"]) {
      if (known[name]?.includes("manual")) wanted[name] = "manual";
    }
    try {
      if (Object.keys(wanted).length < 2) throw new Error("not with this camera");
      await this.track.applyConstraints({ advanced: [wanted] });
    } catch {
      this.view.warn("This camera changes its exposure by itself, which may hide a pulse: keep the light even.");
    }
  }

  watch() {
    const { video } = this.view;
    let presented = null;
    const see = (_now, frame) => {
      if (this.isOver) return;
      video.requestVideoFrameCallback(see);
      if (presented !== null && frame.presentedFrames > presented + 1) this.dropped += frame.presentedFrames - presented - 1;
      presented = frame.presentedFrames;
      // One clock for the whole stream: instants of different clocks cannot be compared.
      this.clock ??= frame.captureTime === undefined ? "mediaTime" : "captureTime";
      const instant = this.clock === "captureTime" ? frame.captureTime : frame.mediaTime * 1000;
      if (instant !== undefined) this.read(instant);
    };
    video.requestVideoFrameCallback(see);
  }

  read(instant) {
    if (this.last !== undefined && instant <= this.last) return;
    this.last = instant;
    this.opened ??= instant;
    this.pixels.drawImage(this.view.video, 0, 0, WIDTH, HEIGHT);
    const found = this.face ? this.face.read(this.pixels.canvas, instant) : null;
    const regions = this.face ? found && regionsOf(found) : OVAL_REGIONS;
    this.view.drawGuide(regions, !this.face);
    // The first images are often dark, and somebody may have to sit down: that is no hole in a pulse.
    if (this.began === undefined && !regions && instant - this.opened < COMING_MS) return;
    this.began ??= instant;
    const t = rounded(instant - this.began, 2);
    const read = regions ? this.measured(regions) : REGIONS.map(() => ({ colour: null, clipped: 0 }));
    const colours = read.map(({ colour }) => colour);
    this.wave.add(t, colours);
    this.wave.draw();
    this.batch.t.push(t);
    this.batch.rgb.push(colours.map((colour) => colour && colour.map((each) => rounded(each, 2))));
    this.batch.clipped.push(read.map(({ clipped }) => rounded(clipped, 2)));
    if (this.face) {
      this.batch.face.push(found ? rounded(Math.min(found.score, 1), 2) : 0);
      this.batch.box.push(found ? found.numbers.slice(8).map((each) => rounded(each, 1)) : [0, 0, 0]);
    }
    if (this.batch.t.length >= BATCH) this.flush();
  }

  measured(regions) {
    const { data } = this.pixels.getImageData(0, 0, WIDTH, HEIGHT);
    return regions.map((each) => colourOf(data, each));
  }

  flush() {
    const { t, rgb, face, box, clipped } = this.batch;
    if (!t.length) return;
    const seen = this.face ? { face, box } : {};
    this.send({ type: "frames", seq: this.seq++, t, rgb, clipped, ...seen, dropped: this.dropped });
    this.dropped = 0;
    this.clear();
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // Stopping: what was seen so far still gives a report.
  stop() {
    this.isOver = true;
    this.release();
    this.flush();
    this.send({ type: "stop" });
    if (this.socket?.readyState !== WebSocket.OPEN) this.end("Stopped.");
    else this.view.say("Working it out…");
  }

  fail(words) {
    if (!this.isEnded) this.end(words);
  }

  end(words) {
    this.isOver = this.isEnded = true;
    this.release();
    this.socket?.close();
    this.view.ended(words);
  }

  release() {
    this.stream?.getTracks().forEach((each) => each.stop());
    this.view.video.srcObject = null;
    this.view.showScene(false);
  }
}

// The page -----------------------------------------------------------------------------------------------------------
class View {
  constructor(section) {
    this.section = section;
    this.video = section.querySelector("video");
    this.guide = section.querySelector(".capture-guide");
    byId("start").addEventListener("click", () => this.start());
    byId("stop").addEventListener("click", () => this.measurement?.stop());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.measurement && !this.measurement.isOver) this.measurement.stop();
    });
    window.addEventListener("pagehide", () => this.measurement?.release());
  }

  async start() {
    byId("start").hidden = true;
    byId("stop").hidden = false;
    byId("stop").focus();
    this.warned = "";
    this.measurement = new Measurement(this, this.section.dataset.place);
    try {
      await this.measurement.run();
    } catch (error) {
      this.measurement.fail(error.message);
    }
  }

  ended(words) {
    this.say(words);
    const isStopFocused = document.activeElement === byId("stop");
    byId("stop").hidden = true;
    byId("start").hidden = false;
    if (isStopFocused) byId("start").focus();
  }

  say(words) {
    byId("says").textContent = [words, this.warned].filter(Boolean).join(" ");
  }

  warn(words) {
    this.warned = words;
    byId("says").textContent += ` ${words}`;
  }

  showScene(isShown) {
    this.section.querySelector(".capture-scene").hidden = !isShown;
  }

  drawGuide(regions, isOval) {
    const { guide } = this;
    if (guide.width !== WIDTH) Object.assign(guide, { width: WIDTH, height: HEIGHT });
    const brush = guide.getContext("2d");
    brush.clearRect(0, 0, WIDTH, HEIGHT);
    brush.strokeStyle = "#fff";
    brush.lineWidth = 2;
    if (isOval) {
      brush.beginPath();
      brush.ellipse(OVAL.x, OVAL.y, OVAL.wide, OVAL.high, 0, 0, 2 * Math.PI);
      brush.stroke();
    }
    for (const [left, top, wide, high] of regions ?? []) brush.strokeRect(left, top, wide, high);
  }

  showUpdate({ value, confidence, reason }) {
    byId("rate").textContent = value === null ? "–" : String(Math.round(value));
    byId("confidence").textContent = value === null ? "–" : `${Math.round(confidence * 100)} %`;
    const words = value === null ? `${REASONS[reason] ?? reason}.` : "";
    if (byId("reason").textContent !== words) byId("reason").textContent = words;
  }

  // The server draws it; what it just kept comes with it.
  async renewHistory() {
    const answer = await fetch("/vitals").catch(() => null);
    if (!answer?.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const drawn = page.getElementById("history");
    if (drawn) byId("history").replaceWith(drawn);
  }

  showResult({ vitals }) {
    this.showUpdate(vitals.heart_rate);
    const told = ({ value, unit }) => (value === null ? "–" : `${value} ${unit}`);
    const row = document.createElement("tr");
    const time = new Date().toLocaleTimeString();
    const names = ["heart_rate", "respiration_rate", "rmssd"];
    const reasons = new Set(names.map((name) => vitals[name].reason).filter(Boolean));
    const cells = [time, ...names.map((name) => told(vitals[name])), [...reasons].map((each) => (REASONS[each] ?? each)).join("; ")];
    cells.forEach((text, index) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      if (index > 0 && index < 4) cell.className = "num";
      row.append(cell);
    });
    byId("results").hidden = false;
    byId("no-results").hidden = true;
    byId("results").querySelector("tbody").prepend(row);
  }
}

const section = byId("capture");
if (section) new View(section);
