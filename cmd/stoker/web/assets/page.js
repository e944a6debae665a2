// Keeps a page current: the server sends it again by server-sent events whenever it has changed, and its
// <main> is put in the place of the one shown. Without JavaScript, "Read again" does the same. What comes waits
// while text is selected or typed. A hidden page closes its stream: browsers allow few of them.
"use strict";
const main = () => document.getElementById("main");
const typing = "input, textarea, select";

let stream, waiting, silence, again;

// busy: to replace what is shown would disturb whoever reads it.
const busy = () => !document.getSelection().isCollapsed || (main().contains(document.activeElement) && document.activeElement.matches(typing));

// alive notes that the server has been heard from; a stream that falls silent is begun anew.
function alive(lost = false) {
  document.body.classList.toggle("lost", lost);
  clearTimeout(silence);
  silence = setTimeout(() => { alive(true); open(); }, 45_000);
}

// show replaces what is shown by what came last, and keeps the keyboard's place and what is unfolded.
function show() {
  if (!waiting || busy()) return;
  const { next, read } = waiting;
  waiting = undefined;
  const places = (root) => [...root.querySelectorAll("a[href], button, summary, [tabindex]")];
  const at = places(main()).indexOf(document.activeElement);
  const unfolded = new Set([...main().querySelectorAll("details[open] > summary")].map((s) => s.textContent));
  for (const s of next.querySelectorAll("details > summary")) if (unfolded.has(s.textContent)) s.parentElement.open = true;
  main().replaceWith(document.adoptNode(next));
  document.getElementById("read").replaceWith(document.adoptNode(read));
  if (at >= 0) places(main())[at]?.focus({ preventScroll: true });
  if (!main().dataset.live) close();
}

function came(event) {
  const page = new DOMParser().parseFromString(event.data, "text/html");
  waiting = { next: page.getElementById("main"), read: page.getElementById("read") };
  alive();
  show();
}

function close() {
  stream?.close();
  clearTimeout(silence);
  clearTimeout(again);
}

function open() {
  close();
  if (!main()?.dataset.live || document.hidden) return; // what it shows will not change, or nobody looks
  stream = new EventSource(location.href);
  stream.addEventListener("page", came);
  stream.addEventListener("same", (event) => {
    const read = waiting?.read ?? document.getElementById("read");
    read.dateTime = event.data;
    read.textContent = event.data.replace("T", " ").replace("Z", " UTC");
    alive();
  });
  stream.addEventListener("wait", () => alive(true));
  stream.addEventListener("end", () => location.reload()); // to sign in again
  stream.addEventListener("error", () => {
    alive(true);
    if (stream.readyState === EventSource.CLOSED) again = setTimeout(open, 10_000); // refused: all streams are taken
  });
}

document.addEventListener("visibilitychange", open);
document.addEventListener("selectionchange", show);
document.addEventListener("focusout", () => setTimeout(show));
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => { if (event.persisted) open(); });
open();
