import { createServer } from "node:net";
import { bad, type Finding, ok, warn } from "./check.ts";

export async function portFree(host: string, port: number): Promise<Finding> {
  const subject = "port";
  if (port === 0) return ok(subject, `any free one on ${host}`);
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error: NodeJS.ErrnoException) => {
      resolve(
        error.code === "EADDRINUSE"
          ? warn(
              subject,
              `${host}:${port} is taken`,
              "if that is Preceptor, all is well; else stop what holds it or set PRECEPTOR_PORT",
            )
          : bad(subject, `${host}:${port} cannot be used (${error.code})`, "set PRECEPTOR_HOST and PRECEPTOR_PORT"),
      );
    });
    server.listen(port, host, () => server.close(() => resolve(ok(subject, `${host}:${port} is free`))));
  });
}

/** A hub that takes longer to say anything is of no use for downloads either. */
const HUB_TIMEOUT_MS = 5_000;

export async function hub(endpoint: string, offline: boolean, fetcher: typeof fetch = fetch): Promise<Finding> {
  const subject = "model hub";
  if (offline) return ok(subject, "offline by HF_HUB_OFFLINE; hf: models come from the cache");
  try {
    const response = await fetcher(endpoint, { method: "HEAD", signal: AbortSignal.timeout(HUB_TIMEOUT_MS) });
    return response.status < 500
      ? ok(subject, `${endpoint} answers`)
      : warn(
          subject,
          `${endpoint} answers with status ${response.status}`,
          "try later, or set HF_ENDPOINT to a mirror",
        );
  } catch {
    return warn(
      subject,
      `${endpoint} cannot be reached`,
      "local models work without it; for hf: models check the network, or set HF_ENDPOINT",
    );
  }
}
