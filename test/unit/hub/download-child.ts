/** Run as a process of its own: downloads org/model into a cache and prints the snapshot directory. */
import { resolveHub } from "../../../src/model/hub/resolve.ts";

const [cacheDir = "", endpoint = ""] = process.argv.slice(2);
resolveHub({ repo: "org/model" }, { cacheDir, endpoint, offline: false, fetch: globalThis.fetch }).then(
  (snapshot) => process.stdout.write(snapshot),
  (error: Error) => {
    process.stderr.write(error.message);
    process.exitCode = 1;
  },
);
