// Logs: lines and ranges of lines as links; live ones go on; of long ones only what is in view is in the page.
const log = document.getElementById("log");
const HEIGHT = 20;
const CHUNK = 200;
const KEPT = 30;
const AROUND = 40;
// Browsers bound the height of an element; a longer log is scrolled in larger steps.
const TALLEST = 16_000_000;

const parse = (text) => [...new DOMParser().parseFromString(text, "text/html").body.children];
const lines = async (from, limit) => {
  const url = new URL(log.dataset.lines, location.href);
  url.searchParams.set("from", from);
  url.searchParams.set("limit", limit);
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`lines from ${from}: ${answer.status}`);
  return parse(await answer.text());
};

// #L12 or #L12-L20, counted from 1.
const wanted = () => {
  const found = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash);
  if (!found) return null;
  const [first, last] = [Number(found[1]), Number(found[2] ?? found[1])].sort((a, b) => a - b);
  return { first: first - 1, last: last - 1 };
};

const mark = (rows) => {
  const range = wanted();
  for (const row of rows) {
    const at = Number(row.dataset.n);
    row.classList.toggle("at", range !== null && at >= range.first && at <= range.last);
  }
};

const count = (total) => {
  const text = document.getElementById("log-count");
  if (text) text.textContent = `${total.toLocaleString()} line${total === 1 ? "" : "s"}`;
};

// The short log is in the page as a whole.
class Whole {
  constructor() {
    this.total = Number(log.dataset.total);
    this.step = undefined;
    this.show();
    addEventListener("hashchange", () => this.show());
  }

  show() {
    mark(log.querySelectorAll(".ln"));
    const range = wanted();
    const row = range && document.getElementById(`L${range.first + 1}`);
    const fold = row?.closest("details");
    if (fold) fold.open = true;
    row?.scrollIntoView({ block: "center" });
  }

  async grew(total, steps) {
    if (total > 2000) return location.reload();
    const last = log.querySelector(".ln:last-of-type") && [...log.querySelectorAll(".ln")].at(-1);
    // A new step begins a fold: then the log is asked for as it stands in the page.
    if (!last || steps.size > 1 || !steps.has(this.step)) {
      this.step = [...steps].at(-1);
      const text = await (await fetch(location.pathname + location.search)).text();
      const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("log");
      const closed = [...log.querySelectorAll("details")].map((fold) => !fold.open);
      log.replaceChildren(...fresh.childNodes);
      log.querySelectorAll("details").forEach((fold, at) => closed[at] && fold.removeAttribute("open"));
      this.total = Number(fresh.dataset.total);
    } else {
      const rows = await lines(this.total, total - this.total);
      last.parentElement.append(...rows);
      this.total += rows.length;
    }
    mark(log.querySelectorAll(".ln"));
    count(this.total);
  }

  toEnd() {
    scrollTo({ top: document.documentElement.scrollHeight });
  }

  atEnd() {
    return innerHeight + scrollY >= document.documentElement.scrollHeight - 60;
  }

  get scroller() {
    return window;
  }
}

// Of a long log the rows in view, in a box that is as high as the log.
class Window {
  constructor() {
    this.total = Number(log.dataset.total);
    this.chunks = new Map();
    this.asked = new Set();
    this.shown = null;
    this.space = document.createElement("div");
    this.rows = document.createElement("div");
    this.rows.style.position = "absolute";
    this.rows.style.insetInline = "0";
    this.rows.style.top = "0";
    const first = Number(log.dataset.first);
    const given = [...log.querySelectorAll(".ln")];
    log.replaceChildren(this.space, this.rows);
    log.classList.add("virtual");
    document.querySelector(".log-pages")?.remove();
    this.given = { first, rows: given };
    this.measure();
    const from = wanted()?.first ?? (location.search.includes("from=") || location.search.includes("step=") ? first : null);
    if (from === null) this.toEnd();
    else this.to(from, wanted() ? 0.4 : 0);
    log.addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.draw(true));
    addEventListener("hashchange", () => {
      const range = wanted();
      if (range && (range.first < this.first() || range.last > this.first() + this.fits())) this.to(range.first, 0.4);
      this.draw(true);
    });
    count(this.total);
    this.draw(true);
  }

  fits() {
    return Math.ceil(log.clientHeight / HEIGHT);
  }

  measure() {
    this.height = Math.min(this.total * HEIGHT, TALLEST);
    this.space.style.height = `${this.height}px`;
  }

  // The line at the top, with a fraction.
  first() {
    const most = Math.max(1, this.height - log.clientHeight);
    const lines = Math.max(0, this.total - log.clientHeight / HEIGHT);
    return Math.min(lines, (log.scrollTop / most) * lines);
  }

  to(line, share = 0) {
    const most = Math.max(1, this.height - log.clientHeight);
    const lines = Math.max(1, this.total - log.clientHeight / HEIGHT);
    log.scrollTop = (Math.max(0, line - this.fits() * share) / lines) * most;
  }

  toEnd() {
    log.scrollTop = this.height;
  }

  atEnd() {
    return log.scrollTop + log.clientHeight >= this.height - HEIGHT * 2;
  }

  get scroller() {
    return log;
  }

  row(at) {
    const chunk = this.chunks.get(Math.floor(at / CHUNK));
    const given = this.given.rows[at - this.given.first];
    const row = chunk?.[at % CHUNK] ?? (at >= this.given.first ? given : undefined);
    if (row) return row;
    this.ask(Math.floor(at / CHUNK));
    const empty = document.createElement("div");
    empty.className = "ln wanted";
    empty.innerHTML = `<a>${at + 1}</a><i></i><code>…</code>`;
    return empty;
  }

  async ask(chunk) {
    if (this.asked.has(chunk)) return;
    this.asked.add(chunk);
    try {
      const rows = await lines(chunk * CHUNK, CHUNK);
      this.chunks.delete(chunk);
      this.chunks.set(chunk, rows);
      // Those that were asked for first go first.
      while (this.chunks.size > KEPT) this.chunks.delete(this.chunks.keys().next().value);
      this.draw(true);
    } catch {
      setTimeout(() => this.draw(true), 2000);
    } finally {
      this.asked.delete(chunk);
    }
  }

  draw(anew = false) {
    const first = this.first();
    const from = Math.max(0, Math.floor(first) - AROUND);
    const to = Math.min(this.total, Math.ceil(first) + this.fits() + AROUND);
    const covers = this.shown && this.shown.from <= Math.floor(first) && this.shown.to >= Math.min(this.total, Math.ceil(first) + this.fits());
    const scaled = this.total * HEIGHT > TALLEST;
    // Rows stay where they are while they cover what is in view, so that a selection lives on.
    if (anew || !covers) {
      this.shown = { from, to };
      const rows = [];
      for (let at = from; at < to; at += 1) rows.push(this.row(at));
      this.rows.replaceChildren(...rows);
      mark(rows);
    }
    const top = scaled ? log.scrollTop - (first - this.shown.from) * HEIGHT : this.shown.from * HEIGHT;
    this.rows.style.transform = `translateY(${top}px)`;
  }

  grew(total) {
    // The last rows were asked for before these were there.
    const chunk = Math.floor(this.total / CHUNK);
    const part = this.chunks.get(chunk);
    if (part && part.length < CHUNK) this.chunks.delete(chunk);
    this.total = total;
    this.measure();
    count(total);
    this.draw(true);
  }
}

const follow = (view) => {
  const box = document.getElementById("log-follow");
  const label = document.querySelector(".log-follow");
  if (label) label.hidden = false;
  const url = new URL(log.dataset.follow, location.href);
  url.searchParams.set("from", view.total);
  const source = new EventSource(url);
  let total = view.total;
  let steps = new Set();
  let busy = false;
  const grow = async () => {
    if (busy || total <= view.total) return;
    busy = true;
    const told = steps;
    steps = new Set();
    try {
      await view.grew(total, told);
      document.getElementById("log-empty")?.remove();
      if (box?.checked) view.toEnd();
    } catch {
      steps = told;
    }
    busy = false;
  };
  const timer = setInterval(grow, 300);
  source.onmessage = (event) => {
    total = Math.max(total, Number(event.lastEventId) + 1);
    steps.add(JSON.parse(event.data).step);
  };
  source.addEventListener("end", async () => {
    source.close();
    clearInterval(timer);
    while (busy) await new Promise((done) => setTimeout(done, 50));
    await grow();
    if (label) label.hidden = true;
    // What became of it.
    const fresh = new DOMParser().parseFromString(await (await fetch(location.pathname + location.search)).text(), "text/html");
    const parts = [...fresh.querySelectorAll("[data-log-part]")];
    document.querySelectorAll("[data-log-part]").forEach((part, at) => parts[at] && part.replaceWith(parts[at]));
    document.title = fresh.title;
    document.dispatchEvent(new Event("replaced"));
    log.removeAttribute("data-follow");
  });
  // Who scrolls up wants to read; who scrolls to the end, to follow.
  const scrolled = () => box && (box.checked = view.atEnd());
  view.scroller.addEventListener("wheel", () => setTimeout(scrolled, 150), { passive: true });
  view.scroller.addEventListener("keyup", scrolled);
  box?.addEventListener("change", () => box.checked && view.toEnd());
  if (box?.checked && !wanted()) view.toEnd();
};

if (log) {
  const view = log.dataset.window ? new Window() : new Whole();
  if (log.dataset.follow) follow(view);
  let anchor = null;
  // Shift and a click make a range.
  log.addEventListener("click", (event) => {
    const link = event.target.closest(".ln > a");
    const line = link && Number(link.textContent);
    if (!line) return;
    event.preventDefault();
    const hash = event.shiftKey && anchor ? `#L${Math.min(anchor, line)}-L${Math.max(anchor, line)}` : `#L${line}`;
    if (!event.shiftKey) anchor = line;
    history.replaceState(null, "", hash);
    mark(log.querySelectorAll(".ln"));
  });
}
