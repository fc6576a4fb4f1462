// The service worker: keeps the page, so that it opens without the server. What people say is none of
// its business; requests to the API pass by.

export {};

declare const self: ServiceWorkerGlobalScope;

/** The files of the page with their hashes, which the build writes here. */
declare const FILES: string[];
declare const VERSION: string;

const CACHE = `page-${VERSION}`;
const PAGE = new URL("./", self.location.href).href;
const KEPT = new Set(FILES.map((file) => new URL(file, PAGE).href));

/** How long the page is waited for, before the one that is kept is shown. */
const PAGE_MS = 3_000;

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(CACHE);
    await cache.addAll([PAGE, ...KEPT]);
    await self.skipWaiting();
  };
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const take = async () => {
    for (const name of await caches.keys()) {
      if (name !== CACHE) await caches.delete(name);
    }
    await self.clients.claim();
  };
  event.waitUntil(take());
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  const url = new URL(request.url);
  url.hash = "";
  if (request.mode === "navigate" && url.href === PAGE) event.respondWith(page(request));
  else if (KEPT.has(url.href)) event.respondWith(file(request));
});

/** Leads whoever takes a notification to what it is about. */
self.addEventListener("notificationclick", (event) => {
  const { notification } = event;
  notification.close();
  const lead = async () => {
    const [page] = await self.clients.matchAll({ type: "window" });
    page?.postMessage({ open: notification.tag });
    await (page ? page.focus() : self.clients.openWindow(`${PAGE}#/c/${notification.tag}`));
  };
  event.waitUntil(lead());
});

/** The page of the server, if it comes in time; else the one that is kept. */
async function page(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const late = new Promise<undefined>((resolve) => setTimeout(resolve, PAGE_MS));
  const fresh = fetch(request).then(async (response) => {
    // Not the page of a hotel: only ours names the API.
    const text = await response.clone().text();
    const is_ours = response.ok && text.includes('name="api"');
    // The page of another version asks for files that are not kept here.
    const asked = [...text.matchAll(/"([^"]+\?v=[^"]+)"/g)];
    const are_kept = asked.every(([, file = ""]) => KEPT.has(new URL(file, PAGE).href));
    if (is_ours && are_kept) await cache.put(PAGE, response.clone());
    return is_ours ? response : undefined;
  });
  const kept = async () => (await cache.match(PAGE)) ?? fetch(request);
  return (await Promise.race([fresh.catch(() => undefined), late])) ?? (await kept());
}

async function file(request: Request): Promise<Response> {
  return (await caches.match(request)) ?? fetch(request);
}
