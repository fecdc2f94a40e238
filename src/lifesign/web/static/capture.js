// The page that sees a pulse: its buttons, and what it shows of a measurement.

import { Measurement } from "./measuring.js";
import { HEIGHT, OVAL, WIDTH, Wave } from "./seeing.js";
import { REASONS, SHOWN, told, whyNotMore } from "./words.js";

const WAVE_S = 8;
const LEAST_POINTS = 10;

const byId = (id) => document.getElementById(id);

class View {
  constructor(section) {
    this.section = section;
    this.video = section.querySelector("video");
    this.guide = section.querySelector(".capture-guide");
    byId("start").addEventListener("click", () => this.start());
    byId("stop").addEventListener("click", () => this.measurement?.stop());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && this.measurement && !this.measurement.isOver) {
        this.measurement.stop("Stopped, because the page was out of sight.");
      }
    });
    window.addEventListener("pagehide", () => this.measurement?.release());
    // What was drawn has the size and the colour of then.
    const redraw = () => this.wave && this.drawWave();
    window.addEventListener("resize", redraw);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  }

  async start() {
    byId("start").hidden = true;
    byId("stop").hidden = false;
    byId("stop").focus();
    this.warned = "";
    this.wave = new Wave(WAVE_S);
    this.showNothing();
    this.drawWave();
    const measurement = (this.measurement = new Measurement(this, this.section.dataset.place, this.wish()));
    try {
      await measurement.run();
    } catch (error) {
      measurement.fail(error.message);
    }
  }

  wish() {
    const { session, csrf } = this.section.dataset;
    const fields = new URLSearchParams(csrf ? { csrf, heartbeat: byId("heartbeat")?.value.trim() ?? "" } : {});
    const isKept = csrf !== undefined && byId("keep")?.checked === true;
    if (isKept) fields.set("keep", "on");
    return { address: session, fields, isKept };
  }

  ended(words, hasResult) {
    // What was to be kept in mind while it lasted is over.
    this.warned = "";
    this.say(words);
    if (!hasResult) this.showNothing();
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
    const scene = this.section.querySelector(".capture-scene");
    scene.hidden = !isShown;
    // On small screens the pulse would be out of sight below what was said before.
    if (isShown) scene.scrollIntoView({ block: "start" });
  }

  drawGuide(regions, isOval) {
    const { guide } = this;
    if (guide.width !== WIDTH) Object.assign(guide, { width: WIDTH, height: HEIGHT });
    const brush = guide.getContext("2d");
    brush.clearRect(0, 0, WIDTH, HEIGHT);
    // White in black, to be seen on whatever is behind it.
    for (const [colour, width] of [["rgb(0 0 0 / 60%)", 5], ["#fff", 2]]) {
      brush.strokeStyle = colour;
      brush.lineWidth = width;
      if (isOval) {
        brush.beginPath();
        brush.ellipse(OVAL.x, OVAL.y, OVAL.wide, OVAL.high, 0, 0, 2 * Math.PI);
        brush.stroke();
      }
      for (const [left, top, wide, high] of regions ?? []) brush.strokeRect(left, top, wide, high);
    }
  }

  showColours(t, colours) {
    this.wave.add(t, colours);
    this.drawWave();
  }

  drawWave() {
    const canvas = byId("wave");
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.round(canvas.clientWidth * ratio);
    const high = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    const brush = canvas.getContext("2d");
    brush.clearRect(0, 0, wide, high);
    const values = this.wave.values();
    if (values.length < LEAST_POINTS) return;
    const end = values.at(-1).t;
    const largest = Math.max(1e-4, ...values.map(({ value }) => Math.abs(value)));
    brush.beginPath();
    for (const { t, value } of values) {
      brush.lineTo(wide * (1 - (end - t) / (WAVE_S * 1000)), high / 2 - (value / largest) * high * 0.42);
    }
    brush.lineWidth = 2 * ratio;
    brush.lineJoin = "round";
    brush.strokeStyle = getComputedStyle(canvas).color;
    brush.stroke();
  }

  showNothing() {
    byId("rate").textContent = byId("confidence").textContent = "–";
    byId("reason").textContent = "";
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
    const numbers = Object.keys(SHOWN).map((name) => told(vitals[name]));
    const rows = [rowOf([new Date().toLocaleTimeString([], { timeStyle: "short" }), ...numbers], "num")];
    const why = whyNotMore(vitals);
    // Below the numbers and as wide as they are together: a phone has no room for it beside them.
    if (why) {
      const below = rowOf([why], "capture-why");
      below.firstChild.colSpan = numbers.length + 1;
      rows.push(below);
    }
    byId("results").hidden = false;
    byId("no-results").hidden = true;
    byId("results").querySelector("tbody").prepend(...rows);
  }
}

function rowOf(texts, className) {
  const row = document.createElement("tr");
  for (const text of texts) row.append(Object.assign(document.createElement("td"), { textContent: text, className }));
  return row;
}

const section = byId("capture");
if (section) new View(section);
