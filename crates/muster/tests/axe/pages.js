// Finds an address of every page, for tests and screenshots. The paths come from the router (`/ui/kit` of debug builds); for those
// with an id, a link on another page provides one. Calls `done` with `pages`, a list of addresses, and `missing`, the paths of
// pages that no link leads to.
(async () => {
  const read = async (path) => {
    const response = await fetch(path);
    const is_page = (response.headers.get("content-type") ?? "").startsWith("text/html");
    const text = is_page ? await response.text() : "";
    return { status: response.status, is_page, page: new DOMParser().parseFromString(text, "text/html") };
  };
  const patterns = [...(await read("/ui/kit")).page.querySelectorAll("#paths code")].map((code) => code.textContent);
  const fits = (pattern, path) => {
    const [wanted, found] = [pattern.split("/"), path.split("/")];
    return wanted.length === found.length && wanted.every((word, at) => word.startsWith("{") || word === found[at]);
  };
  // A path without an id comes before those that would take its last word for one.
  const pattern_of = (path) => (patterns.includes(path) ? path : patterns.find((pattern) => fits(pattern, path)));
  // Some objects lack what others have, such as built-in roles, which cannot be deleted: their links are followed too.
  const most = 12;
  const visited = new Map();
  const pages = [];
  // This page needs a selection.
  const open = patterns.filter((pattern) => !pattern.includes("{")).map((path) => (path === "/agents/bulk" ? path + "?of=all" : path));
  for (let at = 0; at < open.length; at += 1) {
    const path = open[at];
    const pattern = pattern_of(path.split("?")[0]);
    const times = visited.get(pattern) ?? 0;
    const has_more = patterns.some((one) => !visited.has(one) && one.startsWith(`${pattern}/`));
    if (times === most || (times > 0 && !has_more)) continue;
    visited.set(pattern, times + 1);
    const { status, is_page, page } = await read(path);
    // Forms are sent to some paths that have no page, and others are downloads.
    if (status === 405 || !is_page) continue;
    if (times === 0) pages.push(path);
    for (const link of page.querySelectorAll("a[href^='/']:not([href^='/s/'])")) {
      const url = new URL(link.getAttribute("href"), location);
      const known = pattern_of(url.pathname);
      // These pages say in their parameters what is to be confirmed.
      const is_question = ["/policies/{id}/rollback", "/rollouts/{id}/confirm"].includes(known);
      const to = url.pathname + (is_question ? url.search : "");
      if (known && (visited.get(known) ?? 0) < most && !open.includes(to)) open.push(to);
    }
  }
  // What a form is sent to shows the editor after a login, and has no link.
  const saved = pages.find((path) => pattern_of(path) === "/policies/{id}/edit");
  if (saved) visited.set("/policies/{id}/save", 1);
  const missing = [];
  for (const pattern of patterns.filter((one) => !visited.has(one))) {
    if ((await read(pattern.replaceAll(/\{\w+\}/g, "x"))).status !== 405) missing.push(pattern);
  }
  done({ pages, missing });
})();
