// Keeps a page current: the server sends it again by server-sent events whenever it has changed, and its
// <main> takes the place of the one shown, as far as it differs. Without JavaScript, "Read again" does the same.
// What comes waits while text is selected or typed and while the pointer is down. A hidden page closes its stream: browsers allow few of them.
"use strict";
const main = () => document.getElementById("main");
const typing = "input, textarea, select";

let stream, waiting, silence, again;
let pressed = false; // what is under the pointer must stay until it is let go, or the click is lost

// busy: to replace what is shown would disturb whoever reads it.
const busy = () => pressed || !document.getSelection().isCollapsed || (main().contains(document.activeElement) && document.activeElement.matches(typing));

// alive notes that the server has been heard from; a stream that falls silent is begun anew.
function alive(lost = false) {
  document.body.classList.toggle("lost", lost);
  clearTimeout(silence);
  silence = setTimeout(() => { alive(true); open(); }, 45_000);
}

// patch makes old look like next and leaves alone what is the same.
function patch(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeName !== next.nodeName || old.childNodes.length !== next.childNodes.length || old.childNodes.length === 0) {
    old.replaceWith(next);
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) old.setAttribute(name, value);
  const children = [...next.childNodes];
  [...old.childNodes].forEach((child, i) => patch(child, children[i]));
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
  patch(main(), document.adoptNode(next));
  patch(document.getElementById("read"), document.adoptNode(read));
  if (at >= 0 && document.activeElement === document.body) places(main())[at]?.focus({ preventScroll: true });
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
addEventListener("pointerdown", () => { pressed = true; });
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { pressed = false; setTimeout(show); }); // after the click
document.addEventListener("focusout", () => setTimeout(show));
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => { if (event.persisted) open(); });
open();
