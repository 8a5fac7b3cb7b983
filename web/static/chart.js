// The values of charts: under the pointer, and under a cursor that the arrow keys move. The server wrote all of their texts.
const svg = "http://www.w3.org/2000/svg";
const known = new WeakMap();
const plots = () => [...document.querySelectorAll(".plot")];
const told = (plot) => [...plot.querySelectorAll("[data-points]")].filter((one) => one.dataset.points);
// Which chart, and where in it.
let here = null;

// Its points, as places and texts, and what it says when nothing is pointed at.
const of = (one) => {
  if (!known.has(one)) {
    const points = one.dataset.points.split(";").map((point) => {
      const at = point.indexOf("=");
      return [Number(point.slice(0, at)), point.slice(at + 1)];
    });
    known.set(one, { points, text: one.textContent });
  }
  return known.get(one);
};

const nearest = (points, x) => {
  let best = 0;
  for (let at = 1; at < points.length; at += 1) {
    if (Math.abs(points[at][0] - x) < Math.abs(points[best][0] - x)) best = at;
  }
  return best;
};

const leave = () => {
  if (!here) return;
  here.plot.querySelector(".cursor")?.remove();
  for (const one of told(here.plot)) one.textContent = of(one).text;
  here = null;
};

const show = (plot, x) => {
  if (here && here.plot !== plot) leave();
  const all = told(plot);
  const chart = plot.querySelector(".chart");
  if (!chart || all.length === 0) return;
  const first = of(all[0]).points;
  const at = first[nearest(first, x)][0];
  for (const one of all) {
    const { points } = of(one);
    const [place, text] = points[nearest(points, at)];
    // Where a line is broken it has no value.
    one.textContent = Math.abs(place - at) < 12 ? text : "–";
  }
  const cursor = chart.querySelector(".cursor") ?? chart.appendChild(document.createElementNS(svg, "path"));
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("d", `M${at} 12V${chart.viewBox.baseVal.height - 24}`);
  here = { plot, x: at };
};

document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest?.(".plot");
  const chart = plot?.querySelector(".chart");
  const matrix = chart?.getScreenCTM();
  const x = matrix && new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse()).x;
  if (x >= 0) show(plot, x);
  else leave();
});

document.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const plot = document.activeElement?.closest?.(".plot");
  if (!by || plot !== document.activeElement || told(plot).length === 0) return;
  event.preventDefault();
  const { points } = of(told(plot)[0]);
  const from = here?.plot === plot ? nearest(points, here.x) + by : by > 0 ? 0 : points.length - 1;
  const at = points[Math.min(points.length - 1, Math.max(0, from))][0];
  show(plot, at);
  // A chart that is wider than the screen goes along.
  const box = plot.querySelector(".chart").getBoundingClientRect();
  plot.scrollLeft = (at / 720) * box.width - plot.clientWidth / 2;
});

document.addEventListener("focusout", leave);
// A live page puts other charts in the place of these; what was told goes on being told.
let kept = null;
document.addEventListener("replacing", () => {
  kept = here && { at: plots().indexOf(here.plot), x: here.x };
});
document.addEventListener("replaced", () => {
  const plot = kept && plots()[kept.at];
  if (here && !here.plot.isConnected) here = null;
  if (plot) show(plot, kept.x);
  kept = null;
});
