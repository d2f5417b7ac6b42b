import { randomBytes } from "node:crypto";

/** Every prefix of an id that the server makes up (teachers and students carry the caller's slug instead). */
export type IdPrefix =
  | "expl"
  | "score"
  | "tjob"
  | "djob"
  | "eval"
  | "ds"
  | "file"
  | "ckpt"
  | "evt"
  | "sess"
  | "key"
  | "req"
  | "cmpl"
  | "chatcmpl";

/** 32 symbols without i, l, o, u: five bits each, nothing to misread, no words. */
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
/** 24 symbols = 120 random bits: no collisions, not guessable. */
const ID_SYMBOLS = 24;

/** `newId("expl")` → `expl_7d1m…` */
export function newId(prefix: IdPrefix, random: (bytes: number) => Uint8Array = randomBytes): string {
  let id = `${prefix}_`;
  for (const byte of random(ID_SYMBOLS)) id += ALPHABET[byte & 31];
  return id;
}
