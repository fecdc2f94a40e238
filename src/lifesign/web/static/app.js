"use strict";
// Makes live what the server has said already: every page can be read and used without this.

// The server's clock, as far as this browser's differs from it.
const ahead = Date.parse(document.documentElement.dataset.now) - Date.now();
const now = () => Date.now() + ahead;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function duration(seconds) {
  const at = UNITS.findIndex(([, size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [name, size] = UNITS[at];
  const next = UNITS[at + 1];
  const whole = Math.floor(seconds / size);
  const rest = next ? Math.floor((seconds % size) / next[1]) : 0;
  return rest ? `${whole} ${name} ${rest} ${next[0]}` : `${whole} ${name}`;
}

function relative(instant) {
  const seconds = Math.round((instant - now()) / 1000);
  if (seconds === 0) return "now";
  return seconds > 0 ? `in ${duration(seconds)}` : `${duration(-seconds)} ago`;
}

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

function tell(time) {
  const instant = Date.parse(time.dateTime);
  if (Number.isNaN(instant)) return;
  const text = relative(instant);
  if (time.textContent !== text) time.textContent = text;
  if (!time.title) time.title = exact.format(instant);
}

function tellAll() {
  if (!document.hidden) document.querySelectorAll("time[datetime]").forEach(tell);
}

tellAll();
setInterval(tellAll, 1000);
document.addEventListener("visibilitychange", tellAll);

// The keyboard: / searches, j and k walk through the rows, Enter opens the one that is chosen.
function rows() {
  return [...document.querySelectorAll("table[data-rows] tbody tr")];
}

function choose(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.classList.contains("chosen"));
  const next = all[Math.min(all.length - 1, Math.max(0, at + step))];
  all[at]?.classList.remove("chosen");
  next.classList.add("chosen");
  next.querySelector("a")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const search = document.querySelector("input[type=search]");
  if (event.key === "/" && search) {
    event.preventDefault();
    search.focus();
    search.select();
  }
  if (event.key === "j") choose(1);
  if (event.key === "k") choose(-1);
});
