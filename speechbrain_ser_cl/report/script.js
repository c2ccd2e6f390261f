"use strict";

// Opens folded parts for printing.
const folded = () => document.querySelectorAll("details:not([open])");
addEventListener("beforeprint", () => {
  for (const details of folded()) {
    details.open = true;
    details.dataset.opened = "";
  }
});
addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details[data-opened]")) {
    details.open = false;
    delete details.dataset.opened;
  }
});

for (const figure of document.querySelectorAll(".map")) {
  const fields = JSON.parse(figure.dataset.fields);
  const rows = JSON.parse(figure.querySelector(".points").textContent);
  const legends = JSON.parse(figure.querySelector(".legends").textContent);
  const plot = figure.querySelector(".plot");
  const now = figure.querySelector(".now");
  const points = [...figure.querySelectorAll(".point")];
  const places = points.map((point) => [+point.getAttribute("x"), +point.getAttribute("y")]);
  const colours = 8;
  let field = Object.keys(legends)[0];
  let chosen = -1;

  const value = (row, name) => row[fields.indexOf(name)];

  function colour() {
    const values = legends[field];
    points.forEach((point, i) => {
      const old = [...point.classList].find((name) => /^f\d$/.test(name));
      point.classList.replace(old, "f" + (values.indexOf(value(rows[i], field)) % colours));
    });
    for (const legend of figure.querySelectorAll(".legend")) {
      legend.hidden = legend.dataset.field !== field;
    }
  }

  function choose(i) {
    chosen = i;
    const alike = i < 0 ? null : value(rows[i], field);
    // If a colour stands for several values, one value can be highlighted.
    plot.classList.toggle("dimmed", i >= 0 && legends[field].length > colours);
    points.forEach((point, j) => {
      point.classList.toggle("chosen", i === j);
      point.classList.toggle("alike", i >= 0 && value(rows[j], field) === alike);
    });
    if (i >= 0) {
      points[i].parentNode.append(points[i]); // above its neighbours
      const told = fields.map((name, k) => (rows[i][k] ? name + " " + rows[i][k] : ""));
      now.textContent = told.filter(Boolean).join(", ");
    }
  }

  function nearest(x, y, most) {
    let best = -1;
    let least = most;
    places.forEach(([px, py], i) => {
      const distance = Math.hypot(px - x, py - y);
      if (distance < least) {
        least = distance;
        best = i;
      }
    });
    return best;
  }

  // Finds the nearest point in a direction, first straight ahead.
  function next(dx, dy) {
    if (chosen < 0) return nearest(320, 320, Infinity);
    const [x, y] = places[chosen];
    let best = chosen;
    let least = Infinity;
    places.forEach(([px, py], i) => {
      const along = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (i !== chosen && along > 0 && along + 2 * aside < least) {
        least = along + 2 * aside;
        best = i;
      }
    });
    return best;
  }

  for (const radio of figure.querySelectorAll(".choice input")) {
    radio.addEventListener("change", () => {
      field = radio.value;
      colour();
      choose(chosen);
    });
  }
  const svg = plot.querySelector("svg");
  plot.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = at.matrixTransform(svg.getScreenCTM().inverse());
    choose(nearest(x, y, 15));
  });
  plot.addEventListener("pointerleave", () => choose(-1));
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) {
      event.preventDefault();
      choose(next(...steps[event.key]));
    } else if (event.key === "Escape") {
      choose(-1);
    }
  });
}
