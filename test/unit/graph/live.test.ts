import { expect, test } from "vitest";
import { createGraph } from "../../../src/graph/builder.ts";
import { live } from "../../../src/graph/live.ts";

test("what no output depends on goes; what only a branch reads stays", () => {
  const g = createGraph("g");
  const x = g.input("x", "float", [1]);
  const yes = g.input("yes", "bool", []);
  const read = g.node("Neg", [x], { names: ["read"] });
  g.node("Exp", [g.node("Abs", [x], { names: ["before"] })], { names: ["unused"] });
  const [y] = g.nodes("If", [yes], ["float"], {
    names: ["y"],
    attributes: {
      then_branch: { graph: g.branch((b) => [b.node("Identity", [read])]) },
      else_branch: { graph: g.branch((b) => [b.node("Identity", [x])]) },
    },
  });
  g.output(y!);
  expect(live(g.build()).nodes.flatMap(({ outputs }) => outputs)).toEqual(["read", "y"]);
});
