import { assertSafeToListen, type Config, loadConfig } from "../../config.ts";
import { bad, type Check, type Finding, ok, runCheck, warn } from "./check.ts";
import { accelerators, disk, memory, nodeVersion, onnxRuntime } from "./machine.ts";
import { localModels } from "./models.ts";
import { hub, portFree } from "./network.ts";
import { dataDirectory, embeddedDatabase, postgresDatabase } from "./storage.ts";

/** All findings, in an order in which the first failure is the one to mend first. Checks run side by side. */
export async function* examine(): AsyncGenerator<Finding> {
  let config: Config;
  try {
    config = loadConfig(undefined, { serving: false });
  } catch (error) {
    yield bad("settings", (error as Error).message, "correct these environment variables");
    return;
  }
  yield settings(config);
  const checks: [string, Check][] = [
    ["Node.js", nodeVersion],
    ["memory", memory],
    ["ONNX Runtime", onnxRuntime],
    ["accelerators", accelerators],
    ["data directory", () => dataDirectory(config.dataDir)],
    ["disk", () => disk(config.dataDir)],
    ["database", () => (config.databaseUrl ? postgresDatabase(config.databaseUrl) : embeddedDatabase(config.dataDir))],
    ["models", () => localModels(config.modelsDirs)],
    ["port", () => portFree(config.host, config.port)],
    ["model hub", () => hub(config.hub.endpoint, config.hub.offline)],
  ];
  const running = checks.map(([subject, check]) => runCheck(subject, check));
  for (const findings of running) yield* await findings;
}

/** What the server would refuse to start with, then what it would only warn of. */
function settings(config: Config): Finding {
  try {
    assertSafeToListen(config);
  } catch (error) {
    return bad("settings", (error as Error).message, "correct these environment variables");
  }
  return config.warnings.length > 0
    ? warn("settings", config.warnings.join(" "), "correct or remove these environment variables")
    : ok("settings", "the environment is understood");
}
