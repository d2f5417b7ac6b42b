/** The style sheet of a report, inside the page, so that the file can be sent to somebody. */
import { createHash } from "node:crypto";
import { PALETTE } from "../web/style.ts";
import { surpriseRules } from "./surprise.ts";

export const STYLE = `${PALETTE}* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.8rem; line-height: 1.25; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 46rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .86em; overflow-wrap: anywhere; }
pre { margin: 0; padding: .8rem 1rem; white-space: pre-wrap; background: var(--code); border-radius: 8px; line-height: 1.6; }
.kind { margin: 0 0 .2rem; color: var(--soft); text-transform: uppercase; letter-spacing: .06em; font-size: .8rem; }
.note { color: var(--soft); }
.finding { font-size: 1.1rem; }
.warning { padding: .6rem .9rem; border-radius: 8px; background: var(--warn-soft); color: var(--warn); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); gap: .7rem 1.25rem; margin: 1rem 0; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
dl .long { grid-column: 1 / -1; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem .9rem .6rem; border: 1px solid var(--line); border-radius: 10px; background: var(--card); min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .75rem; font-size: .9rem; margin-bottom: .4rem; }
figcaption b { overflow-wrap: anywhere; }
figcaption span { color: var(--soft); }
figure svg { display: block; width: 100%; height: auto; }
.figures.pair { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); align-items: start; }
.figures.pair figure { max-width: 30rem; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
.bar { fill: var(--accent); }
.axis, .grid { stroke: var(--line); stroke-width: 1; }
.zero { stroke: var(--ink); stroke-width: 1; }
.median { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.interval { stroke: var(--soft); stroke-width: 3; stroke-linecap: round; }
circle { fill: var(--soft); }
.main .interval { stroke: var(--accent); }
.main circle { fill: var(--accent); }
.main text { fill: var(--ink); font-weight: 600; }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.l0 { stroke: var(--accent); }
.l1 { stroke: var(--warn); stroke-dasharray: 6 3; }
.l2 { stroke: var(--good); stroke-dasharray: 2 3.5; }
.l3 { stroke: var(--soft); stroke-dasharray: 9 3 2 3; }
.keys { display: flex; flex-wrap: wrap; gap: 0 .8rem; }
.key { display: inline-flex; align-items: center; gap: .35rem; }
.key svg { display: inline; width: 24px; height: 8px; }
.numbers { margin: .3rem 0 0; color: var(--soft); font-size: .82rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .8rem; text-align: left; border-top: 1px solid var(--line); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: .85rem; white-space: nowrap; }
tbody th { font-weight: 500; min-width: 9rem; }
th code { overflow-wrap: normal; }
.number { text-align: right; white-space: nowrap; }
td.text { min-width: 12rem; }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
summary { padding: .55rem .9rem; cursor: pointer; overflow-wrap: anywhere; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
details > div, details > pre { margin: 0 .9rem .9rem; }
details h4 { margin: .9rem 0 .3rem; color: var(--soft); font-size: .85rem; font-weight: 500; }
.parts { color: var(--soft); font-size: .85rem; font-variant-numeric: tabular-nums; }
.painted span { border-radius: 2px; }
.legend span[class] { padding: .1rem .4rem; border-radius: 4px; white-space: nowrap; font-size: .85rem; }
.legend { max-width: none; color: var(--soft); line-height: 2; }
.legend .s0 { border: 1px solid var(--line); }
ul.lineage { margin: .5rem 0; padding-left: 1.2rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
${surpriseRules("light")}
@media (prefers-color-scheme: dark) {
${surpriseRules("dark")}
}
@media (max-width: 40rem) { main { padding: 1rem .9rem 3rem; } th, td { padding: .4rem .6rem; } }
@media print { details { break-inside: avoid; } }
`;

/** Nothing is loaded and nothing runs: the style sheet above, by its hash, is all that a browser takes from the page. */
export const POLICY = `default-src 'none'; style-src 'sha256-${createHash("sha256").update(STYLE).digest("base64")}'; img-src data:; base-uri 'none'; form-action 'none'`;
