// Live pages: an event of the feed only says that something happened; then the page itself is fetched again, and the parts of it
// that differ are replaced. So what is shown is always what the server would show now.
const feed = document.body.dataset.events;
const parts = () => [...document.querySelectorAll("[data-part]")];
const lost = document.querySelector(".lost");
let known = new Map();
let source = null;
let waiting = null;
let asked = 0;

// Compared is what the server sent, since scripts change the page; and without times, which the page counts on by itself, and what
// proves that a form is the server's, which is another text each time.
const timeless = (html) => html.replace(/(<time[^>]*>)[^<]*/g, "$1").replace(/(data-since="\d+">)[^<]*/g, "$1").replace(/(name="csrf" value=")[^"]*/g, "$1");

// What has the focus, to be found again: its id, or where it leads.
const focused = (part) => {
  const element = document.activeElement;
  if (!element || !part.contains(element)) return null;
  const name = element.id ? `#${CSS.escape(element.id)}` : element.getAttribute("href") && `a[href="${CSS.escape(element.getAttribute("href"))}"]`;
  if (!name) return null;
  const at = [...part.querySelectorAll(name)].indexOf(element);
  const chosen = element.closest("[data-row]")?.classList.contains("at");
  return () => {
    const again = part.querySelectorAll(name)[at];
    again?.focus({ preventScroll: true });
    if (chosen) again?.closest("[data-row]")?.classList.add("at");
  };
};

const isSelected = (part) => {
  const selection = getSelection();
  return !selection.isCollapsed && selection.rangeCount > 0 && selection.getRangeAt(0).intersectsNode(part);
};
let held = false;
document.addEventListener("selectionchange", () => {
  if (held && getSelection().isCollapsed) {
    held = false;
    soon();
  }
});

const replace = (text) => {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const named = (all) => all.map((part) => part.dataset.part).join();
  // Another page altogether, as the first one after the first project.
  if (named(parts()) !== named([...fresh.querySelectorAll("[data-part]")])) return location.reload();
  let changed = false;
  document.dispatchEvent(new Event("replacing"));
  for (const part of parts()) {
    const name = part.dataset.part;
    const other = fresh.querySelector(`[data-part="${CSS.escape(name)}"]`);
    const html = timeless(other?.innerHTML ?? "");
    if (!other || known.get(name) === html) continue;
    // What somebody is selecting stays until they are done.
    if (isSelected(part)) {
      held = true;
      continue;
    }
    known.set(name, html);
    const again = focused(part);
    const open = [...part.querySelectorAll("details[id][open]")].map((one) => one.id);
    const closed = [...part.querySelectorAll("details[id]:not([open])")].map((one) => one.id);
    part.replaceChildren(...other.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const id of closed) document.getElementById(id)?.removeAttribute("open");
    again?.();
    changed = true;
  }
  if (fresh.title && document.title !== fresh.title) {
    document.title = fresh.title;
    // The title says how it stands; who does not see the page hears it.
    document.getElementById("told").textContent = fresh.title.replace(" · orchestrator", "");
  }
  if (changed) document.dispatchEvent(new Event("replaced"));
  // What has ended has no feed any more.
  if (!fresh.body.dataset.events) stop();
};

const refresh = async () => {
  waiting = null;
  asked = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected || answer.status === 401) location.reload();
    else if (answer.ok) replace(await answer.text());
  } catch {
    lost.hidden = false;
    soon(3000);
  }
};

// Many events together make one look, and there is at most one look a second.
const soon = (delay = 120) => {
  waiting ??= setTimeout(refresh, Math.max(delay, 1000 - (Date.now() - asked)));
};

const stop = () => {
  source?.close();
  source = null;
  lost.hidden = true;
};

const start = () => {
  source = new EventSource(feed);
  source.onmessage = () => soon();
  source.onopen = () => {
    lost.hidden = true;
    soon();
  };
  source.onerror = () => {
    // The browser tries again by itself, unless it was turned away.
    lost.hidden = source.readyState === EventSource.OPEN;
    if (source.readyState === EventSource.CLOSED) setTimeout(() => source && start(), 5000);
    soon(1000);
  };
};

if (feed) {
  for (const part of parts()) known.set(part.dataset.part, timeless(part.innerHTML));
  start();
  // What no event tells: places in the queue, decisions.
  const every = Number(document.body.dataset.every);
  if (every) setInterval(() => document.visibilityState === "visible" && source && soon(), every * 1000);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && source && soon());
  addEventListener("pagehide", stop);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}
