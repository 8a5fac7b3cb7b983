// Keys: / finds, j and k go through rows, ? says which there are.
const typing = (target) => target.closest("input, textarea, select, [contenteditable]");
const rows = () => [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
let last = "";

const go = (by) => {
  const all = rows();
  if (all.length === 0) return;
  const at = all.findIndex((row) => row.classList.contains("at"));
  const next = all[at === -1 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
  for (const row of all) row.classList.toggle("at", row === next);
  next.querySelector("a, button, summary")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
};

const open = (id) => {
  const dialog = document.getElementById(id);
  if (dialog && !dialog.open) dialog.showModal();
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (typing(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  const keys = {
    "/": () => [...document.querySelectorAll("[data-key='/']")].at(-1)?.focus(),
    j: () => go(1),
    k: () => go(-1),
    "?": () => open("keys"),
  };
  const places = { h: "/", m: "/models", d: "/deployments", q: "/queue" };
  if (last === "g" && Object.hasOwn(places, event.key)) {
    location.assign(places[event.key]);
    return;
  }
  const act = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
  last = event.key;
  if (!act) return;
  event.preventDefault();
  act();
});

for (const button of document.querySelectorAll("[data-dialog]")) {
  button.hidden = false;
  button.addEventListener("click", () => open(button.dataset.dialog));
}
