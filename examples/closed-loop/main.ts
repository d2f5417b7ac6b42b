/**
 * npx tsx examples/closed-loop/main.ts TEACHER STUDENT DATASET HELD_OUT_DATASET [ROUNDS]
 *
 * TEACHER and STUDENT are registered models, the datasets ids of uploaded ones. PRECEPTOR_URL and PRECEPTOR_API_KEY name the
 * server.
 */
import { connect } from "./api.ts";
import { closedLoop } from "./loop.ts";

const [teacher, student, dataset, heldOut, rounds = "3"] = process.argv.slice(2);
const print = (line: string): void => void process.stdout.write(`${line}\n`);

if (!teacher || !student || !dataset || !heldOut) {
  print("usage: main.ts TEACHER STUDENT DATASET HELD_OUT_DATASET [ROUNDS]");
  process.exitCode = 2;
} else {
  const api = connect(process.env.PRECEPTOR_URL ?? "http://127.0.0.1:8080", process.env.PRECEPTOR_API_KEY);
  const loop = { rounds: Number(rounds), teacher, student, dataset, heldOut, answer: "math" };
  for (const { round, accuracy } of await closedLoop(api, loop, print)) {
    print(`round ${round}: ${accuracy.before} -> ${accuracy.after}`);
  }
}
