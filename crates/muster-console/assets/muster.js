// What all pages share. No inline handlers: the content security policy forbids them.
"use strict";

// A button with `data-copy` copies the text of the element with that id.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).innerText;
  await navigator.clipboard.writeText(text);
  const label = button.innerText;
  button.innerText = "Copied";
  setTimeout(() => { button.innerText = label; }, 2000);
});
