"use strict";
// Waits for the charts, switches a name off, sorts a table, and says what the reader would see.
(async () => {
  const charts = () => [...document.querySelectorAll(".plot")];
  const shown = () => charts().map((place) => place.data.filter((t) => t.visible !== false).length);
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  while (document.documentElement.dataset.charts !== "drawn") await wait(50);
  const before = shown();
  document.querySelector(".names button").click();
  await wait(300);
  const rows = () => [...document.querySelectorAll("tbody tr")];
  const order = () => rows().map((row) => row.cells[0].textContent.trim()).join("");
  const heading = document.querySelectorAll("thead th")[1];
  heading.click();
  const up = order();
  heading.click();
  const { scrollWidth, clientWidth } = document.documentElement;
  const ink = charts()[0].layout.font.color;
  const told = { before, after: shown(), up, down: order(), wide: scrollWidth > clientWidth + 1, ink };
  document.body.dataset.told = JSON.stringify(told);
})();
