/**
 * Does with photos and a bundle for photographs what a person does: `node photo_page.mjs MODULES CHROMIUM URL OUT PHOTO…`,
 * the first photo the one that is stopped midway. Leaves screenshots and saved photos in OUT and prints one line of JSON:
 * what was seen.
 */

import { basename, join } from "node:path";
import { PATIENCE_MS, VIEWS, launch } from "./views.mjs";

const [modules, executablePath, url, out, ...photos] = process.argv.slice(2);
const browser = await launch(modules, executablePath);
const idle = (page) => page.locator('#main[aria-busy="false"]').waitFor();
const seen = { photos: {} };

async function saved(page, name) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#save").click()]);
  await download.saveAs(join(out, name));
  await idle(page);
}

/** What the page says and shows. */
const state = (page) =>
  page.evaluate(() => {
    const text = (id) => document.getElementById(id).textContent;
    const { width, height } = document.getElementById("after");
    const problem = document.getElementById("problem");
    return {
      status: text("status"),
      whose: text("whose"),
      problem: problem.hidden ? "" : problem.textContent,
      size: [width, height],
      working: !document.getElementById("work").hidden,
      heap: performance.memory?.usedJSHeapSize,
    };
  });

try {
  for (const view of ["phone", "desktop"]) {
    const page = await browser.newPage(VIEWS[view]);
    page.setDefaultTimeout(PATIENCE_MS);
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(url);
    await page.locator("#choose:enabled").waitFor();
    seen.about = await page.locator("#about").textContent();
    await page.locator("#file").setInputFiles(photos[0]);
    await page.locator("#left:not(:empty)").waitFor();
    await page.screenshot({ path: join(out, `working-${view}.png`), fullPage: true });
    const foretold = await page.locator("#left").textContent();
    await page.locator("#cancel").click();
    await idle(page);
    seen[view] = { foretold, cancelled: await state(page) };
    if (view === "desktop") {
      for (const photo of photos.slice(1)) {
        await page.locator("#file").setInputFiles(photo);
        await idle(page);
        seen.photos[basename(photo)] = await state(page);
        if (await page.locator("#save").isVisible()) await saved(page, `${basename(photo)}.png`);
      }
      // Another sample, and back: what was not finished changes nothing.
      await page.locator("#fidelity").fill("1");
      await page.locator("#fidelity").dispatchEvent("change");
      await idle(page);
      await saved(page, "faithful.png");
    } else {
      await page.locator("#file").setInputFiles(photos[1]);
      await idle(page);
    }
    await page.screenshot({ path: join(out, `restored-${view}.png`), fullPage: true });
    seen[view].overflow = await page.evaluate((width) => document.documentElement.scrollWidth - width, VIEWS[view].viewport.width);
    seen[view].errors = errors;
    await page.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
