import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

test("a process that exits in the middle of a computation ends with its own code, not with an abort", async () => {
  const child = spawn(
    process.execPath,
    ["--import", "tsx", fileURLToPath(new URL("./exit-child.ts", import.meta.url))],
    { stdio: "ignore" },
  );
  const ended = await new Promise((resolve) => child.on("exit", (code, signal) => resolve({ code, signal })));
  expect(ended).toEqual({ code: 7, signal: null });
});
