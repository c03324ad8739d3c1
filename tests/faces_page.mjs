/**
 * Does with a photo of faces what a person does: `node faces_page.mjs MODULES CHROMIUM URL OUT PHOTO…`. Leaves screenshots
 * and saved photos in OUT and prints one line of JSON: what was seen of each photo.
 */

import { basename, join } from "node:path";
import { PATIENCE_MS, VIEWS, launch } from "./views.mjs";

const [modules, executablePath, url, out, ...photos] = process.argv.slice(2);
const browser = await launch(modules, executablePath);
const seen = {};

/** A photo in the page, once nothing is going on any more. */
async function opened(page, photo) {
  await page.locator("#file").setInputFiles(photo);
  await idle(page);
}
const idle = (page) => page.locator('#main[aria-busy="false"]').waitFor();
const status = (page) => page.locator("#status").textContent();
const rings = (page) =>
  page.locator(".ring").evaluateAll((all) =>
    all.map((ring) => ({
      box: ring.dataset.box.split(",").map(Number),
      on: ring.querySelector("button").ariaPressed === "true",
    })),
  );
async function saved(page, name) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#save").click()]);
  await download.saveAs(join(out, name));
  await idle(page);
  return download.suggestedFilename();
}

try {
  const page = await browser.newPage(VIEWS.desktop);
  page.setDefaultTimeout(PATIENCE_MS);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(url);
  await page.locator("#choose:enabled").waitFor();
  seen.isolated = await page.evaluate(() => crossOriginIsolated);
  seen.about = await page.locator("#about").textContent();
  for (const photo of photos) {
    const name = basename(photo).replace(/\.\w+$/, "");
    await opened(page, photo);
    const one = { status: await status(page), rings: await rings(page), canSave: await page.locator("#save").isVisible() };
    await page.screenshot({ path: join(out, `${name}-desktop.png`), fullPage: true });
    if (one.rings.length) {
      // All of them on, whatever was judged; then all but the first.
      const buttons = page.locator(".ring button");
      for (let i = 0; i < one.rings.length; i++) {
        if (one.rings[i].on) continue;
        await buttons.nth(i).evaluate((button) => button.click()); // another face's may lie on it
        await idle(page);
      }
      one.all = await saved(page, `${name}-all.png`);
      await buttons.first().evaluate((button) => button.click());
      await idle(page);
      one.without = await rings(page);
      if (one.rings.length > 1) await saved(page, `${name}-without.png`);
      one.told = await status(page);
    } else {
      await page.locator("#mark").click();
      one.asked = await status(page);
      await page.locator("#unmark").click();
      one.unmarked = await status(page);
      await page.locator("#mark").click();
      await page.locator("#square").press("ArrowRight");
      await page.locator("#side").fill("100");
      await page.screenshot({ path: join(out, `${name}-marking.png`), fullPage: true });
      await page.locator("#marked").click();
      await idle(page);
      one.marked = await rings(page);
      one.told = await status(page);
      await saved(page, `${name}-marked.png`);
    }
    seen[name] = one;
  }
  await page.locator("#again").click();
  await idle(page);
  await saved(page, "again.png");
  await page.locator("#fidelity").fill("1");
  await page.locator("#fidelity").dispatchEvent("change");
  await idle(page);
  seen.shown = await page.locator("#shown").textContent();
  await saved(page, "faithful.png");
  await page.locator("#colors").click();
  await idle(page);
  await saved(page, "colors.png");
  seen.errors = errors;
  await page.close();
  for (const [view, options] of Object.entries(VIEWS)) {
    const small = await browser.newPage(options);
    small.setDefaultTimeout(PATIENCE_MS);
    await small.goto(url);
    await small.locator("#choose:enabled").waitFor();
    await small.screenshot({ path: join(out, `start-${view}.png`), fullPage: true });
    await opened(small, photos[0]);
    await small.screenshot({ path: join(out, `faces-${view}.png`), fullPage: true });
    const overflow = await small.evaluate((width) => document.documentElement.scrollWidth - width, options.viewport.width);
    seen[view] = { overflow, camera: await small.locator("#shoot").isVisible() };
    await small.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
