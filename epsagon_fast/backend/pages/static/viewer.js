// The one script of the backend's pages. Each page works without it; with it rows come by themselves, and a request of
// thousands of events stays fluid.
"use strict";

const UNITS = 10000; // of a bar's drawing, as in rendering.py

// --- the list ---------------------------------------------------------------------------------------------------

const MAX_ROWS = 300;
const AWAY_MS = 2000; // before it is said that nothing comes any more

function followList(table) {
  const body = table.tBodies[0];
  const light = document.getElementById("live");
  const source = new EventSource(table.dataset.live);
  let gone;
  source.onopen = () => { clearTimeout(gone); light.hidden = false; };
  // Each stream ends after a while and the browser asks again, which is not worth a word.
  source.onerror = () => {
    clearTimeout(gone);
    gone = setTimeout(() => { light.hidden = source.readyState !== EventSource.OPEN; }, AWAY_MS);
  };
  source.onmessage = (message) => {
    const told = JSON.parse(message.data);
    const template = document.createElement("template");
    template.innerHTML = told.html; // made and escaped by the backend's own template
    place(body, template.content.querySelector("tr"));
    while (body.rows.length > MAX_ROWS) body.lastElementChild.remove();
    rescale(body);
    document.querySelectorAll(".empty").forEach((each) => each.remove());
  };
  addEventListener("pagehide", () => source.close());
}

function place(body, row) {
  const number = Number(row.dataset.number);
  const old = body.querySelector(`tr[data-number="${number}"]`);
  if (old) old.remove();
  row.classList.add("fresh");
  const after = [...body.rows].find((each) => Number(each.dataset.number) < number);
  body.insertBefore(row, after || null);
}

function rescale(body) {
  const longest = Math.max(...[...body.rows].map((row) => Number(row.dataset.duration)));
  for (const row of body.rows) {
    const part = longest ? Number(row.dataset.duration) / longest : 0;
    row.querySelector(".duration rect").setAttribute("width", Math.max(1, Math.round(part * UNITS)));
  }
}

// --- what a page has is started -----------------------------------------------------------------------------------

const table = document.querySelector("table[data-live]");
if (table) followList(table);

// --- one request --------------------------------------------------------------------------------------------------

const ROW_PX = 28;
const MARGIN_ROWS = 12; // beyond what is in view

class RequestView {
  constructor(viewer) {
    this.path = viewer.dataset.path;
    this.rows = viewer.querySelector(".rows");
    this.list = this.rows.querySelector("ol");
    this.panel = viewer.querySelector(".panel");
    this.scrubber = viewer.querySelector(".scrubber");
    this.ruler = viewer.querySelector(".ruler");
    this.find = document.getElementById("find");
    this.model = this.list.querySelector("li"); // each further row is a copy of one that the backend made
    this.folded = new Set();
    this.hits = [];
    this.window = [0, UNITS];
    const chosen = this.list.querySelector(".chosen");
    this.chosenKey = chosen ? chosen.dataset.key : null;
  }

  async start() {
    if (!this.model) return;
    const told = await (await fetch(`/nodes/${this.path}`)).json();
    this.nodes = told.nodes;
    this.duration = told.duration;
    this.chosen = this.chosenKey === null ? this.placeOfPage() : this.nodes.findIndex((node) => node.key === this.chosenKey);
    this.rows.classList.add("virtual");
    this.scrubber.hidden = this.find.hidden = false;
    document.querySelector(".keys").hidden = false;
    document.querySelector(".without-script").hidden = true;
    this.drawScrubber();
    this.listen();
    this.arrange();
    this.reveal();
  }

  placeOfPage() {
    const link = this.panel.querySelector('.copies a[href*="event="]');
    const key = link && new URL(link.href).searchParams.get("event");
    return Math.max(0, this.nodes.findIndex((node) => node.key === key));
  }

  // Which rows there are: all but those below a folded one.
  arrange() {
    this.shown = [];
    for (let place = 0; place < this.nodes.length; place++) {
      this.shown.push(place);
      if (this.folded.has(place)) place = this.endOf(place) - 1;
    }
    this.list.style.height = `${this.shown.length * ROW_PX}px`;
    this.draw();
  }

  endOf(place) {
    const depth = this.nodes[place].depth;
    let end = place + 1;
    while (end < this.nodes.length && this.nodes[end].depth > depth) end++;
    return end;
  }

  parentOf(place) {
    const depth = this.nodes[place].depth;
    while (place >= 0 && this.nodes[place].depth >= depth) place--;
    return place;
  }

  // Only what is in view is in the page.
  draw() {
    const first = Math.max(0, Math.floor(this.rows.scrollTop / ROW_PX) - MARGIN_ROWS);
    const last = Math.min(this.shown.length, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / ROW_PX) + MARGIN_ROWS);
    const drawn = [];
    for (let line = first; line < last; line++) drawn.push(this.row(this.shown[line], line));
    this.list.replaceChildren(...drawn);
  }

  row(place, line) {
    const node = this.nodes[place];
    const row = this.model.cloneNode(true);
    const part = (name) => row.querySelector(name);
    row.className = `event ${node.status}`;
    row.classList.toggle("chosen", place === this.chosen);
    row.classList.toggle("hit", this.hitSet !== undefined && this.hitSet.has(place));
    row.dataset.key = node.key;
    row.dataset.place = place;
    row.style.top = `${line * ROW_PX}px`;
    part(".indent").setAttribute("width", Math.min(node.depth, 24) * 12);
    const fold = part(".fold");
    fold.hidden = node.count === 0;
    fold.textContent = this.folded.has(place) ? "▸" : "▾";
    fold.setAttribute("aria-label", this.folded.has(place) ? "Unfold" : "Fold");
    fold.setAttribute("aria-expanded", String(!this.folded.has(place)));
    fold.tabIndex = -1;
    part(".title").href = `?event=${encodeURIComponent(node.key)}`;
    part(".title bdi").textContent = node.title;
    part(".kind bdi").textContent = node.kind;
    part(".trace-mark").hidden = !node.trace;
    part(".trace-mark bdi").textContent = node.trace;
    part(".skew").hidden = !node.skew;
    part(".skew").textContent = `clock −${node.skew}`;
    part(".time span").textContent = node.duration;
    this.fillBar(part(".bar"), node);
    return row;
  }

  fillBar(bar, node) {
    bar.replaceChildren(this.rect(node.status, node.start, node.length, 0, 7));
    for (const [start, length] of node.critical) bar.append(this.rect("mark", start, length, 8.5, 1.5));
  }

  rect(kind, start, length, y, height) {
    const [from, to] = this.window;
    const scale = UNITS / (to - from);
    const drawn = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    drawn.setAttribute("class", kind);
    drawn.setAttribute("x", (start - from) * scale);
    drawn.setAttribute("width", Math.max(8, length * scale));
    drawn.setAttribute("y", y);
    drawn.setAttribute("height", height);
    return drawn;
  }

  // --- choosing

  async choose(place, { remember = true } = {}) {
    this.chosen = place;
    this.reveal();
    const key = this.nodes[place].key;
    const answer = await fetch(`/event/${this.path}?event=${encodeURIComponent(key)}`);
    if (place !== this.chosen) return; // another one was chosen meanwhile
    // Made and escaped by the backend's own template.
    if (answer.ok) this.panel.innerHTML = await answer.text();
    else this.panel.textContent = "It is not there any more, or the backend wants its token: load this page anew.";
    this.panel.scrollTop = 0;
    if (remember) history.replaceState(null, "", `?event=${encodeURIComponent(key)}`);
  }

  reveal() {
    for (let above = this.parentOf(this.chosen); above >= 0; above = this.parentOf(above)) this.folded.delete(above);
    this.arrange();
    const top = this.shown.indexOf(this.chosen) * ROW_PX;
    if (top < this.rows.scrollTop) this.rows.scrollTop = top;
    if (top + ROW_PX > this.rows.scrollTop + this.rows.clientHeight) {
      this.rows.scrollTop = top + ROW_PX - this.rows.clientHeight;
    }
    this.draw();
  }

  move(lines) {
    const line = Math.min(this.shown.length - 1, Math.max(0, this.shown.indexOf(this.chosen) + lines));
    this.choose(this.shown[line]);
  }

  fold(place, shut) {
    if (shut && this.nodes[place].count && !this.folded.has(place)) this.folded.add(place);
    else if (shut) return this.choose(Math.max(0, this.parentOf(place)));
    else if (this.folded.has(place)) this.folded.delete(place);
    else return this.move(1);
    this.arrange();
  }

  // --- finding

  async search() {
    const text = this.find.value.trim();
    const said = document.querySelector(".found");
    this.hits = [];
    if (text) {
      const told = await (await fetch(`/find/${this.path}?text=${encodeURIComponent(text.slice(0, 500))}`)).json();
      if (text !== this.find.value.trim()) return; // more was typed meanwhile
      this.hits = told.hits;
      said.textContent = told.count ? `${told.count} found` : "nothing found";
    } else {
      said.textContent = "";
    }
    this.hitSet = new Set(this.hits);
    if (this.hits.length) this.nextHit(0);
    else this.draw();
  }

  nextHit(direction) {
    if (!this.hits.length) return;
    const from = this.chosen + direction;
    const next = direction < 0
      ? this.hits.findLast((place) => place <= from) ?? this.hits.at(-1)
      : this.hits.find((place) => place >= from) ?? this.hits[0];
    this.choose(next);
  }

  // --- the part of the time that is in view

  drawScrubber() {
    const svg = this.scrubber.querySelector("svg");
    const deepest = this.nodes.reduce((depth, node) => Math.max(depth, node.depth + 1), 1);
    const height = Math.max(1, 40 / deepest);
    // A picture of the whole needs no more than this.
    const step = Math.max(1, Math.floor(this.nodes.length / 1500));
    for (let place = 0; place < this.nodes.length; place += step) {
      const node = this.nodes[place];
      svg.append(this.rect(node.status, node.start, node.length, (node.depth * 40) / deepest, height * 0.8));
    }
  }

  show(from, to) {
    const least = UNITS / 1e5;
    this.window = [Math.max(0, Math.min(from, UNITS - least)), Math.min(UNITS, Math.max(to, from + least))];
    const [start, end] = this.window;
    const mark = this.scrubber.querySelector(".window");
    mark.style.left = `${(start / UNITS) * 100}%`;
    mark.style.width = `${((end - start) / UNITS) * 100}%`;
    const ticks = this.ruler.children;
    for (let tick = 0; tick < ticks.length; tick++) {
      const at = start + ((end - start) * tick) / (ticks.length - 1);
      ticks[tick].textContent = duration((at / UNITS) * this.duration);
    }
    this.draw();
  }

  listen() {
    this.rows.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
    addEventListener("resize", () => this.draw());
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("li");
      if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const place = Number(row.dataset.place);
      this.rows.focus({ preventScroll: true });
      if (event.target.closest(".fold")) this.fold(place, !this.folded.has(place));
      else this.choose(place);
    });
    this.find.addEventListener("input", () => {
      clearTimeout(this.typed);
      this.typed = setTimeout(() => this.search(), 150);
    });
    this.scrub();
    addEventListener("keydown", (event) => this.key(event));
  }

  scrub() {
    let from = null;
    const at = (event) => {
      const box = this.scrubber.getBoundingClientRect();
      return Math.min(UNITS, Math.max(0, ((event.clientX - box.left) / box.width) * UNITS));
    };
    this.scrubber.addEventListener("pointerdown", (event) => {
      from = at(event);
      this.scrubber.setPointerCapture(event.pointerId);
    });
    this.scrubber.addEventListener("pointermove", (event) => {
      if (from !== null) this.show(Math.min(from, at(event)), Math.max(from, at(event)));
    });
    this.scrubber.addEventListener("pointerup", (event) => {
      // A click without a way is the whole again.
      if (Math.abs(at(event) - from) < UNITS / 200) this.show(0, UNITS);
      from = null;
    });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === this.find) {
      if (event.key === "Escape") this.rows.focus();
      else if (event.key === "Enter") this.nextHit(event.shiftKey ? -1 : 1);
      return;
    }
    if (event.target.closest("input, select, textarea") || this.panel.contains(event.target)) return;
    const page = Math.floor(this.rows.clientHeight / ROW_PX);
    const action = {
      ArrowDown: () => this.move(1), j: () => this.move(1), ArrowUp: () => this.move(-1), k: () => this.move(-1),
      PageDown: () => this.move(page), PageUp: () => this.move(-page),
      Home: () => this.move(-this.shown.length), End: () => this.move(this.shown.length),
      ArrowLeft: () => this.fold(this.chosen, true), ArrowRight: () => this.fold(this.chosen, false),
      n: () => this.nextHit(1), N: () => this.nextHit(-1), "/": () => this.find.focus(), 0: () => this.show(0, UNITS),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

function duration(seconds) {
  for (const [size, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (seconds >= size || unit === "µs") return `${Number((seconds / size).toPrecision(3))} ${unit}`;
  }
}

// --- copying: without the script, or where the browser does not let it, the link leads to the same text --------------

addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-copy]");
  if (!link || !navigator.clipboard || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    const answer = await fetch(link.href);
    if (!answer.ok) throw new Error(answer.statusText);
    await navigator.clipboard.writeText(await answer.text());
  } catch {
    location.assign(link.href);
    return;
  }
  const said = document.querySelector(".said");
  said.textContent = "copied";
  said.hidden = false;
  setTimeout(() => { said.hidden = true; }, 1500);
});

const viewer = document.querySelector(".viewer");
if (viewer) new RequestView(viewer).start();
