/**
 * The service worker of an exported page: answers from what it kept, else from the network, and keeps that. The export
 * writes a first line with the `DIGEST` of all files: another export keeps its own.
 */

/* global DIGEST */
const OURS = `${self.registration.scope} `; // other pages of this site may keep something, too
const KEPT = OURS + DIGEST;
const SHELL = ["./", "offline.js", "style.css", "icon.svg", "app.webmanifest"]; // asked for before this worker answers
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => {
  const start = async () => {
    await (await caches.open(KEPT)).addAll(SHELL);
    await self.skipWaiting();
  };
  event.waitUntil(start());
});

self.addEventListener("activate", (event) => {
  const start = async () => {
    const older = (await caches.keys()).filter((name) => name.startsWith(OURS) && name !== KEPT);
    for (const name of older) await caches.delete(name);
    await self.clients.claim();
  };
  event.waitUntil(start());
});

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && url.startsWith(self.registration.scope)) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(KEPT);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return isolated(kept, request.url);
  const response = await fetch(request);
  // Where there is no room left the page needs the network again.
  if (response.status === 200) await cache.put(request, response.clone()).catch(() => {});
  return isolated(response, request.url);
}

/** `response` with the headers of an isolated page, and the type that WebAssembly is compiled while it comes by. */
function isolated(response, url) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  if (new URL(url).pathname.endsWith(".wasm")) headers.set("Content-Type", "application/wasm");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
