// What a reader does in a report: each function returns what was seen.

function charts() {
  const found = [...document.querySelectorAll("svg[role=img]")].map((svg) => {
    const box = svg.getBoundingClientRect();
    return [svg.querySelector("title").textContent, box.width, box.height];
  });
  return {
    charts: found,
    tables: document.querySelectorAll("table").length,
    wide: document.documentElement.scrollWidth - window.innerWidth,
  };
}

function map() {
  const seen = { told: [] };
  const plot = document.querySelector(".plot");
  const status = document.querySelector(".now");
  const points = [...document.querySelectorAll(".point")];
  const colours = () => points.map((point) => point.classList[1]);
  const press = (key) =>
    plot.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  seen.before = colours();
  plot.focus();
  seen.focused = document.activeElement === plot;
  for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"]) {
    press(key);
    seen.told.push(status.textContent);
  }
  seen.chosen = document.querySelectorAll(".point.chosen").length;
  press("Escape");
  seen.left = document.querySelectorAll(".point.chosen").length;
  const box = points[2].getBoundingClientRect();
  const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 2];
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
  seen.pointed = status.textContent;
  document.querySelector(".choice input[value=speaker]").click();
  seen.after = colours();
  seen.dimmed = plot.classList.contains("dimmed");
  seen.alike = document.querySelectorAll(".point.alike").length;
  seen.legends = [...document.querySelectorAll(".legend")].map((legend) => [
    legend.dataset.field,
    legend.hidden,
  ]);
  return seen;
}

// Contrast of text with its ground, WCAG 2.2: the least of all elements of a kind.
function contrast() {
  const numbers = (text) => {
    const found = text.match(/[\d.]+/g).slice(0, 3).map(Number);
    return text.startsWith("color(") ? found : found.map((value) => value / 255);
  };
  const luminance = (text) => {
    const [r, g, b] = numbers(text).map((value) =>
      value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4
    );
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const own = getComputedStyle(element).backgroundColor;
    return own === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : own;
  };
  const kinds = ["body", ".kicker", "a", "p", ".caption", "figcaption", "dt", "th"];
  kinds.push(".confusion .hit", ".warning", "summary", "svg text", ".tick", ".f1");
  const least = {};
  for (const kind of kinds) {
    for (const element of document.querySelectorAll(kind)) {
      const style = getComputedStyle(element);
      const colour = element instanceof SVGElement ? style.fill : style.color;
      const both = [luminance(colour), luminance(ground(element))];
      const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
      least[kind] = Math.min(least[kind] ?? Infinity, ratio);
    }
  }
  return least;
}

function paper() {
  const open = () => [...document.querySelectorAll("details")].map((d) => d.open);
  const folded = open();
  dispatchEvent(new Event("beforeprint"));
  const printed = open();
  dispatchEvent(new Event("afterprint"));
  return { folded, printed, again: open() };
}

async function sound() {
  const audio = document.querySelector("audio");
  await new Promise((done, fail) => {
    audio.oncanplay = done;
    audio.onerror = () => fail(audio.error.message);
    audio.preload = "auto";
    audio.load();
  });
  return audio.duration;
}
