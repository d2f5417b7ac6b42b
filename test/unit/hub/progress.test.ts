import { expect, test } from "vitest";
import { createProgressReporter } from "../../../src/model/hub/progress.ts";

function run(isTTY: boolean, steps: readonly [time: number, file: string, received: number][]): string {
  let time = 0;
  let written = "";
  const stream = { isTTY, columns: 120, write: (text: string) => (written += text) };
  const reporter = createProgressReporter(stream, () => time);
  for (const [at, file, received] of steps) {
    time = at;
    reporter.report({ file, received, total: 4_000_000 });
  }
  reporter.end();
  return written;
}

test("a terminal gets one line per file that redraws itself", () => {
  const written = run(true, [
    [0, "a", 0],
    [50, "a", 500_000],
    [1000, "a", 1_000_000],
    [2000, "a", 4_000_000],
    [2001, "b", 1_000_000],
  ]);
  const lines = written.split("\n");
  expect(lines).toHaveLength(3); // a, b, and nothing after the last newline
  expect(lines[0]!.split("\r")).toHaveLength(4); // before the first \r, then 0, 1 MB, 4 MB; 50 ms was too soon
  expect(lines[0]).toContain("25 %  1.0 MB of 4.0 MB  1.0 MB/s  3 s left");
  expect(lines[0]).toContain("100 %");
  expect(lines[1]).toContain("b  ");
});

test("elsewhere each line is JSON, one per second and file, and the last byte is always told", () => {
  const written = run(false, [
    [0, "a", 0],
    [500, "a", 1_000_000],
    [900, "a", 4_000_000],
    [901, "b", 7],
  ]);
  const lines = written
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines).toEqual([
    { event: "download", file: "a", received: 0, total: 4_000_000 },
    { event: "download", file: "a", received: 4_000_000, total: 4_000_000 },
    { event: "download", file: "b", received: 7, total: 4_000_000 },
  ]);
});
