// A log that is being written: the server tells of new lines, and those are asked for.
const follow = (view) => {
  const box = document.getElementById("log-follow");
  const label = document.querySelector(".log-follow");
  const lost = document.querySelector(".lost");
  if (label) label.hidden = false;
  let source = null;
  let total = view.total;
  let steps = new Set();
  let busy = false;
  const grow = async () => {
    if (busy || total <= view.total) return;
    busy = true;
    const fresh = steps;
    steps = new Set();
    try {
      await view.grew(total, fresh);
      document.getElementById("log-empty")?.remove();
      if (box?.checked) view.toEnd();
    } catch {
      for (const step of fresh) steps.add(step);
    }
    busy = false;
  };
  const timer = setInterval(grow, 300);
  const told = (event) => {
    total = Math.max(total, Number(event.lastEventId) + 1);
    steps.add(JSON.parse(event.data).step);
  };
  const ended = async () => {
    source.close();
    source = null;
    clearInterval(timer);
    while (busy) await new Promise((done) => setTimeout(done, 50));
    await grow();
    if (label) label.hidden = true;
    // What became of it.
    const fresh = await anew();
    const parts = [...fresh.querySelectorAll("[data-log-part]")];
    document.querySelectorAll("[data-log-part]").forEach((part, at) => parts[at] && part.replaceWith(parts[at]));
    document.title = fresh.title;
    view.ended?.(fresh);
    document.dispatchEvent(new Event("replaced"));
    log.removeAttribute("data-follow");
  };
  const start = () => {
    const url = new URL(log.dataset.follow, location.href);
    url.searchParams.set("from", total);
    source = new EventSource(url);
    source.onmessage = told;
    source.onopen = () => (lost.hidden = true);
    source.onerror = () => {
      lost.hidden = false;
      // The browser tries again by itself, unless it was turned away.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => source && start(), 5000);
    };
    source.addEventListener("end", ended);
  };
  start();
  // A page that is left is no reader who waits.
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  // Who scrolls up wants to read; who scrolls to the end, to follow.
  const scrolled = () => box && (box.checked = view.atEnd());
  view.scroller.addEventListener("wheel", () => setTimeout(scrolled, 150), { passive: true });
  view.scroller.addEventListener("keyup", scrolled);
  box?.addEventListener("change", () => box.checked && view.toEnd());
  if (box?.checked && !wanted()) view.toEnd();
};

if (log) {
  tellTimes(log.querySelectorAll(".ln"));
  const view = log.dataset.window ? new Window() : new Whole();
  if (log.dataset.follow) follow(view);
  // What is copied is what was printed: without the numbers, and with a line for each line, empty ones too.
  log.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (selection.rangeCount === 0 || selection.isCollapsed) return;
    const range = selection.getRangeAt(0);
    const copied = [...log.querySelectorAll(".ln > code")].filter((code) => range.intersectsNode(code));
    if (copied.length < 2) return;
    const text = copied.map((code) => {
      const part = document.createRange();
      part.selectNodeContents(code);
      if (code.contains(range.startContainer)) part.setStart(range.startContainer, range.startOffset);
      if (code.contains(range.endContainer)) part.setEnd(range.endContainer, range.endOffset);
      return part.toString();
    });
    event.clipboardData.setData("text/plain", text.join("\n"));
    event.preventDefault();
  });
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
