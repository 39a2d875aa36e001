"use strict";
// The list of contents marks the section in view; folded parts open for printing.
(() => {
  const links = [...document.querySelectorAll("nav a")];
  const sections = links.map(link => document.getElementById(link.hash.slice(1)));
  const up = document.querySelector(".up");
  let marked = null, waiting = false;

  function mark() {
    waiting = false;
    up.classList.toggle("away", scrollY < innerHeight / 2);
    const bottom = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
    const passed = sections.filter(section => section.getBoundingClientRect().top < innerHeight / 3);
    const index = bottom ? sections.length - 1 : Math.max(0, passed.length - 1);
    if (links[index] === marked || !links.length) return;
    if (marked) marked.removeAttribute("aria-current");
    marked = links[index];
    marked.setAttribute("aria-current", "true");
    const list = marked.closest("ol"), item = marked.parentElement;
    list.scrollTo({left: item.offsetLeft - list.offsetLeft - 24, top: item.offsetTop - list.offsetTop - 80});
  }

  addEventListener("scroll", () => {
    if (!waiting) requestAnimationFrame(mark);
    waiting = true;
  }, {passive: true});
  mark();

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach(part => { part.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach(part => { part.open = false; }));
})();
