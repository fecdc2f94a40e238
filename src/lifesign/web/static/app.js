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

// In the zone that was chosen for the page, or the browser's own.
const timeZone = document.documentElement.dataset.zone;
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long", timeZone });

function tell(time) {
  const instant = Date.parse(time.dateTime);
  if (Number.isNaN(instant)) return;
  const text = relative(instant);
  if (time.textContent !== text) time.textContent = text;
  const title = exact.format(instant);
  if (time.dataset.told !== title) time.title = time.dataset.told = title;
}

function tellAll() {
  if (!document.hidden) document.querySelectorAll("time[datetime]").forEach(tell);
}

tellAll();
setInterval(tellAll, 1000);
document.addEventListener("visibilitychange", tellAll);

// Names of zones are offered by the browser, which knows them.
document.querySelector("[data-zones]")?.addEventListener("focus", ({ target }) => {
  if (target.list) return;
  const list = document.createElement("datalist");
  list.id = "zones";
  list.append(...Intl.supportedValuesOf("timeZone").map((name) => new Option(name, name)));
  target.after(list);
  target.setAttribute("list", list.id);
});

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

// A ladder: its rungs are moved by their buttons or dragged by their grip; what counts is the order on the page.
function announce(ladder, rung) {
  const all = [...ladder.children];
  const told = ladder.parentElement.querySelector("[data-told]");
  if (told) told.textContent = `Now step ${all.indexOf(rung) + 1} of ${all.length}`;
  all.forEach((each, at) => {
    for (const button of each.querySelectorAll("[data-move]")) {
      const words = { up: `Move step ${at + 1} up`, down: `Move step ${at + 1} down`, remove: `Remove step ${at + 1}` };
      button.setAttribute("aria-label", words[button.dataset.move]);
    }
    const name = each.querySelector(".rung-name .unseen");
    if (name) name.textContent = `Step ${at + 1}`;
  });
  ladder.dispatchEvent(new Event("input", { bubbles: true }));
}

function moveRung(ladder, rung, how) {
  if (how === "remove") {
    if (ladder.children.length === 1) return;
    const next = rung.nextElementSibling ?? rung.previousElementSibling;
    rung.remove();
    announce(ladder, next);
    next.querySelector("[data-move=remove]").focus();
    return;
  }
  const other = how === "up" ? rung.previousElementSibling : rung.nextElementSibling;
  if (!other) return;
  ladder.insertBefore(how === "up" ? rung : other, how === "up" ? other : rung);
  announce(ladder, rung);
  rung.querySelector(`[data-move=${how}]`).focus();
}

function dragRung(ladder, rung, event) {
  event.preventDefault();
  const grip = event.target;
  grip.setPointerCapture(event.pointerId);
  rung.classList.add("moving");
  const follow = ({ clientY }) => {
    const [before, after] = [rung.previousElementSibling, rung.nextElementSibling];
    const middle = (each) => each.getBoundingClientRect().top + each.offsetHeight / 2;
    // The others are moved, never the one that is held: it would be let go.
    if (before && clientY < middle(before)) rung.after(before);
    else if (after && clientY > middle(after)) ladder.insertBefore(after, rung);
  };
  const drop = () => {
    rung.classList.remove("moving");
    grip.removeEventListener("pointermove", follow);
    announce(ladder, rung);
  };
  grip.addEventListener("pointermove", follow);
  grip.addEventListener("lostpointercapture", drop, { once: true });
}

for (const ladder of document.querySelectorAll("[data-ladder]")) {
  ladder.classList.add("ready");
  ladder.addEventListener("click", (event) => {
    const button = event.target.closest("[data-move]");
    if (!button) return;
    event.preventDefault();
    moveRung(ladder, button.closest("li"), button.dataset.move);
  });
  ladder.addEventListener("pointerdown", (event) => {
    if (event.target.matches("[data-grip]")) dragRung(ladder, event.target.closest("li"), event);
  });
}

// A form that shows beforehand what it would do: it asks its own page whenever something in it was changed.
const ASK_MS = 400;
for (const form of document.querySelectorAll("form[data-asks]")) {
  let timer = 0;
  let round = 0;
  const ask = async () => {
    const mine = ++round;
    const fields = new URLSearchParams(new FormData(form));
    const [name, value] = (form.dataset.asks || "do=preview").split("=");
    fields.set(name, value);
    const answer = await fetch(form.action || location.href, { method: "POST", body: fields }).catch(() => null);
    if (!answer || mine !== round) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-answer]")) {
      const other = fresh.querySelector(`[data-answer="${part.dataset.answer}"]`);
      if (other) part.replaceWith(other);
    }
    tellAll();
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, ASK_MS);
  });
}

// What is there to be copied has a button for it.
for (const box of document.querySelectorAll(".copied")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(box.querySelector("pre").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  box.append(button);
}

// A list without an end: when the link to what is older comes near, that page is fetched and put below.
const NEAR_PX = 800;
const more = new IntersectionObserver(
  (seen) => seen.filter((each) => each.isIntersecting).forEach((each) => lengthen(each.target)),
  { rootMargin: `0px 0px ${NEAR_PX}px` },
);

async function lengthen(link) {
  const part = link.closest("[data-live]");
  const list = part?.querySelector("[data-endless]");
  if (!list || list.ariaBusy === "true") return;
  list.ariaBusy = "true";
  const answer = await fetch(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  const fresh = answer?.ok && !answer.redirected ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  list.ariaBusy = null;
  // What could not be had is a press on the link away.
  if (!fresh || !list.isConnected) return;
  list.append(...(fresh.querySelector("[data-endless]")?.children ?? []));
  list.dataset.endless = "grown";
  const next = fresh.querySelector("a[data-more]");
  more.unobserve(link);
  link.replaceWith(...(next ? [next] : []));
  if (next) more.observe(next);
  tellAll();
}

function watchEnds() {
  document.querySelectorAll("a[data-more]").forEach((link) => more.observe(link));
}

// Of a list that has grown only what is new is taken; false: too much happened, and it begins anew.
function grewAbove(part, other) {
  const list = part.querySelector("[data-endless=grown]");
  const fresh = other.querySelector("[data-endless]");
  if (!list || !fresh) return false;
  const unknown = [...fresh.children].filter((each) => !document.getElementById(each.id));
  if (unknown.length === fresh.children.length) return false;
  list.prepend(...unknown);
  return true;
}

watchEnds();

// Live: the server tells which heartbeats, and bots, something was committed about; the page then asks for itself anew, and the
// parts that are marked are put in the place of the old ones.
const { seq, watched } = document.body.dataset;
// Of these only the row of the heartbeat itself changes.
const QUIET = new Set(["checkin", "log", "ignored", "run_started", "run_finished", "notify_sent", "step_notified", "bot_run", "bot_progress"]);
const QUIET_MS = 2000;
const RETRY_MS = 3000;

let asking = false;
let again = false;
let isUrgent = false;
let askedAt = 0;

function isBusy(part) {
  const field = document.activeElement?.closest?.("input, textarea, select");
  return [...part.querySelectorAll("input:not([type=hidden]), textarea")].some(
    (each) => each === field || each.value !== each.defaultValue,
  );
}

function put(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!other || isBusy(part) || grewAbove(part, other)) continue;
    const chosen = part.querySelector("tr.chosen")?.id;
    const opened = part.contains(document.activeElement) ? document.activeElement.closest("tr")?.id : undefined;
    part.replaceWith(other);
    if (chosen) document.getElementById(chosen)?.classList.add("chosen");
    if (opened) document.getElementById(opened)?.querySelector("a")?.focus({ preventScroll: true });
  }
  document.title = fresh.title;
  tellAll();
  watchEnds();
}

async function refresh() {
  again = true;
  if (document.hidden) return;
  if (asking) {
    isUrgent = true;
    return;
  }
  asking = true;
  again = isUrgent = false;
  askedAt = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) location.reload();
    else if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    again = true;
  } finally {
    asking = false;
  }
  if (isUrgent) refresh();
}

function concerns([heartbeat, kind]) {
  if (watched) return heartbeat === watched;
  return !QUIET.has(kind) || document.getElementById(heartbeat) !== null;
}

function listen() {
  const source = new EventSource(`/events/stream?since=${seq}`);
  const note = document.getElementById("live");
  let wasLost = false;
  source.addEventListener("open", () => {
    note.hidden = true;
    if (wasLost) refresh();
    wasLost = false;
  });
  source.addEventListener("gap", refresh);
  source.addEventListener("changed", (event) => {
    const changes = JSON.parse(event.data).filter(concerns);
    if (!changes.length) return;
    if (watched || changes.some(([, kind]) => !QUIET.has(kind))) refresh();
    else again = true;
  });
  source.addEventListener("error", () => {
    note.hidden = false;
    wasLost = true;
    if (source.readyState !== EventSource.CLOSED) return;
    // Refused, for instance because the session is over: the page finds out which.
    setTimeout(async () => {
      await refresh();
      listen();
    }, RETRY_MS);
  });
}

// A deadline that passes is no event: the page knows of it beforehand.
let lateAt = 0;
function passDeadlines() {
  const due = [...document.querySelectorAll("[data-late]")]
    .map((row) => Date.parse(row.dataset.late))
    .filter((at) => at > lateAt && at < now());
  if (!due.length) return;
  lateAt = Math.max(...due);
  refresh();
}

if (document.body.dataset.asksEvery) setInterval(refresh, document.body.dataset.asksEvery * 1000);

if (seq !== undefined) {
  listen();
  setInterval(() => {
    passDeadlines();
    if (again && Date.now() - askedAt >= QUIET_MS) refresh();
  }, 500);
  document.addEventListener("visibilitychange", () => {
    if (again) refresh();
  });
}
