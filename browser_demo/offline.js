/**
 * What an exported page starts with instead of page.js: its service worker (worker.js) first, which gives the page the
 * headers of an isolated one, for threads, and keeps what it used for the time without a network.
 */

const container = navigator.serviceWorker; // none without https, and in some private windows

async function controlled() {
  const { active } = await container.register("worker.js");
  await container.ready;
  // A worker that is new takes the page over; one that was there has it, unless the page was reloaded past it.
  if (!active && !container.controller) {
    await new Promise((resolve) => container.addEventListener("controllerchange", resolve, { once: true }));
  }
  // Its headers count from the next load on. Where they do not help, once is enough.
  if (!crossOriginIsolated && container.controller && !sessionStorage.reloaded) {
    sessionStorage.reloaded = "yes";
    location.reload();
    await new Promise(() => {});
  }
  delete sessionStorage.reloaded;
}

try {
  if (container) await controlled();
} catch (error) {
  console.warn(error); // the page works without, with one thread and a network
}
await import("./page.js");
