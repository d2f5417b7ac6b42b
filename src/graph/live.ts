import type { GraphData } from "./ir.ts";

/**
 * The graph without nodes that no output depends on: the runtime would compute them. Building again what is recomputed
 * makes some, such as a product whose result only the forward pass needed.
 */
export function live(graph: GraphData): GraphData {
  const needed = new Set(graph.outputs.map(({ name }) => name));
  const nodes = [];
  // Builders append, so whoever consumes a value stands behind the node that makes it.
  for (const node of [...graph.nodes].reverse()) {
    if (!node.outputs.some((name) => needed.has(name))) continue;
    nodes.push(node);
    for (const name of node.inputs) needed.add(name);
    for (const attribute of Object.values(node.attributes)) {
      if ("graph" in attribute) for (const name of mentioned(attribute.graph)) needed.add(name);
    }
  }
  return { ...graph, nodes: nodes.reverse() };
}

/** Everything that a branch or a loop's body reads, values of its own among them. */
function mentioned({ nodes, outputs }: GraphData): string[] {
  const inner = nodes.flatMap(({ inputs, attributes }) => [
    ...inputs,
    ...Object.values(attributes).flatMap((attribute) => ("graph" in attribute ? mentioned(attribute.graph) : [])),
  ]);
  return [...inner, ...outputs.map(({ name }) => name)];
}
