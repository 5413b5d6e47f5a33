// Agents: completions of queries, selection, keys. Everything works without it.
(() => {
  const list = () => document.getElementById("list");
  const boxes = () => [...document.querySelectorAll("[data-rows] input[type=checkbox]")];

  // A list is not renewed while rows are selected: the selection would be lost.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target === list() && boxes().some((box) => box.checked)) event.preventDefault();
  });

  // A box in the head selects all rows, and the button says how many are selected.
  const prepare = () => {
    const head = document.querySelector("[data-rows] [data-all]");
    if (!head || head.querySelector("input")) return;
    head.append(Object.assign(document.createElement("input"), { type: "checkbox", ariaLabel: "Select all agents on this page" }));
    count();
  };
  const rows = () => boxes().filter((box) => box.name);
  const count = () => {
    const button = document.querySelector("[data-selection] button[value=chosen]");
    if (!button) return;
    const number = rows().filter((box) => box.checked).length;
    button.disabled = number === 0;
    const head = document.querySelector("[data-rows] [data-all] input");
    if (head) {
      head.checked = number > 0 && number === rows().length;
      head.indeterminate = number > 0 && !head.checked;
    }
    button.innerText = number === 0 ? "Act on the selected agents" : `Act on ${number} selected ${number === 1 ? "agent" : "agents"}`;
  };
  document.addEventListener("change", (event) => {
    if (event.target.closest("[data-all]")) for (const box of rows()) box.checked = event.target.checked;
    if (event.target.closest("[data-rows]")) count();
  });
  document.addEventListener("htmx:afterSwap", prepare);
  prepare();

  const q = document.querySelector("[data-suggest]");
  let timer;
  q?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const answer = await fetch(`${q.dataset.suggest}?q=${encodeURIComponent(q.value)}`).catch(() => null);
      // A session that has ended leads to the login page, which is no list.
      const isList = answer?.ok && answer.headers.get("content-type")?.startsWith("application/json");
      if (!isList) return;
      const options = (await answer.json()).map((text) => Object.assign(document.createElement("option"), { value: text }));
      document.getElementById(q.getAttribute("list")).replaceChildren(...options);
    }, 150);
  });

  // j and k move between rows, x selects, Enter opens the agent, / goes to the filter.
  let row = -1;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const rows = boxes().filter((box) => box.name);
    const chosen = event.target.closest("[data-rows] tbody input[type=checkbox]");
    if (event.key === "Enter" && chosen) {
      // Otherwise, it would send the form.
      event.preventDefault();
      chosen.closest("tr").querySelector("a[href]")?.click();
    } else if (event.key === "/" && q) {
      event.preventDefault();
      q.focus();
    } else if (rows.length && (event.key === "j" || event.key === "k")) {
      row = Math.max(0, Math.min(rows.length - 1, row + (event.key === "j" ? 1 : -1)));
      rows[row].focus();
    } else if (event.key === "x" && document.activeElement !== rows[row]) {
      rows[row]?.click();
    } else if (event.key === "x") {
      document.activeElement.click();
    }
  });
})();
