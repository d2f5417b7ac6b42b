import type { DownloadProgress } from "./types.ts";

/** What is needed of `process.stderr`. */
export interface ProgressStream {
  isTTY?: boolean | undefined;
  columns?: number | undefined;
  write(text: string): unknown;
}

export interface ProgressReporter {
  report(progress: DownloadProgress): void;
  /** Ends the line of a bar that is being drawn. */
  end(): void;
}

/** A terminal is redrawn ten times a second at most; a log gets a line per second and file. */
const BAR_INTERVAL_MS = 100;
const LOG_INTERVAL_MS = 1000;
const BAR_WIDTH = 24;

/** One line that redraws itself on a terminal, JSON lines elsewhere. */
export function createProgressReporter(stream: ProgressStream, now: () => number = Date.now): ProgressReporter {
  const interval = stream.isTTY ? BAR_INTERVAL_MS : LOG_INTERVAL_MS;
  let file: string | undefined;
  let last = Number.NEGATIVE_INFINITY;
  let started = { at: 0, received: 0 };
  let open = false;

  function end(): void {
    if (open) stream.write("\n");
    open = false;
    file = undefined;
  }

  return {
    report(progress) {
      const time = now();
      if (progress.file !== file) {
        end();
        file = progress.file;
        started = { at: time, received: progress.received };
        last = Number.NEGATIVE_INFINITY;
      }
      const complete = progress.received >= progress.total;
      if (!complete && time - last < interval) return;
      last = time;
      if (!stream.isTTY) {
        stream.write(`${JSON.stringify({ event: "download", ...progress })}\n`);
        return;
      }
      const seconds = (time - started.at) / 1000;
      const rate = seconds > 0 ? (progress.received - started.received) / seconds : 0;
      stream.write(`\r${barLine(progress, rate, stream.columns ?? 80)}\u001b[K`);
      open = true;
      if (complete) end();
    },
    end,
  };
}

function barLine({ file, received, total }: DownloadProgress, rate: number, columns: number): string {
  const share = total > 0 ? Math.min(1, received / total) : 1;
  const filled = Math.round(share * BAR_WIDTH);
  const bar = `${"█".repeat(filled)}${"░".repeat(BAR_WIDTH - filled)}`;
  const left = rate > 0 && received < total ? `  ${duration((total - received) / rate)} left` : "";
  const speed = rate > 0 ? `  ${size(rate)}/s` : "";
  const line = `${file}  ${bar} ${String(Math.floor(share * 100)).padStart(3)} %  ${size(received)} of ${size(total)}${speed}${left}`;
  return line.length < columns ? line : line.slice(0, Math.max(0, columns - 1));
}

function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.ceil(whole / 60)} min` : `${(whole / 3600).toFixed(1)} h`;
}
