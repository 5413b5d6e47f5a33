// Policies: line numbers of the editor, and links from a problem to its place in the text.
document.querySelectorAll("[data-lines-of]").forEach((gutter) => {
  const text = document.getElementById(gutter.dataset.linesOf);
  const number = () => {
    const count = text.value.split("\n").length;
    if (Number(gutter.dataset.count) !== count) {
      gutter.textContent = Array.from({ length: count }, (_, line) => line + 1).join("\n");
      gutter.dataset.count = count;
    }
    gutter.scrollTop = text.scrollTop;
  };
  text.addEventListener("input", number);
  text.addEventListener("scroll", number);
  number();
});
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-line]");
  if (!link) return;
  event.preventDefault();
  const text = document.getElementById("text");
  const lines = text.value.split("\n").slice(0, link.dataset.line - 1);
  const place = lines.reduce((sum, line) => sum + line.length + 1, 0) + Number(link.dataset.column) - 1;
  text.focus();
  text.setSelectionRange(place, place);
  text.scrollTop = Math.max(0, (lines.length - 3) * parseFloat(getComputedStyle(text).lineHeight));
});

// A form with the text of a policy is kept when it is sent, because the session may have ended: the editor fills the text in
// again after the login, for the same person and in the same tab. Secrets are not kept.
{
  const KEY = "muster-draft";
  const user = document.body.dataset.user;
  const keep = (draft) => {
    try {
      if (draft) sessionStorage.setItem(KEY, JSON.stringify(draft));
      else sessionStorage.removeItem(KEY);
    } catch { /* Too large, or the browser stores nothing. */ }
  };
  const kept = () => {
    try { return JSON.parse(sessionStorage.getItem(KEY)); } catch { return null; }
  };
  // Path of the policy that a form is about.
  const policyOf = (form) => {
    const path = new URL(form.getAttribute("action") ?? "", location.href).pathname;
    const [, base, id] = path.match(/^(.*)\/(?:policies\/([^/]+)\/(?:edit|save)|rollouts(?:\/new)?)$/) ?? [];
    const policy = id ?? form.elements.policy?.value;
    return base !== undefined && policy ? `${base}/policies/${policy}` : undefined;
  };

  const draft = kept();
  if (document.querySelector("input[name=after_form]")) {
    if (draft) {
      keep({ ...draft, isEnded: true });
      // The server adds the path under which it is published.
      const published = new URL(ownScript).pathname.split("/assets/")[0];
      document.querySelector("input[name=return_to]").value = `${draft.policy.slice(published.length)}/edit`;
      document.getElementById("kept").hidden = false;
    }
  } else if (draft && (!draft.isEnded || (user && user !== draft.user))) {
    // It has arrived, or belongs to somebody else.
    keep(undefined);
  }

  document.addEventListener("submit", (event) => {
    const { elements } = event.target;
    const policy = elements.text && elements.version && policyOf(event.target);
    if (policy) {
      keep({ user, policy, text: elements.text.value, version: elements.version.value, revision: elements.revision?.value });
    } else if (event.target.hasAttribute("data-log-out")) {
      keep(undefined);
    }
  });

  const text = document.querySelector("textarea[data-policy]");
  if (text) {
    const { elements } = text.form;
    if (draft?.isEnded && draft.user === user && draft.policy === text.dataset.policy) {
      text.value = draft.text;
      // The text is based on this version: what others have saved since is not overwritten.
      elements.version.value = draft.version;
      if (elements.revision) elements.revision.value = draft.revision;
      text.dispatchEvent(new Event("input"));
      document.getElementById("restored").hidden = false;
    }
    let isLeaving = false;
    text.form.addEventListener("submit", () => { isLeaving = true; });
    addEventListener("pageshow", () => { isLeaving = false; });
    addEventListener("beforeunload", (event) => {
      const isUnsaved = text.value !== text.defaultValue || "unsaved" in text.dataset;
      if (isUnsaved && !isLeaving) event.preventDefault();
    });
    document.addEventListener("click", (event) => {
      if (!event.target.closest("[data-discards]")) return;
      isLeaving = true;
      keep(undefined);
    });
  }
}
