// Times in the reader's zone, live parts of a page, forms that follow what is chosen, previews. Without it all pages work.
"use strict";

const csrf = () => document.body.dataset.csrf || "";
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function showTimes(root) {
  const now = new Date();
  for (const el of root.querySelectorAll("time[datetime]")) {
    const at = new Date(el.dateTime);
    if (isNaN(at)) continue;
    const today = at.toDateString() === now.toDateString();
    const text = at.getFullYear() === now.getFullYear() ? (today ? clock : day).format(at) : full.format(at);
    el.textContent = "clock" in el.dataset ? minute.format(at) : text;
    el.title = full.format(at);
  }
  for (const column of root.querySelectorAll("g[data-at]")) {
    const title = column.querySelector("title");
    title.textContent = minute.format(new Date(column.dataset.at)) + title.textContent.slice(title.textContent.indexOf(": "));
  }
}

// On a narrow screen a table is a list of cards: its cells have to know their heading.
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

// Parts with data-live are fetched again every few seconds, unless the reader is busy in them or elsewhere.
const EVERY = 5000;
let seen = new Date();
const busy = (el) => {
  const selection = document.getSelection();
  return el.contains(document.activeElement) && document.activeElement !== document.body
    || el.querySelector("input:checked, details[open]")
    || (selection && !selection.isCollapsed && el.contains(selection.anchorNode));
};
async function refresh() {
  const parts = [...document.querySelectorAll("[data-live][id]")];
  if (!parts.length || document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { "X-Requested-With": "refresh" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return stale("You are no longer signed in.", true);
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    show(page);
    for (const part of parts) {
      const fresh = page.getElementById(part.id);
      if (!fresh || busy(part) || fresh.innerHTML === part.innerHTML) continue;
      const places = [...part.querySelectorAll(".scroll")].map((el) => el.scrollLeft);
      part.innerHTML = fresh.innerHTML;
      part.querySelectorAll(".scroll").forEach((el, i) => { el.scrollLeft = places[i] ?? 0; });
    }
    seen = new Date();
    document.getElementById("stale").hidden = true;
  } catch {
    stale(`The hub does not answer. What you see is of ${clock.format(seen)}.`);
  }
}
function stale(text, out = false) {
  const note = document.getElementById("stale");
  note.querySelector("span").textContent = text;
  note.querySelector("a").hidden = !out;
  note.hidden = false;
}

// <... data-switch="type"> decides which <... data-when="type=a b"> are shown.
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
      const answer = await fetch(form.dataset.preview, { method: "POST", headers: { "X-CSRF-Token": csrf() }, body: new URLSearchParams(new FormData(form)) });
      found = await answer.json();
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
    part("matches").textContent = found.matches ? "" : "— this event does not meet the rule";
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
      const answer = await fetch(`${form.dataset.cron}?cron=${encodeURIComponent(form.elements.cron.value)}`);
      const found = await answer.json();
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
    } catch { /* saving says it */ }
  }, 250));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.confirm && !confirm(button.dataset.confirm)) {
    event.preventDefault();
  } else if ("themeSwitch" in button.dataset) {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    localStorage.theme = document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  }
});
document.addEventListener("change", (event) => {
  const el = event.target;
  if ("submit" in el.dataset) el.form.requestSubmit();
  if ("all" in el.dataset) for (const box of el.closest("table").querySelectorAll("input[name=id]")) box.checked = el.checked;
});
// Filter forms leave out what is not set, so that addresses stay short; times of the reader go out in UTC.
document.addEventListener("formdata", (event) => {
  if (!event.target.matches(".filters")) return;
  for (const [name, value] of [...event.formData]) if (!value) event.formData.delete(name);
  for (const el of event.target.querySelectorAll("input[data-at]")) if (el.value) event.formData.set(el.name, new Date(el.value).toISOString());
});
for (const el of document.querySelectorAll("input[data-at]")) {
  const at = new Date(el.dataset.at);
  if (!isNaN(at)) el.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;
show(document);
document.querySelectorAll("[data-switch]").forEach(follow);
document.querySelectorAll("[data-preview]").forEach(previewRule);
document.querySelectorAll("[data-cron]").forEach(previewCron);
setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
