const HEIGHT = 20;
const CHUNK = 200;
const KEPT = 30;
const AROUND = 40;
// Browsers bound the height of an element; a longer log is scrolled in larger steps.
const TALLEST = 16_000_000;

// Of a long log the rows in view, in a box that is as high as the log would be without long lines. How far it is scrolled says which
// row is shown how far down: at the beginning the first one at the top, at the end the last one at the bottom. So rows may be as high
// as they like.
class Window {
  constructor() {
    this.rows = new Rows(Number(log.dataset.total));
    this.chunks = new Map();
    this.asked = new Set();
    this.shown = null;
    this.space = document.createElement("div");
    this.view = document.createElement("div");
    this.view.className = "log-view";
    const first = Number(log.dataset.first);
    this.given = { first, rows: [...log.querySelectorAll(".ln")] };
    log.replaceChildren(this.space, this.view);
    log.classList.add("virtual");
    document.querySelector(".log-pages")?.remove();
    this.measure();
    this.begin(first);
    this.listen();
    count(this.total);
    this.draw(true);
    // Keys that scroll are meant for the log.
    if (document.activeElement === document.body) log.focus({ preventScroll: true });
    const hint = document.getElementById("log-hint");
    if (hint) hint.hidden = false;
  }

  // Where the reader wants to be; else at the failure; else at the end.
  begin(first) {
    const range = wanted();
    if (range) return this.to(range.first);
    if (location.search.includes("from=") || location.search.includes("step=")) return this.to(first, 0);
    if (failedAt() !== null) return this.to(failedAt(), 0.8);
    this.toEnd();
  }

  listen() {
    log.addEventListener("scroll", () => this.draw(), { passive: true });
    addEventListener("resize", () => this.draw(true));
    document.getElementById("log-wrap")?.addEventListener("change", () => this.draw(true));
    addEventListener("hashchange", () => {
      const range = wanted();
      if (range && !this.isInView(range.first)) this.to(range.first);
      this.draw(true);
    });
    log.addEventListener("click", (event) => {
      const button = event.target.closest("[data-step]");
      if (!button) return;
      const place = button.getBoundingClientRect().top - log.getBoundingClientRect().top;
      this.rows.turn(Number(button.dataset.step));
      this.measure();
      this.toRow(this.rows.steps[Number(button.dataset.step)].row, place);
      this.draw(true);
      button.focus({ preventScroll: true });
    });
    document.querySelector("[data-log-steps]")?.addEventListener("click", (event) => {
      const link = event.target.closest("a");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      const step = this.rows.steps[[...link.parentElement.children].indexOf(link)];
      if (!step.open) this.rows.turn(step.at);
      this.measure();
      this.toRow(step.row, 0);
      this.draw(true);
      log.focus({ preventScroll: true });
    });
  }

  get total() {
    return this.rows.total;
  }

  get scroller() {
    return log;
  }

  // Rows that fit in, if none is higher than usual.
  fits() {
    return Math.ceil(log.clientHeight / HEIGHT);
  }

  measure() {
    this.height = Math.min(this.rows.count * HEIGHT, TALLEST);
    this.space.style.height = `${this.height}px`;
  }

  most() {
    return Math.max(1, this.height - log.clientHeight);
  }

  share() {
    return Math.min(1, Math.max(0, log.scrollTop / this.most()));
  }

  // Rows that the box hides, if none is higher than usual.
  hidden() {
    return Math.max(1, this.rows.count - log.clientHeight / HEIGHT);
  }

  // The row at the top of the view, if none is higher than usual.
  top() {
    return this.share() * this.hidden();
  }

  // A line, so far down in the view.
  to(line, share = 0.4) {
    this.rows.show(line);
    this.measure();
    this.toRow(this.rows.of(line), log.clientHeight * share);
  }

  // A row, so many pixels below the top of the view.
  toRow(row, below) {
    log.scrollTop = (Math.max(0, row - below / HEIGHT) / this.hidden()) * this.most();
  }

  toEnd() {
    log.scrollTop = this.height;
  }

  atEnd() {
    return log.scrollTop + log.clientHeight >= this.height - HEIGHT * 2;
  }

  isInView(line) {
    const row = this.view.querySelector(`[data-n="${line}"]`)?.getBoundingClientRect();
    const box = log.getBoundingClientRect();
    return !!row && row.top >= box.top && row.bottom <= box.bottom;
  }

  line(at) {
    const chunk = this.chunks.get(Math.floor(at / CHUNK));
    const given = at >= this.given.first ? this.given.rows[at - this.given.first] : undefined;
    const row = chunk?.[at % CHUNK] ?? given;
    if (row) return row;
    this.ask(Math.floor(at / CHUNK));
    const empty = document.createElement("div");
    empty.className = "ln wanted";
    empty.dataset.n = at;
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

  draw(again = false) {
    const count = this.rows.count;
    const share = this.share();
    // The row that stands so far down in the view as the box is scrolled.
    const anchor = Math.min(share * count, count - 1e-6);
    const from = Math.max(0, Math.floor(anchor - share * this.fits()));
    const to = Math.min(count, Math.ceil(anchor + (1 - share) * this.fits()));
    // Rows stay where they are while they cover what is in view, so that a selection lives on.
    if (again || !this.shown || this.shown.from > from || this.shown.to < to) {
      this.shown = { from: Math.max(0, from - AROUND), to: Math.min(count, to + AROUND) };
      const rows = [];
      for (let at = this.shown.from; at < this.shown.to; at += 1) {
        const one = this.rows.at(at);
        rows.push(one.heading ?? this.line(one.line));
      }
      this.view.replaceChildren(...rows);
      mark(rows);
    }
    const row = count > 0 ? this.view.children[Math.floor(anchor) - this.shown.from] : null;
    const above = row ? row.offsetTop + (anchor % 1) * row.offsetHeight : 0;
    this.view.style.transform = `translateY(${log.scrollTop + share * log.clientHeight - above}px)`;
  }

  // The page as it is at the end says where the last step ends.
  ended(page) {
    const wasAtEnd = this.atEnd();
    this.rows.read(page);
    this.measure();
    if (wasAtEnd) this.toEnd();
    this.draw(true);
  }

  async grew(total, steps) {
    // The last rows were asked for before these were there.
    const chunk = Math.floor(this.total / CHUNK);
    const part = this.chunks.get(chunk);
    if (part && part.length < CHUNK) this.chunks.delete(chunk);
    const top = this.top();
    this.rows.grew(total);
    if ([...steps].some((step) => step !== null && step !== undefined && !this.rows.steps[step])) {
      const page = await anew();
      document.querySelector("[data-log-steps]")?.replaceChildren(...(page.querySelector("[data-log-steps]")?.cloneNode(true).childNodes ?? []));
      this.rows.read(page);
    }
    this.measure();
    // What is being read stays where it is, though it is now a smaller part of the whole.
    this.toRow(top, 0);
    count(total);
    this.draw(true);
  }
}
