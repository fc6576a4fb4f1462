// What is being written: a message, an answer to one, or other words for one.

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { UserPublic } from "../../generated/api";
import type { Client } from "../client";
import { FILES_MAX, urlOf } from "../files";
import { gistOf, isPicture, type Shown } from "../model";
import type { Conversation } from "../replica";
import { Icon } from "./icons";
import { mentionsIn, type Offer, Offered, offerFor, peopleOf } from "./mentions";
import { nameOf, sizeOf } from "./words";

/** What the next text is for, if it is not simply a message. */
export interface Task {
  kind: "reply" | "edit";
  message: Shown;
}

/** Files that were chosen in other conversations. */
const picked = new Map<string, File[]>();

export function Composer(props: { client: Client; conversation: Conversation; task: Signal<Task | undefined> }) {
  const { client, conversation, task } = props;
  const conversation_id = conversation.id;
  const input = useRef<HTMLTextAreaElement>(null);
  /** What was begun before a message was edited. */
  const draft = useRef("");
  const was_edit = useRef(false);
  const picker = useRef<HTMLInputElement>(null);
  const offer = useSignal<Offer | undefined>(undefined);
  const files = useSignal<File[]>(picked.get(conversation_id) ?? []);

  const fill = (text: string) => {
    if (!input.current) return;
    input.current.value = text;
    grow(input.current);
  };
  // Before the page is painted: the next key belongs to what it shows.
  useLayoutEffect(() => {
    fill(client.draft(conversation_id));
    // A phone would cover the messages with its keyboard.
    const is_phone = !matchMedia("(hover: hover)").matches;
    (is_phone ? input.current?.closest("main") : input.current)?.focus();
    return () => client.types(conversation_id, false);
  }, [client, conversation_id]);

  const now = task.value;
  useLayoutEffect(() => {
    const is_edit = now?.kind === "edit";
    if (is_edit && !was_edit.current) draft.current = input.current?.value ?? "";
    if (is_edit) fill(now.message.content);
    else if (was_edit.current) fill(draft.current);
    was_edit.current = is_edit;
    if (now) input.current?.focus();
  }, [now]);

  function pick(more: FileList | File[] | undefined | null): void {
    const all = [...files.value, ...(more ?? [])];
    if (all.length > FILES_MAX) client.model.notice.value = `at most ${FILES_MAX} files go with one message`;
    keep(all.slice(0, FILES_MAX));
  }

  function keep(all: File[]): void {
    files.value = all;
    picked.set(conversation_id, all);
    input.current?.focus();
  }

  const is_edit = now?.kind === "edit";
  const is_over = useDropped(is_edit ? undefined : pick);

  function cancel(): void {
    task.value = undefined;
    input.current?.focus();
  }

  function submit(): void {
    const text = input.current?.value.trim() ?? "";
    const is_nothing = (is_edit ? now.message.files : files.value).length === 0;
    if (text === "" && is_nothing) return;
    if (is_edit) {
      const message_id = now.message.id;
      if (message_id && text !== now.message.content) void edit(message_id, text, now);
      else task.value = undefined;
    } else {
      void send(text, now, files.value);
      fill("");
      keep([]);
      task.value = undefined;
    }
    client.types(conversation_id, false);
    offer.value = undefined;
  }

  async function edit(message_id: string, content: string, asked: Task): Promise<void> {
    const is_kept = await client.act({ kind: "edit", conversation_id, message_id, content });
    // What could not be kept stays where it is written, and so does what was written meanwhile.
    if (is_kept && task.peek() === asked && input.current?.value.trim() === content) task.value = undefined;
  }

  async function send(content: string, answers: Task | undefined, all: File[]): Promise<void> {
    const mentions = mentionsIn(content, peopleOf(client, conversation));
    const reply_to = answers?.message.id ?? null;
    if (await client.send({ conversation_id, content, reply_to, mentions }, all)) return;
    // It could not be kept: so here it is again, before what was begun meanwhile.
    const text = [content, client.draft(conversation_id)].filter(Boolean).join("\n");
    if (was_edit.current) draft.current = text;
    else fill(text);
    task.value ??= answers;
    client.keepDraft(conversation_id, text);
    keep([...all, ...(picked.get(conversation_id) ?? [])]);
  }

  function take(user: UserPublic): void {
    const [field, taken] = [input.current, offer.value];
    if (!field || !taken) return;
    field.setRangeText(`@${user.username} `, taken.from, taken.to, "end");
    write(field);
  }

  /** What a key does while people are offered; says whether it did. */
  function chooses(key: string, shown: Offer): boolean {
    const { people, at } = shown;
    const user = people[at];
    if (key === "ArrowDown" || key === "ArrowUp") {
      const to = at + (key === "ArrowDown" ? 1 : people.length - 1);
      offer.value = { ...shown, at: to % people.length };
    } else if ((key === "Enter" || key === "Tab") && user) take(user);
    else if (key === "Escape") offer.value = undefined;
    else return false;
    return true;
  }

  function write(field: HTMLTextAreaElement): void {
    grow(field);
    offer.value = is_edit ? undefined : offerFor(field.value, field.selectionStart, peopleOf(client, conversation));
    if (!is_edit) client.keepDraft(conversation_id, field.value);
    client.types(conversation_id, field.value.trim() !== "");
  }

  function press(event: KeyboardEvent): void {
    if (offer.value && !event.isComposing && chooses(event.key, offer.value)) {
      event.preventDefault();
      return;
    }
    // The caret may be somewhere else now.
    if (/^(Arrow(Left|Right)|Home|End)$/.test(event.key)) offer.value = undefined;
    if (event.key === "Escape" && now) {
      event.preventDefault();
      cancel();
    }
    // Enter also ends what an input method composes.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
    if (event.key === "ArrowUp" && input.current?.value === "") {
      const messages = document.querySelectorAll<HTMLElement>(".timeline article");
      event.preventDefault();
      messages[messages.length - 1]?.focus();
    }
  }

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        submit();
      }}
    >
      {now && (
        <div class="task">
          <p>
            <b>
              {is_edit
                ? "Edit message"
                : `Reply to ${nameOf(client.model.users.value.get(now.message.sender_id))}`}
            </b>
            <span>{gistOf(now.message.content, now.message.files)}</span>
          </p>
          <button class="round" type="button" aria-label="Cancel" onClick={cancel}>
            <Icon name="close" />
          </button>
        </div>
      )}
      {!is_edit && files.value.length > 0 && (
        <ul class="picked" role="list" aria-label="Files to send">
          {files.value.map((file, index) => (
            <PickedFile key={`${file.name} ${index}`} file={file} onRemove={() => keep(files.value.filter((it) => it !== file))} />
          ))}
        </ul>
      )}
      <Offered offer={offer.value} onTake={take} />
      {is_over && <p class="drop">Let go to attach</p>}
      {!is_edit && (
        <>
          <input
            ref={picker}
            type="file"
            multiple
            hidden
            onChange={(event) => {
              pick(event.currentTarget.files);
              event.currentTarget.value = "";
            }}
          />
          <button class="round" type="button" aria-label="Attach files" onClick={() => picker.current?.click()}>
            <Icon name="clip" />
          </button>
        </>
      )}
      <textarea
        ref={input}
        rows={1}
        aria-label="Message"
        placeholder="Message"
        enterkeyhint="send"
        aria-autocomplete={conversation.type === "group" ? "list" : undefined}
        aria-controls={offer.value && "offered"}
        aria-activedescendant={offer.value && `offered-${offer.value.at}`}
        onBlur={() => (offer.value = undefined)}
        onInput={(event) => write(event.currentTarget)}
        onKeyDown={press}
        onPaste={(event) => {
          const pasted = event.clipboardData?.files;
          if (is_edit || !pasted?.length) return;
          // Beside a text there is a picture of it, for example: the text is pasted as ever.
          if (!event.clipboardData?.getData("text/plain")) event.preventDefault();
          pick(pasted);
        }}
      />
      <button class="round accent" type="submit" aria-label={is_edit ? "Save" : "Send"}>
        <Icon name={is_edit ? "check" : "send"} />
      </button>
    </form>
  );
}

/** A file that was chosen, and can be put back. */
function PickedFile({ file, onRemove }: { file: File; onRemove: () => void }) {
  const url = useSignal("");
  useEffect(() => {
    if (!isPicture(file.type)) return;
    url.value = urlOf(file);
    return () => URL.revokeObjectURL(url.peek());
  }, [file, url]);
  return (
    <li>
      {url.value ? <img src={url.value} alt="" /> : <Icon name="clip" />}
      <span class="who">
        <span>{file.name}</span> <small>{sizeOf(file.size)}</small>
      </span>
      <button class="round" type="button" aria-label={`Remove ${file.name}`} onClick={onRemove}>
        <Icon name="close" />
      </button>
    </li>
  );
}

/** Takes files that are dropped on the page, and says whether some are held over it. */
function useDropped(pick: ((files: FileList) => void) | undefined): boolean {
  const is_over = useSignal(false);
  const taker = useRef(pick);
  taker.current = pick;
  useEffect(() => {
    const has_files = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const over = (event: DragEvent) => {
      if (!has_files(event)) return;
      // A browser would show the file in place of the page.
      event.preventDefault();
      is_over.value = taker.current !== undefined;
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) is_over.value = false;
    };
    const drop = (event: DragEvent) => {
      if (!has_files(event)) return;
      event.preventDefault();
      is_over.value = false;
      if (event.dataTransfer && !document.querySelector("dialog")) taker.current?.(event.dataTransfer.files);
    };
    window.addEventListener("dragover", over);
    window.addEventListener("dragleave", leave);
    window.addEventListener("drop", drop);
    return () => {
      window.removeEventListener("dragover", over);
      window.removeEventListener("dragleave", leave);
      window.removeEventListener("drop", drop);
    };
  }, [is_over]);
  return is_over.value;
}

/** As high as its text, where the browser does not do that by itself. */
function grow(field: HTMLTextAreaElement): void {
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}
