/** Opens the database that argv names (data directory, URL) and prints what came of it; ends when its input does. */
import { openDatabase } from "../../../src/db/database.ts";

const [, , dataDir = "", databaseUrl] = process.argv;
try {
  const database = await openDatabase({ dataDir, databaseUrl });
  process.stdout.write("open\n");
  for await (const _ of process.stdin);
  await database.close();
  process.stdout.write("closed\n");
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  process.stdout.write(`${code}: ${message}\n`);
}
