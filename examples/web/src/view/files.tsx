// The files of a message: pictures as pictures, everything else by its name.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Client } from "../client";
import { urlOf } from "../files";
import type { Shown, ShownFile } from "../model";
import { Icon } from "./icons";
import { reasonOf } from "./log_in";
import { Dialog } from "./parts";
import { sizeOf } from "./words";

/** How large a picture is shown among the messages, in pixels at most. */
const WIDTH_PX = 320;
const HEIGHT_PX = 360;

/** What a picture has before it tells how large it is. */
const UNKNOWN_PX = 160;

export function Files({ client, conversation_id, message }: { client: Client; conversation_id: string; message: Shown }) {
  return (
    <ul class="files" role="list" aria-label="Attached files">
      {message.files.map((file, index) => (
        <li key={index}>
          <OneFile client={client} conversation_id={conversation_id} file={file} />
        </li>
      ))}
    </ul>
  );
}

function OneFile({ client, conversation_id, file }: { client: Client; conversation_id: string; file: ShownFile }) {
  const { id } = file;
  const is_open = useSignal(false);
  const part = file.file === null ? undefined : client.model.live.value.uploads.get(file.file);
  const percent = part === undefined ? undefined : Math.round(100 * part);
  return (
    <>
      {file.is_picture ? (
        <Picture client={client} conversation_id={conversation_id} file={file} onOpen={() => (is_open.value = true)} />
      ) : (
        <Download client={client} file={file} />
      )}
      {percent !== undefined && <progress value={percent} max={100} aria-label={`${file.name}: ${percent} % sent`} />}
      {is_open.value && id !== null && (
        <Whole client={client} file={file} id={id} onClose={() => (is_open.value = false)} />
      )}
    </>
  );
}

/** A picture, in its small form. It is fetched when it comes into sight. */
function Picture(props: { client: Client; conversation_id: string; file: ShownFile; onOpen: () => void }) {
  const { client, conversation_id, file, onOpen } = props;
  const box = useRef<HTMLButtonElement>(null);
  const url = useSignal("");
  const is_online = client.model.live.value.connection === "online";
  const is_here = useSignal(false);
  const natural = useSignal({ width: UNKNOWN_PX, height: UNKNOWN_PX });
  const { width, height } = file.width && file.height ? { width: file.width, height: file.height } : natural.value;
  const scale = Math.min(1, WIDTH_PX / width, HEIGHT_PX / height);
  useEffect(() => {
    const sight = new IntersectionObserver(
      (entries) => {
        if (entries.some((it) => it.isIntersecting)) is_here.value = true;
      },
      { rootMargin: "50%" },
    );
    if (box.current) sight.observe(box.current);
    return () => sight.disconnect();
  }, [is_here]);
  const has_come = url.value !== "";
  useEffect(() => {
    if (!is_here.value || has_come) return;
    let is_over = false;
    const fetch = async () => {
      const blob = await client.picture(conversation_id, file).catch(() => undefined);
      if (blob && !is_over) url.value = urlOf(blob);
    };
    void fetch();
    return () => {
      is_over = true;
    };
  }, [client, conversation_id, file.id, is_here.value, is_online, has_come]);
  useEffect(() => () => URL.revokeObjectURL(url.peek()), [url]);
  return (
    <button
      ref={box}
      type="button"
      class="picture"
      aria-label={`Open ${file.name}`}
      disabled={file.id === null}
      style={{ width: `${Math.round(width * scale)}px`, aspectRatio: `${width} / ${height}` }}
      onClick={onOpen}
    >
      {has_come ? (
        <img
          src={url.value}
          alt={file.name}
          onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => {
            natural.value = { width: naturalWidth, height: naturalHeight };
          }}
        />
      ) : (
        <span class="hint">{file.name}</span>
      )}
    </button>
  );
}

/** A picture as it was sent. */
function Whole({ client, file, id, onClose }: { client: Client; file: ShownFile; id: string; onClose: () => void }) {
  const url = useSignal("");
  const reason = useSignal("Loading…");
  useEffect(() => {
    const closed = new AbortController();
    const fetch = async () => {
      const reply = await client.content(id, closed.signal);
      if (closed.signal.aborted) return;
      if (reply.kind === "done") url.value = urlOf(reply.data);
      reason.value = reasonOf(reply);
    };
    void fetch();
    return () => {
      closed.abort();
      URL.revokeObjectURL(url.peek());
    };
  }, [client, id, url, reason]);
  return (
    <Dialog title={file.name} onClose={onClose} is_wide>
      <div class="stack whole">
        {url.value && <img src={url.value} alt={file.name} />}
        <p class="hint" role="status">
          {reason.value}
        </p>
        <Download client={client} file={file} />
      </div>
    </Dialog>
  );
}

/** What a file is called and how large it is; pressed, it is fetched and kept where downloads are. */
function Download({ client, file }: { client: Client; file: ShownFile }) {
  const { id, name } = file;
  const is_busy = useSignal(false);
  const reason = useSignal("");
  async function save(): Promise<void> {
    if (id === null || is_busy.value) return;
    is_busy.value = true;
    const reply = await client.content(id);
    is_busy.value = false;
    reason.value = reasonOf(reply);
    if (reply.kind !== "done") return;
    // It is never opened in this page's place: it is somebody else's, and might be a page itself.
    const url = urlOf(reply.data);
    const link = document.createElement("a");
    Object.assign(link, { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }
  return (
    <>
      <button type="button" class="file" disabled={id === null} aria-label={`Download ${name}, ${sizeOf(file.size)}`} onClick={() => void save()}>
        <Icon name={id === null ? "clip" : "download"} />
        <span class="who">
          <span>{name}</span> <small>{is_busy.value ? "Loading…" : sizeOf(file.size)}</small>
        </span>
      </button>
      <p class="error" role="alert">
        {reason.value}
      </p>
    </>
  );
}
