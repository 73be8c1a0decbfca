"use strict";
// Text of strangers is only ever set as textContent; the server has made visible what can't be seen.
const ROW = 56, PAGE = 100;
const find = (id) => document.getElementById(id);

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  // 409: somebody decided or read findings anew since then; 507: the disk is full.
  if (answer.status === 409 || answer.status === 507) throw new Error((await answer.json()).error);
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  return answer.json();
}

function say(text) { find("said").textContent = text; }

function element(kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

function showTitle(parts) {
  const line = element("div");
  line.append(parts.before);
  if (parts.span) line.append(element("mark", "", parts.span));
  line.append(parts.after);
  return line;
}

// A list that holds only what is on the screen; pages come from the server when they are needed.
class List {
  constructor(box, load, draw, onChoose) {
    Object.assign(this, { box, load, draw, onChoose, total: 0, chosen: 0, pages: new Map(), version: 0 });
    this.space = element("div");
    box.append(this.space);
    box.addEventListener("scroll", () => this.show());
    new ResizeObserver(() => this.show()).observe(box);
  }
  async reset(keep = false) {
    this.version += 1;
    this.pages.clear();
    if (!keep) { this.chosen = 0; this.box.scrollTop = 0; }
    await this.fetchPage(Math.floor(this.chosen / PAGE));
    this.chosen = Math.max(0, Math.min(this.chosen, this.total - 1));
    this.show();
    this.onChoose(this.get(this.chosen));
  }
  get(at) { const page = this.pages.get(Math.floor(at / PAGE)); return Array.isArray(page) ? page[at % PAGE] : undefined; }
  async fetchPage(number) {
    if (!this.pages.has(number)) this.pages.set(number, this.takePage(number, this.version));
    await this.pages.get(number);
  }
  async takePage(number, version) {
    try {
      const told = await this.load(number * PAGE, PAGE);
      if (version !== this.version) return;
      this.pages.set(number, told.rows);
      this.total = told.total;
    } catch (error) {
      if (version === this.version) this.pages.delete(number);
      throw error;
    }
  }
  show() {
    // Browsers know no element of more than some ten million pixels.
    this.space.style.height = `${Math.min(this.total * ROW, 12e6)}px`;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - 3);
    const last = Math.min(this.total, first + Math.ceil(this.box.clientHeight / ROW) + 6);
    const shown = [];
    for (let at = first; at < last; at++) {
      const data = this.get(at);
      if (data === undefined) {
        const number = Math.floor(at / PAGE);
        if (!this.pages.has(number)) this.fetchPage(number).then(() => this.show()).catch((error) => say(error.message));
        continue;
      }
      const row = this.draw(data);
      row.className = at === this.chosen ? "row chosen" : "row";
      row.id = `${this.box.id}-${at}`;
      row.style.top = `${at * ROW}px`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(at === this.chosen));
      row.addEventListener("click", () => this.choose(at));
      shown.push(row);
    }
    this.space.replaceChildren(...shown);
    this.box.setAttribute("aria-activedescendant", `${this.box.id}-${this.chosen}`);
  }
  async choose(at) {
    this.chosen = Math.max(0, Math.min(at, this.total - 1));
    const top = this.chosen * ROW;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + ROW > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW - this.box.clientHeight;
    await this.fetchPage(Math.floor(this.chosen / PAGE));
    this.show();
    this.onChoose(this.get(this.chosen));
  }
}

function badge(choice) { return element("span", `badge ${choice || ""}`, choice || ""); }

function drawGroup(group) {
  const row = element("div");
  row.append(badge(group.choice), showTitle(group.example));
  row.append(element("div", "dim", `${group.many.toLocaleString("en")} × ${group.tier} · ${group.reason}`));
  return row;
}

function drawTitle(finding) {
  const row = element("div");
  row.append(badge(finding.choice), showTitle(finding.title));
  row.append(element("div", "dim", `row ${finding.row}${finding.item ? ` · ${finding.item}` : ""} · ${finding.reason}`));
  return row;
}

let group;
const groups = new List(find("groups"), (offset, limit) => {
  const query = new URLSearchParams({ offset, limit, search: find("search").value, state: find("state").value });
  return ask(`api/groups?${query}`);
}, drawGroup, (chosen) => {
  const same = group && chosen && group.id === chosen.id && group.mark === chosen.mark;
  group = chosen;
  find("about").textContent = chosen ? `${chosen.fragment} (${chosen.many.toLocaleString("en")})` : "Nothing to show";
  if (!same) titles.reset().catch((error) => say(error.message));
});
const titles = new List(find("titles"), (offset, limit) =>
  group ? ask(`api/groups/${group.id}/findings?${new URLSearchParams({ offset, limit, mark: group.mark })}`) : { total: 0, rows: [] },
drawTitle, () => {});

// Decisions of this page, and the last one that stood when it was opened: what others decide since then, it never undoes.
const own = [];
let before;

async function count() {
  const told = await ask("api/summary");
  if (before === undefined) before = told.last;
  if (told.trouble) say(told.trouble);
  find("file").textContent = told.file;
  find("counts").textContent =
    `${told.findings.toLocaleString("en")} findings in ${told.groups.toLocaleString("en")} groups: ` +
    `${told.accepted.toLocaleString("en")} accepted, ${told.dismissed.toLocaleString("en")} dismissed; ` +
    `titles decided by themselves: ${told.titles.toLocaleString("en")}`;
}

async function decide(choice) {
  const one = document.activeElement === find("titles");
  const list = one ? titles : groups;
  await list.fetchPage(Math.floor(list.chosen / PAGE));
  const chosen = list.get(list.chosen);
  if (!chosen) return;
  const told = await ask("api/decisions", { target: one ? "title" : "group", id: chosen.id, mark: chosen.mark, choice });
  own.push(told.number);
  say(`${one ? "The title" : "The group"} is ${choice}.`);
  const leaves = !one && find("state").value !== "all";
  if (!leaves) {
    chosen.choice = choice;
    await list.choose(list.chosen + 1);
  } else {
    await list.reset(true);
  }
  await count();
}

async function undo() {
  const number = own.length ? own.pop() : before;
  const told = await ask("api/undo", { number });
  if (number === before) before = told.before || 0;
  say(told.undone ? `Taken back: a ${told.undone.target} was ${told.undone.choice}.` : "There is nothing to undo.");
  await groups.reset(true);
  await titles.reset(true);
  await count();
}

async function exportAllowed() {
  const told = await ask("api/export", {});
  if (!told.file) { say(told.said); return; }
  say(`${told.texts} texts in ${told.file}${told.left_out ? `; ${told.left_out} hold line breaks and are left out` : ""}.`);
}

const run = (work) => work().catch((error) => say(error.message));
find("undo").addEventListener("click", () => run(undo));
find("export").addEventListener("click", () => run(exportAllowed));
find("state").addEventListener("change", () => run(() => groups.reset()));
let waiting;
find("search").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => run(() => groups.reset()), 150);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const field = ["INPUT", "SELECT"].includes(document.activeElement.tagName);
  if (field) {
    if (event.key === "Escape" || event.key === "Enter") { find("groups").focus(); event.preventDefault(); }
    return;
  }
  const list = document.activeElement === find("titles") ? titles : groups;
  const size = Math.max(1, Math.floor(list.box.clientHeight / ROW) - 1);
  const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: size, PageUp: -size, Home: -Infinity, End: Infinity };
  const keys = { a: () => decide("accepted"), d: () => decide("dismissed"), u: undo, e: exportAllowed };
  if (event.key in moves) run(() => list.choose(list.chosen + moves[event.key]));
  else if (event.key in keys) run(keys[event.key]);
  else if (event.key === "/") find("search").focus();
  else return;
  event.preventDefault();
});

run(async () => {
  await Promise.all([groups.reset(), count()]);
  find("groups").focus();
  document.body.dataset.ready = "yes";
});
