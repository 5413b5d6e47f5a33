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
