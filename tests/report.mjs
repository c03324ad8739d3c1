/**
 * Looks at a report of the harness as a person does: `node report.mjs MODULES CHROMIUM REPORT OUT`. Leaves screenshots
 * in OUT and prints one line of JSON: what was seen at each width.
 */

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { VIEWS, launch } from "./views.mjs";

const [modules, executablePath, report, out] = process.argv.slice(2);
const browser = await launch(modules, executablePath);
const seen = {};
try {
  for (const [name, options] of Object.entries(VIEWS)) {
    const context = await browser.newContext({ ...options, offline: true });
    const page = await context.newPage();
    const requests = [];
    const errors = [];
    page.on("request", (request) => requests.push(new URL(request.url()).protocol));
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(pathToFileURL(report).href);
    const before = await page.locator("#compare .over").getAttribute("src");
    await page.locator("#right").selectOption("litert fp32");
    await page.locator("#compare input").fill("30");
    const [saved] = await Promise.all([page.waitForEvent("download"), page.getByText("download the JSON").click()]);
    await saved.saveAs(join(out, `${name}.json`));
    await page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
    seen[name] = await page.evaluate((width) => {
      const style = (element) => getComputedStyle(element);
      return {
        cut: document.getElementById("compare").style.getPropertyValue("--cut"),
        right: document.querySelector("#compare .over").src,
        charts: document.querySelectorAll("figure > svg").length,
        // The smallest text that a table has, and what is wider than the window itself.
        smallest: Math.min(...Array.from(document.querySelectorAll("td, td *"), (e) => parseFloat(style(e).fontSize))),
        overflow: document.documentElement.scrollWidth - width,
        ground: style(document.body).backgroundColor,
        ink: style(document.body).color,
      };
    }, options.viewport.width);
    Object.assign(seen[name], { changed: seen[name].right !== before, requests, errors });
    delete seen[name].right;
    await context.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
