import { resolve } from "node:path";
import type { Command } from "commander";
import type { CliContext } from "../context.ts";

export function addOpenapi(program: Command, context: () => CliContext): void {
  program
    .command("openapi")
    .summary("write the OpenAPI 3.1 document of the API")
    .description("Write openapi.json and openapi.yaml, generated from the routes. Needs no server.")
    .option("--out <directory>", "where they go", "openapi")
    .addHelpText("after", "\nExample:\n  $ preceptor openapi --out /tmp/api && ls /tmp/api\n")
    .action(async ({ out }: { out: string }) => {
      const { writeOpenapi } = await import("../openapi.ts");
      await writeOpenapi(resolve(out));
      context().note(`wrote openapi.json and openapi.yaml to ${resolve(out)}\n`);
    });
}
