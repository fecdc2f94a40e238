// One measurement: from the camera to the report. Sends mean colours, where the face is and when; never an image.

import { Face, HEIGHT, LOST, OVAL_REGIONS, REGIONS, WIDTH, boxOf, colourOf, regionsOf, rounded, shownPart } from "./seeing.js";

const BATCH = 15;
const LOAD_MS = 5000;
const LOCK_AFTER_MS = 2000;
const COMING_MS = 3000;
// Cameras that take more than 75 images a second are read less often: so much is said of each.
const SHORTEST_MS = 13;
// Of what was sent, so many bytes may be on their way: about as much as is said in ten seconds.
const MOST_WAITING = 64 * 1024;
const ANSWER_MS = 15_000;

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

function whyNoCamera({ name }) {
  if (name === "NotAllowedError") return "The camera was refused, so nothing is measured. Your browser's settings let you allow it.";
  if (name === "NotReadableError" || name === "AbortError") {
    return "The camera does not start, so nothing is measured. Another program may be using it.";
  }
  return "There is no camera that can be used, so nothing is measured.";
}

// view: what is shown. wish: where a session is made, what is sent there, and whether the result is kept.
export class Measurement {
  constructor(view, place, wish) {
    this.view = view;
    this.place = place;
    this.wish = wish;
    this.seq = 0;
    this.dropped = 0;
    this.isOver = false;
    this.clear();
  }

  clear() {
    this.batch = { t: [], rgb: [], face: [], box: [], clipped: [] };
  }

  async run() {
    const { view } = this;
    const { video } = view;
    if (!navigator.mediaDevices?.getUserMedia) throw new Error("This browser gives pages no camera, or only over https.");
    if (!video.requestVideoFrameCallback || !globalThis.OffscreenCanvas) {
      throw new Error("This browser does not tell when an image was taken: a newer one does.");
    }
    this.pixels = new OffscreenCanvas(WIDTH, HEIGHT).getContext("2d", { willReadFrequently: true });
    view.say("Asking for the camera…");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: WIDTH }, height: { ideal: HEIGHT }, frameRate: { ideal: 30 }, facingMode: "user" },
      });
    } catch (error) {
      throw new Error(whyNoCamera(error));
    }
    if (this.isOver) return this.release();
    [this.track] = this.stream.getVideoTracks();
    this.track.addEventListener("ended", () => this.stop("The camera is gone."));
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
    if (this.isOver) return undefined;
    setTimeout(() => this.lock(), LOCK_AFTER_MS);
    view.say(this.face ? "Look into the camera and hold still." : "Fill the oval with your face and hold still.");
    return this.watch();
  }

  async session() {
    const answer = await fetch(this.wish.address, { method: "POST", body: this.wish.fields }).catch(() => null);
    if (!answer) throw new Error("The server cannot be reached.");
    const told = await answer.json().catch(() => null);
    if (answer.ok && told?.session) return told.session;
    throw new Error(told?.message ?? "The server makes no session now; reload the page and try again.");
  }

  connect({ token, ws_url: path }) {
    const address = new URL(path, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    return new Promise((resolve, reject) => {
      let isReady = false;
      this.socket.addEventListener("open", () => {
        this.send({ type: "start", token, fps: 30, rois: REGIONS, client: "web/1.0" });
      });
      this.socket.addEventListener("message", ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "ready") {
          isReady = true;
          resolve();
        } else this.hear(message);
      });
      this.socket.addEventListener("close", () => {
        if (isReady) this.fail("The connection ended, so there is no result.");
        else reject(new Error("The server does not take the stream."));
      });
    });
  }

  hear(message) {
    if (this.isEnded) return;
    const { view } = this;
    if (message.type === "update") view.showUpdate(message.vitals.heart_rate);
    if (message.type === "warning" && message.code === "checkin_failed") view.say("The heartbeat could not be checked in.");
    if (message.type === "error") this.fail(message.message || "Something went wrong.");
    if (message.type === "final") {
      this.hasResult = true;
      view.showResult(message.report);
      if (this.wish.isKept) view.renewHistory();
      this.end(this.why ?? "Done.");
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
      if (!Number.isFinite(instant)) return;
      try {
        this.read(instant);
      } catch (error) {
        console.error(error);
        this.stop("The images cannot be read any more.");
      }
    };
    video.requestVideoFrameCallback(see);
  }

  read(instant) {
    if (this.last !== undefined && instant < this.last + SHORTEST_MS) return;
    this.last = instant;
    this.opened ??= instant;
    this.pixels.drawImage(this.view.video, ...shownPart(this.view.video), 0, 0, WIDTH, HEIGHT);
    const found = this.face ? this.face.read(this.pixels.canvas, instant) : null;
    const regions = this.face ? found && regionsOf(found) : OVAL_REGIONS;
    this.view.drawGuide(regions, !this.face);
    // The first images are often dark, and somebody may have to sit down: that is no hole in a pulse.
    if (this.began === undefined && !regions && instant - this.opened < COMING_MS) return;
    this.began ??= instant;
    const t = rounded(instant - this.began, 2);
    const read = regions ? this.measured(regions) : REGIONS.map(() => ({ colour: null, clipped: 0 }));
    const colours = read.map(({ colour }) => colour);
    this.view.showColours(t, colours);
    this.batch.t.push(t);
    this.batch.rgb.push(colours.map((colour) => colour && colour.map((each) => rounded(each, 2))));
    this.batch.clipped.push(read.map(({ clipped }) => rounded(clipped, 2)));
    if (this.face) {
      this.batch.face.push(found ? rounded(Math.min(found.score, 1), 2) : 0);
      this.batch.box.push(found ? boxOf(found).map((each) => rounded(each, 1)) : [0, 0, 0]);
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
    if (this.socket?.bufferedAmount > MOST_WAITING) this.fail("The connection is too slow, or lost, so there is no result.");
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // Stopping: what was seen so far still gives a report. why: when nobody asked for it.
  stop(why) {
    // Whoever asks again does not want to wait for the report.
    if (this.isOver) return this.fail("Stopped.");
    this.isOver = true;
    this.why = why;
    this.release();
    if (this.socket?.readyState !== WebSocket.OPEN) return this.end(why ?? "Stopped.");
    this.flush();
    this.send({ type: "stop" });
    setTimeout(() => this.fail("The server does not answer, so there is no result."), ANSWER_MS);
    return this.view.say("Working it out…");
  }

  fail(words) {
    if (!this.isEnded) this.end(words);
  }

  end(words) {
    this.isOver = this.isEnded = true;
    this.release();
    this.socket?.close();
    this.view.ended(words, this.hasResult === true);
  }

  release() {
    this.stream?.getTracks().forEach((each) => each.stop());
    // Another measurement may have begun meanwhile, and shows its own camera.
    if (this.view.video.srcObject !== (this.stream ?? null)) return;
    this.view.video.srcObject = null;
    this.view.showScene(false);
  }
}
