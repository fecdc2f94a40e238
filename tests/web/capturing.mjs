// Runs the scripts of the page with the camera in Node and tells, as JSON, what they did in each case. The browser around
// them is made here of the few parts that they ask for; what they are told by camera and server is said case by case.

import { pathToFileURL } from "node:url";

const folder = pathToFileURL(process.argv[2]).href;
const { Measurement } = await import(`${folder}/measuring.js`);
const seeing = await import(`${folder}/seeing.js`);
const words = await import(`${folder}/words.js`);

const PIXELS = seeing.WIDTH * seeing.HEIGHT;
const soon = setImmediate;
let complaints = [];
console.error = (error) => complaints.push(String(error));

// A browser ----------------------------------------------------------------------------------------------------------
// Everything that waits for nothing but a turn of the loop is done; bounded.
async function settled(isDone = () => true) {
  for (let turn = 0; turn < 100_000 && (turn < 50 || !isDone()); turn++) await new Promise((resolve) => soon(resolve));
}

class Socket {
  static OPEN = 1;

  constructor(address) {
    world.sockets.push(this);
    Object.assign(this, { address: String(address), readyState: 0, bufferedAmount: 0, sent: [], heard: {} });
  }

  addEventListener(kind, act) {
    this.heard[kind] = act;
  }

  send(text) {
    this.sent.push(text);
  }

  close() {
    this.readyState = 3;
    soon(() => this.heard.close());
  }

  open() {
    this.readyState = 1;
    this.heard.open();
  }

  say(message) {
    this.heard.message({ data: JSON.stringify(message) });
  }

  async ready() {
    this.open();
    this.say({ type: "ready", session: "vs_1", max_s: 60 });
    await settled();
  }

  get frames() {
    return this.sent.map((each) => JSON.parse(each)).filter(({ type }) => type === "frames");
  }

  get kinds() {
    return this.sent.map((each) => JSON.parse(each).type);
  }
}

class Canvas {
  getContext() {
    return {
      canvas: this,
      drawImage: (_video, ...where) => world.drawn.push(where),
      getImageData: () => ({ data: world.pixels }),
    };
  }
}

const FACE = {
  boundingBox: { originX: 240, originY: 140, width: 160, height: 200 },
  categories: [{ score: 0.9 }],
  keypoints: [[280, 200], [360, 200], [320, 240], [320, 280]].map(([x, y]) => ({ x: x / seeing.WIDTH, y: y / seeing.HEIGHT })),
};

let world;

function filled(...colour) {
  const pixels = new Uint8ClampedArray(PIXELS * 4);
  for (let at = 0; at < pixels.length; at += 4) pixels.set([...colour, 255], at);
  return pixels;
}

function a_browser(told = {}) {
  complaints = [];
  world = { sockets: [], drawn: [], posted: [], timers: [], stopped: 0, constraints: [], tracks: [], nowMs: 0, ...told };
  world.pixels ??= SKIN;
  world.detect ??= () => [FACE];
  const video = {
    srcObject: null,
    videoWidth: told.wide ?? 640,
    videoHeight: told.high ?? 480,
    play: async () => undefined,
    requestVideoFrameCallback: (act) => (world.next = act),
  };
  const devices = {
    getUserMedia: async (asked) => {
      world.asked = asked;
      await world.permission;
      if (told.refusal) throw Object.assign(new Error("of the browser"), { name: told.refusal });
      const track = {
        heard: {},
        stop: () => world.stopped++,
        addEventListener: (kind, act) => (track.heard[kind] = act),
        getCapabilities: () => told.capabilities ?? {},
        applyConstraints: async (wanted) => world.constraints.push(wanted),
      };
      world.tracks.push(track);
      return { getTracks: () => [track], getVideoTracks: () => [track] };
    },
  };
  world.video = told.isOld ? { ...video, requestVideoFrameCallback: undefined } : video;
  const globals = {
    navigator: told.hasNoCamera ? {} : { mediaDevices: devices },
    location: { href: "https://lifesign.test/try" },
    WebSocket: Socket,
    OffscreenCanvas: Canvas,
    setTimeout: (act, ms, ...rest) => world.timers.push({ at: world.nowMs + ms, act: () => act(...rest) }),
    finding: told.finding ?? (async (parts, options) => {
      world.parts = { parts, options };
      return { detectForVideo: (_image, t) => ({ detections: world.detect(t) }) };
    }),
    fetch: async (address, { method, body }) => {
      world.posted.push([address, method, String(body)]);
      if (told.isOffline) throw new TypeError("Failed to fetch");
      const answer = told.answer ?? { session: { token: "vst_1", ws_url: "/api/vitals/stream" } };
      const json = async () => (typeof answer === "string" ? JSON.parse(answer) : answer);
      return { ok: (told.status ?? 201) < 400, json };
    },
  };
  for (const [name, value] of Object.entries(globals)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
}

async function pass(ms) {
  world.nowMs += ms;
  const due = world.timers.filter(({ at }) => at <= world.nowMs);
  world.timers = world.timers.filter(({ at }) => at > world.nowMs);
  due.forEach(({ act }) => act());
  await settled();
}

let presented = 0;

function frame(captureTime, members = {}) {
  const act = world.next;
  world.next = undefined;
  presented += 1 + (members.missed ?? 0);
  act?.(0, { presentedFrames: presented, captureTime, mediaTime: captureTime / 1000, ...members });
}

function frames(count, stepMs, begin = 1000) {
  for (let index = 0; index < count; index++) frame(begin + index * stepMs);
}

// What the page would show.
function a_view() {
  const view = { video: world.video, said: [], warned: [], updates: [], results: [], guides: [], scenes: [], renewed: 0 };
  return Object.assign(view, {
    say: (text) => view.said.push(text),
    warn: (text) => view.warned.push(text),
    showScene: (isShown) => view.scenes.push(isShown),
    showColours: () => undefined,
    drawGuide: (regions, isOval) => view.guides.push([regions, isOval]),
    showUpdate: (update) => view.updates.push(update),
    showResult: (report) => view.results.push(report),
    renewHistory: () => view.renewed++,
    ended: (text, hasResult) => (view.ended_with = [text, hasResult]),
  });
}

const WISH = { address: "/api/demo/session", fields: new URLSearchParams(), isKept: false };

function a_measurement(view = a_view(), wish = WISH, place = `${folder}/vision`) {
  const measurement = new Measurement(view, place, wish);
  const running = measurement.run().then(
    () => null,
    (error) => {
      measurement.fail(error.message);
      return error.message;
    },
  );
  return { view, measurement, running };
}

// Up to where images are looked at.
async function watching(told = {}, wish = WISH, place = undefined) {
  a_browser(told);
  const begun = a_measurement(a_view(), wish, place);
  await settled(() => world.sockets.length);
  const [socket] = world.sockets;
  await socket.ready();
  return { ...begun, socket };
}

const SKIN = filled(190, 145, 125);
// As many digits as there may be: means with fractions, and some pixels that are too bright.
const SPOTTED = filled(199, 188, 177);
for (let at = 0; at < SPOTTED.length; at += 12) SPOTTED.set(at % 96 ? [200, 189, 178] : [255, 255, 255], at);
const REPORT = { vitals: { heart_rate: { value: 72.1, confidence: 0.9, reason: null } } };

// Cases --------------------------------------------------------------------------------------------------------------
const cases = {
  colours() {
    const pixels = filled(100, 80, 60);
    const put = (x, y, colour) => pixels.set([...colour, 255], (y * seeing.WIDTH + x) * 4);
    for (let x = 0; x < 40; x++) {
      // At and beside the limits: of 800 pixels 120 are too dark or too bright, 80 are not.
      [[15, 0, 15], [16, 0, 0], [250, 0, 0], [0, 249, 0], [255, 255, 255]].forEach((colour, y) => put(x, y, colour));
    }
    return {
      mixed: seeing.colourOf(pixels, [0, 0, 40, 20]),
      mostly_clipped: seeing.colourOf(pixels, [0, 0, 40, 14]),
      least: seeing.colourOf(pixels, [100, 100, 20, 20]),
      too_few: seeing.colourOf(pixels, [100, 100, 20, 19]),
      half_outside: seeing.colourOf(pixels, [-20, 100, 40, 40]),
      outside: seeing.colourOf(pixels, [700, 500, 40, 40]),
    };
  },

  regions() {
    const face = new seeing.Face({ detectForVideo: () => ({ detections: [FACE] }) });
    const found = face.read(null, 0);
    return { regions: seeing.regionsOf(found), box: seeing.boxOf(found) };
  },

  following() {
    const seen = [];
    let detections = [];
    const moved = structuredClone(FACE);
    moved.boundingBox.originX += 100;
    const weak = structuredClone(FACE);
    weak.categories[0].score = 0.5;
    const small = structuredClone(FACE);
    small.boundingBox.width = 80;
    const face = new seeing.Face({ detectForVideo: (_image, t) => (seen.push(t), { detections }) });
    const centre = (t) => face.read(null, t)?.numbers[8] ?? null;
    const told = { not_sure_enough_to_begin: ((detections = [weak]), centre(0)) };
    detections = [small, FACE];
    told.largest = face.read(null, 10).numbers.slice(8);
    detections = [weak];
    told.sure_enough_to_go_on = [20, 30, 40, 50].map(centre);
    detections = [moved];
    told.eased = [60, 70, 80, 90, 100, 110].map((t) => rounded(centre(t)));
    detections = [];
    told.kept_for_half_a_second = [200, 300, 400, 500, 560].map((t) => centre(t) !== null);
    told.lost = centre(700);
    told.looked_at = seen;
    return told;
  },

  wave() {
    const points = (colours) => {
      const wave = new seeing.Wave(8);
      for (let index = 0; index < 360; index++) wave.add((index * 1000) / 30, [colours(index / 30), null]);
      return wave.values();
    };
    const pulse = (s) => Math.sin(2 * Math.PI * 1.2 * s);
    const beating = points((s) => [190, 145 * (1 - 0.006 * pulse(s)), 125]);
    const crossings = beating.filter(({ value }, index) => index && value > 0 && beating[index - 1].value <= 0);
    const largest = (values) => Math.max(...values.map(({ value }) => Math.abs(value)));
    return {
      first_s: beating[0].t / 1000,
      last_s: beating.at(-1).t / 1000,
      beats_in_eight_seconds: crossings.length,
      height: largest(beating),
      of_light_that_changes: largest(points((s) => [190, 145, 125].map((each) => each * (1 + 0.05 * pulse(s))))),
      of_nothing: new seeing.Wave(8).values(),
    };
  },

  parts() {
    const part = (videoWidth, videoHeight) => seeing.shownPart({ videoWidth, videoHeight });
    return { as_asked: part(640, 480), upright: part(480, 640), wide: part(1280, 720) };
  },

  sentences() {
    const vital = (reason) => ({ value: reason === null ? 15.2 : null, unit: "1/min", reason });
    const sentence = (heart_rate, respiration_rate, rmssd) =>
      words.whyNotMore({ heart_rate: vital(heart_rate), respiration_rate: vital(respiration_rate), rmssd: vital(rmssd) });
    return {
      known: Object.keys(words.REASONS),
      nothing_missing: sentence(null, null, null),
      short: sentence(null, "too_short", "too_short"),
      apart: sentence(null, "disagreement", "jitter"),
      moving: sentence("motion", "motion", "motion"),
      shortest: sentence("too_short", "too_short", "too_short"),
      told: [words.told(vital(null)), words.told(vital("jitter"))],
    };
  },

  async numbers_only() {
    const { socket, view, measurement } = await watching();
    frames(30, 1000 / 30);
    const { sent } = socket;
    const before_the_camera = view.said.slice(0, 1);
    measurement.stop();
    socket.say({ type: "final", report: REPORT });
    await settled();
    return { sent, before_the_camera, said: view.said, asked: world.asked, posted: world.posted, address: socket.address,
      parts: world.parts, drawn: world.drawn[0], ended: view.ended_with, results: view.results.length, renewed: view.renewed,
      stopped: world.stopped, picture: world.video.srcObject, scenes: view.scenes, kinds: socket.kinds };
  },

  async bytes() {
    const told = {};
    for (const fps of [30, 60, 120, 240]) {
      const { socket } = await watching({ pixels: SPOTTED });
      // Minutes later, when times have more digits.
      frame(1000.123);
      frames(4 * fps, 1000 / fps, 600_000.123);
      const { frames: sent } = socket;
      const seconds = (sent.at(-1).t.at(-1) - sent[1].t[0]) / 1000;
      const bytes = socket.sent.slice(2).reduce((sum, each) => sum + Buffer.byteLength(each), 0);
      told[fps] = { per_s: bytes / seconds, batches: [...new Set(sent.map(({ t }) => t.length))] };
    }
    return told;
  },

  async dropped() {
    const { socket } = await watching();
    for (let index = 0; index < 45; index++) frame(index * 33, { missed: index === 20 ? 2 : 0 });
    return socket.frames.map(({ dropped }) => dropped);
  },

  async clocks() {
    const told = {};
    for (const [name, times] of Object.entries({
      capture: (at) => [at + 5000, { mediaTime: at / 1000 + 1 }],
      media: (at) => [at < 50 ? undefined : at + 5000, { mediaTime: at / 1000 + 1 }],
    })) {
      const { socket } = await watching();
      for (let at = 0; at < 600; at += 33) {
        frame(...times(at));
        // One that has no such instant, and one that comes twice, say nothing.
        frame(undefined, { mediaTime: undefined });
        frame(...times(at));
      }
      told[name] = socket.frames[0].t;
    }
    return told;
  },

  async refusals() {
    const told = {};
    for (const [name, of] of Object.entries({
      refused: { refusal: "NotAllowedError" },
      absent: { refusal: "NotFoundError" },
      unfit: { refusal: "OverconstrainedError" },
      busy: { refusal: "NotReadableError" },
      unsafe: { hasNoCamera: true },
      old: { isOld: true },
    })) {
      a_browser(of);
      const { running, view } = a_measurement();
      const says = await running;
      told[name] = { says, ended: view.ended_with, posted: world.posted.length, sockets: world.sockets.length };
    }
    return told;
  },

  async servers() {
    const told = {};
    for (const [name, of] of Object.entries({
      away: { isOffline: true },
      limited: { status: 429, answer: { success: false, message: "Demo limit reached: 10 requests per hour." } },
      broken: { status: 500, answer: "<html>" },
      signed_out: { status: 200, answer: "<html>" },
      nothing: { status: 201, answer: "null" },
    })) {
      a_browser(of);
      const { running, view } = a_measurement();
      await running;
      told[name] = { says: view.ended_with[0], stopped: world.stopped, picture: world.video.srcObject };
    }
    return told;
  },

  async closings() {
    const told = {};
    for (const [name, act] of Object.entries({
      before_it_is_ready: (socket) => socket.close(),
      refused_with_words: (socket) => (socket.open(), socket.say({ type: "error", code: "server_full", message: "Server is busy" }), socket.close()),
    })) {
      a_browser();
      const { running, view } = a_measurement();
      await settled(() => world.sockets.length);
      act(world.sockets[0]);
      await running;
      told[name] = [...view.ended_with, world.stopped > 0];
    }
    for (const [name, act] of Object.entries({
      lost: ({ socket }) => socket.close(),
      error: ({ socket }) => socket.say({ type: "error", code: "bad_time", message: "t_ms must be strictly increasing" }),
      slow: ({ socket }) => ((socket.bufferedAmount = 65_537), frames(15, 33)),
      not_slow: ({ socket }) => ((socket.bufferedAmount = 65_536), frames(15, 33)),
      camera_gone: async ({ socket }) => (frames(20, 33), world.tracks[0].heard.ended(), socket.say({ type: "final", report: REPORT })),
      broken_finder: async ({ socket }) => {
        world.detect = () => {
          throw new Error("out of memory");
        };
        frames(1, 33);
        socket.say({ type: "final", report: REPORT });
      },
      never_answered: async ({ measurement }) => (measurement.stop(), pass(14_999)),
      never_answered_for_long: async ({ measurement }) => (measurement.stop(), pass(15_000)),
      stopped_twice: ({ measurement, socket }) => (measurement.stop(), measurement.stop(), socket.say({ type: "final", report: REPORT })),
    })) {
      const begun = await watching();
      await act(begun);
      await settled();
      told[name] = { ended: begun.view.ended_with ?? null, last: begun.view.said.at(-1), stopped: world.stopped,
        results: begun.view.results.length, kinds: begun.socket.kinds, complaints };
    }
    return told;
  },

  async hears() {
    const { socket, view, measurement } = await watching({}, { ...WISH, isKept: true });
    const rate = { value: null, confidence: 0, reason: "motion" };
    socket.say({ type: "update", vitals: { heart_rate: rate } });
    socket.say({ type: "warning", code: "checkin_failed" });
    const said = view.said.at(-1);
    measurement.stop();
    socket.say({ type: "final", report: REPORT });
    return { updates: view.updates, said, renewed: view.renewed, ended: view.ended_with };
  },

  async faces() {
    const { socket, view } = await watching({ detect: () => [] });
    // Nobody is there for two seconds: that is no part of the recording. Then somebody is, and goes.
    frames(60, 100 / 3, 1000);
    const begun = socket.frames.length;
    world.detect = () => [FACE];
    frames(30, 100 / 3, 3000);
    world.detect = () => [];
    frames(45, 100 / 3, 4010);
    const sent = socket.frames;
    const lost = view.guides.at(-1);
    const { socket: other } = await watching({ detect: () => [] });
    frames(120, 34, 1000);
    return { begun, first: sent[0], last: sent.at(-1), times: sent.flatMap(({ t }) => t).slice(0, 2),
      lost_after: sent.flatMap(({ face }) => face).findIndex((each) => each === 0), lost,
      nobody_ever: { first_t: other.frames[0].t[0], count: other.frames.length } };
  },

  async oval() {
    const { socket, view } = await watching({}, WISH, `${folder}/nowhere`);
    frames(15, 33);
    const { socket: late, view: slow } = await (async () => {
      a_browser({ finding: () => new Promise(() => undefined) });
      const begun = a_measurement();
      await settled();
      const waited = world.sockets.length;
      await pass(5000);
      await world.sockets[0].ready();
      frames(15, 33);
      return { ...begun, socket: world.sockets[0], waited };
    })();
    return { said: view.said.at(-1), members: Object.keys(socket.frames[0]), rgb: socket.frames[0].rgb[0], guide: view.guides[0],
      late: { said: slow.said.at(-1), members: Object.keys(late.frames[0]) } };
  },

  async locking() {
    const told = {};
    const manual = { exposureMode: ["continuous", "manual"], whiteBalanceMode: ["manual"] };
    for (const [name, capabilities] of Object.entries({ able: manual, half: { exposureMode: ["manual"] }, none: {} })) {
      const { view } = await watching({ capabilities });
      await pass(1999);
      const early = world.constraints.length + view.warned.length;
      await pass(1);
      told[name] = { early, constraints: world.constraints, warned: view.warned };
    }
    return told;
  },

  async upright() {
    await watching({ wide: 480, high: 640 });
    frame(0);
    return world.drawn[0];
  },

  async stopping_early() {
    let allow;
    a_browser({ permission: new Promise((resolve) => (allow = resolve)) });
    const asked = a_measurement();
    asked.measurement.stop();
    const told = { while_asked: asked.view.ended_with };
    allow();
    await asked.running;
    Object.assign(told, { stopped: world.stopped, posted: world.posted.length });

    // Somebody stops while that loads which finds a face, and starts anew: the first must not take the picture away.
    const finders = [];
    a_browser({ finding: () => new Promise((resolve) => finders.push(resolve)) });
    const view = a_view();
    const first = a_measurement(view);
    await settled();
    first.measurement.stop();
    const second = a_measurement(view);
    await settled();
    const own = world.video.srcObject;
    finders[0]({ detectForVideo: () => ({ detections: [] }) });
    await first.running;
    return { ...told, is_second_shown: own !== null && world.video.srcObject === own, stopped_tracks: world.stopped,
      is_second_over: second.measurement.isOver };
  },

  async page() {
    a_browser();
    const { elements, fire } = a_page();
    await import(`${folder}/capture.js`);
    const shown = () => ({ says: elements.says.textContent, rate: elements.rate.textContent, confidence: elements.confidence.textContent,
      reason: elements.reason.textContent, start: !elements.start.hidden, stop: !elements.stop.hidden, focus: document.activeElement?.id });
    const begin = async () => {
      const before = world.sockets.length;
      elements.start.heard.click();
      await settled(() => world.sockets.length > before);
      const socket = world.sockets.at(-1);
      await socket.ready();
      return socket;
    };
    const update = (value, reason) => ({ type: "update", vitals: { heart_rate: { value, confidence: 0.86, reason } } });
    const told = {};
    const socket = await begin();
    told.begun = { ...shown(), scrolled: elements.scrolled };
    frames(60, 100 / 3);
    socket.say(update(null, "low_light"));
    told.refused = shown();
    socket.say(update(71.6, null));
    told.given = shown();
    document.hidden = true;
    fire("visibilitychange");
    told.hidden = shown();
    const vitals = { heart_rate: { value: 71.9, unit: "bpm", confidence: 0.8, reason: null } };
    for (const name of ["respiration_rate", "rmssd"]) vitals[name] = { value: null, unit: "ms", confidence: 0, reason: "too_short" };
    socket.say({ type: "final", report: { vitals } });
    await settled();
    told.ended = shown();
    told.rows = [elements.results.rows[0].slice(1), elements.results.rows[1]];
    told.hidden_parts = [elements.results.hidden, elements["no-results"].hidden];
    document.hidden = false;

    // Another one: it begins with nothing, and when the connection is lost nothing stands there as if it were measured.
    const other = await begin();
    told.again = shown();
    other.say(update(80, null));
    document.activeElement = elements.heartbeat;
    other.close();
    await settled();
    told.lost = shown();
    // Drawn anew, in the colour and size of now.
    for (const kind of ["resize", "change (prefers-color-scheme: dark)"]) {
      elements.drawn = [];
      fire(kind);
      (told.redrawn ??= []).push(elements.drawn.includes("wave clearRect"));
    }
    // A page that is hidden while nothing is measured has nothing to stop.
    document.hidden = true;
    fire("visibilitychange");
    told.nothing_to_stop = shown();
    told.posted = world.posted;
    return told;
  },
};

const rounded = (value) => Math.round(value * 1000) / 1000;

// The elements that the page has, each made when it is asked for.
function a_page() {
  const listeners = {};
  const element = (id) => ({
    id, textContent: "", hidden: false, heard: {}, rows: [], dataset: {}, width: 0, height: 0, clientWidth: 300, clientHeight: 112,
    addEventListener(kind, act) {
      this.heard[kind] = act;
    },
    focus() {
      document.activeElement = this;
    },
    scrollIntoView() {
      elements.scrolled = id;
    },
    getContext: () => new Proxy({}, {
      get: (_brush, name) => () => {
        elements.drawn = [...(elements.drawn ?? []), `${id} ${String(name)}`];
      },
      set: () => true,
    }),
    querySelector: (what) => (what === "video" ? world.video : (elements[what] ??= element(what))),
    append(...cells) {
      (this.cells ??= []).push(...cells);
    },
    prepend(...rows) {
      elements.results.rows.unshift(...rows.map(({ cells }) => cells.map(({ textContent }) => textContent)));
    },
    get firstChild() {
      return this.cells?.[0];
    },
  });
  const elements = { stop: { ...element("stop"), hidden: true } };
  for (const id of ["says", "rate", "confidence", "reason", "start", "results", "no-results", "heartbeat", "wave"]) elements[id] = element(id);
  elements.capture = { ...element("capture"), dataset: { place: `${folder}/vision`, session: "/vitals/session", csrf: "c" } };
  elements.heartbeat.value = " grandma ";
  elements.keep = { ...element("keep"), checked: false };
  elements.results.hidden = true;
  const globals = {
    document: {
      hidden: false,
      activeElement: null,
      getElementById: (id) => elements[id] ?? null,
      createElement: element,
      addEventListener: (kind, act) => (listeners[kind] = act),
    },
    window: {
      devicePixelRatio: 2,
      addEventListener: (kind, act) => (listeners[kind] = act),
      matchMedia: (query) => ({ addEventListener: (kind, act) => (listeners[`${kind} ${query}`] = act) }),
    },
    getComputedStyle: () => ({ color: "#000" }),
  };
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  return { elements, fire: (kind) => listeners[kind]() };
}

const told = {};
for (const [name, act] of Object.entries(cases)) told[name] = await act();
console.log(JSON.stringify(told));
