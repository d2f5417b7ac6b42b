import { describe, expect, it } from "vitest";
import { runCli } from "./run-cli.ts";

describe("preceptor", () => {
  it("explains itself with examples and exits 0", async () => {
    const { code, stdout } = await runCli(["--help"]);
    expect(code).toBe(0);
    for (const command of ["serve", "explain", "score", "models", "doctor", "openapi"])
      expect(stdout).toContain(command);
    expect(stdout).toContain("First steps:");
    expect(stdout).toContain("PRECEPTOR_API_KEY");
  });

  it.concurrent.each([["serve"], ["explain"], ["score"], ["models"], ["doctor"], ["openapi"]])(
    "%s --help shows an example",
    async (name) => {
      const { code, stdout } = await runCli([name, "--help"]);
      expect(code).toBe(0);
      expect(stdout).toMatch(/Examples?:\n {2}\$ /);
    },
  );

  it("prints the version of package.json", async () => {
    const { stdout } = await runCli(["--version"]);
    const { version } = (await import("../../package.json", { with: { type: "json" } })).default;
    expect(stdout).toBe(`${version}\n`);
  });

  it("refuses an unknown command with a suggestion and exit code 2", async () => {
    const { code, stderr } = await runCli(["scor"]);
    expect(code).toBe(2);
    expect(stderr).toContain("unknown command 'scor'");
    expect(stderr).toContain("Did you mean score?");
  });

  it.concurrent.each([
    [["explain", "--temperature", "hot"], "It must be a number from 0 to 100"],
    [["explain", "-n", "1.5"], "It must be a whole number"],
    [["score", "--kl", "k2"], "Allowed choices are k1, k3, full, topk_tail"],
    [["models", "temper", "somewhere"], "--temperature"],
  ])("says what is wrong with %j and exits 2", async (args, message) => {
    const { code, stderr } = await runCli(args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  it("asks for missing texts by name, without a stack", async () => {
    const { code, stderr } = await runCli(["explain", "-q", "What is 2 + 2?"]);
    expect(code).toBe(2);
    expect(stderr).toContain("--solution missing");
    expect(stderr).not.toContain("    at ");
  });

  it("says how to start a server when none answers", async () => {
    const { code, stderr } = await runCli(["models", "list", "--url", "http://127.0.0.1:9"]);
    expect(code).toBe(1);
    expect(stderr).toBe(
      'preceptor: No server answers at http://127.0.0.1:9. Start one with "preceptor serve", or name another with --url or PRECEPTOR_URL.\n',
    );
  });
});
