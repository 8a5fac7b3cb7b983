// Times in the reader's zone, told anew as time passes; what goes on is counted on.
const units = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [2592000, 86400, "d"]];
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

const ago = (at) => {
  const ahead = (at - Date.now()) / 1000;
  if (ahead > 60) {
    const unit = units.slice(1).find(([below]) => ahead < below);
    return unit ? `in ${Math.floor(ahead / unit[1])} ${unit[2]}` : day.format(at);
  }
  const past = Math.max(0, -ahead);
  if (past < 5) return "just now";
  const unit = units.find(([below]) => past < below);
  return unit ? `${Math.floor(past / unit[1])} ${unit[2]} ago` : day.format(at);
};

// As the server writes durations.
const lasting = (seconds) => {
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${two((seconds % 3600) / 60)} m`;
};

const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

const tell = () => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if ("whole" in time.dataset) {
      set(time, exact.format(at));
      continue;
    }
    time.title = exact.format(at);
    set(time, ago(at));
  }
  for (const span of document.querySelectorAll("[data-since]")) {
    set(span, lasting(Math.max(0, (Date.now() - Number(span.dataset.since)) / 1000)));
  }
};

tell();
setInterval(tell, 1000);
document.addEventListener("replaced", tell);
