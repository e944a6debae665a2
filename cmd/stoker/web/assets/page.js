// Keeps a page current: every few seconds it is read again and its <main> replaced. Without
// JavaScript, "Read again" does the same. It waits while the page is hidden, text is selected,
// or something inside is in use.
"use strict";
const main = () => document.getElementById("main");
const seconds = () => Number(main()?.dataset.refresh ?? 0); // 0: what it shows will not change

const busy = () =>
  document.hidden ||
  !document.getSelection().isCollapsed ||
  main().contains(document.activeElement);

async function refresh() {
  if (!busy()) {
    const read = document.getElementById("read");
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(10_000) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!busy()) {
        main().replaceWith(document.adoptNode(page.getElementById("main")));
        read.replaceWith(document.adoptNode(page.getElementById("read")));
      }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    }
  }
  again();
}

function again() {
  if (seconds() > 0) setTimeout(refresh, seconds() * 1000);
}

again();
