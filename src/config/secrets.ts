import { readFileSync } from "node:fs";
import type { Env } from "./variables.ts";

/** `PRECEPTOR_CREDENTIAL_FLEET` (or `…_FILE`) is the secret that registrations name `fleet`. */
export const CREDENTIAL = "PRECEPTOR_CREDENTIAL_";
/** A shorter key can be guessed; it is accepted with a warning, for trying things out. */
const WEAK_KEY_LENGTH = 16;

/** The API key and credentials, from the variable itself or from the file that `<variable>_FILE` names. */
export function readSecrets(env: Env, problems: string[]): Map<string, string> {
  const secrets = new Map<string, string>();
  for (const [variable, value] of Object.entries(env)) {
    const name = variable.replace(/_FILE$/, "");
    if (value === undefined || (name !== "PRECEPTOR_API_KEY" && !name.startsWith(CREDENTIAL))) continue;
    if (name !== variable && env[name] !== undefined) {
      problems.push(`${variable}: ${name} is set too; keep one of them`);
      continue;
    }
    const secret = name === variable ? value.trim() : readSecretFile(variable, value, problems);
    if (secret === undefined) continue;
    if (/\s/.test(secret)) problems.push(`${variable}: must not contain white space`);
    else secrets.set(name, secret);
  }
  return secrets;
}

function readSecretFile(variable: string, file: string, problems: string[]): string | undefined {
  try {
    const secret = readFileSync(file, "utf8").trim();
    if (secret !== "") return secret;
    problems.push(`${variable}: ${file} is empty`);
  } catch (error) {
    problems.push(`${variable}: ${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
  return undefined;
}

export function weakKey(key: string | undefined): string[] {
  if (key === undefined || key.length >= WEAK_KEY_LENGTH) return [];
  return [`PRECEPTOR_API_KEY has ${key.length} characters and can be guessed; take at least ${WEAK_KEY_LENGTH}.`];
}
