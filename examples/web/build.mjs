// Builds the client into messenger-server/assets/web, where the server embeds it. The same source
// gives the same bytes: `--check` tells whether what is there is what would be built.

import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const assets = new URL("../../messenger-server/assets/web/", import.meta.url);

const options = {
  absWorkingDir: here("."),
  bundle: true,
  minify: true,
  charset: "utf8",
  target: ["chrome123", "firefox124", "safari17.5"],
  legalComments: "none",
  metafile: true,
  write: false,
  logLevel: "warning",
};

const hashOf = (...contents) => {
  const hash = createHash("sha256");
  for (const content of contents) hash.update(content);
  return hash.digest("hex").slice(0, 16);
};

const outputOf = (result) => Buffer.from(result.outputFiles[0].contents);

const app = await build({ ...options, entryPoints: ["src/main.tsx"], format: "esm" });
const style = await build({ ...options, entryPoints: ["style.css"] });

const files = new Map([
  ["app.js", outputOf(app)],
  ["style.css", outputOf(style)],
]);
for (const name of ["icon.svg", "icon-192.png", "icon-512.png"]) files.set(name, await readFile(here(name)));

// The page asks for each file of this very build.
let page = await readFile(here("index.html"), "utf8");
const named = [...files].map(([name, content]) => [name, `${name}?v=${hashOf(content)}`]);
for (const [name, address] of named) page = page.replaceAll(`"${name}"`, `"${address}"`);

const define = {
  FILES: JSON.stringify(named.map(([, address]) => address)),
  VERSION: JSON.stringify(hashOf(page, ...files.values())),
};
const worker = await build({ ...options, entryPoints: ["src/sw.ts"], format: "iife", define });
files.set("sw.js", outputOf(worker));
files.set("index.html", Buffer.from(page));
// Has no hash, and is not kept: the server writes its own name into it.
files.set("manifest.webmanifest", await readFile(here("manifest.webmanifest")));
files.set("NOTICES.txt", Buffer.from(await notices(app.metafile)));

if (process.argv.includes("--check")) {
  let is_same = true;
  for (const [name, content] of files) {
    const known = await readFile(new URL(name, assets)).catch(() => Buffer.alloc(0));
    if (known.equals(content)) continue;
    console.error(`messenger-server/assets/web/${name} is not what examples/web builds: npm run build`);
    is_same = false;
  }
  process.exit(is_same ? 0 : 1);
}
await mkdir(assets, { recursive: true });
for (const [name, content] of files) await writeFile(new URL(name, assets), content);

/** The licences of the libraries that are in the bundle. */
async function notices(metafile) {
  const inputs = Object.keys(metafile.inputs).map((it) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(it)?.[1]);
  const names = [...new Set(inputs.filter(Boolean))].sort();
  const texts = names.map(async (name) => {
    const folder = new URL(`node_modules/${name}/`, import.meta.url);
    const { version, license } = JSON.parse(await readFile(new URL("package.json", folder), "utf8"));
    const text = await Promise.any(
      ["LICENSE", "LICENSE.md", "LICENSE.txt"].map((it) => readFile(new URL(it, folder), "utf8")),
    );
    return `${name} ${version} (${license})\n\n${text.replaceAll("\r", "").trim()}\n`;
  });
  return `The web client contains these libraries.\n\n${(await Promise.all(texts)).join(`\n${"-".repeat(72)}\n\n`)}`;
}
