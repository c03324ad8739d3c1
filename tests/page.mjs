/**
 * Does with the page what a person does: `node page.mjs MODULES CHROMIUM URL PHOTO OUT [ARGUMENT…]`, further arguments of
 * Chromium. Leaves screenshots in OUT and prints one line of JSON: what was seen at each width.
 */

import { join } from "node:path";
import { VIEWS, launch } from "./views.mjs";

const [modules, executablePath, url, photo, out, ...args] = process.argv.slice(2);
const browser = await launch(modules, executablePath, args);
const seen = {};
try {
  for (const [name, options] of Object.entries(VIEWS)) {
    const page = await browser.newPage(options);
    const requests = [];
    const errors = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("pageerror", (error) => errors.push(error.message));
    // LiteRT says what it does on the error console, too.
    page.on("console", (message) => {
      if (message.type() === "error" && !/^(INFO|WARNING): /.test(message.text())) errors.push(message.text());
    });
    await page.goto(url);
    await page.locator("#choose:enabled").waitFor();
    if (args.length) {
      const models = await page.locator("#model option").count();
      await page.locator("#model").selectOption({ index: models - 1 }); // a GPU in software comes last
      await page.locator("#choose:enabled").waitFor();
    }
    await page.locator("#file").setInputFiles(photo);
    await page.locator("#compare").waitFor();
    await page.locator("#choose:enabled").waitFor();
    const restored = await page.locator("#status").textContent();
    await page.locator("#slider").fill("30");
    await page.locator("#check").click();
    await page.locator("#check:enabled").waitFor();
    await page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
    seen[name] = await page.evaluate((width) => {
      const canvas = document.getElementById("before");
      const side = canvas.width;
      const context = canvas.getContext("2d");
      const at = (x, y) => Array.from(context.getImageData(x * side, y * side, 1, 1).data.slice(0, 3));
      const { data } = context.getImageData(0, 0, side, side);
      const pixel = (x, y) => data.slice(4 * (y * side + x), 4 * (y * side + x) + 3).join();
      const even = (block) =>
        Array.from({ length: side * side }, (_, i) => [i % side, Math.floor(i / side)]).every(
          ([x, y]) => pixel(x, y) === pixel(x - (x % block), y - (y % block)),
        );
      const text = (rows) => Array.from(rows, (row) => Array.from(row.cells, (cell) => cell.textContent));
      return {
        corners: [at(0.125, 0.125), at(0.875, 0.125), at(0.125, 0.875), at(0.875, 0.875)],
        squares: Object.fromEntries([8, 16].map((block) => [block, even(block)])),
        title: document.getElementById("title").textContent,
        about: document.getElementById("about").textContent,
        cut: document.getElementById("compare").style.getPropertyValue("--cut"),
        latency: text(document.getElementById("latency").tBodies[0].rows),
        parity: text(document.getElementById("parity").tBodies[0].rows),
        status: document.getElementById("status").textContent,
        reason: document.getElementById("reason").textContent,
        models: Array.from(document.getElementById("model").options, (option) => option.value),
        ground: getComputedStyle(document.body).backgroundColor,
        overflow: document.documentElement.scrollWidth - width,
        save: document.getElementById("save").checkVisibility(),
      };
    }, options.viewport.width);
    // A file that is no picture is one sentence, and the page stays usable.
    await page.locator("#file").setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("text") });
    await page.locator("#problem").waitFor();
    Object.assign(seen[name], { problem: await page.locator("#problem").textContent(), restored, requests, errors });
    await page.close();
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
