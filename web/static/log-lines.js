// Logs: lines and ranges of lines as links; live ones go on; of long ones only what is in view is in the page.
const log = document.getElementById("log");

// Times in the reader's zone.
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const tellTimes = (rows) => {
  for (const row of rows) {
    const time = row.querySelector("i[data-at]");
    if (time) time.textContent = `${clock.format(Number(time.dataset.at))} +${time.dataset.after} s`;
  }
  return rows;
};
const parse = (text) => tellTimes([...new DOMParser().parseFromString(text, "text/html").body.querySelectorAll(".ln")]);
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

// The page as it is now.
const anew = async () => new DOMParser().parseFromString(await (await fetch(location.pathname + location.search)).text(), "text/html");

// Where the error is, usually; counted from 0.
const failedAt = () => (log.dataset.failed ? Number(log.dataset.failed) - 1 : null);
