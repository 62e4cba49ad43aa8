"use strict";
// One state, shown by `show` and kept in the address, so that a link reproduces the view.
// Texts only ever get onto the page as text: nothing here writes HTML.

const $ = (id) => document.getElementById(id);
const turns = [...document.querySelectorAll(".turn")];
const titles = new Map();
const WAIT = 60; // ms after the last key before the server is asked
const K = 10; // items a list shows at most
const SHOWN_VALUES = 40; // of what may be thousands; the others are a click away
let state = { history: [], prompt: ["", ""], strength: 1, exclude_history: false };
let trained = false; // whether the run left histories out when it was trained
let shown = K; // fewer where there are fewer items
let asked = null;
let timer = 0;

function make(tag, text, className) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

function complain(error) {
  $("error").textContent = error.message;
}

async function fetchJson(path, options) {
  const response = await fetch(path, options);
  const content = await response.json();
  if (!response.ok) throw new Error(content.error || response.statusText);
  return content;
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  state.history = given.getAll("i");
  state.prompt = turns.map((_, n) => given.getAll("p")[n] || "");
  const strength = parseFloat(given.get("s") ?? "1");
  state.strength = strength >= 0 && strength <= 3 ? strength : 1;
  state.exclude_history = given.has("x") ? given.get("x") === "1" : trained;
}

function writeAddress() {
  const kept = new URLSearchParams();
  state.history.forEach((item) => kept.append("i", item));
  state.prompt.forEach((text) => kept.append("p", text));
  kept.set("s", state.strength);
  if (state.exclude_history !== trained) kept.set("x", state.exclude_history ? "1" : "0");
  try {
    history.replaceState(null, "", "#" + kept);
  } catch {
    // Browsers refuse it when it comes too often; the next change writes all.
  }
}

function showState() {
  turns.forEach((input, n) => { if (input.value !== state.prompt[n]) input.value = state.prompt[n]; });
  $("strength").value = state.strength;
  $("strength-shown").textContent = state.strength.toFixed(1);
  $("exclude_history").checked = state.exclude_history;
  $("history").replaceChildren(...state.history.map((item, n) => {
    const row = document.createElement("li");
    const button = make("button", titles.get(item) || item);
    button.type = "button";
    button.setAttribute("aria-label", `Remove ${titles.get(item) || item}`);
    button.onclick = () => remove(n);
    row.append(button);
    return row;
  }));
}

function remove(n) {
  change({ history: state.history.filter((_, m) => m !== n) });
  // The button that was pressed is gone: whoever uses the keyboard stays where it was.
  const left = $("history").querySelectorAll("button");
  (left[Math.min(n, left.length - 1)] || $("search")).focus();
}

function change(part) {
  state = { ...state, ...part };
  showState();
  writeAddress();
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT);
}

async function ask() {
  if (asked) asked.abort();
  if (!state.history.length) {
    delete $("lists").dataset.busy;
    $("error").textContent = "";
    for (const id of ["before", "after"]) $(id).replaceChildren(make("li", "Choose a history first."));
    $("read").textContent = "";
    $("router-figure").hidden = true;
    return;
  }
  const request = (asked = new AbortController());
  $("lists").dataset.busy = "";
  const prompt = state.prompt;
  try {
    const body = JSON.stringify({ ...state, k: shown, explain: true });
    const answer = await fetchJson("recommend", { method: "POST", body, signal: request.signal });
    $("error").textContent = answer.skipped ? `${answer.skipped} unknown items of the history were skipped.` : "";
    show(answer);
    document.body.dataset.prompt = prompt.join("\n"); // what the lists belong to
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error);
  }
  delete $("lists").dataset.busy;
}

function show(answer) {
  const learned = [...answer.items, ...answer.before].filter((row) => !titles.has(row.item));
  learned.forEach((row) => titles.set(row.item, row.title));
  const { include, exclude, router } = answer.read;
  const wishes = [
    ...include.map((value) => make("span", `wants ${value}`, "wish wanted")),
    ...exclude.map((value) => make("span", `rejects ${value}`, "wish rejected")),
  ];
  $("read").replaceChildren(...(wishes.length ? wishes : ["It asks for nothing that can be steered: nothing moves."]));
  $("router-figure").hidden = !router.length;
  $("router").replaceChildren(...router.flatMap((weight, n) => {
    const bar = make("progress", "");
    bar.value = weight;
    bar.setAttribute("aria-label", `expert ${n + 1}`);
    return [make("span", `expert ${n + 1}`), bar, make("span", `${Math.round(100 * weight)} %`)];
  }));
  $("before").replaceChildren(...answer.before.map((row) => ranked(row, row.rank_before, row.rank, false, answer.read)));
  $("after").replaceChildren(...answer.items.map((row) => ranked(row, row.rank, row.rank_before, true, answer.read)));
}

function ranked(row, place, other, explained, read) {
  const line = document.createElement("li");
  line.dataset.item = row.item;
  // Upwards is what the prompt has done to the item, in either list.
  const gain = row.rank_before - row.rank;
  const text = gain > 0 ? `▲ ${gain}` : gain < 0 ? `▼ ${-gain}` : "=";
  const move = make("span", text, "move " + (gain > 0 ? "up" : gain < 0 ? "down" : ""));
  move.title = explained ? `was ${other}` : `now ${other}`;
  move.setAttribute("aria-label", gain ? `${gain > 0 ? "up" : "down"} ${Math.abs(gain)}` : "same place");
  line.append(make("span", place, "place"), move, make("span", row.title || row.item, "title"));
  const values = make("span", "", "values");
  row.values.forEach((value, n) => {
    const wish = read.include.includes(value) ? "wanted" : read.exclude.includes(value) ? "rejected" : "";
    values.append(n ? ", " : "", make("span", value, wish));
  });
  line.append(values);
  if (explained && gain) {
    const sign = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);
    const why = `${row.base.toFixed(2)} before ${sign(row.semantic)} by your words ${sign(row.shift)} by your taste`;
    line.append(make("span", why, "why"));
  }
  return line;
}

async function search() {
  const text = $("search").value;
  const found = text.trim() ? await fetchJson("items?q=" + encodeURIComponent(text)) : [];
  if (text !== $("search").value) return;
  $("found").dataset.text = text; // what the titles were found for
  $("found").replaceChildren(...found.map(({ item, title }) => {
    const row = document.createElement("li");
    const button = make("button", title || item);
    button.type = "button";
    button.onclick = () => {
      titles.set(item, title);
      change({ history: [...state.history, item] });
    };
    row.append(button);
    return row;
  }));
}

async function titlesOf(items) {
  const unknown = items.filter((item) => !titles.has(item));
  if (!unknown.length) return;
  const query = new URLSearchParams(unknown.map((item) => ["id", item]));
  for (const { item, title } of await fetchJson("items?" + query)) titles.set(item, title);
}

async function choose(items) {
  change({ history: items });
  await titlesOf(items);
  showState();
}

async function follow() {
  readAddress();
  await titlesOf(state.history);
  showState();
  await ask();
}

async function start() {
  readAddress(); // before anything can change the state
  $("form").addEventListener("submit", (event) => event.preventDefault());
  turns.forEach((input) => input.addEventListener("input", () => change({ prompt: turns.map((turn) => turn.value) })));
  $("strength").addEventListener("input", () => change({ strength: parseFloat($("strength").value) }));
  $("exclude_history").addEventListener("change", () => change({ exclude_history: $("exclude_history").checked }));
  $("search").addEventListener("input", () => search().catch(complain));
  $("search").addEventListener("keydown", (event) => {
    const current = $("found").dataset.text === $("search").value;
    if (event.key === "Enter" && current) $("found").querySelector("button")?.click();
  });
  $("link").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("link").textContent = "Copied";
    } catch {
      $("link").textContent = "Copy the address above";
    }
  });
  window.addEventListener("hashchange", () => follow().catch(complain));

  const [about, users] = await Promise.all([fetchJson("health"), fetchJson("users")]);
  $("about").textContent = `${about.model}, trained on ${about.dataset}: ${about.items} items, ranked with and without your words.`;
  trained = about.exclude_history;
  shown = Math.min(K, about.items);
  const [one, two, three] = about.values.map((value) => value.replaceAll("_", " "));
  if (two) turns[0].placeholder = `${one}, but no ${two}`;
  if (three) turns[1].placeholder = `no ${one}, rather ${three}`;
  const others = about.values.slice(SHOWN_VALUES);
  $("values").textContent = about.values.slice(0, SHOWN_VALUES).join(", ") || "this model takes no prompts";
  if (others.length) {
    const rest = make("details", "");
    rest.append(make("summary", `and ${others.length} more`), others.join(", "));
    $("values").append(rest);
  }
  $("user-label").hidden = !users.length;
  users.forEach(({ user, history }) => {
    const option = make("option", `${user} (${history.length} items)`);
    option.value = user;
    $("user").append(option);
  });
  $("user").addEventListener("change", () => {
    const chosen = users.find(({ user }) => user === $("user").value);
    if (chosen) choose(chosen.history).catch(complain);
  });
  readAddress(); // now that it is known what goes without saying
  if (!state.history.length && users.length) {
    state.history = users[0].history;
    $("user").value = users[0].user;
  }
  await titlesOf(state.history);
  showState();
  await ask();
}

start().catch(complain);
