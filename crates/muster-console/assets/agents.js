// Agents: completions of queries, selection, keys. Everything works without it.
(() => {
  const list = () => document.getElementById("list");
  const boxes = () => [...document.querySelectorAll("[data-rows] input[type=checkbox]")];

  // A list is not renewed while rows are selected: the selection would be lost.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target === list() && boxes().some((box) => box.checked)) event.preventDefault();
  });

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

  // j and k move between rows, x selects, / goes to the filter.
  let row = -1;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const rows = boxes();
    if (event.key === "/" && q) {
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

// The page of a new enrollment key comes in answer to a form. Its own address can be reloaded and shared.
{
  const address = document.querySelector("[data-address]")?.dataset.address;
  if (address) history.replaceState(null, "", address);
}
