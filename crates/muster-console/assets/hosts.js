// A live query: the server says when hosts have answered, and the page then asks for the rows. Without this, it asks every two
// seconds, as it does when the server has no place for another stream.
{
  const results = document.querySelector("[data-stream]");
  if (results && window.EventSource && window.htmx) {
    const stream = new EventSource(results.dataset.stream);
    const renew = () => htmx.trigger("#results", "answered");
    stream.addEventListener("progress", renew);
    stream.addEventListener("end", () => { stream.close(); renew(); });
  }
}

// The upload of an installer, in blocks. A block that fails is sent again; the same block twice changes nothing. A package that
// cannot be completed is deleted.
{
  const form = document.getElementById("upload");
  const ATTEMPTS = 4;
  const FIELDS = { file_name: "file", size: "file", body: "file", number: "file", sha256: "file" };
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // Returns the body of a response. Throws the error of the server, or of the network, which may pass.
  const call = async (method, url, body, type) => {
    let response;
    try {
      response = await fetch(url, { method, body, headers: type ? { "content-type": type } : {} });
    } catch {
      throw { message: "the server cannot be reached", passes: true };
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    if (response.status === 401) throw { message: "your session has ended: log in in another tab, then upload again" };
    throw { message: `the server responds with ${response.status}`, ...answer, passes: response.status === 429 || response.status >= 500 };
  };
  const insist = async (...request) => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await call(...request);
      } catch (error) {
        if (!error.passes || attempt === ATTEMPTS) throw error;
        await pause(1000 * attempt);
      }
    }
  };

  const show = (error) => {
    const name = FIELDS[error.field] || error.field;
    const [input, place] = [form.elements[name], document.getElementById(`problem-${name}`)];
    const text = String(error.message).replace(`${error.field}: `, "") + (error.remedy ? `; ${error.remedy}` : "");
    if (place && input) {
      place.textContent = text;
      place.hidden = false;
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", place.id);
      input.focus();
    } else {
      const box = document.getElementById("upload-error");
      box.firstElementChild.textContent = text.charAt(0).toUpperCase() + text.slice(1);
      box.hidden = false;
      box.focus();
    }
  };
  const clear = () => {
    document.getElementById("upload-error").hidden = true;
    for (const place of form.querySelectorAll(".problem")) place.hidden = true;
    for (const input of form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  };

  const upload = async (file, progress) => {
    const request = { file_name: file.name, size: file.size };
    for (const { name, value } of form.querySelectorAll("input:not([type=file]), select, textarea")) {
      if (value.trim()) request[name] = value.replaceAll("\r\n", "\n");
    }
    const { endpoint, list } = form.dataset;
    const block = Number(form.dataset.block);
    const { item } = await call("POST", endpoint, JSON.stringify(request), "application/json");
    const path = `${endpoint}/${item.id}`;
    try {
      for (let number = 0; number * block < file.size; number += 1) {
        const part = file.slice(number * block, (number + 1) * block);
        await insist("PUT", `${path}/blocks/${number}`, part, "application/octet-stream");
        progress(Math.min(1, ((number + 1) * block) / file.size));
      }
      await insist("POST", `${path}/complete`, "{}", "application/json");
    } catch (error) {
      await call("DELETE", path).catch(() => {});
      throw error;
    }
    return `${list}/${item.id}`;
  };

  if (form) {
    const [button, state] = [document.getElementById("send"), document.getElementById("sending")];
    const stay = (event) => event.preventDefault();
    button.disabled = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      clear();
      button.disabled = true;
      state.hidden = false;
      addEventListener("beforeunload", stay);
      const progress = (part) => {
        state.querySelector("progress").value = part;
        state.querySelector("span").textContent = `${Math.floor(part * 100)}%`;
      };
      let done;
      try {
        progress(0);
        done = await upload(form.elements.file.files[0], progress);
      } catch (error) {
        show(error);
      } finally {
        removeEventListener("beforeunload", stay);
        button.disabled = false;
        state.hidden = true;
      }
      if (done) location.assign(done);
    });
  }
}
