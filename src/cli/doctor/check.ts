export type Status = "ok" | "warn" | "fail";

export interface Finding {
  status: Status;
  /** What was looked at: `Node.js`, `data directory`. */
  subject: string;
  /** What was found. */
  found: string;
  /** What to do about it; absent when all is well. */
  advice?: string | undefined;
}

export type Check = () => Promise<Finding | Finding[]>;

/** No single check may keep the others waiting longer: a dead network answers within this, or counts as dead. */
const CHECK_LIMIT_MS = 20_000;

export const ok = (subject: string, found: string): Finding => ({ status: "ok", subject, found });
export const warn = (subject: string, found: string, advice: string): Finding => ({
  status: "warn",
  subject,
  found,
  advice,
});
export const bad = (subject: string, found: string, advice: string): Finding => ({
  status: "fail",
  subject,
  found,
  advice,
});

/** Runs one check; an exception or a timeout is a finding, never the end of the examination. */
export async function runCheck(subject: string, check: Check): Promise<Finding[]> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<Finding>((resolve) => {
    timer = setTimeout(
      () =>
        resolve(bad(subject, `no answer within ${CHECK_LIMIT_MS / 1000} s`, "see whether the disk or network hangs")),
      CHECK_LIMIT_MS,
    );
  });
  try {
    return [await Promise.race([check(), limit])].flat();
  } catch (error) {
    return [bad(subject, (error as Error).message, "run again with --debug, and report this if it makes no sense")];
  } finally {
    clearTimeout(timer);
  }
}
