// Where the page begins: who is logged in sees their conversations, everybody else the log-in.

import { render } from "preact";
import { Client } from "./client";
import { current, lastName } from "./session";
import { App } from "./view/app";
import { LogIn, Message } from "./view/log_in";

const root = document.getElementById("app") as HTMLElement;

async function start(): Promise<void> {
  // Browsers give locks and service workers to these only, and a password needs no listeners.
  if (!isSecureContext) {
    render(<Message text="Open this page over https, or on this very computer as localhost." />, root);
    return;
  }
  offerOffline();
  const session = await current();
  if (!session) {
    listenForLogIn();
    render(<LogIn name={await lastName()} onLogIn={begin} />, root);
    return;
  }
  await begin();
}

async function begin(): Promise<void> {
  const session = await current();
  if (!session) return;
  new BroadcastChannel("messenger").postMessage("logged in");
  render(<App client={await Client.start(session)} />, root);
}

/** Another tab logs in: so does this one. */
function listenForLogIn(): void {
  const channel = new BroadcastChannel("messenger");
  channel.onmessage = async () => {
    if (await current()) location.reload();
  };
}

/** Lets the service worker keep the page, so that it opens without the server. */
function offerOffline(): void {
  const policy = window.trustedTypes?.createPolicy("messenger", {
    createScriptURL: (url: string) => {
      if (url !== "sw.js") throw new TypeError("only the service worker");
      return url;
    },
  });
  const url = policy?.createScriptURL("sw.js") ?? "sw.js";
  // Without it the page works as before, but only with the server.
  navigator.serviceWorker?.register(url as string).catch(() => {});
}

start().catch((error: unknown) => {
  console.error(error);
  render(<Message text="This browser does not let the page keep anything. Is it a private window?" />, root);
});

declare global {
  interface Window {
    trustedTypes?: {
      createPolicy(
        name: string,
        rules: { createScriptURL: (url: string) => string },
      ): { createScriptURL(url: string): unknown };
    };
  }
}
