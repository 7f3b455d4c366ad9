"use strict";
// A click on a heading sorts its table; a second click turns the order round.
document.querySelectorAll("table").forEach((table) => {
  const body = table.tBodies[0];
  const number = /^[−+-]?\d[\d,]*(\.\d+)?(?=$|[\s%[±])/;
  const keyOf = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const found = text.match(number);
    return { text, value: found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : NaN };
  };
  const compare = (a, b, direction) => {
    if (!Number.isNaN(a.value) && !Number.isNaN(b.value)) return direction * (a.value - b.value);
    if (Number.isNaN(a.value) !== Number.isNaN(b.value)) return Number.isNaN(a.value) ? 1 : -1;
    return direction * a.text.localeCompare(b.text);
  };
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    heading.tabIndex = 0;
    const sort = () => {
      const direction = heading.ariaSort === "ascending" ? -1 : 1;
      [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
      heading.ariaSort = direction === 1 ? "ascending" : "descending";
      const keyed = [...body.rows].map((row) => [keyOf(row, column), row]);
      keyed.sort((a, b) => compare(a[0], b[0], direction));
      keyed.forEach(([, row]) => body.append(row));
    };
    heading.addEventListener("click", sort);
    heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
});
