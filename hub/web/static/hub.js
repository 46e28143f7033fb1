// Times, live parts, form behaviour, previews, selection, keyboard. Every page works without this script.
"use strict";

const csrf = () => document.body.dataset.csrf || "";
const utc = () => localStorage.utc === "1";
const format = (options) => new Intl.DateTimeFormat(undefined, utc() ? { ...options, timeZone: "UTC" } : options);
const FULL = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" };
const SHORT = { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
const MINUTE = { hour: "2-digit", minute: "2-digit" };
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always", style: "short" });

// "5 min. ago" within a day, the date before that; the exact time on hover.
function ago(at, now) {
  const seconds = Math.round((at - now) / 1000), size = Math.abs(seconds);
  if (size < 5) return "now";
  if (size < 60) return relative.format(seconds, "second");
  if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 86400) return relative.format(Math.round(seconds / 3600), "hour");
  return format(at.getFullYear() === now.getFullYear() ? SHORT : FULL).format(at);
}

function showTimes(root) {
  const now = new Date();
  for (const el of root.querySelectorAll("time[datetime]")) {
    const at = new Date(el.dateTime);
    if (isNaN(at)) continue;
    const exact = format(FULL).format(at);
    const text = "clock" in el.dataset ? format(MINUTE).format(at) : "exact" in el.dataset ? exact : ago(at, now);
    if (el.textContent !== text) el.textContent = text;
    if (el.title !== exact) el.title = exact;
  }
  for (const column of root.querySelectorAll("g[data-at]")) {
    const title = column.querySelector("title");
    title.textContent = format(MINUTE).format(new Date(column.dataset.at)) + title.textContent.slice(title.textContent.indexOf(": "));
  }
}

// On a narrow screen a table is a list of cards: each cell carries its heading.
function nameCells(root) {
  for (const table of root.querySelectorAll(".scroll > table:not(.fits)")) {
    const heads = [...table.querySelectorAll("thead th")].map((th) => th.querySelector(".sr, input") ? "" : th.textContent);
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, i) => { cell.dataset.label = heads[i] ?? ""; });
    table.classList.add("stack");
  }
}

function show(root) {
  showTimes(root);
  nameCells(root);
}

// Parts with data-live are fetched every few seconds and morphed, so that only what changed is touched.
const EVERY = 5000;
const POINTING = 10000;
let seen = new Date(), pointed = 0;
document.addEventListener("pointermove", () => { pointed = Date.now(); }, { passive: true });
const paused = () => localStorage.paused === "1";
const busy = (el) => {
  const selection = document.getSelection();
  return el.matches(":hover") && Date.now() - pointed < POINTING
    || el.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), select, textarea")
    || el.querySelector("details[open], input[name=id]:checked, tr.here")
    || (selection && !selection.isCollapsed && el.contains(selection.anchorNode));
};
const morphing = {
  morphStyle: "innerHTML",
  ignoreActiveValue: true,
  callbacks: {
    beforeAttributeUpdated: (name) => name !== "checked",
    afterNodeAdded: (node) => { if (node.nodeName === "TR") node.classList.add("new"); },
  },
};
async function refresh() {
  const parts = [...document.querySelectorAll("[data-live][id]")];
  if (!parts.length || document.hidden || paused()) return;
  try {
    const response = await fetch(location.href, { headers: { "X-Requested-With": "refresh" }, redirect: "manual" });
    if (response.type === "opaqueredirect") return stale("Your session has ended.", true);
    if (!response.ok) throw new Error(response.statusText);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    show(page);
    for (const part of parts) {
      const fresh = page.getElementById(part.id);
      if (fresh && !busy(part)) Idiomorph.morph(part, fresh.innerHTML, morphing);
    }
    seen = new Date();
    document.getElementById("stale").hidden = true;
  } catch {
    stale(`The hub does not respond. This page shows the state of ${format(CLOCK).format(seen)}.`);
  }
}
function stale(text, out = false) {
  const note = document.getElementById("stale");
  note.querySelector("span").textContent = text;
  note.querySelector("a").hidden = !out;
  note.hidden = false;
}
function showSwitches() {
  const pause = document.querySelector("[data-pause]"), zone = document.querySelector("[data-utc]");
  if (pause) {
    pause.hidden = !document.querySelector("[data-live]");
    pause.textContent = paused() ? "Live updates: paused" : "Live updates: on";
    pause.setAttribute("aria-pressed", String(paused()));
  }
  if (zone) {
    zone.textContent = utc() ? "Times: UTC" : "Times: local";
    zone.setAttribute("aria-pressed", String(utc()));
  }
}

// <... data-switch="type"> shows the matching <... data-when="type=a b">.
function follow(select) {
  const update = () => {
    for (const el of document.querySelectorAll(`[data-when^="${select.dataset.switch}="]`)) {
      el.hidden = !el.dataset.when.split("=")[1].split(" ").includes(select.value);
    }
  };
  select.addEventListener("change", update);
  update();
}

const later = (act, wait) => {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(act, wait); };
};

function previewRule(form) {
  const part = (name) => form.querySelector(`[data-${name}]`);
  let asked = 0;
  const ask = async () => {
    const mine = ++asked;
    let found;
    try {
      const response = await fetch(form.dataset.preview, { method: "POST", headers: { "X-CSRF-Token": csrf() }, body: new URLSearchParams(new FormData(form)) });
      found = await response.json();
    } catch { return; }
    if (mine !== asked) return;
    part("source").textContent = `For ${found.source}:`;
    part("sample").textContent = found.sample;
    part("error").hidden = !found.error;
    part("request").hidden = Boolean(found.error);
    part("error").textContent = found.error || "";
    part("body").textContent = found.error ? where(form, found) : (found.body ?? "(no body)");
    part("method").textContent = form.elements.method.value;
    part("endpoint").textContent = found.endpoint ?? "";
    part("matches").textContent = found.matches ? "" : "— this event does not match the rule";
  };
  const where = (f, found) => {
    if (!found.line) return "";
    const line = (f.elements[found.field === "conditions" ? "conditions" : "payload"].value.split("\n")[found.line - 1]) ?? "";
    return `${line}\n${" ".repeat(Math.max(0, found.column - 1))}▲`;
  };
  form.addEventListener("input", later(ask, 250));
  ask();
}

function previewCron(form) {
  const list = form.closest("article").querySelector("[data-runs]");
  const error = form.querySelector("[data-error]");
  form.elements.cron.addEventListener("input", later(async () => {
    try {
      const response = await fetch(`${form.dataset.cron}?cron=${encodeURIComponent(form.elements.cron.value)}`);
      const found = await response.json();
      error.hidden = !found.error;
      error.textContent = found.error || "";
      if (found.runs) {
        list.replaceChildren(...found.runs.map((at) => {
          const item = document.createElement("li"), time = document.createElement("time");
          time.dateTime = at;
          item.append(time);
          return item;
        }));
        showTimes(list);
      }
    } catch { /* saving reports the error */ }
  }, 250));
}

// Selection: the bar says how many are selected; its buttons ask with that number.
function countSelected(form) {
  const boxes = [...form.querySelectorAll("input[name=id]")], count = boxes.filter((box) => box.checked).length;
  const bar = form.querySelector(".picked");
  if (!bar) return;
  bar.querySelector("[data-picked]").textContent = `${count} selected`;
  for (const button of bar.querySelectorAll("button[name=act]")) button.disabled = !count;
  const all = form.querySelector("[data-all]");
  if (all) {
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  }
}

// The errors of a form stand in a list above it; each is also shown at its field.
function placeError(item, number) {
  const field = document.querySelector("main form").elements[item.dataset.errorOf];
  const label = field?.closest("label");
  if (!label) return;
  if (!label.closest(".field")) {
    const box = document.createElement("div");
    box.className = label.classList.contains("wide") ? "field wide" : "field";
    label.replaceWith(box);
    box.append(label);
  }
  const note = document.createElement("p");
  note.className = "wrong";
  note.id = `wrong-${number}`;
  note.textContent = item.textContent;
  label.closest(".field").append(note);
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${note.id} ${field.getAttribute("aria-describedby") || ""}`.trim());
}

// Unsaved changes of a form with data-guard are not lost by leaving the page.
const typed = (form) => new URLSearchParams(new FormData(form)).toString();
function guard(form) {
  const before = form.querySelector("[aria-invalid]") ? "" : typed(form);
  let sent = false;
  form.addEventListener("submit", () => { sent = true; });
  addEventListener("beforeunload", (event) => { if (!sent && typed(form) !== before) event.preventDefault(); });
}

async function copy(button) {
  const source = button.dataset.copy.startsWith("#") ? document.querySelector(button.dataset.copy).textContent : button.dataset.copy;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(source);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => { button.textContent = label; }, 2000);
}

const NEXT_THEME = { system: "light", light: "dark", dark: "system" };
function showTheme() {
  const theme = localStorage.theme || "system";
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = document.querySelector("[data-theme-switch]");
  if (button) button.textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
  if (button) button.setAttribute("aria-label", `Theme: ${theme}. Change theme`);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const form = button.closest("form"), count = form?.querySelectorAll("input[name=id]:checked").length;
  if (button.dataset.confirm && !confirm(button.dataset.confirm.replace("{count}", count))) {
    event.preventDefault();
  } else if ("themeSwitch" in button.dataset) {
    const next = NEXT_THEME[localStorage.theme || "system"];
    if (next === "system") localStorage.removeItem("theme"); else localStorage.theme = next;
    showTheme();
  } else if ("pause" in button.dataset) {
    localStorage.paused = paused() ? "0" : "1";
    showSwitches();
    refresh();
  } else if ("utc" in button.dataset) {
    localStorage.utc = utc() ? "0" : "1";
    showSwitches();
    showTimes(document);
  } else if ("copy" in button.dataset) {
    copy(button);
  } else if ("close" in button.dataset) {
    button.closest("dialog").close();
  }
});
document.addEventListener("change", (event) => {
  const el = event.target;
  if ("submit" in el.dataset) el.form.requestSubmit();
  if ("all" in el.dataset) for (const box of el.closest("table").querySelectorAll("input[name=id]")) box.checked = el.checked;
  if (el.form && ("all" in el.dataset || el.name === "id")) countSelected(el.form);
});

// Keyboard: "/" search, "g" and a letter to go, j k x in lists, Enter opens, "?" help.
const PLACES = { o: "/", s: "/services", r: "/rules", q: "/queue", d: "/dead-letters", l: "/deliveries", c: "/schedules", a: "/access" };
let prefix = 0;
function move(step) {
  const rows = [...document.querySelectorAll("main tbody tr")].filter((row) => row.querySelector("a"));
  if (!rows.length) return;
  const at = rows.findIndex((row) => row.classList.contains("here"));
  const next = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
  if (at >= 0) rows[at].classList.remove("here");
  next.classList.add("here");
  next.querySelector("a").focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}
document.addEventListener("keydown", (event) => {
  const el = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || el.matches("textarea, select, input:not([type=checkbox])")) return;
  const after = Date.now() - prefix < 1500;
  prefix = 0;
  if (after && PLACES[event.key]) {
    location.href = PLACES[event.key];
  } else if (event.key === "g") {
    prefix = Date.now();
  } else if (event.key === "/") {
    document.querySelector(".filters input:not([type=checkbox]):not([type=datetime-local]), .filters select")?.focus();
  } else if (event.key === "j" || event.key === "k") {
    move(event.key === "j" ? 1 : -1);
  } else if (event.key === "x") {
    document.querySelector("tr.here input[name=id]")?.click();
  } else if (event.key === "?") {
    document.getElementById("keys")?.showModal();
  } else {
    return;
  }
  event.preventDefault();
});

// Filter forms omit empty values, so that URLs stay short. Local times are sent in UTC.
document.addEventListener("formdata", (event) => {
  if (!event.target.matches(".filters")) return;
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
  for (const el of event.target.querySelectorAll("input[data-at]")) if (el.value) event.formData.set(el.name, new Date(el.value).toISOString());
});
for (const el of document.querySelectorAll("input[data-at]")) {
  const at = new Date(el.dataset.at);
  if (!isNaN(at)) el.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

showTheme();
showSwitches();
show(document);
document.querySelectorAll("[data-switch]").forEach(follow);
document.querySelectorAll("[data-preview]").forEach(previewRule);
document.querySelectorAll("[data-cron]").forEach(previewCron);
document.querySelectorAll("[data-error-of]").forEach(placeError);
document.querySelectorAll("form[data-guard]").forEach(guard);
document.querySelectorAll("form:has(.picked)").forEach(countSelected);
const wrong = document.querySelector("[aria-invalid=true]");
if (wrong) {
  for (let el = wrong.closest("details"); el; el = el.parentElement.closest("details")) el.open = true;
  wrong.focus();
}
setInterval(() => showTimes(document), 15000);
setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
