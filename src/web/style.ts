/** Colours of every page, light and dark. */
export const PALETTE = `
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2430; --soft: #5b6575; --line: #e3e0d8;
  --accent: #1f5fbf; --accent-soft: #e6eefb; --good: #1d7a46; --good-soft: #e2f3e8; --warn: #96610a; --warn-soft: #fbefd6;
  --code: #f4f2ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12151b; --card: #191d25; --ink: #e7eaf0; --soft: #9aa5b5; --line: #2b313c;
    --accent: #86b4ff; --accent-soft: #1e2b45; --good: #7fd6a2; --good-soft: #17301f; --warn: #eabf6c; --warn-soft: #352a14;
    --code: #0e1116;
  }
}
`;

/** The start page's style sheet: system fonts, two colour schemes, nothing loaded from elsewhere. */
export const STYLE = `${PALETTE}* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main, footer { max-width: 52rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding: 3.5rem 0 1rem; }
h1 { margin: 0; font-size: 2.25rem; line-height: 1.2; letter-spacing: -0.02em; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.2rem; }
h3 { margin: 0; font-size: .95rem; font-weight: 600; }
p { margin: .5rem 0; }
.lead { color: var(--soft); font-size: 1.1rem; max-width: 42rem; }
a { color: var(--accent); text-underline-offset: .15em; }
nav { display: flex; flex-wrap: wrap; gap: .6rem; margin-top: 1.4rem; }
nav a {
  padding: .4rem .95rem; border: 1px solid var(--line); border-radius: 999px;
  background: var(--card); text-decoration: none; font-size: .95rem;
}
nav a:hover { border-color: var(--accent); }
nav a.main { background: var(--accent); border-color: var(--accent); color: var(--paper); font-weight: 600; }
ol.flow { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; list-style: none; margin: 2rem 0 0; padding: 0; }
ol.flow li { border: 1px solid var(--line); border-radius: 10px; background: var(--card); padding: .8rem .9rem; font-size: .9rem; color: var(--soft); }
ol.flow b { display: block; color: var(--ink); }
@media (max-width: 44rem) { ol.flow { grid-template-columns: 1fr 1fr; } header { padding-top: 2rem; } h1 { font-size: 1.8rem; } }
.card { border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
ul.models { list-style: none; margin: 0; padding: 0; }
ul.models li { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem .6rem; padding: .6rem 1rem; border-top: 1px solid var(--line); }
ul.models li:first-child { border-top: 0; }
ul.models code { font-size: 1rem; margin-right: auto; overflow-wrap: anywhere; }
.tag { padding: .05rem .6rem; border-radius: 999px; font-size: .8rem; background: var(--accent-soft); color: var(--accent); }
.tag.ready { background: var(--good-soft); color: var(--good); }
.tag.failed, .tag.loading { background: var(--warn-soft); color: var(--warn); }
.tag.unloaded { background: none; border: 1px solid var(--line); color: var(--soft); }
.request { margin-top: 1rem; overflow: hidden; }
.request > div { display: flex; align-items: center; justify-content: space-between; gap: 1rem; padding: .55rem .6rem .55rem 1rem; }
pre { margin: 0; padding: .9rem 1rem; overflow-x: auto; background: var(--code); border-top: 1px solid var(--line); line-height: 1.5; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { font-size: .85rem; }
button {
  font: inherit; font-size: .85rem; color: var(--ink); background: none; cursor: pointer;
  border: 1px solid var(--line); border-radius: 7px; padding: .2rem .75rem;
}
button:hover { border-color: var(--accent); color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.note { color: var(--soft); font-size: .92rem; }
.empty { padding: .9rem 1rem; color: var(--soft); }
footer { margin-top: 3rem; padding-top: 1rem; padding-bottom: 3rem; color: var(--soft); font-size: .9rem; }
footer a { color: inherit; }
`;
