// The pictures on buttons: one path each, drawn for a square of 24.

const PATHS = {
  back: "M15 5l-7 7 7 7",
  bell_off: "M4 4l16 16M9.5 19a2.5 2.5 0 0 0 5 0M6 16.5h10.5M7 9.5v3.5L5.5 16.5M9 5.6A5 5 0 0 1 17 9.5V13l.6 1.4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  clip: "M20 11l-8.2 8.2a5 5 0 0 1-7.1-7.1l8.4-8.4a3.3 3.3 0 0 1 4.7 4.7l-8.4 8.4a1.7 1.7 0 0 1-2.4-2.4l7.7-7.7",
  clock: "M12 7v5l3 2M20 12a8 8 0 1 1-16 0 8 8 0 0 1 16 0z",
  close: "M6 6l12 12M18 6L6 18",
  download: "M12 4.5v10M7.5 10.5L12 15l4.5-4.5M5 19h14",
  edit: "M4.5 19.5l1-4L16.2 4.8a1.6 1.6 0 0 1 2.3 0l.7.7a1.6 1.6 0 0 1 0 2.3L8.5 18.5z",
  group: "M9 11a3.2 3.2 0 1 0 0-6.4A3.2 3.2 0 0 0 9 11zM3 19.5c0-3.3 2.6-5.5 6-5.5s6 2.2 6 5.5M16 5a3 3 0 0 1 0 5.8M17.5 14.4c2.1.7 3.5 2.5 3.5 5.1",
  more: "M4.5 12a.5.5 0 1 0 1 0a.5.5 0 1 0-1 0M11.5 12a.5.5 0 1 0 1 0a.5.5 0 1 0-1 0M18.5 12a.5.5 0 1 0 1 0a.5.5 0 1 0-1 0",
  pin: "M9 4h6l-.8 6 3.3 3.5h-11L9.8 10zM12 13.5V20",
  plus: "M12 5v14M5 12h14",
  reply: "M10 6L4 12l6 6M4.5 12H14c3.5 0 6 2.5 6 6",
  search: "M16 16l4 4M18 11a7 7 0 1 1-14 0 7 7 0 0 1 14 0z",
  send: "M4.5 12L3.5 4.5 21 12 3.5 19.5zM4.5 12H12",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7",
  warn: "M12 8v5M12 16.5h.01M12 3.8l9 16.2H3z",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** One check: sent. Two: it has arrived. */
export function Checks({ count }: { count: 1 | 2 }) {
  return (
    <svg class="icon checks" viewBox="0 0 24 24" aria-hidden="true">
      <path d={count === 1 ? "M5 12.5l4.5 4.5L19 7.5" : "M2 12.5l4.5 4.5L16 7.5M11.5 16l1 1L22 7.5"} />
    </svg>
  );
}

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 48 48" aria-hidden="true">
      <rect width="48" height="48" rx="13" />
      <path d="M13 17a4 4 0 0 1 4-4h14a4 4 0 0 1 4 4v9a4 4 0 0 1-4 4h-8l-6 5.5V30a4 4 0 0 1-4-4z" />
    </svg>
  );
}
