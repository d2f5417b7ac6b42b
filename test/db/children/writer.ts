/** Opens the embedded database in argv[2] and inserts for ever, printing every id after the database acknowledged it. */
import { openDatabase } from "../../../src/db/database.ts";
import { createExplanationStore } from "../../../src/db/explanation-store.ts";

const database = await openDatabase({ dataDir: process.argv[2]! });
process.stdout.write("open\n");
const store = createExplanationStore(database.db);
for (let i = 0; ; i++) {
  const made = await store.insert({
    id: `${process.pid}-${i}`,
    status: "completed",
    teacherId: "t",
    teacherVersion: 1,
    question: "why? ".repeat(200),
    solution: "because",
    sampling: { i },
  });
  process.stdout.write(`${made.id}\n`);
}
