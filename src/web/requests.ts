/** Commands to copy, for models that are really there. */
import type { PageContent } from "./page.ts";

export interface Request {
  title: string;
  command: string;
}

const QUESTION = "What is 17 + 25?";
const SOLUTION = "42";
const EXPLANATION = "Add the tens: 10 + 20 = 30. Add the ones: 7 + 5 = 12. Together 30 + 12 = 42.";

export function firstRequests({ models, origin, secured }: PageContent): Request[] {
  const post = (path: string, body: object, flags = ""): string =>
    [
      `curl ${flags}${origin}${path} \\`,
      ...(secured ? [`  -H "Authorization: Bearer $PRECEPTOR_API_KEY" \\`] : []),
      `  -H "Content-Type: application/json" \\`,
      `  -d '${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ").replaceAll("'", "'\\''")}'`,
    ].join("\n");
  const withRole = (role: "teacher" | "student"): string | undefined =>
    (models?.find((m) => m.roles.includes(role) && m.status === "ready") ?? models?.find((m) => m.roles.includes(role)))
      ?.id;

  const teacher = withRole("teacher");
  const student = withRole("student");
  const question = { question: QUESTION, solution: SOLUTION };
  const requests: Request[] = [];
  if (teacher) {
    const body = { teacher, ...question, max_tokens: 200, stream: true };
    requests.push({ title: "Let the teacher explain, token by token", command: post("/v1/explanations", body, "-N ") });
  } else {
    const body = { id: "my-teacher", model: "my-checkpoint" };
    requests.push({ title: "Register a teacher from a models directory", command: post("/v1/teachers", body) });
  }
  if (student) {
    const body = { student, items: [{ ...question, explanation: EXPLANATION }], include: ["baseline"] };
    requests.push({ title: "Let the student score an explanation", command: post("/v1/scores", body) });
  } else {
    const body = { id: "my-student", model: "my-checkpoint" };
    requests.push({ title: "Register a student", command: post("/v1/students", body) });
  }
  return requests;
}
