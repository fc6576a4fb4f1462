// One's own account: the name that others see, notifications, where one is logged in, and the log-out.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Session } from "../../generated/api";
import type { Client } from "../client";
import { Notices, type Wanted } from "../notices";
import { reasonOf } from "./log_in";
import { Avatar, Dialog, Switch } from "./parts";
import { ago, nameOf } from "./words";

export function Account({ client, onClose }: { client: Client; onClose: () => void }) {
  const { model } = client;
  const me = model.users.value.get(client.me);
  const is_leaving = useSignal(false);
  const is_gone = useSignal(false);
  const waiting = model.outbox.value.filter((it) => it.version === null).length;

  function rename(event: SubmitEvent): void {
    event.preventDefault();
    const name = String(new FormData(event.currentTarget as HTMLFormElement).get("name")).trim();
    if (name && name !== me?.display_name) void client.act({ kind: "profile", display_name: name });
    onClose();
  }

  function leave(): void {
    if (waiting > 0 && !is_leaving.value) {
      is_leaving.value = true;
      return;
    }
    is_gone.value = true;
    void client.logOut();
  }

  return (
    <Dialog title="Account" onClose={onClose}>
      <div class="stack">
        <p class="me">
          <Avatar id={client.me} name={nameOf(me)} />
          <span class="who">
            <span>{nameOf(me)}</span> <small>@{me?.username}</small>
          </span>
        </p>
        <form class="inline" onSubmit={rename}>
          <label class="field">
            Name that others see
            <input name="name" defaultValue={me?.display_name} maxLength={64} required autocomplete="name" />
          </label>
          <button type="submit">Save</button>
        </form>
        {Notices.can_be && <Notifications notices={client.notices} />}
        <Sessions client={client} />
        <hr />
        {is_leaving.value && (
          <p class="hint">
            What is kept here is deleted.
            <b> {waiting} of your changes were not sent yet, and are lost.</b>
          </p>
        )}
        <button class={is_leaving.value ? "danger" : "quiet"} disabled={is_gone.value} onClick={leave}>
          {is_leaving.value ? "Log out and delete" : "Log out"}
        </button>
      </div>
    </Dialog>
  );
}

function Notifications({ notices }: { notices: Notices }) {
  const reason = useSignal("");
  const wanted = notices.wanted.value;
  async function want(next: Wanted): Promise<void> {
    reason.value = (await notices.want(next)) ? "" : "This browser does not allow it.";
  }
  return (
    <>
      <Switch
        label="Notifications on this device"
        on={wanted !== "off"}
        onChange={(on) => void want(on ? "texts" : "off")}
      />
      {wanted !== "off" && (
        <Switch
          label="Show what was written"
          on={wanted === "texts"}
          onChange={(on) => void want(on ? "texts" : "names")}
        />
      )}
      <p class="error" role="alert">
        {reason.value}
      </p>
    </>
  );
}

/** Where the person is logged in. */
function Sessions({ client }: { client: Client }) {
  const sessions = useSignal<Session[]>([]);
  const reason = useSignal("");
  const is_online = client.model.live.value.connection === "online";

  async function load(): Promise<void> {
    const reply = await client.sessions();
    reason.value = reasonOf(reply);
    if (reply.kind === "done") sessions.value = reply.data.sessions;
  }

  async function end(ids: string[]): Promise<void> {
    for (const id of ids) await client.endSession(id);
    await load();
  }

  useEffect(() => {
    if (is_online) void load();
  }, [is_online]);

  const others = sessions.value.filter((it) => !it.current).map((it) => it.id);
  return (
    <section aria-labelledby="sessions-title">
      <h3 id="sessions-title">Where you are logged in</h3>
      <ul class="people" role="list">
        {sessions.value.map((session) => (
          <li key={session.id} class="person">
            <span class="who">
              <span>{deviceOf(session.device)}</span>{" "}
              <small>{session.current ? "this device" : `last used ${ago(new Date(session.last_used_at))}`}</small>
            </span>
            {!session.current && (
              <button class="quiet" aria-label={`End the session on ${deviceOf(session.device)}`} onClick={() => void end([session.id])}>
                End
              </button>
            )}
          </li>
        ))}
      </ul>
      {others.length > 1 && (
        <button class="danger" onClick={() => void end(others)}>
          End all others
        </button>
      )}
      <p class="hint" role="status">
        {is_online ? reason.value : "This takes a connection."}
      </p>
    </section>
  );
}

const BROWSERS = { "Edg/": "Edge", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari" };
const SYSTEMS = { iPhone: "iPhone", iPad: "iPad", Android: "Android", Windows: "Windows", "Mac OS": "macOS", Linux: "Linux" };

/** What a browser is called in short, or what a device says it is. */
function deviceOf(device: string | null): string {
  const name = (names: Record<string, string>) => Object.entries(names).find(([sign]) => device?.includes(sign))?.[1];
  const [browser, system] = [name(BROWSERS), name(SYSTEMS)];
  return browser && system ? `${browser} on ${system}` : device || "An unknown device";
}
