/** What page.mjs and report.mjs look through: a browser, and a window for each of two widths and two colour schemes. */

import { createRequire } from "node:module";
import { join } from "node:path";

const phone = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const desktop = { viewport: { width: 1280, height: 900 } };

export const VIEWS = {
  phone,
  desktop,
  dark: { ...desktop, colorScheme: "dark" },
  "dark-phone": { ...phone, colorScheme: "dark" },
};

export const PATIENCE_MS = 180_000; // for what a busy machine computes

/** Chromium at `executablePath`, driven by the playwright-core in the folder `modules`, with further `args`. */
export function launch(modules, executablePath, args = []) {
  const { chromium } = createRequire(join(modules, "index.js"))("playwright-core");
  return chromium.launch({ executablePath, args, chromiumSandbox: process.getuid?.() !== 0 });
}
