"use strict";
// Everything is readable without this: it adds sorting, tabs and a copy button.
(function () {
  function valueOf(row, index) {
    const cell = row.cells[index];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  }

  function compare(one, other) {
    const numbers = typeof one === "number" && typeof other === "number";
    if (numbers) return one - other;
    if (typeof one === "number") return -1; // what is not known comes after what is
    if (typeof other === "number") return 1;
    return one.localeCompare(other, "en", { numeric: true });
  }

  function sortBy(table, index, header) {
    const body = table.tBodies[0], rising = header.getAttribute("aria-sort") !== "ascending";
    const known = [], unknown = [], numeric = header.classList.contains("number");
    for (const row of body.rows) {
      (numeric && typeof valueOf(row, index) !== "number" ? unknown : known).push(row);
    }
    known.sort((a, b) => compare(valueOf(a, index), valueOf(b, index)) * (rising ? 1 : -1));
    body.append(...known, ...unknown);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  }

  for (const table of document.querySelectorAll("table.data")) {
    Array.from(table.tHead.rows[0].cells).forEach((header, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      header.replaceChildren(button);
      button.addEventListener("click", () => sortBy(table, index, header));
    });
  }

  for (const tabs of document.querySelectorAll(".tabs")) {
    const panels = Array.from(tabs.querySelectorAll(":scope > .panel"));
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", tabs.dataset.label);
    const buttons = panels.map((panel) => {
      const button = document.createElement("button");
      const title = panel.querySelector("h3"), count = document.createElement("span");
      count.className = "count";
      count.textContent = panel.dataset.count;
      button.type = "button";
      button.id = panel.id + "-tab";
      button.setAttribute("role", "tab");
      button.setAttribute("aria-controls", panel.id);
      button.append(title.textContent, " ", count);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", button.id);
      panel.tabIndex = 0;
      list.append(button);
      return button;
    });

    function show(index, focus) {
      buttons.forEach((button, i) => {
        button.setAttribute("aria-selected", String(i === index));
        button.tabIndex = i === index ? 0 : -1;
        panels[i].classList.toggle("closed", i !== index);
      });
      if (focus) buttons[index].focus();
    }

    buttons.forEach((button, index) => {
      button.addEventListener("click", () => show(index, false));
      button.addEventListener("keydown", (event) => {
        const last = buttons.length - 1;
        const next = { ArrowRight: index === last ? 0 : index + 1, ArrowLeft: index ? index - 1 : last, Home: 0, End: last };
        if (event.key in next) {
          event.preventDefault();
          show(next[event.key], true);
        }
      });
    });
    if (!buttons.length) continue;
    tabs.classList.add("ready");
    tabs.prepend(list);
    show(Math.max(0, panels.findIndex((panel) => panel.dataset.count !== "0")), false);
  }

  addEventListener("beforeprint", () => {
    for (const more of document.querySelectorAll("details")) more.open = true;
  });

  for (const block of document.querySelectorAll("pre.command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const text = block.querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(block.querySelector("code"));
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    block.before(button);
  }
})();
