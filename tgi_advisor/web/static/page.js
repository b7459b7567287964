// Sliders write numbers into the form; what the form says is asked of the server, which answers with HTML.
"use strict";
const form = document.getElementById("ask");
const said = document.getElementById("said");
let waiting = null, asking = null;

function query() {
  const pairs = [...new FormData(form)].filter(([, text]) => typeof text === "string" && text.trim() !== "");
  return new URLSearchParams(pairs).toString();
}

function ask(now) {
  clearTimeout(waiting);
  document.body.dataset.busy = "yes";
  waiting = setTimeout(load, now ? 0 : 40);
}

async function load() {
  waiting = null;
  asking?.abort();
  const mine = asking = new AbortController();
  const text = query();
  try {
    const answer = await fetch("results?" + text, { signal: mine.signal });
    const html = await answer.text();
    if (mine.signal.aborted) return;
    const open = document.querySelector("#results details[open]")?.dataset.take;
    document.getElementById("results").innerHTML = html;
    const again = open && document.querySelector(`#results details[data-take="${open}"]`);
    if (again) again.open = true;
    if (answer.headers.get("page-link")) history.replaceState(null, "", answer.headers.get("page-link"));
    ready();
    said.textContent = now.textContent;
    await new Promise((done) => setTimeout(done, 120)); // a slider may still be moving
    if (!mine.signal.aborted) await cards(text, mine.signal);
    if (!mine.signal.aborted) await steps(text, mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") said.textContent = "The server does not answer.", lost();
  } finally {
    if (asking === mine && waiting === null) delete document.body.dataset.busy;
  }
}

async function steps(text, signal) {
  const place = document.getElementById("steps");
  if (!place) return;
  const bad = document.querySelector("#results .verdict.bad") ? "&bad" : "";
  const answer = await fetch("steps?" + text + bad, { signal });
  const html = await answer.text();
  if (!signal?.aborted) place.innerHTML = html;
}

async function cards(text, signal) {
  const answer = await fetch("cards?" + text, { signal });
  const html = await answer.text();
  if (signal?.aborted) return;
  const section = document.getElementById("cards"), top = section.querySelector(".scroll")?.scrollTop ?? 0;
  section.innerHTML = html;
  const table = section.querySelector(".scroll");
  if (table) table.scrollTop = top;
}

function lost() {
  const text = document.createElement("p");
  text.className = "card verdict bad";
  text.textContent = "The server does not answer. Is `tgi-advisor web` still running?";
  document.getElementById("results").replaceChildren(text);
}

function number(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([km]?)\s*$/i.exec(text);
  return found ? Number(found[1]) * ({ k: 1024, m: 1048576 }[found[2].toLowerCase()] ?? 1) : NaN;
}

function slider(box) {
  const range = box.querySelector(".range"), field = box.querySelector(".number"), auto = box.querySelector(".auto");
  const steps = box.dataset.steps.split(",").map(Number);
  const show = () => {
    const value = number(field.value), open = field.value.trim() === "";
    box.classList.toggle("open", open && auto !== null);
    auto?.setAttribute("aria-pressed", String(open));
    if (!Number.isNaN(value)) {
      range.value = String(steps.reduce((best, step, i) => Math.abs(step - value) < Math.abs(steps[best] - value) ? i : best, 0));
    } else if (open) range.value = String(Math.floor(steps.length / 2));
    range.setAttribute("aria-valuetext", open ? "auto" : Number(field.value) ? Number(field.value).toLocaleString("en") : field.value);
  };
  range.hidden = false;
  if (auto) auto.hidden = false;
  range.addEventListener("input", (event) => { event.stopPropagation(); field.value = String(steps[range.value]); show(); ask(); });
  field.addEventListener("input", show);
  auto?.addEventListener("click", () => { field.value = ""; show(); ask(true); });
  show();
}

async function copy(button, text) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  said.textContent = done ? "Copied." : "The browser did not let it be copied.";
  const before = button.innerHTML;
  button.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => { button.innerHTML = before; }, 1200);
}

const now = document.getElementById("now");
function ready() {
  const total = document.querySelector('#results dd[data-name="max_total_tokens"]')?.textContent;
  const verdict = document.querySelector("#results h2")?.textContent ?? "";
  now.textContent = total ? `${verdict} ${total} tokens` : verdict;
  now.className = `now ${document.querySelector("#results .verdict")?.classList[2] ?? ""}`;
  now.hidden = false;
  for (const button of document.querySelectorAll("#results .copy")) button.hidden = false;
}

function mode() {
  document.body.classList.toggle("stated", form.elements.mode.value === "stated");
}

for (const box of form.querySelectorAll(".slider")) slider(box);
// A name is asked about when it is whole: chosen from the list, or left, or entered.
function whole(field) {
  return !field.list || [...field.list.options].some((one) => one.value === field.value);
}
for (const field of form.querySelectorAll("[list]")) field.addEventListener("focus", () => field.select());
form.addEventListener("input", (event) => { mode(); if (whole(event.target)) ask(); });
form.addEventListener("change", (event) => { if (!event.target.matches(".range")) ask(true); });
form.addEventListener("submit", (event) => { event.preventDefault(); ask(true); });
document.addEventListener("click", (event) => {
  const button = event.target.closest(".copy"), card = event.target.closest("a[data-gpu]");
  if (button) copy(button, button.closest("details").querySelector("pre").textContent);
  if (card && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    form.elements.gpu.value = card.dataset.gpu;
    const count = new URLSearchParams(card.search).get("count");
    if (count) form.elements.count.value = count;
    ask(true);
  }
});
const share = document.getElementById("share");
share.hidden = false;
share.addEventListener("click", () => copy(share, location.href));
document.body.classList.add("script");
mode();
ready();
document.body.dataset.busy = "yes";
const first = asking = new AbortController();
cards(query(), first.signal).then(() => steps(query(), first.signal)).catch(() => {}).finally(() => { if (asking === first && waiting === null) delete document.body.dataset.busy; });
