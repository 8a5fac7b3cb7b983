// The short log is in the page as a whole.
class Whole {
  constructor() {
    this.total = Number(log.dataset.total);
    this.step = undefined;
    this.show();
    if (!wanted() && failedAt() !== null) this.showFailure();
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

  // A page that begins where it should is left alone.
  showFailure() {
    const row = document.getElementById(`L${failedAt() + 1}`);
    if (row && row.getBoundingClientRect().bottom > innerHeight) row.scrollIntoView({ block: "end" });
  }

  async grew(total, steps) {
    if (total > 2000) return location.reload();
    const last = log.querySelector(".ln:last-of-type") && [...log.querySelectorAll(".ln")].at(-1);
    // A new step begins a fold: then the log is asked for as it stands in the page.
    if (!last || steps.size > 1 || !steps.has(this.step)) {
      this.step = [...steps].at(-1);
      const fresh = (await anew()).getElementById("log");
      tellTimes(fresh.querySelectorAll(".ln"));
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
