// A text that is too long is refused before it is sent, at its field: the page of the server's refusal has no form.
{
  const LARGEST = 900_000;
  // What is sent in an address has less room.
  const LONGEST_ADDRESS = 6_000;
  const bytes = (text) => new TextEncoder().encode(text).length;
  const refuse = (field, most) => {
    field.setCustomValidity(`This is too long: at most ${Math.floor(most / 1000)} kB are possible.`);
    field.addEventListener("input", () => field.setCustomValidity(""), { once: true });
    field.reportValidity();
  };
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "get" && form.enctype !== "application/x-www-form-urlencoded") return;
    const most = form.method === "get" ? LONGEST_ADDRESS : LARGEST;
    const fields = [...form.elements].filter(({ type }) => ["text", "textarea", "search", "url"].includes(type));
    const limited = fields.find(({ dataset, value }) => dataset.bytes && bytes(value) > dataset.bytes);
    const isLarge = new URLSearchParams(new FormData(form)).toString().length > most;
    if (!limited && !(isLarge && fields.length)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (limited) refuse(limited, limited.dataset.bytes);
    else refuse(fields.reduce((one, other) => (other.value.length > one.value.length ? other : one)), most);
  }, true);
}

// A field can contain characters that nobody sees, such as escape sequences in a script. They are kept, but not unnoticed.
{
  const HIDDEN = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/u;
  for (const field of document.querySelectorAll("textarea, input:not([type]), input[type=text]")) {
    if (!HIDDEN.test(field.value)) continue;
    const note = document.createElement("span");
    note.className = "hint";
    note.textContent = "This text contains characters that cannot be seen. They are saved as they are.";
    field.after(note);
  }
}

// Buttons that choose among the privileges of a form. Without scripts, they are hidden.
for (const button of document.querySelectorAll("[data-tick]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    for (const box of button.form.querySelectorAll("input[name=privileges]:enabled")) {
      box.checked = button.dataset.tick !== "none" && (box.checked || box.value.endsWith(".read"));
    }
  });
}

// Forms: what was typed is kept when a form is sent, because the session may have ended. The page of the form fills it in again
// after the login, for the same person and in the same tab. Passwords are not kept. Texts of policies have a script of their own.
{
  const KEY = "muster-form";
  const user = document.body.dataset.user;
  const keep = (form) => {
    try {
      if (form) sessionStorage.setItem(KEY, JSON.stringify(form));
      else sessionStorage.removeItem(KEY);
    } catch { /* Too large, or the browser stores nothing. */ }
  };
  const kept = () => {
    try { return JSON.parse(sessionStorage.getItem(KEY)); } catch { return null; }
  };
  const isTyped = ({ name, type }) => name && !["password", "file", "submit", "button", "image"].includes(type);
  const valuesOf = (form) => {
    const data = new FormData(form);
    const names = new Set([...form.elements].filter(isTyped).map(({ name }) => name));
    return [...names].map((name) => [name, data.getAll(name)]);
  };
  const fill = (form, all) => {
    const values = new Map(all);
    for (const element of [...form.elements].filter(isTyped)) {
      const known = values.get(element.name);
      if (!known) continue;
      if (["checkbox", "radio"].includes(element.type)) element.checked = known.includes(element.value);
      else if (element.type === "select-multiple") for (const option of element.options) option.selected = known.includes(option.value);
      else if (known.length) element.value = known.shift();
    }
    const note = document.createElement("p");
    note.className = "notice";
    note.setAttribute("role", "status");
    note.textContent = "This is what you sent before your session ended. It is not saved. Passwords have to be entered again.";
    form.before(note);
  };

  const sent = kept();
  if (document.querySelector("input[name=after_form]")) {
    if (sent) {
      keep({ ...sent, isEnded: true });
      document.getElementById("kept-form").hidden = false;
    }
  } else if (sent && (user || !sent.isEnded)) {
    const form = [...document.forms].find((one) => one.method === "post" && one.getAttribute("action") === sent.action);
    if (form && sent.isEnded && sent.user === user) fill(form, sent.values);
    // It has arrived, or belongs to somebody else.
    keep(undefined);
  }

  document.addEventListener("submit", ({ target: form }) => {
    if (!user || form.method !== "post") return;
    const { text, version } = form.elements;
    const hasOwn = text && version;
    const values = hasOwn || form.hasAttribute("data-log-out") ? [] : valuesOf(form);
    keep(values.length ? { user, action: form.getAttribute("action"), values } : undefined);
  });
}
