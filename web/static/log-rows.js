// The rows of a long log: its lines, and a heading for each of its steps, which hides the step's lines or shows them. The server
// says where the lines of each step lie.
class Rows {
  constructor(total) {
    this.total = total;
    this.steps = [];
    this.read(document);
  }

  // What is known of the steps, from a page; what the reader opened or closed stays so.
  read(page) {
    const known = this.steps;
    const links = [...page.querySelectorAll("[data-log-steps] a")];
    this.steps = links.map((link, at) => ({
      at,
      first: Number(link.dataset.first),
      lines: Number(link.dataset.lines),
      open: known[at]?.chosen ? known[at].open : "open" in link.dataset,
      chosen: known[at]?.chosen ?? false,
      heading: heading(link, at),
    }));
    this.lay();
  }

  // The parts of the list in order: lines outside of steps, headings, lines of steps that are open.
  lay() {
    this.parts = [];
    let row = 0;
    let line = 0;
    const lines = (to, step) => {
      if (to <= line) return;
      if (!step || step.open) {
        this.parts.push({ row, line, count: to - line });
        row += to - line;
      }
      line = to;
    };
    this.steps.forEach((step, at) => {
      lines(step.first);
      // The last one that is known may be growing.
      const grows = at === this.steps.length - 1 && "follow" in log.dataset;
      step.row = row;
      if (step.lines === 0 && !grows) return;
      this.parts.push({ row, count: 1, step });
      row += 1;
      lines(grows ? this.total : step.first + step.lines, step);
      step.heading.firstElementChild.setAttribute("aria-expanded", String(step.open));
    });
    lines(this.total);
    this.count = row;
  }

  grew(total) {
    this.total = total;
    this.lay();
  }

  // What stands in a row: a line's number, or a heading.
  at(row) {
    const part = this.parts.findLast((one) => one.row <= row);
    return part.step ? { heading: part.step.heading } : { line: part.line + row - part.row };
  }

  // The row of a line; that of its step's heading if it is hidden.
  of(line) {
    const part = this.parts.findLast((one) => (one.step ? one.step.first : one.line) <= line);
    if (!part) return 0;
    return part.step ? part.row : Math.min(part.row + line - part.line, part.row + part.count);
  }

  show(line) {
    const step = this.steps.find((one) => line >= one.first && line < one.first + one.lines);
    if (step && !step.open) this.turn(step.at);
  }

  turn(at) {
    const step = this.steps[at];
    step.open = !step.open;
    step.chosen = true;
    this.lay();
  }
}

// A row that says which step begins.
const heading = (link, at) => {
  const row = document.createElement("div");
  row.className = "ln-step";
  const button = row.appendChild(document.createElement("button"));
  button.type = "button";
  button.dataset.step = at;
  button.append(...[...link.childNodes].map((node) => node.cloneNode(true)));
  return row;
};
