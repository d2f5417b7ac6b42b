import { goldenDirectory, openModel } from "./fixture.ts";

/** Exits while its model computes, as a server does on a second Ctrl-C. */
const { model } = await openModel(goldenDirectory("llama"));
const ids = new Int32Array(500).fill(3);
model.logprobs({ sequences: Array.from({ length: 200 }, () => ({ ids })), temperature: 1 }).catch(() => undefined);
setTimeout(() => process.exit(7), 300);
