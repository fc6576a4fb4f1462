// The log-in, and the registration, which is the same form with one more field.

import { useSignal } from "@preact/signals";
import type { ErrorBody } from "../../generated/api";
import type { Reply } from "../api";
import { logIn, register } from "../session";
import { Logo } from "./icons";

export function LogIn({ name, onLogIn }: { name: string; onLogIn: () => Promise<void> }) {
  const is_new = useSignal(false);
  const is_busy = useSignal(false);
  const error = useSignal("");

  async function submit(event: SubmitEvent): Promise<void> {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const [username, password, shown] = ["username", "password", "display_name"].map((it) =>
      String(form.get(it) ?? ""),
    ) as [string, string, string];
    is_busy.value = true;
    const reply = await (is_new.value ? register(username.trim(), password, shown.trim()) : logIn(username.trim(), password));
    is_busy.value = false;
    if (reply.kind === "done") await onLogIn();
    else error.value = reasonOf(reply);
  }

  const title = is_new.value ? "Create an account" : "Log in";
  return (
    <main class="log-in">
      <form class="card" onSubmit={submit} aria-labelledby="log-in-title">
        <Logo />
        <h1 id="log-in-title">{title}</h1>
        <label class="field">
          Username
          <input
            name="username"
            defaultValue={name}
            autocomplete="username"
            autocapitalize="none"
            spellcheck={false}
            minLength={3}
            maxLength={32}
            pattern="[A-Za-z0-9_.\-]+"
            title="Letters, digits, dots, underscores and hyphens"
            required
            autofocus
          />
        </label>
        {is_new.value && (
          <label class="field">
            <span>
              Name that others see <small>(optional)</small>
            </span>
            <input name="display_name" autocomplete="name" maxLength={64} />
          </label>
        )}
        <label class="field">
          Password
          <input
            name="password"
            type="password"
            autocomplete={is_new.value ? "new-password" : "current-password"}
            minLength={is_new.value ? 8 : 1}
            maxLength={128}
            required
          />
        </label>
        <p class="error" role="alert">
          {error.value}
        </p>
        <button class="primary" type="submit" disabled={is_busy.value}>
          {title}
        </button>
        <button
          class="quiet"
          type="button"
          onClick={() => {
            is_new.value = !is_new.value;
            error.value = "";
          }}
        >
          {is_new.value ? "I have an account" : "I am new here"}
        </button>
      </form>
    </main>
  );
}

/** Why it did not go, in one line. */
export function reasonOf(reply: Reply<unknown>): string {
  switch (reply.kind) {
    case "done":
      return "";
    case "refused":
    case "unauthenticated":
      return sentence(reply.error);
    case "failed":
      return "The server can not do that now. Please try again.";
    case "later":
      return reply.wait_ms > 0
        ? `Too many attempts. Please try again in ${Math.ceil(reply.wait_ms / 1000)} seconds.`
        : "The server can not be reached.";
  }
}

function sentence(error: ErrorBody | undefined): string {
  const details = Array.isArray(error?.details) ? (error.details as { loc: string[]; msg: string }[]) : [];
  const text = details.length
    ? details.map(({ loc, msg }) => `${String(loc.at(-1)).replace("_", " ")} ${msg}`).join(", ")
    : (error?.message ?? "it did not go");
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

export function Message({ text }: { text: string }) {
  return (
    <main class="log-in">
      <p class="card" role="alert">
        {text}
      </p>
    </main>
  );
}

