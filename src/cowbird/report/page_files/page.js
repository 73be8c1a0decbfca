"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Colors: as the system, light, dark.
  const themes = ["", "light", "dark"];
  const names = { "": "as the system", light: "light", dark: "dark" };
  const button = byId("theme");
  let theme = "";
  const showTheme = () => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.textContent = `Colors: ${names[theme]}`;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    showTheme();
  });

  // Notes that are folded are unfolded on paper.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details.paper:not([open])")];
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
  });

  // All rows: texts are numbers into a list of words.
  const { header, texts, words, rows } = JSON.parse(byId("data").textContent);
  const size = 50;
  const cells = rows.map((row) => row.map((cell, nth) => (texts[nth] ? words[cell] : cell === null ? "" : String(cell))));
  const plain = cells.map((row) => row.join(" ").toLowerCase());
  const grid = byId("grid");
  let found = cells;
  let first = 0;

  const makeRow = (values, kind) => {
    const line = document.createElement("tr");
    values.forEach((value, nth) => {
      const cell = document.createElement(kind);
      if (kind === "th") cell.scope = "col";
      if (!texts[nth]) cell.className = "number";
      cell.textContent = value;
      line.append(cell);
    });
    return line;
  };
  const showRows = () => {
    const last = Math.min(first + size, found.length);
    grid.tBodies[0].replaceChildren(...found.slice(first, last).map((row) => makeRow(row, "td")));
    byId("count").textContent = found.length ? `${first + 1} to ${last} of ${found.length} rows` : "No row holds these words";
    byId("back").disabled = first === 0;
    byId("next").disabled = last === found.length;
  };
  byId("search").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = cells.filter((_, nth) => wanted.every((word) => plain[nth].includes(word)));
    first = 0;
    showRows();
  });
  byId("back").addEventListener("click", () => { first = Math.max(0, first - size); showRows(); });
  byId("next").addEventListener("click", () => { if (first + size < found.length) first += size; showRows(); });
  byId("save").addEventListener("click", () => {
    // An apostrophe keeps spreadsheets from taking a text for a formula.
    const quote = (value, nth) => `"${(texts[nth] ? value.replace(/^(?=[=+\-@\t\r])/, "'") : value).replaceAll('"', '""')}"`;
    const lines = [header, ...found].map((row) => row.map(quote).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "rows.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  grid.tHead.append(makeRow(header, "th"));
  byId("explorer").hidden = false;
  showRows();
})();
