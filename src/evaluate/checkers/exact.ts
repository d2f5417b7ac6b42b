import { type Checker, shorten } from "./checker.ts";

/** The same text but for white space: around it none counts, within it any is one space. */
export const exact: Checker = {
  check({ answer, solution }) {
    const given = oneSpaced(answer);
    return { correct: given === oneSpaced(solution), extracted: given === "" ? null : shorten(given) };
  },
  fault: ({ solution }) => (oneSpaced(solution) === "" ? "has an empty solution" : null),
};

export const oneSpaced = (text: string): string => text.trim().replace(/\s+/g, " ");
