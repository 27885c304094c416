"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((th, col) => th.addEventListener("click", () => {
    const number = th.classList.contains("num");
    // Numbers start with the largest; a second click turns the order round.
    const was = th.getAttribute("aria-sort");
    const up = was ? was === "descending" : !number;
    const key = tr => number ? parseFloat(tr.cells[col].dataset.v) : tr.cells[col].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (!number) return (up ? 1 : -1) * x.localeCompare(y, "en", { numeric: true });
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y); // what was not measured stays last
      return up ? x - y : y - x;
    });
    heads.forEach(h => h.removeAttribute("aria-sort"));
    th.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }));
}
for (const input of document.querySelectorAll("input.filter")) {
  const scope = input.parentElement;
  input.addEventListener("input", () => {
    const want = input.value.toLowerCase();
    for (const e of scope.querySelectorAll("tbody tr, .card")) {
      e.hidden = !e.textContent.toLowerCase().includes(want);
    }
  });
}
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
