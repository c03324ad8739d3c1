/**
 * Opens an exported page, and once more without its server: `node offline.mjs MODULES CHROMIUM URL`. Waits for a line on
 * stdin after the first line of JSON, so that the server can go; prints what was seen each time.
 */

import { once } from "node:events";
import { PATIENCE_MS, launch } from "./views.mjs";

const [modules, executablePath, url] = process.argv.slice(2);
const browser = await launch(modules, executablePath);

/** Restore the sample and say how. */
async function seen(page) {
  await page.locator("#sample:enabled").waitFor();
  await page.locator("#sample").click();
  await page.locator("#compare").waitFor();
  await page.locator('#main[aria-busy="false"]').waitFor();
  return page.evaluate(() => ({
    isolated: crossOriginIsolated,
    status: document.getElementById("status").textContent,
    problem: document.getElementById("problem").textContent,
  }));
}

try {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(url);
  const first = await seen(page);
  const { installabilityErrors } = await (await context.newCDPSession(page)).send("Page.getInstallabilityErrors");
  console.log(JSON.stringify({ ...first, installabilityErrors }));
  await once(process.stdin, "data");
  await page.reload();
  console.log(JSON.stringify(await seen(page)));
} finally {
  await browser.close();
  process.stdin.destroy();
}
