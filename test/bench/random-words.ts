import { between } from "./random.ts";

const WORDS =
  "a train leaves at nine and the distance is twelve times seven so we divide both sides by three which gives x equals four " +
  "because every prime above two is odd therefore sum of angles in triangle must be half turn émigré Ω ≤ 3.14 √2 🙂 \n\n";
const WORD_LIST = WORDS.split(" ");

/** So many words of a small vocabulary, among them what tokenizers cut into bytes: a text that no other is equal to. */
export const randomWords = (next: () => number, least: number, most: number): string =>
  `q ${Array.from({ length: between(next, least, most) }, () => WORD_LIST[between(next, 0, WORD_LIST.length - 1)]).join(" ")}`;
