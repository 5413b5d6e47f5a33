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
