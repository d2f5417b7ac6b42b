import { fileURLToPath } from "node:url";
import { z } from "zod";
import { type FormatSpec, studentFormat, teacherFormat } from "../../src/rlt/formats.ts";
import { SOLUTION, studentText, THOUGHT, teacherPrompt } from "../../src/rlt/prompts.ts";
import { createTextService } from "../../src/text/client.ts";
import type { TextModel } from "../../src/text/text.ts";
import type { TrainingRow } from "../../src/train/job-deps.ts";
import { runPeer } from "./peers/child.ts";
import { measureTrl } from "./peers/trl.ts";
import { mebibytes } from "./process-memory.ts";
import { LORA } from "./train.ts";

/**
 * A whole step of reinforcement, as a job takes it: sample a group, score it with a student on the same base, advantages,
 * reference, gradients, optimizer. Beside TRL's GRPOTrainer with the same model, prompts and numbers of tokens, whose
 * reward function asks a PyTorch student.
 */
export const RLT_STEP = {
  explanations: 16,
  prompt: 300,
  length: 128,
  temperature: 0.7,
  beta: 0.04,
  /** The first one also opens sessions. */
  steps: 4,
  /** Of the peer, whose steps take minutes. */
  peerSteps: 2,
  learningRate: 2e-5,
} as const;

export const FORMAT: FormatSpec = "r1";

export interface RltStepSettings {
  /** A checkpoint with its tokenizer. */
  directory: string;
  threads: number;
  rows: TrainingRow[];
}

/** Seconds of the fastest step after the first. */
export const rltStepFigures = z.object({
  stepSeconds: z.number(),
  phases: z.object({
    sampling: z.number(),
    scoring: z.number(),
    reference: z.number(),
    forward_backward: z.number(),
    optimizer: z.number(),
  }),
  tokens: z.number(),
  emptyBytes: z.number(),
  peakBytes: z.number(),
});
export type RltStepFigures = z.infer<typeof rltStepFigures>;

const CHILD = fileURLToPath(new URL("./rlt-step-child.ts", import.meta.url));

export async function benchRltStep(
  { directory, threads, peers }: { directory: string; threads: number; peers: boolean },
  print: (line: string) => void,
): Promise<void> {
  const { explanations, prompt, length, steps } = RLT_STEP;
  print("");
  print(
    `one step of rlt: ${explanations} explanations of ${length} tokens of one prompt of ${prompt}, a student on the same base`,
  );
  const texts = createTextService();
  try {
    const text = await texts.open(directory);
    const rows = await Promise.all(Array.from({ length: steps }, (_, step) => rowOf(text, step)));
    const settings: RltStepSettings = { directory, threads, rows };
    const ours = rltStepFigures.parse(
      await runPeer(process.execPath, ["--import", "tsx", CHILD, JSON.stringify(settings)]),
    );
    report("Preceptor", ours, print);
    if (!peers) return;
    const questions = await Promise.all(rows.map((row) => promptsOf(text, row)));
    const theirs = await measureTrl({
      directory,
      threads,
      questions,
      ...LORA,
      ...RLT_STEP,
      steps: RLT_STEP.peerSteps,
      print,
    });
    if (!theirs) return;
    report("TRL float32", theirs, print);
    const memory = (ours.peakBytes - ours.emptyBytes) / (theirs.peakBytes - theirs.emptyBytes);
    print(
      `  Preceptor / TRL: ${(theirs.stepSeconds / ours.stepSeconds).toFixed(2)} × the steps, ${memory.toFixed(2)} × the memory`,
    );
  } finally {
    await texts.close();
  }
}

function report(
  name: string,
  { stepSeconds, phases, tokens, ...bytes }: RltStepFigures,
  print: (line: string) => void,
) {
  const parts = Object.entries(phases);
  const rest = stepSeconds - parts.reduce((sum, [, seconds]) => sum + seconds, 0);
  print(
    `  ${name}: ${stepSeconds.toFixed(2)} s (${[...parts, ["the rest", rest] as const]
      .map(([phase, seconds]) => `${phase.replace("_", "/")} ${seconds.toFixed(2)}`)
      .join(
        ", ",
      )}), ${tokens} tokens sampled, peak memory ${mebibytes(bytes.peakBytes - bytes.emptyBytes)} above the empty process`,
  );
}

/** A question that makes the teacher's prompt as long as it is to be: every digit is a token. */
async function rowOf(text: TextModel, step: number): Promise<TrainingRow> {
  const row = (digits: number): TrainingRow => ({
    question: Array.from({ length: digits }, (_, i) => (i * 7 + step * 3 + ((i * i) % 11)) % 10).join(""),
    solution: String(17 + step),
  });
  const lengthOf = async ({ question, solution }: TrainingRow): Promise<number> =>
    (await text.encodePrompt(teacherPrompt(teacherFormat(FORMAT), question, solution))).ids.length;
  const missing = RLT_STEP.prompt - (await lengthOf(row(1)));
  const found = row(1 + missing);
  if (missing < 0 || (await lengthOf(found)) !== RLT_STEP.prompt)
    throw new Error("no question makes a prompt this long");
  return found;
}

export interface PeerQuestion {
  /** Of the teacher. */
  prompt: string;
  /** What the student reads before and after the explanation, and how many of the last ids are the solution. */
  before: number[];
  after: number[];
  solution: number;
}

async function promptsOf(text: TextModel, { question, solution }: TrainingRow): Promise<PeerQuestion> {
  const teacher = await text.encodePrompt(teacherPrompt(teacherFormat(FORMAT), question, solution));
  const request = studentText(studentFormat(FORMAT), question, solution, "x");
  const at = request.assistant!.findIndex(({ field }) => field === THOUGHT);
  const before = await text.encodePrompt({ ...request, assistant: request.assistant!.slice(0, at) });
  const rest = request.assistant!.slice(at + 1);
  const after = await text.encode(rest.map((part) => part.text).join(""), { parseSpecial: false, addSpecial: false });
  const answer = rest.find(({ field }) => field === SOLUTION)!.text;
  const { ids } = await text.encode(answer, { parseSpecial: false, addSpecial: false });
  return { prompt: teacher.text, before: [...before.ids], after: [...after.ids], solution: ids.length };
}
