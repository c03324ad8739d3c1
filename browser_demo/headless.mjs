/**
 * Opens the page on a job file in headless Chromium: `node headless.mjs MODULES CHROMIUM URL`.
 *
 * MODULES is the folder of `node_modules`. Prints a line of JSON with `done`, `of` and `what` whenever that changes; ends
 * with exit code 0 once the page has put its result, with 1 and one line on stderr if it could not.
 */

import { createRequire } from "node:module";
import { join } from "node:path";

const POLL_MS = 250;
const [modules, executablePath, url] = process.argv.slice(2);
const { chromium } = createRequire(join(modules, "index.js"))("playwright-core");

// Whoever asked for this is gone: so are its results.
const parent = process.ppid;
setInterval(() => process.ppid === parent || process.exit(1), 1000).unref();

// Chromium's own sandbox cannot be set up by root: devices/browser.py runs this as somebody else if it can.
// A machine without a GPU has WebGPU in software.
const args = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const browser = await chromium.launch({ executablePath, args, chromiumSandbox: process.getuid?.() !== 0 });
try {
  const page = await browser.newPage();
  let [crashed, last] = [null, ""];
  page.on("crash", () => (crashed = "the page crashed, most often for want of memory"));
  page.on("pageerror", (error) => (crashed = error.message));
  await page.goto(url);
  for (;;) {
    if (crashed) throw new Error(crashed);
    const { problem, finished, ...now } = await page.evaluate(() => {
      const [progress, status, problem] = ["progress", "status", "problem"].map((id) => document.getElementById(id));
      const what = status.textContent;
      const finished = document.documentElement.dataset.job === "done";
      const said = problem.hidden ? null : problem.textContent;
      return { done: progress.value, of: progress.max, what, problem: said, finished };
    });
    if (problem) throw new Error(problem);
    if (finished) break;
    const line = JSON.stringify(now);
    if (line !== last) console.log(line);
    last = line;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
} catch (error) {
  console.error(error.message.split("\n")[0]);
  process.exitCode = 1;
} finally {
  await browser.close();
}
