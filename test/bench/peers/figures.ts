import { z } from "zod";

/** What is measured of every peer: the same three figures, on the same shapes. */
export interface PeerFigures {
  name: string;
  /** New tokens per second of one sequence. */
  oneStream: number;
  /** New tokens per second of a group on one prompt, all sequences together, the prompt not counted. */
  group: number;
  /** Tokens of a given text per second: prompt evaluation, or log-probs where the peer returns them. */
  prefill: number;
  /** From the prompt to the last token of the group. */
  groupWallSeconds?: number;
}

export interface PeerRun {
  threads: number;
  print: (line: string) => void;
}

/** Lengths in tokens: a question with its solution, an explanation, a text to score; and how many explanations. */
export const PEER_SHAPES = { prompt: 300, newTokens: 64, group: 16, prefill: 512 } as const;

export type PeerShapes = { [name in keyof typeof PEER_SHAPES]: number };

const measured = z.object({
  oneStream: z.number(),
  group: z.number(),
  prefill: z.number(),
  groupWallSeconds: z.number(),
});

/** What a peer's process printed. */
export function figuresOf(name: string, printed: unknown): PeerFigures {
  return { name, ...measured.parse(printed) };
}

export function printFigures({ name, oneStream, group, prefill, groupWallSeconds }: PeerFigures, run: PeerRun): void {
  const wall = groupWallSeconds === undefined ? "" : ` (${groupWallSeconds.toFixed(1)} s with the prompt)`;
  run.print(
    `${name}: one stream ${oneStream.toFixed(1)} tokens/s, group of ${PEER_SHAPES.group} ${group.toFixed(1)}${wall}, ` +
      `${PEER_SHAPES.prefill} given tokens ${prefill.toFixed(0)}`,
  );
}
