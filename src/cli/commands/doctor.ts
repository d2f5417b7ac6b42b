import { type Command, Option } from "commander";
import type { CliContext } from "../context.ts";
import type { Finding, Status } from "../doctor/check.ts";
import { CliError } from "../errors.ts";
import type { Style } from "../terminal/style.ts";

const DETAILS = `
Looks at: Node.js, memory, disk, ONNX Runtime, accelerators, the data directory, the database and who holds it, the
models found, the port and the model hub. Each line says ok, warn or fail; what is not ok says what to do.
Exit code 1 when anything fails, 0 otherwise (warnings included).

Examples:
  $ preceptor doctor
  $ DATABASE_URL=postgres://user@host/preceptor preceptor doctor --json
`;

export function addDoctor(program: Command, context: () => CliContext): void {
  program
    .command("doctor")
    .summary("is this machine ready, and if not, what to do")
    .description("Examine this machine and its settings the way the server would use them.")
    .option("--json", "print the findings as JSON")
    // What doctor itself runs in a process of its own.
    .addOption(new Option("--probe <device>").hideHelp())
    .addHelpText("after", DETAILS)
    .action((options: { json?: boolean; probe?: string }) => doctor(options, context()));
}

async function doctor(options: { json?: boolean; probe?: string }, context: CliContext): Promise<void> {
  if (options.probe) {
    const [{ multiplyOn }, { PROBE_OK }] = await Promise.all([
      import("../doctor/probe.ts"),
      import("../doctor/machine.ts"),
    ]);
    multiplyOn(options.probe);
    context.out(`${options.probe} ${PROBE_OK}\n`);
    return;
  }
  const { examine } = await import("../doctor/examine.ts");
  const findings: Finding[] = [];
  for await (const finding of examine()) {
    findings.push(finding);
    if (!options.json) context.out(line(finding, context.outStyle));
  }
  const count = (status: Status): number => findings.filter((finding) => finding.status === status).length;
  if (options.json) context.out(`${JSON.stringify({ ok: count("fail") === 0, findings }, null, 2)}\n`);
  const failed = count("fail");
  if (failed > 0) throw new CliError(`${failed} of ${findings.length} checks failed; each says above what to do.`);
  if (!options.json) {
    const warnings = count("warn");
    context.note(warnings === 0 ? "Ready.\n" : `Ready, with ${warnings} warning${warnings > 1 ? "s" : ""}.\n`);
  }
}

const SUBJECT_WIDTH = 14;

function line({ status, subject, found, advice }: Finding, style: Style): string {
  const mark = { ok: style.green("ok  "), warn: style.yellow("warn"), fail: style.red("fail") }[status];
  const next = advice ? `\n${" ".repeat(SUBJECT_WIDTH + 7)}→ ${advice}` : "";
  return `${mark}  ${subject.padEnd(SUBJECT_WIDTH)} ${found}${next}\n`;
}
