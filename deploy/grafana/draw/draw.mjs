// Draws every dashboard with what a Prometheus knows:
// `node draw.mjs --prometheus URL --dashboards DIR --out DIR [--minutes N] [--until T] [--rate S]`.
// Exit code 1 if a panel could not be drawn, if the browser said that something was wrong, or if a panel that must have data had none.
import { mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';
import sharp from 'sharp';
import { build, preview } from 'vite';

const { values: asked } = parseArgs({
  options: {
    prometheus: { type: 'string' },
    dashboards: { type: 'string' },
    out: { type: 'string' },
    minutes: { type: 'string', default: '10' },
    // In seconds since 1970; now, without it.
    until: { type: 'string' },
    // What $__rate_interval is: at least four times the scrape interval.
    rate: { type: 'string', default: '60' },
  },
});
const QUIET = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const POINTS = 240;
// Grafana serves its fonts itself; the packages of its components leave them out.
const FONTS = {
  'Inter-Regular': 'inter/files/inter-latin-400-normal',
  'Inter-Medium': 'inter/files/inter-latin-500-normal',
  'Inter-Italic': 'inter/files/inter-latin-400-italic',
};
const MONO = 'roboto-mono/files/roboto-mono-latin-400-normal';

const complaints = [];
const end = Math.floor(Number(asked.until ?? Date.now() / 1000 - 2));
const start = end - Math.round(Number(asked.minutes) * 60);
const span = { start, end, step: Math.max(1, Math.ceil((end - start) / POINTS)), rate: Number(asked.rate) };

await build({ root: import.meta.dirname, logLevel: 'error', build: { chunkSizeWarningLimit: 10_000 } });
const server = await preview({
  root: import.meta.dirname,
  logLevel: 'error',
  preview: { host: '127.0.0.1', port: 0, proxy: { '/api': asked.prometheus } },
});
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: QUIET });
try {
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 }, colorScheme: 'dark' });
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(`browser: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`browser: ${error.stack}`));
  await page.route('**/public/fonts/**', (route) => {
    const name = basename(new URL(route.request().url()).pathname, '.woff2');
    return route.fulfill({ path: join(import.meta.dirname, 'node_modules/@fontsource', `${FONTS[name] ?? MONO}.woff2`) });
  });
  await page.goto(server.resolvedUrls.local[0]);
  await page.waitForFunction(() => window.draw);
  mkdirSync(asked.out, { recursive: true });
  for (const file of readdirSync(asked.dashboards)
    .filter((name) => name.endsWith('.json'))
    .sort()) {
    await drawn(page, JSON.parse(readFileSync(join(asked.dashboards, file), 'utf8')));
  }
} finally {
  await browser.close();
  await new Promise((closed) => server.httpServer.close(closed));
}
complaints.forEach((complaint) => console.error(complaint));
process.exit(complaints.length === 0 ? 0 : 1);

async function drawn(page, dashboard) {
  const report = await page.evaluate(([board, over]) => window.draw(board, over), [dashboard, span]);
  // Plots are drawn in the frames after the one in which they were mounted, and tables only where they are in view.
  await page.setViewportSize({
    width: 1600,
    height: await page.evaluate(() => document.getElementById('root').firstElementChild.offsetHeight),
  });
  await page.evaluate(() => document.fonts.ready.then(() => new Promise((drawn) => setTimeout(drawn, 500))));
  const picture = await page.screenshot();
  // A palette is enough for lines and words, and a third of the size.
  await sharp(picture)
    .png({ palette: true, colours: 128, effort: 10 })
    .toFile(join(asked.out, `${dashboard.uid}.png`));
  for (const { title, error, empty, excused } of report) {
    if (error || (empty && !excused)) {
      complaints.push(`${dashboard.uid}: ${title}: ${error ?? 'no data'}`);
    }
  }
  const empty = report.filter((panel) => panel.empty && panel.excused).map((panel) => panel.title);
  console.log(`${dashboard.uid}: ${report.length} panels${empty.length ? `; rightly empty: ${empty.join(', ')}` : ''}`);
}
