// What all pages share. No inline handlers: the content security policy forbids them. Every page works without this file.
"use strict";

// A button with `data-copy` copies the text of the element with that id. Browsers offer the clipboard only to pages of
// this host and over HTTPS; elsewhere the text is selected, so that one key copies it.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.innerText);
    announce(button, "Copied");
  } catch {
    getSelection().selectAllChildren(source);
    announce(button, "Selected");
  }
});

function announce(button, text) {
  button.dataset.label ??= button.innerText;
  button.innerText = text;
  setTimeout(() => { button.innerText = button.dataset.label; }, 2000);
}

// Menus close with Escape, with a click beside them, and when the focus leaves them.
const closeMenus = (except) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(except)) menu.open = false;
  }
};
document.addEventListener("click", (event) => closeMenus(event.target));
document.addEventListener("focusin", (event) => closeMenus(event.target));
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.activeElement?.closest("details.menu[open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});

// A part of a page that is renewed keeps the focus, on what has the same address or name as before. htmx itself does so for
// elements with an id.
{
  let mark;
  const alike = (part, element) => {
    const name = ["href", "name", "aria-label"].find((one) => element.getAttribute(one));
    const value = element.getAttribute("value");
    const other = `[value=${CSS.escape(value ?? "")}]`;
    const selector = name ? `[${name}="${CSS.escape(element.getAttribute(name))}"]${value === null ? "" : other}` : element.localName;
    return [selector, [...part.querySelectorAll(selector)]];
  };
  document.addEventListener("htmx:beforeSwap", ({ detail: { target } }) => {
    const { activeElement } = document;
    if (activeElement.id || !target.contains(activeElement)) return;
    const [selector, all] = alike(target, activeElement);
    mark = { id: target.id, selector, index: all.indexOf(activeElement) };
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (!mark || document.activeElement !== document.body) return;
    const found = document.getElementById(mark.id)?.querySelectorAll(mark.selector);
    found?.[mark.index]?.focus({ preventScroll: true });
    mark = undefined;
  });
}

// A lost connection is shown until a request succeeds again; lists that renew themselves keep asking. Until then, buttons
// that save something are disabled: what was typed would be lost with the page.
const showLost = (isLost) => {
  document.getElementById("lost").hidden = !isLost;
  for (const button of document.querySelectorAll(isLost ? "button:enabled" : "button[data-lost]")) {
    if (!isLost) {
      button.disabled = false;
      delete button.dataset.lost;
    } else if (button.type === "submit" && isSaved(button)) {
      button.disabled = true;
      button.dataset.lost = "";
    }
  }
};
const isSaved = (button) => (button.getAttribute("formmethod") ?? button.form?.method) === "post";
document.addEventListener("htmx:sendError", () => showLost(true));
document.addEventListener("htmx:timeout", () => showLost(true));
document.addEventListener("htmx:afterRequest", (event) => { if (hasAnswered(event.detail.xhr)) showLost(false); });
addEventListener("offline", () => showLost(true));
addEventListener("online", () => ask());
// Proxies answer like this for a server that they cannot reach.
const hasAnswered = (answer) => answer?.status > 0 && !(answer.status >= 502 && answer.status <= 504);
// Lost connections are on the page, so htmx need not report them as errors of the script.
if (window.htmx) {
  const reported = ["htmx:sendError", "htmx:timeout", "htmx:sendAbort", "htmx:afterRequest"];
  htmx.logger = (_, name, detail) => { if (reported.includes(name)) delete detail.error; };
}
// Pages without lists ask, too. A server that accepts connections but does not answer in time counts as lost.
const ownScript = document.currentScript.src;
const ask = async () => {
  if (document.hidden) return;
  try {
    const request = { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(5000) };
    showLost(!hasAnswered(await fetch(ownScript, request)));
  } catch {
    showLost(true);
  }
};
setInterval(ask, 10000);
document.addEventListener("visibilitychange", ask);

// A click on a time, or the key t, shows all times of the page in the person's time zone, and again as the time since then.
{
  let isAbsolute = false;
  const swapTimes = (part) => {
    for (const time of part.querySelectorAll("time[title]")) [time.title, time.textContent] = [time.textContent, time.title];
  };
  const toggle = () => { isAbsolute = !isAbsolute; swapTimes(document); };
  document.addEventListener("click", ({ target }) => {
    if (target.closest("main time[title]") && !target.closest("a, button, summary, label")) toggle();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select");
    if (event.key === "t" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) toggle();
  });
  document.addEventListener("htmx:afterSwap", ({ detail: { target } }) => {
    // The part itself is replaced; what is there now has its id.
    if (isAbsolute) swapTimes(document.getElementById(target.id) ?? target);
  });
}

// A field with `data-zones` suggests the time zones that the browser knows.
for (const field of document.querySelectorAll("[data-zones]")) {
  const list = document.getElementById(field.dataset.zones);
  for (const zone of ["UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])]) list.append(new Option(zone, zone));
}

// A table that is no wider than the page is scrolled with the page, so that its head can stay at the top of the window.
const fit = () => {
  for (const box of document.querySelectorAll("main .scroll")) box.classList.toggle("fits", box.scrollWidth <= box.clientWidth);
};
addEventListener("resize", fit);
document.addEventListener("htmx:afterSwap", fit);
fit();

// A page that shows what a form has created comes in answer to the form. It gets an address of its own, which can be reloaded
// and shared; reloading never creates another key or token.
{
  const address = document.querySelector("[data-address]")?.dataset.address;
  if (address) history.replaceState(null, "", address);
}

// After a form was rejected, the focus is on the field that is wrong; without one, the message above the form has it.
document.querySelector("main [aria-invalid=true]:not([type=hidden])")?.focus();
